"""What a person is told around a run: it is there already, how good it is, what to open."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from splat_esd import console
from splat_esd.config.load import Config
from splat_esd.export.page import Frame, Result, with_final, write_page
from splat_esd.formats.read import open_splats
from splat_esd.metrics.evaluate import evaluate_run
from splat_esd.runs.folder import RunFolder, finished_run
from splat_esd.runs.summary import describe

_PAGE = "viewer.html"


def already_made(config: Config) -> bool:
    """Tells of a finished run of the very same settings, if there is one."""
    if config.resume is not None or config.seed is None:
        return False
    folder = finished_run(config)
    if folder is None:
        return False
    console.note(
        f"this was made before, bit for bit: {folder}. For another one: seed=null, or a seed other "
        f"than {config.seed}."
    )
    _tell_what_to_open(folder)
    return True


def tell_outcome(folder: Path, config: Config) -> None:
    """Judges a run of the zoo, shows it beside a start of its own, and names the file to open."""
    if config.prior.name == "zoo":
        with console.busy("judging"):
            report = evaluate_run(folder)
        console.note(verdict(report))
    if config.init.path is not None:
        page = write_before_and_after(folder, config.init.path.name)
        console.note("before and after, side by side:")
        console.command(str(page))
    _tell_what_to_open(folder)


def write_before_and_after(folder: Path, start: str) -> Path:
    """Writes a page of what a run started from and what it became, seen by one camera."""
    run = RunFolder(folder)
    first = Frame("the start", run.timeline_file(0).read_bytes(), None)
    after = with_final(replace(describe(run.splat), frames=()), open_splats(run.splat))
    before = replace(Result(start), frames=[first], ball=after.ball)
    return write_page([before, after], folder / "before-after.html", title=after.title)


def verdict(report: Mapping[str, Any]) -> str:
    """Says what `evaluate` found in a sentence: faces, mirrored, what was asked for."""
    janus, right = report["janus"], report["right"]
    count = janus["faces"]
    said = f"{count} face{'s' * (count != 1)}"
    if count == 0 and janus["free"]:
        said = "alike from all sides"
    elif count == 1:
        said = "one face" if janus["free"] else f"one face, but over {janus['arc']:.0f} degrees"
    if janus["mirrored"] and count:
        said += ", mirrored (the body stands backwards)"
    names = {"accessory": "what it wears", "accessory_color": "the colour of what it wears"}
    names["color"] = "colour"
    wrong = [names.get(name) or name for name, fine in right.items() if not fine]
    matches = f"not as asked: {', '.join(wrong)}" if wrong else "as asked"
    return f"the judge sees: {said}; {matches}. (Another try: seed=null.)"


def _tell_what_to_open(folder: Path) -> None:
    page = folder / _PAGE
    if page.is_file():
        console.note("open in a browser:")
        console.command(str(page))
