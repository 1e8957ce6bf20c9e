"""The solids toys are made of: ellipsoids, domes, soft boxes and cones, rings.

Each is given by its gauge, a function G of a point p in the part's own unit frame: the solid is
G(p) <= 1. All but the ring's are norm-like (convex, G(a p) = a G(p) for a >= 0): a ray meets them
by Newton's method without fail, and p / G(p) lies on the surface.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from splat_esd.zoo.world.palette import Color, Triple

# x, y, z -> the gauge, and its gradient along x, y, z
Gauge = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
_TINY = np.float32(1e-12)


@dataclass(frozen=True)
class Part:
    """A solid of one colour.

    Arguments:
        shape: A key of `GAUGES`. Own axes: a cone stands on its broad end along z, a ring lies
            around z.
        center: Where its middle is [3].
        radii: Half sizes along its own axes [3]; the third of a ring is the radius of its tube.
        color: Red, green and blue in [0, 1].
        pitch: Turn about y, which lifts what points to +x (radians).
        roll: Turn about x, before the pitch (radians).
        yaw: Turn about z, after the pitch (radians).
        top: Size of the upper end of a box or cone relative to the lower one, in [0, 1].
        dyed: Whether it takes the colour that is asked for.
    """

    shape: str
    center: Triple
    radii: Triple
    color: Color
    pitch: float = 0.0
    roll: float = 0.0
    yaw: float = 0.0
    top: float = 1.0
    dyed: bool = False

    def rotation(self) -> np.ndarray:
        """Returns own axes -> world [3, 3]: roll about x, pitch about y, yaw about z."""
        cr, cp, cy = np.cos((self.roll, self.pitch, self.yaw))
        sr, sp, sy = np.sin((self.roll, self.pitch, self.yaw))
        roll = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        pitch = np.array([[cp, 0, -sp], [0, 1, 0], [sp, 0, cp]])
        yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        return yaw @ pitch @ roll

    def gauge(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Gauge:
        """Returns G, at most 1 inside, and its gradient, at points of the unit frame."""
        return GAUGES[self.shape](self, x, y, z)

    @property
    def unit(self) -> np.ndarray:
        """Size of the unit frame along the part's own axes [3]: the radii, save for a ring."""
        a, b, c = self.radii
        return np.array([a, b, a if self.shape == "ring" else c], float)

    def to_unit(self, points: np.ndarray) -> np.ndarray:
        """Transforms points [N, 3] of the world into the unit frame."""
        return (points - np.asarray(self.center)) @ self.rotation() / self.unit

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Transforms points [N, 3] of the unit frame into the world."""
        return points * self.unit @ self.rotation().T + np.asarray(self.center)

    def reach(self, axes: np.ndarray) -> np.ndarray:
        """Returns how far the part reaches from its centre, at most, along the rows of axes."""
        sides = np.asarray(self.radii) * (axes @ self.rotation())
        if self.shape == "ellipsoid":
            return np.sqrt((sides**2).sum(-1))
        return np.abs(sides).sum(-1)


def _ellipsoid(part: Part, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Gauge:
    """G = |p|."""
    g = np.sqrt(x * x + y * y + z * z)
    inverse = 1 / np.maximum(g, _TINY)
    return g, x * inverse, y * inverse, z * inverse


def _box(part: Part, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Gauge:
    """G = (u^8 + v^8 + z^8)^(1/8), where u = (|x| + k z)+ / m, v = (|y| + k z)+ / m,
    m = (1 + top) / 2 and k = (1 - top) / 2.
    """
    m, k = _taper(part)
    u = np.maximum(np.abs(x) + k * z, 0) / m
    v = np.maximum(np.abs(y) + k * z, 0) / m
    u2, v2, z2 = u * u, v * v, z * z
    u4, v4, z4 = u2 * u2, v2 * v2, z2 * z2
    g, to7 = _eighth_root(u4 * u4 + v4 * v4 + z4 * z4)
    gu, gv, gz = u4 * u2 * u * to7, v4 * v2 * v * to7, z4 * z2 * z * to7
    return g, gu * np.sign(x) / m, gv * np.sign(y) / m, gz + (gu + gv) * (k / m)


def _cone(part: Part, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Gauge:
    """G = (u^8 + z^8)^(1/8), where u = (sqrt(x^2 + y^2) + k z)+ / m, with m and k as in a box."""
    m, k = _taper(part)
    r = np.sqrt(x * x + y * y)
    u = np.maximum(r + k * z, 0) / m
    u2, z2 = u * u, z * z
    u4, z4 = u2 * u2, z2 * z2
    g, to7 = _eighth_root(u4 * u4 + z4 * z4)
    gu, gz = u4 * u2 * u * to7, z4 * z2 * z * to7
    outward = gu / (m * np.maximum(r, _TINY))
    return g, outward * x, outward * y, gz + gu * (k / m)


def _ring(part: Part, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Gauge:
    """G = sqrt((sqrt(x^2 + y^2) - (1 - t))^2 + z^2) / t  with the tube t relative to the ring."""
    t = np.float32(part.radii[2] / part.radii[0])
    r = np.maximum(np.sqrt(x * x + y * y), _TINY)
    out = r - (1 - t)
    away = np.maximum(np.sqrt(out * out + z * z), _TINY)
    across = out / (away * r * t)
    return away / t, across * x, across * y, z / (away * t)


def _dome(part: Part, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Gauge:
    """G = (|p|^8 + (4 (-z)+)^8)^(1/8): a ball cut a quarter below its middle."""
    square, below = x * x + y * y + z * z, 4 * np.maximum(-z, 0)
    g, to7 = _eighth_root(square**4 + below**8)
    radial = square**3 * to7
    return g, radial * x, radial * y, radial * z - 4 * below**7 * to7


def _taper(part: Part) -> tuple[np.float32, np.float32]:
    return np.float32((1 + part.top) / 2), np.float32((1 - part.top) / 2)


def _eighth_root(total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns g = total^(1/8) and g^-7, which the gradient of such a root carries."""
    g = np.sqrt(np.sqrt(np.sqrt(total)))
    return g, g / np.maximum(total, _TINY)


GAUGES: dict[str, Callable[..., Gauge]] = {
    "ellipsoid": _ellipsoid,
    "dome": _dome,
    "box": _box,
    "cone": _cone,
    "ring": _ring,
}


def ball(center: Triple, radii: Triple | float | int, color: Color, **turns: Any) -> Part:
    """Returns an ellipsoid; a single radius makes a sphere."""
    axes = radii if isinstance(radii, tuple) else (radii, radii, radii)
    return Part("ellipsoid", center, axes, color, **turns)


def dome(center: Triple, radii: Triple, color: Color, **turns: Any) -> Part:
    """Returns the upper part of an ellipsoid, cut off a quarter of its height below its middle."""
    return Part("dome", center, radii, color, **turns)


def box(center: Triple, radii: Triple, color: Color, **turns: Any) -> Part:
    """Returns a box with soft edges, narrowed towards its upper end by `top`."""
    return Part("box", center, radii, color, **turns)


def cone(center: Triple, radii: Triple, color: Color, **turns: Any) -> Part:
    """Returns a cylinder with soft edges, narrowed towards its upper end by `top`."""
    return Part("cone", center, radii, color, **turns)


def ring(center: Triple, radii: Triple, color: Color, **turns: Any) -> Part:
    """Returns a torus: outer radii along x and y, and the radius of its tube."""
    return Part("ring", center, radii, color, **turns)


def rod(start: Triple, end: Triple, radius: float, color: Color, **more: Any) -> Part:
    """Returns a thin box with soft edges from one point to another."""
    along = np.subtract(end, start)
    length = float(np.linalg.norm(along))
    x, y, z = map(float, np.add(start, end) / 2)
    return Part(
        "box",
        (x, y, z),
        (length / 2 + radius, radius, radius),
        color,
        pitch=float(np.arcsin(along[2] / length)),
        yaw=float(np.arctan2(along[1], along[0])),
        **more,
    )


def pair(part: Part) -> list[Part]:
    """Returns a part and its mirror image across the xz plane."""
    x, y, z = part.center
    return [part, replace(part, center=(x, -y, z), roll=-part.roll, yaw=-part.yaw)]
