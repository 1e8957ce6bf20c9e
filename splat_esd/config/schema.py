"""The sections of a configuration: what each key may be.

Values and their meaning stand in `conf/`; here stands what is allowed.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from splat_esd.errors import ConfigError


def within(interval: str) -> AfterValidator:
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


def _folder_or_id(text: str) -> str:
    # A folder is kept whole, so that a run can be resumed from another place; a hub id as it is.
    folder = Path(text).expanduser()
    return str(folder.absolute()) if folder.is_dir() else text


Unit = Annotated[float, within("[0, 1]")]
Weight = Annotated[float, within("[0, inf)")]
Positive = Annotated[float, within("(0, inf)")]
Count = Annotated[int, within("[1, inf)")]
Degrees = Annotated[float, within("[-90, 90]")]
Rising = AfterValidator(_rising)
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
Rates = tuple[Weight, Weight]
Format = Literal[
    "ply", "splat", "spz", "gltf", "glb", "obj", "stl", "turntable", "strip", "sheet", "viewer"
]


class FrozenSection(BaseModel):
    """What cannot be changed, and takes no unknown key and no value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PriorConfig(FrozenSection):
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


class PerpNegConfig(FrozenSection):
    """The negative prompt, kept perpendicular to the prompt."""

    enabled: bool | None
    weight: Weight


class LoraConfig(FrozenSection):
    """The learnt score of the particles."""

    rank: Count | None
    learning_rate: Positive | None
    camera_drop: Unit
    steps: Count


class GuidanceConfig(FrozenSection):
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


class BackgroundConfig(FrozenSection):
    """What is behind the object."""

    color: tuple[Unit, Unit, Unit]
    random_probability: Unit


class CamerasConfig(FrozenSection):
    """Where the object is looked at from; angles in degrees."""

    batch_size: Count
    elevation: Annotated[tuple[Degrees, Degrees], Rising]
    distance: Annotated[tuple[Positive, Positive], Rising]
    fovy: Annotated[
        tuple[Annotated[float, within("(0, 180)")], Annotated[float, within("(0, 180)")]], Rising
    ]
    progressive_until: Unit
    background: BackgroundConfig

    @model_validator(mode="after")
    def _outside(self) -> "CamerasConfig":
        if self.distance[0] <= 1:
            raise ConfigError(
                f"cameras.distance must lie above 1 (the object fills a ball of radius 1), "
                f"got {list(self.distance)}."
            )
        return self


class RasterizerConfig(FrozenSection):
    """How Gaussians become pixels."""

    backend: Literal["auto", "cpu", "cuda", "reference"]
    antialiased: bool
    near_plane: Positive
    eps2d: Weight


class InitConfig(FrozenSection):
    """The Gaussians of step 0."""

    kind: Literal["ball", "ply", "points"]
    path: UserPath | None
    count: Annotated[int, within("[4, inf)")]
    radius: Positive
    opacity: Annotated[float, within("(0, 1)")]
    color: Unit

    @model_validator(mode="after")
    def _has_file(self) -> "InitConfig":
        if self.kind == "ball" and self.path is not None:
            raise ConfigError("init.path needs init=ply (a splat) or init=points (a point cloud).")
        if self.kind != "ball" and self.path is None:
            raise ConfigError(f"init={self.kind} needs a file: init.path=cloud.ply.")
        return self


class DensityConfig(FrozenSection):
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


class QualityConfig(FrozenSection):
    """How much work a run is."""

    name: Literal["draft", "normal", "high"]
    steps: Count


class OptimConfig(FrozenSection):
    """Learning rates at the start and the end of the run, by parameter."""

    means: Rates
    log_scales: Rates
    quats: Rates
    logit_opacities: Rates
    sh: Rates


class RegularizeConfig(FrozenSection):
    """Weights of the terms beside the guidance."""

    cover: Weight
    scale: Weight
    range: Weight


class ExportConfig(FrozenSection):
    """The files made from a splat."""

    formats: Annotated[tuple[Format, ...], Field(min_length=1)]
    up: Literal["-y", "y", "z"]
    full_ply: bool
    frames: Count
    size: Annotated[int, within("[16, 4096]")]
    transparent: bool

    @model_validator(mode="after")
    def _video_size(self) -> "ExportConfig":
        if self.size % 16:
            raise ConfigError(f"export.size must be a multiple of 16, got {self.size}.")
        return self


class MeshConfig(FrozenSection):
    """How a splat becomes a mesh."""

    faces: Annotated[int, within("[500, 1000000]")]
    texture: Annotated[int, within("[64, 8192]")]
    watertight: bool
    sharpen: Annotated[int, within("[0, 100]")]


class LogConfig(FrozenSection):
    """How often something is written, in steps."""

    every: Count
    preview_every: Count
    checkpoint_every: Count
