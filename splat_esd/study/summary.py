"""The summary of a study: rates and means with intervals, and tests of differences."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from splat_esd.config.experiment import Experiment
from splat_esd.runs.folder import RunFolder
from splat_esd.study.experiment import Cell
from splat_esd.study.job import is_done, is_made
from splat_esd.study.statistics import bootstrap_mean, fisher, holm, spearman, wilson

Record = dict[str, Any]
# Name of each number: its section and key in evaluation.json, how it is written, what it means.
METRICS: dict[str, tuple[str | None, str, str, str]] = {
    "information": (
        "inception",
        "information",
        "IV - IQ",
        "what view and class tell of each other",
    ),
    "quality": ("inception", "quality", "IQ", "inception quality; lower is sharper"),
    "variety": ("inception", "variety", "IV", "inception variety; higher is more varied"),
    "faces": ("janus", "faces", "faces", "faces counted around the asset"),
    "psnr": ("fidelity", "psnr", "PSNR", "beside the real thing, in dB"),
    "ssim": ("fidelity", "ssim", "SSIM", "beside the real thing"),
    "consistency": (None, "consistency", "neighbours", "mean SSIM of neighbouring views"),
    "clip": (None, "clip", "CLIP", "100 times the mean cosine of views and prompt"),
}
# What an asset can be called by its faces: one of the first three, and mirrored besides.
CALLED = {
    "free": lambda janus: janus["free"],
    "two_faced": lambda janus: not janus["free"] and janus["faces"] > 0,
    "faceless": lambda janus: not janus["free"] and janus["faces"] == 0,
    "mirrored": lambda janus: janus.get("mirrored"),  # unknown to evaluations of before
}
TRENDS = ("free", "information", "psnr")


def gather(cells: Sequence[Cell], errors: Mapping[str, str]) -> list[Record]:
    """Returns the state of each cell (done, failed and why, not evaluated, missing) and its
    evaluation.
    """
    return [_record(cell, errors.get(cell.name)) for cell in cells]


def _record(cell: Cell, error: str | None) -> Record:
    run, status = RunFolder(cell.folder).run, "missing"
    if error is not None:
        status = "failed"
    elif is_done(cell):
        status = "done"
    elif is_made(cell):
        status = "not evaluated"
    evaluation = None
    if status == "done":
        evaluation = json.loads(RunFolder(cell.folder).evaluation.read_text(encoding="utf-8"))
    return {
        "prompt": cell.prompt,
        "method": cell.method,
        "seed": cell.seed,
        "lambda": cell.config.guidance.lam,
        "folder": cell.name,
        "status": status,
        "error": error,
        "seconds": run.get("seconds_training"),
        "gaussians": run.get("gaussians"),
        "evaluation": evaluation,
    }


def number(record: Record, metric: str) -> float | None:
    """Returns one number of a run, None where it cannot be had; CALLED and `right` are 0 or 1."""
    found = record["evaluation"] or {}
    if metric in CALLED:
        called = None if found.get("janus") is None else CALLED[metric](found["janus"])
        return None if called is None else float(called)
    if metric == "right":
        return None if found.get("right") is None else float(all(found["right"].values()))
    section, key, _, _ = METRICS[metric]
    value = (found.get(section) or {} if section else found).get(key)
    return None if value is None else float(value)


def summarise(records: Sequence[Record], experiment: Experiment) -> dict[str, Any]:
    """Returns the study's tables: `methods`, `pairs`, `trends`, `prompts`."""
    by_method = {
        name: [record for record in records if record["method"] == name]
        for name in experiment.methods
    }
    return {
        "methods": [
            {"method": name, "settings": list(experiment.methods[name])} | _method(mine)
            for name, mine in by_method.items()
        ],
        "pairs": _pairs(by_method),
        "trends": [trend for metric in TRENDS if (trend := _trend(records, metric))],
        "prompts": [
            {
                "prompt": prompt,
                "methods": {
                    name: _method([r for r in mine if r["prompt"] == prompt])
                    for name, mine in by_method.items()
                },
            }
            for prompt in experiment.prompts
        ],
    }


def _method(records: Sequence[Record]) -> dict[str, Any]:
    done = [record for record in records if record["status"] == "done"]
    seconds = [record["seconds"] for record in done if record["seconds"] is not None]
    return {
        "lambda": records[0]["lambda"],
        "runs": len(records),
        "done": len(done),
        "failed": sum(record["status"] == "failed" for record in records),
        **{called: _rate(_numbers(done, called)) for called in CALLED},
        "right": _rate(_numbers(done, "right")),
        "means": {metric: _mean(_numbers(done, metric)) for metric in METRICS},
        "seconds": sum(seconds) / len(seconds) if seconds else None,
    }


def _numbers(records: Sequence[Record], metric: str) -> list[float]:
    found = (number(record, metric) for record in records)
    return [value for value in found if value is not None]


def _rate(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    successes = round(sum(values))
    low, high = wilson(successes, len(values))
    rate = successes / len(values)
    return {"count": successes, "of": len(values), "rate": rate, "low": low, "high": high}


def _mean(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    low, high = bootstrap_mean(values)
    return {"mean": sum(values) / len(values), "low": low, "high": high, "of": len(values)}


def _pairs(by_method: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """Compares the Janus-free rates of every two methods."""
    values = {name: _numbers(mine, "free") for name, mine in by_method.items()}
    counts = {name: (round(sum(v)), len(v)) for name, v in values.items() if v}
    pairs = list(combinations(counts, 2))
    p = [fisher(counts[a], counts[b]) for a, b in pairs]
    return [
        {
            "a": a,
            "b": b,
            "difference": counts[b][0] / counts[b][1] - counts[a][0] / counts[a][1],
            "p": chance,
            "p_holm": adjusted,
        }
        for (a, b), chance, adjusted in zip(pairs, p, holm(p), strict=True)
    ]


def _trend(records: Sequence[Record], metric: str) -> dict[str, Any] | None:
    """Tests whether a number grows with lambda, over all runs that have one (VSD's is 0)."""
    points = [
        (record["lambda"], value)
        for record in records
        if record["lambda"] is not None and (value := number(record, metric)) is not None
    ]
    found = spearman([x for x, _ in points], [y for _, y in points])
    if found is None:
        return None
    rho, low, high = found
    return {"metric": metric, "rho": rho, "low": low, "high": high, "of": len(points)}
