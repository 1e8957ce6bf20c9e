"""What each command takes besides a run's own settings: one model per command, one reader.

Bare words are gathered by the field that `WORDS` names; everything else is KEY=VALUE.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, Field

from splat_esd.config.overrides import assign, split_overrides
from splat_esd.config.reference import keys, written
from splat_esd.config.schema import (
    Count,
    FrozenSection,
    ImportConfig,
    MeshConfig,
    Positive,
    Rank,
    Unit,
    UserPath,
    Weight,
    key,
    within,
)
from splat_esd.config.validation import validate
from splat_esd.errors import UsageError

Asked = TypeVar("Asked", bound="Arguments")
Minutes = Positive
Seed = Annotated[int, within("[0, 4294967295]")]


class Arguments(FrozenSection):
    """What one command was asked for."""

    WORDS: ClassVar[str | None] = None  # the field that takes the words without `=`


class ViewArguments(Arguments):
    """splat-esd view RUN_OR_FILE"""

    WORDS: ClassVar[str] = "source"
    source: tuple[UserPath, ...] = key((), "One run, or one splat file.")
    imported: ImportConfig = Field(default=ImportConfig(), alias="import")


class CompareArguments(Arguments):
    """splat-esd compare RUN_OR_FILE RUN_OR_FILE..."""

    WORDS: ClassVar[str] = "results"
    results: tuple[UserPath, ...] = key((), "Runs or splat files.")
    out: UserPath = key(Path("compare.html"), "The page that is written.")
    imported: ImportConfig = Field(default=ImportConfig(), alias="import")


class EvaluateArguments(Arguments):
    """splat-esd evaluate RUN..."""

    WORDS: ClassVar[str] = "runs"
    runs: tuple[UserPath, ...] = key((), "Folders of runs.")
    classifier: UserPath | None = key(
        None, "An image classifier in transformers' layout; gives IQ and IV (folder)."
    )
    clip: UserPath | None = key(None, "A CLIP in transformers' layout (folder).")


class UiArguments(Arguments):
    """splat-esd ui"""

    out: UserPath = key(Path("outputs"), "Folder of the runs: shown, and made there.")
    port: Annotated[int, within("[1, 65535]")] = key(
        8090, "Of the page; if it is taken, the next free one."
    )


class ToyArguments(Arguments):
    """splat-esd toy"""

    out: UserPath = key(Path("toy"), "Folder of toy.json and toy.png.")
    seed: Seed = key(0, "Start of the noise.")
    lambdas: Annotated[tuple[Unit, ...], Field(min_length=1)] = key(
        (0.0, 0.25, 0.5, 0.75, 1.0), "Values of ESD's lambda; 0 is VSD. SDS is always computed."
    )
    peaks: Annotated[tuple[Positive, ...], Field(min_length=1)] = key(
        (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), "How strongly the prior prefers the front."
    )
    steps: Count | None = key(None, "Steps of each descent; null: as many as the accuracy needs.")


class ToysArguments(Arguments):
    """splat-esd toys"""

    out: UserPath | None = key(
        None, "A .png to write: every toy from all sides, and all that can be worn."
    )


LargePrior = Literal["sd15", "sd21", "sdxl", "sd35", "flux2_klein", "mvdream"]


class DoctorArguments(Arguments):
    """splat-esd doctor [RUN] [prior=NAME]"""

    WORDS: ClassVar[str] = "run"
    run: Annotated[tuple[UserPath, ...], Field(max_length=1)] = key(
        (), "Folder of a run: what it is, and whether it can be continued."
    )
    prior: LargePrior | None = key(None, "A large prior, whose memory is estimated.")
    size: Annotated[int, within("[16, 2048]")] = key(512, "Side of its pictures, in pixels.")
    views: Count = key(4, "Views at each step.")
    dtype: Literal["auto", "fp32", "bf16"] = key("auto", "As prior.dtype.")


class BenchRasterArguments(Arguments):
    """splat-esd bench raster"""

    quick: bool = key(False, "Seconds instead of minutes: shows that it works, measures little.")
    only: Literal["table", "costs", "curve", "busy"] | None = key(
        None, "One section: table | costs | curve | busy; null: all."
    )
    threads: Count = key(
        1, "Of table, costs and curve; one is timed by processor time, more by wall-clock time."
    )
    out: UserPath | None = key(None, "JSON file for every figure.")


class BenchStepArguments(Arguments):
    """splat-esd bench step"""

    steps: Annotated[int, within("[10, 500]")] = key(40, "Of each run; the first eight not timed.")
    rounds: Count = key(3, "Runs of each kind, in turn.")
    against: UserPath | None = key(
        None, "The python of another installation, timed in the same rounds; ratios are to it."
    )
    out: UserPath | None = key(None, "JSON file for every figure.")


class BenchMeshArguments(Arguments):
    """splat-esd bench mesh [RUN_OR_FILE...]"""

    WORDS: ClassVar[str] = "splats"
    splats: tuple[UserPath, ...] = key((), "Runs or splat files.")
    toys: bool = key(True, "Also measure three toys whose true surface is known.")
    threads: Count = key(1, "Threads of torch.")
    mesh: MeshConfig = MeshConfig()
    out: UserPath | None = key(None, "JSON file for every figure.")


class BenchRefineArguments(Arguments):
    """splat-esd bench refine"""

    seeds: Count = key(4, "Runs of each toy and change.")
    quality: Literal["draft", "normal", "high"] = key("normal", "Of each run.")
    processes: Count = key(2, "Runs at a time, of one thread each.")
    folder: UserPath = key(Path("bench-refine"), "Folder of the runs.")
    out: UserPath = key(Path("bench-refine.json"), "JSON file; what it holds is not made again.")


class BenchPhiArguments(Arguments):
    """splat-esd bench phi RUN..."""

    WORDS: ClassVar[str] = "runs"
    runs: tuple[UserPath, ...] = key((), "Folders of finished runs by vsd or esd.")
    steps: Count = key(300, "Updates of phi, of eight views each.")
    out: UserPath | None = key(None, "JSON file for every figure.")


class RehearseArguments(Arguments):
    """splat-esd rehearse"""

    prior: LargePrior = key("sd15", "Whose shapes.")
    size: Annotated[int, within("[16, 2048]")] = key(512, "Side of the pictures, in pixels.")
    views: Count = key(4, "Views at each step.")
    steps: Count = key(2, "Steps to make.")
    memory: Literal["auto", "full", "low"] = key("auto", "As prior.memory.")
    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto (cuda if there is one) | cpu | cuda")
    dtype: Literal["auto", "fp32", "bf16"] = key("auto", "As prior.dtype.")
    out: UserPath | None = key(None, "JSON file for every figure.")


class ZooTrainArguments(Arguments):
    """splat-esd zoo train"""

    out: UserPath = key(Path("zoo-prior"), "Folder of the prior; the same folder resumes.")
    start: UserPath | None = key(None, "Folder of a prior to start from; its autoencoder is kept.")
    lora: UserPath | None = key(
        None, "File for a LoRA on top of `start`, trained in its stead: a dial for prior.lora."
    )
    rank: Rank = key(16, "Rank of that LoRA.")
    vae_minutes: Minutes = key(90.0, "Training time of the autoencoder.")
    unet_minutes: Minutes = key(180.0, "Training time of the denoiser and the text encoder.")
    photos: Count = key(40000, "Training pictures.")
    front: Unit = key(0.0, "Share of the pictures taken from the front.")
    sides: Unit = key(0.0, "Share of the pictures taken from the sides.")
    batch: Count = key(48, "Pictures in a batch of the denoiser.")
    rate: Positive | None = key(
        None, "Learning rate of the denoiser, at most; null: 5e-4, or 2e-3 for a LoRA."
    )
    threads: Count = key(2, "Processes, of one thread each.")
    seed: Seed = key(0, "Start of all randomness.")


class ZooJudgeArguments(Arguments):
    """splat-esd zoo judge"""

    out: UserPath = key(Path("judge"), "Folder of the judge; the same folder resumes.")
    minutes: Minutes = key(40.0, "Training time.")
    photos: Count = key(24000, "Training pictures.")
    batch: Count = key(64, "Pictures in a batch.")
    processes: Count = key(1, "Processes that render pictures.")
    threads: Count = key(1, "Threads of torch.")
    seed: Seed = key(1000000, "Start of all randomness.")


class ZooExamArguments(Arguments):
    """splat-esd zoo exam"""

    prior: UserPath | None = key(None, "Folder of the prior; null: the embedded one.")
    out: UserPath = key(Path("exam"), "Folder of exam.json and samples.png.")
    captions: Count = key(50, "Captions of each kind: seen and held out.")
    samples: Count = key(8, "Samples of each caption.")
    steps: Count = key(25, "Steps of the sampler.")
    scale: Weight = key(3.0, "Classifier-free guidance of the sampler.")
    threads: Count = key(2, "Threads of torch.")
    seed: Seed = key(0, "Start of all randomness.")


def read_arguments(model: type[Asked], arguments: Sequence[str], *, command: str) -> Asked:
    """Returns what the words and KEY=VALUE of a command line ask for.

    Raises:
        UsageError: If a word has no place, or a key or a value is wrong.
    """
    words = [a for a in arguments if "=" not in a and not a.startswith("-")]
    if words and model.WORDS is None:
        raise UsageError(f"{words[0]!r} is no setting; {_takes(model, command)}")
    paths = [name for name, field in keys(model) if "Path" in str(field.annotation)]
    _, values = split_overrides([a for a in arguments if a not in words], paths=paths, groups=())
    data: dict[str, Any] = {}
    for name, value in values.items():
        assign(data, name, value)
    if model.WORDS is not None:
        data[model.WORDS] = words
    return validate(model, data, command=command)


def command_line(command: str, asked: BaseModel) -> str:
    """Returns the command that asks for the same: words, then each key that was given."""
    field = getattr(type(asked), "WORDS", None)
    words = [str(word) for word in getattr(asked, field)] if field else []
    given = [f"{name}={written(value)}" for name, value in _given(asked) if name != field]
    return shlex.join(["splat-esd", *command.split(), *words, *given])


def _given(asked: BaseModel, prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, field in type(asked).model_fields.items():
        if name not in asked.model_fields_set:
            continue
        value, dotted = getattr(asked, name), prefix + (field.alias or name)
        nested = isinstance(value, BaseModel)
        found += _given(value, f"{dotted}.") if nested else [(dotted, value)]
    return found


def _takes(model: type[Arguments], command: str) -> str:
    names = [name for name, _ in keys(model)]
    takes = f"takes {', '.join(f'{name}=' for name in names)}" if names else "takes no arguments"
    return f"{command} {takes}; see splat-esd {command.split()[0]} --help."
