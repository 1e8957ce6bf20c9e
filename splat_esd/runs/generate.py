"""One run from prompt to files: find or make its folder, train, survive being stopped, export."""

import platform
import random
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from splat_esd import console, distributed
from splat_esd.cameras import turntable
from splat_esd.config.load import Config, choose_prior
from splat_esd.diffusion.prior import Prior
from splat_esd.distributed import LostProcess
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.export.bundle import write_files
from splat_esd.export.images import to_images
from splat_esd.export.live_viewer import TrainingView
from splat_esd.export.turntable import write_sheet
from splat_esd.formats.frame import UNIT_BALL
from splat_esd.formats.spz import write_spz
from splat_esd.gaussians import Gaussians
from splat_esd.runs.folder import RunFolder, claim_run_folder
from splat_esd.runs.interrupt import Interrupted, Stop, listening
from splat_esd.runs.launcher import launched, leads
from splat_esd.runs.live_controls import apply_controls, controls, restore_controls
from splat_esd.runs.processes import Followers, follow_launched, following, step_together
from splat_esd.runs.restore import check_moved, check_there, go_back, restore, resume_command, save
from splat_esd.runs.start import choose_device, open_prior, warn_of_stable_diffusion
from splat_esd.runs.summary import describe
from splat_esd.specks import without_specks
from splat_esd.train import NotFinite, Run, make_run, render

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
    if launched() and not leads():
        return follow_launched()
    if config.seed is None:
        config = config.model_copy(update={"seed": random.SystemRandom().randrange(2**32)})
    device, why = choose_device(config)
    warn_of_stable_diffusion(config, device)
    with following(config, device) as (followers, meeting):
        with console.busy("loading the prior"):
            prior = open_prior(config, device)
            run = make_run(config, prior)
        _warn_of_words(prior, config.negative_prompt)
        return _run(run, followers, meeting, why, on_step)


def _run(run: Run, followers: Followers, meeting: Path, why: str, on_step: OnStep | None) -> Path:
    """Finds or makes the run's folder, trains there, and leaves a true status behind."""
    config = run.config
    with listening() as stop, claim_run_folder(config) as (folder, continued):
        try:
            start = restore(run, folder) if continued else 0
            restore_controls(run, folder, start)
            followers.meet(meeting)
            if start:
                followers.restore(run)
            _introduce(config, run, folder, why, start)
            folder.write_run(status="running", **_versions(config, run.prior))
            folder.checkpoints.mkdir(exist_ok=True)
            _loop(run, followers, folder, start, on_step, stop)
        except KeyboardInterrupt:
            with stop.shielded():
                _end(folder, "interrupted")
            raise
        except BrokenPipeError:  # the reader of the list of files has gone; the run is whole
            raise
        except EnvironmentProblem as error:
            _end(folder, "failed", why=str(error))
            raise
        except OSError as error:
            _end(folder, "failed", why=str(error))
            reason = str(error.strerror or error).rstrip(".")
            raise EnvironmentProblem(
                f"{folder} cannot be written: {reason}. What was saved "
                f"before is whole; free some space and continue with: {resume_command(folder)}"
            ) from error
        except Exception as error:
            _end(folder, "failed", why=f"{type(error).__name__}: {error}")
            raise
    return folder.path


def _warn_of_words(prior: Prior, negative_prompt: str) -> None:
    _, left_out = prior.split_words(negative_prompt)
    if left_out:
        said = ", ".join(map(repr, left_out))
        console.warn(f"negative_prompt: this prior does not know {said}; left out.")


def _end(folder: RunFolder, status: str, **facts: object) -> None:
    """Leaves a true status behind, if the folder still takes it and the run did not end itself."""
    if folder.settings.is_file() and folder.run.get("status") == "running":
        with suppress(OSError, EnvironmentProblem):
            folder.write_run(status=status, **facts)


def _loop(
    run: Run,
    followers: Followers,
    folder: RunFolder,
    start: int,
    on_step: OnStep | None,
    stop: Stop,
) -> None:
    """Trains from `start` to the end, saving on the way; when a signal asks for it, saves the
    state and the splats.
    """
    config, began = run.config, time.monotonic()
    begun = began - _seconds_before(folder, start)
    viewer = _live_viewer(run)
    step, whole = start, True  # whole: between two steps
    if start == 0:
        write_spz(run.gaussians, folder.timeline_file(0))
    try:
        with console.progress(config.steps, start=start) as meter:
            while step < config.steps:
                stop.now()
                if viewer is not None:
                    left = _left(config.steps - step, step - start, began)
                    waited = apply_controls(viewer, run, folder, step, left=left)
                    begun, began = begun + waited, began + waited
                stop.wait()
                whole = False
                try:
                    followers.step(run, step)
                    stats = step_together(run, step)
                except NotFinite as problem:
                    step, whole = go_back(run, folder, problem), True
                    followers.restore(run)
                    continue
                step, whole = step + 1, True
                check_there(run, folder, step)
                _report(run, folder, step, stats, meter, begun)
                if on_step is not None:
                    on_step(step, stats)
        stop.now()
        followers.end(folder.path)
        check_moved(run)
        _finish(run, followers, folder, step, begun, stop)
    except LostProcess as problem:  # noticed before the step had changed anything
        with stop.shielded():
            save(run, folder, step)
        said = str(problem).rstrip(".")
        raise LostProcess(
            f"{said}; step {step} is saved, continue with: {resume_command(folder)}"
        ) from problem
    except KeyboardInterrupt as wish:
        with stop.shielded():
            # A second signal tore a step apart: the last checkpoint is what there is.
            torn = isinstance(wish, Interrupted) and not whole
            if torn:
                _say_how_to_continue(folder)
            if torn or folder.is_finished:
                raise
            console.warn(f"stopped at step {step} of {config.steps}; saving the state.")
        followers.end(folder.path)
        _stop(run, followers, folder, step, begun, stop)
        raise
    finally:
        if viewer is not None:
            viewer.stop()


def _left(steps: int, done: int, began: float) -> str:
    """Returns how long so many steps will take, as text; "?" before any was done."""
    return console.duration(steps * (time.monotonic() - began) / done) if done else "?"


def _seconds_before(folder: RunFolder, start: int) -> float:
    """Returns how long earlier sessions trained for the first `start` steps."""
    run, metrics = folder.run, folder.read_metrics()
    logged = metrics[-1]["seconds"] if start and metrics else 0.0
    return max(logged, run.get("seconds_training", 0.0) if run.get("steps") == start else 0.0)


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
        save(run, folder, step)


@torch.no_grad()
def write_preview(run: Run, path: Path) -> None:
    """Draws colour, depth and alpha from the front, the left, the back and the right."""
    size = run.prior.image_size
    cameras = turntable(4, elevation=0.26, distance=2.45, fovy=0.75, width=size, height=size)
    strips = to_images(render(run, cameras.to(run.device), None)).strips()
    write_sheet(strips, path, ["0", "90", "180", "270"], columns=2)


def _stop(
    run: Run, followers: Followers, folder: RunFolder, step: int, begun: float, stop: Stop
) -> None:
    """Saves the state, says how to continue, and only then writes the splats."""
    trained = time.monotonic() - begun
    with stop.shielded():
        try:
            save(run, folder, step)
        finally:
            _write_facts(run, followers, folder, step, trained, status="interrupted")
            _say_how_to_continue(folder)
    stop.check()
    settings = run.config.export.model_copy(update={"formats": ("ply",)})
    splats = run.gaussians.detach().to("cpu")
    console.files_table(write_files(splats, folder.path, settings, run.config.mesh))


def _say_how_to_continue(folder: RunFolder) -> None:
    console.note("continue with:")
    console.command(resume_command(folder))


def _finish(
    run: Run, followers: Followers, folder: RunFolder, step: int, begun: float, stop: Stop
) -> None:
    trained = time.monotonic() - begun
    with stop.shielded():
        save(run, folder, step)
    splats, settings = _finished_splats(run), run.config
    told = describe(folder.splat)
    failure, files = None, []
    stop.now()
    try:
        files = write_files(
            splats,
            folder.path,
            settings.export,
            settings.mesh,
            told,
            placement=run.start.placement,
        )
    except UsageError as error:  # of the splats, not of the machine: a second try ends the same
        failure = error
    exported = time.monotonic() - begun - trained
    with stop.shielded():
        facts = {"status": "finished", "seconds_export": round(exported, 2)}
        facts |= {"gaussians": len(splats)}
        _write_facts(run, followers, folder, step, trained, **facts)
    if run.refused_in_all:
        console.warn(f"{run.refused_in_all} steps gave no finite gradient and changed nothing.")
    if failure is not None:
        raise failure
    console.files_table(files)
    took = f"{console.duration(trained)} of training, {console.duration(exported)} of writing"
    console.note(f"done in {console.duration(trained + exported)}: {took}.")


def _finished_splats(run: Run) -> Gaussians:
    splats = run.gaussians.detach().to("cpu")
    if run.config.init.kind != "ball":
        return splats
    whole = without_specks(splats, run.config.density.specks)
    if len(whole) < len(splats):
        apart = len(splats) - len(whole)
        console.note(f"left out {apart} splats that hung apart from the object (density.specks).")
    return whole


def _write_facts(
    run: Run,
    followers: Followers,
    folder: RunFolder,
    step: int,
    trained: float,
    **facts: str | float | int,
) -> None:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    folder.write_run(
        steps=step,
        gaussians=facts.pop("gaussians", len(run.gaussians)),
        refused=run.refused_in_all,
        seconds_training=round(trained, 2),
        peak_memory_mib=own + followers.memory_mib,
        **facts,
    )


def _live_viewer(run: Run) -> TrainingView | None:
    if not run.config.viewer:
        return None
    viewer = TrainingView(controls(run))
    console.note(f"watch, pause and adjust the run at {viewer.url}")
    return viewer


def _introduce(config: Config, run: Run, folder: RunFolder, why: str, start: int) -> None:
    for line in run.start.notes:
        console.note(line)
    if run.start.placement is not UNIT_BALL:
        console.note(f"splat-esd export from={folder} puts the result back where it came from.")
    guidance = config.guidance
    method = guidance.name if guidance.lam is None else f"{guidance.name}, lambda {guidance.lam:g}"
    console.header(
        {
            "prompt": config.prompt,
            "prior": f"{config.prior.name} ({_why_prior(config)}), {run.prior.image_size} px",
            "device": f"{run.device.type} ({why}), {_spread()}",
            "guidance": f"{method}, CFG {config.guidance.cfg_scale:g}",
            "steps": f"{config.steps}" + (f", continuing from {start}" if start else ""),
            "seed": str(config.seed),
            "folder": str(folder),
        }
    )


def _spread() -> str:
    threads, count = torch.get_num_threads(), distributed.world()
    if count == 1:
        return f"{threads} threads"
    return f"{count} processes of {'one thread' if threads == 1 else f'{threads} threads'}"


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
        "processes": distributed.world(),
        "prior": {"name": config.prior.name, "source": prior.source, "revision": prior.revision},
        "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
    }
