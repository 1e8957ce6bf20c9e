"""One run from prompt to files: find or make its folder, train, survive being stopped, export."""

import platform
import random
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from splat_esd import console
from splat_esd.cameras import turntable
from splat_esd.config.load import Config, choose_prior
from splat_esd.diffusion.prior import Prior, load_prior
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.export.bundle import write_files
from splat_esd.export.images import to_images
from splat_esd.export.live_viewer import TrainingView
from splat_esd.export.turntable import write_sheet
from splat_esd.formats.spz import write_spz
from splat_esd.paths import ASSETS
from splat_esd.runs.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from splat_esd.runs.folder import RunFolder, open_run_folder
from splat_esd.runs.live_controls import dials, obey, turn_again
from splat_esd.runs.summary import describe
from splat_esd.train import Run, make_run, render, restore_run, run_state, train_step

OnStep = Callable[[int, dict[str, Any]], None]


def generate(config: Config, *, on_step: OnStep | None = None) -> Path:
    """Makes the asset that the configuration asks for and returns the run's folder.

    A run that was stopped, in whatever way, continues from its last checkpoint when the same
    command is given again; on a CPU the result is then bit for bit that of a run that was never
    stopped.

    Arguments:
        on_step: Called after each step with the number of steps done and its statistics, as in
            metrics.jsonl.
    Raises:
        UsageError: If the prompt, the prior or a file to start from is not usable.
        EnvironmentProblem: If device, disk or network fail; what was computed is kept.
        KeyboardInterrupt: After Ctrl-C, once the state is saved and what there is has been
            exported.
    """
    if config.seed is None:
        config = config.model_copy(update={"seed": random.SystemRandom().randrange(2**32)})
    device, why = choose_device(config)
    prior = open_prior(config, device)
    run = make_run(config, prior)
    folder, continued = open_run_folder(config)
    try:
        start = _restore(run, folder) if continued else 0
        turn_again(run, folder, start)
        _introduce(config, run, folder, why, start)
        folder.write_run(status="running", **_versions(config, prior))
        _loop(run, folder, start, on_step)
    except (OSError, EnvironmentProblem) as error:
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise EnvironmentProblem(
            f"{folder} cannot be written: {reason}. What was saved "
            f"before is whole; free some space and continue with: {resume_command(folder)}"
        ) from error
    return folder.path


def choose_device(config: Config) -> tuple[torch.device, str]:
    """Returns the device and why it was chosen.

    Raises:
        EnvironmentProblem: If CUDA is asked for and not there.
    """
    there = torch.cuda.is_available()
    if config.device == "cuda" and not there:
        raise EnvironmentProblem(
            "device=cuda: PyTorch sees no CUDA GPU here; `splat-esd doctor` says why, "
            "device=cpu works everywhere."
        )
    if config.device == "auto":
        return torch.device(
            "cuda" if there else "cpu"
        ), "GPU found" if there else "no CUDA GPU here"
    return torch.device(config.device), "as asked"


def open_prior(config: Config, device: torch.device) -> Prior:
    """Loads the prior that the configuration names: a path, the embedded zoo, or a hub id."""
    settings = config.prior
    source, *mirrors = [settings.path] if settings.path else list(settings.mirrors) or [_embedded()]
    return load_prior(
        source,
        mirrors=tuple(mirrors),
        revision=settings.revision,
        device=device,
        dtype=settings.dtype,
        pullback=settings.pullback,
    )


def resume_command(folder: RunFolder) -> str:
    """Returns what to type to continue a run."""
    return f'splat-esd resume="{folder}"'


def _embedded() -> str:
    folder = ASSETS / "zoo"
    if not (folder / "model_index.json").is_file():
        raise EnvironmentProblem(
            f"the embedded prior is missing from {folder}; reinstall splat-esd, or train it with "
            f"splat-esd zoo train out={folder}."
        )
    return str(folder)


def _restore(run: Run, folder: RunFolder) -> int:
    path = latest_checkpoint(folder.checkpoints)
    if path is None:
        folder.trim_metrics(0)
        return 0
    state = load_checkpoint(path)
    restore_run(run, state)
    folder.trim_metrics(state["step"])
    return state["step"]


def _loop(run: Run, folder: RunFolder, start: int, on_step: OnStep | None) -> None:
    """Trains from `start` to the end, saving on the way; on Ctrl-C it saves and exports what
    there is.
    """
    config, begun = run.config, time.monotonic()
    viewer = _live_viewer(run)
    step = start
    if start == 0:
        write_spz(run.gaussians, folder.timeline_file(0))
    try:
        with console.progress(config.steps, start=start) as meter:
            while step < config.steps:
                if viewer is not None:
                    begun += obey(viewer, run, folder, step)
                stats = train_step(run, step)
                step += 1
                _report(run, folder, step, stats, meter, begun)
                if on_step is not None:
                    on_step(step, stats)
    except KeyboardInterrupt:
        console.warn(f"stopped at step {step} of {config.steps}; saving what there is.")
        _finish(run, folder, step, begun, status="interrupted")
        console.note(f"continue with: {resume_command(folder)}")
        raise
    finally:
        if viewer is not None:
            viewer.stop()
    _finish(run, folder, step, begun, status="finished")


def _report(run: Run, folder: RunFolder, step: int, stats: dict, meter: Any, begun: float) -> None:
    log = run.config.log
    if stats.get("refused"):
        console.warn(
            f"step {step} gave a gradient that is not finite; it was refused, nothing changed."
        )
    meter.update(step, score=stats["score_norm"], gaussians=len(run.gaussians))
    if step % log.every == 0 or stats.get("refused"):
        facts = {"gaussians": len(run.gaussians), "seconds": round(time.monotonic() - begun, 3)}
        folder.append_metrics(step, stats | facts)
    if step % log.preview_every == 0:
        write_preview(run, folder.preview(step))
        write_spz(run.gaussians, folder.timeline_file(step))
    if step % log.checkpoint_every == 0 and step < run.config.steps:
        save_checkpoint(folder.checkpoints, step, run_state(run))


@torch.no_grad()
def write_preview(run: Run, path: Path) -> None:
    """Draws colour, depth and alpha from the front, the left, the back and the right."""
    size = run.prior.image_size
    cameras = turntable(4, elevation=0.26, distance=2.45, fovy=0.75, width=size, height=size)
    strips = to_images(render(run, cameras.to(run.device), None)).strips()
    write_sheet(strips, path, ["0", "90", "180", "270"])


def _finish(run: Run, folder: RunFolder, step: int, begun: float, *, status: str) -> None:
    save_checkpoint(folder.checkpoints, step, run_state(run))
    trained = time.monotonic() - begun
    splats, settings = run.gaussians.detach().to("cpu"), run.config
    told = describe(folder.splat)
    failure, files = None, []
    try:
        files = write_files(splats, folder.path, settings.export, settings.mesh, told)
    except UsageError as error:  # of the splats, not of the machine: a second try ends the same
        failure = error
    folder.write_run(
        status=status,
        steps=step,
        gaussians=len(run.gaussians),
        seconds_training=round(trained, 2),
        seconds_export=round(time.monotonic() - begun - trained, 2),
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )
    if failure is not None:
        raise failure
    console.files_table(files)


def _live_viewer(run: Run) -> TrainingView | None:
    if not run.config.viewer:
        return None
    viewer = TrainingView(dials(run))
    console.note(f"watch it grow, pause it, turn its dials: {viewer.url}")
    return viewer


def _introduce(config: Config, run: Run, folder: RunFolder, why: str, start: int) -> None:
    guidance = config.guidance
    method = guidance.name if guidance.lam is None else f"{guidance.name}, lambda {guidance.lam:g}"
    console.header(
        {
            "prompt": config.prompt,
            "prior": f"{config.prior.name} ({_why_prior(config)}), {run.prior.image_size} px",
            "device": f"{run.device.type} ({why}), {torch.get_num_threads()} threads",
            "guidance": f"{method}, CFG {config.guidance.cfg_scale:g}",
            "steps": f"{config.steps}" + (f", continuing from {start}" if start else ""),
            "seed": str(config.seed),
            "folder": str(folder),
        }
    )


def _why_prior(config: Config) -> str:
    if config.prior.path:
        return f"from {config.prior.path}"
    if config.prior.name != choose_prior():
        return "as asked"
    return (
        "the embedded prior, default without a GPU" if config.prior.name == "zoo" else "GPU default"
    )


def _versions(config: Config, prior: Prior) -> dict[str, object]:
    names = ("splat-esd", "torch", "diffusers", "transformers", "peft", "gsplat")
    return {
        "prompt": config.prompt,
        "seed": config.seed,
        "device": prior.device.type,
        "threads": torch.get_num_threads(),
        "prior": {"name": config.prior.name, "source": prior.source, "revision": prior.revision},
        "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
    }
