"""From the pictures of a splat to one closed surface: fused depth, cut where silhouettes agree."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from splat_esd.cameras import Cameras
from splat_esd.errors import UsageError
from splat_esd.mesh.raycast import rasterize_mesh
from splat_esd.mesh.views import Views

VIEWS, VIEW_SIZE = 60, 256
_BAND = 0.06  # depth that a view is believed to, before and behind what it sees
_SOLID = 0.5  # of the alpha where the splat is densest: what a pixel of the object has at least
_DENSE = 0.98  # share of the pixels that are less dense than that
_UNSEEN = 0.05  # share of the views that vote "inside" everywhere: what none can see is solid
_COARSE = 64  # cells across the frame to find the object and the level by
_LEVELS = (-0.3, -0.15, 0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8)
_JUDGES = 12  # views that choose the level
_SMALLEST = 0.02  # of the largest piece; what is smaller is dropped
_BLUR = 0.7  # cells: rounds off the staircase that pixels leave
_HAZE = 0.04  # of the frame, times softness: where the splat has no edge, noise is no detail
_OFF = 0.02  # distance in F that corners keep from the level


@dataclass(frozen=True, eq=False)
class Grid:
    """A box of cubic cells:  corner (i, j, k) lies at  low + step * (i, j, k)."""

    low: Float[ndarray, "3"]
    step: float
    shape: tuple[int, int, int]

    def points(self, where: Bool[ndarray, "I J K"]) -> Float[Tensor, "N 3"]:
        """Returns the corners that a mask marks."""
        index = np.stack(np.nonzero(where), 1)
        return torch.from_numpy((self.low + self.step * index).astype(np.float32))


def extract(
    views: Views, *, cells: int
) -> tuple[Float[ndarray, "V 3"], Int[ndarray, "F 3"], dict[str, float | int]]:
    """Finds the closed surface that the views agree on.

    The signed distances that the depth maps claim are averaged (a TSDF); where a view sees the
    background, all of its ray is outside. The level is the one whose silhouettes agree best with
    the views. Cavities are filled, and pieces smaller than 2 % of the largest are dropped.

    Arguments:
        views: Of a splat in the unit ball.
        cells: Of the grid, along the longest side of the object.
    Returns:
        Vertices, faces counter-clockwise from outside, and how it was found: level, agreement.
    Raises:
        UsageError: If the views see nothing solid.
    References:
        A Volumetric Method for Building Complex Models from Range Images (Curless and Levoy, 1996).
    """
    coarse, field = _everywhere(views)
    level, agreement = choose_level(field, coarse, views)
    fine, band, field = _refine(field, coarse, level, cells)
    field[band] = fuse(views, fine, band)[band]
    soft = softness(views)
    blur = max(_BLUR, _HAZE * soft / fine.step)
    vertices, faces = contour(clean(field, level, blur=blur), level, fine)
    return vertices, faces, {"level": level, "silhouette_agreement": agreement, "softness": soft}


def coarse_points(views: Views) -> Float[ndarray, "V 3"]:
    """Returns points around the object: its surface at the least cautious level, roughly.

    Raises:
        UsageError: If the views see nothing solid.
    """
    coarse, field = _everywhere(views)
    vertices, _ = contour(clean(field, _LEVELS[-1]), _LEVELS[-1], coarse)
    return vertices


def fuse(views: Views, grid: Grid, where: Bool[ndarray, "I J K"]) -> Float[ndarray, "I J K"]:
    """Averages what the views claim:  F = mean_v clip((D_v(x) - z_v(x)) / band, -1, 1).

    A view has no say about what lies behind the surface it sees by more than the band. Corners
    outside of the mask are 1, that is outside.
    """
    points = grid.points(where)
    count = len(views.cameras)
    solid = _solid(views)
    total = torch.full((len(points),), -_UNSEEN * count)
    votes = torch.full((len(points),), _UNSEEN * count)
    for i in range(count):
        pixel, z = _project(points, views.cameras, i)
        claim = ((views.depth[i].flatten()[pixel] - z) / _BAND).clamp_(max=1)
        claim.masked_fill_(views.alpha[i].flatten()[pixel] < solid, 1)
        heard = claim > -1
        total += claim.mul_(heard)
        votes += heard
    field = np.ones(grid.shape, np.float32)
    field[where] = (total / votes).numpy()
    return field


def choose_level(field: Float[ndarray, "I J K"], grid: Grid, views: Views) -> tuple[float, float]:
    """Returns the level whose silhouettes m agree best:  sum min(m, alpha) / sum max(m, alpha)."""
    judges = range(0, len(views.cameras), max(1, len(views.cameras) // _JUDGES))
    best, agreement = _LEVELS[-1], 0.0
    for level in _LEVELS:
        cleaned = clean(field, level)
        if not (cleaned < level).any():
            continue
        vertices, faces = contour(cleaned, level, grid)
        both = either = 0.0
        for i in judges:
            mask = silhouette(vertices, faces, views.cameras, i)
            alpha = views.alpha[i, 1::2, 1::2].numpy()
            both += float(np.minimum(mask, alpha).sum())
            either += float(np.maximum(mask, alpha).sum())
        if both / either > agreement:
            best, agreement = level, both / either
    return best, agreement


def softness(views: Views) -> float:
    """Returns the share of what is seen that one sees through:  0.1 < alpha < 0.9."""
    seen = views.alpha[views.alpha > 0.1]
    return float((seen < 0.9).float().mean()) if len(seen) else 1.0


def clean(
    field: Float[ndarray, "I J K"], level: float, *, blur: float = _BLUR
) -> Float[ndarray, "I J K"]:
    """Blurs, by so many cells, fills cavities and removes small pieces; the border is outside."""
    from scipy.ndimage import gaussian_filter, generate_binary_structure, label

    field = gaussian_filter(field, blur)
    for side in range(3):
        np.moveaxis(field, side, 0)[[0, -1]] = 1
    pieces = np.empty(field.shape, np.int32)
    label(field < level, output=pieces)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    keep = sizes >= max(_SMALLEST * sizes.max(), 1)
    inside = keep[pieces]
    field[(field < level) & ~inside] = 1
    around = np.empty(field.shape, np.int32)
    label(~inside, generate_binary_structure(3, 3), output=around)
    field[(around != around[0, 0, 0]) & ~inside] = -1
    # No corner on the surface itself: its cells would get triangles without area.
    off = field - level
    return level + np.where(off < 0, np.minimum(off, -_OFF), np.maximum(off, _OFF))


def contour(
    field: Float[ndarray, "I J K"], level: float, grid: Grid
) -> tuple[Float[ndarray, "V 3"], Int[ndarray, "F 3"]]:
    """Returns the surface where the field is `level`, by marching cubes.

    Raises:
        UsageError: If the field reaches the level nowhere, or lies on one side of it.
    References:
        Efficient Implementation of Marching Cubes' Cases (Lewiner et al., 2003).
    """
    from skimage.measure import marching_cubes

    if not field.min() < level < field.max():
        raise UsageError(
            "there is nothing to make a mesh of: the splat shows no surface. If a few splats "
            "lie far from the rest, the rest is too small to be seen; remove them."
        )
    vertices, faces, _, _ = marching_cubes(field, level, gradient_direction="descent")
    return grid.low + grid.step * vertices.astype(np.float64), faces.astype(np.int64)


def silhouette(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"], cameras: Cameras, i: int
) -> Float[ndarray, "H W"]:
    """Draws 1 where camera i sees the surface, at every second pixel of every second row."""
    height, width = cameras.height // 2, cameras.width // 2
    viewmat, K = cameras.viewmats[i].double().numpy(), cameras.Ks[i].double().numpy()
    # The middle of a pixel of the small picture is that of pixel (1, 1) of two by two.
    K = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]]) @ K
    hits = rasterize_mesh(vertices, faces, viewmat, K, width=width, height=height)
    mask = np.zeros(height * width)
    mask[hits.pixels] = 1
    return mask.reshape(height, width)


def _everywhere(views: Views) -> tuple[Grid, Float[ndarray, "I J K"]]:
    """Fuses the views on a coarse grid that holds the unit ball."""
    step = 2.1 / _COARSE
    coarse = Grid(np.full(3, -1.05 - step), step, (_COARSE + 3, _COARSE + 3, _COARSE + 3))
    field = fuse(views, coarse, np.ones(coarse.shape, bool))
    if not (clean(field, _LEVELS[-1]) < _LEVELS[-1]).any():
        raise UsageError("there is nothing to make a mesh of: the splat is too thin to be seen.")
    return coarse, field


def _solid(views: Views) -> float:
    """Returns the alpha that tells object from background: 1 / 2, less if all is haze."""
    seen = views.alpha[views.alpha > 0].numpy()
    return _SOLID * float(np.quantile(seen, _DENSE)) if len(seen) else _SOLID


def _project(
    points: Float[Tensor, "N 3"], cameras: Cameras, i: int
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """Returns the pixel of view i that sees each point, and the point's camera z."""
    viewmat, K = cameras.viewmats[i], cameras.Ks[i]
    x, y, z = (points @ viewmat[:3, :3].T + viewmat[:3, 3]).unbind(1)
    column = (K[0, 0] * x / z + K[0, 2]).long().clamp_(0, cameras.width - 1)
    row = (K[1, 1] * y / z + K[1, 2]).long().clamp_(0, cameras.height - 1)
    return row * cameras.width + column, z


def _refine(
    field: Float[ndarray, "I J K"], coarse: Grid, level: float, cells: int
) -> tuple[Grid, Bool[ndarray, "A B C"], Float[ndarray, "A B C"]]:
    """Returns a finer grid around the object, where it must be looked at, and its values elsewhere.

    Only near the surface is there anything to learn: elsewhere the coarse field says in or out.
    """
    from scipy.ndimage import binary_dilation, map_coordinates

    inside = clean(field, level) < level
    spans = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {side}))) for side in range(3)]
    low = np.array([span[0] - 2.0 for span in spans])
    high = np.array([span[-1] + 2.0 for span in spans])
    step = float((high - low).max()) / cells
    rows, columns, layers = (int(n) for n in np.ceil((high - low) / step).astype(int) + 1)
    shape = (rows, columns, layers)
    fine = Grid(coarse.low + coarse.step * low, coarse.step * step, shape)
    near = binary_dilation(inside, iterations=2) & ~_eroded(inside)
    axes = [low[side] + step * np.arange(shape[side]) for side in range(3)]
    spots = np.stack(np.meshgrid(*axes, indexing="ij"))
    band = map_coordinates(near.astype(np.uint8), spots, order=0, mode="nearest") > 0
    solid = map_coordinates(inside.astype(np.uint8), spots, order=0, mode="nearest") > 0
    return fine, band, np.where(solid, -1, 1).astype(np.float32)


def _eroded(inside: Bool[ndarray, "I J K"]) -> Bool[ndarray, "I J K"]:
    from scipy.ndimage import binary_erosion

    return binary_erosion(inside, iterations=2)
