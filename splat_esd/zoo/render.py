"""A small ray caster for the toys: exact ellipsoids, soft sky light, a sun, four rays a pixel."""

import numpy as np

from splat_esd.zoo.objects import Part

SUN = np.array([0.35, 0.25, 0.90])


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

    Each ray o + s d meets |A (o + s d - c)|^2 = 1 with A = diag(1 / radii) R^T; the nearest part
    wins and is lit by  color * (0.45 + 0.30 (1 + n_z) / 2 + 0.30 max(n . sun, 0)).

    Arguments:
        viewmat: World to camera [4, 4], OpenCV axes.
        K: Intrinsics [3, 3] in pixels of the final image.
        sun: Direction towards the sun in the world [3]; need not be of unit length.
        supersample: Rays a pixel along each axis.
    """
    n = size * supersample
    fx, fy = K[0, 0] * supersample, K[1, 1] * supersample
    cx, cy = K[0, 2] * supersample, K[1, 2] * supersample
    R, origin = viewmat[:3, :3], -viewmat[:3, :3].T @ viewmat[:3, 3]
    x = ((np.arange(n) + 0.5 - cx) / fx).astype(np.float32)
    y = ((np.arange(n) + 0.5 - cy) / fy).astype(np.float32)
    sun = sun / np.linalg.norm(sun)
    nearest = np.full((n, n), np.inf, np.float32)
    rgba = np.zeros((n, n, 4), np.float32)
    for part in parts:
        _cast(part, R, origin, x, y, fx, fy, cx, cy, sun, nearest, rgba)
    return rgba.reshape(size, supersample, size, supersample, 4).mean((1, 3))


def _cast(part, R, origin, x, y, fx, fy, cx, cy, sun, nearest, rgba) -> None:
    """Draws one ellipsoid into the depth and colour buffers, inside its bounding square only."""
    axes, radii = part.rotation(), np.asarray(part.radii)
    center = R @ (np.asarray(part.center) - origin)
    bound = radii.max() * 1.05
    near = center[2] - bound
    if near <= 0.05:
        raise ValueError(f"the camera is inside the toy: a part begins {near:.2f} in front of it.")
    slack = bound / near
    u0, u1 = _window(center[0], center[2], slack, fx, cx, len(x))
    v0, v1 = _window(center[1], center[2], slack, fy, cy, len(y))
    if u0 >= u1 or v0 >= v1:
        return
    to_unit = (axes / radii).T @ R.T  # camera axes -> the unit sphere's
    o = (-to_unit @ center).astype(np.float32)
    dx, dy, dz = to_unit.T.astype(np.float32)
    d = x[None, u0:u1, None] * dx + y[v0:v1, None, None] * dy + dz
    a = np.einsum("ijk,ijk->ij", d, d)
    b = d @ o
    disc = b * b - a * (o @ o - 1.0)
    s = (-b - np.sqrt(np.maximum(disc, 0.0))) / a
    hit = (disc > 0) & (s < nearest[v0:v1, u0:u1])
    if not hit.any():
        return
    point = o + s[hit][:, None] * d[hit]
    normal = point @ (axes / radii).T.astype(np.float32)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    light = 0.45 + 0.15 * (1 + normal[:, 2]) + 0.30 * np.maximum(normal @ sun, 0.0)
    color = np.clip(light[:, None] * np.asarray(part.color) * 1.05, 0.0, 1.0)
    nearest[v0:v1, u0:u1][hit] = s[hit]
    rgba[v0:v1, u0:u1][hit] = np.concatenate([color, np.ones_like(color[:, :1])], -1)


def _window(position, depth, slack, focal, principal, limit) -> tuple[int, int]:
    middle = position / depth
    reach = slack * (1 + abs(middle))
    low = int(np.floor((middle - reach) * focal + principal))
    high = int(np.ceil((middle + reach) * focal + principal))
    return max(low, 0), min(high, limit)
