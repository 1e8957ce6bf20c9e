"""How the prior's training went: its losses, and what it drew on the way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

CAPTIONS = (
    "a corgi",
    "a red panda wearing a blue top hat",
    "a green car",
    "an owl wearing glasses",
    "a blue elephant",
    "a rabbit with a yellow scarf, back view",
    "a white robot wearing a crown",
    "a cactus wearing a purple bow tie",
)
_POINTS = 60  # of each curve
_LABEL = 14  # pixels above a row


def sample(out: Path, minutes: int) -> None:
    """Lets the prior in `out` draw CAPTIONS, each always from the same noise, into one row:
    work/samples/<minutes>.png.
    """
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    pipeline: Any = StableDiffusionPipeline.from_pretrained(out, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        list(CAPTIONS),
        num_inference_steps=20,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    folder = out / "work" / "samples"
    folder.mkdir(exist_ok=True)
    row = Image.fromarray(np.rint(255 * np.hstack(list(images))).astype(np.uint8))
    row.save(folder / f"{minutes:04d}.png")


def write_history(out: Path) -> None:
    """Writes training.json, the curves of both models, and training.png, all rows of `sample`."""
    curves = {name: _curve(out / "work" / f"{name}.jsonl") for name in ("vae", "unet")}
    lines = [f"  {json.dumps(name)}: {json.dumps(curve)}" for name, curve in curves.items()]
    (out / "training.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    _stack(sorted((out / "work" / "samples").glob("*.png")), out / "training.png")


def _curve(path: Path) -> dict[str, list[float | int]]:
    """Returns the log's columns, means of neighbouring lines where there are more than _POINTS."""
    text = path.read_text("utf-8") if path.exists() else ""  # a run of a minute has logged nothing
    lines = [json.loads(line) for line in text.splitlines()]
    groups = np.array_split(np.arange(len(lines)), min(_POINTS, len(lines)) or 1)
    groups = [group for group in groups if len(group)]
    last = {key: [lines[g[-1]][key] for g in groups] for key in ("step", "minutes")}
    means = [round(float(np.mean([lines[i]["loss"] for i in g])), 5) for g in groups]
    return last | {"loss": means}


def _stack(rows: list[Path], path: Path) -> None:
    from PIL import Image, ImageDraw

    pictures = []
    for row in rows:
        with Image.open(row) as image:
            pictures.append(image.resize((image.width // 2, image.height // 2)))
    height = pictures[0].height + _LABEL
    sheet = Image.new("RGB", (pictures[0].width, height * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (row, picture) in enumerate(zip(rows, pictures, strict=True)):
        pen.text((2, i * height + 1), f"after {int(row.stem)} minutes", fill="black")
        sheet.paste(picture, (0, i * height + _LABEL))
    sheet.save(path, optimize=True)
