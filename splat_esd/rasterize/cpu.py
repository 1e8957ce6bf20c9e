"""The rasteriser on a CPU: projection, then blending, by the C++ kernels.

They are separate, so that `means2d` between them is a tensor of the graph, whose gradient the
densification strategies read.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from splat_esd.cameras import Cameras
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import RenderOutput
from splat_esd.rasterize.autograd import Blend, Harmonics, Project, dense, instruction_set, kernels


def fma_rate(seconds: float = 0.2) -> float:
    """Measures one thread's peak fused multiply-add rate, in floating-point operations a second.

    Arguments:
        seconds: How long to measure.
    """
    instruction_set()
    return kernels.fma_rate(seconds)


@dataclass(frozen=True)
class View:
    """The options of projection; `rasterize` documents each.

    Arguments:
        radius_clip: Splats whose radius is at most this, in pixels and along both axes, are culled.
    """

    width: int
    height: int
    near_plane: float
    far_plane: float
    eps2d: float
    antialiased: bool = False
    radius_clip: float = 0.0


class Projected(NamedTuple):
    """N Gaussians on the image planes of C cameras [C, N, ...], zero where culled; or packed.

    `factors` holds the ellipses as the blending reads them, and carries no gradient.
    """

    means2d: Float[Tensor, "*M 2"]
    depths: Float[Tensor, " *M"]
    conics: Float[Tensor, "*M 3"]
    opacities: Float[Tensor, " *M"]
    colors: Float[Tensor, "*M D"] | None
    factors: Float[Tensor, "*M 4"]
    radii: Int32[Tensor, "*M 2"]


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
    """Renders as `rasterize` defines, on as many threads as torch uses.

    Images and gradients are the same, bit for bit, for any number of threads.

    Raises:
        ValueError: If the tensors are not float32 on the CPU.
        EnvironmentProblem: If SPLAT_ESD_ISA asks for what this processor lacks.
    """
    splats = project(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.sh,
        cameras.viewmats,
        cameras.Ks,
        View(cameras.width, cameras.height, near_plane, far_plane, eps2d, antialiased),
    )
    size = (cameras.width, cameras.height)
    rgb, alpha, depth = blend(splats, background, size=size, absgrad=absgrad)
    info = {
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
    if depth is None:
        raise ValueError("gaussians.sh: expected coefficients of 3 channels.")
    return RenderOutput(rgb, alpha, depth, info)


def project(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"] | None,
    scales: Float[Tensor, "N 3"] | None,
    opacities: Float[Tensor, " N"],
    sh: Float[Tensor, "N K 3"] | None,
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    view: View,
    *,
    covars: Float[Tensor, "N 6"] | None = None,
) -> Projected:
    """Projects Gaussians into cameras; kernels/README.md has the equations.

    Gradients reach everything but Ks. Opacities come back dimmed if the view is antialiased.

    Arguments:
        quats, scales: May both be None if `covars` is given.
        sh: None if no colours are wanted.
        covars: xx, xy, xz, yy, yz, zz of the covariances.
    Raises:
        ValueError: If the tensors are not float32 on the CPU.
        EnvironmentProblem: If SPLAT_ESD_ISA asks for what this processor lacks.
    """
    if means.dtype != torch.float32 or means.device.type != "cpu":
        raise ValueError(
            f"means: the cpu rasteriser wants float32 on the cpu, got {means.dtype} on "
            f"{means.device}; convert the Gaussians and cameras, or use rasterizer=reference."
        )
    instruction_set()
    return Projected(
        *Project.apply(means, quats, scales, covars, opacities, sh, viewmats, Ks, view)
    )


def blend(
    splats: Projected,
    background: Float[Tensor, "C D"] | None,
    *,
    size: tuple[int, int],
    absgrad: bool = False,
    first: Int[Tensor, " first"] | None = None,
) -> tuple[Float[Tensor, "C H W D"], Float[Tensor, "C H W 1"], Float[Tensor, "C H W 1"] | None]:
    """Blends projected Gaussians into images: colours of D channels, alpha, and the mean depth.

    The depth is there for three channels only, else None. Gradients reach means2d, conics,
    opacities, colors, the background, and with three channels depths.

    Arguments:
        size: Width and height.
        absgrad: Whether the backward pass leaves  sum |dL/dmeans2d|  over pixels on means2d.
        first: Where each camera's Gaussians begin, if the arrays are not [C, N, ...] but packed.
    """
    if first is None:
        cameras, n = splats.depths.shape
        first = torch.arange(cameras + 1) * n
    *ellipses, factors, radii = splats
    return Blend.apply(*ellipses, background, factors, radii, first, size, absgrad)


def spherical_harmonics(
    degree: int, directions: Float[Tensor, "M 3"], sh: Float[Tensor, "M K 3"]
) -> Float[Tensor, "M 3"]:
    """Evaluates  sum_k Y_k(d / |d|) sh_k  for degrees 0 to 3; gradients reach both tensors."""
    return Harmonics.apply(degree, directions, sh)


def intersect(
    means2d: Float[Tensor, "*M 2"],
    radii: Int32[Tensor, "*M 2"],
    depths: Float[Tensor, " *M"],
    first: Int[Tensor, " first"],
    *,
    tile_size: int,
    columns: int,
    rows: int,
) -> tuple[Int32[Tensor, " M"], Int[Tensor, " P"], Int32[Tensor, " P"]]:
    """Lists which splats touch which tiles, nearest first, in gsplat's form.

    Returns:
        How many tiles each splat touches; keys (camera, tile, depth bits), ascending; and whose
        they are, counted through all cameras.
    """
    instruction_set()
    return kernels.intersect(
        dense(means2d.reshape(-1, 2)), dense(radii.reshape(-1, 2)), dense(depths.reshape(-1)),
        first, tile_size, columns, rows, torch.get_num_threads(),
    )  # fmt: skip
