"""`splat-esd bench raster`: the CPU rasteriser, measured so that others can repeat it."""

import json
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict

from splat_esd import console
from splat_esd.bench import machine
from splat_esd.bench.plans import FULL, QUICK
from splat_esd.bench.report import TABLES
from splat_esd.bench.sections import ACCOUNTING, SECTIONS
from splat_esd.config.overrides import split_overrides
from splat_esd.config.schema import Count, UserPath
from splat_esd.config.validation import validate
from splat_esd.errors import UsageError


class RasterBench(BaseModel):
    """What `splat-esd bench raster` was asked for.

    Arguments:
        quick: Small scenes, few runs: shows that it works, in seconds, and says little.
        threads: Of the table and all else that does not compare numbers of threads. One thread is
            timed by the processor's time, more by the clock on the wall.
        only: One section instead of all.
        out: The JSON that everything is written to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    quick: bool = False
    threads: Count = 1
    only: Literal["table", "costs", "curve", "busy"] | None = None
    out: UserPath | None = None


def main(arguments: Sequence[str]) -> None:
    """Measures, prints a table for each section, and writes all figures where `out` says.

    Raises:
        UsageError: If an argument is wrong.
    """
    asked = read(arguments)
    command = shlex.join(["splat-esd", "bench", "raster", *arguments])
    found = {"command": command, **_circumstances(asked)}
    for name in [asked.only] if asked.only else SECTIONS:
        title, columns, lines = TABLES[name]
        console.note(f"{title} ...")
        found[name] = SECTIONS[name](QUICK if asked.quick else FULL, asked.threads)
        console.table(title, columns, lines(found[name]))
    console.note(ACCOUNTING)
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        console.note(f"all figures are in {asked.out}.")


def read(arguments: Sequence[str]) -> RasterBench:
    """Returns what was asked for.

    Raises:
        UsageError: If a key or a value is wrong.
    """
    for argument in arguments:
        if "=" not in argument and not argument.startswith("-"):
            raise UsageError(f"{argument!r} is no setting; {_KEYS}")
    groups, values = split_overrides(arguments)
    asked = validate(RasterBench, dict(chain(groups.items(), values.items())))
    if asked.threads > machine.cores():
        raise UsageError(
            f"threads must lie in [1, {machine.cores()}], the cores here, got {asked.threads}."
        )
    if asked.out is not None and (asked.out.is_dir() or not asked.out.absolute().parent.is_dir()):
        raise UsageError(f"out must name a file in a folder that is there, got {asked.out}.")
    return asked


_KEYS = f"bench raster takes {', '.join(f'{key}=...' for key in RasterBench.model_fields)}."


def _circumstances(asked: RasterBench) -> dict[str, object]:
    here = machine.describe()
    load = here["load_average"]
    console.header(
        {
            "processor": f"{here['cpu']}, {here['cores']} cores, {here['instruction_set']}",
            "load": "unknown" if load is None else f"{load:.2f}",
            "threads": f"{asked.threads}",
        }
    )
    if machine.is_busy(load):
        console.warn(
            f"this machine is busy (load {load:.2f} on {here['cores']} cores): the figures will "
            "mean little; stop what else runs and measure again."
        )
    return {
        "version": version("splat-esd"),
        "torch": torch.__version__,
        "machine": here,
        "threads": asked.threads,
        "quick": asked.quick,
        "accounting": ACCOUNTING,
    }
