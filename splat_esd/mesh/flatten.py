"""A disk of triangles laid flat: angles kept as far as they go, and whether that went well."""

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from numpy import ndarray

_THIN = 1e-9  # of a triangle's area: what is left of one that counts as turned over

Flat = Complex[ndarray, " V"]  # x + iy
Triangles = Int[ndarray, "F 3"]
Sides = Complex[ndarray, "F 3"]


def flatten(
    points: Float[ndarray, "V 3"],
    triangles: Triangles,
    border: Int[ndarray, "B 2"],
    *,
    stretch: float,
) -> Flat | None:
    """Lays a disk flat by a least-squares conformal map, as large as it was.

    Arguments:
        triangles: Into points; together a disk.
        border: The edges that belong to one triangle only.
        stretch: Root mean square stretch of lengths that is allowed, 1 is none.
    Returns:
        A place for every point; None if more stretch is needed, a triangle would turn over, or two
        triangles would share a place.
    References:
        Least Squares Conformal Maps for Automatic Texture Atlas Generation (Levy et al., 2002).
    """
    sides = in_plane(points, triangles)
    if len(triangles) == 1:
        flat = np.empty(3, complex)
        flat[triangles[0]] = sides[0]
        return flat
    rim = points[border[:, 0]]
    first = ((rim - rim.mean(0)) ** 2).sum(1).argmax()
    last = ((rim - rim[first]) ** 2).sum(1).argmax()
    flat = _conformal(sides, triangles, int(border[first, 0]), int(border[last, 0]))
    area, before = areas(flat[triangles]), areas(sides)
    if not area.sum() > 0:
        return None
    scale = np.sqrt(before.sum() / area.sum())
    flat, area = scale * flat, scale**2 * area
    if (area <= _THIN * before).any() or not stretched(sides, flat[triangles]) <= stretch:
        return None
    return None if crosses_itself(flat, border) else flat


def in_plane(points: Float[ndarray, "V 3"], triangles: Triangles) -> Sides:
    """Lays every triangle into a plane of its own: the first corner at 0, the second on x."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    length = np.maximum(np.linalg.norm(b - a, axis=1), 1e-12)
    along = (b - a) / length[:, None]
    x = ((c - a) * along).sum(1)
    y = np.linalg.norm(c - a - x[:, None] * along, axis=1)
    return np.stack([0 * length, length, x + 1j * np.maximum(y, 1e-6 * length)], axis=1)


def areas(corners: Sides) -> Float[ndarray, " F"]:
    """Returns the areas of triangles in the plane, negative if clockwise."""
    a, b, c = corners.T
    return np.imag((b - a).conj() * (c - a)) / 2


def stretched(before: Sides, after: Sides) -> float:
    """Returns the stretch from the plane back to the surface:  sqrt(E |J|^2 / 2) , E by area.

    Both have the same area; 1 is no stretch.

    References:
        Texture Mapping Progressive Meshes (Sander et al., 2001): the L2 norm.
    """
    p, q = before[:, 1] - before[:, 0], before[:, 2] - before[:, 0]
    u, v = after[:, 1] - after[:, 0], after[:, 2] - after[:, 0]
    twice = 2 * areas(after)
    across = (p * np.imag(v) - q * np.imag(u)) / twice
    down = (q * np.real(u) - p * np.real(v)) / twice
    square = (np.abs(across) ** 2 + np.abs(down) ** 2) / 2
    return float(np.sqrt(np.average(square, weights=areas(before))))


def crosses_itself(flat: Flat, border: Int[ndarray, "B 2"]) -> bool:
    """Tells whether two edges of the border that share no end meet."""
    a, b = flat[border[:, 0]], flat[border[:, 1]]
    across = _spans_meet(np.real(a), np.real(b))
    i, j = np.nonzero(np.triu(across & _spans_meet(np.imag(a), np.imag(b)), 1))
    apart = (border[i][:, :, None] != border[j][:, None, :]).all((1, 2))
    i, j = i[apart], j[apart]
    return bool((_parted(a[i], b[i], a[j], b[j]) & _parted(a[j], b[j], a[i], b[i])).any())


def _conformal(sides: Sides, triangles: Triangles, first: int, last: int) -> Flat:
    """Minimises  sum_t |sum_k (z_k+2 - z_k+1) u_k|^2 / area_t , two points held at 0 and 1.

    It is 0 where the map only turns and scales triangle t.
    """
    from scipy.sparse import csc_array
    from scipy.sparse.linalg import splu

    count = int(triangles.max()) + 1
    opposite = np.roll(sides, -2, axis=1) - np.roll(sides, -1, axis=1)
    terms = opposite / np.sqrt(areas(sides))[:, None]
    row = np.repeat(np.arange(len(triangles)), 3)
    system = csc_array((terms.ravel(), (row, triangles.ravel())), (len(triangles), count))
    free = np.ones(count, bool)
    free[[first, last]] = False
    known, rest = system[:, [last]].toarray()[:, 0], system[:, free]
    back = rest.conj().T
    # The matrix is Hermitian and positive: no pivots are needed, and fewer entries fill in.
    solver = splu(
        (back @ rest).tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    flat = np.zeros(count, complex)
    flat[last] = 1
    flat[free] = solver.solve(-(back @ known))
    return flat


def _spans_meet(a: Float[ndarray, " B"], b: Float[ndarray, " B"]) -> Bool[ndarray, "B B"]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    return (low[:, None] <= high) & (low <= high[:, None])


def _parted(
    a: Complex[ndarray, " N"],
    b: Complex[ndarray, " N"],
    p: Complex[ndarray, " N"],
    q: Complex[ndarray, " N"],
) -> Bool[ndarray, " N"]:
    """Tells whether p and q lie on two sides of the line through a and b, or on it."""
    along = (b - a).conj()
    return np.imag(along * (p - a)) * np.imag(along * (q - a)) <= 0
