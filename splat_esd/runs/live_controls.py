"""A run under somebody's hands: what the live view's buttons and sliders do between two steps."""

import time

from splat_esd import console
from splat_esd.export.bundle import write_files
from splat_esd.export.live_viewer import Dials, TrainingView
from splat_esd.runs.folder import RunFolder
from splat_esd.runs.summary import describe
from splat_esd.train import Run

SHOWN_EVERY = 10  # steps


def dials(run: Run) -> Dials:
    """Returns where a run's dials stand."""
    return Dials(run.guidance.config.lam, run.guidance.cfg_scale)


def turn(run: Run, wanted: Dials) -> None:
    """Turns a run's dials; its configuration stays what was asked for."""
    run.guidance.config = run.guidance.config.model_copy(update={"lam": wanted.lam})
    run.guidance.cfg_scale = wanted.cfg_scale


def turn_again(run: Run, folder: RunFolder, step: int) -> None:
    """Puts the dials of a continued run where they stood at a step."""
    for turned in folder.run.get("turned", []):
        if turned["step"] <= step:
            turn(run, Dials(turned["lambda"], turned["cfg_scale"]))


def obey(view: TrainingView, run: Run, folder: RunFolder, step: int) -> float:
    """Does what the page asks for before the next step; returns the seconds that this took."""
    begun = time.monotonic()
    if view.paused or step % SHOWN_EVERY == 0:
        view.show(run.gaussians)
    stands = f"step {step} of {run.config.steps}, {len(run.gaussians)} splats"
    view.tell(stands)
    while view.next_wish() == "export":
        view.tell(f"{stands}; exporting ...")
        out = folder.path / "export" / f"step-{step:06d}"
        settings, told = run.config, describe(folder.splat)
        splats = run.gaussians.detach().to("cpu")
        console.files_table(write_files(splats, out, settings.export, settings.mesh, told))
        view.tell(f"{stands}; exported to {out}")
    if view.dials != dials(run):
        _turned(view.dials, run, folder, step)
    return time.monotonic() - begun


def _turned(wanted: Dials, run: Run, folder: RunFolder, step: int) -> None:
    turn(run, wanted)
    at = {"step": step, "lambda": wanted.lam, "cfg_scale": wanted.cfg_scale}
    folder.write_run(turned=[*folder.run.get("turned", []), at])
    lam = "" if wanted.lam is None else f"lambda {wanted.lam:g}, "
    console.note(
        f"from step {step} on: {lam}CFG scale {wanted.cfg_scale:g}; the settings alone make "
        "another splat now, and run.json says so."
    )
