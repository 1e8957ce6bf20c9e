"""All assets of a study in one picture: each from four sides, and, of a few, all turning."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splat_esd.export.images import GROUND, portrait_cameras, portrait_frame, render_turntable
from splat_esd.export.turntable import write_animation
from splat_esd.formats.atomic import replacing
from splat_esd.formats.read import open_splats
from splat_esd.mesh.fidelity import draw
from splat_esd.mesh.textured import read_glb
from splat_esd.runs.folder import RunFolder
from splat_esd.study.summary import Record

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

SHEET, TURNING, MESH = "sheets.png", "turning.webp", "mesh.glb"
_SIZE, _LABEL, _GAP, _SIDES = 96, 28, 8, 4  # pixels, pixels, pixels, views
_LETTERS = (12, 7)  # pixels: the size of letters, at most and at least
_WIDE, _FRAMES, _FPS, _FEW = 160, 36, 12, 24  # pixels, frames, a second, assets


def write_sheets(records: Sequence[Record], out: Path) -> Path | None:
    """Writes `out`/sheets.png of all finished runs, four views of each with prompt, method and
    seed above, and turning.webp, where there are few enough to look at; returns the first's path,
    or None if no run is finished.
    """
    done = [record for record in records if record["status"] == "done"]
    if not done:
        return None
    width, height = _SIDES * _SIZE + _GAP, _SIZE + _LABEL + _GAP
    columns = math.ceil(math.sqrt(len(done) * height / width))
    strips = [np.hstack(list(_turned(record, out, _SIDES, _SIZE))) for record in done]
    sheet = _tiled(strips, [_label(record) for record in done], columns)
    with replacing(out / SHEET) as part:
        sheet.save(part, format="PNG", optimize=True)
    if len(done) <= _FEW:
        _write_turning(done, out)
    return out / SHEET


def _write_turning(done: Sequence[Record], out: Path) -> None:
    """Writes `out`/turning.webp: one turn of all assets side by side, each with its mesh, where
    its folder holds one.
    """
    all_alike = len({record["method"] for record in done}) == 1
    labels, turns = [], []
    for record in done:
        labels.append(_label(record, all_alike=all_alike))
        turns.append(_turned(record, out, _FRAMES, _WIDE))
        for mesh in _meshes(out / record["folder"]):
            labels.append(f"{record['prompt']}\nits mesh")
            turns.append(_mesh_turned(record, mesh, out, _FRAMES, _WIDE))
    wide = min(len(turns), math.ceil(math.sqrt(1.5 * len(turns))))
    columns = wide + 1 if len(turns) % wide and len(turns) % (wide + 1) == 0 else wide  # no hole
    frames = [np.asarray(_tiled(views, labels, columns)) for views in zip(*turns, strict=True)]
    write_animation(np.stack(frames), out / TURNING, _FPS)


def _turned(record: Record, out: Path, views: int, size: int) -> np.ndarray:
    """Renders a turn of a run's asset over grey: uint8 [views, size, size, 3]."""
    splats = open_splats(RunFolder(out / record["folder"]).splat)
    return render_turntable(splats, views, size=size)[0].over_grey().numpy()


def _meshes(folder: Path) -> list[Path]:
    """Returns the mesh of a run, made with it or by `export` later; none where there is none, or
    nothing beside it tells how it stands.
    """
    found = (folder / "export" / MESH, folder / MESH)
    return [path for path in found if path.is_file() and path.with_suffix(".json").is_file()][:1]


def _mesh_turned(record: Record, path: Path, out: Path, views: int, size: int) -> np.ndarray:
    """Draws a turn of a run's mesh as `_turned` draws its splat."""
    frame = portrait_frame(open_splats(RunFolder(out / record["folder"]).splat))
    mesh, texture = read_glb(path)
    facts = json.loads(path.with_suffix(".json").read_text("utf-8"))
    points = (mesh.points - np.array(facts.get("moved_by", 0.0))) / facts.get("scaled_by", 1.0)
    mesh = replace(mesh, points=frame.from_world(points))
    cameras = portrait_cameras(views, size)
    turn = [draw(mesh, texture, cameras, i, ground=GROUND / 255) for i in range(views)]
    return np.rint(255 * np.stack(turn)).astype(np.uint8)


def _label(record: Record, *, all_alike: bool = False) -> str:
    method = "" if all_alike else f"{record['method']}   "
    return f"{record['prompt']}\n{method}seed {record['seed']}"


def _tiled(pictures: Sequence[np.ndarray], labels: Sequence[str], columns: int) -> "Image":
    """Lays pictures of one size out in rows, each under its label."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = (side + _GAP for side in pictures[0].shape[:2])
    height += _LABEL
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    fonts = [ImageFont.load_default(size) for size in range(_LETTERS[0], _LETTERS[1] - 1, -1)]
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left, top = i % columns * width, i // columns * height
        font = next((f for f in fonts if _wide(pen, label, f) <= width - _GAP), fonts[-1])
        pen.text((left + 2, top), label, fill="black", font=font, spacing=2)
        sheet.paste(Image.fromarray(picture), (left, top + _LABEL))
    return sheet


def _wide(pen: "ImageDraw", label: str, font: "FreeTypeFont | ImageFont") -> float:
    return float(pen.multiline_textbbox((0, 0), label, font=font)[2])
