"""gsplat's projection operators.

Gaussians and cameras may come in batches of scenes; the kernels see one scene after another.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from splat_esd.gsplat_cpu.inputs import expect, expect_ids, refuse_all_but_float32, typed
from splat_esd.rasterize import cpu
from splat_esd.rasterize.autograd import kernels

PINHOLE, ORTHO, FISHEYE, FTHETA = "pinhole", "ortho", "fisheye", "ftheta"  # camera models


@typed
@torch.no_grad()
def projection_ewa_3dgs_fused_fwd(
    means: Tensor,
    covars: Tensor | None,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    eps2d: float,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    calc_compensations: bool,
    camera_model: Any,
):
    """Projects every Gaussian into every camera: radii, means2d, depths, conics, compensations."""
    if camera_model != PINHOLE:
        raise NotImplementedError(f"camera_model={camera_model!r}: only 'pinhole' is there.")
    refuse_all_but_float32(
        means=means, covars=covars, quats=quats, scales=scales, opacities=opacities,
        viewmats=viewmats, Ks=Ks,
    )  # fmt: skip
    _check_scene(means, covars, quats, scales, viewmats, Ks)
    expect("opacities", opacities, *means.shape[:-1])
    view = cpu.View(
        width, height, near_plane, far_plane, eps2d, bool(calc_compensations), radius_clip
    )
    batch = means.shape[:-2]
    given = means.new_ones(means.shape[:-1]) if opacities is None else opacities
    inputs = (means, quats, scales, given, viewmats, Ks, covars)
    found = []
    for means, quats, scales, given, viewmats, Ks, covars in _scenes(batch, inputs):
        splats = cpu.project(means, quats, scales, given, None, viewmats, Ks, view, covars=covars)
        compensations = splats.opacities / given.clamp_min(torch.finfo(torch.float32).tiny)
        found.append((splats.radii, splats.means2d, splats.depths, splats.conics, compensations))
    return _batched(batch, found)


@typed
@torch.no_grad()
def projection_ewa_3dgs_fused_bwd(
    means: Tensor,
    covars: Tensor | None,
    quats: Tensor | None,
    scales: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    eps2d: float,
    camera_model: Any,
    radii: Tensor,
    conics: Tensor | None,
    compensations: Tensor | None,
    v_means2d: Tensor | None,
    v_depths: Tensor | None,
    v_conics: Tensor | None,
    v_compensations: Tensor | None,
    viewmats_requires_grad: bool,
):
    """Back from images to Gaussians and cameras: means, covars, quats, scales, viewmats."""
    _check_scene(means, covars, quats, scales, viewmats, Ks)
    seen = (*viewmats.shape[:-2], means.shape[-2])  # [..., C, N]
    expect("radii", radii, *seen, 2)
    expect("v_means2d", v_means2d, *seen, 2)
    expect("v_depths", v_depths, *seen)
    expect("v_conics", v_conics, *seen, 3)
    expect("v_compensations", v_compensations, *seen)
    view = kernels.View(width, height, 0.0, float("inf"), eps2d, v_compensations is not None, 0.0)
    batch = means.shape[:-2]
    # With opacities of 1, what is dimmed is the compensation itself.
    inputs = (means, quats, scales, covars, means.new_ones(means.shape[:-1]), None, viewmats, Ks)
    incoming = (radii, v_means2d, v_depths, v_conics, v_compensations)
    found = []
    for scene in _scenes(batch, (*inputs, *incoming)):
        gradients = [None if x is None else torch.empty_like(x) for x in scene[:7]]
        if not viewmats_requires_grad:
            gradients[6] = None
        kernels.project_backward(
            kernels.Parameters(*scene[:8]), view, *scene[8:], None, *gradients,
            torch.get_num_threads(),
        )  # fmt: skip
        v_means, v_quats, v_scales, v_covars, _, _, v_viewmats = gradients
        found.append((v_means, v_covars, v_quats, v_scales, v_viewmats))
    return _batched(batch, found)


@torch.no_grad()
def projection_ewa_3dgs_packed_fwd(*arguments: Any):
    """The same for visible couples only: indptr, batch, camera and Gaussian ids before the rest."""
    found = projection_ewa_3dgs_fused_fwd(*arguments)
    batch = found[0].shape[:-3]
    radii, *rest = (x.reshape(batch.numel(), *x.shape[len(batch) :]) for x in found)
    visible = (radii > 0).all(-1)
    ids = visible.nonzero(as_tuple=True)  # of batches, cameras and Gaussians
    indptr = torch.nn.functional.pad(visible.sum(-1).flatten().cumsum(0), (1, 0)).int()
    return indptr, *ids, *(values[visible] for values in (radii, *rest))


@typed
@torch.no_grad()
def projection_ewa_3dgs_packed_bwd(
    means: Tensor,
    covars: Tensor | None,
    quats: Tensor | None,
    scales: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    eps2d: float,
    camera_model: Any,
    batch_ids: Tensor,
    camera_ids: Tensor,
    gaussian_ids: Tensor,
    conics: Tensor | None,
    compensations: Tensor | None,
    v_means2d: Tensor | None,
    v_depths: Tensor | None,
    v_conics: Tensor | None,
    v_compensations: Tensor | None,
    viewmats_requires_grad: bool,
    sparse_grad: bool,
):
    """Back from packed couples; with `sparse_grad` one row for each couple, not summed."""
    _check_scene(means, covars, quats, scales, viewmats, Ks)
    batch, cameras, n = means.shape[:-2], viewmats.shape[-3], means.shape[-2]
    ids = {"batch_ids": batch_ids, "camera_ids": camera_ids, "gaussian_ids": gaussian_ids}
    counts = (batch.numel(), cameras, n)
    for (name, values), count in zip(ids.items(), counts, strict=True):
        if len(values) != len(camera_ids):
            raise ValueError(f"{name}: expected as many ids as there are couples.")
        expect_ids(name, values, count)

    def unpack(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        if len(values) != len(camera_ids):
            raise ValueError("v_means2d, v_depths, v_conics, v_compensations: one row a couple.")
        full = values.new_zeros(batch.numel(), cameras, n, *values.shape[1:])
        full[batch_ids, camera_ids, gaussian_ids] = values
        return full.view(*batch, cameras, n, *values.shape[1:])

    radii: Any = unpack(torch.ones(len(camera_ids), 2, dtype=torch.int32))
    incoming = [unpack(v) for v in (v_means2d, v_depths, v_conics, v_compensations)]

    if sparse_grad and batch:
        raise NotImplementedError("sparse_grad: only without batch dimensions.")

    def back(cameras: slice):
        means2d, depths, conics, dimmed = (None if v is None else v[cameras] for v in incoming)
        return projection_ewa_3dgs_fused_bwd(
            means, covars, quats, scales, viewmats[cameras], Ks[cameras], width, height, eps2d,
            camera_model, radii[cameras], None, None, means2d, depths, conics, dimmed,
            viewmats_requires_grad,
        )  # fmt: skip

    if not sparse_grad:
        return back(slice(None))
    rows = []
    for c in range(cameras):
        *values, v_viewmat = back(slice(c, c + 1))
        ids = gaussian_ids[camera_ids == c]
        rows.append([None if v is None else v[ids] for v in values] + [v_viewmat])
    return tuple(None if v[0] is None else torch.cat(v) for v in zip(*rows, strict=True))


def _check_scene(
    means: Tensor,
    covars: Tensor | None,
    quats: Tensor | None,
    scales: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
) -> None:
    if means.ndim < 2 or viewmats.ndim < 3:
        raise ValueError("means, viewmats: expected [..., N, 3] and [..., C, 4, 4].")
    batch, n, cameras = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
    expect("means", means, *batch, n, 3)
    expect("viewmats", viewmats, *batch, cameras, 4, 4)
    expect("Ks", Ks, *batch, cameras, 3, 3)
    if covars is None and (quats is None or scales is None):
        raise ValueError("covars: either quats and scales are wanted, or covars.")
    expect("covars", covars, *batch, n, 6)
    expect("quats", quats, *batch, n, 4)
    expect("scales", scales, *batch, n, 3)


def _scenes(batch: torch.Size, tensors: Sequence[Tensor | None]) -> Iterator[tuple[Any, ...]]:
    """Walks over a batch, as the kernels take it."""
    flat = [
        None if x is None else x.reshape(batch.numel(), *x.shape[len(batch) :]) for x in tensors
    ]
    for b in range(batch.numel()):
        yield tuple(None if x is None else x[b].contiguous() for x in flat)


def _batched(batch: torch.Size, scenes: Sequence[tuple[Tensor | None, ...]]) -> tuple[Any, ...]:
    """Puts the results of the scenes together again."""
    if not batch:
        return scenes[0]
    together = []
    for values in zip(*scenes, strict=True):
        first = values[0]
        stacked = None if first is None else torch.stack(values).view(*batch, *first.shape)
        together.append(stacked)
    return tuple(together)
