"""The files of one splat under one set of settings: what a run ends with and `export` writes."""

import math
from pathlib import Path

from splat_esd.config.schema import ExportConfig, MeshConfig
from splat_esd.errors import UsageError
from splat_esd.export.images import render_turntable
from splat_esd.export.page import Result, viewing_distance, with_final, write_page
from splat_esd.export.turntable import write_sheet, write_turntable
from splat_esd.formats.gltf import write_gltf
from splat_esd.formats.ply import SPLAT, write_ply
from splat_esd.formats.splat import write_splat
from splat_esd.formats.spz import write_spz
from splat_esd.gaussians import Gaussians
from splat_esd.mesh.textured import WRITERS as MESH_WRITERS
from splat_esd.mesh.textured import write_meshes

SHEET_VIEWS = 8
TURN_SECONDS = 4


def write_files(
    gaussians: Gaussians,
    folder: Path,
    settings: ExportConfig,
    mesh: MeshConfig,
    about: Result | None = None,
) -> list[tuple[Path, str]]:
    """Writes the files that `settings.formats` asks for: splat.ply, turntable.mp4, ...

    Arguments:
        about: What viewer.html tells beside the splats.
    Returns:
        Each file with what opens it, in the order asked for, meshes last.
    Raises:
        UsageError: If there are no splats.
        UsageError: If a mesh is asked for and the splats have no surface; the rest is written.
        EnvironmentProblem: If the disk does not take a file.
    """
    if not len(gaussians):
        raise UsageError("there are no splats to export.")
    folder.mkdir(parents=True, exist_ok=True)
    written, gaussians = [], gaussians.detach()
    names = dict.fromkeys(settings.formats)
    for name in names:
        if name in _WRITERS:
            written += _WRITERS[name](gaussians, folder, settings)
        elif name == "viewer":
            written += _viewer(gaussians, folder, about or Result("splats"))
    if meshes := [name for name in names if name in MESH_WRITERS]:
        written += write_meshes(gaussians, folder, mesh, meshes)
    return written


def _ply(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    path = write_ply(gaussians, folder / SPLAT, up=settings.up, full=settings.full_ply)
    return [(path, "any splat viewer, such as SuperSplat (superspl.at/editor)")]


def _splat(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    path = write_splat(gaussians, folder / "splat.splat", up=settings.up)
    return [(path, "viewers for the web, such as gsplat.js")]


def _spz(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    path = write_spz(gaussians, folder / "splat.spz")
    return [(path, "Spark (sparkjs.dev), Scaniverse, SuperSplat; the smallest")]


def _gltf(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    path = write_gltf(gaussians, folder / "splat.glb")
    return [(path, "programs with KHR_gaussian_splatting, such as PlayCanvas")]


def _turntable(
    gaussians: Gaussians, folder: Path, settings: ExportConfig
) -> list[tuple[Path, str]]:
    pictures, _ = render_turntable(gaussians, settings.frames, size=settings.size)
    frames = pictures.rgba if settings.transparent else pictures.over_white()
    film, animation = write_turntable(frames, folder / "turntable", _fps(settings))
    return [(film, "a video player"), (animation, "a browser")]


def _strip(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    pictures, _ = render_turntable(gaussians, settings.frames, size=settings.size)
    film, animation = write_turntable(pictures.strips(), folder / "strip", _fps(settings))
    return [(film, "a video player: colour, depth, alpha"), (animation, "a browser")]


def _fps(settings: ExportConfig) -> int:
    return max(1, round(settings.frames / TURN_SECONDS))


def _sheet(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    pictures, cameras = render_turntable(gaussians, SHEET_VIEWS, size=settings.size)
    images = pictures.rgba if settings.transparent else pictures.over_white()
    labels = [f"{math.degrees(azimuth):.0f}\N{DEGREE SIGN}" for azimuth in cameras.azimuth.tolist()]
    return [(write_sheet(images, folder / "sheet.png", labels), "an image viewer")]


def _viewer(gaussians: Gaussians, folder: Path, about: Result) -> list[tuple[Path, str]]:
    path = write_page(
        [with_final(about, gaussians)],
        folder / "viewer.html",
        title=about.title,
        distance=viewing_distance(gaussians),
    )
    return [(path, "a browser; turn it with the mouse")]


_WRITERS = {
    "ply": _ply,
    "splat": _splat,
    "spz": _spz,
    "gltf": _gltf,
    "turntable": _turntable,
    "strip": _strip,
    "sheet": _sheet,
}
