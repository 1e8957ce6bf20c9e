"""What the page may ask its server, by address: one function each."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from splat_esd.errors import UsageError
from splat_esd.runs.folder import RunFolder, finished_run, open_run_folder
from splat_esd.ui.gallery import find_runs, progress_of, tell_run
from splat_esd.ui.queue import Queue
from splat_esd.ui.wish import choices, read_wish, with_seed


@dataclass
class Desk:
    """What the answers are made of.

    Arguments:
        out: Folder of the runs.
    """

    out: Path
    queue: Queue = field(default_factory=Queue)


def about(desk: Desk) -> dict[str, Any]:
    """Returns what the form offers, and where the runs lie."""
    return choices() | {"out": str(desk.out)}


def state(desk: Desk) -> dict[str, Any]:
    """Returns how all runs stand: those worked on, with their progress, and the gallery."""
    running, waiting = desk.queue.running, desk.queue.waiting
    runs = []
    for folder in find_runs(desk.out):
        with suppress(OSError):  # somebody removes it just now
            runs.append(_told(desk, folder, running, waiting))
    now = [_going_on(desk, run, running) for run in runs if run["status"] == "running"]
    order = [_name(desk, folder) for folder in waiting]
    return {"now": now, "waiting": order, "runs": runs}


def check(desk: Desk, wish: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an empty answer if the form can be granted.

    Raises:
        UsageError: If not, saying why.
    """
    read_wish(dict(wish), desk.out)
    return {}


def make(desk: Desk, wish: Mapping[str, Any]) -> dict[str, Any]:
    """Queues the run that the form asks for; one that was made before, bit for bit, is only named.

    Raises:
        UsageError: If the form is wrong, or the run is in the queue.
    """
    config = read_wish(dict(wish), desk.out)
    made = finished_run(config) if config.seed is not None else None
    if made is not None:
        said = (
            f"this was made before, bit for bit. For another one: a seed other than {config.seed}."
        )
        return {"run": _name(desk, made), "said": said}
    running = desk.queue.running
    if running is not None and RunFolder(running).holds(config):
        raise UsageError(f"{running} is being made just now.")
    folder, continued = open_run_folder(with_seed(config))
    desk.queue.add(folder.path)
    said = "a run of these settings that was not finished goes on." if continued else ""
    return {"run": _name(desk, folder.path), "said": said}


def go_on(desk: Desk, wish: Mapping[str, Any]) -> dict[str, Any]:
    """Queues a run that was stopped.

    Raises:
        UsageError: If there is no such run, or nothing to continue.
    """
    desk.queue.add(_folder(desk, wish))
    return {}


def stop(desk: Desk, wish: Mapping[str, Any]) -> dict[str, Any]:
    """Ends the run that is worked on, which saves itself, or takes one out of the queue.

    Raises:
        UsageError: If it is neither.
    """
    desk.queue.stop(_folder(desk, wish))
    return {}


GET: dict[str, Callable[[Desk], dict[str, Any]]] = {"/api/about": about, "/api/state": state}
POST: dict[str, Callable[[Desk, Mapping[str, Any]], dict[str, Any]]] = {
    "/api/check": check,
    "/api/make": make,
    "/api/go-on": go_on,
    "/api/stop": stop,
}


def _told(desk: Desk, folder: Path, running: Path | None, waiting: list[Path]) -> dict[str, Any]:
    name, told = _name(desk, folder), tell_run(folder)
    status = told["status"]
    if folder == running or RunFolder(folder).is_worked_on:
        status = "running"
    elif folder in waiting:
        status = "waiting"
    return told | {"run": name, "address": f"/runs/{quote(name)}/", "status": status}


def _going_on(desk: Desk, run: Mapping[str, Any], running: Path | None) -> dict[str, Any]:
    folder = desk.out / run["run"]
    mine = folder == running
    told = {name: run[name] for name in ("run", "address", "prompt", "seed")}
    return told | progress_of(folder) | {"mine": mine, "stopping": mine and desk.queue.stopping}


def _folder(desk: Desk, wish: Mapping[str, Any]) -> Path:
    """Returns the folder of a run by its name; only what the gallery shows can be named."""
    for folder in find_runs(desk.out):
        if _name(desk, folder) == wish.get("run"):
            return folder
    raise UsageError(f"there is no run {wish.get('run')!r} in {desk.out}.")


def _name(desk: Desk, folder: Path) -> str:
    return folder.relative_to(desk.out).as_posix()
