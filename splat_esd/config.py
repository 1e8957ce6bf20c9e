"""The configuration of a run: what each key may be, and the strict loader.

Values and their meaning stand in `conf/`; here stands what is allowed. It is checked once, and
below `cli.py` everybody sees these frozen objects only.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from splat_esd.overrides import ConfigError, assign, compose, did_you_mean, nearest, split_overrides

EXAMPLE = 'splat-esd prompt="a corgi"'
# What may differ when a run is resumed: where it runs, and what is shown and written.
# `steps` may not: learning rates, times and densification are fractions of the run.
RESUMABLE = ("resume", "device", "viewer", "export", "mesh", "log")


def _within(interval: str) -> AfterValidator:
    """Returns a check that a number lies in an interval written as in a paper: `[0, 1)`."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))

    def check(value: float | int) -> float | int:
        above = value > low if interval[0] == "(" else value >= low
        below = value < high if interval[-1] == ")" else value <= high
        if not (above and below):
            raise ValueError(f"must lie in {interval}, got {value!r}.")
        return value

    return AfterValidator(check)


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"must be [lowest, highest], got {list(pair)}.")
    return pair


def _spoken(text: str) -> str:
    if not text.strip():
        raise ValueError(f"is empty; say what to make, as in {EXAMPLE}")
    return text


def _folder_or_id(text: str) -> str:
    # A folder is kept whole, so that a run can be resumed from another place; a hub id as it is.
    folder = Path(text).expanduser()
    return str(folder.absolute()) if folder.is_dir() else text


Unit = Annotated[float, _within("[0, 1]")]
Weight = Annotated[float, _within("[0, inf)")]
Positive = Annotated[float, _within("(0, inf)")]
Count = Annotated[int, _within("[1, inf)")]
Degrees = Annotated[float, _within("[-90, 90]")]
Rising = AfterValidator(_rising)
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
Rates = tuple[Weight, Weight]
Format = Literal[
    "ply", "splat", "spz", "gltf", "glb", "obj", "stl", "turntable", "strip", "sheet", "viewer"
]


Section = TypeVar("Section", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PriorConfig(_Section):
    """The diffusion model that knows what things look like."""

    name: Literal["auto", "zoo", "sd15", "sd21"]
    path: Annotated[str, AfterValidator(_folder_or_id)] | None
    mirrors: tuple[str, ...]
    revision: str | None
    dtype: Literal["auto", "fp32", "bf16"]
    cfg_scale: Weight
    sds_cfg_scale: Weight
    lora_rank: Count
    lora_learning_rate: Positive
    pullback: Literal["encoder", "decoder"]
    perp_neg: bool
    steps_factor: Count
    view_prompts: bool


class PerpNegConfig(_Section):
    """The negative prompt, kept perpendicular to the prompt."""

    enabled: bool | None
    weight: Weight


class LoraConfig(_Section):
    """The learnt score of the particles."""

    rank: Count | None
    learning_rate: Positive | None
    camera_drop: Unit
    steps: Count


class GuidanceConfig(_Section):
    """What is subtracted from the prior's score; `lam` is lambda, None for SDS."""

    name: Literal["esd", "vsd", "sds"]
    lam: Unit | None = Field(alias="lambda")
    cfg_scale: Weight | None
    t_min: Unit
    t_max: Unit
    t_max_end: Unit
    anneal_at: Unit
    weight: Literal["sigma2", "uniform"]
    grad_clamp: Positive | None
    perp_neg: PerpNegConfig
    lora: LoraConfig

    @model_validator(mode="after")
    def _consistent(self) -> "GuidanceConfig":
        if self.name == "sds" and self.lam is not None:
            raise ConfigError("guidance=sds has no lambda; use guidance=esd with guidance.lambda.")
        if self.name == "vsd" and self.lam != 0:
            raise ConfigError("guidance=vsd is lambda 0; use guidance=esd with guidance.lambda.")
        if self.name == "esd" and self.lam is None:
            raise ConfigError("guidance.lambda must lie in [0, 1], got null; SDS is guidance=sds.")
        for key in ("t_max", "t_max_end"):
            if getattr(self, key) <= self.t_min:
                raise ConfigError(
                    f"guidance.{key} must lie above guidance.t_min = {self.t_min}, "
                    f"got {getattr(self, key)}."
                )
        return self


class BackgroundConfig(_Section):
    """What is behind the object."""

    color: tuple[Unit, Unit, Unit]
    random_probability: Unit


class CamerasConfig(_Section):
    """Where the object is looked at from; angles in degrees."""

    batch_size: Count
    elevation: Annotated[tuple[Degrees, Degrees], Rising]
    distance: Annotated[tuple[Positive, Positive], Rising]
    fovy: Annotated[
        tuple[Annotated[float, _within("(0, 180)")], Annotated[float, _within("(0, 180)")]], Rising
    ]
    background: BackgroundConfig

    @model_validator(mode="after")
    def _outside(self) -> "CamerasConfig":
        if self.distance[0] <= 1:
            raise ConfigError(
                f"cameras.distance must lie above 1 (the object fills a ball of radius 1), "
                f"got {list(self.distance)}."
            )
        return self


class RasterizerConfig(_Section):
    """How Gaussians become pixels."""

    backend: Literal["auto", "cpu", "cuda", "reference"]
    antialiased: bool
    near_plane: Positive
    eps2d: Weight


class InitConfig(_Section):
    """The Gaussians of step 0."""

    kind: Literal["ball", "ply", "points"]
    path: UserPath | None
    count: Annotated[int, _within("[4, inf)")]
    radius: Positive
    opacity: Annotated[float, _within("(0, 1)")]
    color: Unit

    @model_validator(mode="after")
    def _has_file(self) -> "InitConfig":
        if self.kind == "ball" and self.path is not None:
            raise ConfigError("init.path needs init=ply (a splat) or init=points (a point cloud).")
        if self.kind != "ball" and self.path is None:
            raise ConfigError(f"init={self.kind} needs a file: init.path=cloud.ply.")
        return self


class DensityConfig(_Section):
    """When Gaussians are added and dropped."""

    strategy: Literal["default", "mcmc", "none"]
    start: Unit
    stop: Unit
    every: Count
    cap: Count
    grow_quantile: Unit
    grow_scale: Positive
    prune_opacity: Unit
    prune_scale: Positive
    noise: Weight

    @model_validator(mode="after")
    def _ordered(self) -> "DensityConfig":
        if self.start > self.stop:
            raise ConfigError(
                f"density.start must not lie above density.stop = {self.stop}, got {self.start}."
            )
        return self


class QualityConfig(_Section):
    """How much work a run is."""

    name: Literal["draft", "normal", "high"]
    steps: Count


class OptimConfig(_Section):
    """Learning rates at the start and the end of the run, by parameter."""

    means: Rates
    log_scales: Rates
    quats: Rates
    logit_opacities: Rates
    sh: Rates


class RegularizeConfig(_Section):
    """Weights of the terms beside the guidance."""

    cover: Weight
    scale: Weight
    range: Weight


class ExportConfig(_Section):
    """The files made from a splat."""

    formats: Annotated[tuple[Format, ...], Field(min_length=1)]
    up: Literal["-y", "y", "z"]
    full_ply: bool
    frames: Count
    size: Annotated[int, _within("[16, 4096]")]
    transparent: bool

    @model_validator(mode="after")
    def _video_size(self) -> "ExportConfig":
        if self.size % 16:
            raise ConfigError(f"export.size must be a multiple of 16, got {self.size}.")
        return self


class MeshConfig(_Section):
    """How a splat becomes a mesh."""

    faces: Annotated[int, _within("[500, 1000000]")]
    texture: Annotated[int, _within("[64, 8192]")]
    watertight: bool
    sharpen: Annotated[int, _within("[0, 100]")]


class LogConfig(_Section):
    """How often something is written, in steps."""

    every: Count
    preview_every: Count
    checkpoint_every: Count


class _Dumper(yaml.SafeDumper):
    """Escapes what PyYAML writes bare but reads back as something else: U+0085, U+2028, ..."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


class Config(_Section):
    """Everything a run needs to know."""

    prompt: Annotated[str, AfterValidator(_spoken)]
    negative_prompt: str
    seed: Annotated[int, _within("[0, 4294967295]")] | None
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


class ExportJob(_Section):
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


def validate(model: type[Section], data: dict[str, Any], *, source: str = "") -> Section:
    """Returns the checked section; `source` names the file in the messages.

    Raises:
        ConfigError: With one line for each thing that is wrong.
    """
    try:
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        lines: dict[str, str] = {}
        for problem in error.errors(include_url=False):
            key = ".".join(part for part in problem["loc"] if isinstance(part, str))
            lines.setdefault(key, _explain(model, key, problem))
        prefix = f"{source}: " if source else ""
        raise ConfigError("\n".join(prefix + line for line in lines.values())) from None


_EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "tuple": "a list in brackets, as [1, 2]",
    "model": "a section of keys",
    "dict": "a section of keys",
}


def _explain(model: type[BaseModel], key: str, problem: Any) -> str:
    """Returns pydantic's problem as one line that names the key and what was wanted."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(model, key)
    if kind == "value_error":
        return f"{key} {context['error']}"
    if kind == "missing" and isinstance(problem["loc"][-1], str):
        return f"{key} is missing."
    if kind in ("missing", "too_long", "too_short"):
        return f"{key} has the wrong number of values."
    if kind == "literal_error":
        choices = [word.strip("'") for word in re.split(", | or ", context["expected"])]
        hint = did_you_mean(str(value), choices, prefix=f"{key}=")
        return f"{key} must be one of {', '.join(choices)}, got {value!r}{hint or '.'}"
    expected = _EXPECTED[kind.split("_")[0]]
    return f"{key} must be {expected}, got {value!r}."


def _unknown(model: type[BaseModel], key: str) -> str:
    """Returns the message for a key that is not there, with the nearest one that is."""
    # A key is also known by its last part, so that `lamda` and `prior.lambda` find their way.
    known = {name.split(".")[-1]: name for name in _keys(model)}
    known |= {name: name for name in _keys(model)}
    last = key.split(".")[-1]
    near = last if last in known else nearest(key, known) or nearest(last, known)
    hint = f"did you mean {known[near]}?" if near else "the keys stand in splat-esd --help."
    return f"unknown key {key}; {hint}"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields every dotted key of a section, as it is written."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        yield key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, key + ".")
