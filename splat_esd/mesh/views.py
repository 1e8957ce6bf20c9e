"""What a splat looks like from all sides: the pictures that a mesh is made from."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from splat_esd.cameras import Cameras, fibonacci_cameras
from splat_esd.errors import UsageError
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import rasterize

FOVY = math.radians(45)
DISTANCE = 2.8  # a ball of radius 1 just fits at 45 degrees: 1 / sin(22.5 deg) = 2.61
_FAINTEST = 1 / 255  # what is fainter is never drawn
_SHARE = 0.98  # of what there is to see lies within the frame
_ONE_POINT = "there is nothing to make a mesh of: all splats are in one point."
_FAR = 3.0  # times the median distance: what lies farther does not move the middle


@dataclass(frozen=True, eq=False)
class Frame:
    """The ball around an object:  world = center + radius * x  for x in the unit ball."""

    center: Float[ndarray, "3"]
    radius: float

    def place(self, gaussians: Gaussians) -> Gaussians:
        """Moves splats from the world into the unit ball."""
        center = torch.from_numpy(self.center).to(gaussians.means)
        return replace(
            gaussians,
            means=(gaussians.means - center) / self.radius,
            log_scales=gaussians.log_scales - math.log(self.radius),
        )

    def to_world(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Moves points back:  center + radius * x."""
        return self.center + self.radius * points

    def from_world(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Moves points into the unit ball:  (x - center) / radius."""
        return (points - self.center) / self.radius

    def holds(self, other: "Frame") -> bool:
        """Tells whether another ball lies within this one."""
        return bool(np.linalg.norm(self.center - other.center) + other.radius <= self.radius)


UNIT_BALL = Frame(np.zeros(3), 1.0)


@dataclass(frozen=True, eq=False)
class Views:
    """What B cameras see; colours are premultiplied, as over black.

    Arguments:
        cameras: Where from.
        rgb: sum_i w_i c_i [B, H, W, 3].
        alpha: sum_i w_i [B, H, W].
        depth: Expected camera z; 0 where alpha is 0 [B, H, W].
    """

    cameras: Cameras
    rgb: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W"]
    depth: Float[Tensor, "B H W"]

    def over_white(self) -> Float[Tensor, "B H W 3"]:
        """Composes over white:  rgb + (1 - alpha), in [0, 1]."""
        return (self.rgb + 1 - self.alpha[..., None]).clamp(0, 1)


def visible(gaussians: Gaussians) -> Gaussians:
    """Keeps the splats that can leave a trace in a picture.

    Raises:
        UsageError: If there are none.
    """
    finite = torch.cat(_columns(gaussians), dim=1).isfinite().all(1)
    seen = gaussians.select(finite & (gaussians.opacities >= _FAINTEST))
    if not len(seen):
        raise UsageError("there is nothing to make a mesh of: no splat is opaque enough to see.")
    return seen


def frame_of_splats(gaussians: Gaussians) -> Frame:
    """Finds the ball around what there is to see, whatever strays far away.

    Every splat counts by the area it covers:  opacity * (second largest scale)^2.

    Raises:
        UsageError: If all splats are in one point.
    """
    means = gaussians.means.double().cpu().numpy()
    scales = gaussians.scales.double().cpu().sort(dim=1).values.numpy()
    weights = gaussians.opacities.double().cpu().numpy() * scales[:, 1] ** 2
    # A single huge splat, a sky perhaps, is not the object.
    weights = np.minimum(weights, np.quantile(weights, 0.99))
    if not weights.any():
        raise UsageError(_ONE_POINT)
    center = np.average(means, axis=0, weights=weights)
    for _ in range(3):
        away = np.linalg.norm(means - center, axis=1)
        near = away <= _FAR * _quantile(away, weights, 0.5)
        center = np.average(means[near], axis=0, weights=weights[near])
    away = np.linalg.norm(means - center, axis=1) + 2 * scales[:, 1]
    return _checked(Frame(center, _quantile(away, weights, _SHARE)))


def frame_of_points(points: Float[ndarray, "N 3"]) -> Frame:
    """Returns the ball around a set of points that lies in the middle of their box."""
    center = (points.min(0) + points.max(0)) / 2
    return _checked(Frame(center, float(np.linalg.norm(points - center, axis=1).max())))


def around(count: int, *, size: int) -> Cameras:
    """Spreads cameras evenly around the unit ball, which fits into their pictures."""
    return fibonacci_cameras(count, distance=DISTANCE, fovy=FOVY, width=size, height=size)


@torch.no_grad()
def photograph(gaussians: Gaussians, cameras: Cameras) -> Views:
    """Renders a splat that lies in its frame, one view at a time."""
    shape = (len(cameras), cameras.height, cameras.width)
    rgb, alpha, depth = torch.empty(*shape, 3), torch.empty(shape), torch.empty(shape)
    for i in range(len(cameras)):
        shot = rasterize(gaussians, cameras[i].to(gaussians.device))
        rgb[i], alpha[i], depth[i] = shot.rgb[0], shot.alpha[0, ..., 0], shot.depth[0, ..., 0]
    return Views(cameras, rgb, alpha, depth)


def _columns(gaussians: Gaussians) -> list[Tensor]:
    return [value.reshape(len(value), -1) for value in gaussians.parameters().values()]


def _quantile(values: Float[ndarray, " N"], weights: Float[ndarray, " N"], share: float) -> float:
    order = values.argsort()
    reached = weights[order].cumsum()
    return float(values[order[np.searchsorted(reached, share * reached[-1])]])


def _checked(frame: Frame) -> Frame:
    if not 0 < frame.radius < math.inf:
        raise UsageError(_ONE_POINT)
    return frame
