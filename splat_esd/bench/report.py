"""The measured figures as table rows; kernels/README.md shows the same rows."""

from collections.abc import Callable, Sequence
from typing import Any

from splat_esd.bench.scenes import short

Figures = Sequence[dict[str, Any]]
Lines = list[list[str]]

SCENES = (
    "scene", "opacity", "Mpairs", "fwd ms", "Gpairs/s", "of FMA", "fwd+bwd ms", "Gpairs/s",
    "of FMA", "MB", "PyTorch fwd", "fwd+bwd",
)  # fmt: skip
COSTS = ("with / without", "scene", "fwd", "fwd+bwd")
CURVE = ("scene", "fwd ms", "per 10k", "fwd+bwd ms", "per 10k")
BUSY = ("threads", "busy processes", "alone ms", "beside them ms", "slower", "fair share")


def table_lines(rows: Figures) -> Lines:
    """Returns one row per scene and opacity."""
    return [
        [
            _scene(row),
            row["scene"]["opacity"],
            f"{row['pairs'] / 1e6:.3g}",
            *_pass(row["forward"]),
            *_pass(row["forward_backward"]),
            _megabytes(row["memory_growth_bytes"]),
            *(
                f"x {_digits(row['reference'][name]['ratio'])}" if row["reference"] else "-"
                for name in ("forward", "forward_backward")
            ),
        ]
        for row in rows
    ]


def costs_lines(rows: Figures) -> Lines:
    """Returns one row per comparison."""
    return [
        [
            row["what"],
            _scene(row),
            *(
                f"{row[name]['ratio']:.2f}" if name in row else "-"
                for name in ("forward", "forward_backward")
            ),
        ]
        for row in rows
    ]


def curve_lines(rows: Figures) -> Lines:
    """Returns one row per number of Gaussians."""
    return [
        [
            _scene(row),
            *(
                _digits(row[name][unit])
                for name in ("forward", "forward_backward")
                for unit in ("ms", "ms_per_10k")
            ),
        ]
        for row in rows
    ]


def busy_lines(rows: Figures) -> Lines:
    """Returns one row per number of threads."""
    return [
        [
            str(row["threads"]),
            str(row["processes"]),
            _digits(row["quiet_ms"]),
            _digits(row["busy_ms"]),
            f"x {row['slowdown']:.2f}",
            f"x {row['fair_slowdown']:.2f}",
        ]
        for row in rows
    ]


TABLES: dict[str, tuple[str, Sequence[str], Callable[[Figures], Lines]]] = {
    "table": ("Scenes", SCENES, table_lines),
    "costs": ("What options cost", COSTS, costs_lines),
    "curve": ("More Gaussians", CURVE, curve_lines),
    "busy": ("A busy machine, forward and backward", BUSY, busy_lines),
}


def _scene(row: dict[str, Any]) -> str:
    return f"{short(row['scene']['count'])}, {row['scene']['size']}²"


def _pass(figures: dict[str, float]) -> list[str]:
    return [
        _digits(figures["ms"]),
        f"{figures['pairs_per_second'] / 1e9:.2f}",
        f"{100 * figures['fraction_of_bound']:.0f} %",
    ]


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f}"


def _digits(value: float) -> str:
    """Writes three digits, and all those before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
