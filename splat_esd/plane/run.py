"""`splat-esd toy`: both toys as numbers and one figure."""

import json
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from splat_esd import console
from splat_esd.config.overrides import split_overrides
from splat_esd.config.schema import Count, Positive, Unit, UserPath
from splat_esd.config.validation import validate
from splat_esd.errors import UsageError
from splat_esd.formats.atomic import write_text
from splat_esd.plane import gaussian, janus
from splat_esd.plane.figure import draw, name
from splat_esd.plots import write_png

_KEYS = "toy takes out=, seed=, lambdas=[...], peaks=[...] and steps=; see splat-esd toy --help."


class Toy(BaseModel):
    """What `splat-esd toy` was asked for.

    Arguments:
        lambdas: Of ESD, 0 being VSD; SDS comes in any case.
        peaks: Peakednesses of the Janus toy's prior.
        steps: Of each descent, instead of as many as the numbers need.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    out: UserPath = Field(default="toy", validate_default=True, strict=False)
    seed: Annotated[int, Field(ge=0)] = 0
    lambdas: Annotated[tuple[Unit, ...], Field(min_length=1)] = (0.0, 0.25, 0.5, 0.75, 1.0)
    peaks: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    steps: Count | None = None


def main(arguments: Sequence[str]) -> None:
    """Runs both toys, prints their tables and writes toy.json and toy.png.

    Raises:
        UsageError: If an argument is wrong.
    """
    asked = read(arguments)
    methods: list[float | None] = [None, *sorted(set(asked.lambdas))]
    peaks, gaussians, rings = sorted(set(asked.peaks)), [], []
    with console.progress(len(methods), unit="method") as meter:
        for i, lam in enumerate(methods):
            gaussians.append(gaussian.compare(lam, seed=asked.seed, steps=asked.steps))
            rings += janus.compare(lam, peaks, seed=asked.seed, steps=asked.steps)
            meter.update(i + 1)
    _print(gaussians, rings)
    found = {
        "command": shlex.join(["splat-esd", "toy", *arguments]),
        "version": version("splat-esd"),
        "seed": asked.seed,
        "gaussian": gaussians,
        "janus": rings,
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    write_text(asked.out / "toy.json", json.dumps(found) + "\n")
    write_png(draw(gaussians, rings), asked.out / "toy.png")
    console.files_table([
        (asked.out / "toy.json", "every number"), (asked.out / "toy.png", "an image viewer"),
    ])  # fmt: skip


def read(arguments: Sequence[str]) -> Toy:
    """Returns what was asked for.

    Raises:
        UsageError: If a key or a value is wrong.
    """
    for argument in arguments:
        if "=" not in argument:
            raise UsageError(f"{argument!r} is no setting; {_KEYS}")
    groups, values = split_overrides(arguments)
    return validate(Toy, groups | values)


def _print(gaussians: Sequence[dict], rings: Sequence[dict]) -> None:
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
