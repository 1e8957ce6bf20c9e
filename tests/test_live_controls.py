"""A run under somebody's hands, with the live view's wishes written down beforehand."""

import json
import multiprocessing

import pytest
import torch
from test_generate import assert_same_state, copy_state, fresh_run, small

from splat_esd.export.live_viewer import Controls, TrainingView
from splat_esd.runs.folder import RunFolder
from splat_esd.runs.generate import generate
from splat_esd.runs.live_controls import (
    apply_controls,
    controls,
    restore_controls,
    set_controls,
)
from splat_esd.train import run_state, train_step


class Scripted(TrainingView):
    """Stands in for the page: wishes in order, then steps; sliders where they are put."""

    url, controls = "http://127.0.0.1:0", None

    def __init__(self, controls, *wishes, paused=False):
        self.controls, self.wishes, self.paused = controls, list(wishes), paused
        self.shown, self.told = [], []

    def next_wish(self):
        return self.wishes.pop(0) if self.wishes else "step"

    def show(self, gaussians):
        self.shown.append(len(gaussians))

    def tell(self, text):
        self.told.append(text)

    def stop(self):
        self.told.append("stopped")


def test_a_dial_turns_the_next_gradient_and_not_the_configuration(tmp_path, tiny_sd):
    run = fresh_run(tmp_path, tiny_sd)
    other = fresh_run(tmp_path, tiny_sd, "guidance.lambda=1", "guidance.cfg_scale=2")
    set_controls(run, Controls(1.0, 2.0))
    assert controls(run) == Controls(1.0, 2.0)
    assert run.config.guidance.lam == 0.5
    for each in (run, other):
        train_step(each, 0)
    assert_same_state(run_state(run), run_state(other))


def test_untouched_dials_change_no_bit_and_write_nothing(tmp_path, tiny_sd):
    run = fresh_run(tmp_path, tiny_sd)
    before = copy_state(run)
    apply_controls(Scripted(controls(run)), run, RunFolder(tmp_path), 3)
    assert_same_state(run_state(run), before)
    assert not (tmp_path / "run.json").exists()


def test_what_was_turned_is_written_down_and_turned_again_on_resume(tmp_path, tiny_sd):
    run = fresh_run(tmp_path, tiny_sd)
    apply_controls(Scripted(Controls(0.2, 4.0)), run, RunFolder(tmp_path), 3)
    apply_controls(Scripted(Controls(0.2, 9.0)), run, RunFolder(tmp_path), 7)
    apply_controls(Scripted(Controls(0.2, 9.0)), run, RunFolder(tmp_path), 8)
    told = json.loads((tmp_path / "run.json").read_text())["turned"]
    assert told == [
        {"step": 3, "lambda": 0.2, "cfg_scale": 4.0},
        {"step": 7, "lambda": 0.2, "cfg_scale": 9.0},
    ]
    again = fresh_run(tmp_path, tiny_sd)
    restore_controls(again, RunFolder(tmp_path), 5)
    assert controls(again) == Controls(0.2, 4.0), "what came after the checkpoint comes later"


def test_export_writes_what_there_is_and_the_run_goes_on(tmp_path, tiny_sd):
    run = fresh_run(tmp_path, tiny_sd, "export.formats=[ply,spz]")
    view, out = Scripted(controls(run), "export"), tmp_path / "export" / "step-000004"
    others = multiprocessing.active_children()
    apply_controls(view, run, RunFolder(tmp_path), 4)
    assert (out / "splat.ply").is_file()
    assert "exporting to" in view.told[-1]
    (rest,) = [p for p in multiprocessing.active_children() if p not in others]
    rest.join(120)
    assert rest.exitcode == 0
    written = sorted(path.name for path in out.iterdir())
    assert written == ["log.txt", "splat.ply", "splat.spz"]


@pytest.mark.parametrize(("step", "paused", "shown"), [(10, False, 1), (3, False, 0), (3, True, 1)])
def test_the_page_is_refreshed_now_and_then_and_always_when_paused(
    tmp_path, tiny_sd, step, paused, shown
):
    run = fresh_run(tmp_path, tiny_sd)
    view = Scripted(controls(run), paused=paused)
    apply_controls(view, run, RunFolder(tmp_path), step)
    assert len(view.shown) == shown
    assert view.told == [f"a corgi\n\nstep {step} of 10, {len(run.gaussians)} splats, ETA ?"]


def test_a_pause_is_said_in_the_terminal_with_the_way_out(tmp_path, tiny_sd, capsys):
    run = fresh_run(tmp_path, tiny_sd)
    view = Scripted(controls(run), paused=True)
    apply_controls(view, run, RunFolder(tmp_path), 3)
    assert "paused in the viewer, http://127.0.0.1:0; Ctrl-C saves." in capsys.readouterr().err
    apply_controls(Scripted(controls(run)), run, RunFolder(tmp_path), 4)
    assert capsys.readouterr().err == ""


def test_sds_has_no_lambda_to_turn(tmp_path, tiny_sd):
    run = fresh_run(tmp_path, tiny_sd, "guidance=sds")
    assert controls(run).lam is None
    set_controls(run, Controls(None, 50.0))
    assert torch.isfinite(torch.tensor(train_step(run, 0)["score_norm"]))


def test_a_run_that_is_watched_and_left_alone_is_the_same_run(tmp_path, tiny_sd, monkeypatch):
    alone = generate(small(tmp_path / "alone", tiny_sd, "export.formats=[ply]"))
    monkeypatch.setattr("splat_esd.runs.generate.TrainingView", Scripted)
    watched = generate(small(tmp_path / "watched", tiny_sd, "export.formats=[ply]", "viewer=true"))
    assert (watched / "splat.ply").read_bytes() == (alone / "splat.ply").read_bytes()
