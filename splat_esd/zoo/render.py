"""A small ray caster for the toys: exact solids, soft sky light, a sun, four rays a pixel."""

from dataclasses import dataclass

import numpy as np

from splat_esd.zoo.primitives import Part

SUN = np.array([0.35, 0.25, 0.90])
_STEPS = 7  # Newton steps to a convex part: errors below 1e-3 of its size
_WALKS = 26  # steps of sphere tracing to a ring
_MISS = np.float32(0.004)  # how far outside a ray may stop and still count as a hit


@dataclass(frozen=True)
class _Rays:
    """The rays o + s (x, y, 1) of all pixels, in camera axes: x [N] of columns, y [N] of rows."""

    rotation: np.ndarray
    origin: np.ndarray
    x: np.ndarray
    y: np.ndarray


def render_parts(
    parts: list[Part],
    viewmat: np.ndarray,
    K: np.ndarray,
    size: int,
    *,
    sun: np.ndarray = SUN,
    supersample: int = 2,
) -> np.ndarray:
    """Renders parts to premultiplied RGBA [size, size, 4] in [0, 1].

    Each ray o + s d meets G(A (o + s d - c)) = 1 with the gauge G of a part and
    A = diag(1 / radii) R^T; the nearest part wins and is lit by
    color * 1.05 * (0.45 + 0.30 (1 + n_z) / 2 + 0.30 max(n . sun, 0)).

    Arguments:
        viewmat: World to camera [4, 4], OpenCV axes.
        K: Intrinsics [3, 3] in pixels of the final image.
        sun: Direction towards the sun in the world [3]; need not be of unit length.
        supersample: Rays a pixel along each axis.
    Raises:
        ValueError: If the camera is inside a part.
    """
    n = size * supersample
    centers = (np.arange(n, dtype=np.float32) + 0.5) / supersample
    rotation = viewmat[:3, :3]
    rays = _Rays(
        rotation,
        -rotation.T @ viewmat[:3, 3],
        ((centers - K[0, 2]) / K[0, 0]).astype(np.float32),
        ((centers - K[1, 2]) / K[1, 1]).astype(np.float32),
    )
    nearest = np.full((n, n), np.inf, np.float32)
    owner = np.full((n, n), -1, np.int16)
    windows = [_cast(i, part, rays, nearest, owner) for i, part in enumerate(parts)]
    rgba = np.zeros((n, n, 4), np.float32)
    sun = (sun / np.linalg.norm(sun)).astype(np.float32)
    for i, (part, window) in enumerate(zip(parts, windows, strict=True)):
        _shade(i, part, rays, window, nearest, owner, sun, rgba)
    return rgba.reshape(size, supersample, size, supersample, 4).mean((1, 3))


def _cast(index: int, part: Part, rays: _Rays, nearest: np.ndarray, owner: np.ndarray):
    """Enters a part into the depth and owner buffers; returns the window it may be seen in."""
    window = _window(part, rays)
    near, own = nearest[window], owner[window]
    if not near.size:
        return window
    o, D = _unit_rays(part, rays)
    x, y = rays.x[None, window[1]], rays.y[window[0], None]
    if part.shape == "ellipsoid":
        s = _meet_ellipsoid(o, D, x, y)
        closer = s < near
        np.copyto(near, s, where=closer)
        own[closer] = index
        return window
    enter, leave = _meet_bounds(o, D, x, y, part)
    rows, columns = np.nonzero((enter < leave) & (enter < near))
    if len(rows):
        d = [D[k, 2] + x[0, columns] * D[k, 0] + y[rows, 0] * D[k, 1] for k in range(3)]
        meet = _meet_ring if part.shape == "ring" else _meet_convex
        s = meet(part, o, d, enter[rows, columns], leave[rows, columns])
        closer = s < near[rows, columns]
        rows, columns = rows[closer], columns[closer]
        near[rows, columns], own[rows, columns] = s[closer], index
    return window


def _window(part: Part, rays: _Rays) -> tuple[slice, slice]:
    """Returns rows and columns outside which the part cannot be seen."""
    middle = rays.rotation @ (np.asarray(part.center) - rays.origin)
    reach = part.reach(rays.rotation)
    near, far = middle[2] - reach[2], middle[2] + reach[2]
    if near <= 0.05:
        raise ValueError(f"the camera is inside the toy: a part begins {near:.2f} in front of it.")
    low, high = middle[:2] - reach[:2], middle[:2] + reach[:2]
    low, high = np.minimum(low / near, low / far), np.maximum(high / near, high / far)
    (u0, v0), (u1, v1) = (
        [np.searchsorted(axis, bound) for axis, bound in zip((rays.x, rays.y), b, strict=True)]
        for b in (low, high)
    )
    return slice(v0, v1), slice(u0, u1)


def _unit_rays(part: Part, rays: _Rays) -> tuple[np.ndarray, np.ndarray]:
    """Returns origin [3] and directions [3, 3] (columns: per x, per y, constant) in the unit
    frame of the part.
    """
    A = (part.rotation() / part.unit).T
    o = A @ (rays.origin - np.asarray(part.center))
    return o.astype(np.float32), (A @ rays.rotation.T).astype(np.float32)


def _meet_ellipsoid(o: np.ndarray, D: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Solves |o + s d|^2 = 1 for the smaller s; not a number where there is none."""
    ax, ay, a1 = D.T
    a = (x * (ax @ ax) + 2 * (ax @ a1)) * x + ((y * (ay @ ay) + 2 * (ay @ a1)) * y + a1 @ a1)
    a += x * (y * (2 * (ax @ ay)))
    b = x * (o @ ax) + (y * (o @ ay) + o @ a1)
    disc = b * b - a * (o @ o - 1)
    with np.errstate(invalid="ignore"):
        np.sqrt(disc, out=disc)
    disc += b
    return np.divide(disc, a, out=disc) * -1


def _meet_bounds(o: np.ndarray, D: np.ndarray, x: np.ndarray, y: np.ndarray, part: Part):
    """Returns where rays enter and leave the box around the part in its unit frame."""
    half = np.asarray(part.radii) / part.unit
    enter, leave = np.float32(0), np.float32(np.inf)
    for k in range(3):
        d = x * D[k, 0] + (y * D[k, 1] + D[k, 2])
        np.copyto(d, np.float32(1e-9), where=np.abs(d) < 1e-9)
        to_middle = -o[k] / d
        aside = np.abs(np.float32(half[k]) / d)
        enter = np.maximum(enter, to_middle - aside)
        leave = np.minimum(leave, to_middle + aside)
    return enter, leave


def _meet_convex(part: Part, o, d, s: np.ndarray, leave: np.ndarray) -> np.ndarray:
    """Finds the first G(o + s d) = 1 by Newton's method, which on a convex gauge only ever
    approaches it from outside; infinite where a ray misses.
    """
    for _ in range(_STEPS):
        g, gx, gy, gz = part.gauge(*(o[k] + s * d[k] for k in range(3)))
        slope = gx * d[0] + gy * d[1] + gz * d[2]
        ahead = (g - 1) / np.maximum(-slope, np.float32(1e-9))
        s = np.minimum(s + np.maximum(ahead, 0), leave)
    return np.where(g < 1 + _MISS, s, np.float32(np.inf))


def _meet_ring(part: Part, o, d, s: np.ndarray, leave: np.ndarray) -> np.ndarray:
    """Finds the first G(o + s d) = 1 by walking the distance to the ring, which is t (G - 1)."""
    tube = np.float32(part.radii[2] / part.radii[0])
    pace = tube / np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    for _ in range(_WALKS):
        g = part.gauge(*(o[k] + s * d[k] for k in range(3)))[0]
        s = np.minimum(s + (g - 1) * pace, leave)
    return np.where(g < 1 + 5 * _MISS, s, np.float32(np.inf))


def _shade(index, part, rays: _Rays, window, nearest, owner, sun, rgba) -> None:
    """Paints the pixels a part owns."""
    rows, columns = np.nonzero(owner[window] == index)
    if not len(rows):
        return
    s = nearest[window][rows, columns]
    o, D = _unit_rays(part, rays)
    x, y = rays.x[window[1]][columns], rays.y[window[0]][rows]
    p = [o[k] + s * (x * D[k, 0] + y * D[k, 1] + D[k, 2]) for k in range(3)]
    normal = np.stack(part.gauge(*p)[1:], -1) @ (part.rotation() / part.unit).T.astype(np.float32)
    normal /= np.sqrt(np.einsum("ij,ij->i", normal, normal))[:, None]
    light = 1.05 * (0.60 + 0.15 * normal[:, 2] + 0.30 * np.maximum(normal @ sun, 0))
    color = np.minimum(light[:, None] * np.asarray(part.color, np.float32), 1)
    target = rgba[window]
    target[rows, columns, :3] = color
    target[rows, columns, 3] = 1
