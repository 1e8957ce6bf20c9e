"""The folder of one run: its name, its configuration, its log, and whether it is finished."""

import json
import os
import re
import time
import unicodedata
from pathlib import Path

from splat_esd.config.load import Config
from splat_esd.errors import UsageError


def slug(prompt: str) -> str:
    """Turns a prompt into a folder's name: letters and digits of any script, joined by dashes."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", prompt).lower())
    return "-".join(words)[:60].strip("-_") or "prompt"


def open_run_folder(config: Config) -> tuple[Path, bool]:
    """Returns the folder to work in, and whether it holds a run to continue.

    That is `resume` if given, else the newest unfinished run of the very same configuration that no
    living process works on, else a new folder  <out>/<slug>/<time>-s<seed>.

    Raises:
        UsageError: If another process is working in the folder to resume.
    """
    if config.resume is not None:
        if _alive(config.resume):
            raise UsageError(f"resume: another process is still working in {config.resume}.")
        return config.resume, True
    parent = config.out / slug(config.prompt)
    for folder in sorted(parent.glob("*"), reverse=True):
        if _continues(folder, config):
            return folder, True
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-s{config.seed}"
    for tail in ("", *(f"-{i}" for i in range(2, 1000))):
        try:
            (parent / (name + tail)).mkdir(parents=True)
        except FileExistsError:
            continue
        folder = parent / (name + tail)
        write_text(folder / "config.yaml", config.to_yaml())
        return folder, False
    raise UsageError(f"out: {parent} holds a thousand runs of this second; choose another out=.")


def finished_run(config: Config) -> Path | None:
    """Returns the newest finished run of the very same configuration, if there is one."""
    for folder in sorted((config.out / slug(config.prompt)).glob("*"), reverse=True):
        saved = folder / "config.yaml"
        if read_run(folder).get("status") == "finished" and saved.is_file():
            if saved.read_text(encoding="utf-8") == config.to_yaml():
                return folder
    return None


def write_run(folder: Path, **facts: object) -> None:
    """Adds facts to run.json, which is replaced whole; status "running" carries this process's
    id.
    """
    if facts.get("status") == "running":
        facts["pid"] = os.getpid()
    write_text(folder / "run.json", json.dumps(read_run(folder) | facts, indent=2) + "\n")


def read_run(folder: Path) -> dict:
    """Returns run.json, or nothing if there is none yet."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}


def write_text(path: Path, text: str) -> None:
    """Writes a file under its final name only when it is whole."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def trim_metrics(folder: Path, step: int) -> None:
    """Drops the lines of metrics.jsonl that a run continued from `step` will write again."""
    path = folder / "metrics.jsonl"
    if path.exists():
        lines = [
            line for line in path.read_text(encoding="utf-8").splitlines() if _before(line, step)
        ]
        write_text(path, "".join(line + "\n" for line in lines))


def append_metrics(folder: Path, step: int, stats: dict[str, float | int]) -> None:
    """Adds one line to metrics.jsonl."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step} | stats) + "\n")


def _before(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (json.JSONDecodeError, KeyError):
        return False  # the line that was being written when the run was killed


def _continues(folder: Path, config: Config) -> bool:
    saved = folder / "config.yaml"
    if not saved.is_file() or read_run(folder).get("status") == "finished" or _alive(folder):
        return False
    return saved.read_text(encoding="utf-8") == config.to_yaml()


def _alive(folder: Path) -> bool:
    run = read_run(folder)
    if run.get("status") != "running" or run.get("pid") in (None, os.getpid()):
        return False
    try:
        os.kill(run["pid"], 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
