"""`splat-esd doctor RUN`: what a folder is, whether its run can be continued, and why not."""

from pathlib import Path

from splat_esd import console
from splat_esd.errors import UsageError
from splat_esd.formats.read import open_splats
from splat_esd.runs.checkpoint import checkpoints, load_checkpoint
from splat_esd.runs.folder import RunFolder
from splat_esd.runs.lock import holder
from splat_esd.runs.restore import resume_command


def examine_run(path: Path) -> int:
    """Prints what the folder is and what can be done with it; changes nothing.

    Returns:
        0 if the run is finished, is being worked on or can be continued, else 3.
    Raises:
        UsageError: If there is no such folder.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is no folder; doctor looks at the folder of a run.")
    folder = RunFolder(path)
    for name, says in {"folder": str(path), "splat": _splat(folder)}.items():
        console.result(f"{name:<12} {says}")
    try:
        config = folder.config
    except UsageError as error:
        console.result(f"{'settings':<12} {_line(error)}")
        console.result("It cannot be continued: without its settings it is no run.")
        return 3
    console.result(f"{'prompt':<12} {config.prompt}")
    usable, lines = _checkpoints(folder, config.of_the_result())
    for line in lines:
        console.result(f"{'checkpoint':<12} {line}")
    status, good, advice = _verdict(folder, config.steps, usable, bool(lines))
    console.result(f"{'status':<12} {status}")
    console.result(advice)
    return 0 if good else 3


def _splat(folder: RunFolder) -> str:
    if not folder.splat.is_file():
        return "none yet"
    try:
        return f"{len(open_splats(folder.splat))} Gaussians"
    except UsageError as error:
        return _line(error)


def _checkpoints(folder: RunFolder, settings: dict) -> tuple[int | None, list[str]]:
    """Returns the newest usable step, and a line for each checkpoint."""
    newest, lines = None, []
    for path in checkpoints(folder.checkpoints):
        try:
            state = load_checkpoint(path)
        except UsageError as error:
            lines.append(_line(error))
            continue
        known = state.get("settings")
        known = known if isinstance(known, dict) else {}
        other = [name for name in settings if known.get(name, settings[name]) != settings[name]]
        if other:
            lines.append(f"{path.name}: made with another {', '.join(other)} than config.yaml says")
            continue
        lines.append(f"{path.name}: whole")
        newest = state["step"] if newest is None else newest
    return newest, lines


def _verdict(
    folder: RunFolder, steps: int, usable: int | None, any_checkpoint: bool
) -> tuple[str, bool, str]:
    """Returns the status, whether it is a good one, and what to do."""
    run, at_work = folder.run, holder(folder.path)
    status = run.get("status", "not started")
    if at_work is not None:
        where = f"process {at_work['pid']} on {at_work['host']}"
        return f"{status}, by {where}", True, "It is being worked on; wait for it, or stop it."
    if status == "running":
        status = "killed: run.json says running, and no living process holds the folder"
    if run.get("why"):
        status = f"{status}: {run['why']}"
    if folder.is_finished:
        return status, True, "It is finished; splat-esd export, view and evaluate take it."
    if usable is None and any_checkpoint:
        return status, False, (
            "It cannot be continued: no checkpoint can be used. Put the settings back, or delete "
            "ckpt/ to start it again."
        )  # fmt: skip
    begin = "from the start" if usable is None else f"from step {usable} of {steps}"
    return status, True, f"It can be continued {begin}: {resume_command(folder)}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
