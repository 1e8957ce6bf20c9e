"""The report: one page that needs nothing else, with the turntables side by side."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from splat_esd.study.cell import CARD
from splat_esd.study.charts import by_method, over_lambda
from splat_esd.study.statistics import CONFIDENCE
from splat_esd.study.summary import CALLED, METRICS, Record

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff;
       max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e4e7eb; text-align: right;
         vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
small { color: #616e7c; } pre { background: #f5f7fa; padding: .8rem; overflow-x: auto; }
.cards td, .cards th { text-align: center; border: 0; padding: .2rem; }
.cards img { display: block; width: 128px; height: 128px; border: 3px solid #cbd2d9; }
.cards .free img { border-color: #3c8d53; } .cards .janus img { border-color: #d1495b; }
.none { width: 128px; height: 128px; border: 3px dashed #cbd2d9; color: #616e7c;
        display: flex; align-items: center; justify-content: center; font-size: 12px; }
"""


def page(path: Path, results: Mapping[str, Any], *, out: Path) -> str:
    """Returns the page of a study's results, whose cells lie under `out`, titled by `path`."""
    summary, records = results["summary"], results["cells"]
    parts = [
        f"<h1>Study {escape(path.stem)}</h1>",
        _opening(results),
        *_methods(summary["methods"]),
        *_pairs(summary["pairs"]),
        *_trends(summary),
        *_prompts(summary["prompts"]),
        *_turntables(records, summary, out),
        *_failures(records),
        *_closing(results),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Study {escape(path.stem)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _opening(results: Mapping[str, Any]) -> str:
    count = {status: 0 for status in ("done", "failed", "not evaluated", "missing")}
    for record in results["cells"]:
        count[record["status"]] += 1
    told = ", ".join(f"{n} {status}" for status, n in count.items() if n)
    return (
        f"<p>{len(results['cells'])} runs: {told}. Intervals are of {CONFIDENCE:.0%}: Wilson's for "
        "rates; the percentile bootstrap's over runs for means, too narrow for fewer than ten.</p>"
    )


def _methods(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    metrics = [m for m in METRICS if any(row["means"][m] for row in rows)]
    head = ["method", "runs", "free of Janus", "two-faced", "faceless", "mirrored"]
    head += ["all right", *(METRICS[m][2] for m in metrics)]
    body = [
        [
            f"{escape(row['method'])}<br><small>{escape(' '.join(row['settings']))}</small>",
            f"{row['done']} of {row['runs']}",
            *(_rate(row[called]) for called in CALLED),
            _rate(row["right"]),
            *(_mean(row["means"][m]) for m in metrics),
            "-" if row["seconds"] is None else f"{row['seconds'] / 60:.1f}",
        ]
        for row in rows
    ]
    yield "<h2>Methods</h2>" + _table([*head, "minutes"], body)
    chart = by_method(rows)
    if chart:
        yield f'<div class="wide">{chart}</div>'
    meanings = "; ".join(f"<b>{METRICS[m][2]}</b> {METRICS[m][3]}" for m in metrics)
    yield (
        "<p><small><b>Free of Janus</b>: exactly one face, over no more than 180 degrees, in 24 "
        "judged views; what looks alike from all sides counts as free. <b>Two-faced</b>: more "
        "than one face, or one over more than 180 degrees. <b>Faceless</b>: none from any side. "
        "<b>Mirrored</b>: its sides come in the wrong order, as of a body that stands backwards. "
        "<b>All right</b>: seen from the front it is what was asked for, in colour and with what "
        f"it wears. {meanings}.</small></p>"
    )


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if not pairs:
        return
    body = [
        [
            f"{escape(p['a'])} / {escape(p['b'])}",
            f"{100 * p['difference']:+.0f} points",
            _chance(p["p"]),
            _chance(p["p_holm"]),
        ]
        for p in pairs
    ]
    yield "<h2>Do the Janus-free rates differ?</h2>"
    yield _table(["methods", "second minus first", "Fisher's exact p", "p after Holm"], body)


def _trends(summary: Mapping[str, Any]) -> Iterable[str]:
    if not summary["trends"]:
        return
    body = [
        [
            "free of Janus" if t["metric"] == "free" else METRICS[t["metric"]][2],
            f"{t['rho']:+.2f}",
            f"{t['low']:+.2f} to {t['high']:+.2f}",
            str(t["of"]),
        ]
        for t in summary["trends"]
    ]
    used = [row["method"] for row in summary["methods"] if row["lambda"] is not None]
    yield "<h2>Does it grow with lambda?</h2>"
    yield _table(["number", "Spearman's rho", "interval", "runs"], body)
    yield f"<p><small>Over the runs of {escape(', '.join(used))}; VSD has lambda 0.</small></p>"
    chart = over_lambda(summary["methods"])
    if chart:
        yield f'<div class="wide">{chart}</div>'


def _prompts(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if len(rows) < 2:
        return
    for title, cell in (
        ("Free of Janus, by prompt", lambda m: _rate(m["free"])),
        ("IV - IQ, by prompt", lambda m: _mean(m["means"]["information"])),
        ("PSNR, by prompt", lambda m: _mean(m["means"]["psnr"])),
    ):
        body = [[escape(r["prompt"]), *map(cell, r["methods"].values())] for r in rows]
        if any(text != "-" for _, *texts in body for text in texts):
            yield f"<h2>{title}</h2>" + _table(["prompt", *map(escape, rows[0]["methods"])], body)


def _turntables(records: Sequence[Record], summary: Mapping[str, Any], out: Path) -> Iterable[str]:
    """Yields a grid of turntables for each prompt: seeds down, methods across."""
    yield "<h2>Turntables</h2><p><small>Green: free of Janus; red: not.</small></p>"
    names = [row["method"] for row in summary["methods"]]
    at = {(r["prompt"], r["seed"], r["method"]): r for r in records}
    seeds = dict.fromkeys(record["seed"] for record in records)
    for row in summary["prompts"]:
        yield f'<h3>{escape(row["prompt"])}</h3><div class="wide"><table class="cards">'
        yield "<tr><th></th>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"
        for seed in seeds:
            cards = (_card(at[row["prompt"], seed, name], out) for name in names)
            yield f"<tr><td>seed {seed}</td>{''.join(cards)}</tr>"
        yield "</table></div>"


def _card(record: Record, out: Path) -> str:
    path = out / record["folder"] / CARD
    if record["status"] != "done" or not path.is_file():
        return f'<td><div class="none">{record["status"]}</div></td>'
    evaluation = record["evaluation"]
    janus, scores = evaluation.get("janus"), evaluation.get("inception")
    told = [] if janus is None else [f"{janus['faces']} face{'s' * (janus['faces'] != 1)}"]
    told += [] if scores is None else [f"{scores['information']:.2f} nats"]
    kind = "" if janus is None else "free" if janus["free"] else "janus"
    picture = base64.b64encode(path.read_bytes()).decode()
    alt = f"{record['prompt']}, {record['method']}, seed {record['seed']}, turning"
    return (
        f'<td class="{kind}"><img src="data:image/webp;base64,{picture}" alt="{escape(alt)}">'
        f"<small>{', '.join(told)}</small></td>"
    )


def _failures(records: Sequence[Record]) -> Iterable[str]:
    failed = [record for record in records if record["status"] == "failed"]
    if failed:
        rows = [[escape(r["folder"]), escape(r["error"])] for r in failed]
        yield "<h2>Failures</h2>" + _table(["run", "why"], rows)


def _closing(results: Mapping[str, Any]) -> Iterable[str]:
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    yield "<h2>How it was made</h2>"
    yield f"<pre>{escape(results['command'])}</pre><pre>{escape(results['file'])}</pre>"
    yield f"<p><small>{escape(versions)}. Every number stands in results.json.</small></p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{name}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{lines}</table></div>'


def _rate(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return "-"
    return (
        f"{rate['count']} of {rate['of']}<br>"
        f"<small>{100 * rate['low']:.0f} to {100 * rate['high']:.0f} %</small>"
    )


def _mean(mean: Mapping[str, Any] | None) -> str:
    if mean is None:
        return "-"
    return f"{mean['mean']:.3g}<br><small>{mean['low']:.3g} to {mean['high']:.3g}</small>"


def _chance(p: float) -> str:
    return "&lt; 0.001" if p < 0.001 else f"{p:.3f}"
