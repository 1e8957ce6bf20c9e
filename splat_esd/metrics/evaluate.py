"""Evaluation: what an asset shows, how many faces it has, and how like the real thing it is."""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd import console
from splat_esd.cameras import Cameras, turntable
from splat_esd.config.commands import EvaluateArguments
from splat_esd.errors import UsageError
from splat_esd.formats.atomic import write_text
from splat_esd.formats.read import open_splats
from splat_esd.gaussians import Gaussians
from splat_esd.metrics.fidelity import aligned_fidelity, ssim, true_views
from splat_esd.metrics.inception import inception_scores
from splat_esd.metrics.janus import AROUND
from splat_esd.metrics.judged import faces, judge_views, matches_prompt, variety
from splat_esd.metrics.networks import classify, clip_score
from splat_esd.rasterize import rasterize
from splat_esd.runs.folder import RunFolder
from splat_esd.zoo.judge.network import Judge
from splat_esd.zoo.world.captions import Composition, parse

SIZE = 128
ELEVATION, DISTANCE, FOVY = math.radians(15), 2.45, math.radians(43)
MISSING = {
    "classifier": "Inception scores need a judge of the prompt: a zoo prompt, or "
    "classifier=FOLDER of an image classifier in transformers' layout",
    "clip": "the CLIP score needs clip=FOLDER of a CLIP in transformers' layout",
}
_COLUMNS = "run free faces arc mirrored right IQ IV IV-IQ PSNR SSIM CLIP".split()


def main(asked: EvaluateArguments) -> None:
    """Evaluates run folders: writes evaluation.json into each, and prints a table.

    Raises:
        UsageError: If no run is named, or a folder is none.
    """
    if not asked.runs:
        raise UsageError("evaluate takes run folders; see splat-esd evaluate --help.")
    with_networks = {"classifier": asked.classifier, "clip": asked.clip}
    reports = {str(folder): evaluate_run(folder, **with_networks) for folder in asked.runs}
    for line in dict.fromkeys(line for report in reports.values() for line in report["missing"]):
        console.note(f"missing: {line}.")
    console.table("Evaluation", _COLUMNS, [_row(*item) for item in reports.items()])


def evaluate_run(folder: Path, *, classifier: Path | None = None, clip: Path | None = None) -> dict:
    """Evaluates the asset of one run, on AROUND views at 15 degrees of elevation, and writes
    evaluation.json beside it.

    Arguments:
        classifier: Folder of an image classifier; the zoo's judge serves the zoo's prompts.
        clip: Folder of a CLIP.
    Returns:
        `janus`, `right` and `fidelity` for prompts of the zoo prior, else None; `inception` if
        there is a classifier, with its name; `clip`; and in words, what is `missing`.
    Raises:
        UsageError: If the folder holds no finished asset.
    """
    run = RunFolder(folder).run
    if not RunFolder(folder).splat.is_file() or "prompt" not in run:
        raise UsageError(f"{folder} is no run with an asset: it needs run.json and splat.ply.")
    composition = _composition(run)
    report = {"prompt": run["prompt"], "seed": run.get("seed"), "status": run.get("status")}
    report |= evaluate(open_splats(RunFolder(folder).splat), composition)
    rgb = report.pop("views")
    if classifier is not None:
        scores = _rounded(inception_scores(classify(classifier, rgb)))
        report["inception"] = scores | {"classifier": classifier.name}
    report["clip"] = None if clip is None else round(clip_score(clip, rgb, run["prompt"]), 3)
    without = {"classifier": report["inception"], "clip": report["clip"]}
    report["missing"] = [MISSING[name] for name, value in without.items() if value is None]
    write_text(RunFolder(folder).evaluation, json.dumps(report, indent=2) + "\n")
    return report


def evaluate(gaussians: Gaussians, composition: Composition | None) -> dict:
    """Judges an asset; without a composition of the zoo there is nothing to judge it by.

    Returns:
        `janus`, `right`, `inception`, `fidelity` (each None where it cannot be had);
        `consistency`, the mean SSIM of neighbouring views; and the `views` before white that all
        were taken from [AROUND, SIZE, SIZE, 3].
    """
    rgb, alpha = render_views(gaussians, around())
    views = (rgb + 1 - alpha).clamp(0, 1)
    known: dict = {"consistency": _round(ssim(views, views.roll(1, dims=0)).mean().item())}
    known["views"] = views
    if composition is None:
        return known | dict.fromkeys(("janus", "right", "inception", "fidelity"))
    judge = _judge()
    verdict = judge_views(judge, rgb, alpha)
    found = faces(judge, verdict, composition)
    return known | {
        "janus": {
            "free": found.free,
            "faces": found.count,
            "arc": found.arc,
            "mirrored": found.mirrored,
            "front": found.front,
            "judged": found.judged,
        },
        "right": matches_prompt(verdict, composition, found.front),
        "inception": _rounded(variety(verdict)) | {"classifier": "zoo judge"},
        "fidelity": aligned_fidelity(views, true_views(composition, around())),
    }


def around() -> Cameras:
    """Returns the cameras of every evaluation: a turntable of AROUND views."""
    return turntable(
        AROUND, elevation=ELEVATION, distance=DISTANCE, fovy=FOVY, width=SIZE, height=SIZE
    )


@torch.no_grad()
def render_views(
    gaussians: Gaussians, cameras: Cameras
) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 1"]]:
    """Returns premultiplied colours, and alpha."""
    out = rasterize(gaussians, cameras, background=torch.zeros(len(cameras), 3))
    return out.rgb, out.alpha


@cache
def _judge() -> Judge:
    return Judge.load()


def _composition(run: Mapping) -> Composition | None:
    """Returns what a run of the zoo prior was asked for; other priors know another world."""
    return parse(run["prompt"])[0] if run.get("prior", {}).get("name") == "zoo" else None


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: _round(value) for name, value in values.items()}


def _round(value: float) -> float:
    return round(value, 4)


def _row(name: str, report: Mapping) -> list[str]:
    """Returns one line of the table; a dash stands for what cannot be had."""
    janus, scores, fidelity = (report[k] or {} for k in ("janus", "inception", "fidelity"))
    wrong = [respect for respect, fine in (report["right"] or {}).items() if not fine]
    verdict = "-" if report["right"] is None else ", ".join(f"not {w}" for w in wrong) or "all"
    cells = [janus.get("free"), janus.get("faces"), janus.get("arc")]
    cells += [janus.get("mirrored"), verdict]
    cells += [scores.get(k) for k in ("quality", "variety", "information")]
    cells += [fidelity.get("psnr"), fidelity.get("ssim"), report["clip"]]
    return [name, *map(_cell, cells)]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
