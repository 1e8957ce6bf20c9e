"""gsplat's operators on splats in the world: harmonics, covariances, relocation, Adam."""

import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.geometry import quat_to_rotmat
from splat_esd.gsplat_cpu.inputs import expect, refuse_all_but_float32, typed
from splat_esd.gsplat_cpu.relocation import compute_relocation
from splat_esd.rasterize.autograd import kernels

_TRIANGLE = ([0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2])


@typed
@torch.no_grad()
def spherical_harmonics_fwd(degree: int, dirs: Tensor, coeffs: Tensor, masks: Tensor | None):
    """Evaluates  sum_k Y_k(d / |d|) sh_k;  0 where masked out."""
    if degree > 3:
        raise NotImplementedError(f"degree {degree}: only degrees 0 to 3 are there.")
    refuse_all_but_float32(dirs=dirs, coeffs=coeffs)
    colors = torch.empty(dirs.shape)
    kernels.spherical_harmonics(
        degree, *_flat_harmonics(dirs, coeffs, masks), colors.view(-1, 3), torch.get_num_threads()
    )
    return colors


@typed
@torch.no_grad()
def spherical_harmonics_bwd(
    num_bases: int,
    degree: int,
    dirs: Tensor,
    coeffs: Tensor,
    masks: Tensor | None,
    v_colors: Tensor,
    compute_v_dirs: bool,
):
    """Back from colours to coefficients and directions."""
    refuse_all_but_float32(dirs=dirs, coeffs=coeffs, v_colors=v_colors)
    flat = _flat_harmonics(dirs, coeffs, masks)
    expect("v_colors", v_colors, *dirs.shape)
    expect("coeffs", coeffs, *dirs.shape[:-1], num_bases, 3)
    v_coeffs = torch.zeros(coeffs.shape)
    v_dirs = torch.empty(dirs.shape) if compute_v_dirs else None
    kernels.spherical_harmonics_backward(
        degree,
        *flat,
        v_colors.reshape(-1, 3).contiguous(),
        v_coeffs.view(-1, num_bases, 3),
        None if v_dirs is None else v_dirs.view(-1, 3),
        torch.get_num_threads(),
    )
    return v_coeffs, v_dirs


def _flat_harmonics(dirs: Tensor, coeffs: Tensor, masks: Tensor | None):
    if coeffs.ndim < 2:
        raise ValueError(f"coeffs: expected [..., K, 3], got {list(coeffs.shape)}.")
    expect("dirs", dirs, *coeffs.shape[:-2], 3)
    expect("coeffs", coeffs, *coeffs.shape[:-1], 3)
    expect("masks", masks, *coeffs.shape[:-2])
    return (
        dirs.detach().reshape(-1, 3).contiguous(),
        coeffs.detach().reshape(-1, *coeffs.shape[-2:]).contiguous(),
        None if masks is None else masks.reshape(-1).contiguous(),
    )


@typed
def quat_scale_to_covar_preci_fwd(
    quats: Tensor, scales: Tensor, compute_covar: bool, compute_preci: bool, triu: bool
):
    """Returns  R diag(s^2) R^T  and  R diag(1 / s^2) R^T,  or the six numbers of their upper
    triangles; None for what is not wanted."""
    expect("quats", quats, *scales.shape[:-1], 4)
    expect("scales", scales, *scales.shape[:-1], 3)
    R = quat_to_rotmat(quats.double())
    wanted = ((compute_covar, scales.double()), (compute_preci, 1 / scales.double()))
    results = []
    for asked, sizes in wanted:
        axes = R * sizes[..., None, :]
        square = axes @ axes.mT
        result = square[..., _TRIANGLE[0], _TRIANGLE[1]] if triu else square
        results.append(result.to(quats.dtype) if asked else None)
    return tuple(results)


@typed
def quat_scale_to_covar_preci_bwd(
    quats: Float[Tensor, "*b 4"],
    scales: Float[Tensor, "*b 3"],
    triu: bool,
    v_covars: Tensor | None,
    v_precis: Tensor | None,
):
    """Back to quaternions and scales."""
    with torch.enable_grad():
        leaves = quats.detach().requires_grad_(), scales.detach().requires_grad_()
        made = quat_scale_to_covar_preci_fwd(
            leaves[0], leaves[1], v_covars is not None, v_precis is not None, triu
        )
    pairs = [(m, v) for m, v in zip(made, (v_covars, v_precis), strict=True) if v is not None]
    outputs, cotangents = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, leaves, cotangents, materialize_grads=True)


@typed
def relocation(opacities: Tensor, scales: Tensor, ratios: Tensor, binoms: Tensor, n_max: int):
    """Shares Gaussians among copies, as `relocation.compute_relocation` does."""
    return compute_relocation(opacities, scales, ratios, binoms)


@typed
@torch.no_grad()
def adam(
    param: Tensor,
    param_grad: Tensor | None,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    valid: Tensor | None,
    lr: float,
    b1: float,
    b2: float,
    eps: float,
):
    """Steps Adam, without bias correction as gsplat does, for the valid rows only, in place.

    All rows are valid if `valid` is None.
    """
    if param_grad is None or param.ndim == 0:
        raise ValueError("param_grad: expected a gradient for each row of param.")
    others = {"param_grad": param_grad, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    for name, tensor in others.items():
        expect(name, tensor, *param.shape)
    expect("valid", valid, len(param))
    if valid is None:
        valid = torch.ones(len(param), dtype=torch.bool)
    rows = valid.nonzero().squeeze(-1)
    grad = param_grad[rows]
    first = b1 * exp_avg[rows] + (1 - b1) * grad
    second = b2 * exp_avg_sq[rows] + (1 - b2) * grad * grad
    param[rows] -= lr * first / (second.sqrt() + eps)
    exp_avg[rows], exp_avg_sq[rows] = first, second
