"""Lets gsplat itself, unmodified, render and train on a machine without a GPU.

    from splat_esd.gsplat_cpu.install import install
    install()

    import gsplat
    gsplat.rasterization(...)

gsplat looks for its compiled kernels in a module `gsplat.csrc`; `install` puts this one there.
Its functions have the names, arguments and results of gsplat's C++ and run our own kernels, in
float32. `gsplat_cpu.rasterization` has the same arguments and is faster, because it does everything
in one call; this module is for programs that import gsplat themselves, strategies and all.
"""

import re
import sys
from importlib.util import find_spec
from typing import Any, NoReturn

import torch

from splat_esd.errors import EnvironmentProblem
from splat_esd.gsplat_cpu.pixels import (
    intersect_offset,
    intersect_tile,
    rasterize_to_pixels_3dgs_bwd,
    rasterize_to_pixels_3dgs_fwd,
)
from splat_esd.gsplat_cpu.projection import (
    FISHEYE,
    FTHETA,
    ORTHO,
    PINHOLE,
    projection_ewa_3dgs_fused_bwd,
    projection_ewa_3dgs_fused_fwd,
    projection_ewa_3dgs_packed_bwd,
    projection_ewa_3dgs_packed_fwd,
)
from splat_esd.gsplat_cpu.splats import (
    adam,
    quat_scale_to_covar_preci_bwd,
    quat_scale_to_covar_preci_fwd,
    relocation,
    spherical_harmonics_bwd,
    spherical_harmonics_fwd,
)
from splat_esd.rasterize import cpu

__all__ = [
    "FISHEYE",
    "FTHETA",
    "ORTHO",
    "PINHOLE",
    "CameraModelType",
    "adam",
    "install",
    "intersect_offset",
    "intersect_tile",
    "projection_ewa_3dgs_fused_bwd",
    "projection_ewa_3dgs_fused_fwd",
    "projection_ewa_3dgs_packed_bwd",
    "projection_ewa_3dgs_packed_fwd",
    "quat_scale_to_covar_preci_bwd",
    "quat_scale_to_covar_preci_fwd",
    "rasterize_to_pixels_3dgs_bwd",
    "rasterize_to_pixels_3dgs_fwd",
    "relocation",
    "spherical_harmonics_bwd",
    "spherical_harmonics_fwd",
]

_VERSIONS = re.compile(r"1\.5\.([3-9]|\d\d)")  # 1.5.2 passes other arguments
CameraModelType = None  # gsplat looks up "CameraModelType.PINHOLE" name by name, both in here


def install() -> None:
    """Puts our kernels where gsplat looks for its own; may be called again, before or after gsplat
    is imported.

    Raises:
        EnvironmentProblem: If gsplat is missing or not 1.5.3 or a later 1.5, or if it has kernels
            of its own here and a GPU to run them.
    """
    if find_spec("gsplat") is None:
        raise EnvironmentProblem("gsplat is not installed; run `pip install 'gsplat>=1.5.3,<1.6'`.")
    from gsplat.version import __version__

    if not _VERSIONS.match(__version__):
        raise EnvironmentProblem(
            f"these kernels speak the language of gsplat 1.5.3, and {__version__} is installed; "
            "run `pip install 'gsplat>=1.5.3,<1.6'`."
        )
    cpu.instruction_set()
    ours, backend = sys.modules[__name__], sys.modules.get("gsplat.cuda._backend")
    found = getattr(backend, "_C", None) or sys.modules.get("gsplat.csrc")
    if (found or find_spec("gsplat.csrc")) not in (None, ours) and torch.cuda.is_available():
        raise EnvironmentProblem(
            "gsplat has kernels of its own here, and a GPU for them; there is nothing to install."
        )
    sys.modules["gsplat.csrc"] = ours
    if backend is not None:
        vars(backend)["_C"] = ours


def __getattr__(name: str) -> Any:
    """Names what gsplat has and this has not, when gsplat asks for it."""
    if name.startswith("__"):
        raise AttributeError(name)

    def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"{name}: only gsplat on a GPU has it.")

    return refuse
