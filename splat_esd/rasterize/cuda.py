"""The rasteriser on a GPU: gsplat, behind our signature."""

import sys
import warnings

import torch
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
    packed: bool = False,
) -> RenderOutput:
    """Renders as `rasterize` says, by gsplat.rasterization.

    Arguments:
        packed: gsplat's sparse layout of what is visible. Not the default: gsplat 1.5.3 asserts
            when it meets backgrounds, which we then blend ourselves.
    Raises:
        EnvironmentProblem: If there is no CUDA GPU here, or gsplat cannot build its kernels.
    """
    _require_kernels(gaussians)
    options = {
        "near_plane": near_plane,
        "far_plane": far_plane,
        "eps2d": eps2d,
        "rasterize_mode": "antialiased" if antialiased else "classic",
        "absgrad": absgrad,
        "packed": packed,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gsplat looks for a CUDA toolkit and says so
        import gsplat
    try:
        colors, alpha, info = gsplat.rasterization(
            means=gaussians.means,
            quats=gaussians.quats,
            scales=gaussians.scales,
            opacities=gaussians.opacities,
            colors=gaussians.sh,
            viewmats=cameras.viewmats,
            Ks=cameras.Ks,
            width=cameras.width,
            height=cameras.height,
            sh_degree=gaussians.sh_degree,
            backgrounds=None if packed else background,
            render_mode="RGB+ED",
            **options,
        )
    except ImportError as error:
        raise EnvironmentProblem(_no_build(error)) from error
    rgb, depth = colors[..., :3], colors[..., 3:]
    if packed and background is not None:
        rgb = rgb + (1.0 - alpha) * background[:, None, None, :]
    return RenderOutput(rgb, alpha, depth, info)


def _require_kernels(gaussians: Gaussians) -> None:
    """Refuses at once what gsplat would refuse after minutes of trying to build."""
    if "gsplat.csrc" in sys.modules or gaussians.device.type == "cuda":
        return
    found = "it is there" if torch.cuda.is_available() else "PyTorch sees none"
    raise EnvironmentProblem(
        f"rasterizer=cuda draws Gaussians on a CUDA GPU ({found}), and these are on the "
        f"{gaussians.device.type}; use device=cuda, or rasterizer=cpu."
    )


def _no_build(error: ImportError) -> str:
    reason = (str(error) or "no reason given").splitlines()[0]
    return (
        f"gsplat cannot build its CUDA kernels ({reason}); install a CUDA toolkit (nvcc) that fits "
        "PyTorch's, or a prebuilt gsplat wheel, or use device=cpu."
    )
