"""`bench phi`: what phi learns of the camera on splats that stand still."""

import json

import pytest

from splat_esd.bench import phi
from splat_esd.cli import main as cli

QUICK = ["quality=draft", "steps=2", "init.count=400", "processes=1", "export.formats=[ply]"]


@pytest.fixture
def small(monkeypatch):
    for name, value in (("VIEWS", 2), ("BATCHES", 2), ("AROUND", 8), ("TIMES", (0.05, 0.95))):
        monkeypatch.setattr(phi, name, value)


def made(tmp_path, *settings):
    out = tmp_path / "runs"
    asked = ["prompt=a corgi", "prior=zoo", f"out={out}", "seed=0", *QUICK, *settings]
    assert cli.main(asked) == 0
    return next(out.glob("*/*"))


def test_losses_with_and_without_the_camera_stand_beside_what_the_noise_hides(
    tmp_path, small, capsys
):
    run, out = made(tmp_path), tmp_path / "phi.json"
    assert cli.main(["bench", "phi", str(run), "steps=1", f"out={out}"]) == 0
    (found,) = json.loads(out.read_text())["runs"]
    assert found["run"] == run.name and found["steps"] == 1
    early, late = found["times"]
    assert early["hidden"] < 1e-3, "little noise hides no view"
    assert late["hidden"] > 10 * early["hidden"]
    assert found["ratio"] == pytest.approx(1.0, abs=0.2), "a single step teaches hardly anything"
    assert "hidden by the noise" in capsys.readouterr().out


def test_more_steps_teach_more_with_the_same_noise(tmp_path, small):
    run = made(tmp_path)
    few, many = (phi.learn(run, steps)[1] for steps in (1, 40))
    assert many["with"] < few["with"] and many["without"] < few["without"]
    assert many["hidden"] == few["hidden"]


def test_a_run_without_phi_and_no_run_are_one_line(tmp_path, small, capsys):
    run = made(tmp_path, "guidance=sds")
    assert cli.main(["bench", "phi", str(run)]) == 2
    assert "sds has no phi; name a run of vsd or esd." in capsys.readouterr().err
    assert cli.main(["bench", "phi"]) == 2
    assert "bench phi needs a run" in capsys.readouterr().err
