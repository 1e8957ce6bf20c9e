"""The configuration of a run, and its strict loader.

It is checked once, and below `cli/` everybody sees these frozen objects only.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, model_validator

from splat_esd.config.overrides import assign, compose, split_overrides
from splat_esd.config.schema import (
    CamerasConfig,
    Count,
    DensityConfig,
    ExportConfig,
    FrozenSection,
    GuidanceConfig,
    InitConfig,
    LogConfig,
    MeshConfig,
    OptimConfig,
    PriorConfig,
    QualityConfig,
    RasterizerConfig,
    RegularizeConfig,
    UserPath,
    within,
)
from splat_esd.config.validation import validate
from splat_esd.errors import ConfigError

EXAMPLE = 'splat-esd prompt="a corgi"'
# What may differ when a run is resumed: where it runs, and what is shown and written.
# `steps` may not: learning rates, times and densification are fractions of the run.
RESUMABLE = ("resume", "device", "viewer", "export", "mesh", "log")


def _spoken(text: str) -> str:
    if not text.strip():
        raise ValueError(f"is empty; say what to make, as in {EXAMPLE}")
    return text


class _Dumper(yaml.SafeDumper):
    """Escapes what PyYAML writes bare but reads back as something else: U+0085, U+2028, ..."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


class Config(FrozenSection):
    """Everything a run needs to know."""

    prompt: Annotated[str, AfterValidator(_spoken)]
    negative_prompt: str
    seed: Annotated[int, within("[0, 4294967295]")] | None
    seeds: Count
    keep: Literal["all", "best"]
    classifier: UserPath | None
    steps: Count | None
    out: UserPath
    resume: UserPath | None
    viewer: bool
    device: Literal["auto", "cpu", "cuda"]
    prior: PriorConfig
    guidance: GuidanceConfig
    cameras: CamerasConfig
    rasterizer: RasterizerConfig
    init: InitConfig
    density: DensityConfig
    quality: QualityConfig
    optim: OptimConfig
    regularize: RegularizeConfig
    export: ExportConfig
    mesh: MeshConfig
    log: LogConfig

    @model_validator(mode="after")
    def _views_to_push_from(self) -> "Config":
        if self.guidance.perp_neg.enabled and not self.prior.view_prompts:
            raise ConfigError("guidance.perp_neg.enabled needs prior.view_prompts=true.")
        return self

    @property
    def total_steps(self) -> int:
        """Length of the run: `steps`, else the quality's times the prior's factor."""
        if self.steps is not None:
            return self.steps
        return self.quality.steps * self.prior.steps_factor

    @property
    def perp_neg(self) -> bool:
        """Whether to use Perp-Neg: the guidance's own, else the prior's."""
        enabled = self.guidance.perp_neg.enabled
        return self.prior.perp_neg and self.prior.view_prompts if enabled is None else enabled

    @property
    def cfg_scale(self) -> float:
        """Classifier-free guidance: the guidance's own, else the prior's for this guidance."""
        if self.guidance.cfg_scale is not None:
            return self.guidance.cfg_scale
        return self.prior.sds_cfg_scale if self.guidance.name == "sds" else self.prior.cfg_scale

    @property
    def lora_rank(self) -> int:
        """Rank of phi: the guidance's own, else the prior's."""
        return self.guidance.lora.rank or self.prior.lora_rank

    @property
    def lora_learning_rate(self) -> float:
        """Learning rate of phi: the guidance's own, else the prior's."""
        return self.guidance.lora.learning_rate or self.prior.lora_learning_rate

    @property
    def learning_rates(self) -> dict[str, tuple[float, float]]:
        """Adam's rates of the Gaussians at the start and end:  optim / sqrt(prior.steps_factor).

        What noisy gradients move in n steps grows as rate * sqrt(n), so that n times as many steps
        go as far.
        """
        slower = self.prior.steps_factor**-0.5
        return {
            name: (start * slower, end * slower)
            for name, (start, end) in self.optim.model_dump().items()
        }

    def to_yaml(self) -> str:
        """Returns the text of config.yaml; `from_yaml` reads back an equal object."""
        data = self.model_dump(mode="json", by_alias=True)
        return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)

    @classmethod
    def from_yaml(cls, text: str, *, source: str = "config.yaml") -> "Config":
        """Reads the text of a config.yaml.

        Raises:
            ConfigError: If it is not YAML, or a key is unknown, missing or out of range.
        """
        return validate(cls, _read_yaml(text, source), source=source)


def load_config(overrides: Sequence[str]) -> Config:
    """Returns the configuration the command line asks for.

    Arguments:
        overrides: `key=value`, `group=choice`; with `resume=folder` the rest comes from its
            config.yaml, and what would change the result may not differ from it.
    Raises:
        ConfigError: If a key, a choice, a value or the prompt is wrong.
    """
    groups, values = split_overrides(overrides)
    if values.get("resume") is not None:
        return _resumed(groups, values)
    config = _assemble(groups, values)
    if config.prior.name != "auto":
        return config
    if config.prior.path is not None:
        raise ConfigError("prior.path needs the kind of prior too: prior=sd21, sd15 or zoo.")
    return _assemble({**groups, "prior": choose_prior()}, values)


class ExportJob(FrozenSection):
    """What `splat-esd export` was asked for."""

    source: UserPath = Field(alias="from")
    out: UserPath | None
    export: ExportConfig
    mesh: MeshConfig


def load_export(overrides: Sequence[str]) -> ExportJob:
    """Returns the export the command line asks for: from, out, formats, export.*, mesh.*.

    Raises:
        ConfigError: If a key or a value is wrong, or `from` is missing.
    """
    groups, values = split_overrides(overrides)
    if groups:
        raise ConfigError(
            f"export takes from, out, formats, export.* and mesh.*, got {next(iter(groups))}."
        )
    if "from" not in values:
        raise ConfigError("nothing to export: say from=FOLDER_OF_A_RUN or from=FILE.ply")
    defaults = compose({})
    data = {"from": None, "out": None} | {key: defaults[key] for key in ("export", "mesh")}
    for key, value in values.items():
        assign(data, "export.formats" if key == "formats" else key, value)
    return validate(ExportJob, data)


def choose_prior() -> str:
    """Returns what `prior=auto` stands for here: sd21 on a CUDA GPU, the embedded zoo elsewhere."""
    import torch

    return "sd21" if torch.cuda.is_available() else "zoo"


def cached_mirror(choice: str) -> str | None:
    """Returns the hub id under which a prior's weights lie in the hub's local cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    weights = "unet/diffusion_pytorch_model.safetensors"
    for mirror in compose({"prior": choice})["prior"]["mirrors"]:
        if isinstance(try_to_load_from_cache(mirror, weights), str):
            return mirror
    return None


def _assemble(groups: dict[str, str], values: dict[str, Any]) -> Config:
    data = compose(groups)
    for key, value in values.items():
        assign(data, key, value)
    if data["prompt"] is None:
        validate(Config, {**data, "prompt": EXAMPLE})  # a misspelt key says more
        raise ConfigError(f"no prompt: say what to make, as in {EXAMPLE}")
    return validate(Config, data)


def _resumed(groups: dict[str, str], values: dict[str, Any]) -> Config:
    """Returns the configuration of a run to continue, with only harmless settings changed."""
    folder = Path(values["resume"]).expanduser()
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"cannot resume {folder}: there is no config.yaml in it.")
    saved = Config.from_yaml(path.read_text(encoding="utf-8"), source=str(path))
    before = {**saved.model_dump(mode="json", by_alias=True), "resume": str(folder)}
    for group, choice in groups.items():
        section = before[group]
        now = section.get("name") or section.get("kind") or section.get("strategy") or choice
        if choice not in (now, "auto"):
            raise ConfigError(_changed(group, now, choice))
    for key, value in values.items():
        after = json.loads(json.dumps(before))
        assign(after, key, value)
        if validate(Config, after) != validate(Config, before):
            if key.split(".")[0] not in RESUMABLE:
                raise ConfigError(_changed(key, _look_up(before, key), value))
            before = after
    return validate(Config, before)


def _changed(key: str, now: object, wanted: object) -> str:
    return (
        f"{key} is {now!r} in the run to resume, not {wanted!r}: it would change the result; "
        f"drop {key}, or start a new run without resume."
    )


def _look_up(data: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        data = data[part]
    return data


def _read_yaml(text: str, source: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source} is not readable as YAML{where}.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{source} holds no configuration: expected keys and values.")
    return data
