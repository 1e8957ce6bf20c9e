"""The benchmark: honest counts, repeatable scenes, a command that runs to its end."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from splat_esd.bench import machine
from splat_esd.bench.memory import memory_growth
from splat_esd.bench.pairs import count_pairs
from splat_esd.bench.report import SCENES, TABLES, table_lines
from splat_esd.bench.scenes import FILLED, OPACITIES, Scene, short
from splat_esd.bench.step import _median_step, kinds_of_runs, parts_of_a_step
from splat_esd.bench.timing import Job, alternate, summarise
from splat_esd.cli import main as cli
from splat_esd.config.commands import BenchRasterArguments, read_arguments
from splat_esd.errors import EnvironmentProblem
from splat_esd.rasterize import rasterize, reference

ASSET = Path(__file__).parent.parent / "assets" / "bench-raster.json"
POPEN = subprocess.Popen
README = Path(__file__).parent.parent / "kernels" / "README.md"


def count_one_by_one(scene: Scene) -> int:
    """Walks along every pixel's ray in plain Python."""
    stage, pairs = scene.build(), 0
    splats = reference.project(
        stage.gaussians,
        stage.cameras,
        near_plane=0.01,
        far_plane=1e10,
        eps2d=0.3,
        antialiased=False,
    )
    for view in range(scene.cameras):
        order = splats.depths[view].argsort(stable=True).tolist()
        means, conics = splats.means2d[view].tolist(), splats.conics[view].tolist()
        opacities, radii = splats.opacities[view].tolist(), splats.radii[view, :, 0].tolist()
        for pixel in range(scene.size**2):
            y, x = divmod(pixel, scene.size)
            left = 1.0
            for i in order:
                if radii[i] == 0:
                    continue
                dx, dy = x + 0.5 - means[i][0], y + 0.5 - means[i][1]
                xx, xy, yy = conics[i]
                sigma = (xx * dx * dx + yy * dy * dy) / 2 + xy * dx * dy
                alpha = min(0.999, opacities[i] * math.exp(-sigma))
                if alpha < 1 / 255:
                    continue
                left *= 1 - alpha
                if left <= 1e-4:
                    break
                pairs += 1
    return pairs


def numbers(found: object) -> list[float]:
    """Lists every number in what was read from a JSON."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list):
        return [number for item in found for number in numbers(item)]
    return [found] if isinstance(found, int | float) and not isinstance(found, bool) else []


@pytest.mark.parametrize("scene", [Scene(120, 20, "high"), Scene(90, 19, "mixed", 1, 2)], ids=str)
def test_pairs_are_those_that_a_walk_along_each_ray_meets(scene: Scene):
    stage = scene.build()
    assert count_pairs(stage.gaussians, stage.cameras) == count_one_by_one(scene) > 100


def test_pixels_stop_counting_when_they_are_finished():
    few, many = (Scene(count, 16, "high").build() for count in (3000, 30000))
    assert count_pairs(many.gaussians, many.cameras) < 3 * count_pairs(few.gaussians, few.cameras)


@pytest.mark.parametrize("opacity", OPACITIES)
def test_a_scene_is_the_same_whenever_it_is_built(opacity: str):
    scene = Scene(50, 8, opacity, degree=1, cameras=2)
    torch.manual_seed(1)
    first = scene.build()
    torch.manual_seed(2)
    again = scene.build()
    for name, tensor in first.gaussians.parameters().items():
        assert torch.equal(tensor, again.gaussians.parameters()[name])
    assert torch.equal(first.background, again.background)
    assert torch.equal(first.v_rgb, again.v_rgb)


@pytest.mark.parametrize(("opacity", "bounds"), OPACITIES.items())
def test_a_scene_is_what_it_says(opacity: str, bounds: tuple[float, float]):
    gaussians = Scene(2000, 16, opacity).build().gaussians
    assert gaussians.means.norm(dim=1).max() <= 1 + 1e-6
    assert gaussians.opacities.min() >= bounds[0] - 1e-6
    assert gaussians.opacities.max() <= bounds[1] + 1e-6
    assert gaussians.scales.min() >= 0.01 - 1e-6
    assert gaussians.scales.max() <= 0.03 + 1e-6


def test_the_ball_fills_its_share_of_the_picture():
    stage = Scene(20000, 64, "high").build()
    covered = rasterize(stage.gaussians, stage.cameras, backend="cpu").alpha > 0.5
    # A little more than the ball, for the splats on its surface are not points.
    assert 0 < covered.float().mean().item() - FILLED < 0.06


def test_degree_and_views_leave_the_shapes_alone():
    plain, rich = Scene(30, 8).build(), Scene(30, 8, degree=3, cameras=4).build()
    assert torch.equal(plain.gaussians.log_scales, rich.gaussians.log_scales)
    assert torch.equal(plain.cameras.viewmats[0], rich.cameras.viewmats[0])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_forward_and_backward_gives_six_gradients(backend: str):
    stage = Scene(60, 16).build()
    gradients = stage.forward_backward(backend=backend)
    inputs = [*stage.gaussians.parameters().values(), stage.background]
    assert [v.shape for v in gradients] == [x.shape for x in inputs]
    assert all(v.abs().max() > 0 for v in gradients)
    assert not stage.forward(backend=backend).requires_grad


def test_jobs_take_turns_and_each_run_has_a_rehearsal():
    ran: list[str] = []
    jobs = {
        "a": Job(lambda: ran.append("a")),
        "rare": Job(lambda: ran.append("rare"), every=2),
    }
    took = alternate(jobs, 3)
    assert ran == ["a", "a", "rare", "rare", "a", "a", "a", "a", "rare", "rare"]
    assert (took["a"].runs, took["rare"].runs) == (3, 2)


def test_one_clock_sees_waiting_and_the_other_does_not():
    took = alternate(
        {
            "wall": Job(lambda: time.sleep(0.02), wall=True),
            "processor": Job(lambda: time.sleep(0.02)),
        },
        3,
    )
    assert took["wall"].median >= 0.02 > 0.01 > took["processor"].median


def test_the_number_of_threads_is_given_back():
    before = torch.get_num_threads()
    seen: list[int] = []
    alternate({"two": Job(lambda: seen.append(torch.get_num_threads()), threads=2)}, 1)
    assert seen == [2, 2]
    assert torch.get_num_threads() == before


def test_medians_and_quartiles_are_those_of_the_runs():
    timing = summarise([4.0, 1.0, 3.0, 2.0, 100.0])
    assert timing.median == 3.0
    assert timing.quartiles[0] < 3.0 < timing.quartiles[1]
    assert summarise([2.0]).quartiles == (2.0, 2.0)


def test_memory_grows_with_the_picture():
    small, large = (memory_growth(Scene(100, size), threads=1) for size in (32, 1024))
    # The picture, alpha, depth and the gradient of the picture are 5 + 3 floats a pixel at least.
    assert large - small > 1024**2 * 5 * 4
    assert large < 1024**2 * 200


def test_busy_processes_end_with_the_block(monkeypatch: pytest.MonkeyPatch):
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments, **options):
        started.append(POPEN(*arguments, **options))
        return started[-1]

    monkeypatch.setattr("subprocess.Popen", start)
    with pytest.raises(RuntimeError, match="on purpose"), machine.spinning(2):
        assert [process.poll() for process in started] == [None, None]
        raise RuntimeError("on purpose")
    assert len([process for process in started if process.poll() is not None]) == 2


def test_a_machine_is_busy_when_others_compute():
    assert not machine.is_busy(None)
    assert not machine.is_busy(0.0)
    assert machine.is_busy(2.0 * machine.cores())


@pytest.mark.parametrize(
    ("count", "text"), [(500, "500"), (2000, "2k"), (1500, "1.5k"), (1_000_000, "1M")]
)
def test_numbers_of_gaussians_are_short(count: int, text: str):
    assert short(count) == text


def test_a_quick_run_ends_in_tables_and_a_json_of_positive_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "figures.json"
    assert cli.main(["bench", "raster", "quick=true", f"out={out}"]) == 0
    said, _ = capsys.readouterr()
    found = json.loads(out.read_text())
    assert found["command"] == f"splat-esd bench raster quick=true out={out}"
    assert found["machine"]["cores"] >= 1
    for section in ("table", "costs", "curve", "busy"):
        figures = [
            number for row in found[section] for key in row.keys() - {"scene"}
            for number in numbers(row[key])
        ]  # fmt: skip
        assert figures
        assert all(math.isfinite(number) and number > 0 for number in figures), section
    assert f"| {SCENES[0]} " in said
    row = found["table"][0]
    assert row["reference"]["forward"]["ratio"] > 1
    assert 0 < row["forward"]["fraction_of_bound"] < 1
    assert row["forward_backward"]["ms"] > row["forward"]["ms"]


def test_a_section_can_be_asked_for_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "figures.json"
    assert cli.main(["bench", "raster", "quick=true", "only=curve", f"out={out}"]) == 0
    assert {"curve"} == json.loads(out.read_text()).keys() & {"table", "costs", "curve", "busy"}
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line[:1] for line in lines[2:]] == ["|"] * 4


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("os.getloadavg", lambda: (50.0, 50.0, 50.0))
    assert cli.main(["bench", "raster", "quick=true", "only=curve"]) == 0
    assert "warning: this machine is busy (load 50.00 on" in capsys.readouterr().err


_SECTIONS = "bench raster | bench step | bench phi | bench refine | bench mesh"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], f"bench needs to know what to do: {_SECTIONS}"),
        (["train"], f"bench needs to know what to do: {_SECTIONS}"),
        (["raster", "quick"], "'quick' is no setting; bench raster takes quick=, only=, threads="),
        (["raster", "quik=true"], "unknown key quik; did you mean quick?"),
        (["raster", "only=tabel"], "only must be one of table, costs, curve, busy, got 'tabel'"),
        (["raster", "quick=3"], "quick must be true or false, got 3."),
        (["raster", "threads=0"], "threads must lie in [1, inf), got 0."),
        (["raster", "threads=9999"], "threads must lie in [1, "),
        (["raster", "out=no/such/folder/x.json"], "out must name a file in a folder that is there"),
    ],
)
def test_a_mistake_says_what_is_wanted(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["bench", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {expected}")
    assert said.count("\n") == 1


def test_a_scene_too_large_for_the_reference_has_a_dash():
    times = {"ms": 1.5, "pairs_per_second": 2e9, "fraction_of_bound": 0.25}
    row = {
        "scene": {"count": 50_000, "size": 256, "opacity": "low"},
        "pairs": 3_000_000,
        "forward": times,
        "forward_backward": times,
        "memory_growth_bytes": None,
        "reference": None,
    }
    cells = ["1.5", "2.00", "25 %"]
    assert table_lines([row]) == [["50k, 256²", "low", "3", *cells, *cells, "-", "-", "-"]]


def test_nothing_but_the_command_is_needed():
    asked = read_arguments(BenchRasterArguments, [], command="bench raster")
    assert (asked.quick, asked.threads, asked.only, asked.out) == (False, 1, None, None)


@pytest.mark.skipif(not ASSET.is_file(), reason="no figures are published yet")
def test_the_readme_shows_the_published_figures():
    found = json.loads(ASSET.read_text())
    lines = README.read_text(encoding="utf-8").splitlines()
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for section, (_, columns, write) in TABLES.items():
        assert list(columns) in shown
        for cells in write(found[section]):
            if section != "table" or "mixed" in cells:
                assert cells in shown
    assert found["machine"]["cpu"] in README.read_text(encoding="utf-8")


def test_ratios_of_a_step_are_to_another_installation_if_one_is_given():
    assert next(iter(kinds_of_runs(None))) == "one process, one thread"
    kinds = kinds_of_runs(Path("/other/python"))
    assert next(iter(kinds.values())) == ("/other/python", [], {})
    assert len(kinds) == 4 and kinds["as many processes as help"][1] == []


def test_an_installation_that_does_not_run_is_said_in_one_line():
    with pytest.raises(EnvironmentProblem, match="made no run"):
        _median_step((sys.executable, ["prior=nothing"], {}), 10)


@pytest.mark.slow
def test_the_parts_of_a_step_are_a_step():
    parts = parts_of_a_step()
    assert {"encode", "prior", "phi, forward", "Adam", "all else"} <= parts["ms"].keys()
    assert all(ms > 0 for ms in parts["ms"].values())
    assert 0.01 < parts["share_of_rate"] < 1.5
