"""`splat-esd bench refine`: true toys changed by words; what came of it, and at which cost."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from splat_esd import console
from splat_esd.bench import machine
from splat_esd.config.commands import BenchRefineArguments, command_line

OBJECTS = ("bear", "panda", "cat", "pig", "lion", "elephant")
EDITS = {"blue": "a blue {}", "scarf": "a {} wearing a red scarf"}
SPLATS = 10_000  # of each toy
COLUMNS = ("change", "runs", "as asked", "one face", "IoU", "lowest", "seconds")

Row = dict[str, Any]


def main(asked: BenchRefineArguments) -> None:
    """Refines OBJECTS by EDITS with several seeds, and prints a table; what is in `out` is kept."""
    rows: list[Row] = json.loads(asked.out.read_text())["runs"] if asked.out.is_file() else []
    there = {(row["object"], row["change"], row["seed"]) for row in rows}
    cells = [(o, c, s) for s in range(asked.seeds) for o in OBJECTS for c in EDITS]
    here = machine.describe()
    with ProcessPoolExecutor(asked.processes, get_context("spawn")) as pool:
        work = [
            pool.submit(_refine, *cell, asked.folder, asked.quality)
            for cell in cells
            if cell not in there
        ]
        for done in as_completed(work):
            rows.append(done.result())
            found = {
                "command": command_line("bench refine", asked),
                "version": version("splat-esd"),
                "machine": here,
                "summary": summary(rows),
                "runs": sorted(rows, key=lambda r: (r["change"], r["object"], r["seed"])),
            }
            asked.out.write_text(json.dumps(found, indent=1) + "\n")
            console.note(f"{len(rows)} of {len(cells)}")
    console.table("refine", COLUMNS, [list(map(str, line.values())) for line in summary(rows)])
    console.note(f"all figures are in {asked.out}.")


def summary(rows: Sequence[Row]) -> list[Row]:
    """Returns a line for each change: how many were as asked, how many have one face, how much of
    the silhouette is kept, and the seconds of a run.
    """
    lines = []
    for change in EDITS:
        of = [row for row in rows if row["change"] == change]
        if of:
            lines.append(
                {
                    "change": change,
                    "runs": len(of),
                    "right": sum(all(row["right"].values()) for row in of),
                    "one_face": sum(row["free"] for row in of),
                    "iou": round(sum(row["iou"] for row in of) / len(of), 3),
                    "lowest_iou": min(row["iou"] for row in of),
                    "seconds": round(sum(row["seconds"] for row in of) / len(of), 1),
                }
            )
    return lines


def _refine(object: str, change: str, seed: int, folder: Path, quality: str) -> Row:
    import torch

    from splat_esd.bench.reference_shapes import as_splat
    from splat_esd.config.refine import load_refine
    from splat_esd.formats.ply import write_ply
    from splat_esd.formats.read import open_splats
    from splat_esd.metrics.evaluate import around, evaluate_run, render_views
    from splat_esd.runs.front import with_front
    from splat_esd.runs.generate import generate

    torch.set_num_threads(1)
    start = folder / f"{object}-{change}-{seed}.ply"
    write_ply(as_splat(object, SPLATS), start)
    settings = [f"seed={seed}", f"quality={quality}", f"out={folder}", "export.formats=[ply]"]
    prompt = f"prompt={EDITS[change].format(object)}"
    begun = time.perf_counter()
    config = with_front(load_refine([str(start), prompt, *settings, "processes=1", "prior=zoo"]))
    run = generate(config)
    seconds = time.perf_counter() - begun
    report = evaluate_run(run)
    before, after = (
        render_views(open_splats(path), around())[1] > 0.5 for path in (start, run / "splat.ply")
    )
    iou = (before & after).flatten(1).sum(1) / (before | after).flatten(1).sum(1)
    return {
        "object": object,
        "change": change,
        "seed": seed,
        "steps": config.steps,
        "front": config.init.front,
        "right": report["right"],
        "faces": report["janus"]["faces"],
        "free": report["janus"]["free"],
        "mirrored": report["janus"]["mirrored"],
        "iou": round(iou.mean().item(), 4),
        "seconds": round(seconds, 1),
    }
