"""A study of many short runs, shared out to two workers by shards; one of them is killed twice.

Every run must be made, none of them twice, and what a killed worker leaves is made by its next
call.
"""

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from conftest import save_tiny_prior

from .calls import Outcome

STUDY = """\
prompts: [{prompts}]
methods: {{{methods}}}
seeds: {seeds}
common: [prior=sd15, "prior.path={prior}", quality=draft, steps=3, cameras.batch_size=1,
  init.count=60, "export.formats=[ply]", density=none, guidance.lora.rank=2]
processes: 1
out: {out}
"""
PROMPTS = "a corgi, a cat, a fox, an owl, a bear"
METHODS = "vsd: [guidance=vsd], esd-1: [guidance.lambda=1]"
PER_SEED = 10  # prompts x methods
MADE = re.compile(r"^seed +\d+$", re.MULTILINE)  # in the lines that a run begins its log with


def run_cells(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Makes `count` runs, rounded up to tens; prints the seconds a run took beside those of a
    process of its own.
    """
    prior, seeds = save_tiny_prior(folder / "prior"), -(-count // PER_SEED)
    file, out = folder / "many.yaml", folder / "many"
    many = {"prompts": PROMPTS, "methods": METHODS, "seeds": seeds, "out": out}
    file.write_text(STUDY.format(prior=prior, **many))
    begun = time.monotonic()
    steady, killed = _worker(file, 1), _worker(file, 2)
    draw = random.Random(seed)
    for share in (draw.uniform(0.1, 0.4), draw.uniform(0.5, 0.8)):
        while len(_made(out)) < share * seeds * PER_SEED and killed.poll() is None:
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed = _worker(file, 2)
    codes = [steady.wait(), killed.wait()]
    each = (time.monotonic() - begun) / (seeds * PER_SEED)
    _report(file)
    alone = _alone(prior, folder)
    sys.stdout.write(f"{each:.2f} s a run, two workers; {alone:.2f} s in a process of its own\n")
    return [_outcome(out, codes, seeds * PER_SEED, seed)]


def _outcome(out: Path, codes: list[int], count: int, seed: int) -> Outcome:
    states = Counter(c["status"] for c in json.loads((out / "results.json").read_text())["cells"])
    begun = Counter(
        len(MADE.findall(log.read_text()))
        for log in out.rglob("log.txt")
        if log.parent.parent != out
    )
    again = sum(times - 1 for times, cells in begun.items() for _ in range(cells))
    failure = None
    if codes != [0, 0] or states != {"done": count} or again > 2:
        failure = f"workers ended with {codes}; {dict(states)}; {again} begun again after two kills"
    return Outcome("1,000 cells" if count == 1000 else "cells", seed, failure)


def _worker(file: Path, shard: int) -> subprocess.Popen:
    return subprocess.Popen(_command(file, f"shard={shard}/2"), **_SILENT)


def _report(file: Path) -> None:
    subprocess.run(_command(file, "report"), **_SILENT, check=True)


def _alone(prior: Path, folder: Path) -> float:
    one = {"prompts": "a lion", "methods": "vsd: [guidance=vsd]", "seeds": 1}
    file = folder / "one.yaml"
    file.write_text(STUDY.format(prior=prior, out=folder / "one", **one))
    begun = time.monotonic()
    subprocess.run(_command(file), **_SILENT, check=True)
    return time.monotonic() - begun


def _command(file: Path, *more: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "splat_esd", "study", str(file), *more]


_SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _made(out: Path) -> list[Path]:
    return list(out.glob("*/*/*/splat.ply"))
