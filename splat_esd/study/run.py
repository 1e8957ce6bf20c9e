"""`splat-esd study`: all runs that are not finished yet, then the report."""

import json
import platform
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from splat_esd import console
from splat_esd.bench.machine import cores
from splat_esd.config.experiment import Experiment
from splat_esd.config.overrides import EXPERIMENTS
from splat_esd.errors import EnvironmentProblem
from splat_esd.formats.atomic import write_text
from splat_esd.runs.folder import RunFolder
from splat_esd.study.charts import by_method
from splat_esd.study.experiment import Cell, cells, in_shard
from splat_esd.study.job import check, is_done
from splat_esd.study.launch import launch, processes
from splat_esd.study.report import page
from splat_esd.study.sheet import SHEET, write_sheets
from splat_esd.study.summary import Record, gather, summarise

_CLAIMED_EVERY = 5.0  # seconds between two looks at what others make
_WATCHED_EVERY = 2.0  # seconds
_VERSIONS = ("splat-esd", "torch", "diffusers", "transformers", "peft", "gsplat")


def main(experiment: Experiment) -> Path:
    """Runs a study and returns its report.

    Raises:
        UsageError: If a setting of a run is wrong, before anything is run.
        EnvironmentProblem: If runs failed, once all others are done and the report is written.
        KeyboardInterrupt: After Ctrl-C, once the report of what is done is written.
    """
    path, every = experiment.source, cells(experiment)
    command = shlex.join(["splat-esd", "study", _name(path), *experiment.arguments])
    errors: dict[str, str] = {}
    if not experiment.gather:
        mine = [cell for cell in every if in_shard(cell, experiment.shard)]
        for cell in mine:
            check(cell)
        try:
            _run(path, experiment, mine, errors)
        except KeyboardInterrupt:
            if experiment.shard is None:
                write_results(path, experiment, every, errors, command=command)
            console.note(f"go on with: {command}")
            raise
    return _conclude(experiment, every, errors, command)


def _conclude(
    experiment: Experiment, every: Sequence[Cell], errors: dict[str, str], command: str
) -> Path:
    """Writes the report, unless this was one part of a study; returns its path.

    Raises:
        EnvironmentProblem: If runs failed.
    """
    if experiment.shard is not None and not experiment.gather:
        report = experiment.out / "report.html"
        console.note(f"shard {experiment.shard} is done; gather all parts with: study NAME report")
    else:
        report, records = write_results(
            experiment.source, experiment, every, errors, command=command
        )
        _print(records, experiment)
        files = {"report.html": "a browser", "results.json": "every number"}
        files |= {SHEET: "an image viewer: every asset", "methods.svg": "a browser"}
        there = [(report.with_name(name), opens) for name, opens in files.items()]
        console.files_table([(path, opens) for path, opens in there if path.is_file()])
    if errors:
        raise EnvironmentProblem(
            f"{len(errors)} of {len(every)} runs failed; the report says why. The same command "
            "tries them again."
        )
    return report


def _name(path: Path) -> str:
    """Returns what names an experiment file on the command line."""
    return path.stem if path.parent == EXPERIMENTS else str(path)


def _run(path: Path, experiment: Experiment, every: Sequence[Cell], errors: dict[str, str]) -> None:
    """Runs the unfinished cells; fills `errors` with the reason of each failure."""
    todo = [cell for cell in every if not is_done(cell)]
    _introduce(path, experiment, len(every), len(todo))
    steps = sum(cell.config.steps for cell in todo)
    done = len(every) - len(todo)
    ended: dict[str, int] = {}  # steps of the cells that need no more watching

    def tell() -> None:
        under_way = [cell for cell in todo if cell.name not in ended]
        made = sum(ended.values()) + sum(map(_steps_made, under_way))
        meter.update(made, runs=done + len(ended), of=len(every), failed=len(errors))

    before = sum(map(_steps_made, todo))
    with console.progress(steps, start=before) as meter, _every(_WATCHED_EVERY, tell):
        left = todo
        while left:
            for cell, error in launch(left, experiment):
                ended[cell.name] = cell.config.steps
                if error is not None:
                    errors[cell.name] = error
                    console.warn(f"{cell.name} failed: {error}")
                tell()
            left = [cell for cell in left if cell.name not in errors and not is_done(cell)]
            if left:  # another process makes them, or has died with them
                console.note(f"waiting for {len(left)} runs that another process has claimed ...")
                time.sleep(_CLAIMED_EVERY)


def _steps_made(cell: Cell) -> int:
    metrics = RunFolder(cell.folder).read_metrics()
    return metrics[-1]["step"] if metrics else 0


@contextmanager
def _every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Calls a function now and then, beside what runs inside."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            call()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def write_results(
    path: Path,
    experiment: Experiment,
    every: Sequence[Cell],
    errors: Mapping[str, str],
    *,
    command: str,
) -> tuple[Path, list[Record]]:
    """Writes results.json, methods.svg, sheets.png and report.html; returns the report's path and
    what is known of each run.
    """
    records = gather(every, errors)
    results = {
        "command": command,
        "experiment": experiment.model_dump(mode="json"),
        "file": path.read_text(encoding="utf-8"),
        "versions": {name: version(name) for name in _VERSIONS}
        | {"python": platform.python_version()},
        "summary": summarise(records, experiment),
        "cells": records,
    }
    experiment.out.mkdir(parents=True, exist_ok=True)
    write_text(experiment.out / "results.json", _with_a_line_for_each_run(results))
    chart = by_method(results["summary"]["methods"])
    if chart is not None:
        write_text(experiment.out / "methods.svg", chart)
    write_sheets(records, experiment.out)
    report = experiment.out / "report.html"
    write_text(report, page(path, results, out=experiment.out))
    return report, records


def _with_a_line_for_each_run(results: Mapping[str, Any]) -> str:
    head = json.dumps({k: v for k, v in results.items() if k != "cells"}, indent=1)
    runs = ",\n".join(f"  {json.dumps(record)}" for record in results["cells"])
    return head.removesuffix("\n}") + f',\n "cells": [\n{runs}\n ]\n}}\n'


def _introduce(path: Path, experiment: Experiment, count: int, todo: int) -> None:
    sizes = (len(experiment.prompts), len(experiment.methods), len(experiment.seeds))
    where = f"submitit, {experiment.submitit.get('cluster') or 'slurm'}"
    if experiment.launcher == "ray":
        where = f"ray, {experiment.ray.get('address') or 'a cluster of this machine'}"
    if experiment.launcher == "joblib":
        at_once = processes(experiment, max(1, todo))
        where = f"{at_once} at once, {max(1, cores() // at_once)} threads each"
    console.header(
        {
            "study": str(path),
            "runs": "{} prompts x {} methods x {} seeds".format(*sizes)
            + f" = {count}, {count - todo} done",
            "where": where,
            "folder": str(experiment.out),
        }
    )


def _print(records: Sequence[Record], experiment: Experiment) -> None:
    rows = []
    for row in summarise(records, experiment)["methods"]:
        free, scores, psnr = row["free"], row["means"]["information"], row["means"]["psnr"]
        rows.append(
            [
                row["method"],
                f"{row['done']} of {row['runs']}",
                "-" if free is None else f"{free['count']} of {free['of']}",
                "-"
                if free is None or free["of"] == 1
                else f"{100 * free['low']:.0f} to {100 * free['high']:.0f} %",
                "-" if scores is None else f"{scores['mean']:.2f}",
                "-" if psnr is None else f"{psnr['mean']:.1f}",
            ]
        )
    columns = ["method", "runs", "free of Janus", "95 % interval", "IV-IQ", "PSNR"]
    console.table("Study", columns, rows)
