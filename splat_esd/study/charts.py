"""The study's numbers as plots, for the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from splat_esd.plots import COLORS, GREY, svg, tidy
from splat_esd.plots import figure as new_figure
from splat_esd.study.summary import METRICS

SHOWN = ("information", "psnr", "clip")  # the means that get a plot, where there are any


def by_method(methods: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns each method's rate and means with intervals, as <svg>; None without data."""
    panels = [("free of Janus, share of runs", [row["free"] for row in methods], "rate")]
    panels += [
        (
            f"{METRICS[metric][2]}: {METRICS[metric][3]}",
            [r["means"][metric] for r in methods],
            "mean",
        )
        for metric in SHOWN
    ]
    panels = [panel for panel in panels if any(panel[1])]
    if not panels:
        return None
    figure = new_figure(3.4 * len(panels) + 0.8, 0.32 * len(methods) + 1.0)
    names = [row["method"] for row in methods]
    for axes, (title, values, key) in zip(
        figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True
    ):
        for y, value in enumerate(values):
            if value is not None:
                _interval(axes, value, key, y)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        if key == "rate":
            axes.set_xlim(-0.03, 1.03)
        tidy(axes, title=title)
    return svg(figure)


def over_lambda(methods: Sequence[dict[str, Any]]) -> str | None:
    """Returns a plot of the Janus-free rate against lambda, as <svg>; None without two lambdas."""
    rows = [row for row in methods if row["lambda"] is not None and row["free"] is not None]
    if len({row["lambda"] for row in rows}) < 2:
        return None
    figure = new_figure(4.6, 3.0)
    axes = figure.subplots()
    for row in rows:
        free = row["free"]
        reach = [[free["rate"] - free["low"]], [free["high"] - free["rate"]]]
        axes.errorbar(
            row["lambda"],
            free["rate"],
            yerr=reach,
            fmt="o",
            color=COLORS[0],
            ecolor=GREY,
            capsize=3,
        )
        axes.annotate(
            row["method"], (row["lambda"], free["rate"]), (5, 4), textcoords="offset points",
            fontsize=7,
        )  # fmt: skip
    axes.set_ylim(-0.03, 1.03)
    tidy(axes, title="Free of Janus, 95 % intervals", x="lambda", y="share of runs")
    return svg(figure)


def _interval(axes: Any, value: dict[str, Any], key: str, y: int) -> None:
    reach = [[value[key] - value["low"]], [value["high"] - value[key]]]
    axes.errorbar(value[key], y, xerr=reach, fmt="o", color=COLORS[0], ecolor=GREY, capsize=3)
