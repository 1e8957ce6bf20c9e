"""The surface of a toy: sampled points, and a mesh."""

from functools import cache

import numpy as np
from jaxtyping import Float, Int

from splat_esd.zoo.world.primitives import Part

_DETAIL = 10  # cells along the edge of the cube that convex parts are wrapped from
_ROUND = 36  # cells around a ring, and a third as many around its tube

Points = Float[np.ndarray, "N 3"]


def surface(parts: list[Part], count: int, rng: np.random.Generator) -> tuple[Points, ...]:
    """Samples points, uniform by area, from the surface, not from inside other parts.

    Returns:
        Points, unit normals outwards, and colours.
    Raises:
        ValueError: If there are no parts.
    """
    if not parts:
        raise ValueError("parts: expected at least one, got none.")
    chosen: list[np.ndarray] = []
    while sum(map(len, chosen)) < count:
        chosen.append(_draw(parts, max(2 * count, 64), rng))
    points, normals, colors = np.split(np.concatenate(chosen)[:count], 3, axis=1)
    return points, normals, colors


def mesh(parts: list[Part]) -> tuple[Points, Int[np.ndarray, "F 3"], Points]:
    """Triangulates every part, without the triangles inside other parts.

    Returns:
        Vertices, faces (counter-clockwise from outside), and the colour of each vertex.
    """
    vertices, faces, colors, first = [], [], [], 0
    for i, part in enumerate(parts):
        unit, cells = _wrapped(part)
        world = part.to_world(unit)
        hidden = _swallowed(parts, i, world)
        cells = cells[~hidden[cells].all(1)]
        vertices.append(world)
        faces.append(cells + first)
        colors.append(np.broadcast_to(np.asarray(part.color, float), world.shape))
        first += len(world)
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(colors)


def _draw(parts: list[Part], count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws points, normals and colours [M, 9] of which fewer than `count` are left to see."""
    wraps = [_wrapped(part) for part in parts]
    areas = [
        _areas(part.to_world(unit)[cells]) for part, (unit, cells) in zip(parts, wraps, strict=True)
    ]
    share = np.array([area.sum() for area in areas])
    rows = []
    for i, n in enumerate(rng.multinomial(count, share / share.sum())):
        part, (unit, cells) = parts[i], wraps[i]
        cell = cells[rng.choice(len(cells), n, p=areas[i] / areas[i].sum())]
        points = np.einsum("nk,nkd->nd", rng.dirichlet((1, 1, 1), n), unit[cell])
        points = _onto(part, points)
        normals = np.stack(part.gauge(*points.T)[1:], -1) / part.unit @ part.rotation().T
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        points = part.to_world(points)
        colors = np.broadcast_to(np.asarray(part.color, float), points.shape)
        rows.append(np.concatenate([points, normals, colors], 1)[~_swallowed(parts, i, points)])
    return rng.permutation(np.concatenate(rows))


def _areas(corners: Float[np.ndarray, "F 3 3"]) -> Float[np.ndarray, " F"]:
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.linalg.norm(across, axis=-1) / 2


def _swallowed(parts: list[Part], own: int, points: Points) -> np.ndarray:
    """Tells which points of part `own` lie inside another."""
    inside = np.zeros(len(points), bool)
    for i, part in enumerate(parts):
        if i != own:
            inside |= part.gauge(*part.to_unit(points).T)[0] < 1
    return inside


def _onto(part: Part, points: Points) -> Points:
    """Moves points of the unit frame onto the surface: p / G(p), or away from a ring's middle."""
    gauge = part.gauge(*points.T)[0][:, None]
    if part.shape != "ring":
        return points / gauge
    flat = points * (1, 1, 0)
    tube = part.radii[2] / part.radii[0]
    middle = flat / np.linalg.norm(flat, axis=-1, keepdims=True) * (1 - tube)
    return middle + (points - middle) / gauge


def _wrapped(part: Part) -> tuple[Points, Int[np.ndarray, "F 3"]]:
    """Returns vertices, in the unit frame, and faces of one part."""
    if part.shape != "ring":
        unit, cells = _cube()
        return _onto(part, unit), cells
    (u, v), cells = _grid(_ROUND, _ROUND // 3)
    tube = part.radii[2] / part.radii[0]
    around, across = 2 * np.pi * u, 2 * np.pi * v
    out = 1 - tube + tube * np.cos(across)
    points = (out * np.cos(around), out * np.sin(around), tube * np.sin(across))
    return np.stack(points, -1), cells


@cache
def _cube() -> tuple[Points, Int[np.ndarray, "F 3"]]:
    """Returns the surface of the cube in triangles, each of its sides a grid."""
    (u, v), cells = _grid(_DETAIL, _DETAIL)
    # Cells of even size seen from the middle.
    a, b = np.tan((u - 0.5) * np.pi / 2), np.tan((v - 0.5) * np.pi / 2)
    side = np.stack([np.ones_like(a), a, b], -1)
    sides = [np.roll(side * (sign, sign, 1), k, axis=1) for sign in (1, -1) for k in range(3)]
    faces = [cells + k * len(side) for k in range(6)]
    return np.concatenate(sides), np.concatenate(faces)


@cache
def _grid(rows: int, columns: int) -> tuple[np.ndarray, Int[np.ndarray, "F 3"]]:
    """Returns the points (u, v) of a grid over the unit square, and its cells cut in two."""
    uv = np.stack(np.meshgrid(np.linspace(0, 1, rows + 1), np.linspace(0, 1, columns + 1)))
    index = np.arange((rows + 1) * (columns + 1)).reshape(columns + 1, rows + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    cells = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return uv.reshape(2, -1), cells.reshape(-1, 3)
