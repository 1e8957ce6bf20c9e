"""The number of (pixel, Gaussian) pairs that an image blends: the work of the rasteriser.

Counted in PyTorch, tile by tile and in float64; the kernels are not asked.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splat_esd.cameras import Cameras
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import reference

_TILE = 16  # pixels; saves time and means nothing


@torch.no_grad()
def count_pairs(gaussians: Gaussians, cameras: Cameras) -> int:
    """Counts what is blended:  alpha_i >= 1/255  and  prod_{j<=i} (1 - alpha_j) > 1e-4.

    Arguments:
        gaussians: N Gaussians, of any float type.
        cameras: B cameras; their pairs are added up. Other options are those `rasterize` assumes.
    """
    splats = reference.project(
        Gaussians(*(tensor.double() for tensor in gaussians.parameters().values())),
        replace(cameras, viewmats=cameras.viewmats.double(), Ks=cameras.Ks.double()),
        near_plane=0.01,
        far_plane=1e10,
        eps2d=0.3,
        antialiased=False,
    )
    return sum(
        _count_view(_nearest_first(splats, view), cameras.width, cameras.height)
        for view in range(len(cameras))
    )


def _nearest_first(splats: reference.Projection, view: int) -> Float[Tensor, "M 8"]:
    """Lists the visible ones:  mean x y, conic xx xy yy, opacity, radius x y."""
    columns = (splats.means2d, splats.conics, splats.opacities[..., None], splats.radii)
    table = torch.cat([column[view] for column in columns], dim=-1)
    order = splats.depths[view].float().argsort(stable=True)
    return table[order[splats.radii[view, order, 0] > 0]]


def _count_view(table: Float[Tensor, "M 8"], width: int, height: int) -> int:
    pairs = 0
    for top in range(0, height, _TILE):
        y = torch.arange(top, min(top + _TILE, height)) + 0.5
        row = table[_reaches(table[:, 1], table[:, 7], y)]
        for left in range(0, width, _TILE):
            x = torch.arange(left, min(left + _TILE, width)) + 0.5
            pairs += _count_tile(row[_reaches(row[:, 0], row[:, 6], x)], x, y)
    return pairs


def _reaches(
    center: Float[Tensor, " M"], radius: Float[Tensor, " M"], pixels: Float[Tensor, " P"]
) -> Bool[Tensor, " M"]:
    return (center + radius > pixels[0] - 0.5) & (center - radius < pixels[-1] + 0.5)


def _count_tile(table: Float[Tensor, "M 8"], x: Float[Tensor, " W"], y: Float[Tensor, " H"]) -> int:
    mean_x, mean_y, xx, xy, yy, opacity = table[:, :6].T[:, :, None, None]
    dx, dy = x - mean_x, y[:, None] - mean_y
    alpha = opacity * torch.exp(-(xx * dx**2 + yy * dy**2) / 2 - xy * dx * dy)
    alpha.clamp_(max=reference.ALPHA_MAX)
    seen = alpha >= reference.ALPHA_MIN
    left = (1 - alpha * seen).cumprod(0)
    return int((seen & (left > reference.TRANSMITTANCE_MIN)).sum())
