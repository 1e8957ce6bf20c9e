"""The experiment file of `splat-esd study`: what is allowed in it, and how it is read."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from splat_esd.config.load import Config
from splat_esd.config.overrides import EXPERIMENTS, compose_file, split_overrides
from splat_esd.config.schema import Count, UserPath, at_home, key
from splat_esd.config.validation import validate
from splat_esd.errors import UsageError, did_you_mean

_METHODS = "methods: {vsd: [guidance=vsd], esd-1: [guidance=esd, guidance.lambda=1]}"
LAUNCHER_KEYS = ("cluster",)  # of `submitit`, beside those that are handed on


def _different(items: tuple) -> tuple:
    twice = [item for item, count in Counter(items).items() if count > 1]
    if twice:
        raise ValueError(f"holds {twice[0]!r} twice.")
    return items


def _counted(value: object) -> object:
    """Reads `8` as the seeds 0 to 7."""
    if isinstance(value, int) and value > 0:
        return tuple(range(value))
    return tuple(value) if isinstance(value, list) else value


def _listed(value: object) -> object:
    """Reads `@prompts.txt` as the lines of that file, without empty ones."""
    if not (isinstance(value, str) and value.startswith("@")):
        return tuple(value) if isinstance(value, list) else value
    path = at_home(value[1:])
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"names the file {path}, which cannot be read: {error}.") from None
    return tuple(line.strip() for line in lines if line.strip())


def _one_of(text: str) -> str:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"must be K/N with K from 1 to N, as in 3/64, got {text!r}.")
    return text


def _settings_by_name(methods: Any) -> Any:
    """Refuses methods in another form, and shows the right one."""
    lists = isinstance(methods, dict) and all(
        isinstance(settings, list) and all(isinstance(text, str) for text in settings)
        for settings in methods.values()
    )
    if not lists:
        raise ValueError(f"must give each method a name and a list of settings: {_METHODS}")
    return {name: tuple(settings) for name, settings in methods.items()}


def _folder_names(methods: dict[str, Any]) -> dict[str, Any]:
    for name in methods:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise ValueError(
                f"has the name {name!r}; a name becomes a folder: letters, digits, _ . + -"
            )
    return methods


Override = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Different = AfterValidator(_different)


class Experiment(BaseModel):
    """One study: every prompt with every method and every seed.

    Arguments:
        source: The experiment file.
        arguments: The command line that changed it.
        gather: Whether only the report of what is there is wanted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: UserPath = Field(exclude=True)
    arguments: tuple[str, ...] = Field((), exclude=True)
    gather: bool = Field(False, exclude=True)
    prompts: Annotated[
        tuple[Override, ...], Field(min_length=1), Different, BeforeValidator(_listed)
    ] = Field(description="What is made: a list, or @FILE.txt with one prompt per line.")
    methods: Annotated[
        dict[str, tuple[Override, ...]],
        Field(min_length=1),
        BeforeValidator(_settings_by_name),
        AfterValidator(_folder_names),
    ] = Field(description="In the file: each method's name, and the settings that set it apart.")
    seeds: Annotated[
        tuple[Seed, ...], Field(min_length=1), Different, BeforeValidator(_counted)
    ] = Field(description="How many, from 0 on; or a list.")
    common: tuple[Override, ...] = key(
        (),
        "In the file: settings of all runs. Other KEY=VALUE are added to them; what a method sets "
        "itself wins.",
    )
    out: UserPath = Field(description="Folder; studies/NAME if left out.")
    processes: Count | None = key(
        None, "Runs at once; null: as many as cores and memory allow, one with a GPU."
    )
    shard: Annotated[str, AfterValidator(_one_of)] | None = key(
        None, "K/N: the K-th of N parts of the runs; all parts may share one folder."
    )
    launcher: Literal["joblib", "submitit", "ray"] = key(
        "joblib",
        "joblib: processes of this machine | submitit: jobs of Slurm | ray: tasks of a Ray cluster",
    )
    submitit: dict[str, str | int | float | bool | None] = key(
        {},
        "submitit.KEY=VALUE: cluster (slurm | local) and what submitit's AutoExecutor takes: "
        "gpus_per_node=1, timeout_min=120, slurm_partition=gpu, ...",
    )
    ray: dict[str, str | int | float | bool | None] = key(
        {},
        "ray.KEY=VALUE: address (of a cluster; without it one is started here) and what a Ray task "
        "takes: num_cpus=4, num_gpus=1, ...",
    )
    classifier: UserPath | None = key(
        None, "Image classifier for runs of other priors than the zoo's (folder)."
    )
    clip: UserPath | None = key(None, "A CLIP in transformers' layout (folder).")


def read_study(arguments: Sequence[str]) -> Experiment:
    """Returns the study that a command line names.

    Raises:
        UsageError: If it names no file or several, or a key or a value is wrong.
    """
    names = [argument for argument in arguments if "=" not in argument]
    gather = names[1:] == ["report"]
    if len(names) != 1 + gather:
        raise UsageError(
            f"study takes one experiment file or name, got {len(names)}; see study --help."
        )
    experiment = load_experiment(find_file(names[0]), [a for a in arguments if "=" in a])
    return experiment.model_copy(update={"gather": gather})


def find_file(name: str) -> Path:
    """Returns the experiment file that a path or a name in conf/experiment stands for.

    Raises:
        UsageError: If there is none.
    """
    path = at_home(name)
    if path.is_file():
        return path
    known = sorted(file.stem for file in EXPERIMENTS.glob("*.yaml"))
    if name in known:
        return EXPERIMENTS / f"{name}.yaml"
    hint = did_you_mean(name, known) or f"; by name there is {', '.join(known)}."
    raise UsageError(f"there is no experiment file {name}{hint}")


def load_experiment(path: Path, overrides: Sequence[str]) -> Experiment:
    """Reads an experiment file; keys of its own in `overrides` replace what stands in it, all
    others are settings of every run.

    Raises:
        ConfigError: If a key or a value is wrong, or a setting is not for a study to have.
    """
    data, mine, others = compose_file(path), [], []
    for argument in overrides:
        (mine if _is_the_studys(re.split(r"[.=]", argument)[0]) else others).append(argument)
    groups, values = split_overrides(mine)
    for dotted, value in (groups | values).items():
        section, _, name = dotted.partition(".")
        if name:
            data[section] = {**(data.get(section) or {}), name: value}
        else:
            data[section] = value
    data["common"] = [*(data.get("common") or []), *others]
    if "out" not in data:
        data["out"] = f"studies/{path.stem}"
    data |= {"source": path, "arguments": list(overrides)}
    return validate(Experiment, data, source=str(path))


def _is_the_studys(name: str) -> bool:
    """Tells a key of the study, even if misspelt, from one of its runs."""
    own = Experiment.model_fields.keys() - {"source", "arguments", "gather"}
    return name in own or (name not in Config.model_fields and did_you_mean(name, own) != "")
