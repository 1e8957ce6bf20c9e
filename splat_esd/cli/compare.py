"""Several results on one page: splats under one camera, turntables, sheets, scores."""

from splat_esd import console
from splat_esd.config.commands import CompareArguments
from splat_esd.errors import UsageError
from splat_esd.export.page import RESULTS_MAX, write_page
from splat_esd.runs.summary import read_result


def main(asked: CompareArguments) -> None:
    """Writes the page and prints where it is.

    Raises:
        UsageError: If there are fewer than two results, too many, or one has no splats.
    """
    out, paths = asked.out, asked.results
    if not 2 <= len(paths) <= RESULTS_MAX:
        raise UsageError(
            f"compare takes 2 to {RESULTS_MAX} run folders or splat files, got {len(paths)}; "
            "see splat-esd compare --help."
        )
    if out.is_dir():
        raise UsageError(f"out: {out} is a folder; name the page, as in out={out / 'compare.html'}")
    results = [read_result(path, asked.imported) for path in paths]
    write_page(results, out, title="splat-esd: a comparison")
    console.files_table([(out, "a browser; everything is inside")])
