"""The prior examined by the judge: what a stock pipeline draws for captions seen and unseen."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splat_esd.config.commands import ZooExamArguments
from splat_esd.diffusion.adapters import fuse_loras
from splat_esd.diffusion.families import FAMILIES
from splat_esd.diffusion.prompts import SIDE
from splat_esd.errors import UsageError
from splat_esd.paths import ASSETS
from splat_esd.zoo.judge.network import CLASSES, Judge, Verdict, labels
from splat_esd.zoo.prior.dataset import (
    ALL_AROUND,
    Bias,
    Photos,
    compose,
    plan,
    sample_composition,
)
from splat_esd.zoo.prior.models import SIZE
from splat_esd.zoo.world.captions import Composition, is_held_out

NAMED = ("object", "color", "accessory")  # what has to be right
# How often captions ask for a colour and for something worn: more often than those of the training.
ASKED = {(False, False): 0.25, (True, False): 0.2, (False, True): 0.25, (True, True): 0.3}
DIAL = "all-sides"  # a LoRA beside the prior, taught on photos from all sides alike
STRENGTHS = (0.25, 0.5, 0.75, 1.0)  # of it
SECTORS = 12  # of the circle, in histograms of azimuth; the first is centred on the front
FROM_THE_FRONT = Bias(front=1.0)
_FRONTLESS = 0.5  # less sharpness than this and a picture tells no azimuth
Draw = Callable[[str], Tensor]
Look = Callable[[Tensor], Verdict]
_FRONT, _BACK = math.radians(45.0), math.radians(135.0)


def main(settings: ZooExamArguments) -> None:
    """Examines a prior and writes exam.json and samples.png."""
    torch.set_num_threads(settings.threads)
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    draw, judge = open_pipeline(settings), Judge.load()
    report: dict = {"settings": {"steps": settings.steps, "scale": settings.scale}}
    rows, turns = [], []
    for kind in ("seen", "held_out"):
        chosen = choose(settings.captions, held_out=kind == "held_out", seed=settings.seed)
        pictures = [draw(c.caption()) for c in chosen]
        verdicts = [judge(p) for p in pictures]
        report[kind] = grade(chosen, verdicts)
        fronts = [judge(draw(f"{c.caption()}, front view")) for c in chosen]
        report[kind]["all_from_the_front"] = grade(chosen, fronts)["all"]
        report[kind]["all_in_true_photos"] = {
            where: grade(chosen, [judge(p) for p in photograph(chosen, settings.samples, bias)])[
                "all"
            ]
            for where, bias in (("around", ALL_AROUND), ("front", FROM_THE_FRONT))
        }
        rows += list(zip(chosen, pictures, strict=True))[:8]
        turns += verdicts if kind == "seen" else []
    report["azimuth"] = {
        "samples": sectors(_azimuths(turns)),
        "training": sectors(torch.from_numpy(plan(4000, bias=ALL_AROUND).azimuth).float()),
    }
    if ((settings.prior or ASSETS / "zoo") / f"{DIAL}.safetensors").is_file():
        report[DIAL] = {str(s): dialled(settings, judge, s) for s in STRENGTHS}
    report["views"] = obeyed(draw, judge, settings.captions // 2)
    (out / "exam.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_sheet(rows, out / "samples.png")


def open_pipeline(settings: ZooExamArguments, loras: tuple[str, ...] = ()) -> Draw:
    """Returns a function that draws `samples` pictures [B, S, S, 3] in [0, 1] of a caption, by
    diffusers' own pipeline.

    Arguments:
        loras: FILE[:weight] each, fused into the weights.
    Raises:
        UsageError: If the folder holds no pipeline.
    """
    from diffusers import StableDiffusionPipeline

    folder = settings.prior or ASSETS / "zoo"
    if not (folder / "model_index.json").is_file():
        raise UsageError(f"prior: {folder} has no model_index.json; train it first.")
    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    fuse_loras(loras, folder, FAMILIES[None], pipeline.unet, [pipeline.text_encoder])
    generator = torch.Generator().manual_seed(settings.seed)

    def draw(caption: str) -> Tensor:
        images = pipeline(
            caption,
            num_images_per_prompt=settings.samples,
            num_inference_steps=settings.steps,
            guidance_scale=settings.scale,
            generator=generator,
            output_type="np",
        ).images
        return torch.from_numpy(images)

    return draw


def photograph(
    compositions: Sequence[Composition], count: int, bias: Bias
) -> list[Float[Tensor, "B S S 3"]]:
    """Takes `count` true photos of each composition, in [0, 1]: what the judge makes of these is
    the most that a prior can reach.
    """
    shots = plan(len(compositions) * count, seed=1, bias=bias)
    shots = replace(shots, compositions=[c for c in compositions for _ in range(count)])
    photos = Photos(shots.render(SIZE), shots)
    x = compose(photos, torch.arange(len(photos)), torch.Generator().manual_seed(1))
    return list((0.5 + 0.5 * x).permute(0, 2, 3, 1).split(count))


def dialled(settings: ZooExamArguments, judge: Look, strength: float) -> dict[str, Any]:
    """Returns what that much of the LoRA `DIAL` changes: how the samples are turned, by sectors,
    how many are right, and how far words for the view are obeyed.
    """
    draw = open_pipeline(settings, (f"{DIAL}:{strength}",))
    chosen = choose(settings.captions, held_out=False, seed=settings.seed)
    verdicts = [judge(draw(c.caption())) for c in chosen]
    return {
        "azimuth": sectors(_azimuths(verdicts)),
        "all": grade(chosen, verdicts)["all"],
        "views": obeyed(draw, judge, settings.captions // 2),
    }


def _azimuths(verdicts: Sequence[Verdict]) -> Float[Tensor, " N"]:
    return torch.cat([v.azimuth[v.sharpness > _FRONTLESS] for v in verdicts])


def choose(count: int, *, held_out: bool, seed: int) -> list[Composition]:
    """Draws different compositions, of each kind as often as ASKED says; those held out ask for a
    colour or for something worn, since nothing else is held out.
    """
    rng = np.random.default_rng(seed)
    chosen: dict[Composition, None] = {}
    while len(chosen) < count:
        made = sample_composition(rng, held_out=True, kinds=ASKED)
        if is_held_out(made) == held_out:
            chosen[made] = None
    return list(chosen)


def grade(compositions: Sequence[Composition], verdicts: Sequence[Verdict]) -> dict:
    """Returns the share of samples judged right in each respect and in all of NAMED, and the
    captions of which fewer than half are.
    """
    right = [_right(c, v) for c, v in zip(compositions, verdicts, strict=True)]
    marks: dict[str, Any] = {name: _share(torch.cat([r[name] for r in right])) for name in CLASSES}
    together = [torch.stack([r[name] for name in NAMED]).all(0) for r in right]
    marks["all"] = _share(torch.cat(together))
    marks["failed"] = [
        c.caption()
        for c, flags in zip(compositions, together, strict=True)
        if flags.float().mean() < 0.5
    ]
    return marks


def _right(composition: Composition, verdict: Verdict) -> dict[str, Bool[Tensor, " B"]]:
    known = labels([composition])[0]
    flags = {head: getattr(verdict, head).argmax(-1) == known[i] for i, head in enumerate(CLASSES)}
    if composition.accessory is not None and composition.accessory_color is None:
        flags["accessory_color"] = flags["accessory_color"][:0]  # natural colours have no name
    return flags


def _share(flags: Tensor) -> float:
    return round(flags.float().mean().item(), 4)


def sectors(azimuth: Float[Tensor, " N"]) -> list[float]:
    """Returns the share of angles in each of SECTORS of the circle, counter-clockwise."""
    width = 2 * math.pi / SECTORS
    index = torch.remainder(azimuth / width + 0.5, SECTORS).long()
    counts = torch.bincount(index, minlength=SECTORS).float()
    return [round(share, 4) for share in (counts / counts.sum()).tolist()]


def obeyed(draw: Draw, judge: Look, count: int) -> dict[str, float]:
    """Returns for front, back, the sides and a side the share of samples that are seen from there
    when the caption says so; objects that look alike from all sides do not count.
    """
    chosen, shares = choose(count, held_out=False, seed=1), {}
    for view in ("front", SIDE, "back", "left side", "right side"):
        verdicts = [judge(draw(f"{c.caption()}, {view} view")) for c in chosen]
        shares[view] = _share(_seen_from(view, _azimuths(verdicts)))
    return shares


def _seen_from(view: str, turn: Float[Tensor, " N"]) -> Bool[Tensor, " N"]:
    side = (turn.abs() >= _FRONT) & (turn.abs() <= _BACK)
    return {
        "front": turn.abs() < _FRONT,
        "back": turn.abs() > _BACK,
        "left side": side & (turn > 0),
        "right side": side & (turn < 0),
        SIDE: side,
    }[view]


def write_sheet(rows: Sequence[tuple[Composition, Tensor]], path: Path) -> None:
    """Writes one picture: a row of samples for each caption, which stands above it."""
    from PIL import Image, ImageDraw

    side, count = rows[0][1].shape[1], len(rows[0][1])
    half = math.ceil(len(rows) / 2)
    sheet = Image.new("RGB", (2 * count * side // 2, half * (side // 2 + 12)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (composition, pictures) in enumerate(rows):
        left, top = (i // half) * count * side // 2, (i % half) * (side // 2 + 12)
        pen.text((left + 2, top), composition.caption(), fill="black")
        strip = pictures.permute(1, 0, 2, 3).reshape(side, count * side, 3)
        image = Image.fromarray((255 * strip).round().byte().numpy())
        sheet.paste(image.resize((count * side // 2, side // 2)), (left, top + 12))
    sheet.save(path, optimize=True)
