"""The runs that an experiment file stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from splat_esd.config.experiment import Experiment
from splat_esd.config.load import Config, load_config
from splat_esd.errors import ConfigError
from splat_esd.runs.folder import slug

OWN = ("prompt", "seed", "seeds", "keep", "out", "resume", "viewer", "classifier")


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


def cells(experiment: Experiment) -> list[Cell]:
    """Returns every run of the study, seeds outermost, so that a stopped study has about as many
    runs of each method.

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


def in_shard(cell: Cell, shard: str | None) -> bool:
    """Returns whether a run belongs to the shard K/N:  sha256(name) mod N = K - 1."""
    if shard is None:
        return True
    k, n = map(int, shard.split("/"))
    return int.from_bytes(sha256(cell.name.encode()).digest()[:8]) % n == k - 1


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
    if experiment.launcher != "joblib" and chosen[-1:] in ([], ["prior=auto"]):
        raise ConfigError(
            "name the prior (common: [prior=sd21]): where jobs run may be another machine, with "
            "another GPU, than the one that would choose."
        )
