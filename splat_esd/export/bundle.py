"""The files of one splat under one set of settings: what a run ends with and `export` writes."""

import math
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from splat_esd.cameras import Cameras, turntable
from splat_esd.config import ExportConfig
from splat_esd.export.ply import write_ply
from splat_esd.export.turntable import write_sheet, write_turntable
from splat_esd.export.viewer import write_viewer
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import rasterize

ELEVATION = math.radians(15)
FOVY = math.radians(45)
DISTANCE = 2.8  # a ball of radius 1 just fits at 45 degrees: 1 / sin(22.5 deg) = 2.61
SHEET_VIEWS = 8
TURN_SECONDS = 4


def write_files(
    gaussians: Gaussians, folder: Path, settings: ExportConfig
) -> list[tuple[Path, str]]:
    """Writes splat.ply, turntable.mp4/.webp, sheet.png, viewer.html, as `settings.formats` asks.

    Returns:
        Each file with what opens it, in the order asked for.
    Raises:
        ValueError: If there are no splats.
        EnvironmentProblem: If the disk does not take a file.
    """
    if not len(gaussians):
        raise ValueError("there are no splats to export.")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in dict.fromkeys(settings.formats):
        written += _WRITERS[name](gaussians.detach(), folder, settings)
    return written


def take_pictures(
    gaussians: Gaussians, count: int, *, size: int
) -> tuple[UInt8[Tensor, "T H W 3"], Cameras]:
    """Renders views on a circle, the first from the front, over white; a large splat from afar."""
    reach = torch.quantile(gaussians.means.norm(dim=1)[:1_000_000], 0.99).item()
    cameras = turntable(
        count,
        elevation=ELEVATION,
        distance=DISTANCE * max(1.0, reach),
        fovy=FOVY,
        width=size,
        height=size,
    ).to(gaussians.device)
    white = torch.ones(1, 3, device=gaussians.device)
    frames = []
    with torch.no_grad():
        for i in range(count):
            rgb = rasterize(gaussians, cameras[i], background=white).rgb[0]
            frames.append((rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu())
    return torch.stack(frames), cameras


def _ply(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    path = write_ply(gaussians, folder / "splat.ply", up=settings.up)
    return [(path, "any splat viewer, such as SuperSplat (superspl.at/editor)")]


def _turntable(
    gaussians: Gaussians, folder: Path, settings: ExportConfig
) -> list[tuple[Path, str]]:
    frames, _ = take_pictures(gaussians, settings.frames, size=settings.size)
    fps = max(1, round(settings.frames / TURN_SECONDS))
    film, animation = write_turntable(frames, folder / "turntable", fps)
    return [(film, "a video player"), (animation, "a browser")]


def _sheet(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    images, cameras = take_pictures(gaussians, SHEET_VIEWS, size=settings.size)
    labels = [f"{math.degrees(azimuth):.0f}\N{DEGREE SIGN}" for azimuth in cameras.azimuth.tolist()]
    return [(write_sheet(images, folder / "sheet.png", labels), "an image viewer")]


def _viewer(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    return [(write_viewer(gaussians, folder / "viewer.html"), "a browser; turn it with the mouse")]


_WRITERS = {"ply": _ply, "turntable": _turntable, "sheet": _sheet, "viewer": _viewer}
