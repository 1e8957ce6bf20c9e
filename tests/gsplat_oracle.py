"""gsplat's compiled kernels in plain PyTorch, so that its unmodified Python runs without a GPU.

gsplat looks for a module `gsplat.csrc` before it compiles anything; `install` puts this one there.
Names, arguments and results are those of gsplat 1.5.3's C++, read from its sources, and every
backward pass is autograd's. What the kernels leave uninitialised is NaN here, so that whoever
reads it is found out. Slow: for scenes of some hundred Gaussians and images of some tiles.
"""

import itertools
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from gsplat.cuda import _torch_impl as formulas

PINHOLE = "pinhole"  # gsplat looks it up here
CameraModelType = None  # and passes by this name
ALPHA_MIN = 1 / 255


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes gsplat compute with this module for the length of a test."""
    backend = "gsplat.cuda._backend"  # remembers the kernels that gsplat found
    monkeypatch.setitem(sys.modules, "gsplat.csrc", sys.modules[__name__])
    monkeypatch.setitem(sys.modules, backend, None)
    del sys.modules[backend]


def project(means, quats, scales, viewmats, Ks, size, eps2d):
    """Projects P pairs of a Gaussian and a camera, each tensor [P, ...]."""
    quats = quats / quats.norm(dim=-1, keepdim=True)  # NaN for zero, as in the kernels
    covars, _ = formulas._quat_scale_to_covar_preci(quats, scales, True, False)
    means, covars = formulas._world_to_cam(means[:, None], covars[:, None], viewmats[:, None])
    means2d, covars2d = formulas._persp_proj(means, covars, Ks[:, None], *size)
    (xx, xy), (_, yy) = (row.unbind(-1) for row in covars2d[:, 0, 0].unbind(-2))
    sharp = xx * yy - xy**2
    xx, yy = xx + eps2d, yy + eps2d
    det = xx * yy - xy**2
    conics = torch.stack([yy, -xy, xx], dim=-1) / det[:, None]
    dimming = (sharp / det).clamp_min(1e-12).sqrt()  # the floor spares autograd infinity
    variances = torch.stack([xx, yy], dim=-1)
    return means2d[:, 0, 0], means[:, 0, 0, 2], conics, dimming, variances, det


def _all_pairs(
    means, quats, scales, opacities, viewmats, Ks, size, eps2d, near, far, radius_clip, dim
):
    """Projects every Gaussian into every camera; radii are 0 where it is culled."""
    cameras, n = len(viewmats), len(means)
    c = torch.arange(cameras).repeat_interleave(n)
    g = torch.arange(n).repeat(cameras)
    splats = project(means[g], quats[g], scales[g], viewmats[c], Ks[c], size, eps2d)
    means2d, depths, conics, dimming, variances, det = splats
    alpha = opacities[g] * (dimming if dim else 1)
    extent = (2 * (alpha / ALPHA_MIN).log()).sqrt().clamp_max(3.33)
    radii = (extent[:, None] * variances.sqrt()).ceil()
    seen = (depths >= near) & (depths <= far) & (det > 0) & (alpha >= ALPHA_MIN)
    seen &= (radii > radius_clip).any(-1)
    seen &= (means2d + radii > 0).all(-1) & (means2d - radii < torch.tensor(size)).all(-1)
    radii = torch.where(seen[:, None], radii, 0).int()
    return c, g, seen, (radii, means2d, depths, conics, dimming)


@torch.no_grad()
def projection_ewa_3dgs_fused_fwd(
    means, covars, quats, scales, opacities, viewmats, Ks, width, height, eps2d, near, far,
    radius_clip, calc_compensations, camera_model,
):  # fmt: skip
    assert (covars, camera_model) == (None, PINHOLE)
    *_, seen, (radii, *rest) = _all_pairs(
        means, quats, scales, opacities, viewmats, Ks, (width, height), eps2d, near, far,
        radius_clip, calc_compensations,
    )  # fmt: skip
    *rest, dimming = rest
    rest = [torch.where(seen.view(-1, *[1] * (v.ndim - 1)), v, math.nan) for v in rest]
    rest += [torch.where(seen, dimming, 0)]
    return tuple(v.unflatten(0, (len(viewmats), len(means))) for v in (radii, *rest))


@torch.no_grad()
def projection_ewa_3dgs_packed_fwd(
    means, covars, quats, scales, opacities, viewmats, Ks, width, height, eps2d, near, far,
    radius_clip, calc_compensations, camera_model,
):  # fmt: skip
    assert (covars, camera_model) == (None, PINHOLE)
    c, g, seen, splats = _all_pairs(
        means, quats, scales, opacities, viewmats, Ks, (width, height), eps2d, near, far,
        radius_clip, calc_compensations,
    )  # fmt: skip
    counts = seen.view(len(viewmats), -1).sum(1)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
    return indptr, torch.zeros_like(c)[seen], c[seen], g[seen], *(v[seen] for v in splats)


def projection_ewa_3dgs_packed_bwd(
    means, covars, quats, scales, viewmats, Ks, width, height, eps2d, camera_model, batch_ids,
    camera_ids, gaussian_ids, conics, compensations, v_means2d, v_depths, v_conics,
    v_compensations, viewmats_requires_grad, sparse_grad,
):  # fmt: skip
    assert not sparse_grad
    with torch.enable_grad():
        leaves = [v.detach().requires_grad_() for v in (means, quats, scales, viewmats)]
        gathered = [v[gaussian_ids] for v in leaves[:3]]
        gathered += [leaves[3][camera_ids], Ks[camera_ids]]
        outputs = project(*gathered, (width, height), eps2d)[:4]
    grads = [v_means2d, v_depths, v_conics, v_compensations]
    grads[3] = torch.zeros_like(v_depths) if grads[3] is None else grads[3]
    found = torch.autograd.grad(outputs, leaves, grads, materialize_grads=True)
    return found[0], None, *found[1:]


def projection_ewa_3dgs_fused_bwd(
    means, covars, quats, scales, viewmats, Ks, width, height, eps2d, camera_model, radii, conics,
    compensations, v_means2d, v_depths, v_conics, v_compensations, viewmats_requires_grad,
):  # fmt: skip
    c, g = (radii > 0).all(-1).nonzero(as_tuple=True)
    grads = [None if v is None else v[c, g] for v in (v_means2d, v_depths, v_conics)]
    grads += [None if v_compensations is None else v_compensations[c, g]]
    return projection_ewa_3dgs_packed_bwd(
        means, None, quats, scales, viewmats, Ks, width, height, eps2d, camera_model, None, c, g,
        None, None, *grads, viewmats_requires_grad, False,
    )  # fmt: skip


@torch.no_grad()
def spherical_harmonics_fwd(degree, dirs, coeffs, masks):
    return torch.where(
        masks[..., None], formulas._spherical_harmonics(degree, dirs, coeffs), math.nan
    )


def spherical_harmonics_bwd(num_bases, degree, dirs, coeffs, masks, v_colors, compute_v_dirs):
    with torch.enable_grad():
        leaves = [v.detach().requires_grad_() for v in (coeffs, dirs)]
        colors = formulas._spherical_harmonics(degree, leaves[1], leaves[0])
    v_colors = torch.where(masks[..., None], v_colors, 0)
    v_coeffs, v_dirs = torch.autograd.grad(colors, leaves, v_colors, materialize_grads=True)
    return v_coeffs, v_dirs


def intersect_tile(
    means2d, radii, depths, image_ids, gaussian_ids, images, tile_size, tile_width, tile_height,
    sort, segmented,
):  # fmt: skip
    assert sort and not segmented
    shape, n = depths.shape, depths.shape[-1]
    means2d, radii, depths = means2d.view(-1, 2), radii.view(-1, 2), depths.flatten()
    if image_ids is None:
        image_ids = torch.arange(images).repeat_interleave(n)
    tiles = torch.tensor([tile_width, tile_height])
    seen = (radii > 0).all(-1, keepdim=True)
    middle, radius = (torch.where(seen, v, 0) / tile_size for v in (means2d, radii))
    low = (middle - radius).floor().long().clamp_min(0).minimum(tiles)
    high = (middle + radius).ceil().long().clamp_min(0).minimum(tiles)
    span = (high - low) * seen
    counts = span.prod(-1)
    ids = torch.arange(len(counts)).repeat_interleave(counts)
    within = torch.arange(len(ids)) - (counts.cumsum(0) - counts)[ids]
    x, y = low[ids, 0] + within % span[ids, 0], low[ids, 1] + within // span[ids, 0]
    bits = (tile_width * tile_height).bit_length()
    key = (image_ids[ids] << (32 + bits)) | ((y * tile_width + x) << 32)
    key, order = (key | depths[ids].float().view(torch.int32).long()).sort(stable=True)
    return counts.int().view(shape), key, ids[order].int()


def intersect_offset(isect_ids, images, tile_width, tile_height):
    tiles = tile_width * tile_height
    wanted = (torch.arange(images)[:, None] << tiles.bit_length()) | torch.arange(tiles)
    offsets = torch.searchsorted(isect_ids >> 32, wanted.flatten())
    return offsets.int().view(images, tile_height, tile_width)


def _tiles(width, height, size, offsets, flatten_ids):
    """Walks over tiles: image, columns, rows, and the splats there from front to back."""
    ends = [*offsets.flatten().tolist(), len(flatten_ids)]
    for i, (image, row, column) in enumerate(itertools.product(*map(range, offsets.shape))):
        columns = slice(column * size, min((column + 1) * size, width))
        rows = slice(row * size, min((row + 1) * size, height))
        yield image, columns, rows, flatten_ids[ends[i] : ends[i + 1]].long()


def _offsets_to(means2d, columns, rows):
    """Returns what lies between every pixel's centre and every splat [h, w, M, 2]."""
    y, x = torch.meshgrid(
        torch.arange(rows.start, rows.stop).to(means2d) + 0.5,
        torch.arange(columns.start, columns.stop).to(means2d) + 0.5,
        indexing="ij",
    )
    return means2d - torch.stack([x, y], dim=-1)[:, :, None]


def _blend(delta, conics, colors, opacities):
    xx, xy, yy = conics.unbind(-1)
    dx, dy = delta.unbind(-1)
    sigma = 0.5 * (xx * dx**2 + yy * dy**2) + xy * dx * dy
    alpha = (opacities * torch.exp(-sigma)).clamp_max(0.999)
    alpha = torch.where((sigma < 0) | (alpha < ALPHA_MIN), 0, alpha)
    done = (1 - alpha).cumprod(-1) <= 1e-4
    alpha = torch.where(done, 0, alpha)
    left = F.pad((1 - alpha).cumprod(-1), (1, 0), value=1.0)
    return (alpha * left[..., :-1]) @ colors, 1 - left[..., -1:]


@torch.no_grad()
def rasterize_to_pixels_3dgs_fwd(
    means2d, conics, colors, opacities, backgrounds, masks, width, height, tile_size, offsets,
    flatten_ids,
):  # fmt: skip
    assert masks is None
    images, channels = len(offsets), colors.shape[-1]
    pictures = means2d.new_zeros(images, height, width, channels)
    alphas = means2d.new_zeros(images, height, width, 1)
    splats = means2d.view(-1, 2), conics.view(-1, 3), colors.view(-1, channels), opacities.flatten()
    for image, columns, rows, ids in _tiles(width, height, tile_size, offsets, flatten_ids):
        xy, *rest = (v[ids] for v in splats)
        picture, alpha = _blend(_offsets_to(xy, columns, rows), *rest)
        pictures[image, rows, columns] = picture
        alphas[image, rows, columns] = alpha
    if backgrounds is not None:
        pictures += (1 - alphas) * backgrounds[:, None, None]
    return pictures, alphas, torch.zeros(images, height, width, dtype=torch.int32)


def rasterize_to_pixels_3dgs_bwd(
    means2d, conics, colors, opacities, backgrounds, masks, width, height, tile_size, offsets,
    flatten_ids, render_alphas, last_ids, v_pictures, v_alphas, absgrad,
):  # fmt: skip
    inputs = (means2d, conics, colors, opacities)
    found = [torch.zeros_like(v) for v in (means2d, *inputs)]
    flat = [v.view(means2d[..., 0].numel(), *v.shape[means2d.ndim - 1 :]) for v in found]
    splats = [v.reshape(f.shape) for v, f in zip(inputs, flat[1:], strict=True)]
    if backgrounds is not None:
        v_alphas = v_alphas - (v_pictures * backgrounds[:, None, None]).sum(-1, keepdim=True)
    for image, columns, rows, ids in _tiles(width, height, tile_size, offsets, flatten_ids):
        xy, *rest = (v.detach()[ids] for v in splats)
        leaves = [v.requires_grad_() for v in (_offsets_to(xy, columns, rows), *rest)]
        with torch.enable_grad():
            outputs = _blend(*leaves)
        grads = [v[image, rows, columns].to(xy) for v in (v_pictures, v_alphas)]
        v_delta, *v_rest = torch.autograd.grad(outputs, leaves, grads)
        for total, part in zip(
            flat, (v_delta.abs().sum((0, 1)), v_delta.sum((0, 1)), *v_rest), strict=True
        ):
            total.index_add_(0, ids, part)
    return tuple(found) if absgrad else (None, *found[1:])


@torch.no_grad()
def quat_scale_to_covar_preci_fwd(quats, scales, compute_covar, compute_preci, triu):
    return formulas._quat_scale_to_covar_preci(quats, scales, compute_covar, compute_preci, triu)


def quat_scale_to_covar_preci_bwd(quats, scales, triu, v_covars, v_precis):
    with torch.enable_grad():
        leaves = [v.detach().requires_grad_() for v in (quats, scales)]
        outputs = formulas._quat_scale_to_covar_preci(*leaves, True, True, triu)
    grads = [(v, g) for v, g in zip(outputs, (v_covars, v_precis), strict=True) if g is not None]
    return torch.autograd.grad(*zip(*grads, strict=True), materialize_grads=True)


def relocation(opacities, scales, ratios, binoms, n_max):
    """Sums Equation 9 of the MCMC paper term by term, as the kernel does."""
    shares, sizes = [], []
    for opacity, scale, n in zip(opacities.tolist(), scales, ratios.tolist(), strict=True):
        share = 1 - (1 - opacity) ** (1 / n)
        total = 0.0
        for i in range(1, n + 1):
            for k in range(i):
                term = (-1) ** k / math.sqrt(k + 1) * share ** (k + 1)
                total += binoms[i - 1, k].item() * term
        shares.append(share)
        sizes.append(opacity / total * scale)
    return torch.tensor(shares).to(opacities), torch.stack(sizes).to(scales)
