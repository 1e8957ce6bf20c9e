"""Photographs of the toys, taken as people take them: mostly from the front."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from splat_esd.cameras import orbit_cameras
from splat_esd.zoo.objects import TOYS, Part
from splat_esd.zoo.render import SUN, render_parts

VIEWS = ("front", "side", "back")
_PLAIN = ("a {}", "{}", "the {}", "a photo of a {}", "a toy {}", "a small {}", "a picture of a {}")
_NAMED = ("a {}, {} view", "{1} view of a {0}", "a {} from the {}", "a photo of a {}, {} view")


@dataclass(frozen=True)
class Bias:
    """How often a photo shows the front and the sides; what is left comes from anywhere."""

    front: float = 0.7
    sides: float = 0.2
    spread: float = 20.0  # standard deviation about the front or a side, degrees


@dataclass(frozen=True)
class Photos:
    """Rendered photos: rgba uint8 [N, S, S, 4] (colour premultiplied), toy [N], azimuth [N]
    (radians).
    """

    rgba: np.ndarray
    toy: np.ndarray
    azimuth: np.ndarray

    def __len__(self) -> int:
        return len(self.rgba)


def sample_azimuth(rng: np.random.Generator, bias: Bias) -> float:
    """Draws the azimuth of one photo, in radians in (-pi, pi]."""
    coin = rng.random()
    if coin < bias.front:
        degrees = rng.normal(0.0, bias.spread)
    elif coin < bias.front + bias.sides:
        degrees = rng.choice([-90.0, 90.0]) + rng.normal(0.0, bias.spread)
    else:
        degrees = rng.uniform(-180.0, 180.0)
    return float(np.deg2rad((degrees + 180.0) % 360.0 - 180.0))


def view_name(azimuth: float) -> str:
    """Names the view of an azimuth: front within 45 degrees, back beyond 135, side between."""
    turn = abs((np.rad2deg(azimuth) + 180.0) % 360.0 - 180.0)
    return VIEWS[0] if turn < 45.0 else VIEWS[2] if turn > 135.0 else VIEWS[1]


def caption(rng: np.random.Generator, toy: str, azimuth: float, named: float = 0.3) -> str:
    """Writes a caption; it names the view with probability `named`."""
    if rng.random() < named:
        return rng.choice(_NAMED).format(toy, view_name(azimuth))
    return rng.choice(_PLAIN).format(toy)


def take_photos(count: int, size: int, seed: int, bias: Bias | None = None) -> Photos:
    """Renders `count` photos of all toys in turn, each with its own camera, sun and paint."""
    rng = np.random.default_rng(seed)
    names = sorted(TOYS)
    rgba = np.empty((count, size, size, 4), np.uint8)
    toy = np.arange(count) % len(names)
    azimuth = np.array([sample_azimuth(rng, bias or Bias()) for _ in range(count)])
    cameras = orbit_cameras(
        torch.tensor(azimuth, dtype=torch.float32),
        torch.tensor(np.deg2rad(rng.uniform(-10, 45, count)), dtype=torch.float32),
        torch.tensor(rng.uniform(2.3, 2.6, count), dtype=torch.float32),
        torch.tensor(np.deg2rad(rng.uniform(40, 46, count)), dtype=torch.float32),
        width=size,
        height=size,
    )
    for i in range(count):
        parts = _paint(rng, TOYS[names[toy[i]]]())
        sun = SUN + rng.normal(0.0, 0.15, 3)
        view, K = cameras.viewmats[i].numpy(), cameras.Ks[i].numpy()
        rgba[i] = np.rint(255 * render_parts(parts, view, K, size, sun=sun))
    return Photos(rgba, toy, azimuth)


def _paint(rng: np.random.Generator, parts: list[Part]) -> list[Part]:
    """Gives every toy its own size, brightness and tint, within a few percent."""
    scale = rng.normal(1.0, 0.025)
    tint = rng.normal(1.0, 0.03, 3) * rng.normal(1.0, 0.04)
    return [
        replace(
            part,
            center=tuple(scale * c for c in part.center),
            radii=tuple(scale * r for r in part.radii),
            color=tuple(np.clip(tint * part.color, 0.0, 1.0)),
        )
        for part in parts
    ]


def backgrounds(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draws background colours [count, 3]: half any colour, half a pale or a plain grey one."""
    any_color = torch.rand(count, 3, generator=generator)
    grey = torch.rand(count, 1, generator=generator)
    pale = 1.0 - 0.25 * torch.rand(count, 3, generator=generator)
    plain = torch.where(torch.rand(count, 1, generator=generator) < 0.5, pale, grey.expand(-1, 3))
    return torch.where(torch.rand(count, 1, generator=generator) < 0.5, any_color, plain)


def compose(photos: Photos, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Puts photos before random backgrounds, half of them mirrored: [B, 3, S, S] in [-1, 1]."""
    rgba = torch.from_numpy(photos.rgba[index.numpy()]).float().div_(255).permute(0, 3, 1, 2)
    flip = torch.rand(len(index), 1, 1, 1, generator=generator) < 0.5
    rgba = torch.where(flip, rgba.flip(-1), rgba)
    background = backgrounds(len(index), generator)[:, :, None, None]
    return 2.0 * (rgba[:, :3] + (1.0 - rgba[:, 3:]) * background) - 1.0
