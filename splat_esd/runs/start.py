"""What a run starts with: the device, and the prior on it."""

import os
from dataclasses import replace
from pathlib import Path

import torch

from splat_esd import console
from splat_esd.config.load import Config, cached_mirror
from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.prior import Prior
from splat_esd.errors import EnvironmentProblem
from splat_esd.paths import ASSETS


def choose_device(config: Config) -> tuple[torch.device, str]:
    """Returns the device and why it was chosen.

    Raises:
        EnvironmentProblem: If CUDA is asked for and not there.
    """
    there = torch.cuda.is_available()
    if config.device == "cuda" and not there:
        raise EnvironmentProblem(
            "device=cuda: PyTorch sees no CUDA GPU here; `splat-esd doctor` says why, "
            "device=cpu works everywhere."
        )
    kind = config.device
    why = "as asked"
    if kind == "auto":
        kind, why = ("cuda", "GPU found") if there else ("cpu", "no CUDA GPU here")
    # Of the processes that a launcher starts on one machine, each takes a GPU of its own.
    number = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device(kind, number) if kind == "cuda" and number else torch.device(kind), why


def open_prior(config: Config, device: torch.device) -> Prior:
    """Loads the prior that the configuration names: a path, the embedded zoo, or a hub id."""
    settings = config.prior
    source, *mirrors = [p for p in (settings.path, *settings.mirrors) if p] or [_embedded()]
    if settings.path and not Path(settings.path).exists():
        mirrors = []  # another model than the one that was asked for is none
    prior = load_prior(
        source,
        mirrors=tuple(mirrors),
        revision=settings.revision,
        device=device,
        dtype=settings.dtype,
        pullback=settings.pullback,
        loras=settings.lora,
        size=settings.size,
    )
    return replace(prior, rows=1) if settings.memory == "low" else prior


def _embedded() -> str:
    folder = ASSETS / "zoo"
    if not (folder / "model_index.json").is_file():
        raise EnvironmentProblem(
            f"the embedded prior is missing from {folder}; reinstall splat-esd, or train it with "
            f"splat-esd zoo train out={folder}."
        )
    return str(folder)


def warn_of_stable_diffusion(config: Config, device: torch.device) -> None:
    name = config.prior.name
    if device.type != "cpu" or name == "zoo" or config.prior.path is not None:
        return
    fetched = "" if cached_mirror(name) else " and fetches gigabytes first"
    console.warn(
        f"prior={name} without a CUDA GPU takes minutes a step{fetched}; Ctrl-C stops it, and "
        "prior=zoo is made for this machine."
    )
