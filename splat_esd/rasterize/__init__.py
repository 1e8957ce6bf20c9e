"""Renders Gaussians: one definition, several independent backends.

reference   plain PyTorch, slow: the definition
cpu         the C++ kernels
cuda        gsplat
"""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.cameras import Cameras
from splat_esd.errors import UsageError
from splat_esd.gaussians import Gaussians

__all__ = ["BACKENDS", "RenderOutput", "rasterize"]

BACKENDS = {
    "reference": "splat_esd.rasterize.reference",
    "cpu": "splat_esd.rasterize.cpu",
    "cuda": "splat_esd.rasterize.cuda",
}


@dataclass(frozen=True, eq=False)
class RenderOutput:
    """The images of B cameras.

    Arguments:
        rgb: Colours over the background [B, H, W, 3].
        alpha: How much of the background is hidden [B, H, W, 1].
        depth: Expected camera z, sum_i w_i z_i / alpha; 0 where alpha is 0 [B, H, W, 1].
        info: What gsplat's densification strategies read, in gsplat's names and shapes:
            width, height, n_cameras, radii (int32 [B, N, 2], 0 where culled), means2d [B, N, 2]
            (an intermediate of autograd: ask it to `retain_grad()`; with `absgrad` the backward
            pass leaves `.absgrad` on it), depths [B, N], conics [B, N, 3], opacities [B, N],
            gaussian_ids (None: nothing is packed).
    """

    rgb: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W 1"]
    depth: Float[Tensor, "B H W 1"]
    info: dict[str, Any] = field(repr=False)


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    background: Float[Tensor, "B 3"] | None = None,
    backend: str = "auto",
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    antialiased: bool = False,
    absgrad: bool = False,
) -> RenderOutput:
    """Blends front to back:  C = sum_i T_i alpha_i c_i + T b,  T_i+1 = T_i (1 - alpha_i).

    alpha_i = min(0.999, o_i exp(-sigma_i)) with sigma_i = d^T cov2d_i^-1 d / 2; what lies below
    1/255 is skipped, and a pixel is finished before its transmittance T falls to 1e-4. Gaussians
    that are not finite are not drawn. Gradients reach all five tensors and the background.

    Arguments:
        gaussians: N Gaussians.
        cameras: B cameras; no gradient reaches them.
        background: One colour per camera; black by default.
        backend: "auto" (gsplat for tensors on a GPU, else the C++ kernels) or a key of `BACKENDS`.
        near_plane, far_plane: Camera z outside of which nothing is drawn.
        eps2d: Added to the diagonal of the projected covariance, in pixels squared.
        antialiased: Dims splats that `eps2d` inflates:  o' = o sqrt(det cov2d / det (cov2d + eps)).
        absgrad: Whether the backward pass leaves  sum |dL/dmeans2d|  over pixels on means2d.
    Raises:
        ValueError: If shapes, dtypes or devices do not fit each other, or the planes are no range.
        UsageError: If there is no such backend, or it cannot draw these tensors.
        EnvironmentProblem: If the backend cannot run on this machine.
    References:
        3D Gaussian Splatting (Kerbl et al., 2023). https://arxiv.org/abs/2308.04079
        gsplat (Ye et al., 2024). https://arxiv.org/abs/2409.06765
        Mip-Splatting (Yu et al., 2023), for `antialiased`. https://arxiv.org/abs/2311.16493
    """
    if backend == "auto":
        backend = "cuda" if gaussians.device.type == "cuda" else "cpu"
    if backend not in BACKENDS:
        raise UsageError(f"backend must be one of auto, {', '.join(BACKENDS)}, got {backend!r}.")
    _check(gaussians, cameras, background)
    if not 0 < near_plane < far_plane:
        raise ValueError(
            f"near_plane must lie in (0, far_plane = {far_plane:g}), got {near_plane:g}."
        )
    return import_module(BACKENDS[backend]).render(
        gaussians,
        cameras,
        background=background,
        near_plane=near_plane,
        far_plane=far_plane,
        eps2d=eps2d,
        antialiased=antialiased,
        absgrad=absgrad,
    )


def _check(gaussians: Gaussians, cameras: Cameras, background: Float[Tensor, "..."] | None) -> None:
    gaussians.__post_init__()  # densification may have replaced tensors since
    seen: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "viewmats": (cameras.viewmats, (4, 4)),
        "Ks": (cameras.Ks, (3, 3)),
    }
    if background is not None:
        seen["background"] = (background, (3,))
    for name, (tensor, trailing) in seen.items():
        if tensor.shape != (len(cameras), *trailing):
            raise ValueError(
                f"{name}: expected shape [{', '.join(['B', *map(str, trailing)])}] with "
                f"B = {len(cameras)} cameras, got {list(tensor.shape)}."
            )
    tensors = gaussians.parameters() | {name: tensor for name, (tensor, _) in seen.items()}
    kind = (gaussians.means.dtype, gaussians.means.device)
    for name, tensor in tensors.items():
        if (tensor.dtype, tensor.device) != kind:
            raise ValueError(
                f"{name}: expected {kind[0]} on {kind[1]} (from means), "
                f"got {tensor.dtype} on {tensor.device}."
            )
    if kind[0] not in (torch.float32, torch.float64):
        raise ValueError(f"means: expected float32 or float64, got {kind[0]}.")
