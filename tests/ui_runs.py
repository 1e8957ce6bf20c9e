"""What the tests of the page share: runs as they lie on disk, one that is made, and a server."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from splat_esd.config.load import load_config
from splat_esd.runs.folder import RunFolder
from splat_esd.ui.interface import Desk
from splat_esd.ui.server import PageServer, open_server

# Stands in for a run: says that it is at work, ends by itself when told to, saves itself on Ctrl-C.
RUN = """
import json, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
tell = lambda status: (folder / "run.json").write_text(json.dumps({"status": status}))
def save(*_):
    with (folder / "signals").open("a") as file:
        file.write("x")
    time.sleep(0.8)
    tell("interrupted")
    sys.exit(130)
signal.signal(signal.SIGINT, save)
tell("running")
while not (folder / "end").exists():
    time.sleep(0.02)
tell("finished")
"""


def stand_in(folder: Path) -> list[str]:
    return [sys.executable, "-c", RUN, str(folder)]


def made(out: Path, prompt: str, name: str, status: str | None = None, **facts: object) -> Path:
    """A run's folder as a run leaves it."""
    folder = RunFolder(out / prompt.replace(" ", "-") / name)
    folder.path.mkdir(parents=True)
    folder.write_config(load_config([f"out={out}", f"prompt={prompt}", "prior=zoo"]))
    if status is not None:
        (folder.path / "run.json").write_text(json.dumps({"status": status} | facts))
    return folder.path


@contextmanager
def serving(desk: Desk) -> Iterator[PageServer]:
    """Serves the page within the block."""
    server = open_server(desk, free_port())
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds, "it did not come to pass"
        time.sleep(0.02)
