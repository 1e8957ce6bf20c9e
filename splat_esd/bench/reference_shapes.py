"""Toys of the zoo as splats whose true surface is known, and the distance of a mesh from it."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray

from splat_esd.gaussians import Gaussians
from splat_esd.geometry import SH_C0, rotmat_to_quat
from splat_esd.zoo.world.captions import Composition
from splat_esd.zoo.world.compose import build
from splat_esd.zoo.world.surface import surface

SPLATS = 30_000
_SAMPLES = 200_000
_WIDTH = 1.0  # of a splat along the surface: the mean distance to its four neighbours
_FLATNESS = 0.15  # of its thickness
_OPACITY = 0.95

Points = Float[ndarray, "N 3"]


def as_splat(name: str, count: int = SPLATS) -> Gaussians:
    """Returns a toy as small flat Gaussians on its surface, from a fixed seed."""
    from scipy.spatial import KDTree

    arrays = surface(build(Composition(name)), count, np.random.default_rng(0))
    points, normals, colors = (torch.from_numpy(array.astype(np.float32)) for array in arrays)
    distances = KDTree(arrays[0]).query(arrays[0], k=5)[0][:, 1:]
    width = _WIDTH * float(distances.mean())
    scales = torch.tensor([width, width, _FLATNESS * width]).log()
    # Any two directions along the surface will do; z is never the normal's neighbour then.
    other = torch.eye(3)[normals.abs().argmin(dim=1)]
    first = F.normalize(torch.linalg.cross(normals, other), dim=1)
    turns = torch.stack([first, torch.linalg.cross(normals, first), normals], dim=-1)
    return Gaussians(
        means=points,
        quats=rotmat_to_quat(turns),
        log_scales=scales.repeat(count, 1),
        logit_opacities=torch.full((count,), _OPACITY).logit(),
        sh=((colors - 0.5) / SH_C0)[:, None],
    )


def distance_to_toy(name: str, points: Points, triangles: Int[ndarray, "F 3"]) -> dict[str, float]:
    """Returns the mean distances mesh to toy and toy to mesh, and their mean (Chamfer).

    All as shares of the toy's longest side; between points, so that about 0.2 % are left even
    where the two surfaces are one.
    """
    from scipy.spatial import KDTree

    rng = np.random.default_rng(1)
    true = surface(build(Composition(name)), _SAMPLES, rng)[0]
    drawn = _draw(points, triangles, _SAMPLES, rng)
    size = float(np.ptp(true, axis=0).max())
    there = float(KDTree(true).query(drawn)[0].mean()) / size
    back = float(KDTree(drawn).query(true)[0].mean()) / size
    return {"mesh_to_toy": there, "toy_to_mesh": back, "chamfer": (there + back) / 2}


def _draw(
    points: Points, triangles: Int[ndarray, "F 3"], count: int, rng: np.random.Generator
) -> Float[ndarray, "M 3"]:
    """Draws points on a mesh, uniform by area."""
    corners = points[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(across, axis=1)
    chosen = rng.choice(len(triangles), count, p=area / area.sum())
    return np.einsum("nk,nkd->nd", rng.dirichlet((1, 1, 1), count), corners[chosen])
