"""gsplat's projection operators."""

import torch
from torch import Tensor

from splat_esd.rasterize import cpu
from splat_esd.rasterize.cpu import _kernels

PINHOLE, ORTHO, FISHEYE, FTHETA = "pinhole", "ortho", "fisheye", "ftheta"  # camera models


@torch.no_grad()
def projection_ewa_3dgs_fused_fwd(
    means, covars, quats, scales, opacities, viewmats, Ks, width, height, eps2d, near_plane,
    far_plane, radius_clip, calc_compensations, camera_model,
):  # fmt: skip
    """Projects every Gaussian into every camera: radii, means2d, depths, conics, compensations."""
    _refuse_batches(means, camera_model)
    opacities = means.new_ones(len(means)) if opacities is None else opacities
    view = cpu.View(
        width, height, near_plane, far_plane, eps2d, bool(calc_compensations), radius_clip
    )
    splats = cpu.project(means, quats, scales, opacities, None, viewmats, Ks, view, covars=covars)
    compensations = splats.opacities / opacities.clamp_min(torch.finfo(torch.float32).tiny)
    return splats.radii, splats.means2d, splats.depths, splats.conics, compensations


@torch.no_grad()
def projection_ewa_3dgs_fused_bwd(
    means, covars, quats, scales, viewmats, Ks, width, height, eps2d, camera_model, radii, conics,
    compensations, v_means2d, v_depths, v_conics, v_compensations, viewmats_requires_grad,
):  # fmt: skip
    """Back from images to Gaussians and cameras: means, covars, quats, scales, viewmats."""
    view = _kernels.View(width, height, 0.0, float("inf"), eps2d, v_compensations is not None, 0.0)
    # With opacities of 1, what is dimmed is the compensation itself.
    inputs = [means, quats, scales, covars, torch.ones_like(means[:, 0]), None, viewmats, Ks]
    inputs = [None if x is None else x.contiguous() for x in inputs]
    gradients = [None if x is None else torch.empty_like(x) for x in inputs[:7]]
    if not viewmats_requires_grad:
        gradients[6] = None
    _kernels.project_backward(
        _kernels.Parameters(*inputs), view, radii.contiguous(), v_means2d, v_depths, v_conics,
        v_compensations, None, *gradients, torch.get_num_threads(),
    )  # fmt: skip
    v_means, v_quats, v_scales, v_covars, _, _, v_viewmats = gradients
    return v_means, v_covars, v_quats, v_scales, v_viewmats


@torch.no_grad()
def projection_ewa_3dgs_packed_fwd(*arguments):
    """The same for visible couples only: indptr, batch, camera and Gaussian ids before the rest."""
    radii, *rest = projection_ewa_3dgs_fused_fwd(*arguments)
    visible = (radii > 0).all(-1)
    cameras, gaussians = visible.nonzero(as_tuple=True)
    indptr = torch.nn.functional.pad(visible.sum(1).cumsum(0), (1, 0)).int()
    packed = [values[visible] for values in (radii, *rest)]
    return indptr, torch.zeros_like(cameras), cameras, gaussians, *packed


@torch.no_grad()
def projection_ewa_3dgs_packed_bwd(
    means, covars, quats, scales, viewmats, Ks, width, height, eps2d, camera_model, batch_ids,
    camera_ids, gaussian_ids, conics, compensations, v_means2d, v_depths, v_conics,
    v_compensations, viewmats_requires_grad, sparse_grad,
):  # fmt: skip
    """Back from packed couples; with `sparse_grad` one row for each couple, not summed."""
    shape = len(viewmats), len(means)

    def unpack(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        full = values.new_zeros(*shape, *values.shape[1:])
        full[camera_ids, gaussian_ids] = values
        return full

    radii = unpack(torch.ones(len(camera_ids), 2, dtype=torch.int32))
    incoming = [unpack(v) for v in (v_means2d, v_depths, v_conics, v_compensations)]

    def back(cameras: slice):
        return projection_ewa_3dgs_fused_bwd(
            means, covars, quats, scales, viewmats[cameras], Ks[cameras], width, height, eps2d,
            camera_model, radii[cameras], None, None,
            *(None if v is None else v[cameras].contiguous() for v in incoming),
            viewmats_requires_grad,
        )  # fmt: skip

    if not sparse_grad:
        return back(slice(None))
    rows = []
    for c in range(len(viewmats)):
        *values, v_viewmat = back(slice(c, c + 1))
        ids = gaussian_ids[camera_ids == c]
        rows.append([None if v is None else v[ids] for v in values] + [v_viewmat])
    return tuple(None if v[0] is None else torch.cat(v) for v in zip(*rows, strict=True))


def _refuse_batches(means: Tensor, camera_model: str) -> None:
    if means.ndim != 2:
        raise NotImplementedError(
            f"batch dimensions: means [N, 3] is wanted, got {list(means.shape)}; call it for each."
        )
    if camera_model != PINHOLE:
        raise NotImplementedError(f"camera_model={camera_model!r}: only 'pinhole' is there.")
