"""The definition of the rasteriser, in plain PyTorch: any float type, any device, slow.

The other backends are tested against this file; `rasterize` documents it.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from splat_esd.cameras import Cameras
from splat_esd.errors import UsageError
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import quat_to_rotmat, sh_basis
from splat_esd.rasterize import RenderOutput

ALPHA_MAX = 0.999  # keeps 1 - alpha away from 0
ALPHA_MIN = 1 / 255  # fainter is not seen
TRANSMITTANCE_MIN = 1e-4  # darker is finished
EXTENT_MAX = 3.33  # standard deviations at which an opacity of 1 falls to ALPHA_MIN
FRUSTUM_MARGIN = 0.3  # of half the image, by which the linearised projection is trusted outside
TILE = 16  # pixels; tiles save memory here and mean nothing


@dataclass(frozen=True, eq=False)
class Projection:
    """The Gaussians on the image planes of B cameras; culled ones are zero everywhere."""

    means2d: Float[Tensor, "B N 2"]
    depths: Float[Tensor, "B N"]
    conics: Float[Tensor, "B N 3"]  # xx, xy, yy of the inverse covariance
    opacities: Float[Tensor, "B N"]
    colors: Float[Tensor, "B N 3"]
    radii: Int32[Tensor, "B N 2"]


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    background: Float[Tensor, "B 3"] | None,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    antialiased: bool,
    absgrad: bool,
) -> RenderOutput:
    """Renders as `rasterize` defines.

    Raises:
        UsageError: If `absgrad` is asked for; only the kernels see single pixels.
    """
    if absgrad:
        raise UsageError(
            "absgrad is not available from the reference rasteriser; use rasterizer=cpu or cuda."
        )
    splats = project(
        gaussians,
        cameras,
        near_plane=near_plane,
        far_plane=far_plane,
        eps2d=eps2d,
        antialiased=antialiased,
    )
    images = [_blend(splats, b, cameras.width, cameras.height) for b in range(len(cameras))]
    rgb, accumulated, transmittance = torch.stack(images).split([3, 1, 1], dim=-1)
    if background is not None:
        rgb = rgb + transmittance * background[:, None, None]
    alpha = 1 - transmittance
    hit = alpha > 0
    depth = torch.where(hit, accumulated / torch.where(hit, alpha, 1), 0)
    return RenderOutput(rgb, alpha, depth, _info(splats, cameras))


def project(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    antialiased: bool,
) -> Projection:
    """Projects by EWA splatting:  p = R m + t,  cov2d = J R Sigma R^T J^T + eps2d I.

    J is the derivative of the pinhole projection at p, with p held inside a wider frustum.

    References:
        EWA Volume Splatting (Zwicker et al., 2001), Sec. 4.
    """
    gaussians, scales, opacities, finite = _without_the_infinite(gaussians)
    R, t = cameras.viewmats[:, None, :3, :3], cameras.viewmats[:, None, :3, 3]
    x, y, z = ((R @ gaussians.means[..., None]).squeeze(-1) + t).unbind(-1)
    visible = finite & (z > near_plane) & (z < far_plane)
    # Culled ones pass through harmless numbers, for 0 times infinity would spoil their gradients.
    x, y, z = (torch.where(visible, v, 1) for v in (x, y, z))

    fx, fy = cameras.Ks[:, 0, 0, None], cameras.Ks[:, 1, 1, None]
    cx, cy = cameras.Ks[:, 0, 2, None], cameras.Ks[:, 1, 2, None]
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)
    axes = R @ (quat_to_rotmat(gaussians.quats) * scales[:, None, :])  # columns, camera axes
    held_x = _hold(x / z, fx, cx, cameras.width)
    held_y = _hold(y / z, fy, cy, cameras.height)
    along_x = (fx / z)[..., None] * (axes[..., 0, :] - held_x[..., None] * axes[..., 2, :])
    along_y = (fy / z)[..., None] * (axes[..., 1, :] - held_y[..., None] * axes[..., 2, :])
    xx, xy, yy = (along_x**2).sum(-1), (along_x * along_y).sum(-1), (along_y**2).sum(-1)
    sharp = xx * yy - xy**2
    xx, yy = xx + eps2d, yy + eps2d
    det = xx * yy - xy**2

    visible = visible & (det > 0) & det.isfinite()
    det = torch.where(visible, det, 1)
    opacities = opacities.expand_as(z)
    if antialiased:
        # Whatever this floor lifts is still fainter than ALPHA_MIN, and the root stays smooth.
        opacities = opacities * (sharp / det).clamp_min(ALPHA_MIN**2 / 4).sqrt()
    radii = _radii(opacities, torch.stack([xx, yy], dim=-1))
    size = torch.tensor([cameras.width, cameras.height], device=radii.device)
    inside = (means2d + radii > 0) & (means2d - radii < size)
    visible = visible & (radii > 0).all(-1) & inside.all(-1) & means2d.isfinite().all(-1)
    center = cameras.c2w[:, None, :3, 3]
    basis = sh_basis(gaussians.means - center, gaussians.sh_degree)
    colors = (torch.einsum("bnk,nkc->bnc", basis, gaussians.sh) + 0.5).clamp_min(0)
    seen = visible[..., None]
    return Projection(
        means2d=torch.where(seen, means2d, 0),
        depths=torch.where(visible, z, 0),
        conics=torch.where(seen, torch.stack([yy, -xy, xx], dim=-1) / det[..., None], 0),
        opacities=torch.where(visible, opacities, 0),
        colors=torch.where(seen, colors, 0),
        radii=torch.where(seen, radii, 0).to(torch.int32),
    )


def _without_the_infinite(
    gaussians: Gaussians,
) -> tuple[Gaussians, Float[Tensor, "N 3"], Float[Tensor, " N"], Bool[Tensor, " N"]]:
    """Replaces non-finite Gaussians by harmless ones; returns which to render."""
    values = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh)
    finite = torch.stack(
        [v.isfinite().flatten(1).all(1) if v.ndim > 1 else v.isfinite() for v in values]
    ).all(0)
    means, quats, scales, opacities, sh = (
        torch.where(finite.view(-1, *[1] * (v.ndim - 1)), v, 0) for v in values
    )
    clean = Gaussians(means, quats, gaussians.log_scales, gaussians.logit_opacities, sh)
    return clean, scales, opacities, finite


def _hold(
    slope: Float[Tensor, "B N"],
    focal: Float[Tensor, "B 1"],
    center: Float[Tensor, "B 1"],
    size: int,
) -> Float[Tensor, "B N"]:
    margin = FRUSTUM_MARGIN * 0.5 * size / focal
    return slope.clamp(-center / focal - margin, (size - center) / focal + margin)


@torch.no_grad()
def _radii(
    opacities: Float[Tensor, "B N"], variances: Float[Tensor, "B N 2"]
) -> Float[Tensor, "B N 2"]:
    """Bounds the box outside which alpha < 1/255:  ceil(min(3.33, sqrt(2 ln 255 o)) sqrt(var))."""
    extent = (2 * (opacities / ALPHA_MIN).clamp_min(1).log()).sqrt().clamp_max(EXTENT_MAX)
    radii = (extent[..., None] * variances.sqrt()).ceil()
    return torch.where((opacities >= ALPHA_MIN)[..., None], radii, 0)


def _blend(splats: Projection, b: int, width: int, height: int) -> Float[Tensor, "H W 5"]:
    """Blends one view:  red, green, blue, accumulated depth, transmittance."""
    # In float32 for every type, so that all backends agree on which of two comes first.
    order = splats.depths[b].float().argsort(stable=True)
    order = order[splats.radii[b, order, 0] > 0]
    low = (splats.means2d[b] - splats.radii[b]).detach()
    high = (splats.means2d[b] + splats.radii[b]).detach()
    rows = []
    for top in range(0, height, TILE):
        row = []
        for left in range(0, width, TILE):
            right, bottom = min(left + TILE, width), min(top + TILE, height)
            near = (low[order, 0] < right) & (high[order, 0] > left)
            near &= (low[order, 1] < bottom) & (high[order, 1] > top)
            row.append(_blend_tile(splats, b, order[near], (left, top, right, bottom)))
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows, dim=0)


def _blend_tile(
    splats: Projection, b: int, ids: Int[Tensor, " M"], box: tuple[int, int, int, int]
) -> Float[Tensor, "h w 5"]:
    left, top, right, bottom = box
    like = {"dtype": splats.means2d.dtype, "device": splats.means2d.device}
    px, py = torch.arange(left, right, **like) + 0.5, torch.arange(top, bottom, **like) + 0.5
    dx = px[None, :, None] - splats.means2d[b, ids, 0]
    dy = py[:, None, None] - splats.means2d[b, ids, 1]
    xx, xy, yy = splats.conics[b, ids].unbind(-1)
    sigma = (xx * dx**2 + yy * dy**2) / 2 + xy * dx * dy
    alpha = (splats.opacities[b, ids] * torch.exp(-sigma)).clamp_max(ALPHA_MAX)
    alpha = torch.where((sigma >= 0) & (alpha >= ALPHA_MIN), alpha, 0)
    # A product that has fallen to the limit never rises: what is kept is a prefix of the list.
    kept = (1 - alpha.detach()).cumprod(-1) > TRANSMITTANCE_MIN
    alpha = torch.where(kept, alpha, 0)
    behind = F.pad((1 - alpha).cumprod(-1), (1, 0), value=1.0)
    values = torch.cat([splats.colors[b, ids], splats.depths[b, ids, None]], dim=-1)
    return torch.cat([(behind[..., :-1] * alpha) @ values, behind[..., -1:]], dim=-1)


def _info(splats: Projection, cameras: Cameras) -> dict[str, Any]:
    return {
        "width": cameras.width,
        "height": cameras.height,
        "n_cameras": len(cameras),
        "radii": splats.radii,
        "means2d": splats.means2d,
        "depths": splats.depths,
        "conics": splats.conics,
        "opacities": splats.opacities,
        "gaussian_ids": None,
    }
