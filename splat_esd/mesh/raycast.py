"""Draws triangles without a GPU: which face each pixel sees, where on it, and how far away."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

_NEAR = 1e-3


@dataclass(frozen=True, eq=False)
class Hits:
    """What the pixels of one view see of a mesh; pixels that see nothing are left out.

    Arguments:
        pixels: Row-major indices of pixels [P], each once.
        faces: The face that each of them sees [P].
        weights: Where on the face: barycentric, perspective accounted for [P, 3].
        depth: Camera z [P].
    """

    pixels: Int[ndarray, " P"]
    faces: Int[ndarray, " P"]
    weights: Float[ndarray, "P 3"]
    depth: Float[ndarray, " P"]


def rasterize_mesh(
    vertices: Float[ndarray, "V 3"],
    faces: Int[ndarray, "F 3"],
    viewmat: Float[ndarray, "4 4"],
    K: Float[ndarray, "3 3"],
    *,
    width: int,
    height: int,
    back: bool = False,
) -> Hits:
    """Finds the nearest face at the centre of every pixel.

    Back sides are not drawn, as glTF has it for materials that are not double-sided, unless `back`
    asks for them; faces that reach behind the camera are left out.

    Arguments:
        faces: Counter-clockwise from outside.
        viewmat: World to camera, OpenCV axes.
        K: Intrinsics in pixels.
    """
    camera = vertices @ viewmat[:3, :3].T + viewmat[:3, 3]
    z = camera[:, 2]
    inverse = 1 / np.where(z > _NEAR, z, np.inf)
    x = K[0, 0] * camera[:, 0] * inverse + K[0, 2]
    y = K[1, 1] * camera[:, 1] * inverse + K[1, 2]
    first, second, third = (z > _NEAR)[faces.T]  # numpy reduces rows of three slowly
    shown = np.flatnonzero(first & second & third)
    corners = faces[shown]
    # Image y points down, so that counter-clockwise from outside has a negative area here.
    area = _cross(x, y, corners)
    drawn = area != 0 if back else area < 0
    shown, corners, area = shown[drawn], corners[drawn], area[drawn]
    which, px, py = _candidates(x[corners], y[corners], width, height)
    w0, w1 = _barycentric(x[corners], y[corners], area, which, px, py)
    w2 = 1 - w0 - w1
    inside = np.flatnonzero((w0 >= 0) & (w1 >= 0) & (w2 >= 0))
    corner, pixels = corners[which[inside]], py[inside] * width + px[inside]
    weights = np.stack([w0[inside], w1[inside], w2[inside]], 1) * inverse[corner]
    nearness = weights.sum(1)
    won = _nearest(pixels, nearness, width * height)
    return Hits(
        pixels=pixels[won],
        faces=shown[which[inside[won]]],
        weights=(weights[won] / nearness[won, None]).astype(np.float32),
        depth=(1 / nearness[won]).astype(np.float32),
    )


def _cross(x: ndarray, y: ndarray, corners: ndarray) -> ndarray:
    a, b, c = corners.T
    return (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])


def _barycentric(
    x: Float[ndarray, "F 3"],
    y: Float[ndarray, "F 3"],
    area: Float[ndarray, " F"],
    which: Int[ndarray, " M"],
    px: Int[ndarray, " M"],
    py: Int[ndarray, " M"],
) -> tuple[Float[ndarray, " M"], Float[ndarray, " M"]]:
    """Returns the weights of the first and second corner of a face at the middles of pixels.

    They are 0 at the third corner and grow evenly from there: four slopes a face.
    """
    across, down = px + 0.5 - x[which, 2], py + 0.5 - y[which, 2]
    bx, by = (x[:, 2] - x[:, 1]) / area, (y[:, 2] - y[:, 1]) / area
    ax, ay = (x[:, 0] - x[:, 2]) / area, (y[:, 0] - y[:, 2]) / area
    first = bx[which] * down - by[which] * across
    return first, ax[which] * down - ay[which] * across


def _candidates(
    x: Float[ndarray, "F 3"], y: Float[ndarray, "F 3"], width: int, height: int
) -> tuple[Int[ndarray, " M"], Int[ndarray, " M"], Int[ndarray, " M"]]:
    """Lists the pixels whose centres lie in the box around each face: face, column, row."""
    left, right = _between(x, width)
    top, bottom = _between(y, height)
    across, down = np.maximum(right - left + 1, 0), np.maximum(bottom - top + 1, 0)
    counts = across * down
    which = np.repeat(np.arange(len(x)), counts)
    within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = np.divmod(within, across[which])
    return which, left[which] + column, top[which] + row


def _between(
    corners: Float[ndarray, "F 3"], count: int
) -> tuple[Int[ndarray, " F"], Int[ndarray, " F"]]:
    """Returns the first and the last pixel whose middle lies within the corners of each face."""
    a, b, c = corners.T
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    first = np.maximum(np.ceil(low - 0.5), 0).astype(np.int64)
    return first, np.minimum(np.floor(high - 0.5), count - 1).astype(np.int64)


def _nearest(
    pixels: Int[ndarray, " M"], nearness: Float[ndarray, " M"], count: int
) -> Int[ndarray, " P"]:
    """Picks the candidate with the largest 1 / z of every pixel that has any."""
    best = np.zeros(count)
    np.maximum.at(best, pixels, nearness)
    winner = np.full(count, -1)
    first = np.flatnonzero(nearness == best[pixels])
    winner[pixels[first]] = first
    return winner[winner >= 0]
