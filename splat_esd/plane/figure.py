"""Both experiments as one figure: measurements as dots, closed forms as lines."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from splat_esd.plane import gaussian, janus
from splat_esd.plots import COLORS, GREY, tidy
from splat_esd.plots import figure as new_figure

_FINE = 200  # points of a line


def draw(gaussians: Sequence[dict], rings: Sequence[dict], rectified: Sequence[dict]) -> Any:
    """Returns the figure of both experiments; methods in the order given."""
    figure = new_figure(10.5, 8.2)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    left, right = above.subplots(1, 2, width_ratios=(1.25, 1))
    _traces(left, gaussians)
    _ellipses(right, gaussians)
    lines, pictures = below.subfigures(1, 2, width_ratios=(1.25, 1))
    _entropies(lines.subplots(), rings, rectified)
    _places(pictures, rings)
    return figure


def name(lam: float | None) -> str:
    """Returns a method's name: None is SDS, lambda = 0 is VSD."""
    if lam is None:
        return "SDS"
    return "VSD" if lam == 0 else f"ESD {lam:g}"


def _traces(axes: Any, rows: Sequence[dict]) -> None:
    lam = torch.linspace(0, 1, _FINE).tolist()
    total = gaussian.COV.trace()
    line = [(gaussian.closed_form(v).trace() / total).item() for v in lam]
    axes.plot(lam, line, color=GREY, label="closed form")
    esd = [row for row in rows if row["lambda"] is not None]
    axes.plot(
        [row["lambda"] for row in esd],
        [row["trace_ratio"] for row in esd],
        "o", color=COLORS[0], markersize=5, label="VSD (0), ESD",
    )  # fmt: skip
    sds = [row["trace_ratio"] for row in rows if row["lambda"] is None]
    axes.plot([0] * len(sds), sds, "x", color=COLORS[1], markersize=9, label="SDS")
    axes.legend(fontsize=7, frameon=False)
    tidy(axes, title="One Gaussian: variance kept", x="lambda", y="trace of covariance / target's")


def _ellipses(axes: Any, rows: Sequence[dict]) -> None:
    """Draws the one-standard-deviation ellipses of the target and of each method's result."""
    axes.fill(*_ellipse(gaussian.COV), color="#eceef1", label="target")
    for row, color in zip(_spread(rows, 4), COLORS, strict=False):
        found = torch.tensor(row["covariance"])
        axes.plot(*_ellipse(found), color=color, label=name(row["lambda"]), linewidth=1.4)
        ideal = _ellipse(torch.tensor(row["closed_form"]))
        axes.plot(*ideal, ":", color="black", linewidth=0.8)
    axes.set_aspect("equal")
    axes.legend(fontsize=7, frameon=False, loc="upper left")
    tidy(axes, title="found (colour), closed form (dotted)")


def _ellipse(cov: torch.Tensor) -> list[list[float]]:
    values, vectors = torch.linalg.eigh(cov)
    turn = torch.linspace(0, 2 * math.pi, _FINE)
    circle = torch.stack([turn.cos(), turn.sin()])
    points = vectors @ (values.clamp_min(0).sqrt()[:, None] * circle)
    return (points + gaussian.MEAN[:, None]).tolist()


def _entropies(axes: Any, rows: Sequence[dict], rectified: Sequence[dict]) -> None:
    """Plots entropy against peakedness; the prior's own entropy bounds every lambda, unless it is
    rectified: then no peakedness counts.
    """
    peaks = sorted({row["peak"] for row in rows})
    fine = torch.logspace(math.log10(peaks[0]), math.log10(peaks[-1]), _FINE).tolist()
    ceiling = [janus.entropy(janus.preference(peak)).item() for peak in fine]
    top = math.log(janus.MODES)
    axes.fill_between(fine, ceiling, top, color="#eceef1", label="out of reach of lambda <= 1")
    for i, lam in enumerate(dict.fromkeys(row["lambda"] for row in rows)):
        line = [janus.entropy(janus.best(peak, lam)).item() for peak in fine]
        axes.plot(fine, line, color=COLORS[i], linewidth=0.9)
        mine = [row for row in rows if row["lambda"] == lam]
        axes.plot(
            [row["peak"] for row in mine], [row["entropy"] for row in mine],
            "x" if lam is None else "o", color=COLORS[i], label=name(lam),
            markersize=8 if lam is None else 5,
        )  # fmt: skip
    shown = [row["entropy"] for row in rectified if row["lambda"] == 1]
    for entropy in shown:
        axes.axhline(entropy, color="black", linestyle="--", linewidth=0.9, label="rectified ESD 1")
    axes.set_xscale("log", base=2)
    axes.set_xticks(peaks, [f"{peak:g}" for peak in peaks])
    axes.set_ylim(-0.1, 1.35 * top)
    axes.legend(fontsize=7, frameon=False, loc="upper left", ncols=3)
    tidy(
        axes,
        title="Janus: do the views show different sides? Lines: closed form, modes far apart",
        x="peakedness of the prior (how often it draws a front)",
        y="entropy of the views over sides, nats",
    )


def _places(figure: Any, rows: Sequence[dict]) -> None:
    """Draws the views' final positions, for a mild prior above and a peaked one below."""
    peaks = sorted({row["peak"] for row in rows})
    chosen = _spread(peaks, 2) if len(peaks) < 4 else [peaks[len(peaks) // 3], peaks[-1]]
    methods = _spread(list(dict.fromkeys(row["lambda"] for row in rows)), 3)
    grid = figure.subplots(len(chosen), len(methods), squeeze=False)
    for line, peak in zip(grid, chosen, strict=True):
        for axes, lam in zip(line, methods, strict=True):
            (row,) = [r for r in rows if r["peak"] == peak and r["lambda"] == lam]
            sizes = (400 * janus.preference(peak)).tolist()
            axes.scatter(*janus.PLACES.T.tolist(), s=sizes, color="#d9dde2", linewidths=0)
            points = torch.tensor(row["views"]).T.tolist()
            axes.scatter(*points, s=7, color=COLORS[0], alpha=0.6, linewidths=0)
            axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[])
            axes.set_title(
                f"{name(lam)}, peak {peak:g}\n{row['front']:.0%} show the front", fontsize=7
            )
            for spine in axes.spines.values():
                spine.set_visible(False)


def _spread(items: Sequence, count: int) -> list:
    """Returns up to `count` items, evenly from the first to the last."""
    if len(items) <= count:
        return list(items)
    return [items[int(i * (len(items) - 1) / (count - 1) + 0.5)] for i in range(count)]
