"""A splat as a textured mesh: made, measured, and written as GLB, OBJ and STL. trimesh's door."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from splat_esd.config.schema import MeshConfig
from splat_esd.errors import UsageError
from splat_esd.formats.atomic import replacing
from splat_esd.formats.frame import UNIT_BALL, Frame, frame_of_points, frame_of_splats, visible
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import up_rotation
from splat_esd.mesh import fidelity, surface, texture
from splat_esd.mesh.atlas import Unwrapped, unwrap
from splat_esd.mesh.decimate import decimate, is_closed
from splat_esd.mesh.views import around, render_views

POOR = 20.0  # decibels under which the mesh does not show what the splat shows
_FIRST_LOOK, _FIRST_VIEWS = 128, 24  # pixels, to find out where the object is
_CELLS = 0.64  # per square root of a triangle: twice as many triangles as are kept in the end
_COARSER = 0.8
_AROUND = 3.0  # radii: what floats farther away is not part of the mesh
_FEWEST_CELLS = 16


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A closed surface in the splat's world, its colours, and what there is to say about it.

    Arguments:
        surface: Points, triangles and texture coordinates.
        texture: sRGB, the first row at v = 0.
        facts: How like the splat it is, how it is built: what mesh.json holds.
        name: What the object is called in a program that opens it.
        unlit: Whether light leaves it as it is painted.
    """

    surface: Unwrapped
    texture: UInt8[ndarray, "S S 3"]
    facts: dict[str, object]
    name: str = "splat"
    unlit: bool = False


def make_mesh(gaussians: Gaussians, settings: MeshConfig) -> TexturedMesh:
    """Turns splats into a closed surface with a texture, and compares the two.

    Raises:
        UsageError: If there is nothing solid to be seen.
    """
    seen = visible(gaussians.detach())
    frame = frame_of_splats(seen)
    seen = frame.near(seen, _AROUND)
    first = render_views(frame.place(seen), around(_FIRST_VIEWS, size=_FIRST_LOOK))
    frame = frame_of_points(frame.to_world(surface.coarse_points(first)))
    placed = frame.place(seen)
    points, triangles, found = _surface(placed, settings)
    mesh = unwrap(points, triangles, size=settings.texture)
    views = render_views(placed, around(texture.VIEWS, size=texture.view_size(settings.texture)))
    colors, share = texture.bake(mesh, placed, views, size=settings.texture, steps=settings.sharpen)
    image = (255 * colors).round().astype(np.uint8)
    world = replace(mesh, points=frame.to_world(mesh.points))
    # Our own splats are looked at from where all their pictures are taken.
    stage = UNIT_BALL if UNIT_BALL.holds(frame) else frame
    shown = replace(mesh, points=stage.from_world(world.points))
    shots = render_views(stage.place(seen), fidelity.held_out())
    likeness = fidelity.compare(shown, image / np.float32(255), shots)
    facts = {
        **likeness,
        **_build(world),
        **found,
        "texture_size": settings.texture,
        "texels_seen": share,
    }
    return TexturedMesh(world, image, facts)


def write_meshes(
    gaussians: Gaussians,
    folder: Path,
    settings: MeshConfig,
    formats: Sequence[str],
    *,
    placement: Frame = UNIT_BALL,
    name: str = "splat",
) -> list[tuple[Path, str]]:
    """Makes a mesh and writes it in every format asked for, with what there is to say in mesh.json.

    Arguments:
        placement: Where the splats were before they were moved here; the mesh is put back there.
        name: What the object is called.
    Returns:
        Each file with what opens it.
    Raises:
        UsageError: If there is nothing solid to be seen.
        EnvironmentProblem: If the disk does not take a file.
    """
    mesh = make_mesh(gaussians, settings)
    if placement is not UNIT_BALL:
        points = placement.to_world(mesh.surface.points)
        mesh = replace(mesh, surface=replace(mesh.surface, points=points))
    mesh = replace(stood(mesh, settings), name=name)
    files = [(WRITERS[f][0](mesh, folder / f"mesh.{f}"), WRITERS[f][2]) for f in formats]
    axes = {form: WRITERS[form][1] for form in formats}
    report = folder / "mesh.json"
    units = "as asked by mesh.height" if settings.height else "the splat's own"
    facts = mesh.facts | {"units": f"{units}; ours lie in a ball of radius 1", "up": axes}
    with replacing(report) as part:
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return [*files, (report, summary(mesh.facts))]


def stood(mesh: TexturedMesh, settings: MeshConfig) -> TexturedMesh:
    """Gives a mesh the height and the origin that are asked for, and tells how it was moved:
    points = "scaled_by" times those in the splat's world, "moved_by" added. z is up here.
    """
    points, scale, shift = mesh.surface.points, 1.0, np.zeros(3)
    if settings.height is not None:
        scale = settings.height / np.ptp(points[:, 2])
        points = points * scale
    low, high = points.min(0), points.max(0)
    if settings.origin != "splat":
        shift = -(low + high) / 2
    if settings.origin == "feet":
        shift[2] = -low[2]
    if shift.any():
        points = points + shift
    surface = replace(mesh.surface, points=points)
    facts = mesh.facts if points is mesh.surface.points else mesh.facts | _build(surface)
    facts = facts | {"scaled_by": float(scale), "moved_by": shift.tolist()}
    return replace(mesh, surface=surface, facts=facts, unlit=settings.material == "unlit")


def summary(facts: Mapping[str, Any]) -> str:
    """Says in one line how good a mesh is: PSNR against the splat, and the rest."""
    poor = "warning: little like the splat, " if facts["psnr"] < POOR else ""
    closed = "watertight" if facts["watertight"] else "not watertight"
    return (
        f"{poor}{facts['psnr']:.1f} dB on {facts['views']} views, {closed}, "
        f"{facts['faces']} faces, pieces: {facts['components']}"
    )


def write_glb(mesh: TexturedMesh, path: Path) -> Path:
    """Writes one file of glTF 2.0: y up, the front towards +z, metallic 0, roughness 1, normals."""
    from PIL import Image
    from trimesh import Scene
    from trimesh.exchange.gltf import export_glb
    from trimesh.visual.material import PBRMaterial

    material = PBRMaterial(
        name=mesh.name,
        baseColorTexture=Image.fromarray(mesh.texture),
        baseColorFactor=[255, 255, 255, 255],
        metallicFactor=0.0,
        roughnessFactor=1.0,
    )

    def unlit(tree: dict[str, Any]) -> None:
        tree["materials"][0]["extensions"] = {"KHR_materials_unlit": {}}
        tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "KHR_materials_unlit"]

    scene = Scene({mesh.name: _turned(mesh, "y", material)})
    changed: dict[str, Any] = {"tree_postprocessor": unlit} if mesh.unlit else {}
    with replacing(path) as part:
        part.write_bytes(export_glb(scene, include_normals=True, **changed))
    return path


def read_glb(path: Path) -> tuple[Unwrapped, Float[ndarray, "S S 3"]]:
    """Reads what `write_glb` wrote: the surface in the splat's world, and its colours in [0, 1].

    Along the seams a point stands several times.
    """
    import trimesh

    mesh: Any = trimesh.load(path, force="mesh", process=False)
    points = np.asarray(mesh.vertices) @ up_rotation("y").double().numpy()
    uv = np.asarray(mesh.visual.uv) * (1, -1) + (0, 1)
    faces = np.asarray(mesh.faces)
    colors = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"), np.float32) / 255
    return Unwrapped(points, faces, np.arange(len(points)), uv, faces), colors


def write_obj(mesh: TexturedMesh, path: Path) -> Path:
    """Writes an OBJ, y up, the front towards +z, with its .mtl and .png beside it."""
    from PIL import Image
    from trimesh.exchange.obj import export_obj
    from trimesh.visual.material import SimpleMaterial

    white = [255, 255, 255, 255]
    image = Image.fromarray(mesh.texture)
    material = SimpleMaterial(
        image=image, name=path.stem, diffuse=white, ambient=white, specular=[0, 0, 0, 255]
    )
    text, others = export_obj(
        _turned(mesh, "y", material),
        include_normals=True,
        return_texture=True,
        mtl_name=f"{path.stem}.mtl",
    )
    with ExitStack() as together:  # none of the three takes its name before all are written
        for name, data in {**others, path.name: text.encode()}.items():
            together.enter_context(replacing(path.with_name(name))).write_bytes(data)
    return path


def write_stl(mesh: TexturedMesh, path: Path) -> Path:
    """Writes a binary STL, z up, the front towards +x: the shape alone, for printing."""
    from trimesh import Trimesh
    from trimesh.exchange.stl import export_stl

    shape = Trimesh(mesh.surface.points, mesh.surface.triangles, process=False)
    with replacing(path) as part:
        part.write_bytes(export_stl(shape))
    return path


WRITERS = {
    "glb": (write_glb, "y", "3D programs, game engines, browsers"),
    "obj": (write_obj, "y", "3D programs; with mesh.mtl and mesh.png"),
    "stl": (write_stl, "z", "programs for 3D printers; no colours"),
}


def _surface(
    placed: Gaussians, settings: MeshConfig
) -> tuple[Float[ndarray, "P 3"], ndarray, dict[str, float | int]]:
    """Returns the surface in at most so many triangles, closed if that is asked for."""
    views = render_views(placed, around(surface.VIEWS, size=surface.VIEW_SIZE))
    cells = max(_FEWEST_CELLS, round(_CELLS * settings.faces**0.5))
    while cells >= _FEWEST_CELLS:
        points, triangles, found = surface.extract(views, cells=cells)
        fewer = decimate(points, triangles, faces=settings.faces, watertight=settings.watertight)
        if fewer is not None:
            return *fewer, found
        cells = int(_COARSER * cells)
    raise UsageError(
        f"no closed surface of {settings.faces} faces can be made of this; "
        "try a larger mesh.faces, or mesh.watertight=false."
    )


def _turned(mesh: TexturedMesh, up: str, material: Any):
    """Returns trimesh's mesh, turned upright; its v points up."""
    from trimesh import Trimesh
    from trimesh.visual import TextureVisuals

    turn = up_rotation(up).double().numpy()
    return Trimesh(
        vertices=mesh.surface.vertices @ turn.T,
        faces=mesh.surface.faces,
        vertex_normals=mesh.surface.normals @ turn.T,
        visual=TextureVisuals(uv=mesh.surface.uv * (1, -1) + (0, 1), material=material),
        process=False,
    )


def _build(mesh: Unwrapped) -> dict[str, object]:
    """Counts and measures: what a mesh is, apart from its colours."""
    from trimesh import Trimesh

    shape = Trimesh(mesh.points, mesh.triangles, process=False)
    return {
        "watertight": is_closed(mesh.points, mesh.triangles),
        "manifold": bool(shape.is_watertight and shape.is_winding_consistent),
        "components": int(shape.body_count),
        "faces": len(mesh.triangles),
        "vertices": len(mesh.points),
        "volume": float(shape.volume),
        "extents": [float(side) for side in shape.extents],
    }
