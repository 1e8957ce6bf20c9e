"""What the program says while it runs: header, progress, notes, the table of files.

The one door to rich. On a terminal there is colour and a moving bar; anywhere else (a pipe, a log
file, a batch job) there are plain lines. Talk goes to stderr, results to stdout.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

_talk = Console(stderr=True, highlight=False)
_result = Console(highlight=False)

_SECONDS_BETWEEN_LINES = 10.0
_RECENT = 50


class Meter(Protocol):
    """What `progress` gives: to be told how many steps are done, and numbers worth showing."""

    def update(self, step: int, **stats: float | int) -> None: ...


def header(rows: Mapping[str, str]) -> None:
    """Prints what is about to be done, one row for each name."""
    width = max(map(len, rows), default=0)
    if not _talk.is_terminal:
        for name, value in rows.items():
            _line(_talk, f"{name:<{width}}  {_printable(value)}")
        return
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="dim"), Text(_printable(value), overflow="fold"))
    _talk.print(Panel(table, title="splat-esd", title_align="left", border_style="cyan"))


def note(text: str) -> None:
    """Prints something good to know."""
    _line(_talk, _printable(text))


def warn(text: str) -> None:
    """Prints something that may not be what was wanted."""
    _line(_talk, f"warning: {_printable(text)}", style="yellow")


def error(text: str) -> None:
    """Prints why the program stops."""
    _line(_talk, f"error: {_printable(text)}", style="red")


def result(text: str) -> None:
    """Prints a line somebody may want to pipe: it goes to stdout."""
    _line(_result, _printable(text))


def files_table(files: Sequence[tuple[Path, str]]) -> None:
    """Prints each file with its size and what opens it, to stdout.

    Raises:
        FileNotFoundError: If a file is not there.
    """
    rows = [(_size(path), str(path), opens) for path, opens in files]
    wide = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    for size, path, opens in rows:
        _line(_result, f"{size:>{wide[0]}}  {path:<{wide[1]}}  {opens}".rstrip())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows under the names of their columns, to stdout, as Markdown has it."""
    wide = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    rule = ["-" * wide[0], *("-" * (width - 1) + ":" for width in wide[1:])]
    _line(_result, f"\n{_printable(title)}\n", style="bold")
    for first, *rest in (columns, rule, *rows):
        cells = [first.ljust(wide[0]), *map(str.rjust, rest, wide[1:])]
        _line(_result, _printable(f"| {' | '.join(cells)} |"))


@contextmanager
def progress(total: int, *, start: int = 0, unit: str = "step") -> Iterator[Meter]:
    """Shows how far a loop is, how fast, and when it will be done.

    Arguments:
        total: Steps of the whole loop.
        start: Steps done before, in a run that is resumed.
        unit: What one turn of the loop is called.
    """
    if not _talk.is_terminal:
        yield _Lines(total, start, unit)
        return
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}")]
    with Progress(*columns, console=_talk, refresh_per_second=4) as bar:
        yield _Bar(total, start, unit, bar)


class _Clock:
    """Speed over the last steps, and the time the rest will take at that speed."""

    def __init__(self, total: int, start: int, unit: str):
        self.total, self.unit = total, unit
        self.marks = deque([(time.monotonic(), start)], maxlen=_RECENT)

    def tell(self, step: int, stats: Mapping[str, float | int]) -> str:
        (then, first), now = self.marks[0], time.monotonic()
        self.marks.append((now, step))
        speed = (step - first) / max(now - then, 1e-9)
        left = _duration((self.total - step) / speed) if speed > 0 else "?"
        told = f"{speed:.3g} {self.unit}s/s  ETA {left}"
        return "  ".join([told, *(f"{name} {_number(value)}" for name, value in stats.items())])


class _Lines(_Clock):
    """A plain line now and then, and one at the end."""

    def __init__(self, total: int, start: int, unit: str):
        super().__init__(total, start, unit)
        self.spoken = -float("inf")

    def update(self, step: int, **stats: float | int) -> None:
        told, now = self.tell(step, stats), time.monotonic()
        if step < self.total and now - self.spoken < _SECONDS_BETWEEN_LINES:
            return
        self.spoken = now
        _line(_talk, f"{self.unit} {step}/{self.total}  {told}")


class _Bar(_Clock):
    """A bar that moves in place."""

    def __init__(self, total: int, start: int, unit: str, bar: Progress):
        super().__init__(total, start, unit)
        self.bar = bar
        self.task = bar.add_task(f"{unit} {start}/{total}", total=total, completed=start, told="")

    def update(self, step: int, **stats: float | int) -> None:
        told = self.tell(step, stats)
        title = f"{self.unit} {step}/{self.total}"
        self.bar.update(self.task, completed=step, description=title, told=told)


def _line(console: Console, text: str, *, style: str = "") -> None:
    # As Text, so that brackets and colons in a prompt or a path are no markup; never re-wrapped.
    console.print(Text(text, style=style), soft_wrap=True)


def _printable(text: str) -> str:
    """Returns the text with control characters spelled out: a prompt cannot move the cursor."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def _number(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _duration(seconds: float | int) -> str:
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def _size(path: Path) -> str:
    """Returns the size of a file, or of all files in a folder, in decimal units."""
    parts = path.rglob("*") if path.is_dir() else [path]
    size = float(sum(part.stat().st_size for part in parts if not part.is_dir()))
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
