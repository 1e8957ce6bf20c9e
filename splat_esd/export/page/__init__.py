"""One HTML page of results: their splats, how they grew, how they were made.

Everything is inside, splats as .spz; it opens from disk and asks no network. page.html is the
frame, splats.js the rasteriser in WebGL 2, page.js the rest.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from splat_esd.export.images import DISTANCE, portrait_frame
from splat_esd.formats.atomic import replacing
from splat_esd.formats.frame import UNIT_BALL, viewing_frame
from splat_esd.formats.frame import Frame as Ball
from splat_esd.formats.spz import pack_spz
from splat_esd.gaussians import Gaussians

FRAMES_MAX = 24  # of a timeline
RESULTS_MAX = 12  # more canvases than this no browser draws at once
_MIME = {".png": "image/png", ".webp": "image/webp"}


@dataclass(frozen=True)
class Frame:
    """The splats at one time of the training, as `pack_spz` packs them."""

    label: str
    spz: bytes
    step: int | None


@dataclass(frozen=True)
class Result:
    """What the page tells of one splat.

    Arguments:
        title: The prompt, or the file's name.
        facts: How it was made: name and value.
        settings: All of them, as text.
        frames: The training in order; the last is the result.
        curves: What was measured on the way: name to (step, value), two points or more.
        scores: What was measured at the end: name and value.
        pictures: Name to a .png or .webp.
        files: Names of the files that lie beside the page.
        ball: What the camera looks at.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""
    frames: Sequence[Frame] = ()
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    scores: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)
    files: Sequence[str] = ()
    ball: Ball = UNIT_BALL


def with_final(about: Result, gaussians: Gaussians) -> Result:
    """Ends a result's timeline with its final splats, and looks at these; those without a timeline
    fill the unit ball.

    Raises:
        ValueError: If there are no splats or a value is not finite.
    """
    last = max((points[-1][0] for points in about.curves.values()), default=None)
    earlier = [f for f in about.frames if last is None or f.step is None or f.step < last]
    label = "the splats" if last is None else f"step {last}"
    # The timeline is stored as it was trained, and the last step must not jump.
    placed = (UNIT_BALL if about.frames else viewing_frame(gaussians)).place(gaussians)
    final = Frame(label, pack_spz(placed, "the page"), last)
    frames = [*thinned(earlier, FRAMES_MAX), final]
    return replace(about, frames=frames, ball=portrait_frame(placed))


def thinned(items: Sequence[Any], most: int) -> list[Any]:
    """Keeps the first, the last and evenly chosen ones between."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def write_page(results: Sequence[Result], path: Path | str, *, title: str) -> Path:
    """Writes the page, all at once or not at all.

    Arguments:
        results: Side by side, seen by one camera, trained along one timeline.
    Raises:
        ValueError: If there are no results, or more than a browser can draw.
        EnvironmentProblem: If the disk does not take the file.
    """
    if not 1 <= len(results) <= RESULTS_MAX:
        raise ValueError(f"a page shows 1 to {RESULTS_MAX} results, got {len(results)}.")
    told = {"results": [_told(result) for result in results], "distance": DISTANCE}
    here = Path(__file__).parent
    parts = {
        "title": html.escape(title),
        "style": _read(here / "page.css"),
        "program": _read(here / "splats.js") + _read(here / "page.js"),
        # Inside a script element only "</" and "<!" mean anything to the browser.
        "results": json.dumps(told).replace("<", "\\u003c"),
    }
    before, *rest = _read(here / "page.html").split("{{")
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(before)
        for piece in rest:
            name, after = piece.split("}}", 1)
            file.write(parts[name])
            file.write(after)
    return Path(path)


def _told(result: Result) -> dict[str, object]:
    return {
        "title": result.title,
        "facts": dict(result.facts),
        "settings": result.settings,
        "files": list(result.files),
        # The page's axes: y is up, the front faces +z.
        "frame": {"center": result.ball.center[[1, 2, 0]].tolist(), "radius": result.ball.radius},
        "scores": dict(result.scores),
        "curves": {name: list(points) for name, points in result.curves.items()},
        "frames": [
            {"label": frame.label, "step": frame.step, "spz": _base64(frame.spz)}
            for frame in result.frames
        ],
        "pictures": {
            name: f"data:{_MIME[path.suffix]};base64,{_base64(path.read_bytes())}"
            for name, path in result.pictures.items()
        },
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
