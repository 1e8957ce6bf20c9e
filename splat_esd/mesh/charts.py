"""A surface cut into few pieces, each of which can be laid flat almost without stretch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy import ndarray

from splat_esd.mesh.flatten import flatten

_STRETCH = 1.05
_TURN = 0.3  # size that counts as much as a turn by one radian: pieces end at creases
_OPEN = 0.4  # |sum of areas times normals| / sum of areas below which a piece is bent too far
_LARGE = 0.2  # of the surface: what hardly ever lies flat is cut without trying
_SMALL = 0.03  # of the surface: what is joined to a neighbour if it can be
_TRIES = 3  # neighbours it is tried with, those with the longest common border first
_ROUNDS = 4  # of straightening a cut

Faces = Int[ndarray, " N"]
Piece = Int[ndarray, " _"]  # some of these faces


@dataclass(frozen=True, eq=False)
class Chart:
    """A piece of a surface, laid flat.

    Arguments:
        faces: Which of the surface's triangles [N].
        triangles: These triangles, into the chart's own vertices [N, 3].
        point: The point of the surface that each vertex lies on [V].
        flat: Where each vertex lies in the plane, x + iy; its area is the piece's [V].
    """

    faces: Faces
    triangles: Int[ndarray, "N 3"]
    point: Int[ndarray, " V"]
    flat: Complex[ndarray, " V"]


@dataclass(frozen=True, eq=False)
class Net:
    """Triangles, and how they hang together.

    Arguments:
        points: Of the surface [P, 3].
        triangles: Into points [F, 3].
        across: The half-edge, 3 f + k, on the other side of each half-edge; -1 at a border [F, 3].
        vectors: Areas times normals, averaged with the neighbours' [F, 3].
        distances: Between neighbours: how far, and how much the surface turns; sparse [F, F].
    """

    points: Float[ndarray, "P 3"]
    triangles: Int[ndarray, "F 3"]
    across: Int[ndarray, "F 3"]
    vectors: Float[ndarray, "F 3"]
    distances: Any

    def area(self, faces: Faces) -> float:
        """Returns the area of some triangles, roughly."""
        return float(np.linalg.norm(self.vectors[faces], axis=1).sum())


def cut(points: Float[ndarray, "P 3"], triangles: Int[ndarray, "F 3"]) -> list[Chart]:
    """Cuts a surface in two until every piece lies flat, and joins small pieces again.

    A piece is cut half-way between the two places that are farthest apart, along the surface and
    over its creases. Every triangle is in one chart.
    """
    surface = hang_together(points, triangles)
    whole = surface.area(np.arange(len(triangles)))
    work, charts = _connected(surface, np.arange(len(triangles))), []
    while work:
        faces = work.pop()
        chart = None
        if len(faces) == 1 or surface.area(faces) < _LARGE * whole:
            chart = lay_flat(surface, faces)
        if chart is None:
            work += halves(surface, faces)
        else:
            charts.append(chart)
    return _joined(surface, charts, _SMALL * whole)


def hang_together(points: Float[ndarray, "P 3"], triangles: Int[ndarray, "F 3"]) -> Net:
    """Finds the neighbours of every triangle, and how far away they are."""
    from scipy.sparse import csr_array

    here, there = _facing(triangles)
    across = np.full(triangles.size, -1)
    across[here], across[there] = there, here
    a, b, c = (points[triangles[:, i]] for i in range(3))
    vectors = np.cross(b - a, c - a) / 2
    one, other = np.r_[here, there] // 3, np.r_[there, here] // 3
    beside = csr_array((np.ones(len(one)), (one, other)), (len(triangles),) * 2)
    for _ in range(2):  # the steps that cells leave are no creases
        vectors = (vectors + beside @ vectors) / 2
    normals = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)
    turn = np.arccos((normals[one] * normals[other]).sum(1).clip(-1, 1))
    middle = (a + b + c) / 3
    size = max(float(np.sqrt(np.linalg.norm(vectors, axis=1).sum())), 1e-20)
    far = np.linalg.norm(middle[one] - middle[other], axis=1) / size + _TURN * turn
    distances = csr_array((np.maximum(far, 1e-9), (one, other)), beside.shape)
    return Net(points, triangles, across.reshape(-1, 3), vectors, distances)


def lay_flat(surface: Net, faces: Faces) -> Chart | None:
    """Returns a piece laid flat; None if it is no disk, or cannot be without too much stretch."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    total = float(np.linalg.norm(surface.vectors[faces].sum(0)))
    if len(faces) > 1 and total < _OPEN * surface.area(faces):
        return None
    place = np.full(len(surface.triangles), -1)
    place[faces] = np.arange(len(faces))
    across = surface.across[faces].ravel()
    inner = np.flatnonzero((across >= 0) & (place[across // 3] >= 0))
    twin = 3 * place[across[inner] // 3] + across[inner] % 3
    after = np.roll(np.arange(3 * len(faces)).reshape(-1, 3), -1, axis=1).ravel()
    # Corners are one vertex where triangles that share an edge meet: a fan around a point.
    glue = np.r_[inner, after[inner]], np.r_[after[twin], twin]
    size = (3 * len(faces),) * 2
    count, vertex = connected_components(coo_array((np.ones(len(glue[0])), glue), size))
    if count - (3 * len(faces) - len(inner) // 2) + len(faces) != 1:
        return None  # of connected pieces, only a disk has  vertices - edges + faces = 1
    triangles = vertex.reshape(-1, 3).astype(np.int64)
    point = np.empty(count, np.int64)
    point[vertex] = surface.triangles[faces].ravel()
    rim = np.ones(3 * len(faces), bool)
    rim[inner] = False
    border = np.stack([vertex[rim], vertex[after[rim]]], axis=1).astype(np.int64)
    flat = flatten(surface.points[point], triangles, border, stretch=_STRETCH)
    return None if flat is None else Chart(faces, triangles, point, flat)


def halves(surface: Net, faces: Faces) -> list[Piece]:
    """Cuts a connected piece half-way between its ends, straightens the cut; two pieces or more."""
    from scipy.sparse.csgraph import dijkstra

    within = surface.distances[faces][:, faces]
    first = int(dijkstra(within, indices=0).argmax())
    from_first = dijkstra(within, indices=first)
    last = int(from_first.argmax())
    near = from_first <= dijkstra(within, indices=last)
    beside = within.astype(bool).astype(float)
    neighbours = beside.sum(1)
    for _ in range(_ROUNDS):
        share = beside @ near.astype(float) / neighbours
        near = np.where(share == 0.5, near, share > 0.5)
        near[first], near[last] = True, False
    return [*_connected(surface, faces[near]), *_connected(surface, faces[~near])]


def _connected(surface: Net, faces: Faces) -> list[Piece]:
    from scipy.sparse.csgraph import connected_components

    count, piece = connected_components(surface.distances[faces][:, faces], directed=False)
    return [faces[piece == i] for i in range(count)]


def _joined(surface: Net, charts: list[Chart], small: float) -> list[Chart]:
    """Joins small charts, the smallest first, to a neighbour where both lie flat together."""
    kept = dict(enumerate(charts))
    owner = np.empty(len(surface.triangles), np.int64)
    for name, chart in kept.items():
        owner[chart.faces] = name
    for name in sorted(kept, key=lambda name: surface.area(kept[name].faces)):
        if surface.area(kept[name].faces) > small:
            continue
        across = surface.across[kept[name].faces].ravel()
        others = owner[across[across >= 0] // 3]
        beside, shared = np.unique(others[others != name], return_counts=True)
        for other in beside[np.argsort(-shared)][:_TRIES]:
            both = np.concatenate([kept[name].faces, kept[int(other)].faces])
            chart = lay_flat(surface, both)
            if chart is not None:
                kept[int(other)], owner[both] = chart, other
                del kept[name]
                break
    return list(kept.values())


def _facing(triangles: Int[ndarray, "F 3"]) -> tuple[Int[ndarray, " E"], Int[ndarray, " E"]]:
    """Pairs half-edges that run in opposite directions, where they alone share the edge."""
    start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    edge = np.minimum(start, end) * (int(triangles.max()) + 1) + np.maximum(start, end)
    order = np.argsort(edge, kind="stable")
    _, first, count = np.unique(edge[order], return_index=True, return_counts=True)
    here, there = order[first[count == 2]], order[first[count == 2] + 1]
    opposite = (start[here] == end[there]) & (here // 3 != there // 3)
    return here[opposite], there[opposite]
