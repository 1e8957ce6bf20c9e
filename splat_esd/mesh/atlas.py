"""A closed surface of triangles laid out flat, so that a picture can be wrapped around it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from splat_esd.mesh.charts import Chart, cut
from splat_esd.mesh.flatten import areas

_GUTTER = 3  # texels between charts, so that filtering does not mix them
_FILLED = 0.56  # of the picture by charts, as a rule: the packer has room for as much


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
    charts = cut(points, triangles)
    first = np.cumsum([0, *(len(chart.point) for chart in charts)])
    faces = np.empty_like(triangles)
    for chart, start in zip(charts, first[:-1], strict=True):
        faces[chart.faces] = chart.triangles + start
    return Unwrapped(
        points=points,
        triangles=triangles,
        point=np.concatenate([chart.point for chart in charts]),
        uv=_packed(charts, faces, size=size),
        faces=faces,
    )


def _packed(
    charts: Sequence[Chart], faces: Int[ndarray, "F 3"], *, size: int
) -> Float[ndarray, "V 2"]:
    """Returns where in the unit square the vertices of all charts lie."""
    import xatlas

    flat = np.concatenate([chart.flat for chart in charts])
    owner = np.empty(len(faces), np.uint32)
    for name, chart in enumerate(charts):
        owner[chart.faces] = name
    # In texels: xatlas leaves a triangle behind that is smaller than 1e-7, in whatever unit.
    texels = flat * np.sqrt(_FILLED * size**2 / areas(flat[faces]).sum())
    atlas = xatlas.Atlas()
    atlas.add_uv_mesh(
        np.stack([texels.real, texels.imag], axis=1).astype(np.float32),
        faces.astype(np.uint32),
        owner[:, None],  # charts are told apart by their materials
    )
    packing = xatlas.PackOptions()
    packing.texels_per_unit, packing.padding, packing.bilinear = 1.0, _GUTTER, True
    atlas.generate(xatlas.ChartOptions(), packing)
    vertex, _, uv = atlas[0]
    placed = np.empty((len(flat), 2))
    placed[vertex] = uv
    return placed


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
