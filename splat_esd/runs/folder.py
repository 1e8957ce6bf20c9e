"""The folder of one run: its name, its files, and whether it is finished."""

import json
import os
import re
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splat_esd.config.load import Config
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.formats.atomic import sweep, write_text
from splat_esd.formats.find import SPLAT
from splat_esd.runs.lock import hold, holder

STILLBORN = 2.0  # seconds after which a folder without settings belongs to nobody who lives


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by name; the only place that knows where each lies.

    Arguments:
        path: The folder; it need not exist yet.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def splat(self) -> Path:
        """The asset, as Gaussian splats."""
        return self.path / SPLAT

    @property
    def settings(self) -> Path:
        """config.yaml: every setting of the run."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """metrics.jsonl: one line of numbers every `log.every` steps."""
        return self.path / "metrics.jsonl"

    @property
    def evaluation(self) -> Path:
        """evaluation.json: what `splat-esd evaluate` found."""
        return self.path / "evaluation.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "ckpt"

    @property
    def timeline(self) -> Path:
        """The folder of the splats on the way, one .spz a step."""
        return self.path / "timeline"

    def timeline_file(self, step: int) -> Path:
        """Returns where the splats of one step lie."""
        return self.timeline / f"{step:06d}.spz"

    def preview(self, step: int) -> Path:
        """Returns where the preview picture of one step lies."""
        return self.path / "previews" / f"{step:06d}.png"

    @property
    def config(self) -> Config:
        """The settings of the run.

        Raises:
            UsageError: If config.yaml is not there or cannot be read.
        """
        if not self.settings.is_file():
            raise UsageError(f"{self.path} is no run: there is no config.yaml in it.")
        try:
            text = self.settings.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"{self.settings} is not UTF-8 text.") from None
        return Config.from_yaml(text, source=str(self.settings))

    @property
    def run(self) -> dict[str, Any]:
        """run.json: status, versions, times; empty if there is none yet."""
        try:
            found = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_config(self, config: Config) -> None:
        """Writes config.yaml."""
        write_text(self.settings, config.to_yaml())

    def write_run(self, **facts: object) -> None:
        """Adds facts to run.json; status "running" carries this process's id."""
        if facts.get("status") == "running":
            facts["pid"] = os.getpid()
        write_text(self.path / "run.json", json.dumps(self.run | facts, indent=2) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl; one that is being written just now is left out."""
        lines = self.metrics.read_text(encoding="utf-8").splitlines() if self.has_metrics else []
        metrics = []
        for line in lines:
            try:
                metrics.append(json.loads(line))
            except (ValueError, RecursionError):
                break
        return metrics

    @property
    def has_metrics(self) -> bool:
        """Whether a line of metrics was ever written."""
        return self.metrics.is_file()

    def append_metrics(self, step: int, stats: dict[str, float | int]) -> None:
        """Adds one line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | stats) + "\n")

    def trim_metrics(self, step: int) -> None:
        """Drops the lines of metrics.jsonl that a run continued from `step` will write again."""
        if self.has_metrics:
            lines = self.metrics.read_text(encoding="utf-8").splitlines()
            write_text(self.metrics, "".join(f"{x}\n" for x in lines if _before(x, step)))

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return self.run.get("status") == "finished"

    @property
    def is_worked_on(self) -> bool:
        """Whether another living process works in the folder."""
        found = holder(self.path)
        return found is not None and found["pid"] != os.getpid()

    def holds(self, config: Config) -> bool:
        """Whether the run has the very same settings, an earlier version's file read as today's."""
        try:
            return self.config == config
        except UsageError:
            return False


def slug(prompt: str) -> str:
    """Turns a prompt into a folder's name: letters and digits of any script, joined by dashes."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", prompt).lower())
    return "-".join(words)[:60].strip("-_") or "prompt"


@contextmanager
def claim_run_folder(config: Config) -> Iterator[tuple[RunFolder, bool]]:
    """Yields what `open_run_folder` returns, locked: no other process works there meanwhile.

    Raises:
        UsageError: If another process is working in the folder to resume.
    """
    while True:
        folder, continued = open_run_folder(config)
        with hold(folder.path) as mine:
            # Who held it until now may have finished it.
            done = continued and config.resume is None and folder.is_finished
            if mine and not done:
                sweep(folder.path)
                yield folder, continued
                return
        if config.resume is not None:
            raise UsageError(f"resume: another process is still working in {folder}.")


def open_run_folder(config: Config) -> tuple[RunFolder, bool]:
    """Returns the folder to work in, and whether it holds a run to continue.

    That is `resume` if given, else the newest unfinished run of the very same configuration that no
    living process works on, else a new folder  <out>/<slug>/<time>-s<seed>.

    Raises:
        UsageError: If another process is working in the folder to resume.
    """
    if config.resume is not None:
        folder = RunFolder(config.resume)
        if folder.is_worked_on:
            raise UsageError(f"resume: another process is still working in {folder}.")
        return folder, True
    parent = config.out / slug(config.prompt)
    for path in sorted(parent.glob("*"), reverse=True):
        folder = RunFolder(path)
        # The settings last: reading them is slow, and most runs are finished.
        if not folder.is_finished and not folder.is_worked_on and folder.holds(config):
            return folder, True
    _clear_stillborn(parent)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-s{config.seed}"
    for tail in ("", *(f"-{i}" for i in range(2, 1000))):
        try:
            (parent / (name + tail)).mkdir(parents=True)
        except FileExistsError:
            continue
        folder = RunFolder(parent / (name + tail))
        try:
            folder.write_config(config)
        except EnvironmentProblem:
            with suppress(OSError):
                folder.path.rmdir()
                parent.rmdir()
            raise
        return folder, False
    raise UsageError(f"out: {parent} holds a thousand runs of this second; choose another out=.")


def _clear_stillborn(parent: Path) -> None:
    """Removes folders of runs that were killed before their config.yaml was written."""
    for path in parent.glob("*"):
        with suppress(OSError):  # what is not empty stays
            if time.time() - path.stat().st_mtime > STILLBORN and not (path / "run.json").exists():
                if not RunFolder(path).settings.exists():
                    sweep(path)
                    path.rmdir()


def finished_run(config: Config) -> Path | None:
    """Returns the newest finished run of the very same configuration, if there is one."""
    for path in sorted((config.out / slug(config.prompt)).glob("*"), reverse=True):
        if RunFolder(path).is_finished and RunFolder(path).holds(config):
            return path
    return None


def _before(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, RecursionError, KeyError, TypeError):
        return False  # the line that was being written when the run was killed
