"""`splat-esd bench mesh`: fidelity of meshes to their splats, and the cost of making them."""

import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from splat_esd import console
from splat_esd.bench import machine
from splat_esd.config.commands import BenchMeshArguments, command_line
from splat_esd.formats.find import SPLAT, splat_file

TOYS = ("corgi", "robot", "teapot")  # with a known surface: round, angular, with a hole
COLUMNS = (
    "splat", "Gaussians", "PSNR dB", "lowest", "SSIM", "Chamfer", "watertight", "pieces", "faces",
    "seconds", "CPU s", "MiB",
)  # fmt: skip

Row = dict[str, Any]


def main(asked: BenchMeshArguments) -> None:
    """Makes a mesh of each splat in a process of its own, and prints a table.

    Raises:
        UsageError: If a splat is not there, or cannot be read.
    """
    splats = [splat_file(source) for source in asked.splats]
    here = machine.describe()
    if machine.is_busy(here["load_average"]):
        console.warn("this machine is busy: seconds will be too many; CPU seconds are right.")
    jobs: list[tuple[Path | None, str]] = [(path, _name(path)) for path in splats]
    jobs += [(None, toy) for toy in TOYS] if asked.toys else []
    rows = []
    for path, name in jobs:
        console.note(f"{name} ...")
        rows.append(_apart(path, name, asked))
    console.table("meshes", COLUMNS, lines(rows))
    if asked.out is not None:
        found = {
            "command": command_line("bench mesh", asked),
            "version": version("splat-esd"),
            "machine": here,
            "settings": asked.mesh.model_dump(),
            "meshes": rows,
        }
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        console.note(f"all figures are in {asked.out}.")


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """Returns one table row per splat."""
    return [
        [
            row["splat"],
            f"{row['gaussians']}",
            f"{row['psnr']:.1f}",
            f"{row['psnr_lowest']:.1f}",
            f"{row['ssim']:.3f}",
            f"{100 * row['chamfer']:.2f} %" if "chamfer" in row else "-",
            "yes" if row["watertight"] else "no",
            f"{row['components']}",
            f"{row['faces']}",
            f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['peak_mib']}",
        ]
        for row in rows
    ]


def _name(path: Path) -> str:
    """Returns the name of a run, or of a file."""
    if path.name == SPLAT and path.absolute().parent.name:
        parent = path.absolute().parent
        return f"{parent.parent.name}/{parent.name}"
    return path.stem


def _apart(path: Path | None, name: str, asked: BenchMeshArguments) -> Row:
    # A process of its own, whose memory starts at nothing. Ctrl-C is for the parent to answer.
    deaf = (signal.signal, (signal.SIGINT, signal.SIG_IGN))
    with ProcessPoolExecutor(1, get_context("spawn"), *deaf) as pool:
        return pool.submit(_measure, path, name, asked).result()


def _measure(path: Path | None, name: str, asked: BenchMeshArguments) -> Row:
    import torch

    from splat_esd.bench.reference_shapes import as_splat, distance_to_toy
    from splat_esd.formats.read import open_splats
    from splat_esd.mesh.textured import make_mesh, write_glb

    torch.set_num_threads(asked.threads)
    source = as_splat(name) if path is None else path
    begun, computed = time.perf_counter(), time.process_time()
    gaussians = open_splats(source) if isinstance(source, Path) else source
    mesh = make_mesh(gaussians, asked.mesh)
    with tempfile.TemporaryDirectory() as folder:
        size = write_glb(mesh, Path(folder) / "mesh.glb").stat().st_size
    row: Row = {
        "splat": name,
        "gaussians": len(gaussians),
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - computed,
        "peak_mib": _peak_mib(),
        "glb_bytes": size,
        **mesh.facts,
    }
    if path is None:
        row |= distance_to_toy(name, mesh.surface.points, mesh.surface.triangles)
    return row


def _peak_mib() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20
