"""`splat-esd bench step`: the time of a step, by how it is spread and by part.

Runs are whole commands, started in turn, so that a slower minute of the machine affects all alike;
what is compared is the median step of each, its first steps left out.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from splat_esd import console
from splat_esd.bench import machine
from splat_esd.config.commands import BenchStepArguments, command_line
from splat_esd.config.load import load_config
from splat_esd.errors import EnvironmentProblem
from splat_esd.runs import start
from splat_esd.train import Run, make_run, train_step

WARM_UP = 8  # steps
PARTS = 12  # steps that are timed by part
UNET = 1.39e9  # multiply-adds of the embedded prior's denoiser for one row, forward

Kind = tuple[str, list[str], dict[str, str]]  # interpreter, settings, environment


def main(asked: BenchStepArguments) -> None:
    """Times runs of each kind in turn, then the parts of a step, and prints both.

    Raises:
        EnvironmentProblem: If the other installation does not run.
    """
    here = machine.describe()
    if machine.is_busy(here["load_average"]):
        console.warn("this machine is busy: compare ratios, not milliseconds.")
    kinds = kinds_of_runs(asked.against)
    steps: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(asked.rounds):
        for name, kind in kinds.items():
            steps[name].append(_median_step(kind, asked.steps))
            console.note(f"round {turn + 1} of {asked.rounds}, {name}: {steps[name][-1]:.0f} ms")
    medians = {name: statistics.median(found) for name, found in steps.items()}
    first = next(iter(medians.values()))
    rows = [[name, f"{ms:.0f}", f"{first / ms:.2f}"] for name, ms in medians.items()]
    console.table("a step at normal quality", ["run", "ms", "times as fast"], rows)
    parts = parts_of_a_step()
    console.table("its parts, one thread, one view", ["part", "ms"], _as_rows(parts["ms"]))
    console.note(
        f"{parts['unet_rows_per_second']:.0f} rows of the denoiser a second, "
        f"{100 * parts['share_of_rate']:.0f} % of what this processor does in {parts['dtype']}."
    )
    if asked.out is not None:
        found = {
            "command": command_line("bench step", asked),
            "version": version("splat-esd"),
            "machine": here,
            "ms": steps,
            "parts": parts,
        }
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        console.note(f"all figures are in {asked.out}.")


def kinds_of_runs(against: Path | None) -> dict[str, Kind]:
    """Returns the runs to time, the one that ratios are to first."""
    cores = machine.cores()
    kinds: dict[str, Kind] = {}
    if against is not None:
        kinds["the other installation"] = (str(against), [], {})
    one, all_cores = {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": str(cores)}
    kinds["one process, one thread"] = (sys.executable, ["processes=1"], one)
    kinds[f"one process, {cores} threads"] = (sys.executable, ["processes=1"], all_cores)
    kinds["as many processes as help"] = (sys.executable, [], all_cores)
    return kinds


def _median_step(kind: Kind, steps: int) -> float:
    python, settings, environment = kind
    with tempfile.TemporaryDirectory() as folder:
        command = [
            python, "-m", "splat_esd", "prompt=a corgi", "prior=zoo", f"steps={steps}", *settings,
            "log.every=1", "log.preview_every=100000", "export.formats=[ply]", f"out={folder}",
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise EnvironmentProblem(f"against: {python} made no run: {said[0]}")
        (metrics,) = Path(folder).glob("*/*/metrics.jsonl")
        seconds = [json.loads(line)["seconds"] for line in metrics.read_text().splitlines()]
    took = [b - a for a, b in zip(seconds[WARM_UP:], seconds[WARM_UP + 1 :], strict=False)]
    return 1000 * statistics.median(took)


def parts_of_a_step() -> dict[str, Any]:
    """Returns the milliseconds of each part of a step of one view on one thread, rows of the
    denoiser a second in it, and their share of the processor's rate for products of matrices in the
    precision that the prior computes in.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = load_config(["prompt=a corgi", "prior=zoo", "steps=500", "cameras.batch_size=1"])
        run = make_run(config, start.open_prior(config, torch.device("cpu")))
        for step in range(WARM_UP):
            train_step(run, step)
        spent = _watch(run)
        begun = time.perf_counter()
        for step in range(WARM_UP, WARM_UP + PARTS):
            train_step(run, step)
        whole = (time.perf_counter() - begun) / PARTS
        ms = {name: 1000 * seconds / PARTS for name, seconds in spent.items()}
        ms["all else"] = 1000 * whole - sum(ms.values())
        rows = run.guidance.evaluations["unet_prior"] / (ms["prior"] / 1000)
        return {
            "ms": ms,
            "unet_rows_per_second": rows,
            "dtype": str(run.prior.dtype).removeprefix("torch."),
            "share_of_rate": rows * 2 * UNET / _rate(run.prior.dtype),
        }
    finally:
        torch.set_num_threads(threads)


def _watch(run: Run) -> dict[str, float]:
    """Has the parts of a run add up the seconds that they take."""
    spent: dict[str, float] = defaultdict(float)

    def watched(name: str, call: Callable) -> Callable:
        def timed(*arguments: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            answer = call(*arguments, **named)
            spent[name] += time.perf_counter() - begun
            return answer

        return timed

    prior, guidance = run.prior, run.guidance
    prior.encode_images = watched("encode", prior.encode_images)
    prior.surrogate = watched("pull back through the decoder", prior.surrogate)
    guidance.prior_eps = watched("prior", guidance.prior_eps)
    guidance.particles = watched("phi, forward", guidance.particles)
    for optimizer in (*run.optimizers.values(), run.phi_optimizer):
        if optimizer is not None:
            optimizer.step = watched("Adam", optimizer.step)
    return spent


def _rate(dtype: torch.dtype) -> float:
    """Returns how many operations a second one thread does in large products of matrices."""
    a, b = torch.randn(2, 1024, 1024).to(dtype)
    seconds = []
    for _ in range(20):
        begun = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - begun)
    return 2 * 1024**3 / min(seconds)


def _as_rows(ms: dict[str, float]) -> list[list[str]]:
    return [[name, f"{value:.0f}"] for name, value in ms.items()]
