"""Live controls: what the live view's buttons and sliders change between two steps."""

import multiprocessing
import time
from contextlib import redirect_stderr
from pathlib import Path

from splat_esd import console
from splat_esd.config.schema import ExportConfig, MeshConfig
from splat_esd.export.bundle import write_files
from splat_esd.export.live_viewer import Controls, TrainingView
from splat_esd.export.page import Result
from splat_esd.formats.find import SPLAT
from splat_esd.formats.read import open_splats
from splat_esd.runs.folder import RunFolder
from splat_esd.runs.summary import describe
from splat_esd.train import Run

SHOWN_EVERY = 10  # steps


def controls(run: Run) -> Controls:
    """Returns the current lambda and CFG scale of a run."""
    return Controls(run.guidance.config.lam, run.guidance.cfg_scale)


def set_controls(run: Run, wanted: Controls) -> None:
    """Changes lambda and CFG scale of a run in progress; its config.yaml stays as it was."""
    run.guidance.config = run.guidance.config.model_copy(update={"lam": wanted.lam})
    run.guidance.cfg_scale = wanted.cfg_scale


def restore_controls(run: Run, folder: RunFolder, step: int) -> None:
    """Sets the controls of a resumed run to their values at a step, from run.json."""
    for turned in folder.run.get("turned", []):
        if turned["step"] <= step:
            set_controls(run, Controls(turned["lambda"], turned["cfg_scale"]))


def apply_controls(
    view: TrainingView, run: Run, folder: RunFolder, step: int, *, left: str = "?"
) -> float:
    """Applies what the page asked for before the next step; returns the seconds it took.

    Arguments:
        left: The time that the rest will take, as text.
    """
    begun = time.monotonic()
    if view.paused or step % SHOWN_EVERY == 0:
        view.show(run.gaussians)
    stands = f"step {step} of {run.config.steps}, {len(run.gaussians)} splats"
    view.tell(f"{run.config.prompt}\n\n{stands}, ETA {left}")
    paused = view.paused
    if paused:
        console.note(f"paused in the viewer, {view.url}; Ctrl-C saves.")
    while view.next_wish() == "export":
        out = folder.path / "export" / f"step-{step:06d}"
        _export(run, folder, out)
        view.tell(f"{run.config.prompt}\n\n{stands}; exporting to {out}, splat.ply first")
    if paused and not view.paused:
        console.note(f"going on from step {step}.")
    if view.controls != controls(run):
        _changed(view.controls, run, folder, step)
    return time.monotonic() - begun


def _export(run: Run, folder: RunFolder, out: Path) -> None:
    """Writes the PLY, and leaves the other files to a process of their own: the run goes on."""
    settings, splats = run.config, run.gaussians.detach().to("cpu")
    only_ply = settings.export.model_copy(update={"formats": ("ply",)})
    console.files_table(write_files(splats, out, only_ply, settings.mesh))
    rest = tuple(name for name in settings.export.formats if name != "ply")
    if rest:
        others = settings.export.model_copy(update={"formats": rest})
        given = (out, others, settings.mesh, describe(folder.splat))
        # A new interpreter: a copy of this one would hold its threads' locks.
        multiprocessing.get_context("spawn").Process(target=_write_rest, args=given).start()


def _write_rest(out: Path, settings: ExportConfig, mesh: MeshConfig, told: Result) -> None:
    with (out / "log.txt").open("w", encoding="utf-8") as log, redirect_stderr(log):
        write_files(open_splats(out / SPLAT), out, settings, mesh, told)


def _changed(wanted: Controls, run: Run, folder: RunFolder, step: int) -> None:
    set_controls(run, wanted)
    at = {"step": step, "lambda": wanted.lam, "cfg_scale": wanted.cfg_scale}
    folder.write_run(turned=[*folder.run.get("turned", []), at])
    lam = "" if wanted.lam is None else f"lambda {wanted.lam:g}, "
    console.note(
        f"from step {step} on: {lam}CFG scale {wanted.cfg_scale:g}; the settings alone make "
        "another splat now, and run.json says so."
    )
