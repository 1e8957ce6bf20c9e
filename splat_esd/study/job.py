"""One run of a study: prepare, generate unless done, evaluate; a failure stops no other."""

import gc
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from splat_esd import console
from splat_esd.config.load import RESUMABLE
from splat_esd.config.yaml_file import read_yaml_file
from splat_esd.errors import SplatError, UsageError
from splat_esd.export.images import render_turntable
from splat_esd.formats.atomic import replacing
from splat_esd.formats.read import open_splats
from splat_esd.metrics.evaluate import evaluate_run
from splat_esd.runs.folder import RunFolder
from splat_esd.runs.generate import generate
from splat_esd.runs.lock import hold
from splat_esd.study.experiment import Cell

CARD = "card.webp"
_CARD_VIEWS, _CARD_SIZE, _CARD_MILLISECONDS = 24, 256, 150
_HARMLESS = {*RESUMABLE, "out"}


@dataclass(frozen=True)
class Worker:
    """The work of one process on each of its cells.

    Arguments:
        threads: Of this process, so that all together are as many as there are cores.
    """

    threads: int
    classifier: Path | None
    clip: Path | None

    def __call__(self, cell: Cell) -> str | None:
        """Makes and evaluates a cell unless that is done, or another process is about to; returns
        why it failed, or None.

        What the run says goes to log.txt in its folder.

        Raises:
            KeyboardInterrupt: After Ctrl-C, once the run is saved.
        """
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with _claim(cell) as mine:
                return self._make_and_log(cell) if mine and not is_done(cell) else None
        except (SplatError, OSError) as error:
            return str(error)
        finally:
            torch.set_num_threads(threads)
            gc.collect()  # a run's graph holds itself; the next run needs its memory

    def _make_and_log(self, cell: Cell) -> str | None:
        prepare(cell)
        with (cell.folder / "log.txt").open("a", encoding="utf-8") as log:
            with redirect_stdout(log), redirect_stderr(log), console.logged(log):
                return self._make(cell)

    def _make(self, cell: Cell) -> str | None:
        try:
            if not is_made(cell):
                generate(cell.config.model_copy(update={"resume": cell.folder}))
            if not is_evaluated(cell):
                write_card(cell.folder)
                evaluate_run(cell.folder, classifier=self.classifier, clip=self.clip)
        except Exception as error:
            traceback.print_exc()
            return str(error) or type(error).__name__
        return None


@contextmanager
def _claim(cell: Cell) -> Iterator[bool]:
    """Yields whether the cell is this process's: of all that share the folder, on any machine, one
    makes it, and a dead one's claim is taken over.
    """
    folder = cell.folder.with_name(f"{cell.folder.name}.claim")
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder) as mine:
        yield mine
    with suppress(OSError):  # another may hold it now
        folder.rmdir()


def prepare(cell: Cell) -> None:
    """Creates the cell's folder with its config.yaml, so that the run's place is fixed.

    Raises:
        UsageError: If another configuration has been there before.
    """
    check(cell)
    cell.folder.mkdir(parents=True, exist_ok=True)
    if not is_made(cell):
        RunFolder(cell.folder).write_config(cell.config)


def check(cell: Cell) -> None:
    """Raises if the folder holds a run of other settings.

    Raises:
        UsageError: Naming the setting.
    """
    path = RunFolder(cell.folder).settings
    if not path.is_file():
        return
    saved = read_yaml_file(path)
    wanted = cell.config.model_dump(mode="json", by_alias=True)
    for key, before, now in _differences(saved, wanted):
        if key.split(".")[0] not in _HARMLESS:
            raise UsageError(
                f"{cell.folder} holds a run with {key} {before!r}, not {now!r}; choose another "
                "out=, or remove that folder."
            )


def is_made(cell: Cell) -> bool:
    """Returns whether the cell's run is finished."""
    there = RunFolder(cell.folder).splat.is_file()
    return there and RunFolder(cell.folder).is_finished


def is_evaluated(cell: Cell) -> bool:
    """Returns whether the present splat has been evaluated."""
    report, splat = RunFolder(cell.folder).evaluation, RunFolder(cell.folder).splat
    return report.is_file() and report.stat().st_mtime >= splat.stat().st_mtime


def is_done(cell: Cell) -> bool:
    """Returns whether the cell is finished and evaluated."""
    return is_made(cell) and is_evaluated(cell)


def write_card(folder: Path) -> Path:
    """Writes a small turntable of a run's splat, for the report, and returns its path."""
    from PIL import Image

    splats = open_splats(RunFolder(folder).splat)
    pictures, _ = render_turntable(splats, _CARD_VIEWS, size=_CARD_SIZE)
    first, *rest = [Image.fromarray(view) for view in pictures.over_grey().numpy()]
    options = {"duration": _CARD_MILLISECONDS, "loop": 0, "quality": 55, "method": 4}
    with replacing(folder / CARD) as part:
        first.save(part, format="WEBP", save_all=True, append_images=rest, **options)
    return folder / CARD


def _differences(saved: dict, wanted: dict, prefix: str = "") -> Sequence[tuple]:
    """Returns the dotted keys whose values differ, with both values.

    A key that only one has came with another version of the program, and says nothing.
    """
    found: list[tuple] = []
    for key in sorted(saved.keys() & wanted.keys()):
        a, b = saved[key], wanted[key]
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((prefix + key, a, b))
    return found
