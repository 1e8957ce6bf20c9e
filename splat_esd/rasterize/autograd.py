"""The C++ kernels as autograd functions.

A backward pass only reads the tensors it saved, so it may run once, twice or never.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from splat_esd.errors import EnvironmentProblem

try:
    from splat_esd import _kernels as kernels  # pyright: ignore[reportMissingModuleSource]
except ImportError as error:
    raise EnvironmentProblem(
        f"the C++ kernels of splat-esd cannot be loaded ({error}); install the package with "
        "`pip install .` where a C++17 compiler is at hand, or use rasterizer=reference."
    ) from error

_LARGE = 2**16  # numbers


def instruction_set() -> str:
    """Returns the instruction set that the kernels use here: avx512, avx2 or portable.

    The best that the processor has, unless the environment variable SPLAT_ESD_ISA names another.

    Raises:
        EnvironmentProblem: If that one is unknown or this processor lacks it.
    """
    try:
        return kernels.instruction_set()
    except RuntimeError as error:
        raise EnvironmentProblem(str(error)) from error


class Harmonics(torch.autograd.Function):
    """Colours from viewing directions (spherical harmonics)."""

    @staticmethod
    def forward(ctx: Any, degree: int, directions: Tensor, sh: Tensor):
        ctx.degree = degree
        ctx.save_for_backward(dense(directions), dense(sh))
        colors = torch.empty_like(directions, memory_format=torch.contiguous_format)
        kernels.spherical_harmonics(degree, *ctx.to_save, None, colors, torch.get_num_threads())
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors: Tensor | None):
        directions, sh = ctx.saved_tensors
        v_directions, v_sh = torch.empty_like(directions), torch.zeros_like(sh)
        kernels.spherical_harmonics_backward(
            ctx.degree, directions, sh, None, dense(v_colors), v_sh, v_directions,
            torch.get_num_threads(),
        )  # fmt: skip
        return None, v_directions, v_sh


class Project(torch.autograd.Function):
    """Projection of Gaussians to ellipses on image planes."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor | None,
        scales: Tensor | None,
        covars: Tensor | None,
        opacities: Tensor | None,
        sh: Tensor | None,
        viewmats: Tensor,
        Ks: Tensor,
        view: Any,
    ):
        inputs = [dense(x) for x in (means, quats, scales, covars, opacities, sh, viewmats, Ks)]
        cameras, n = len(viewmats), len(means)
        shapes = {
            "means2d": (2,), "depths": (), "conics": (3,), "opacities": (), "colors": (3,),
            "factors": (4,),
        }  # fmt: skip
        if sh is None:
            shapes["colors"] = None
        outputs = [
            None if shape is None else empty(cameras, n, *shape) for shape in shapes.values()
        ]
        radii = torch.empty(cameras, n, 2, dtype=torch.int32)
        ctx.view = (
            view.width, view.height, view.near_plane, view.far_plane, view.eps2d, view.antialiased,
            view.radius_clip,
        )  # fmt: skip
        kernels.project(
            kernels.Parameters(*inputs),
            kernels.View(*ctx.view),
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
    def backward(
        ctx: Any,
        v_means2d: Tensor | None,
        v_depths: Tensor | None,
        v_conics: Tensor | None,
        v_opacities: Tensor | None,
        v_colors: Tensor | None,
        *_: Tensor | None,
    ):
        *inputs, radii = ctx.saved_tensors
        incoming = [dense(v) for v in (v_means2d, v_depths, v_conics, v_opacities, v_colors)]
        gradients = [None if x is None else empty(*x.shape) for x in inputs[:7]]
        if not ctx.needs_input_grad[6]:
            gradients[6] = None
        kernels.project_backward(
            kernels.Parameters(*inputs), kernels.View(*ctx.view), radii, *incoming, *gradients,
            torch.get_num_threads(),
        )  # fmt: skip
        return *gradients, None, None


class Blend(torch.autograd.Function):
    """Blending of ellipses into images."""

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        depths: Tensor,
        conics: Tensor,
        opacities: Tensor,
        colors: Tensor,
        background: Tensor | None,
        factors: Tensor | None,
        radii: Tensor,
        first: Tensor,
        size: tuple[int, int],
        absgrad: bool,
    ):
        width, height = size
        cameras, channels = len(first) - 1, colors.shape[-1]
        picture = empty(cameras, height, width, channels)
        alpha = empty(cameras, height, width, 1)
        depth = empty(cameras, height, width, 1) if channels == 3 else None
        splats = [dense(x) for x in (means2d, depths, colors, factors, radii, first)]
        ctx.plan = kernels.blend(
            *splats, dense(background), picture, alpha, depth, torch.get_num_threads()
        )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(means2d, conics, opacities, colors, picture, alpha, depth)
        ctx.absgrad = absgrad
        return picture, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, v_picture: Tensor | None, v_alpha: Tensor | None, v_depth: Tensor | None
    ):
        means2d, conics, opacities, colors, picture, alpha, depth = ctx.saved_tensors
        v_means2d, v_conics, v_opacities, v_colors = (
            empty(*x.shape).zero_() for x in (means2d, conics, opacities, colors)
        )
        v_depths = None if depth is None else empty(*opacities.shape).zero_()
        absolute = torch.zeros_like(v_means2d) if ctx.absgrad else None
        v_background = None
        if ctx.needs_input_grad[5]:
            v_background = means2d.new_empty(len(picture), picture.shape[-1])
        kernels.blend_backward(
            ctx.plan,
            *(dense(x) for x in (conics, colors, opacities, picture, alpha, depth)),
            *(dense(v) for v in (v_picture, v_alpha, v_depth)),
            v_means2d, v_conics, v_colors, v_opacities, v_depths, v_background, absolute,
            torch.get_num_threads(),
        )  # fmt: skip
        if absolute is not None:
            means2d.absgrad = absolute
        return (
            v_means2d, v_depths, v_conics, v_opacities, v_colors, v_background, *[None] * 5,
        )  # fmt: skip


def empty(*shape: int) -> Tensor:
    """Returns an uninitialised tensor; large ones reuse pages."""
    return kernels.empty(shape) if math.prod(shape) > _LARGE else torch.empty(shape)


def dense(tensor: Tensor | None) -> Tensor | None:
    """Returns the tensor contiguous and detached, as the kernels read it."""
    return None if tensor is None else tensor.detach().contiguous()
