"""The machine a figure was measured on: its processor, its load, and an artificial load."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from splat_esd.rasterize import cpu

_IDLE = 0.25  # processes that want to run, per core

# Ends with the program that started it, however that ended.
_SPIN = """
import os, sys
print(flush=True)
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""


def describe() -> dict[str, Any]:
    """Returns processor, instruction set, number of cores and load average."""
    return {
        "cpu": _model(),
        "instruction_set": cpu.instruction_set(),
        "cores": cores(),
        "load_average": _load(),
    }


def cores() -> int:
    """Returns the number of cores that this process may use, by affinity and cgroup limits."""
    from joblib import cpu_count

    return cpu_count()


def is_busy(load: float | None) -> bool:
    """Returns whether the load is too high for wall-clock times to be meaningful."""
    return load is not None and load > _IDLE * cores()


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """Runs that many busy processes until the block ends."""
    command = [sys.executable, "-c", _SPIN, str(os.getpid())]
    spinners: list[subprocess.Popen] = []
    try:
        for _ in range(count):
            spinners.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        for spinner in spinners:
            if spinner.stdout is not None:
                spinner.stdout.readline()  # now it spins
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.communicate()


def _load() -> float | None:
    """Returns how many processes wanted to run during the last minute, where the system tells."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())
