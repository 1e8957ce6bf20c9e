"""`splat-esd study`: every run that is not there yet, then the report."""

import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from splat_esd import console
from splat_esd.bench.machine import cores
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.formats.atomic import write_text
from splat_esd.study.charts import by_method
from splat_esd.study.experiment import Cell, Experiment, cells, find_file, load_experiment
from splat_esd.study.job import check, is_done
from splat_esd.study.launch import launch, processes
from splat_esd.study.report import page
from splat_esd.study.sheet import write_sheets
from splat_esd.study.summary import Record, gather, summarise

_VERSIONS = ("splat-esd", "torch", "diffusers", "transformers", "peft", "gsplat")


def main(arguments: Sequence[str]) -> Path:
    """Runs the study that the arguments name and returns its report.

    Raises:
        UsageError: If the file, a key or a value is wrong, before anything is run.
        EnvironmentProblem: If runs failed, once all others are done and the report is written.
        KeyboardInterrupt: After Ctrl-C, once the report of what is done is written.
    """
    names = [argument for argument in arguments if "=" not in argument]
    if len(names) != 1:
        raise UsageError(
            f"study takes one experiment file or name, got {len(names)}; see study --help."
        )
    path = find_file(names[0])
    experiment = load_experiment(path, [a for a in arguments if a != names[0]])
    every = cells(experiment)
    for cell in every:
        check(cell)
    command = shlex.join(["splat-esd", "study", *arguments])
    errors: dict[str, str] = {}
    try:
        _run(path, experiment, every, errors)
    except KeyboardInterrupt:
        write_results(path, experiment, every, errors, command=command)
        console.note(f"go on with: {command}")
        raise
    report, records = write_results(path, experiment, every, errors, command=command)
    _print(records, experiment)
    console.files_table([(report, "a browser"), (report.with_name("results.json"), "numbers")])
    if errors:
        raise EnvironmentProblem(
            f"{len(errors)} of {len(every)} runs failed; the report says why. The same command "
            "tries them again."
        )
    return report


def _run(path: Path, experiment: Experiment, every: Sequence[Cell], errors: dict[str, str]) -> None:
    """Runs what is not done; fills `errors` with why each failed."""
    todo = [cell for cell in every if not is_done(cell)]
    _introduce(path, experiment, len(every), len(todo))
    done = len(every) - len(todo)
    with console.progress(len(every), start=done, unit="run") as meter:
        for cell, error in launch(todo, experiment) if todo else ():
            done += 1
            if error is not None:
                errors[cell.name] = error
                console.warn(f"{cell.name} failed: {error}")
            meter.update(done, failed=len(errors))


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
                "-" if free is None else f"{100 * free['low']:.0f} to {100 * free['high']:.0f} %",
                "-" if scores is None else f"{scores['mean']:.2f}",
                "-" if psnr is None else f"{psnr['mean']:.1f}",
            ]
        )
    columns = ["method", "runs", "free of Janus", "95 % interval", "IV-IQ", "PSNR"]
    console.table("Study", columns, rows)
