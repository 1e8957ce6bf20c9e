"""What the program says while it runs: header, progress, notes, the table of files.

The one door to rich. On a terminal there is colour and a moving bar; anywhere else (a pipe, a log
file, a batch job) there are plain lines. Talk goes to stderr, results to stdout.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from splat_esd.errors import EnvironmentProblem


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - rich calls it while it handles the error, and would exit with 1


_talk = _Console(stderr=True, highlight=False)
_result = _Console(highlight=False)

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


def command(text: str) -> None:
    """Prints something to type, on a line of its own that is never wrapped, so it can be copied."""
    _talk.print(Text(f"  {_printable(text)}"), soft_wrap=True)


@contextmanager
def logged(file: TextIO) -> Iterator[None]:
    """Writes all that is said to a file, in plain lines."""
    global _talk, _result
    before = _talk, _result
    _talk = _result = Console(file=file, highlight=False, force_terminal=False, color_system=None)
    try:
        yield
    finally:
        _talk, _result = before


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Says what is being done while it takes long: with a moving sign and a clock on a terminal."""
    if not _talk.is_terminal:
        _line(_talk, f"{_printable(text)} ...")
        yield
        return
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()]
    with Progress(*columns, console=_talk, transient=True, refresh_per_second=4) as bar:
        bar.add_task(_printable(text), total=None)
        yield


def result(text: str) -> None:
    """Prints a line somebody may want to pipe: it goes to stdout."""
    _line(_result, _printable(text))


def files_table(files: Sequence[tuple[Path, str]]) -> None:
    """Prints each file with its size and what opens it, to stdout; a folder that holds them all is
    named once, above.

    Raises:
        FileNotFoundError: If a file is not there.
    """
    folders = {path.parent for path, _ in files}
    shared = len(folders) == 1
    if shared and folders != {Path(".")}:
        _line(_result, f"{folders.pop()}:")
    rows = [(_size(path), path.name if shared else str(path), opens) for path, opens in files]
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
    # The bar stays on this terminal while what is said goes to a log (`logged`).
    screen, before = _talk, _talk._file
    screen.file = screen.file
    told = TextColumn("{task.fields[told]}", table_column=Column(no_wrap=True))
    title = TextColumn("{task.description}", table_column=Column(no_wrap=True))
    columns = [title, BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40)), told]
    try:
        with Progress(*columns, console=screen, refresh_per_second=4, expand=True) as bar:
            yield _Bar(total, start, unit, bar)
    finally:
        screen._file = before


class _Clock:
    """Speed over the last steps, and the time the rest will take at that speed."""

    def __init__(self, total: int, start: int, unit: str):
        self.total, self.unit = total, unit
        self.marks = deque([(time.monotonic(), start)], maxlen=_RECENT)

    def tell(self, step: int, stats: Mapping[str, float | int]) -> str:
        now = time.monotonic()
        if step < self.marks[-1][1]:  # a run of a study went back to its checkpoint
            self.marks.clear()
            self.marks.append((now, step))
        then, first = self.marks[0]
        self.marks.append((now, step))
        speed = (step - first) / max(now - then, 1e-9)
        left = duration((self.total - step) / speed) if speed > 0 else "?"
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
    # As Text, so that brackets and colons in a prompt or a path are no markup. What a person reads
    # is wrapped between words; what a program may read, and every log, keeps its lines.
    wrapped = console is _talk and console.is_terminal
    try:
        console.print(Text(text, style=style), soft_wrap=not wrapped)
    except BrokenPipeError:
        if console is _result:
            raise
    except OSError as error:
        if console is _result:
            raise EnvironmentProblem(
                f"standard output takes nothing more: {error.strerror or error}. Every file that "
                "was to be listed is whole."
            ) from None


def _printable(text: str) -> str:
    """Returns the text with control characters spelled out: a prompt cannot move the cursor."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def _number(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def duration(seconds: float | int) -> str:
    """Returns a time as m:ss or h:mm:ss."""
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
