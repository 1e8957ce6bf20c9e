"""The experiment file: what is allowed in it, and the runs it stands for."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from splat_esd.config.load import Config, load_config
from splat_esd.config.overrides import EXPERIMENTS, compose_file, split_overrides
from splat_esd.config.schema import Count, UserPath
from splat_esd.config.validation import validate
from splat_esd.errors import ConfigError, UsageError, did_you_mean
from splat_esd.runs.folder import slug

OWN = ("prompt", "seed", "seeds", "keep", "out", "resume", "viewer", "classifier")
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
    """What `splat-esd study` was asked for.

    Arguments:
        methods: Of each name, the settings that set it apart, as on the command line.
        seeds: A list, or how many from 0 on.
        common: Settings of all runs.
        processes: Runs at once; None is as many as there are cores and memory for, one with a GPU.
        launcher: joblib starts processes here; submitit hands jobs to Slurm.
        submitit: `cluster` (slurm, or local to try it) and what submitit's AutoExecutor takes.
        classifier: Folder of an image classifier, for runs of other priors than the zoo's.
        clip: Folder of a CLIP.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    prompts: Annotated[tuple[Override, ...], Field(min_length=1), Different]
    methods: Annotated[
        dict[str, tuple[Override, ...]], Field(min_length=1), AfterValidator(_folder_names)
    ]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), Different, BeforeValidator(_counted)]
    common: tuple[Override, ...] = ()
    out: UserPath
    processes: Count | None = None
    launcher: Literal["joblib", "submitit"] = "joblib"
    submitit: dict[str, str | int | float | bool | None] = {}
    classifier: UserPath | None = None
    clip: UserPath | None = None


@dataclass(frozen=True)
class Cell:
    """One run of a study: its place among the others, its fixed folder, its configuration."""

    prompt: str
    method: str
    seed: int
    folder: Path
    config: Config

    @property
    def name(self) -> str:
        """Returns the folder's path inside the study's."""
        return "/".join(self.folder.parts[-3:])


def find_file(name: str) -> Path:
    """Returns the experiment file that a path or a name in conf/experiment stands for.

    Raises:
        UsageError: If there is none.
    """
    path = Path(name).expanduser()
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
    for key, value in (groups | values).items():
        section, _, name = key.partition(".")
        if name:
            data[section] = {**(data.get(section) or {}), name: value}
        else:
            data[section] = value
    data["common"] = [*(data.get("common") or []), *others]
    if "out" not in data:
        data["out"] = f"studies/{path.stem}"
    return validate(Experiment, data, source=str(path))


def _is_the_studys(key: str) -> bool:
    """Tells a key of the study, even if misspelt, from one of its runs."""
    own = Experiment.model_fields
    return key in own or (key not in Config.model_fields and did_you_mean(key, own) != "")


def cells(experiment: Experiment) -> list[Cell]:
    """Returns every run of the study, seeds outermost: whenever it is stopped, the methods have
    about as many runs each.

    Raises:
        ConfigError: If a setting is wrong, naming the method; or prompts would share a folder.
    """
    slugs = {slug(prompt): prompt for prompt in experiment.prompts}
    for prompt in experiment.prompts:
        if slugs[slug(prompt)] != prompt:
            raise ConfigError(
                f"prompts: {prompt!r} and {slugs[slug(prompt)]!r} would share the folder "
                f"{slug(prompt)}."
            )
    return [
        _cell(experiment, prompt, method, seed)
        for seed in experiment.seeds
        for prompt in experiment.prompts
        for method in experiment.methods
    ]


def _cell(experiment: Experiment, prompt: str, method: str, seed: int) -> Cell:
    given = [*experiment.common, *experiment.methods[method]]
    try:
        _check_settings(experiment, given)
        config = load_config([*given, f"prompt={prompt}", f"seed={seed}", f"out={experiment.out}"])
    except ConfigError as error:
        raise ConfigError(f"method {method}: {error}") from None
    folder = experiment.out / slug(prompt) / method / f"s{seed}"
    return Cell(prompt, method, seed, folder, config)


def _check_settings(experiment: Experiment, given: Sequence[str]) -> None:
    keys = [setting.partition("=")[0] for setting in given]
    for key in keys:
        if key in OWN:
            raise ConfigError(f"{key} is not for a method to set; a study gives it to each run.")
    chosen = [setting for setting in given if setting.startswith("prior=")]
    if experiment.launcher == "submitit" and chosen[-1:] in ([], ["prior=auto"]):
        raise ConfigError(
            "name the prior (common: [prior=sd21]): where jobs run may be another machine, with "
            "another GPU, than the one that would choose."
        )
