"""Times several functions in turn, so that a slowdown of the machine affects all alike."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from splat_esd import console

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Job:
    """A function to time.

    Arguments:
        call: What is done.
        threads: How many torch and the kernels may use.
        wall: Whether the clock on the wall counts, which waiting moves too; else the time that
            the processor gave this thread, which knows nothing of other threads.
        every: 1 for a turn in every round, 5 for one in five.
    """

    call: Callable[[], object]
    threads: int = 1
    wall: bool = False
    every: int = 1


@dataclass(frozen=True)
class Timing:
    """Median and quartiles of a job's run times, in seconds."""

    median: float
    quartiles: tuple[float, float]
    mean: float
    runs: int

    def in_ms(self) -> dict[str, object]:
        """Returns the figures in milliseconds, as they are stored."""
        return {
            "ms": 1e3 * self.median,
            "quartiles_ms": [1e3 * quartile for quartile in self.quartiles],
            "runs": self.runs,
        }


def alternate(jobs: Mapping[Key, Job], rounds: int) -> dict[Key, Timing]:
    """Times every job once per round, each time after one untimed run that fills the caches."""
    seconds: dict[Key, list[float]] = {key: [] for key in jobs}
    threads = torch.get_num_threads()
    try:
        with console.progress(rounds, unit="round") as meter:
            for turn in range(rounds):
                for key, job in jobs.items():
                    if turn % job.every == 0:
                        seconds[key].append(_time(job))
                meter.update(turn + 1)
    finally:
        torch.set_num_threads(threads)
    return {key: summarise(values) for key, values in seconds.items()}


def summarise(seconds: list[float]) -> Timing:
    """Returns median and quartiles of a job's runs."""
    low, median, high = statistics.quantiles(seconds * 2 if len(seconds) == 1 else seconds)
    return Timing(median, (low, high), statistics.fmean(seconds), len(seconds))


def _time(job: Job) -> float:
    torch.set_num_threads(job.threads)
    clock = time.perf_counter if job.wall else time.thread_time
    job.call()
    begun = clock()
    job.call()
    return clock() - begun
