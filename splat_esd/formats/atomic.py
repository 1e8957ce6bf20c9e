"""Writing a file in one move: it is complete, or the old one is still there."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from splat_esd.errors import EnvironmentProblem

_PART = re.compile(r"\..+-[0-9a-f]{8}(\.\w+)?")  # the names that `replacing` gives


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what was written there takes its name at the end.

    After an exception the temporary file is gone and an older file under `path` is as it was.

    Raises:
        EnvironmentProblem: If the disk or its permissions forbid writing.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes what a killed process left half written below a folder in which nobody else writes
    now.
    """
    for path in folder.rglob(".*"):
        if _PART.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Writes a text file in one move.

    Raises:
        EnvironmentProblem: If the disk or its permissions forbid writing.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
