"""Fewer triangles, and still one closed surface."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

_GREEDY = (7, 3, 1)  # how hard fast-simplification tries; the gentler, the fewer defects
_APART = 0.02  # of the way to its neighbours that a point is moved where two sheets touch

Points = Float[ndarray, "P 3"]
Triangles = Int[ndarray, "F 3"]
Fewer = tuple[Float[ndarray, "Q 3"], Int[ndarray, "G 3"]]


def decimate(points: Points, triangles: Triangles, *, faces: int, watertight: bool) -> Fewer | None:
    """Merges edges, those first whose loss shows least, until so many faces are left.

    Returns:
        Points and triangles; None if `watertight` is asked for and no attempt keeps the surface
        closed.
    References:
        Surface Simplification Using Quadric Error Metrics (Garland and Heckbert, 1997).
    """
    import fast_simplification

    if len(triangles) <= faces:
        return (points, triangles) if not watertight or is_closed(points, triangles) else None
    for effort in _GREEDY:
        single: Any = points.astype(np.float32)  # which is taken, though hints say double
        fewer = fast_simplification.simplify(
            single, triangles.astype(np.int32), target_count=faces, agg=effort
        )
        fewer = fewer[0].astype(np.float64), fewer[1].astype(np.int64)
        if not watertight:
            return fewer
        sealed = seal(*fewer)
        if is_closed(*sealed) and len(sealed[1]) <= 1.1 * faces:
            return sealed
    return None


def seal(points: Points, triangles: Triangles) -> Fewer:
    """Takes apart what touches: where four triangles meet in an edge, or two sheets in a point.

    Triangles that lie back to back go first. Then every edge is glued to one that runs the other
    way, and a point becomes as many as there are fans of glued triangles around it; these are
    moved apart a little, for a reader may join points that coincide.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    triangles = _without_fins(triangles)
    corner = np.arange(3 * len(triangles)).reshape(-1, 3)
    start, end = triangles, np.roll(triangles, -1, axis=1)
    forward = _by_edge(start, end, start < end)
    backward = _by_edge(end, start, start > end)
    if len(forward) != len(backward):
        return points, triangles
    follow = np.roll(corner, -1, axis=1)
    a, b = corner.ravel(), follow.ravel()
    glue = np.concatenate([a[forward], b[forward]]), np.concatenate([b[backward], a[backward]])
    graph = coo_array((np.ones(len(glue[0])), glue), (corner.size, corner.size))
    count, fan = connected_components(graph, directed=False)
    origin = np.empty(count, np.int64)
    origin[fan] = triangles.ravel()
    glued = fan.reshape(-1, 3)
    return _apart(points[origin], glued, origin), glued


def is_closed(points: Points, triangles: Triangles) -> bool:
    """Tells whether every edge belongs to two triangles that run along it in opposite directions.

    Points that coincide as float32, which is what files hold, count as one.
    """
    _, same = np.unique(points.astype(np.float32), axis=0, return_inverse=True)
    triangles = same.reshape(-1)[triangles]
    start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    there, back = start * len(points) + end, end * len(points) + start
    once = np.unique(there)
    return bool(
        len(triangles)
        and len(once) == len(there)
        and np.isin(back, once).all()
        and (start != end).all()
    )


def _without_fins(triangles: Triangles) -> Int[ndarray, "G 3"]:
    """Drops pairs of triangles with the same corners that face in opposite directions."""
    order = np.sort(triangles, axis=1)
    flat = (order[:, 0] == order[:, 1]) | (order[:, 1] == order[:, 2])
    triangles, order = triangles[~flat], order[~flat]
    _, which, count = np.unique(order, axis=0, return_inverse=True, return_counts=True)
    return triangles[count[which.reshape(-1)] != 2]


def _by_edge(low: Triangles, high: Triangles, runs: Bool[ndarray, "F 3"]) -> Int[ndarray, " E"]:
    """Returns the half-edges that run one way, ordered by the edge they lie on."""
    half = np.flatnonzero(runs)
    return half[np.lexsort((high.ravel()[half], low.ravel()[half]))]


def _apart(points: Points, triangles: Triangles, origin: Int[ndarray, " P"]) -> Points:
    """Moves points that came from one towards the middle of their own triangles."""
    several = np.bincount(origin)[origin] > 1
    middle = points[triangles].mean(1)
    around = (
        np.stack(
            [
                np.bincount(triangles.ravel(), np.repeat(middle[:, axis], 3), len(points))
                for axis in range(3)
            ],
            axis=1,
        )
        / np.bincount(triangles.ravel(), minlength=len(points))[:, None]
    )
    return np.where(several[:, None], points + _APART * (around - points), points)
