"""The memory of a run over 300 steps."""

import resource
from pathlib import Path

import torch
from conftest import save_tiny_prior

from splat_esd.config.load import load_config
from splat_esd.runs.generate import generate

from .calls import Outcome
from .kills import SETTINGS

FROM, TO, GROWTH = 50, 300, 0.02


def run_memory(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Measures `count` runs, the i-th with seed + i, with a fixed number of Gaussians."""
    torch.set_num_threads(1)
    prior = save_tiny_prior(folder / "prior")
    return [Outcome("memory", seed + i, _grown(folder, prior, seed + i)) for i in range(count)]


def _grown(folder: Path, prior: Path, seed: int) -> str | None:
    used: dict[int, int] = {}

    def measure(step: int, _: object) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        used[step] = pages * resource.getpagesize()

    settings = [x for x in SETTINGS if not x.startswith(("steps", "density", "log"))]
    given = ["prompt=a corgi", f"prior.path={prior}", f"out={folder / 'out'}", f"seed={seed}"]
    generate(
        load_config([*given, *settings, f"steps={TO}", "density=none", "log.preview_every=1000"]),
        on_step=measure,
    )
    growth = used[TO] / used[FROM] - 1
    megabytes = f"{used[FROM] >> 20} to {used[TO] >> 20} MiB"
    return None if growth <= GROWTH else f"{megabytes} from step {FROM} to {TO}: {growth:.1%}"
