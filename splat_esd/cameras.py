"""Cameras around the object: batches, fixed orbits, and the distribution p(c) of training."""

import math
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from splat_esd.geometry import intrinsics, look_at, spherical

FIRST_REACH = 0.25  # of the circle, about the front: what a prior calls a front view


@dataclass(frozen=True, eq=False)
class Cameras:
    """B pinhole cameras of one image size, and the angles they were made from.

    Arguments:
        viewmats: World to camera, OpenCV axes [B, 4, 4].
        Ks: Intrinsics in pixels [B, 3, 3].
        width, height: Image size in pixels.
        azimuth, elevation, fovy: Radians [B].
        distance: From the origin [B].
    """

    viewmats: Float[Tensor, "B 4 4"]
    Ks: Float[Tensor, "B 3 3"]
    width: int
    height: int
    azimuth: Float[Tensor, " B"]
    elevation: Float[Tensor, " B"]
    distance: Float[Tensor, " B"]
    fovy: Float[Tensor, " B"]

    @property
    def c2w(self) -> Float[Tensor, "B 4 4"]:
        """Camera to world, the inverse of a rigid motion:  [R^T | -R^T t]."""
        inverse = self.viewmats.clone()
        inverse[:, :3, :3] = self.viewmats[:, :3, :3].mT
        inverse[:, :3, 3:] = -inverse[:, :3, :3] @ self.viewmats[:, :3, 3:]
        return inverse

    def __len__(self) -> int:
        return len(self.viewmats)

    def __getitem__(self, index: int | slice | Int[Tensor, " M"] | Bool[Tensor, " B"]) -> "Cameras":
        """Picks cameras; an integer picks one and keeps the batch dimension."""
        picked = [index] if isinstance(index, int) else index
        return replace(self, **{name: value[picked] for name, value in self._tensors().items()})

    def to(self, device: torch.device | str) -> "Cameras":
        """Moves all tensors to a device."""
        return replace(self, **{name: value.to(device) for name, value in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def orbit_cameras(
    azimuth: Float[Tensor, " B"],
    elevation: Float[Tensor, " B"],
    distance: Float[Tensor, " B"],
    fovy: Float[Tensor, " B"],
    *,
    width: int,
    height: int,
) -> Cameras:
    """Places cameras on spheres around the origin, looking at it, world z upwards in the image.

    Arguments:
        azimuth: 0 is the front (+x), counter-clockwise from above; radians.
        elevation: 0 is the horizon, pi / 2 the view from above; radians.
        distance: From the origin.
        fovy: Vertical fields of view; radians.
        width, height: Image size in pixels.
    """
    # The direction in which elevation grows: right at the poles too, where world z says nothing.
    up = spherical(azimuth, elevation + math.pi / 2, torch.ones_like(distance))
    return Cameras(
        viewmats=look_at(spherical(azimuth, elevation, distance), up=up),
        Ks=intrinsics(fovy, width, height),
        width=width,
        height=height,
        azimuth=azimuth,
        elevation=elevation,
        distance=distance,
        fovy=fovy,
    )


def turntable(
    count: int, *, elevation: float, distance: float, fovy: float, width: int, height: int
) -> Cameras:
    """Places cameras on a circle at equal steps:  az_i = 2 pi i / count, the first at the front."""
    azimuth = 2 * math.pi * torch.arange(count) / count
    full = torch.ones_like(azimuth)
    return orbit_cameras(
        azimuth, elevation * full, distance * full, fovy * full, width=width, height=height
    )


def fibonacci_cameras(
    count: int, *, distance: float, fovy: float, width: int, height: int
) -> Cameras:
    """Spreads cameras evenly over the sphere:  sin el_i = 1 - (2i + 1) / count,  az_i = golden i.

    References:
        Measurement of Areas on a Sphere Using Fibonacci Lattices (Gonzalez, 2010).
        https://arxiv.org/abs/0912.4540
    """
    golden = math.pi * (3 - math.sqrt(5))
    i = torch.arange(count, dtype=torch.float64)
    azimuth = (golden * i % (2 * math.pi)).float()
    elevation = torch.asin(1 - (2 * i + 1) / count).float()
    full = torch.ones_like(azimuth)
    return orbit_cameras(
        azimuth, elevation, distance * full, fovy * full, width=width, height=height
    )


@dataclass(frozen=True)
class CameraDistribution:
    """The distribution p(c) of training cameras: a batch looks from all sides, once they are open.

    Arguments:
        batch_size: Cameras per batch, B.
        elevation, distance, fovy: (low, high), each drawn uniformly; angles in radians.
        width, height: Image size in pixels.
        progressive_until: Share of the run while the azimuths spread out from the front.
        front: Azimuth of the front, in radians.
        growth: (until, side): the image's width and height up to that share of the run, in order;
            after the last one they are as above.
        together: Views of one elevation, distance and field of view, equally far apart around; the
            batch is a whole number of such groups.
    Raises:
        ValueError: If a range is empty or leaves what a camera can do.
    """

    batch_size: int
    elevation: tuple[float, float]
    distance: tuple[float, float]
    fovy: tuple[float, float]
    width: int
    height: int
    progressive_until: float = 0.0
    front: float = 0.0
    together: int = 1
    growth: tuple[tuple[float, int], ...] = ()

    def __post_init__(self) -> None:
        half = math.pi / 2
        _check_range("cameras.elevation", self.elevation, -half, half, "radians in [-pi/2, pi/2]")
        _check_range("cameras.distance", self.distance, 1e-6, math.inf, "positive")
        _check_range("cameras.fovy", self.fovy, 1e-6, math.pi - 1e-6, "radians in (0, pi)")

    def sample(self, generator: torch.Generator, progress: float = 1.0) -> Cameras:
        """Draws a batch; azimuth is stratified:  az_i = r wrap(2 pi ((i + u_i) / B + u)).

        One offset u turns the whole circle of strata, so every camera alone is uniform in
        [-r pi, r pi], where the reach r grows from 1/4 to 1. A side view does not tell the left
        from the right; seen before the front is settled, it may turn the body backwards.

        Groups of views look from all sides at once, from the first step on; their strata are those
        of one step from a view to the next.

        Arguments:
            progress: How much of the run is over, in [0, 1].
        References:
            `progressive_until` of threestudio's cameras (Guo et al., 2023).
        """
        each, device = self.together, generator.device
        count = self.batch_size // each
        jitter = torch.rand(count, generator=generator, device=device)
        offset = torch.rand(1, generator=generator, device=device)
        strata = (torch.arange(count, device=device) + jitter) / count
        if each > 1:
            strata = ((strata[:, None] + torch.arange(each, device=device)) / each).flatten()
        around = torch.remainder(strata + offset + 0.5, 1) - 0.5  # of a turn, 0 at the front
        ranges = (self.elevation, self.distance, self.fovy)
        drawn = [_uniform(r, count, generator).repeat_interleave(each) for r in ranges]
        return orbit_cameras(
            self.front + 2 * math.pi * (self._reach(progress) * around % 1),
            *drawn,
            **self._size(progress),
        )

    def _size(self, progress: float) -> dict[str, int]:
        for until, side in self.growth:
            if progress < until:
                return {"width": side, "height": side}
        return {"width": self.width, "height": self.height}

    def _reach(self, progress: float) -> float:
        if progress >= self.progressive_until or self.together > 1:
            return 1.0
        return FIRST_REACH + (1 - FIRST_REACH) * progress / self.progressive_until


@dataclass(frozen=True)
class BackgroundDistribution:
    """What lies behind the object: one fixed colour, or a random one.

    Random colours keep the splats from painting the background themselves.

    Arguments:
        color: The fixed colour, in [0, 1].
        random_probability: How often a view gets a uniformly random colour instead.
    """

    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    random_probability: float = 0.5

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "B 3"]:
        """Draws one colour per view, each with its own coin."""
        device = generator.device
        coin = torch.rand(count, 1, generator=generator, device=device)
        random = torch.rand(count, 3, generator=generator, device=device)
        fixed = torch.tensor(self.color, device=device)
        return torch.where(coin < self.random_probability, random, fixed)


def _check_range(
    name: str, bounds: tuple[float, float], lowest: float, highest: float, wanted: str
) -> None:
    low, high = bounds
    if not lowest <= low <= high <= highest:
        raise ValueError(f"{name}: expected (low, high), {wanted}, got {bounds}.")


def _uniform(
    bounds: tuple[float, float], count: int, generator: torch.Generator
) -> Float[Tensor, " B"]:
    low, high = bounds
    u = torch.rand(count, generator=generator, device=generator.device)
    return low + (high - low) * u
