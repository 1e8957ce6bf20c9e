"""The rasteriser on a CPU: two functions of autograd around the C++ kernels.

Projection and blending are separate functions, so that `means2d` between them is a tensor of the
graph, whose gradient the densification strategies read. What the backward pass needs is kept in
tensors that it only reads: it may run twice, never, or not be wanted at all.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor
from torch.autograd.function import once_differentiable

from splat_esd.cameras import Cameras
from splat_esd.errors import EnvironmentProblem
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import RenderOutput

try:
    from splat_esd import _kernels
except ImportError as error:
    raise EnvironmentProblem(
        f"the C++ kernels of splat-esd cannot be loaded ({error}); install the package with "
        "`pip install .` where a C++17 compiler is at hand, or use rasterizer=reference."
    ) from error


_LARGE = 2**16  # numbers


def instruction_set() -> str:
    """Names the instructions that the kernels use here: avx512, avx2 or portable.

    The best that the processor has, unless the environment variable SPLAT_ESD_ISA names another.

    Raises:
        EnvironmentProblem: If that one is unknown or this processor lacks it.
    """
    try:
        return _kernels.instruction_set()
    except RuntimeError as error:
        raise EnvironmentProblem(str(error)) from error


def fma_rate(seconds: float = 0.2) -> float:
    """Measures what one thread multiplies and adds at best, in floating-point operations a second.

    Arguments:
        seconds: How long to measure.
    """
    instruction_set()
    return _kernels.fma_rate(seconds)


@dataclass(frozen=True)
class View:
    """What projection asks beside Gaussians and cameras; `rasterize` explains each.

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
    colors: Float[Tensor, "*M 3"] | None
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
    """Renders as `rasterize` says, on as many threads as torch uses.

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
    rgb, alpha, depth = blend(
        splats.means2d,
        splats.depths,
        splats.conics,
        splats.opacities,
        splats.colors,
        splats.factors,
        splats.radii,
        background,
        size=(cameras.width, cameras.height),
        absgrad=absgrad,
    )
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
        *_Project.apply(means, quats, scales, covars, opacities, sh, viewmats, Ks, view)
    )


def blend(
    means2d: Float[Tensor, "*M 2"],
    depths: Float[Tensor, " *M"],
    conics: Float[Tensor, "*M 3"],
    opacities: Float[Tensor, " *M"],
    colors: Float[Tensor, "*M D"],
    factors: Float[Tensor, "*M 4"],
    radii: Int32[Tensor, "*M 2"],
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
        cameras, n = depths.shape
        first = torch.arange(cameras + 1) * n
    return _Blend.apply(
        means2d, depths, conics, opacities, colors, background, factors, radii, first, size, absgrad
    )


def spherical_harmonics(
    degree: int, directions: Float[Tensor, "M 3"], sh: Float[Tensor, "M K 3"]
) -> Float[Tensor, "M 3"]:
    """Evaluates  sum_k Y_k(d / |d|) sh_k  for degrees 0 to 3; gradients reach both tensors."""
    return _Harmonics.apply(degree, directions, sh)


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
    return _kernels.intersect(
        _dense(means2d.reshape(-1, 2)), _dense(radii.reshape(-1, 2)), _dense(depths.reshape(-1)),
        first, tile_size, columns, rows, torch.get_num_threads(),
    )  # fmt: skip


class _Harmonics(torch.autograd.Function):
    """Colours from directions."""

    @staticmethod
    def forward(ctx: Any, degree, directions, sh):
        ctx.degree = degree
        ctx.save_for_backward(_dense(directions), _dense(sh))
        colors = torch.empty_like(directions, memory_format=torch.contiguous_format)
        _kernels.spherical_harmonics(degree, *ctx.to_save, None, colors, torch.get_num_threads())
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors):
        directions, sh = ctx.saved_tensors
        v_directions, v_sh = torch.empty_like(directions), torch.zeros_like(sh)
        _kernels.spherical_harmonics_backward(
            ctx.degree, directions, sh, None, _dense(v_colors), v_sh, v_directions,
            torch.get_num_threads(),
        )  # fmt: skip
        return None, v_directions, v_sh


class _Project(torch.autograd.Function):
    """Gaussians to ellipses on image planes."""

    @staticmethod
    def forward(ctx: Any, means, quats, scales, covars, opacities, sh, viewmats, Ks, view):
        inputs = [_dense(x) for x in (means, quats, scales, covars, opacities, sh, viewmats, Ks)]
        cameras, n = len(viewmats), len(means)
        shapes = {
            "means2d": (2,), "depths": (), "conics": (3,), "opacities": (), "colors": (3,),
            "factors": (4,),
        }  # fmt: skip
        if sh is None:
            shapes["colors"] = None
        outputs = [
            None if shape is None else _empty(cameras, n, *shape) for shape in shapes.values()
        ]
        radii = torch.empty(cameras, n, 2, dtype=torch.int32)
        ctx.view = (
            view.width, view.height, view.near_plane, view.far_plane, view.eps2d, view.antialiased,
            view.radius_clip,
        )  # fmt: skip
        _kernels.project(
            _kernels.Parameters(*inputs),
            _kernels.View(*ctx.view),
            *outputs,
            radii,
            torch.get_num_threads(),
        )
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(outputs[-1], radii)
        ctx.save_for_backward(*inputs, radii)
        return *outputs, radii

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_means2d, v_depths, v_conics, v_opacities, v_colors, *_):
        *inputs, radii = ctx.saved_tensors
        incoming = [_dense(v) for v in (v_means2d, v_depths, v_conics, v_opacities, v_colors)]
        gradients = [None if x is None else _empty(*x.shape) for x in inputs[:7]]
        if not ctx.needs_input_grad[6]:
            gradients[6] = None
        _kernels.project_backward(
            _kernels.Parameters(*inputs), _kernels.View(*ctx.view), radii, *incoming, *gradients,
            torch.get_num_threads(),
        )  # fmt: skip
        return *gradients, None, None


class _Blend(torch.autograd.Function):
    """Ellipses to images."""

    @staticmethod
    def forward(
        ctx: Any, means2d, depths, conics, opacities, colors, background, factors, radii, first,
        size, absgrad,
    ):  # fmt: skip
        width, height = size
        cameras, channels = len(first) - 1, colors.shape[-1]
        picture = _empty(cameras, height, width, channels)
        alpha = _empty(cameras, height, width, 1)
        depth = _empty(cameras, height, width, 1) if channels == 3 else None
        splats = [_dense(x) for x in (means2d, depths, colors, factors, radii, first)]
        plan = _kernels.blend(
            *splats, _dense(background), picture, alpha, depth, torch.get_num_threads()
        )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(means2d, conics, opacities, colors, picture, alpha, depth, *plan)
        ctx.absgrad = absgrad
        return picture, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_picture, v_alpha, v_depth):
        means2d, conics, opacities, colors, picture, alpha, depth, *plan = ctx.saved_tensors
        v_means2d, v_conics, v_opacities, v_colors = (
            _empty(*x.shape).zero_() for x in (means2d, conics, opacities, colors)
        )
        v_depths = None if depth is None else _empty(*opacities.shape).zero_()
        absolute = torch.zeros_like(v_means2d) if ctx.absgrad else None
        v_background = None
        if ctx.needs_input_grad[5]:
            v_background = means2d.new_empty(len(picture), picture.shape[-1])
        _kernels.blend_backward(
            *plan,
            *(_dense(x) for x in (conics, colors, opacities, picture, alpha, depth)),
            *(_dense(v) for v in (v_picture, v_alpha, v_depth)),
            v_means2d, v_conics, v_colors, v_opacities, v_depths, v_background, absolute,
            torch.get_num_threads(),
        )  # fmt: skip
        if absolute is not None:
            means2d.absgrad = absolute
        return (
            v_means2d, v_depths, v_conics, v_opacities, v_colors, v_background, *[None] * 5,
        )  # fmt: skip


def _empty(*shape: int) -> Tensor:
    """Returns a tensor of undefined content; a large one in pages used before."""
    return _kernels.empty(shape) if math.prod(shape) > _LARGE else torch.empty(shape)


def _dense(tensor: Tensor | None) -> Tensor | None:
    """Returns what the kernels can read: contiguous, and no longer part of a graph."""
    return None if tensor is None else tensor.detach().contiguous()
