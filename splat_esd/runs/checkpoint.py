"""Checkpoints: written whole or not at all, verified before they are believed."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from splat_esd.errors import UsageError
from splat_esd.formats.atomic import replacing

KEPT = 2
_DIGEST = 65  # hex digits of SHA-256 and a newline, before the payload


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes the state after `step` steps under its final name in one rename; keeps the last two.

    The file is the SHA-256 of the rest, a newline, and `torch.save`'s bytes.
    """
    buffer = io.BytesIO()
    torch.save({"step": step, **state}, buffer)
    payload = buffer.getvalue()
    path = folder / f"step-{step:06d}.pt"
    with replacing(path) as part, part.open("wb") as file:
        file.write(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
        file.flush()
        os.fsync(file.fileno())
    for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
        old.unlink()
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest checkpoint of a run, or None."""
    return max(folder.glob("step-*.pt"), default=None)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint back, on the CPU.

    Raises:
        UsageError: If the file is damaged; it says what to do.
    """
    data = path.read_bytes()
    payload = data[_DIGEST:]
    if data[: _DIGEST - 1] != hashlib.sha256(payload).hexdigest().encode():
        raise UsageError(
            f"checkpoint {path} is damaged (its checksum does not match); delete it to continue "
            "from the one before, or delete the run folder to start again."
        )
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
