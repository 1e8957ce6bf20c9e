"""The study's report: one self-contained HTML page, rendered from report.html by jinja2."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from splat_esd.study.charts import by_method, over_lambda
from splat_esd.study.job import CARD
from splat_esd.study.statistics import CONFIDENCE
from splat_esd.study.summary import CALLED, METRICS, Record

Cell = str | tuple[str, str] | None  # a text, a value with its interval, or no value
Rows = list[list[Cell]]


def page(path: Path, results: Mapping[str, Any], *, out: Path) -> str:
    """Returns the HTML page of a study's results.

    Arguments:
        path: The experiment file; the page is titled by its name.
        results: What results.json holds.
        out: The study's folder, with the runs' folders in it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    summary, records = results["summary"], results["cells"]
    templates = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html").render(
        name=path.stem,
        cells=records,
        counts=_counts(records),
        confidence=f"{CONFIDENCE:.0%}",
        methods=_methods(summary["methods"]),
        pairs=_pairs(summary["pairs"]),
        trends=_trends(summary),
        prompts=_prompts(summary["prompts"]),
        turntables=_turntables(records, summary, out),
        failures=[[r["folder"], r["error"]] for r in records if r["status"] == "failed"],
        command=results["command"],
        file=results["file"],
        versions=", ".join(f"{name} {number}" for name, number in results["versions"].items()),
    )


def _counts(records: Sequence[Record]) -> str:
    states = [record["status"] for record in records]
    count = {s: states.count(s) for s in ("done", "failed", "not evaluated", "missing")}
    return ", ".join(f"{n} {status}" for status, n in count.items() if n)


def _methods(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    metrics = [m for m in METRICS if any(row["means"][m] for row in rows)]
    head = ["method", "runs", "free of Janus", "two-faced", "faceless", "mirrored"]
    head += ["all right", *(METRICS[m][2] for m in metrics), "minutes"]
    body: Rows = [
        [
            (row["method"], " ".join(row["settings"])),
            f"{row['done']} of {row['runs']}",
            *(_rate(row[called]) for called in CALLED),
            _rate(row["right"]),
            *(_mean(row["means"][m]) for m in metrics),
            None if row["seconds"] is None else f"{row['seconds'] / 60:.1f}",
        ]
        for row in rows
    ]
    meanings = [METRICS[m][2:] for m in metrics]
    return {"head": head, "rows": body, "chart": by_method(rows), "meanings": meanings}


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Rows:
    return [
        [
            f"{p['a']} / {p['b']}",
            f"{100 * p['difference']:+.0f} points",
            _p_value(p["p"]),
            _p_value(p["p_holm"]),
        ]
        for p in pairs
    ]


def _trends(summary: Mapping[str, Any]) -> dict[str, Any]:
    rows: Rows = [
        [
            "free of Janus" if t["metric"] == "free" else METRICS[t["metric"]][2],
            f"{t['rho']:+.2f}",
            f"{t['low']:+.2f} to {t['high']:+.2f}",
            str(t["of"]),
        ]
        for t in summary["trends"]
    ]
    used = [row["method"] for row in summary["methods"] if row["lambda"] is not None]
    chart = over_lambda(summary["methods"]) if rows else None
    return {"rows": rows, "methods": ", ".join(used), "chart": chart}


def _prompts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], Rows]]:
    """Returns title, head and rows of the tables by prompt that have any value."""
    if len(rows) < 2:
        return []
    head = ["prompt", *rows[0]["methods"]]
    tables = []
    for title, value in (
        ("Free of Janus, by prompt", lambda m: _rate(m["free"])),
        ("IV - IQ, by prompt", lambda m: _mean(m["means"]["information"])),
        ("PSNR, by prompt", lambda m: _mean(m["means"]["psnr"])),
    ):
        body: Rows = [[r["prompt"], *map(value, r["methods"].values())] for r in rows]
        if any(found is not None for _, *cells in body for found in cells):
            tables.append((title, head, body))
    return tables


def _turntables(
    records: Sequence[Record], summary: Mapping[str, Any], out: Path
) -> list[tuple[str, list[tuple[int, list[dict[str, Any]]]]]]:
    """Returns a grid of turntables for each prompt: seeds down, methods across."""
    names = [row["method"] for row in summary["methods"]]
    at = {(r["prompt"], r["seed"], r["method"]): r for r in records}
    seeds = list(dict.fromkeys(record["seed"] for record in records))
    prompts = [row["prompt"] for row in summary["prompts"]]
    return [
        (prompt, [(seed, [_card(at[prompt, seed, n], out) for n in names]) for seed in seeds])
        for prompt in prompts
    ]


def _card(record: Record, out: Path) -> dict[str, Any]:
    path = out / record["folder"] / CARD
    if record["status"] != "done" or not path.is_file():
        nothing = {"image": None, "kind": "", "caption": ""}
        return nothing | {"status": record["status"], "method": record["method"]}
    evaluation = record["evaluation"]
    janus, scores = evaluation.get("janus"), evaluation.get("inception")
    caption = [] if janus is None else [f"{janus['faces']} face{'s' * (janus['faces'] != 1)}"]
    caption += [] if scores is None else [f"{scores['information']:.2f} nats"]
    run = out / record["folder"]
    page = run / "viewer.html" if (run / "viewer.html").is_file() else run
    return {
        "method": record["method"],
        "link": quote(page.relative_to(out).as_posix()),
        "image": base64.b64encode(path.read_bytes()).decode(),
        "kind": "" if janus is None else "free" if janus["free"] else "janus",
        "alt": f"{record['prompt']}, {record['method']}, seed {record['seed']}, turning",
        "caption": ", ".join(caption),
    }


def _rate(rate: Mapping[str, Any] | None) -> Cell:
    if rate is None:
        return None
    said = f"{rate['count']} of {rate['of']}"
    if rate["of"] == 1:
        return said
    return said, f"{100 * rate['low']:.0f} to {100 * rate['high']:.0f} %"


def _mean(mean: Mapping[str, Any] | None) -> Cell:
    if mean is None:
        return None
    said = f"{mean['mean']:.3g}"
    return said if mean["of"] == 1 else (said, f"{mean['low']:.3g} to {mean['high']:.3g}")


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
