"""`splat-esd toy`: both experiments as numbers and one figure."""

import json
from collections.abc import Sequence
from importlib.metadata import version

from splat_esd import console
from splat_esd.config.commands import ToyArguments, command_line
from splat_esd.formats.atomic import write_text
from splat_esd.plane import gaussian, janus
from splat_esd.plane.figure import draw, name
from splat_esd.plots import write_png


def main(asked: ToyArguments) -> None:
    """Runs both experiments, prints their tables and writes toy.json and toy.png."""
    methods: list[float | None] = [None, *sorted(set(asked.lambdas))]
    peaks, gaussians, rings = sorted(set(asked.peaks)), [], []
    rectified: list[dict] = []
    with console.progress(2 * len(methods), unit="method") as meter:
        for i, lam in enumerate(methods):
            gaussians.append(gaussian.compare(lam, seed=asked.seed, steps=asked.steps))
            rings += janus.compare(lam, peaks, seed=asked.seed, steps=asked.steps)
            meter.update(i + 1)
        for i, lam in enumerate(methods):
            rectified.append(janus.rectified(lam, peaks[-1], seed=asked.seed, steps=asked.steps))
            meter.update(len(methods) + i + 1)
    _print(gaussians, rings, rectified)
    found = {
        "command": command_line("toy", asked),
        "version": version("splat-esd"),
        "seed": asked.seed,
        "gaussian": gaussians,
        "janus": rings,
        "rectified": rectified,
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    write_text(asked.out / "toy.json", json.dumps(found) + "\n")
    write_png(draw(gaussians, rings, rectified), asked.out / "toy.png")
    console.files_table([
        (asked.out / "toy.json", "every number"), (asked.out / "toy.png", "an image viewer"),
    ])  # fmt: skip


def _print(gaussians: Sequence[dict], rings: Sequence[dict], rectified: Sequence[dict]) -> None:
    columns = ["method", "variance kept", "closed form", "error"]
    keys = ("trace_ratio", "trace_ratio_closed_form", "error")
    rows = [[name(row["lambda"]), *(f"{row[key]:.4f}" for key in keys)] for row in gaussians]
    console.table("One Gaussian: the views' variance, relative to the target's", columns, rows)
    columns = ["method", "peak", "entropy", "closed form", "prior's own", "front", "closed form"]
    keys = ("entropy", "entropy_closed_form", "entropy_prior", "front", "front_closed_form")
    rows = [
        [name(row["lambda"]), f"{row['peak']:g}", *(f"{row[key]:.2f}" for key in keys)]
        for row in rings
    ]
    console.table("Janus: what the views show, entropies in nats", columns, rows)
    columns = ["method", "entropy", "closed form", "front", "closed form", "show a side"]
    keys = ("entropy", "entropy_closed_form", "front", "front_closed_form", "clear")
    rows = [
        [name(row["lambda"]), *("-" if row[k] is None else f"{row[k]:.2f}" for k in keys)]
        for row in rectified
    ]
    console.table("The same on a rectified prior, at every peak alike", columns, rows)
