"""The rasteriser on a CPU: two functions of autograd around the C++ kernels.

Projection and blending are separate functions, so that `means2d` between them is a tensor of the
graph, whose gradient the densification strategies read. What the backward pass needs is kept in
tensors that it only reads: it may run twice, never, or not be wanted at all.
"""

from typing import Any

import torch
from jaxtyping import Float
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
    means = gaussians.means
    if means.dtype != torch.float32 or means.device.type != "cpu":
        raise ValueError(
            f"means: the cpu rasteriser wants float32 on the cpu, got {means.dtype} on "
            f"{means.device}; convert the Gaussians and cameras, or use rasterizer=reference."
        )
    instruction_set()
    view = (cameras.width, cameras.height, near_plane, far_plane, eps2d, antialiased)
    means2d, depths, conics, opacities, colors, factors, radii = _Project.apply(
        means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.sh,
        cameras.viewmats,
        cameras.Ks,
        view,
    )
    rgb, alpha, depth = _Blend.apply(
        means2d,
        depths,
        conics,
        opacities,
        colors,
        background,
        factors,
        radii,
        (cameras.width, cameras.height),
        absgrad,
    )
    info = {
        "width": cameras.width,
        "height": cameras.height,
        "n_cameras": len(cameras),
        "radii": radii,
        "means2d": means2d,
        "depths": depths,
        "conics": conics,
        "opacities": opacities,
        "gaussian_ids": None,
    }
    return RenderOutput(rgb, alpha, depth, info)


class _Project(torch.autograd.Function):
    """Gaussians to ellipses on image planes."""

    @staticmethod
    def forward(ctx: Any, means, quats, scales, opacities, sh, viewmats, Ks, view):
        inputs = [_dense(x) for x in (means, quats, scales, opacities, sh, viewmats, Ks)]
        cameras, n = len(viewmats), len(means)
        shapes = {
            "means2d": (2,), "depths": (), "conics": (3,), "opacities": (), "colors": (3,),
            "factors": (4,),
        }  # fmt: skip
        outputs = [means.new_empty(cameras, n, *shape) for shape in shapes.values()]
        radii = torch.empty(cameras, n, 2, dtype=torch.int32)
        _kernels.project(
            _kernels.Parameters(*inputs),
            _kernels.View(*view),
            *outputs,
            radii,
            torch.get_num_threads(),
        )
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(outputs[-1], radii)
        ctx.save_for_backward(*inputs, radii)
        ctx.view = view
        return *outputs, radii

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_means2d, v_depths, v_conics, v_opacities, v_colors, *_):
        *inputs, radii = ctx.saved_tensors
        incoming = [_dense(v) for v in (v_means2d, v_depths, v_conics, v_opacities, v_colors)]
        gradients = [torch.empty_like(x) for x in inputs[:5]]
        _kernels.project_backward(
            _kernels.Parameters(*inputs), _kernels.View(*ctx.view), radii, *incoming, *gradients,
            torch.get_num_threads(),
        )  # fmt: skip
        return *gradients, None, None, None


class _Blend(torch.autograd.Function):
    """Ellipses to images."""

    @staticmethod
    def forward(
        ctx: Any, means2d, depths, conics, opacities, colors, background, factors, radii, size,
        absgrad,
    ):  # fmt: skip
        width, height = size
        cameras = len(means2d)
        rgb = means2d.new_empty(cameras, height, width, 3)
        alpha, depth = (means2d.new_empty(cameras, height, width, 1) for _ in range(2))
        splats = [_dense(x) for x in (means2d, depths, opacities, colors, factors)]
        plan = _kernels.blend(
            *splats, radii, _dense(background), rgb, alpha, depth, torch.get_num_threads()
        )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(means2d, conics, opacities, rgb, alpha, depth, *plan)
        ctx.absgrad = absgrad
        return rgb, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_rgb, v_alpha, v_depth):
        means2d, conics, opacities, rgb, alpha, depth, *plan = ctx.saved_tensors
        cameras, n = opacities.shape
        shapes = {"means2d": (2,), "depths": (), "conics": (3,), "opacities": (), "colors": (3,)}
        gradients = [means2d.new_zeros(cameras, n, *shape) for shape in shapes.values()]
        v_background = means2d.new_empty(cameras, 3)
        absolute = torch.zeros_like(gradients[0]) if ctx.absgrad else None
        _kernels.blend_backward(
            *plan, conics.detach(), opacities.detach(), rgb.detach(), alpha.detach(),
            depth.detach(), _dense(v_rgb), _dense(v_alpha), _dense(v_depth), *gradients,
            v_background, absolute, torch.get_num_threads(),
        )  # fmt: skip
        if absolute is not None:
            means2d.absgrad = absolute
        if not ctx.needs_input_grad[5]:
            v_background = None
        return *gradients, v_background, None, None, None, None


def _dense(tensor: Tensor | None) -> Tensor | None:
    """Returns what the kernels can read: contiguous, and no longer part of a graph."""
    return None if tensor is None else tensor.detach().contiguous()
