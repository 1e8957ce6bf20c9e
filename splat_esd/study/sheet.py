"""All assets of a study in one picture: each from four sides."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splat_esd.export.images import render_turntable
from splat_esd.formats.atomic import replacing
from splat_esd.formats.read import open_splats
from splat_esd.runs.folder import RunFolder
from splat_esd.study.summary import Record

SHEET = "sheets.png"
_SIZE, _LABEL, _GAP, _SIDES = 96, 14, 8, 4  # pixels, pixels, pixels, views


def write_sheets(records: Sequence[Record], out: Path) -> Path | None:
    """Writes `out`/sheets.png of all finished runs, four views of each with prompt, method and
    seed above; returns its path, or None if no run is finished.
    """
    from PIL import Image, ImageDraw

    done = [record for record in records if record["status"] == "done"]
    if not done:
        return None
    width, height = _SIDES * _SIZE + _GAP, _SIZE + _LABEL + _GAP
    columns = math.ceil(math.sqrt(len(done) * height / width))
    rows = math.ceil(len(done) / columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for i, record in enumerate(done):
        left, top = i % columns * width, i // columns * height
        label = f"{record['prompt']}   {record['method']}   seed {record['seed']}"
        pen.text((left + 2, top), label, fill="black")
        pictures, _ = render_turntable(
            open_splats(RunFolder(out / record["folder"]).splat), _SIDES, size=_SIZE
        )
        strip = np.hstack(list(pictures.over_grey().numpy()))
        sheet.paste(Image.fromarray(strip), (left, top + _LABEL))
    with replacing(out / SHEET) as part:
        sheet.save(part, format="PNG", optimize=True)
    return out / SHEET
