"""A lock in a folder: one process at a time works there, and a dead one's place is taken over."""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from splat_esd.formats.atomic import write_text

LOCK = ".lock"
BEAT = 10.0  # seconds between two signs of life
EXPIRY = 120.0  # seconds without one after which a process of another machine counts as dead


@contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Yields whether the folder is this caller's alone until the block ends.

    The file `.lock` names process and machine, and is touched every 10 s. A holder on this machine
    is asked for directly, so that a killed one is known at once; one of another machine counts as
    dead after 120 s without a sign.

    Raises:
        EnvironmentProblem: If the folder cannot be written.
    """
    mine = {
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "host": socket.gethostname(),
        "token": secrets.token_hex(8),
    }
    with _guard(folder):
        taken = holder(folder) is None
        if taken:
            write_text(folder / LOCK, json.dumps(mine) + "\n")
    if not taken:
        yield False
        return
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(folder / LOCK, over), daemon=True)
    beating.start()
    try:
        yield True
    finally:
        over.set()
        beating.join()
        if _read(folder).get("token") == mine["token"]:
            (folder / LOCK).unlink(missing_ok=True)


def holder(folder: Path) -> dict[str, Any] | None:
    """Returns process id, machine and token of the living process that holds a folder, or None."""
    found = _read(folder)
    pid, host = found.get("pid"), found.get("host")
    if not isinstance(pid, int) or not isinstance(host, str) or pid <= 0:
        return None
    if host == socket.gethostname():
        return found if _is_alive(pid) and found.get("started") == _start_of(pid) else None
    try:
        silent = time.time() - (folder / LOCK).stat().st_mtime
    except OSError:
        return None
    return found if silent < EXPIRY else None


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _beat(path: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        with suppress(OSError):  # a folder that vanished is the run's to notice
            os.utime(path)


@contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """Lets one process of this machine at a time look at the lock and take it."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):  # some network file systems know no such locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _start_of(pid: int) -> str | None:
    """Returns when a process started, in the kernel's ticks; None where that is not told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else fields[18]
