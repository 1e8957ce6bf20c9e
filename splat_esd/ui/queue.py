"""The runs that were asked for: one at a time, each in a process of its own, in order.

A run that waits is a folder with its config.yaml: what the page asked for outlives the page.
"""

import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from splat_esd.errors import UsageError
from splat_esd.runs.folder import RunFolder
from splat_esd.runs.lock import holder

LOG = "log.txt"
SIGN = "$ "  # begins the line of a log that a new process writes below
_PREVIEWS = 12  # of a whole run; viewer.html holds a splat for each
_PATIENCE = 120.0  # seconds that a run may take to save itself


def run_command(folder: Path) -> list[str]:
    """Returns what continues a run from its folder, with a preview now and then."""
    every = max(5, RunFolder(folder).config.steps // _PREVIEWS)
    settings = [f"resume={folder}", f"log.preview_every={every}", "log.every=5"]
    return [sys.executable, "-m", "splat_esd", *settings]


class Queue:
    """The folder that is worked on, and those that wait.

    Arguments:
        command: What is run for a folder.
    """

    def __init__(self, command: Callable[[Path], list[str]] = run_command):
        self._command = command
        self._lock = threading.RLock()
        self._waiting: list[Path] = []
        self._running: tuple[Path, subprocess.Popen] | None = None
        self._stopping = False
        self._closed = False

    @property
    def running(self) -> Path | None:
        return None if self._running is None else self._running[0]

    @property
    def waiting(self) -> list[Path]:
        with self._lock:
            return list(self._waiting)

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to save itself and end."""
        return self._stopping

    def add(self, folder: Path) -> None:
        """Puts a run at the end of the queue.

        Raises:
            UsageError: If it is there already, finished, or another process works on it, or the
                queue is closed.
        """
        with self._lock:
            if self._closed:
                raise UsageError("the program is being stopped; ask again when it is back.")
            if folder == self.running or folder in self._waiting:
                raise UsageError(f"{folder} is in the queue already.")
            if RunFolder(folder).is_finished:
                raise UsageError(f"{folder} is finished; for another one choose another seed.")
            if RunFolder(folder).is_worked_on:
                raise UsageError(f"another process is still working in {folder}.")
            self._waiting.append(folder)
        self.advance()

    def stop(self, folder: Path) -> None:
        """Takes a waiting run out, or asks the one that runs to save itself and end.

        Raises:
            UsageError: If it is not in this queue.
        """
        with self._lock:
            if folder in self._waiting:
                self._waiting.remove(folder)
                _forget(folder)
            elif folder == self.running:
                self._interrupt()
            else:
                raise UsageError(_not_here(folder))

    def advance(self) -> None:
        """Notices that a run has ended, and starts the next; to be called now and then."""
        with self._lock:
            if self._running is not None and self._running[1].poll() is not None:
                self._running, self._stopping = None, False
            while self._running is None and self._waiting:
                folder = self._waiting.pop(0)
                with suppress(OSError):  # somebody removed the folder
                    self._running = self._start(folder)

    def close(self) -> tuple[Path, bool] | None:
        """Asks the run to save itself and waits for it; returns its folder and whether it ended."""
        with self._lock:
            self._closed = True  # a page that is still open may ask for more
            self._waiting.clear()
            if self._running is None:
                return None
            folder, process = self._running
            self._interrupt()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return folder, False
        return folder, True

    def _start(self, folder: Path) -> tuple[Path, subprocess.Popen] | None:
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{SIGN}{shlex.join(['splat-esd', f'resume={folder}'])}\n")
            log.flush()
            try:
                # In a session of its own: Ctrl-C in the terminal reaches the page's server alone,
                # which passes it on once; two would tear a step apart.
                return folder, subprocess.Popen(
                    self._command(folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except (UsageError, OSError) as error:  # its settings are spoilt, or memory is full
                log.write(f"error: {error}\n")  # which the gallery shows
                return None

    def _interrupt(self) -> None:
        if self._running is None or self._stopping:
            return
        self._stopping = True
        # What ignores Ctrl-C here (`nohup`, `&` in a script) ignores it in the run too.
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        self._running[1].send_signal(signal.SIGTERM if ignored else signal.SIGINT)


def _forget(folder: Path) -> None:
    """Removes the folder of a run that never began, unless there is more in it."""
    if not (folder / "run.json").exists() and not (folder / LOG).exists():
        with suppress(OSError):
            RunFolder(folder).settings.unlink()
            folder.rmdir()
            folder.parent.rmdir()


def _not_here(folder: Path) -> str:
    found = holder(folder)
    if found is None:
        return f"{folder} is not running."
    return f"{folder} was started elsewhere; stop it there, or by: kill -INT {found['pid']}"
