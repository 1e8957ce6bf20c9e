"""Photographs of the toys, from all sides alike or, with a bias, mostly from the front."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.cameras import Cameras, orbit_cameras
from splat_esd.diffusion.prompts import SIDE, VIEWS, view_index
from splat_esd.errors import UsageError
from splat_esd.zoo.world.accessories import ACCESSORIES
from splat_esd.zoo.world.captions import Composition, is_held_out, write
from splat_esd.zoo.world.compose import build
from splat_esd.zoo.world.objects import OBJECTS
from splat_esd.zoo.world.palette import COLORS
from splat_esd.zoo.world.primitives import Part
from splat_esd.zoo.world.render import SUN, render_parts

SHARD = 500  # photos rendered by one process before it says so
# How often a toy is dyed and dressed: the plain ones are what people ask for.
KINDS = {(False, False): 0.4, (True, False): 0.2, (False, True): 0.2, (True, True): 0.2}
_UNDYED = 0.2  # accessories in their natural colours
ABOVE = (62.0, 85.0)  # elevation of photos from above, degrees
NAMED = 0.5  # of the captions name the view
_WHICH = 0.5  # of those of a side tell which one


@dataclass(frozen=True)
class Bias:
    """How photos are taken: what share from the front, from the sides and from above (the rest
    from anywhere around), within which limits of angle and distance, and under which sun.
    """

    front: float = 0.0
    sides: float = 0.0
    overhead: float = 0.03
    spread: float = 12.0  # standard deviation about the front or a side, degrees
    elevation: tuple[float, float] = (-10.0, 45.0)  # degrees
    distance: tuple[float, float] = (2.3, 2.6)
    sun: float = 0.15  # standard deviation of the sun from its place, in each direction
    held_out: bool = False  # whether compositions kept out of training are photographed too


ALL_AROUND = Bias()


@dataclass(frozen=True)
class Shots:
    """What stands before the camera and how it is seen: N compositions; angles in radians [N],
    distance [N], fovy [N] (radians), sun [N, 3], scale [N] and tint [N, 3] of the paint.
    """

    compositions: list[Composition]
    azimuth: np.ndarray
    elevation: np.ndarray
    distance: np.ndarray
    fovy: np.ndarray
    sun: np.ndarray
    scale: np.ndarray
    tint: np.ndarray

    def __len__(self) -> int:
        return len(self.compositions)

    def cameras(self, size: int) -> Cameras:
        """Returns the cameras of square pictures."""
        angles = (self.azimuth, self.elevation, self.distance, self.fovy)
        return orbit_cameras(
            *(torch.from_numpy(a).float() for a in angles), width=size, height=size
        )

    def __getitem__(self, rows: slice) -> "Shots":
        return Shots(*(getattr(self, field.name)[rows] for field in fields(self)))

    def render(self, size: int) -> np.ndarray:
        """Renders all: uint8 [N, S, S, 4], colour premultiplied."""
        cameras = self.cameras(size)
        rgba = np.empty((len(self), size, size, 4), np.uint8)
        for i, composition in enumerate(self.compositions):
            parts = _paint(build(composition), self.scale[i], self.tint[i])
            view, K = cameras.viewmats[i].numpy(), cameras.Ks[i].numpy()
            rgba[i] = np.rint(255 * render_parts(parts, view, K, size, sun=self.sun[i]))
        return rgba


def plan(count: int, *, seed: int = 0, bias: Bias = ALL_AROUND) -> Shots:
    """Decides `count` shots; shot i is a function of the seed and i alone."""
    rows = [_shot(np.random.default_rng((seed, i)), bias) for i in range(count)]
    compositions, *columns = zip(*rows, strict=True)
    return Shots(list(compositions), *(np.array(column) for column in columns))


def _shot(rng: np.random.Generator, bias: Bias) -> tuple:
    azimuth, elevation = sample_view(rng, bias)
    return (
        sample_composition(rng, held_out=bias.held_out),
        azimuth,
        elevation,
        rng.uniform(*bias.distance),
        np.deg2rad(rng.uniform(40, 46)),
        SUN + rng.normal(0.0, bias.sun, 3),
        rng.normal(1.0, 0.025),
        rng.normal(1.0, 0.03, 3) * rng.normal(1.0, 0.04),
    )


def sample_composition(
    rng: np.random.Generator, *, held_out: bool, kinds: Mapping[tuple[bool, bool], float] = KINDS
) -> Composition:
    """Draws a composition: any object, (coloured, dressed) as often as `kinds` says."""
    colored, dressed = list(kinds)[rng.choice(len(kinds), p=list(kinds.values()))]
    while True:
        object, color = _any(rng, OBJECTS), _any(rng, COLORS) if colored else None
        made = Composition(object, color)
        if dressed:
            dye = None if rng.random() < _UNDYED else _any(rng, COLORS)
            made = Composition(object, color, _any(rng, ACCESSORIES), dye)
        if held_out or not is_held_out(made):
            return made


def _any(rng: np.random.Generator, names: Mapping[str, object]) -> str:
    return list(names)[rng.integers(len(names))]


def sample_view(rng: np.random.Generator, bias: Bias) -> tuple[float, float]:
    """Draws azimuth, in (-pi, pi], and elevation of one photo, in radians."""
    coin = rng.random()
    if coin < bias.front:
        azimuth = rng.normal(0.0, bias.spread)
    elif coin < bias.front + bias.sides:
        azimuth = rng.choice([-90.0, 90.0]) + rng.normal(0.0, bias.spread)
    else:
        azimuth = rng.uniform(-180.0, 180.0)
    limits = ABOVE if rng.random() < bias.overhead else bias.elevation
    azimuth = (azimuth + 180.0) % 360.0 - 180.0
    return float(np.deg2rad(azimuth)), float(np.deg2rad(rng.uniform(*limits)))


def _paint(parts: list[Part], scale: float, tint: np.ndarray) -> list[Part]:
    """Gives a toy its own size, brightness and tint, within a few percent."""
    return [
        replace(
            part,
            center=tuple(scale * c for c in part.center),
            radii=tuple(scale * r for r in part.radii),
            color=tuple(np.clip(tint * part.color, 0.0, 1.0)),
        )
        for part in parts
    ]


@dataclass(frozen=True)
class Photos:
    """Rendered shots: rgba uint8 [N, S, S, 4], colour premultiplied."""

    rgba: np.ndarray
    shots: Shots

    def __len__(self) -> int:
        return len(self.rgba)

    @cached_property
    def views(self) -> list[str]:
        """Names the view of each photo, as prompts do."""
        return [VIEWS[i] for i in view_index(self.shots.cameras(1)).tolist()]

    def caption(self, rng: np.random.Generator, i: int) -> str:
        """Says what photo i shows and, of NAMED of them, from where."""
        view = self.views[i] if rng.random() < NAMED else None
        if view is not None and SIDE in view and rng.random() > _WHICH:
            view = SIDE
        return write(rng, self.shots.compositions[i], view)


def take_photos(
    count: int,
    size: int = 128,
    *,
    seed: int = 0,
    bias: Bias = ALL_AROUND,
    folder: Path | None = None,
    processes: int = 1,
) -> Photos:
    """Renders photos, as bytes on disk if a folder is given; the same call there goes on where it
    stopped, and costs nothing once all are taken.

    Raises:
        UsageError: If the folder holds other photos.
    """
    shots = plan(count, seed=seed, bias=bias)
    if folder is None:
        return Photos(shots.render(size), shots)
    folder.mkdir(parents=True, exist_ok=True)
    card = {"count": count, "size": size, "seed": seed, "bias": asdict(bias), "world": world()}
    _claim(folder, json.dumps(card, indent=2))
    _fill(folder, shots, size, processes)
    return Photos(np.load(folder / "rgba.npy", mmap_mode="r"), shots)


def _claim(folder: Path, card: str) -> None:
    """Makes the file for the photos, or checks that they are the same ones."""
    if (folder / "photos.json").exists():
        if (folder / "photos.json").read_text("utf-8") != card:
            raise UsageError(f"{folder} holds other photos; name another folder or delete it.")
        return
    values = json.loads(card)
    shape = (values["count"], values["size"], values["size"], 4)
    np.lib.format.open_memmap(folder / "rgba.npy", "w+", np.uint8, shape).flush()
    (folder / "done.txt").write_text("", encoding="utf-8")
    (folder / "photos.json").write_text(card, encoding="utf-8")


def _fill(folder: Path, shots: Shots, size: int, processes: int) -> None:
    done = set(map(int, (folder / "done.txt").read_text("utf-8").split()))
    starts = [start for start in range(0, len(shots), SHARD) if start not in done]
    if not starts:
        return
    # Spawned, since a process with threads must not fork.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        work = {
            pool.submit(_render_shard, folder, shots[start : start + SHARD], start, size): start
            for start in starts
        }
        for finished in as_completed(work):
            finished.result()
            with (folder / "done.txt").open("a", encoding="utf-8") as file:
                file.write(f"{work[finished]}\n")


def _render_shard(folder: Path, shots: Shots, start: int, size: int) -> None:
    torch.set_num_threads(1)
    rgba = np.load(folder / "rgba.npy", mmap_mode="r+")
    rgba[start : start + len(shots)] = shots.render(size)
    rgba.flush()


def world() -> str:
    """Returns a fingerprint of all toys, which changes when one of them does."""
    dressed = [build(Composition(o, None, a)) for o in OBJECTS for a in (None, *ACCESSORIES)]
    return hashlib.sha256(repr([dressed, dict(COLORS)]).encode()).hexdigest()[:12]


def backgrounds(count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """Draws background colours: half any colour, half a pale or a plain grey one."""
    any_color = torch.rand(count, 3, generator=generator)
    grey = torch.rand(count, 1, generator=generator)
    pale = 1.0 - 0.25 * torch.rand(count, 3, generator=generator)
    plain = torch.where(torch.rand(count, 1, generator=generator) < 0.5, pale, grey.expand(-1, 3))
    return torch.where(torch.rand(count, 1, generator=generator) < 0.5, any_color, plain)


def compose(
    photos: Photos, index: Int[Tensor, " B"], generator: torch.Generator
) -> Float[Tensor, "B 3 S S"]:
    """Puts photos before random backgrounds; colours in [-1, 1]."""
    rgba = torch.from_numpy(photos.rgba[index.numpy()]).float().div_(255).permute(0, 3, 1, 2)
    background = backgrounds(len(index), generator)[:, :, None, None]
    return 2.0 * (rgba[:, :3] + (1.0 - rgba[:, 3:]) * background) - 1.0
