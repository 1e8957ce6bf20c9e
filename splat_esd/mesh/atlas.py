"""A closed surface of triangles laid out flat, so that a picture can be wrapped around it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

_GUTTER = 3  # texels between charts, so that filtering does not mix them


@dataclass(frozen=True, eq=False)
class Unwrapped:
    """A mesh with texture coordinates; along the seams a point has several vertices.

    Arguments:
        points: Of the surface [P, 3].
        triangles: Counter-clockwise from outside, into points [F, 3].
        point: The point that each vertex lies on [V].
        uv: Texture coordinates in [0, 1], u to the right and v down, as glTF has them [V, 2].
        faces: The triangles again, into vertices [F, 3].
    """

    points: Float[ndarray, "P 3"]
    triangles: Int[ndarray, "F 3"]
    point: Int[ndarray, " V"]
    uv: Float[ndarray, "V 2"]
    faces: Int[ndarray, "F 3"]

    @property
    def vertices(self) -> Float[ndarray, "V 3"]:
        return self.points[self.point]

    @property
    def normals(self) -> Float[ndarray, "V 3"]:
        """Unit normals, smooth across seams:  n_p ~ sum of the areas of the faces around p."""
        return point_normals(self.points, self.triangles)[self.point]


def unwrap(
    points: Float[ndarray, "P 3"], triangles: Int[ndarray, "F 3"], *, size: int
) -> Unwrapped:
    """Cuts a mesh into charts and packs them into one square picture.

    Arguments:
        size: Width and height of that picture in texels.
    References:
        xatlas (Young, 2018). https://github.com/jpcy/xatlas
    """
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(points.astype(np.float32), triangles.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = size, _GUTTER, True
    atlas.generate(xatlas.ChartOptions(), packing)
    point, faces, uv = atlas[0]
    return Unwrapped(
        points=points,
        triangles=triangles,
        point=point.astype(np.int64),
        uv=uv.astype(np.float64),
        faces=faces.astype(np.int64),
    )


def point_normals(
    points: Float[ndarray, "P 3"], triangles: Int[ndarray, "F 3"]
) -> Float[ndarray, "P 3"]:
    """Averages the normals of the faces around each point, large faces more; up without any."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    across = np.cross(b - a, c - a)
    total = np.stack(
        [
            np.bincount(triangles.ravel(), np.repeat(across[:, axis], 3), len(points))
            for axis in range(3)
        ],
        axis=1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-20, total / np.maximum(length, 1e-20), (0.0, 0.0, 1.0))
