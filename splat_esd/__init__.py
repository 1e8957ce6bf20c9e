"""Text to 3D Gaussian splats by entropic score distillation.

`Gaussians` and `Cameras` are reachable from here; `splat_esd.rasterize` is the subpackage whose
function of the same name draws the first as seen by the second.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

_HOMES = {"Gaussians": "splat_esd.gaussians", "Cameras": "splat_esd.cameras"}

__all__ = ["Cameras", "Gaussians", "rasterize"]


def __getattr__(name: str) -> Any:
    # Lazily, because torch takes seconds and `splat-esd --help` must not wait for it.
    if name == "__version__":
        return version("splat-esd")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
