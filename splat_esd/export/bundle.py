"""The files of one splat under one set of settings: what a run ends with and `export` writes."""

import math
from dataclasses import replace
from pathlib import Path

from splat_esd.config.schema import ExportConfig, MeshConfig
from splat_esd.console import busy, warn
from splat_esd.errors import UsageError
from splat_esd.export.images import render_turntable
from splat_esd.export.page import Result, with_final, write_page
from splat_esd.export.turntable import write_sheet, write_turntable
from splat_esd.formats.compressed_ply import write_compressed
from splat_esd.formats.find import SPLAT
from splat_esd.formats.frame import UNIT_BALL, Frame
from splat_esd.formats.gltf import write_gltf
from splat_esd.formats.ply import write_ply
from splat_esd.formats.precision import losses
from splat_esd.formats.read import put_back
from splat_esd.formats.splat import write_splat
from splat_esd.formats.spz import write_spz
from splat_esd.formats.usd import write_usd
from splat_esd.gaussians import Gaussians
from splat_esd.mesh.textured import WRITERS as MESH_WRITERS
from splat_esd.mesh.textured import write_meshes

SHEET_VIEWS = 8
FILES = {
    "ply": SPLAT,
    "compressed": "splat.compressed.ply",
    "splat": "splat.splat",
    "spz": "splat.spz",
    "gltf": "splat.glb",
    "usda": "splat.usda",
}
TURN_SECONDS = 4


def write_files(
    gaussians: Gaussians,
    folder: Path,
    settings: ExportConfig,
    mesh: MeshConfig,
    about: Result | None = None,
    *,
    placement: Frame = UNIT_BALL,
    in_place: bool = False,
) -> list[tuple[Path, str]]:
    """Writes the files that `settings.formats` asks for: splat.ply, turntable.mp4, ...

    Arguments:
        about: What viewer.html and the sheet tell beside the splats.
        placement: Where the splats were before they were moved here.
        in_place: Put them back there in every file; else splat.ply's header remembers it.
    Returns:
        Each file with what opens it, in the order asked for, the PLY first and meshes last.
    Raises:
        UsageError: If there are no splats.
        UsageError: If a mesh is asked for and the splats have no surface; the rest is written.
        EnvironmentProblem: If the disk does not take a file.
    """
    if not len(gaussians):
        raise UsageError("there are no splats to export.")
    folder.mkdir(parents=True, exist_ok=True)
    written, gaussians = [], gaussians.detach()
    stored = put_back(gaussians, placement) if in_place else gaussians
    # The splats first: they are what took long, and all else can be made from them.
    names = sorted(dict.fromkeys(settings.formats), key=lambda name: name != "ply")
    meshes = [name for name in names if name in MESH_WRITERS]
    for name in (name for name in names if name not in meshes):
        for line in losses(stored, name) if name in FILES else ():
            warn(line)
        with busy(f"writing {name}"):
            if name == "ply":
                written += _ply(stored, folder, settings, None if in_place else placement)
            elif name in _TELLING:
                written += _TELLING[name](gaussians, folder, settings, about or Result("splats"))
            else:
                shown = stored if name in FILES else gaussians
                written += _WRITERS[name](shown, folder, settings)
    if meshes:
        where = placement if in_place else UNIT_BALL
        with busy(f"making the mesh: {', '.join(meshes)}"):
            told = about.facts.get("prompt") if about else None
            written += write_meshes(
                gaussians, folder, mesh, meshes, placement=where, name=told or "splat"
            )
    return written


def refuse_source(source: Path, folder: Path, settings: ExportConfig) -> None:
    """Makes sure that no file that is asked for is the one that is read.

    Raises:
        UsageError: If one is.
    """
    for name in settings.formats:
        target = folder / FILES.get(name, "")
        if target.exists() and target.samefile(source):
            raise UsageError(
                f"out: {target} is the file that is read and would be overwritten; choose another "
                "out=."
            )


def _ply(
    gaussians: Gaussians, folder: Path, settings: ExportConfig, placement: Frame | None
) -> list[tuple[Path, str]]:
    ball = None
    if placement is not None and placement is not UNIT_BALL:
        x, y, z = placement.center.tolist()
        ball = (x, y, z, placement.radius)
    path = write_ply(
        gaussians, folder / SPLAT, up=settings.up, full=settings.full_ply, placement=ball
    )
    return [(path, "splat viewers, such as superspl.at/editor")]


def _splat(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    path = write_splat(gaussians, folder / FILES["splat"], up=settings.up)
    return [(path, "viewers for the web, such as gsplat.js")]


def _spz(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    path = write_spz(gaussians, folder / FILES["spz"], version=settings.spz_version)
    readers = {3: "Spark (sparkjs.dev), Scaniverse, SuperSplat; the smallest", 4: "PlayCanvas"}
    return [(path, readers[settings.spz_version])]


def _gltf(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    path = write_gltf(gaussians, folder / FILES["gltf"])
    return [(path, "programs with KHR_gaussian_splatting, such as PlayCanvas")]


def _usda(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    path = write_usd(gaussians, folder / FILES["usda"])
    return [(path, "programs with OpenUSD 26.03 or later, such as Omniverse")]


def _compressed(
    gaussians: Gaussians, folder: Path, settings: ExportConfig
) -> list[tuple[Path, str]]:
    path = write_compressed(gaussians, folder / FILES["compressed"], up=settings.up)
    return [(path, "SuperSplat, PlayCanvas, Spark; a quarter of the PLY")]


def _turntable(
    gaussians: Gaussians, folder: Path, settings: ExportConfig
) -> list[tuple[Path, str]]:
    pictures, _ = render_turntable(gaussians, settings.frames, size=settings.size)
    frames = pictures.rgba if settings.transparent else pictures.over_grey()
    film, animation = write_turntable(frames, folder / "turntable", _fps(settings))
    return [(film, "a video player"), (animation, "a browser")]


def _strip(gaussians: Gaussians, folder: Path, settings: ExportConfig) -> list[tuple[Path, str]]:
    pictures, _ = render_turntable(gaussians, settings.frames, size=settings.size)
    film, animation = write_turntable(pictures.strips(), folder / "strip", _fps(settings))
    return [(film, "a video player: colour, depth, alpha"), (animation, "a browser")]


def _fps(settings: ExportConfig) -> int:
    return max(1, round(settings.frames / TURN_SECONDS))


def _sheet(
    gaussians: Gaussians, folder: Path, settings: ExportConfig, about: Result
) -> list[tuple[Path, str]]:
    pictures, cameras = render_turntable(gaussians, SHEET_VIEWS, size=settings.size // 2)
    images = pictures.rgba if settings.transparent else pictures.over_grey()
    labels = [f"{math.degrees(azimuth):.0f}\N{DEGREE SIGN}" for azimuth in cameras.azimuth.tolist()]
    path = write_sheet(images, folder / "sheet.png", labels, columns=4, title=about.title)
    return [(path, "an image viewer")]


def _viewer(
    gaussians: Gaussians, folder: Path, settings: ExportConfig, about: Result
) -> list[tuple[Path, str]]:
    beside = [_BESIDE[name] for name in dict.fromkeys(settings.formats) if name in _BESIDE]
    about = replace(with_final(about, gaussians), files=beside)
    path = write_page([about], folder / "viewer.html", title=about.title)
    return [(path, "a browser; everything is inside")]


_WRITERS = {
    "compressed": _compressed,
    "usda": _usda,
    "splat": _splat,
    "spz": _spz,
    "gltf": _gltf,
    "turntable": _turntable,
    "strip": _strip,
}
# Those that also say what is shown.
_TELLING = {"sheet": _sheet, "viewer": _viewer}
# What a page's reader may want of what lies beside it.
_BESIDE = FILES | {
    "glb": "mesh.glb",
    "obj": "mesh.obj",
    "stl": "mesh.stl",
    "turntable": "turntable.mp4",
    "strip": "strip.mp4",
    "sheet": "sheet.png",
}
