"""Plots in one style; the one door to matplotlib, which is imported when something is drawn."""

import io
from pathlib import Path
from typing import Any

from splat_esd.formats.atomic import replacing

COLORS = ("#1b6ca8", "#d1495b", "#3c8d53", "#e09f3e", "#6a4c93", "#4f5d75", "#00798c", "#8c5e58")
GREY = "#8a8f98"


def figure(width: float, height: float) -> Any:
    """Returns an empty matplotlib figure, in inches; it belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: Any, *, title: str = "", x: str = "", y: str = "") -> None:
    """Gives axes the house style and names."""
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7, color=GREY)
    axes.grid(True, color="#e6e8eb", linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def write_png(figure: Any, path: Path) -> None:
    """Writes a figure at 150 dots per inch.

    Raises:
        EnvironmentProblem: If the disk does not take it.
    """
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=150, metadata={"Software": None})


def svg(figure: Any) -> str:
    """Returns a figure as an <svg> element with letters as text, to stand in a page."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "splat-esd"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
