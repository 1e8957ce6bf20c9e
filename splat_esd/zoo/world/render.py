"""A small ray caster for the toys: exact solids, soft sky light, a sun, four rays a pixel."""

from dataclasses import dataclass

import numpy as np

from splat_esd.zoo.world.primitives import Part

SUN = np.array([0.35, 0.25, 0.90])
_STEPS = 12  # Newton steps to a convex part, at most
_WALKS = 26  # steps of sphere tracing to a ring, at most
_CLOSE = np.float32(0.001)  # how far outside a ray stops, relative to the part


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
    for i in _order(parts, rays):
        _cast(i, parts[i], rays, nearest, owner)
    rgba = np.zeros((n * n, 4), np.float32)
    seen, normals, colors = _surface_seen(parts, rays, nearest, owner)
    sun = (sun / np.linalg.norm(sun)).astype(np.float32)
    light = 1.05 * (0.60 + 0.15 * normals[:, 2] + 0.30 * np.maximum(normals @ sun, 0))
    rgba[seen, :3] = np.minimum(light[:, None] * colors, 1)
    rgba[seen, 3] = 1
    rows = rgba.reshape(size, supersample, n, 4).sum(1)
    return rows.reshape(size, size, supersample, 4).sum(2) / supersample**2


def _order(parts: list[Part], rays: _Rays) -> list[int]:
    """Returns the parts in the order of drawing: what is cheap and near hides what is not."""
    ahead = rays.rotation[2]
    return sorted(
        range(len(parts)),
        key=lambda i: (parts[i].shape != "ellipsoid", float(ahead @ np.asarray(parts[i].center))),
    )


def _cast(index: int, part: Part, rays: _Rays, nearest: np.ndarray, owner: np.ndarray) -> None:
    """Writes a part into the depth and index buffers, inside its bounding window."""
    window = _window(part, rays)
    near, own = nearest[window], owner[window]
    if not near.size:
        return
    o, D = _unit_rays(part, rays)
    x, y = np.atleast_2d(rays.x[window[1]]), np.atleast_2d(rays.y[window[0]]).T
    if part.shape == "ellipsoid":
        s = _meet_ellipsoid(o, D, x, y)
        closer = s < near
        np.copyto(near, s, where=closer)
        own[closer] = index
        return
    enter, leave = _meet_bounds(o, D, x, y, part)
    rows, columns = np.nonzero((enter < leave) & (enter < near))
    if len(rows):
        d = [D[k, 2] + x[0, columns] * D[k, 0] + y[rows, 0] * D[k, 1] for k in range(3)]
        meet = _meet_ring if part.shape == "ring" else _meet_convex
        s = meet(part, o, d, enter[rows, columns], leave[rows, columns])
        closer = s < near[rows, columns]
        rows, columns = rows[closer], columns[closer]
        near[rows, columns], own[rows, columns] = s[closer], index


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
    enter, leave = np.zeros((1, 1), np.float32), np.full((1, 1), np.inf, np.float32)
    for k in range(3):
        d = x * D[k, 0] + (y * D[k, 1] + D[k, 2])
        np.copyto(d, np.float32(1e-9), where=np.abs(d) < 1e-9)
        to_middle = -o[k] / d
        aside = np.abs(np.float32(half[k]) / d)
        enter = np.maximum(enter, to_middle - aside)
        leave = np.minimum(leave, to_middle + aside)
    return enter, leave


def _meet_convex(
    part: Part, o: np.ndarray, d: list[np.ndarray], s: np.ndarray, leave: np.ndarray
) -> np.ndarray:
    """Finds the first G(o + s d) = 1 by Newton's method, which on a convex gauge only ever
    approaches it from outside; infinite where a ray misses.
    """
    met = np.full_like(s, np.inf)
    rest = np.arange(len(s))
    for _ in range(_STEPS):
        g, gx, gy, gz = part.gauge(*(o[k] + s * d[k] for k in range(3)))
        slope = gx * d[0] + gy * d[1] + gz * d[2]
        done = g < 1 + _CLOSE
        met[rest[done]] = s[done]
        go_on = ~done & (slope < 0)
        rest, leave, d = rest[go_on], leave[go_on], [dk[go_on] for dk in d]
        s = s[go_on] - (g[go_on] - 1) / slope[go_on]
        inside = s < leave
        if not inside.all():
            rest, leave, d, s = rest[inside], leave[inside], [dk[inside] for dk in d], s[inside]
        if not len(s):
            break
    return met


def _meet_ring(
    part: Part, o: np.ndarray, d: list[np.ndarray], s: np.ndarray, leave: np.ndarray
) -> np.ndarray:
    """Finds the first G(o + s d) = 1 by walking the distance to the ring, which is t (G - 1)."""
    met = np.full_like(s, np.inf)
    rest = np.arange(len(s))
    tube = np.float32(part.radii[2] / part.radii[0])
    pace = tube / np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    for _ in range(_WALKS):
        g = part.gauge(*(o[k] + s * d[k] for k in range(3)))[0]
        done = g < 1 + 10 * _CLOSE
        met[rest[done]] = s[done]
        s = s + (g - 1) * pace
        go_on = ~done & (s < leave)
        rest, leave, pace, s = rest[go_on], leave[go_on], pace[go_on], s[go_on]
        d = [dk[go_on] for dk in d]
        if not len(s):
            break
    return met


def _surface_seen(parts: list[Part], rays: _Rays, nearest: np.ndarray, owner: np.ndarray):
    """Returns the pixels that show something (flat indices), and normals and colours there."""
    flat = owner.ravel()
    seen = np.flatnonzero(flat >= 0)
    seen = seen[np.argsort(flat[seen], kind="stable")]
    bounds = np.searchsorted(flat[seen], np.arange(len(parts) + 1))
    s = nearest.ravel()[seen]
    rows, columns = np.divmod(seen, len(rays.x))
    x, y = s * rays.x[columns], s * rays.y[rows]
    normals = np.empty((len(seen), 3), np.float32)
    for part, begin, end in zip(parts, bounds[:-1], bounds[1:], strict=True):
        if begin == end:
            continue
        own = slice(begin, end)
        o, D = _unit_rays(part, rays)
        p = (o[k] + (x[own] * D[k, 0] + y[own] * D[k, 1] + s[own] * D[k, 2]) for k in range(3))
        outward = np.stack(part.gauge(*p)[1:], -1)
        normals[own] = outward @ (part.rotation() / part.unit).T.astype(np.float32)
    normals /= np.sqrt(np.einsum("ij,ij->i", normals, normals))[:, None]
    paints = np.array([part.color for part in parts], np.float32)
    return seen, normals, paints[flat[seen]]
