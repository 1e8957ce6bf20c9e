"""The colours of a mesh: a texture baked from many pictures of the splat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from splat_esd.gaussians import Gaussians
from splat_esd.mesh.atlas import Unwrapped
from splat_esd.mesh.raycast import Hits, rasterize_mesh
from splat_esd.mesh.views import Views

VIEWS = 48
_NEAR = 0.02  # a texel is seen if the nearest surface is not closer than this, in the unit ball
_STEEP = 0.25  # cosine below which a view shows a surface too flat to learn its colour from
_RIM = 2  # pixels beside an edge in depth; there the colours of front and back run together
_RIM_WEIGHT = 0.02
_DIM = 0.2  # weight of all views together below which the Gaussians have a say in the colour
_NEIGHBOURS = 8
_FOOT = 1.0  # texels; a pixel of a view is about so wide
_EVERY = 2  # of the views are used to sharpen: half the memory, and as sharp
_PALE = 2 / 3  # how much of the white behind a splat is taken for its own colour


@dataclass(frozen=True, eq=False)
class Texels:
    """The texels that lie on a chart: row-major index, position and unit normal of each."""

    index: Int[Tensor, " T"]
    positions: Float[Tensor, "T 3"]
    normals: Float[Tensor, "T 3"]


def view_size(size: int) -> int:
    """Returns how large pictures must be for a texture: their pixels are two or three texels."""
    return max(128, min(size // 2, 1024))


@dataclass(frozen=True, eq=False)
class Look:
    """What a camera sees of the mesh.

    Arguments:
        hits: Which of its pixels see which point.
        depth: Camera z, far away where there is no mesh [H, W].
        trust: How much the picture is believed there: little beside edges in depth [H, W].
    """

    hits: Hits
    depth: Float[Tensor, "H W"]
    trust: Float[Tensor, "H W"]


def bake(
    mesh: Unwrapped, gaussians: Gaussians, views: Views, *, size: int, steps: int
) -> tuple[Float[ndarray, "S S 3"], float]:
    """Paints a texture so that the mesh looks like the splat.

    A texel is the mean of what the views see there, weighted by  alpha cos^2 , cos between normal
    and view; views that something hides it from do not count. Texels that no view sees take the
    colour of the Gaussians around them. `steps` of least squares against the views then sharpen
    what averaging has blurred.

    Arguments:
        mesh: In the unit ball, like the splat.
        gaussians: The splat.
        views: Images of it.
        size: Width and height of the texture.
    Returns:
        Colours in [0, 1], gaps between charts filled, and the share of texels that a view saw.
    """
    looks = [_look(mesh, views, i) for i in range(len(views.cameras))]
    texels = _texels(mesh, size)
    colors, weights = _gather(texels, views, looks)
    dim = weights < _DIM
    if dim.any():
        near = (_DIM - weights[dim])[:, None]
        colors[dim] += near * near_colors(texels.positions[dim], gaussians)
    colors /= weights.clamp_min(_DIM)[:, None]
    image = np.zeros((size * size, 3), np.float32)
    image[texels.index.numpy()] = colors.clamp(0, 1).numpy()
    filled = np.zeros(size * size, bool)
    filled[texels.index.numpy()] = True
    filled = filled.reshape(size, size)
    image = pad(image.reshape(size, size, 3), filled)
    if steps:
        # What a view reads beside a chart has moved there too, and shows as specks along seams.
        image = pad(sharpen(image, mesh, views, looks, steps=steps), filled)
    return image, 1 - float((weights <= 0).float().mean())


def near_colors(positions: Float[Tensor, "T 3"], gaussians: Gaussians) -> Float[Tensor, "T 3"]:
    """Averages the colours of the nearest Gaussians, weighted by  opacity / distance^2."""
    from scipy.spatial import KDTree

    count = min(_NEIGHBOURS, len(gaussians))
    tree = KDTree(gaussians.means.double().cpu().numpy())
    ranks: Any = [*range(1, count + 1)]
    distance, nearest = tree.query(positions.double().numpy(), k=ranks)
    opacity = gaussians.opacities.double().cpu().numpy()[nearest]
    weights = opacity / np.maximum(distance, 1e-4) ** 2
    colors = gaussians.colors.double().cpu().numpy()[nearest]
    mean = (weights[..., None] * colors).sum(1) / weights.sum(1, keepdims=True)
    return torch.from_numpy(mean.astype(np.float32)).clamp(0, 1)


def pad(image: Float[ndarray, "S S 3"], filled: Bool[ndarray, "S S"]) -> Float[ndarray, "S S 3"]:
    """Gives every empty texel the colour of the nearest one that is filled."""
    from scipy.ndimage import distance_transform_edt

    nearest: Any = distance_transform_edt(~filled, return_distances=False, return_indices=True)
    return image[nearest[0], nearest[1]]


def sample(image: Float[ndarray, "S S 3"], uv: Float[ndarray, "P 2"]) -> Float[ndarray, "P 3"]:
    """Reads a texture between its texels, bilinearly."""
    index, weights = _bilinear(uv, len(image))
    return (image.reshape(-1, 3)[index] * weights[..., None]).sum(1)


def sharpen(
    image: Float[ndarray, "S S 3"],
    mesh: Unwrapped,
    views: Views,
    looks: Sequence[Look],
    *,
    steps: int,
) -> Float[ndarray, "S S 3"]:
    """Fits the texture to the pictures:  x += G A^T w (b - A x) / G A^T w 1.

    A is the bilinear look-up, b the pictures, w how much a pixel is trusted, and G a
    blur as wide as a pixel, for a pixel shows more than the four texels around its centre.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.sparse import csr_array

    size = len(image)
    looked, shown, trust = [], [], []
    for i in range(0, len(looks), _EVERY):
        look = looks[i]
        looked.append(sample_points(mesh, look.hits))
        shown.append(_solid(views, i).flatten(0, 1).numpy()[look.hits.pixels])
        trust.append(look.trust.flatten().numpy()[look.hits.pixels])
    index, weights = _bilinear(np.concatenate(looked), size)
    b, w = np.concatenate(shown), np.concatenate(trust)[:, None]
    A = csr_array(
        (weights.ravel(), index.ravel(), np.arange(0, 4 * len(b) + 1, 4)), (len(b), size * size)
    )

    def spread(values: Float[ndarray, "P C"]) -> Float[ndarray, "T C"]:
        picture = (A.T @ values).reshape(size, size, -1)
        return gaussian_filter(picture, (_FOOT, _FOOT, 0)).reshape(size * size, -1)

    total = spread(w) + 0.02
    flat = image.reshape(-1, 3).astype(np.float32)
    for _ in range(steps):
        flat = (flat + spread(w * (b - A @ flat)) / total).clip(0, 1)
    return flat.reshape(image.shape)


def _solid(views: Views, i: int) -> Float[Tensor, "H W 3"]:
    """Returns what a picture shows, as something that one cannot see through.

    A splat that is half there looks pale over white, and so does its mesh, a third less: over a
    dark background it would look white.
    """
    alpha = views.alpha[i, ..., None]
    own = (views.rgb[i] / alpha.clamp_min(1e-3)).clamp(0, 1)
    behind = _PALE + (1 - _PALE) * own
    return (views.rgb[i] + (1 - alpha) * behind).clamp(0, 1)


def sample_points(mesh: Unwrapped, hits: Hits) -> Float[ndarray, "P 2"]:
    """Returns the texture coordinates that the pixels of a view see."""
    return (mesh.uv[mesh.faces[hits.faces]] * hits.weights[..., None]).sum(1)


def _bilinear(
    uv: Float[ndarray, "P 2"], size: int
) -> tuple[Int[ndarray, "P 4"], Float[ndarray, "P 4"]]:
    at = np.clip(uv * size - 0.5, 0, size - 1).astype(np.float32)
    low = np.minimum(at.astype(np.int32), size - 2)
    right, down = (at - low).T
    corner = low[:, 1] * size + low[:, 0]
    index = np.stack([corner, corner + 1, corner + size, corner + size + 1], 1)
    weights = np.stack(
        [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down], 1
    )
    return index, weights


def _look(mesh: Unwrapped, views: Views, i: int) -> Look:
    from scipy.ndimage import maximum_filter, minimum_filter

    height, width = views.cameras.height, views.cameras.width
    viewmat, K = views.cameras.viewmats[i].double().numpy(), views.cameras.Ks[i].double().numpy()
    hits = rasterize_mesh(mesh.points, mesh.triangles, viewmat, K, width=width, height=height)
    depth = np.full(height * width, 1e3, np.float32)
    depth[hits.pixels] = hits.depth
    depth = depth.reshape(height, width)
    window = 2 * _RIM + 1
    jump = maximum_filter(depth, window) - minimum_filter(depth, window)
    trust = np.where(jump > 4 * _NEAR, _RIM_WEIGHT, 1.0).astype(np.float32)
    return Look(hits, torch.from_numpy(depth), torch.from_numpy(trust))


def _texels(mesh: Unwrapped, size: int) -> Texels:
    """Finds which texels lie on a chart, by drawing the charts from above."""
    flat = np.concatenate([mesh.uv * size, np.ones((len(mesh.uv), 1))], axis=1)
    hits = rasterize_mesh(
        flat, mesh.faces, np.eye(4), np.eye(3), width=size, height=size, back=True
    )
    corners = mesh.faces[hits.faces]
    blend = hits.weights[..., None]
    normals = (mesh.normals[corners] * blend).sum(1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return Texels(
        index=torch.from_numpy(hits.pixels),
        positions=torch.from_numpy((mesh.vertices[corners] * blend).sum(1).astype(np.float32)),
        normals=torch.from_numpy(normals.astype(np.float32)),
    )


def _gather(
    texels: Texels, views: Views, looks: Sequence[Look]
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, " T"]]:
    """Sums, over the views that see a texel, colour times weight, and weight."""
    colors = torch.zeros(len(texels.index), 3)
    weights = torch.zeros(len(texels.index))
    reach = (texels.positions**2).sum(1)
    rise = (texels.positions * texels.normals).sum(1)
    for i, eye in enumerate(views.cameras.c2w[:, :3, 3]):
        # |eye - p| and (eye - p) n by products alone: no array as long as all texels times three.
        far = (eye @ eye - 2 * texels.positions @ eye + reach).clamp_min(1e-12).sqrt()
        cosine = (texels.normals @ eye - rise) / far
        facing = (cosine > _STEEP).nonzero()[:, 0]
        spots, z = _spots(texels.positions[facing], views, i)
        seen = _read(looks[i].depth[..., None], spots)[:, 0] > z - _NEAR
        facing, spots = facing[seen], spots[seen]
        shot = torch.cat(
            [views.rgb[i], views.alpha[i, ..., None], looks[i].trust[..., None]], dim=-1
        )
        rgb, alpha, trusted = _read(shot, spots).split([3, 1, 1], dim=1)
        weight = (alpha * trusted)[:, 0] * cosine[facing] ** 2
        colors[facing] += weight[:, None] * (rgb / alpha.clamp_min(1e-3)).clamp(0, 1)
        weights[facing] += weight
    return colors, weights


def _spots(
    positions: Float[Tensor, "T 3"], views: Views, i: int
) -> tuple[Float[Tensor, "T 2"], Float[Tensor, " T"]]:
    """Returns where on the picture positions are, in [-1, 1], and their camera z."""
    cameras = views.cameras
    viewmat, K = cameras.viewmats[i], cameras.Ks[i]
    x, y, z = (positions @ viewmat[:3, :3].T + viewmat[:3, 3]).unbind(1)
    across = 2 * (K[0, 0] * x / z + K[0, 2]) / cameras.width - 1
    down = 2 * (K[1, 1] * y / z + K[1, 2]) / cameras.height - 1
    return torch.stack([across, down], dim=1), z


def _read(image: Float[Tensor, "H W C"], spots: Float[Tensor, "T 2"]) -> Float[Tensor, "T C"]:
    read = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None], spots[None, None], align_corners=False, padding_mode="border"
    )
    return read[0, :, 0].T
