"""Where the object is: one ball for pictures, pages, the live view, meshes and starts.

Its middle and size come from medians and quantiles, so that a sky, floaters or a wild splat do not
move them.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from splat_esd.errors import UsageError
from splat_esd.gaussians import Gaussians

_FAINTEST = 1 / 255  # what is fainter is never drawn
_SHARE = 0.98  # of what there is to see lies within the frame
_FAR = 3.0  # times the median distance: what lies farther does not move the middle
_STRAY = 8.0  # times the median distance of the centres: what lies farther does not count at all
_SMALL = 0.25  # radius under which an object in the unit ball is looked at from nearer
_ONE_POINT = "there is nothing to make a mesh of: all splats are in one point."


@dataclass(frozen=True, eq=False)
class Frame:
    """The ball around an object:  world = center + radius * x  for x in the unit ball."""

    center: Float[ndarray, "3"]
    radius: float

    def place(self, gaussians: Gaussians) -> Gaussians:
        """Moves splats from the world into the unit ball."""
        if self is UNIT_BALL:
            return gaussians
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

    def near(self, gaussians: Gaussians, times: float) -> Gaussians:
        """Keeps the splats whose centres lie within `times` the radius."""
        center = torch.from_numpy(self.center).to(gaussians.means)
        inside = (gaussians.means - center).norm(dim=1) <= times * self.radius
        return gaussians if inside.all() else gaussians.select(inside)


UNIT_BALL = Frame(np.zeros(3), 1.0)


def visible(gaussians: Gaussians) -> Gaussians:
    """Keeps the splats that can leave a trace in a picture.

    Raises:
        UsageError: If there are none.
    """
    seen = gaussians.select(_seen(gaussians))
    if not len(seen):
        raise UsageError("there is nothing to make a mesh of: no splat is opaque enough to see.")
    return seen


def viewing_frame(gaussians: Gaussians) -> Frame:
    """Returns the ball that pictures show: the unit ball for what fills it, as our own splats do.

    That is if 99 % of the centres lie in it and the object is not a dot there; otherwise
    `frame_of_splats`. Splats of which none can be seen are looked at as our own.
    """
    gaussians = gaussians.detach()
    seen = gaussians.select(_seen(gaussians)) if len(gaussians) else gaussians
    if not len(seen):
        return UNIT_BALL
    reach = torch.quantile(seen.means.norm(dim=1)[:1_000_000], 0.99).item()
    try:
        frame = frame_of_splats(seen)
    except UsageError:  # all in one point, of no size
        return UNIT_BALL if reach <= 1 else Frame(seen.means[0].double().cpu().numpy(), 1.0)
    return UNIT_BALL if reach <= 1 and frame.radius >= _SMALL else frame


def frame_of_splats(gaussians: Gaussians) -> Frame:
    """Finds the ball around what there is to see, whatever strays far away.

    Every splat counts by the area it covers:  opacity * (second largest scale)^2.

    Raises:
        UsageError: If all splats are in one point.
    """
    means = gaussians.means.double().cpu().numpy()
    scales = gaussians.scales.double().cpu().sort(dim=1).values.numpy()
    weights = gaussians.opacities.double().cpu().numpy() * scales[:, 1] ** 2
    if not (kept := _together(means)).all():
        means, scales, weights = means[kept], scales[kept], weights[kept]
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


def _seen(gaussians: Gaussians) -> Bool[Tensor, " N"]:
    rows = [value.isfinite().reshape(len(value), -1) for value in gaussians.parameters().values()]
    finite = torch.stack([row.all(1) for row in rows]).all(0)
    return finite & (gaussians.opacities >= _FAINTEST)


def _together(means: Float[ndarray, "N 3"]) -> Bool[ndarray, " N"]:
    """Marks the splats that lie with most others: a sky or floaters may be huge, but are few."""
    away = np.linalg.norm(means - np.median(means, axis=0), axis=1)
    return away <= _STRAY * np.median(away)


def _quantile(values: Float[ndarray, " N"], weights: Float[ndarray, " N"], share: float) -> float:
    order = values.argsort()
    reached = weights[order].cumsum()
    return float(values[order[np.searchsorted(reached, share * reached[-1])]])


def _checked(frame: Frame) -> Frame:
    if not 0 < frame.radius < math.inf:
        raise UsageError(_ONE_POINT)
    return frame
