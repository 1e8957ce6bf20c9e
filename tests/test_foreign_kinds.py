"""What people's files look like, by kind, and the tests that hold each kind right; and a few whole
ways through the program with other files of these kinds.
"""

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_read_splats import columns, object_like, written

from splat_esd.cli.main import main
from splat_esd.formats.ply import write_ply
from splat_esd.gaussians import Gaussians

KINDS = {
    "infinities that mean something, a few bad rows": [
        "test_meaningful_infinities_are_kept",
        "test_a_few_rows_that_are_not_finite_are_dropped_and_counted",
        "test_a_file_of_mostly_broken_rows_is_refused",
    ],
    "one splat in other spellings": [
        "test_every_spelling_of_a_splat_gives_that_splat",
        "test_the_filter_of_mip_splatting_is_applied",
        "test_a_flat_splat_gets_a_small_third_scale",
        "test_harmonics_that_are_not_whole_are_cut_to_a_whole_degree",
    ],
    "containers": [
        "test_every_container_is_read_by_its_content",
        "test_checkpoints_of_gsplat_are_read_without_running_code",
        "test_what_gsplat_compresses_is_read",
        "test_a_model_folder_gives_its_last_iteration",
        "test_what_is_not_read_is_named_with_the_way_out",
    ],
    "the header's text": ["test_letters_in_a_comment_are_no_fault"],
    "which way is up": [
        "test_the_file_is_believed_about_its_axis",
        "test_a_foreign_file_is_taken_as_y_down",
    ],
    "scale and place": [
        "test_a_round_trip_keeps_what_the_format_can_hold",
        "test_500_km_off_the_origin_a_round_trip_is_as_near_as_the_warning_says",
        "test_far_off_the_origin_double_is_kept_and_float_is_told",
        "test_a_sky_and_floaters_do_not_move_the_picture",
        "test_a_start_outside_the_unit_ball_is_moved_into_it",
        "test_a_sky_is_cropped_and_the_object_fills_the_sheet",
    ],
    "a prior that loads but cannot run": [
        "test_what_cannot_run_is_refused_in_one_line",
        "test_a_distilled_model_is_refused_by_its_name",
        "test_a_refused_prior_leaves_no_folder_of_a_run",
    ],
    "finding weights": [
        "test_a_hub_prior_that_is_nowhere_says_how_to_get_it",
        "test_a_damaged_prior_is_refused_in_one_line",
    ],
    "text that is cut off": [
        "test_a_prompt_too_long_for_the_tokenizer_keeps_the_words_of_the_view"
    ],
    "guessing at points": [
        "test_every_text_form_gives_the_points_and_their_colors",
        "test_normals_are_no_colors",
        "test_point_e_and_colmap_are_read",
        "test_a_mesh_is_sampled_evenly",
    ],
    "overwriting, dropping": [
        "test_strange_columns_are_named_as_dropped",
        "test_the_source_is_never_written_over",
    ],
    "what is said of it": [
        "test_a_damaged_line_of_numbers_does_not_stop_an_export",
        "test_an_earlier_versions_config_file_is_filled_from_the_defaults",
    ],
}


def test_every_kind_has_its_tests():
    names = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    missing = [test for tests in KINDS.values() for test in tests if test not in names]
    assert not missing


def under_a_sky() -> Gaussians:
    """Returns an object, and around it a shell of large splats, fifty times as far."""
    inner, outer = object_like(400), object_like(200)
    away = 50 * torch.nn.functional.normalize(outer.means, dim=1)
    sky = replace(outer, means=away, log_scales=torch.full_like(outer.log_scales, 1.0))
    return Gaussians.cat([inner, sky])


def test_a_sky_is_cropped_and_the_object_fills_the_sheet(tmp_path, capsys):
    source = write_ply(under_a_sky(), tmp_path / "scan.ply")
    out = tmp_path / "out"
    asked = ["export", f"from={source}", f"out={out}", "import.crop=auto"]
    assert main([*asked, "formats=[sheet]", "export.transparent=true", "export.size=128"]) == 0
    assert "import.crop=auto dropped 200 of 600" in " ".join(capsys.readouterr().err.split())
    alpha = np.asarray(Image.open(out / "sheet.png"))[..., 3]
    first = alpha[:64, :64] > 128
    assert 0.15 < first.mean() < 0.8


def test_the_source_is_never_written_over(tmp_path, capsys):
    source = write_ply(object_like(40), tmp_path / "splat.ply")
    before = source.read_bytes()
    assert main(["export", f"from={source}", f"out={tmp_path}", "formats=[ply]"]) == 2
    assert source.read_bytes() == before
    assert str(tmp_path) in capsys.readouterr().err.replace("\n", "")


def test_a_damaged_line_of_numbers_does_not_stop_an_export(tmp_path):
    write_ply(object_like(40), tmp_path / "splat.ply")
    (tmp_path / "config.yaml").write_text("prompt: a corgi\n")
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished"}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "seconds": 1}\n{"step": 2')
    assert main(["export", f"from={tmp_path}", f"out={tmp_path / 'out'}", "formats=[viewer]"]) == 0
    assert "a corgi" in (tmp_path / "out" / "viewer.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["export", "init"])
def test_other_mixed_files_go_through_the_program(command: str, tmp_path, capsys):
    table = columns(tmp_path / "plain.ply")
    table["opacity"][:2], table["x"][4] = (np.inf, -np.inf), np.nan
    table = {f"scalar_{n}" if n[0] in "sro" else n: v for n, v in table.items()}
    path = written(tmp_path / "Häß 猫.ply", table, ("Vertical Axis: z", "by NAME"))
    path.write_bytes(path.read_bytes().replace(b"NAME", "Jürgen".encode("latin-1")))
    out = tmp_path / "out"
    if command == "export":
        code = main(["export", f"from={path}", f"out={out}", "formats=[ply,spz]"])
    else:
        asked = ["prompt=a corgi", "init=ply", f"init.path={path}", f"out={out}", "steps=1"]
        more = ["density=none", "processes=1", "cameras.batch_size=1", "export.formats=[ply]"]
        code = main([*asked, *more])
    said = " ".join(capsys.readouterr().err.split())
    assert code == 0, said
    assert "1 of 40 splats held NaN or infinity and were dropped" in said
    assert "2 opacities are exactly 0 or 1" in said and "Traceback" not in said
