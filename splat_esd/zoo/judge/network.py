"""The judge: a small network that tells what a picture shows and from where; for metrics only.

It learns from renders, as the prior does, but from other ones: from all sides alike, all
compositions, spoilt in every way. Nothing that generates may know it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from splat_esd.errors import UsageError
from splat_esd.paths import ASSETS
from splat_esd.zoo.world.accessories import ACCESSORIES
from splat_esd.zoo.world.captions import Composition
from splat_esd.zoo.world.objects import OBJECTS
from splat_esd.zoo.world.palette import COLORS

SIZE = 96  # pixels of the pictures it looks at
BINS = 24  # of azimuth
TELLS = 8.0  # degrees: with a larger median error in its exam, an object has no front
CLASSES: dict[str, tuple[str | None, ...]] = {
    "object": tuple(OBJECTS),
    "color": (None, *COLORS),
    "accessory": (None, *ACCESSORIES),
    "accessory_color": (None, *COLORS),
}
_WIDTHS = (32, 64, 128, 224)


@dataclass(frozen=True)
class Verdict:
    """What the judge says of B pictures: probabilities in the order of CLASSES and of BINS of the
    circle, the first centred on the front; and the azimuth in radians with its sharpness in [0, 1]:
    1 for no doubt, 0 where all sides look alike.
    """

    object: Float[Tensor, "B objects"]
    color: Float[Tensor, "B colors"]
    accessory: Float[Tensor, "B accessories"]
    accessory_color: Float[Tensor, "B colors"]
    turn: Float[Tensor, "B bins"]
    azimuth: Float[Tensor, " B"]
    sharpness: Float[Tensor, " B"]


class Judge:
    """Looks at pictures of any size; `load` returns the one that was trained.

    Arguments:
        frontless: Objects that look so alike from all sides that it cannot tell their azimuth.
    """

    def __init__(self, network: nn.Module, frontless: frozenset[str] = frozenset()):
        self.network = network.eval().requires_grad_(False)
        self.frontless = frontless

    @classmethod
    def load(cls, folder: Path = ASSETS / "judge") -> "Judge":
        """Reads a trained judge.

        Raises:
            UsageError: If the folder has none, or one that learnt another zoo.
        """
        from safetensors.torch import load_file

        if not (folder / "judge.safetensors").is_file():
            raise UsageError(f"no judge in {folder}; train it: splat-esd zoo judge out={folder}.")
        card = json.loads((folder / "judge.json").read_text("utf-8"))
        if card["classes"] != _names():
            raise UsageError(
                f"the judge in {folder} knows another zoo; train it again: "
                f"splat-esd zoo judge out={folder}."
            )
        network = build_network()
        weights = load_file(folder / "judge.safetensors")
        network.load_state_dict({name: value.float() for name, value in weights.items()})
        marks = card["exam"]["clean"]["objects"].items()
        return cls(network, frozenset(n for n, m in marks if m["azimuth_degrees"] > TELLS))

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B H W 3"]) -> Verdict:
        """Judges square pictures in [0, 1], on the CPU.

        Raises:
            ValueError: If they are not square.
        """
        if images.shape[1] != images.shape[2]:
            raise ValueError(f"images: expected [B, S, S, 3], got {list(images.shape)}.")
        x = images.permute(0, 3, 1, 2).float().cpu()
        x = F.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        *classes, turn = (logits.softmax(-1) for logits in heads(self.network(x)))
        azimuth, sharpness = circular_mean(turn)
        named = dict(zip(CLASSES, classes, strict=True))
        return Verdict(**named, turn=turn, azimuth=azimuth, sharpness=sharpness)


def _names() -> dict[str, list[str | None]]:
    return {head: list(names) for head, names in CLASSES.items()}


class Residual(nn.Module):
    """x + two convolutions of it."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Pool(nn.Module):
    """Mean and maximum of each channel: a mean alone hides what is as small as a bow tie."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)


def build_network() -> nn.Module:
    """Makes the network: four halvings, three residual blocks, a pool, all heads in one."""
    layers: list[nn.Module] = []
    before = 3
    for width in _WIDTHS:
        layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [Residual(width)] if before != 3 else []
        before = width
    outputs = sum(map(len, CLASSES.values())) + BINS
    layers += [Pool(), nn.Linear(2 * before, outputs)]
    network: Any = nn.Sequential(*layers)  # torch declares memory_format for tensors only
    return network.to(memory_format=torch.channels_last)


def heads(logits: Tensor) -> tuple[Tensor, ...]:
    """Cuts the network's answer into those of CLASSES, in their order, and the azimuth's."""
    return logits.float().split([*map(len, CLASSES.values()), BINS], -1)


def circular_mean(probability: Tensor) -> tuple[Tensor, Tensor]:
    """Returns angle and length of  sum_k p_k exp(i theta_k),  theta_k = 2 pi k / BINS."""
    theta = torch.arange(BINS) * (2 * math.pi / BINS)
    x, y = probability @ theta.cos(), probability @ theta.sin()
    return torch.atan2(y, x), torch.hypot(x, y)


def labels(compositions: Sequence[Composition]) -> Int[Tensor, "N 4"]:
    """Returns the index of each composition's names in CLASSES."""
    return torch.tensor(
        [[names.index(getattr(c, head)) for head, names in CLASSES.items()] for c in compositions]
    )
