import json

import pytest
from test_ply import some

from splat_esd.errors import UsageError
from splat_esd.formats.ply import write_ply
from splat_esd.formats.spz import pack_spz, write_spz
from splat_esd.runs.folder import RunFolder
from splat_esd.runs.summary import describe, read_result

CONFIG = """
prompt: a corgi
negative_prompt: ""
seed: 3
quality: {name: draft}
guidance: {name: esd, lambda: 0.5, cfg_scale: null}
cameras: {batch_size: 4}
a_key_of_another_version: true
"""


@pytest.fixture
def run(tmp_path):
    """A folder as a run leaves it."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    facts = {
        "prior": {"name": "zoo", "revision": None},
        "device": "cpu",
        "versions": {"torch": "2"},
    }
    (tmp_path / "run.json").write_text(json.dumps(facts))
    lines = [{"step": s, "score_norm": 1 / s, "gaussians": s, "seconds": s} for s in (5, 10)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines) + '{"st')
    write_ply(some(), tmp_path / "splat.ply")
    for step in (0, 5, 10):
        write_spz(some(seed=step), RunFolder(tmp_path).timeline_file(step))
    return tmp_path


def test_a_run_tells_how_it_was_made_and_grew(run):
    result = describe(run / "splat.ply")
    assert result.title == "a corgi (esd, lambda 0.5, seed 3)"
    wanted = {"prompt": "a corgi", "guidance": "esd, lambda 0.5", "prior": "zoo", "steps": "10"}
    assert wanted.items() <= result.facts.items()
    assert result.facts["training"] == "10 s on cpu"
    assert "CFG scale" not in result.facts and "negative prompt" not in result.facts
    assert result.settings == CONFIG
    assert result.curves["score norm"] == [(5, 0.2), (10, 0.1)]
    assert [frame.step for frame in result.frames] == [0, 5, 10]


def test_a_result_ends_with_its_splats_and_shows_its_pictures(run):
    (run / "sheet.png").write_bytes(b"a picture")
    result = read_result(run)
    assert [frame.step for frame in result.frames] == [0, 5, 10]
    assert result.frames[-1].label == "step 10"
    assert result.frames[-1].spz != pack_spz(some(seed=10)), "not that of the timeline"
    assert result.pictures == {"sheet": run / "sheet.png"}
    assert result.ball.radius > 0


def test_an_evaluation_is_told_as_numbers(run):
    report = {"janus": {"free": True, "faces": 1, "front": 4}, "clip": None, "seed": 3}
    report |= {"inception": {"quality": 1.23456, "classifier": "zoo judge"}}
    (run / "evaluation.json").write_text(json.dumps(report))
    scores = describe(run / "splat.ply").scores
    assert scores == {"janus free": "true", "janus faces": "1", "inception quality": "1.235"}


def test_a_file_by_itself_has_a_name_only(run):
    path = write_ply(some(), run / "cat.ply")
    result = read_result(path)
    assert (result.title, dict(result.facts), result.frames[0].label) == (
        "cat.ply",
        {},
        "the splats",
    )


def test_a_folder_without_splats_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"holds no splat\.ply .* go on with resume="):
        read_result(tmp_path)


def test_a_damaged_configuration_is_named(run):
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(UsageError, match=r"config.yaml is not readable as YAML"):
        describe(run / "splat.ply")
