"""The configuration of a run, and its strict loader.

It is checked once, and below `cli/` everybody sees these frozen objects only.
"""

import ctypes
import json
import re
import sys
from collections.abc import Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, Field, model_validator

from splat_esd.config.overrides import assign, compose, split_overrides
from splat_esd.config.schema import (
    CamerasConfig,
    Count,
    DensityConfig,
    ExportConfig,
    FrozenSection,
    GuidanceConfig,
    ImportConfig,
    InitConfig,
    LogConfig,
    MeshConfig,
    OptimConfig,
    PriorConfig,
    QualityConfig,
    RasterizerConfig,
    RegularizeConfig,
    UserPath,
    at_home,
    key,
    within,
)
from splat_esd.config.validation import validate
from splat_esd.config.yaml_file import read_yaml
from splat_esd.errors import ConfigError

EXAMPLE = 'splat-esd prompt="a corgi"'
# What the prior decides where it is not given, or null.
FROM_PRIOR = (
    "guidance.cfg_scale",
    "guidance.lora.rank",
    "guidance.lora.learning_rate",
    "guidance.perp_neg.enabled",
    "steps",
)
Section = TypeVar("Section", bound=FrozenSection)
# What may differ when a run is resumed: where it runs, and what is shown and written.
# `steps` may not: learning rates, times and densification are fractions of the run.
RESUMABLE = ("resume", "device", "processes", "viewer", "export", "mesh", "log")
_OF_THE_WAY = ("out", "seeds", "keep", "classifier", *RESUMABLE)  # what decides no number of a run


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

    prompt: Annotated[str, AfterValidator(_spoken)] = Field(
        description="What to make; any text, taken letter by letter."
    )
    negative_prompt: str = key("", "What to stay away from, in words.")
    seed: Annotated[int, within("[0, 4294967295]")] | None = key(
        0, "Start of all randomness; null: pick one and print it."
    )
    seeds: Count = key(1, "Runs to make, with the seeds from `seed` on.")
    keep: Literal["all", "best"] = key(
        "all", "all: keep every run | best: also rank them and report the best"
    )
    classifier: UserPath | None = key(
        None, "Image classifier to rank by without the zoo's judge (folder, transformers' layout)."
    )
    steps: Count = key(500, "Steps of the run; null: quality.steps x prior.steps_factor.")
    out: UserPath = key(Path("outputs"), "Folder under which every run gets a folder of its own.")
    resume: UserPath | None = key(None, "Folder of a run to continue; its config.yaml is used.")
    viewer: bool = key(False, "Show the splat in the browser while it grows (127.0.0.1 only).")
    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto (cuda if there is one) | cpu | cuda")
    processes: Count | Literal["auto"] = key(
        "auto", "Processes a step's views are spread over; auto: on a CPU as many as help."
    )
    prior: PriorConfig = PriorConfig()
    guidance: GuidanceConfig = GuidanceConfig()
    cameras: CamerasConfig = CamerasConfig()
    rasterizer: RasterizerConfig = RasterizerConfig()
    init: InitConfig = InitConfig()
    imported: ImportConfig = Field(default=ImportConfig(), alias="import")
    density: DensityConfig = DensityConfig()
    quality: QualityConfig = QualityConfig()
    optim: OptimConfig = OptimConfig()
    regularize: RegularizeConfig = RegularizeConfig()
    export: ExportConfig = ExportConfig()
    mesh: MeshConfig = MeshConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _resolved(self) -> "Config":
        """Fills what was left to the prior, so that everybody reads one number."""
        prior, guidance = self.prior, self.guidance
        sds = guidance.name in ("sds", "csd")
        views = prior.view_prompts
        if "enabled" in guidance.perp_neg.model_fields_set:
            if guidance.perp_neg.enabled and not views:
                raise ConfigError("guidance.perp_neg.enabled needs prior.view_prompts=true.")
            if guidance.perp_neg.enabled and guidance.rectify:
                raise ConfigError(
                    "guidance.perp_neg opposes the view that the camera tells, and with "
                    f"guidance.rectify={guidance.rectify} it tells none: use one of them."
                )
        if guidance.rectify and not views:
            raise ConfigError(
                f"guidance.rectify={guidance.rectify} asks with the words for the views: it needs "
                "prior.view_prompts=true."
            )
        guidance = guidance.model_copy(
            update={
                "perp_neg": _filled(
                    guidance.perp_neg, enabled=prior.perp_neg and views and not guidance.rectify
                ),
                "lora": _filled(
                    guidance.lora, rank=prior.lora_rank, learning_rate=prior.lora_learning_rate
                ),
            }
        )
        scale = prior.sds_cfg_scale if sds else prior.cfg_scale
        # The model is frozen for all others; here it is still being made.
        object.__setattr__(self, "guidance", _filled(guidance, cfg_scale=scale))
        if self.init.keep != "none" and self.density.strategy != "none":
            raise ConfigError(
                f"init.keep={self.init.keep} holds each splat to its own start, which "
                f"density={self.density.strategy} would lose: use density=none or init.keep=none."
            )
        if "steps" not in self.model_fields_set:
            object.__setattr__(self, "steps", self.quality.steps * prior.steps_factor)
        return self

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

    def of_the_result(self) -> dict[str, Any]:
        """Returns the settings that decide the result, by dotted key; a checkpoint holds them."""
        data = self.model_dump(mode="json", by_alias=True, exclude=set(_OF_THE_WAY))
        return _dotted(data)

    def to_yaml(self) -> str:
        """Returns the text of config.yaml; `from_yaml` reads back an equal object."""
        data = self.model_dump(mode="json", by_alias=True)
        return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)

    @classmethod
    def from_yaml(cls, text: str, *, source: str = "config.yaml") -> "Config":
        """Reads the text of a config.yaml, an earlier version's too (see `changes_since`).

        Raises:
            ConfigError: If it is not YAML, or a value is of another type or out of range.
        """
        return _validated(_known_keys(cls, _read_yaml(text, source)), source=source)


def _filled(section: Section, **values: Any) -> Section:
    """Returns a section with those values that were not given to it."""
    missing = {name: v for name, v in values.items() if name not in section.model_fields_set}
    return section.model_copy(update=missing)


def changes_since(text: str, *, source: str = "config.yaml") -> list[str]:
    """Returns a line for each key of a config.yaml that is gone, and each default that it lacks."""
    data = _read_yaml(text, source)
    gone = [
        f"{name} is no longer a setting and is left out."
        for name in _dotted(data)
        if name not in DEFAULTS and not name.startswith(tuple(f"{free}." for free in DEFAULTS))
    ]
    there = set(_dotted(data))
    new = [
        f"{name} was not a setting yet and is {value!r}, the default."
        for name, value in DEFAULTS.items()
        if name not in there and name not in FROM_PRIOR
    ]
    return gone + new


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
        raise ConfigError("prior.path needs the kind of prior too: prior=sd21, sd15, sdxl or zoo.")
    return _assemble({**groups, "prior": choose_prior()}, values)


class ExportJob(FrozenSection):
    """What `splat-esd export` was asked for."""

    source: UserPath = Field(alias="from", description="Folder of a run, or a splat file.")
    out: UserPath | None = key(None, "Folder for the files; null: export/ beside the splat.")
    imported: ImportConfig = Field(default=ImportConfig(), alias="import")
    export: ExportConfig = ExportConfig()
    mesh: MeshConfig = MeshConfig()


def load_export(overrides: Sequence[str]) -> ExportJob:
    """Returns the export the command line asks for: from, out, formats, import.*, export.*, mesh.*.

    Raises:
        ConfigError: If a key or a value is wrong, or `from` is missing.
    """
    groups, values = split_overrides(overrides)
    if groups:
        raise ConfigError(
            "export takes from, out, formats, import.*, export.* and mesh.*, "
            f"got {next(iter(groups))}."
        )
    if "from" not in values:
        raise ConfigError("nothing to export: say from=FOLDER_OF_A_RUN or from=FILE.ply")
    data: dict[str, Any] = {}
    for name, value in values.items():
        assign(data, "export.formats" if name == "formats" else name, value)
    return validate(ExportJob, data)


def choose_prior() -> str:
    """Returns what `prior=auto` stands for here: sd21 on a CUDA GPU, the embedded zoo elsewhere."""
    # Loading torch takes seconds, which a misspelt prompt should not have to wait for.
    if "torch" not in sys.modules and not _may_have_gpu():
        return "zoo"
    import torch

    return "sd21" if torch.cuda.is_available() else "zoo"


def _may_have_gpu() -> bool:
    """Whether a GPU can be there: a torch built for one and, for CUDA, NVIDIA's driver."""
    torch = find_spec("torch")
    built = Path(torch.origin).with_name("version.py") if torch and torch.origin else None
    if built is None or not built.is_file():
        return True
    text = built.read_text(encoding="utf-8")
    if not re.search(r"^(cuda|hip)\b.*=\s*['\"]", text, re.MULTILINE):
        return False
    if not sys.platform.startswith("linux") or re.search(r"^hip\b.*=\s*['\"]", text, re.MULTILINE):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def cached_mirror(choice: str) -> str | None:
    """Returns the hub id under which a prior's weights lie in the hub's local cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    endings = ("safetensors", "fp16.safetensors", "safetensors.index.json", "bin")
    weights = [f"{p}/diffusion_pytorch_model.{e}" for p in ("unet", "transformer") for e in endings]
    for mirror in compose({"prior": choice})["prior"].get("mirrors", ()):
        if any(isinstance(try_to_load_from_cache(mirror, name), str) for name in weights):
            return mirror
    return None


def _assemble(groups: dict[str, str], values: dict[str, Any]) -> Config:
    data = compose(groups)
    for name, value in values.items():
        assign(data, name, value)
    if data.get("prompt") is None:
        _validated({**data, "prompt": EXAMPLE})  # a misspelt key says more
        raise ConfigError(f"no prompt: say what to make, as in {EXAMPLE}")
    return _validated(data)


def _validated(data: dict[str, Any], *, source: str = "") -> Config:
    """Returns the settings; null in a key of `FROM_PRIOR` means that the prior decides."""
    data = deepcopy(data)
    for name in FROM_PRIOR:
        *sections, last = name.split(".")
        inner = data
        for section in sections:
            inner = inner.get(section, {}) if isinstance(inner, dict) else {}
        if isinstance(inner, dict) and inner.get(last, 0) is None:
            del inner[last]
    return validate(Config, data, source=source)


def _known_keys(model: type[BaseModel], data: dict[str, Any]) -> dict[str, Any]:
    """Returns the data without the keys that the model, in its sections too, does not have."""
    fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    known = {}
    for name, value in data.items():
        kind = fields.get(name)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, dict):
            known[name] = _known_keys(kind, value)
        elif name in fields:
            known[name] = value
    return known


def _dotted(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested sections as one dict:  {"guidance.lambda": 0.5, ...}."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        name = str(name)
        nested = isinstance(value, dict)
        flat |= _dotted(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def _resumed(groups: dict[str, str], values: dict[str, Any]) -> Config:
    """Returns the configuration of a run to continue, with only harmless settings changed."""
    folder = at_home(values["resume"])
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"cannot resume {folder}: there is no config.yaml in it.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text.") from None
    saved = Config.from_yaml(text, source=str(path))
    from splat_esd import console

    for line in changes_since(text, source=str(path)):
        console.note(f"{path}: {line}")
    before = {**saved.model_dump(mode="json", by_alias=True), "resume": str(folder)}
    for group, choice in groups.items():
        section = before[group]
        now = section.get("name") or section.get("kind") or section.get("strategy") or choice
        if choice not in (now, "auto"):
            raise ConfigError(_changed(group, now, choice))
    for name, value in values.items():
        after = json.loads(json.dumps(before))
        assign(after, name, value)
        if _validated(after) != _validated(before):
            if name.split(".")[0] not in RESUMABLE:
                raise ConfigError(_changed(name, _look_up(before, name), value))
            before = after
    return _validated(before)


def _changed(name: str, now: object, wanted: object) -> str:
    return (
        f"{name} is {now!r} in the run to resume, not {wanted!r}: it would change the result; "
        f"drop {name}, or start a new run without resume."
    )


def _look_up(data: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        data = data[part]
    return data


def _read_yaml(text: str, source: str) -> dict[str, Any]:
    data = read_yaml(text, source=source)
    if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
        raise ConfigError(f"{source} holds no configuration: expected keys and values.")
    return data


# The settings of a run of the zoo prior that says no more than its prompt, by dotted key.
DEFAULTS = _dotted(Config(prompt=EXAMPLE).model_dump(mode="json", by_alias=True))
