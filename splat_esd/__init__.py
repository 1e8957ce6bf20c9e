"""Text to 3D Gaussian splats by entropic score distillation.

`generate` makes an `Asset` and `load` reads one. `Gaussians` and `Cameras` are reachable from here;
`splat_esd.rasterize` is the subpackage whose function of the same name draws the first as seen by
the second.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splat_esd.asset import Asset as Asset
    from splat_esd.asset import generate as generate
    from splat_esd.asset import load as load
    from splat_esd.cameras import Cameras as Cameras
    from splat_esd.gaussians import Gaussians as Gaussians
    from splat_esd.rasterize import rasterize as rasterize

_HOMES = {
    "Asset": "splat_esd.asset",
    "Cameras": "splat_esd.cameras",
    "Gaussians": "splat_esd.gaussians",
    "generate": "splat_esd.asset",
    "load": "splat_esd.asset",
}

__all__ = ["Asset", "Cameras", "Gaussians", "generate", "load", "rasterize"]


def __getattr__(name: str) -> Any:
    # Lazily, because torch takes seconds and `splat-esd --help` must not wait for it.
    if name == "__version__":
        return version("splat-esd")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
