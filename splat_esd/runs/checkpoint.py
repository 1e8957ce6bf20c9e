"""Checkpoints: written whole or not at all, verified before they are believed."""

import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

import torch

from splat_esd.errors import UsageError
from splat_esd.formats.atomic import replacing

KEPT = 2
_DIGEST = 65  # hex digits of SHA-256 and a newline, before the payload
_NAME = re.compile(r"step-(\d{6,12})\.pt")


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
    for old in checkpoints(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run, the newest first; other files are passed over."""
    found = {path: _NAME.fullmatch(path.name) for path in folder.glob("step-*.pt")}
    steps = {path: int(match[1]) for path, match in found.items() if match and path.is_file()}
    return sorted(steps, key=steps.__getitem__, reverse=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest checkpoint of a run, or None."""
    return next(iter(checkpoints(folder)), None)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint back, on the CPU.

    Raises:
        UsageError: If the file is damaged, or holds something else.
    """
    data = path.read_bytes()
    payload = data[_DIGEST:]
    if data[: _DIGEST - 1] != hashlib.sha256(payload).hexdigest().encode():
        raise UsageError(f"checkpoint {path} is damaged: its checksum does not match.")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise whatever they stumble over
        raise UsageError(
            f"checkpoint {path} holds no state of a run ({type(error).__name__})."
        ) from None
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or type(state.get("step")) is not int or state["step"] < 0:
        raise UsageError(f"checkpoint {path} holds no state of a run.")
    return state


def set_aside(path: Path) -> None:
    """Renames a checkpoint that cannot be used, so that it neither counts nor is lost."""
    path.rename(path.with_name(f"{path.name}.damaged"))
