"""Reads what a run can start from besides splats: point clouds in the usual forms, and meshes."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from splat_esd.errors import UsageError
from splat_esd.formats.columns import by_range, colors_of, normalised
from splat_esd.formats.gltf_read import glb_document, has_gltf_splats
from splat_esd.formats.ply import open_ply, up_of

TEXTS = (".xyz", ".txt", ".csv", ".asc", ".pts", ".xyzrgb", ".xyzn")
MESHES = (".obj", ".glb", ".gltf", ".stl", ".off")
_FORMS = ".ply, .npy, .npz (Point-E), .obj, .glb, .stl, COLMAP's points3D or text (.xyz .csv .pts)"
_SEED = 0
_MOST_LINES = 20  # of a header


@dataclass
class RawPoints:
    """Points in the file's own axes.

    Arguments:
        points: [N, 3].
        colors: RGB in [0, 1] [N, 3], or None.
        up: The axis that the file, or its format, says is up; "" for our own, z.
        notes: What was assumed, dropped or cut: one line each.
    """

    points: Float[ndarray, "N 3"]
    colors: Float[ndarray, "N 3"] | None = None
    up: str = ""
    notes: list[str] = field(default_factory=list)


def read_raw_points(path: Path, *, count: int) -> RawPoints:
    """Reads points; a mesh gives `count` points spread evenly over its surface.

    Raises:
        UsageError: If the file cannot be read as points.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}.")
    suffix = path.suffix.lower()
    try:
        raw = _read(path, suffix, count)
    except UsageError:
        raise
    except Exception as error:  # whatever a damaged file makes of numpy, zip, trimesh and python
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} cannot be read as points: {said}") from error
    finite = np.asarray(np.isfinite(raw.points).all(axis=1))
    if not finite.any():
        raise UsageError(f"{path} holds no points with finite coordinates.")
    if not finite.all():
        bad = len(finite) - int(finite.sum())
        raw.notes.append(f"{bad} of {len(finite)} points held NaN or infinity and were dropped.")
        raw.points = raw.points[finite]
        raw.colors = None if raw.colors is None else raw.colors[finite]
    return raw


def _read(path: Path, suffix: str, count: int) -> RawPoints:
    if suffix == ".ply":
        return _ply(path, count)
    if suffix in (".npy", ".npz"):
        return _arrays(path)
    if path.name.lower() == "points3d.bin":
        return _colmap_binary(path)
    if suffix in MESHES:
        return _mesh(path, suffix, count)
    if suffix not in TEXTS:
        raise UsageError(f"{path}: expected points as {_FORMS}.")
    return _text(path)


def _ply(path: Path, count: int) -> RawPoints:
    ply = open_ply(path)
    rows = ply["vertex"].data
    found = normalised([name for name in rows.dtype.names if rows.dtype[name].kind in "fiu"])
    if not {"xyz_0", "xyz_1", "xyz_2"} <= set(found):
        names = " ".join(rows.dtype.names)
        raise UsageError(f"{path}: expected vertices with x y z, got {names}.")
    points = np.stack([rows[found[f"xyz_{i}"]].astype(np.float64) for i in range(3)], axis=1)
    colors, said = colors_of(rows, found)
    up = up_of(path, ply.comments)
    return RawPoints(points, colors, "" if up == "ours" else up, [said] if said else [])


def _arrays(path: Path) -> RawPoints:
    data = np.load(path)
    if isinstance(data, np.ndarray):
        return _table(path, data, [])
    names = {name.lower(): name for name in data.files}
    place = next((names[n] for n in ("coords", "points", "xyz", "vertices") if n in names), None)
    if place is None:
        raise ValueError(f"expected coords or points in it, got {', '.join(data.files)}")
    points, notes = data[place], []
    colors = None
    if {"r", "g", "b"} <= set(names):
        colors, said = by_range(np.stack([data[names[n]] for n in "rgb"], 1).astype(np.float32))
        notes += [said] if said else []
    elif "colors" in names:
        colors, said = by_range(data[names["colors"]][:, :3].astype(np.float32))
        notes += [said] if said else []
    return RawPoints(np.ascontiguousarray(points[:, :3], np.float64), colors, "", notes)


def _text(path: Path) -> RawPoints:
    """Reads a table: numbers apart by blanks, commas or semicolons, maybe under a header."""
    text = path.read_bytes()
    lines = text.decode("utf-8-sig" if text[:3] == b"\xef\xbb\xbf" else "latin-1").splitlines()
    kept = [(i, line) for i, line in enumerate(lines[:_MOST_LINES]) if line.strip()]
    names: list[str] = []
    start = 0
    for i, line in kept:
        words = _words(line)
        if all(map(_is_number, words)):
            if len(words) > 1:  # a lone number is a count, as .pts begins with
                break
        elif not re.match(r"\s*(//|#)?.*\bx\b", line.lower()) and line.strip()[0] not in "#/":
            raise ValueError(f"line {i + 1} holds no numbers: {line.strip()[:60]!r}")
        else:
            names = [word.lower() for word in _words(line.strip().lstrip("/#"))]
        start = i + 1
    rows = [_words(line) for line in lines[start:] if line.strip() and line.strip()[0] not in "#/"]
    colmap = path.name.lower() == "points3d.txt" or "point3d_id" in names
    width = 7 if colmap else min(map(len, rows), default=0)
    table = np.array([[float(word) for word in row[:width]] for row in rows], np.float64)
    if colmap:
        return RawPoints(table[:, 1:4], (table[:, 4:7] / 255).astype(np.float32), "-y")
    return _table(path, table, names[:width])


def _table(path: Path, table: ndarray, names: list[str]) -> RawPoints:
    """Takes columns by name, else x y z and what follows by its range: colours or normals."""
    if table.ndim != 2 or table.shape[1] < 3 or table.shape[1] in (5,):
        raise UsageError(f"{path}: expected points [N, 3] or [N, 6], got {list(table.shape)}.")
    table = table.astype(np.float64)
    found = normalised(names)
    if {"xyz_0", "xyz_1", "xyz_2"} <= set(found) and len(names) == table.shape[1]:
        columns = {name: table[:, names.index(name)] for name in found.values()}
        points = np.stack([columns[found[f"xyz_{i}"]] for i in range(3)], axis=1)
        colors, said = colors_of(columns, found)
        return RawPoints(points, colors, "", [said] if said else [])
    points, rest = table[:, :3], table[:, 3:]
    if rest.shape[1] in (0, 1):
        return RawPoints(points, notes=["the fourth column was dropped."] * rest.shape[1])
    start = rest.shape[1] - 3 if rest.shape[1] == 4 and rest[:, 1:].max() > 1 else 0  # intensity
    for first in (start, 3):
        block = rest[:, first : first + 3].astype(np.float32)
        if block.shape[1] == 3 and not _are_normals(block):
            colors, said = by_range(block)
            return RawPoints(points, colors, "", [said] if said else [])
    return RawPoints(points, notes=["columns 4 to 6 are normals and were dropped."])


def _are_normals(block: Float[ndarray, "N 3"]) -> bool:
    length = np.linalg.norm(block, axis=1)
    return bool(block.min() < 0 or (len(block) > 3 and np.abs(length - 1).max() < 0.01))


def _colmap_binary(path: Path) -> RawPoints:
    data = path.read_bytes()
    count = int(np.frombuffer(data, "<u8", 1)[0])
    if count > len(data) // 43:
        raise ValueError(f"{len(data)} bytes do not hold {count} points")
    points, colors, at = np.empty((count, 3)), np.empty((count, 3), np.float32), 8
    for i in range(count):
        points[i] = np.frombuffer(data, "<f8", 3, at + 8)
        colors[i] = np.frombuffer(data, np.uint8, 3, at + 32)
        at += 51 + 8 * int(np.frombuffer(data, "<u8", 1, at + 43)[0])
    return RawPoints(points, colors / 255, "-y")


def _mesh(path: Path, suffix: str, count: int) -> RawPoints:
    import trimesh

    if suffix == ".glb" and path.read_bytes()[:4] == b"glTF":
        if has_gltf_splats(glb_document(path.read_bytes(), path)[0]):
            raise UsageError(f"{path} holds splats; start from it by init=ply.")
    try:
        mesh: Any = trimesh.load(path, force="mesh")
    except Exception as error:  # trimesh lets through whatever its parsers raise
        raise ValueError(f"{error}") from error
    if not len(getattr(mesh, "faces", ())) or not mesh.area > 0:
        points = np.asarray(getattr(mesh, "vertices", np.zeros((0, 3))), np.float64)
        if not len(points):
            raise ValueError("it has no faces and no points")
        return RawPoints(points, None, "z" if suffix == ".stl" else "y", ["it has no faces."])
    color = mesh.visual.kind is not None
    points, _, *rest = trimesh.sample.sample_surface(mesh, count, sample_color=color, seed=_SEED)
    colors = np.asarray(rest[0])[:, :3].astype(np.float32) / 255 if rest else None
    up = "z" if suffix == ".stl" else "y"
    notes = [f"{count} points on its surface, taken as {up} up."]
    return RawPoints(np.asarray(points, np.float64), colors, up, notes)


def _words(line: str) -> list[str]:
    return [word for word in re.split(r"[\s,;]+", line.strip()) if word]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
