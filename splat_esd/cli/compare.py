"""Several results on one page: splats under one camera, turntables, sheets, scores."""

from collections.abc import Sequence
from pathlib import Path

from splat_esd import console
from splat_esd.errors import UsageError
from splat_esd.export.page import RESULTS_MAX, write_page
from splat_esd.runs.summary import read_result


def main(arguments: Sequence[str]) -> None:
    """Writes the page and says where it is.

    Raises:
        UsageError: If there are fewer than two results, too many, or one has no splats.
    """
    out, paths = Path("compare.html"), []
    for argument in arguments:
        if argument.startswith("out="):
            out = Path(argument.removeprefix("out=")).expanduser()
        else:
            paths.append(Path(argument).expanduser())
    if not 2 <= len(paths) <= RESULTS_MAX:
        raise UsageError(
            f"compare takes 2 to {RESULTS_MAX} run folders or splat .ply, got {len(paths)}; "
            "see splat-esd compare --help."
        )
    if out.is_dir():
        raise UsageError(f"out: {out} is a folder; name the page, as in out={out / 'compare.html'}")
    results, distances = zip(*map(read_result, paths), strict=True)
    write_page(results, out, title="splat-esd: a comparison", distance=max(distances))
    console.files_table([(out, "a browser; everything is inside")])
