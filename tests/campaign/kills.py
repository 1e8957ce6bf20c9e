"""Runs killed at random moments (start-up, step, checkpoint, export; once or twice; by SIGKILL or
SIGTERM), and runs that no longer may write files beyond a random length, as on a disk that is full.

Each must end, when the same command is given again, in the bytes of a run left alone.
"""

import os
import random
import resource
import signal
import time
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
    prior, took, whole = make_whole(folder)
    return [
        Outcome("kill", seed + i, _kill(folder / f"kill-{i}", prior, seed + i, took, whole))
        for i in range(count)
    ]


def run_disks(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Lets `count` runs write no file beyond a random length, the i-th with seed + i."""
    prior, _, whole = make_whole(folder)
    return [
        Outcome("full disk", seed + i, _fill(folder / f"disk-{i}", prior, seed + i, whole))
        for i in range(count)
    ]


def make_whole(folder: Path) -> tuple[Path, float, bytes]:
    """Makes the run that nothing disturbs: its prior, the seconds it took, and its splat."""
    torch.set_num_threads(1)
    prior = save_tiny_prior(folder / "prior")
    begun = time.monotonic()
    os.waitpid(start(folder / "whole", prior), 0)
    took = time.monotonic() - begun
    return prior, took, _only_run(folder / "whole").splat.read_bytes()


def _fill(out: Path, prior: Path, seed: int, whole: bytes) -> str | None:
    length = int(10 ** random.Random(seed).uniform(1, 6))
    status = os.waitpid(start(out, prior, length), 0)[1]
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


def _kill(out: Path, prior: Path, seed: int, took: float, whole: bytes) -> str | None:
    draw = random.Random(seed)
    for _ in range(draw.choice([1, 1, 2])):
        pid = start(out, prior)
        time.sleep(draw.uniform(0, 1.05 * took))
        os.kill(pid, draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        os.waitpid(pid, 0)
    if not finished(out):
        status = os.waitpid(start(out, prior), 0)[1]
        if os.waitstatus_to_exitcode(status) != 0:
            return f"continuing ended with {os.waitstatus_to_exitcode(status)}"
    return judge(out, whole)


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


def start(out: Path, prior: Path, longest: int = resource.RLIM_INFINITY) -> int:
    """Starts the run in a forked process, silently, and returns its id."""
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        code = 1
        try:
            code = main(["prompt=a corgi", f"prior.path={prior}", f"out={out}", *SETTINGS])
        finally:
            os._exit(code)
    return pid


def _only_run(out: Path) -> RunFolder:
    (path,) = (out / "a-corgi").iterdir()
    return RunFolder(path)


def finished(out: Path) -> bool:
    return any(RunFolder(path).is_finished for path in out.glob("a-corgi/*"))
