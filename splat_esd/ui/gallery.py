"""What the page tells of the runs in a folder: how each stands, its pictures, its files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from splat_esd.config.yaml_file import read_yaml_file
from splat_esd.console import duration
from splat_esd.errors import UsageError
from splat_esd.runs.folder import RunFolder
from splat_esd.ui.queue import LOG, SIGN

# What is handed out, with its type and what opens it; nothing else in the folder is.
TYPES = {
    ".ply": ("application/octet-stream", "splat viewers, Unity, Unreal"),
    ".spz": ("application/octet-stream", "Spark, SuperSplat, Scaniverse"),
    ".splat": ("application/octet-stream", "viewers for the web"),
    ".usda": ("application/octet-stream", "programs with OpenUSD"),
    ".glb": ("model/gltf-binary", "Blender, Unity, Unreal, Godot"),
    ".obj": ("application/octet-stream", "modelling programs"),
    ".mtl": ("application/octet-stream", "beside the .obj"),
    ".stl": ("application/octet-stream", "3D printing"),
    ".mp4": ("video/mp4", "a video player"),
    ".webp": ("image/webp", "a browser"),
    ".png": ("image/png", "an image viewer"),
    ".html": ("text/html; charset=utf-8", "a browser, also without this page"),
    ".yaml": ("text/plain; charset=utf-8", "every setting"),
    ".json": ("application/json", "versions, times, numbers"),
    ".txt": ("text/plain; charset=utf-8", "what the run said"),
}
_HIDDEN = ("mesh.json",)  # a detail of mesh.glb
_TAIL = 8192  # bytes of a log, or of metrics, that are looked at
_known: dict[Path, tuple[object, dict[str, Any]]] = {}


def find_runs(out: Path) -> list[Path]:
    """Returns the folders of the runs under `out`, the newest first."""
    found = [path.parent for path in out.glob("*/*/config.yaml")]
    return sorted(found, key=lambda folder: (folder.name, str(folder)), reverse=True)


def tell_run(folder: Path) -> dict[str, Any]:
    """Returns what the gallery shows of a run; `status` is how it was left, see `status_of`."""
    stamp = [_changed(folder / name) for name in ("", "config.yaml", "run.json", LOG, "previews")]
    if folder not in _known or _known[folder][0] != stamp:
        _known[folder] = stamp, _read(folder)
    return _known[folder][1]


def status_of(folder: Path) -> tuple[str, str]:
    """Returns finished | interrupted | failed | new, and why it failed; whether a process works
    there now is another question.
    """
    run = RunFolder(folder).run
    status = run.get("status")
    if status == "running":  # it was killed, or goes on
        return "interrupted", ""
    if status == "failed":
        return "failed", str(run.get("why", ""))
    if status in ("finished", "interrupted"):
        return str(status), ""
    errors = [line for line in _log(folder) if line.startswith("error: ")]
    if errors:
        return "failed", errors[-1].removeprefix("error: ")
    return "new", ""


def progress_of(folder: Path) -> dict[str, Any]:
    """Returns how far a run is: step, time left, what it does beside steps, its last preview."""
    lines = _numbers(folder)
    step = lines[-1]["step"] if lines else 0
    steps = _settings(folder).get("steps")
    left = None
    if len(lines) > 1 and isinstance(steps, int) and step > lines[0]["step"]:
        spent = lines[-1]["seconds"] - lines[0]["seconds"]
        left = duration((steps - step) * spent / (step - lines[0]["step"]))
    log = _log(folder)
    said = log[-1] if log and log[-1].endswith(" ...") else ""
    previews = sorted((folder / "previews").glob("[0-9]*.png"))
    shown = f"previews/{previews[-1].name}" if previews else None
    return {"step": step, "steps": steps, "left": left, "said": said, "preview": shown}


def file_of(out: Path, address: str) -> Path | None:
    """Returns the file of a run that `prompt/run/name` stands for, or None if it is not handed out:
    outside `out`, hidden, of another type, or no file.
    """
    parts = address.split("/")
    if not 3 <= len(parts) <= 4 or any(p in ("", "..") or p[0] == "." for p in parts):
        return None
    try:
        root = out.resolve()
        path = root.joinpath(*parts).resolve()
        is_inside = path.is_relative_to(root) and path.suffix in TYPES and path.is_file()
    except (OSError, ValueError):
        return None
    is_run = (root / parts[0] / parts[1] / "config.yaml").is_file()
    return path if is_inside and is_run else None


def _read(folder: Path) -> dict[str, Any]:
    settings = _settings(folder)
    guidance, quality = settings.get("guidance") or {}, settings.get("quality") or {}
    status, why = status_of(folder)
    files = [_file(path) for path in sorted(folder.iterdir()) if _is_for_taking(path)]
    names = [file["name"] for file in files]
    return {
        "prompt": str(settings.get("prompt", folder.parent.name)),
        "seed": settings.get("seed"),
        "quality": quality.get("name"),
        "guidance": guidance.get("name"),
        "lambda": guidance.get("lambda"),
        "cfg": guidance.get("cfg_scale"),
        "status": status,
        "why": why,
        "files": sorted(files, key=lambda file: list(TYPES).index(file["suffix"])),
        "picture": "turntable.webp" if "turntable.webp" in names else None,
        "viewer": "viewer.html" in names,
        "prior": (settings.get("prior") or {}).get("name"),
        "seconds": _seconds(folder) if status == "finished" else None,
        "preview": progress_of(folder)["preview"],
    }


def _seconds(folder: Path) -> float | None:
    """Returns how long a run took, with its files; None where it does not say."""
    run = RunFolder(folder).run
    told = [run.get(f"seconds_{part}") for part in ("training", "export")]
    known = [value for value in told if isinstance(value, int | float)]
    return sum(known) if len(known) == len(told) else None


def _is_for_taking(path: Path) -> bool:
    is_kept = path.name[0] != "." and path.suffix in TYPES and path.name not in _HIDDEN
    return is_kept and path.is_file()


def _file(path: Path) -> dict[str, Any]:
    opens = TYPES[path.suffix][1]
    size = path.stat().st_size
    told = {"name": path.name, "suffix": path.suffix, "opens": opens, "bytes": size}
    return told | {"address": quote(path.name)}


def _settings(folder: Path) -> Mapping[str, Any]:
    try:
        found = read_yaml_file(folder / "config.yaml")
    except (UsageError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _numbers(folder: Path) -> list[dict[str, Any]]:
    """Returns the last lines of metrics.jsonl that tell step and seconds."""
    found = []
    for line in _tail(folder / "metrics.jsonl"):
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(told, dict) and {"step", "seconds"} <= told.keys():
            found.append(told)
    return found


def _log(folder: Path) -> list[str]:
    """Returns the last lines of what the newest process of a run said."""
    lines = _tail(folder / LOG)
    begun = [i for i, line in enumerate(lines) if line.startswith(SIGN)]
    return lines[begun[-1] + 1 :] if begun else lines


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
