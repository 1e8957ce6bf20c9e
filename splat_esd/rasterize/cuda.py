"""The rasteriser on a GPU: gsplat, behind our signature."""

import subprocess
import sys
from contextlib import redirect_stdout
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from splat_esd.cameras import Cameras
from splat_esd.errors import EnvironmentProblem
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import RenderOutput


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
    """Renders as `rasterize` defines, by gsplat.rasterization.

    In `info`, what belongs to a culled Gaussian (radii 0) is undefined, as gsplat leaves it.

    Raises:
        ValueError: If the tensors are not float32 on a CUDA GPU.
        EnvironmentProblem: If there is no CUDA GPU here, or gsplat cannot build its kernels.
    References:
        gsplat (Ye et al., 2024). https://arxiv.org/abs/2409.06765
    """
    _require_gpu(gaussians.means)
    _load_kernels()
    return _draw(
        gaussians,
        cameras,
        background=background,
        antialiased=antialiased,
        # The object fills the frame and hardly a splat is ever culled: nothing would be saved.
        packed=False,
        near_plane=near_plane,
        far_plane=far_plane,
        eps2d=eps2d,
        absgrad=absgrad,
    )


def _draw(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    background: Float[Tensor, "B 3"] | None,
    antialiased: bool,
    packed: bool,
    **options: Any,
) -> RenderOutput:
    """Calls gsplat, packed or not, and converts its result."""
    import gsplat

    means, quats, scales, opacities, sh = _drawable(gaussians)
    images, alpha, info = gsplat.rasterization(
        means=means,
        quats=quats,
        scales=scales,
        opacities=opacities,
        colors=sh,
        viewmats=cameras.viewmats,
        Ks=cameras.Ks,
        width=cameras.width,
        height=cameras.height,
        sh_degree=gaussians.sh_degree,
        render_mode="RGB+ED",
        rasterize_mode="antialiased" if antialiased else "classic",
        packed=packed,
        **options,
    )
    rgb, depth = images.split([3, 1], dim=-1)
    if background is not None:
        # Not by gsplat, whose version 1.5.3 refuses backgrounds in the packed layout.
        rgb = rgb + (1 - alpha) * background[:, None, None]
    return RenderOutput(rgb, alpha, depth, info)


def _drawable(gaussians: Gaussians) -> list[Tensor]:
    """Activates the parameters, and hides the non-finite ones, on which gsplat's kernels crash.

    NaN and infinity would spread over the picture, no Gaussians at all would divide by zero and
    end the process; both become splats of opacity 0. Zero quaternions become no rotation.
    """
    values = [
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.sh,
    ]
    if not len(gaussians):
        values = [F.pad(v, (0, 0) * (v.ndim - 1) + (0, 1)) for v in values]
    finite = torch.stack([v.isfinite().reshape(len(v), -1).all(1) for v in values]).all(0)
    values = [torch.where(finite.view(-1, *[1] * (v.ndim - 1)), v, 0) for v in values]
    turned = values[1].any(dim=1, keepdim=True)
    values[1] = torch.where(turned, values[1], values[1].new_tensor([1, 0, 0, 0]))
    return values


def _require_gpu(means: Float[Tensor, "N 3"]) -> None:
    if not torch.cuda.is_available():
        raise EnvironmentProblem(
            "the cuda rasteriser needs a CUDA GPU, and PyTorch sees none here; "
            "use rasterizer=cpu, and `splat-esd doctor` says more."
        )
    if means.dtype != torch.float32 or means.device.type != "cuda":
        raise ValueError(
            f"means: the cuda rasteriser wants float32 on a CUDA GPU, got {means.dtype} on "
            f"{means.device}; convert the Gaussians and cameras, or use rasterizer=reference."
        )


def _load_kernels() -> None:
    """Loads gsplat's kernels, or builds them: minutes, the first time.

    Raises:
        EnvironmentProblem: If it can do neither.
    """
    try:
        with redirect_stdout(sys.stderr):  # gsplat says that it builds; our output is data
            from gsplat.cuda._backend import _C  # pyright: ignore[reportAttributeAccessIssue]
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise EnvironmentProblem(_no_kernels(str(error))) from error
    if _C is None:
        raise EnvironmentProblem(_no_kernels("it finds no CUDA toolkit"))


def _no_kernels(reason: str) -> str:
    first_line = (reason or "no reason given").splitlines()[0]
    return (
        f"gsplat has no CUDA kernels and cannot build them ({first_line}); install a CUDA toolkit "
        "(nvcc) that fits PyTorch's, or a prebuilt gsplat wheel, or use device=cpu."
    )
