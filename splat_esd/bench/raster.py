"""`splat-esd bench raster`: the CPU rasteriser, measured so that others can repeat it."""

import json
from importlib.metadata import version

import torch

from splat_esd import console
from splat_esd.bench import machine
from splat_esd.bench.plans import FULL, QUICK
from splat_esd.bench.report import TABLES
from splat_esd.bench.sections import ACCOUNTING, SECTIONS
from splat_esd.config.commands import BenchRasterArguments, command_line
from splat_esd.errors import UsageError


def main(asked: BenchRasterArguments) -> None:
    """Measures, prints a table for each section, and writes all figures where `out` says.

    Raises:
        UsageError: If there are fewer cores than `threads`, or no folder for `out`.
    """
    _check(asked)
    found = {"command": command_line("bench raster", asked), **_circumstances(asked)}
    for name in [asked.only] if asked.only else SECTIONS:
        title, columns, lines = TABLES[name]
        console.note(f"{title} ...")
        found[name] = SECTIONS[name](QUICK if asked.quick else FULL, asked.threads)
        console.table(title, columns, lines(found[name]))
    console.note(ACCOUNTING)
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        console.note(f"all figures are in {asked.out}.")


def _check(asked: BenchRasterArguments) -> None:
    if asked.threads > machine.cores():
        raise UsageError(
            f"threads must lie in [1, {machine.cores()}], the cores here, got {asked.threads}."
        )
    if asked.out is not None and (asked.out.is_dir() or not asked.out.absolute().parent.is_dir()):
        raise UsageError(f"out must name a file in a folder that is there, got {asked.out}.")


def _circumstances(asked: BenchRasterArguments) -> dict[str, object]:
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
