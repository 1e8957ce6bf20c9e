"""How a run is saved, found again, and kept whole: checkpoints, and folders that vanish."""

from typing import Any

from splat_esd import console
from splat_esd.config.load import Config
from splat_esd.errors import ConfigError, EnvironmentProblem, UsageError
from splat_esd.formats.ply import write_ply
from splat_esd.runs.checkpoint import checkpoints, load_checkpoint, save_checkpoint, set_aside
from splat_esd.runs.folder import RunFolder
from splat_esd.runs.state import check_state
from splat_esd.train import NotFinite, Run, make_run, restore_run, run_state


def resume_command(folder: RunFolder) -> str:
    """Returns what to type to continue a run."""
    return f'splat-esd resume="{folder}"'


def restore(run: Run, folder: RunFolder) -> int:
    """Puts the run where its newest usable checkpoint was taken; returns that one's step.

    Raises:
        UsageError: If config.yaml is not what the checkpoint was made with, or there are
            checkpoints and none can be used.
    """
    unusable = []
    for path in checkpoints(folder.checkpoints):
        try:
            state = load_checkpoint(path)
            _compare_settings(run.config, state.get("settings"), folder)
            check_state(run, state)
        except (UsageError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            said = str(error) if isinstance(error, UsageError) else f"{path} does not fit: {error}"
            unusable.append(path)
            console.warn(f"{said.rstrip('.')}; looking for the one before.")
            continue
        restore_run(run, state)
        for damaged in unusable:
            set_aside(damaged)
        if unusable:
            console.warn(f"continuing from {path.name}, the newest that is whole.")
        folder.trim_metrics(state["step"])
        return state["step"]
    if unusable:
        raise UsageError(
            f"none of the checkpoints in {folder.checkpoints} can be used; delete that folder to "
            "start the run again."
        )
    folder.trim_metrics(0)
    return 0


def _compare_settings(config: Config, made_with: Any, folder: RunFolder) -> None:
    mine = config.of_the_result()
    known = made_with if isinstance(made_with, dict) else {}
    for name in sorted(mine.keys() & known.keys()):
        if mine[name] != known[name]:
            raise ConfigError(
                f"{folder.settings} says {name} {mine[name]!r}, and the checkpoint was made with "
                f"{known[name]!r}: two runs would be mixed; put it back, or start a new run."
            )


def save(run: Run, folder: RunFolder, step: int) -> None:
    """Writes a checkpoint that knows the settings it was made with."""
    state = run_state(run) | {"settings": run.config.of_the_result()}
    save_checkpoint(folder.checkpoints, step, state)


def go_back(run: Run, folder: RunFolder, problem: NotFinite) -> int:
    """Goes back to the last good checkpoint with halved learning rates, once; returns its step.

    Raises:
        NotFinite: If it was done before.
    """
    if run.rate_factor != 1.0:
        raise problem
    in_all = run.refused_in_all
    if checkpoints(folder.checkpoints):
        step = restore(run, folder)
    else:
        restore_run(run, run_state(make_run(run.config, run.prior)))
        folder.trim_metrics(0)
        step = 0
    run.refused, run.refused_in_all, run.rate_factor = 0, in_all, 0.5
    console.warn(f"{problem} Going back to step {step}, with halved learning rates.")
    return step


def check_moved(run: Run) -> None:
    """Makes sure that some step changed something.

    Raises:
        EnvironmentProblem: If all were refused.
    """
    if run.refused_in_all >= run.config.steps:
        raise EnvironmentProblem(
            f"all {run.config.steps} steps gave gradients that are not finite, and nothing was "
            "changed by them. Try prior.dtype=fp32, or a lower guidance.cfg_scale."
        )


def check_there(run: Run, folder: RunFolder, step: int) -> None:
    """Keeps the splat, and ends, if somebody removed the run's folder or its checkpoints."""
    if folder.settings.is_file() and folder.checkpoints.is_dir():
        return
    if folder.settings.is_file():
        gone, kept = folder.checkpoints, folder
        save(run, folder, step)
    else:
        gone, kept = folder.path, RunFolder(folder.path.with_name(f"{folder.path.name}-kept"))
        kept.path.mkdir(parents=True, exist_ok=True)
    write_ply(run.gaussians.detach().to("cpu"), kept.splat)
    way_on = f"; continue with: {resume_command(folder)}" if kept is folder else "."
    raise EnvironmentProblem(
        f"{gone} was removed while the run was at step {step}; the splat so far is {kept.splat}"
        f"{way_on}"
    )
