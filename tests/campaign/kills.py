"""Runs killed at random moments (start-up, step, checkpoint, export; once or twice; by SIGKILL or
SIGTERM), and runs that no longer may write files beyond a random length, as on a disk that is full.

Each must end, when the same command is given again, in the bytes of a run left alone.
"""

import os
import random
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from conftest import save_tiny_prior

from splat_esd.cli.main import main
from splat_esd.runs.folder import RunFolder

from .calls import Outcome

SETTINGS = (
    "prior=sd15 cameras.batch_size=2 quality=draft steps=24 guidance.lora.rank=2 init.count=100 "
    "export.formats=[ply,sheet,spz] export.size=32 mesh.faces=500 log.every=1 log.preview_every=6 "
    "log.checkpoint_every=4 density.start=0 density.every=5"
).split()


def run_kills(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Kills `count` runs, the i-th with seed + i, in folders of their own."""
    return _kills("kill", count, seed, folder, [])


def run_teams(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Kills `count` runs that are spread over two processes, at their first or at the other."""
    return _kills("kill, two processes", count, seed, folder, ["processes=2"])


def _kills(name: str, count: int, seed: int, folder: Path, more: list[str]) -> list[Outcome]:
    prior, took, whole = make_whole(folder, more)
    found = []
    for i in range(count):
        out = folder / f"kill-{i}"
        found.append(Outcome(name, seed + i, _kill(out, prior, seed + i, took, whole, more)))
    return found


def run_disks(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Lets `count` runs write no file beyond a random length, the i-th with seed + i."""
    prior, _, whole = make_whole(folder)
    return [
        Outcome("full disk", seed + i, _fill(folder / f"disk-{i}", prior, seed + i, whole))
        for i in range(count)
    ]


def make_whole(folder: Path, more: Sequence[str] = ()) -> tuple[Path, float, bytes]:
    """Makes the run that nothing disturbs: its prior, the seconds it took, and its splat."""
    torch.set_num_threads(1)
    prior = save_tiny_prior(folder / "prior")
    begun = time.monotonic()
    os.waitpid(start(folder / "whole", prior, more), 0)
    took = time.monotonic() - begun
    return prior, took, _only_run(folder / "whole").splat.read_bytes()


def _fill(out: Path, prior: Path, seed: int, whole: bytes) -> str | None:
    length = int(10 ** random.Random(seed).uniform(1, 6))
    status = os.waitpid(start(out, prior, longest=length), 0)[1]
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 3):
        return f"exit {code} where files are cut at {length} bytes"
    partial = [p.name for p in out.rglob(".*")]
    if partial:
        return f"partial files: {partial}"
    if not finished(out) and (
        code := os.waitstatus_to_exitcode(os.waitpid(start(out, prior), 0)[1])
    ):
        return f"continuing ended with {code}"
    return judge(out, whole)


def _kill(
    out: Path, prior: Path, seed: int, took: float, whole: bytes, more: Sequence[str]
) -> str | None:
    draw = random.Random(seed)
    for _ in range(draw.choice([1, 1, 2])):
        pid = start(out, prior, more)
        time.sleep(draw.uniform(0, 1.05 * took))
        others = _children(pid)
        if others and draw.random() < 0.5:
            os.kill(others[0], signal.SIGKILL)  # the first process must notice, save and end
        else:
            os.kill(pid, draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        os.waitpid(pid, 0)
        if not _gone(others):
            return f"left running: {others}"
    if not finished(out):
        status = os.waitpid(start(out, prior, more), 0)[1]
        if os.waitstatus_to_exitcode(status) != 0:
            return f"continuing ended with {os.waitstatus_to_exitcode(status)}"
    return judge(out, whole)


def _children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _gone(pids: list[int], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def judge(out: Path, whole: bytes) -> str | None:
    runs = list((out / "a-corgi").iterdir())
    if len(runs) != 1:
        return f"{len(runs)} folders"
    run = RunFolder(runs[0])
    partial = [p.name for p in out.rglob(".*")]
    if partial:
        return f"partial files: {partial}"
    if run.run.get("status") != "finished":
        return f"status {run.run.get('status')}"
    if run.splat.read_bytes() != whole:
        return "other bytes"
    steps = [line["step"] for line in run.read_metrics()]
    return None if steps == list(range(1, 25)) else "steps missing or twice"


def start(
    out: Path, prior: Path, more: Sequence[str] = (), longest: int = resource.RLIM_INFINITY
) -> int:
    """Starts the run in a forked process, silently, and returns its id."""
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        code = 1
        try:
            code = main(["prompt=a corgi", f"prior.path={prior}", f"out={out}", *SETTINGS, *more])
        finally:
            os._exit(code)
    return pid


def _only_run(out: Path) -> RunFolder:
    (path,) = (out / "a-corgi").iterdir()
    return RunFolder(path)


def finished(out: Path) -> bool:
    return any(RunFolder(path).is_finished for path in out.glob("a-corgi/*"))
