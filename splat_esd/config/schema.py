"""The sections of a run's settings: each key's type, range, default and one-line description.

The files in `conf/` choose among these values and hold what differs from the defaults. The models
stand here and not beside torch's classes, so that help and mistakes answer without loading torch.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from splat_esd.errors import ConfigError

LARGEST = 1e9  # of any number without a bound of its own: far from what float32 and memory take


def within(interval: str) -> AfterValidator:
    """Returns a check that a number lies in an interval written as in a paper: `[0, 1)`."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))

    def check(value: float | int) -> float | int:
        above = value > low if interval[0] == "(" else value >= low
        below = value < high if interval[-1] == ")" else value <= high
        if high == float("inf") and value > LARGEST:
            raise ValueError(f"must be at most {LARGEST:g}, got {value!r}.")
        if not (above and below):
            raise ValueError(f"must lie in {interval}, got {value!r}.")
        return value

    return AfterValidator(check)


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"must be [lowest, highest], got {list(pair)}.")
    return pair


def at_home(path: Path | str) -> Path:
    """Returns a path with `~` written out.

    Raises:
        ConfigError: If it names nobody's home here, or cannot be a path.
    """
    if "\0" in str(path):
        raise ConfigError(f"{str(path)!r} is no path: it holds a null character.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{path}: there is no such home folder here.") from None


def _folder_or_id(text: str) -> str:
    # A folder is kept whole, so that a run can be resumed from another place; a hub id as it is.
    folder = at_home(text)
    return str(folder.absolute()) if folder.is_dir() else text


def _listed(value: object) -> object:
    """Reads `a.safetensors:0.5,b.safetensors` as two."""
    if isinstance(value, str):
        return tuple(text.strip() for text in value.strip("[]").split(",") if text.strip())
    return tuple(value) if isinstance(value, list) else value


def file_and_weight(text: str) -> tuple[str, str]:
    """Returns both parts of FILE:WEIGHT, the weight "" where there is none."""
    name, colon, weight = text.rpartition(":")
    return (name, weight) if colon and not {"/", "\\"} & set(weight) else (text, "")


def _lora(text: str) -> str:
    # A file is kept whole, so that a run can be resumed from another place; a name as it is.
    name, _ = file_and_weight(text)
    path = at_home(name)
    return f"{path.absolute()}{text[len(name) :]}" if path.exists() else text


Unit = Annotated[float, within("[0, 1]")]
Lora = Annotated[str, AfterValidator(_lora)]
Weight = Annotated[float, within("[0, inf)")]
Positive = Annotated[float, within("(0, inf)")]
Count = Annotated[int, within("[1, inf)")]
Rank = Annotated[int, within("[1, 1024]")]
Crowd = Annotated[int, within("[1, 10000000]")]  # Gaussians
Degrees = Annotated[float, within("[-90, 90]")]
Rising = AfterValidator(_rising)
UserPath = Annotated[Path, Field(strict=False), AfterValidator(at_home)]
Rates = tuple[Weight, Weight]
Format = Literal[
    "ply", "compressed", "splat", "spz", "gltf", "usda",
    "glb", "obj", "stl", "turntable", "strip", "sheet", "viewer",
]  # fmt: skip


class FrozenSection(BaseModel):
    """A section that is frozen and refuses unknown keys and values of another type."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
    )


def key(default: Any, description: str, **more: Any) -> Any:
    """Returns pydantic's field with its default and the line that help and conf/README.md print."""
    return Field(default, description=description, **more)


class PriorConfig(FrozenSection):
    """The pretrained diffusion model. The choices are the files of conf/prior."""

    name: Literal["auto", "zoo", "sd15", "sd21", "sdxl", "sd35", "flux2_klein", "mvdream"] = key(
        "zoo", "Which prior: prior=NAME sets it."
    )
    path: Annotated[str, AfterValidator(_folder_or_id)] | None = key(
        None, "Folder or hub id to load instead; null: this prior's own files, or its mirrors."
    )
    mirrors: tuple[str, ...] = key((), "Hub ids to look for, the first one first.")
    lora: Annotated[tuple[Lora, ...], BeforeValidator(_listed)] = key(
        (), "LoRAs fused into it: FILE or FILE:WEIGHT, several with commas between."
    )
    revision: str | None = key(None, "Commit or tag on the hub; null: the newest.")
    size: Annotated[int, within("[16, 2048]")] | None = key(
        None, "Side of the pictures it is shown, in pixels; null: as it was trained."
    )
    growth: tuple[tuple[Unit, Unit], ...] = key(
        (), "Smaller pictures in a young run: [until this share of it, this share of size], ..."
    )
    dtype: Literal["auto", "fp32", "bf16"] = key(
        "auto",
        "auto (bf16 on a GPU or a processor with instructions for it, else fp32) | fp32 | bf16",
    )
    cfg_scale: Weight = key(
        1.5, "Classifier-free guidance of ESD and VSD; 1 is the plain conditional score."
    )
    sds_cfg_scale: Weight = key(3.0, "Classifier-free guidance of SDS.")
    lora_rank: Rank = key(16, "Rank of the LoRA that learns the renders' score.")
    lora_learning_rate: Positive = key(1e-3, "Learning rate of that LoRA's Adam.")
    pullback: Literal["encoder", "decoder"] = key(
        "decoder", "How a gradient gets from latents to pixels: encoder (the paper) | decoder"
    )
    memory: Literal["auto", "full", "low"] = key(
        "auto",
        "full (all views at once) | low (one at a time, computed twice) | auto (full, and fewer at "
        "a time whenever the GPU's memory runs out)",
    )
    perp_neg: bool = key(False, "Perp-Neg: keep each view from looking like the opposite ones.")
    steps_factor: Count = key(1, "Steps of a run, in multiples of the quality's.")
    view_prompts: bool = key(
        True, 'Add "front view", "side view", ... to the prompt, blended by the camera\'s azimuth.'
    )


class PerpNegConfig(FrozenSection):
    """Perp-Neg: the other views' prompts, kept perpendicular to the view's own prompt."""

    enabled: bool = key(False, "Two more evaluations of the prior a step; null: the prior's.")
    weight: Weight = key(1.0, "Weight of the part perpendicular to the view's own prompt.")


class LoraConfig(FrozenSection):
    """phi: the LoRA that learns the score of the renders."""

    rank: Rank = key(16, "Rank of each low-rank update; null: the prior's.")
    learning_rate: Positive = key(1e-3, "Learning rate of its Adam; null: the prior's.")
    camera_drop: Unit = key(
        0.3, "Share of samples that teach phi without a camera, with branches=both."
    )
    steps: Count = key(1, "Updates of phi at each step; the first uses what guidance drew.")


class GuidanceConfig(FrozenSection):
    """The score that moves the renders; `lam` is lambda, None for SDS."""

    name: Literal["esd", "vsd", "sds", "csd", "sdi"] = key(
        "esd", "Which score: guidance=NAME sets it."
    )
    lam: Annotated[float, within("[0, 4]")] | None = key(
        0.5,
        "Weight of the camera-free score: 0 is VSD, more keeps views apart; null for SDS. At most "
        "1, or 4 with entropy=exact.",
        alias="lambda",
    )
    entropy: Literal["phi", "exact"] = key(
        "phi",
        "What tells how much a view says of its camera: phi | exact (phi still learns the score "
        "of each view; further views of the same object, before one background, tell the rest).",
    )
    entropy_views: Count = key(12, "Further views at each step of entropy=exact.")
    branches: Literal["one", "both"] = key(
        "one",
        "Which of phi's answers a view is given if 0 < lambda < 1: one, by chance, lambda for that "
        "without the camera (the same on average, a pass less) | both, weighted by lambda.",
    )
    cfg_scale: Weight = key(1.5, "Classifier-free guidance; null: the prior's.")
    t_min: Unit = key(0.02, "Lowest diffusion time, as a fraction of the schedule.")
    t_max: Unit = key(0.98, "Highest diffusion time at the start ...")
    t_max_end: Unit = key(0.5, "... and from anneal_at on.")
    anneal_at: Unit = key(0.4, "When t_max falls to t_max_end, as a fraction of the run.")
    weight: Literal["sigma2", "uniform"] = key(
        "sigma2", "w(t): sigma2 (1 - alphas_cumprod) | uniform (1)"
    )
    grad_clamp: Positive | None = key(
        None, "Largest change of an entry of the prior's score by CFG; null: no limit."
    )
    rectify: Literal["prompts"] | None = key(
        None,
        "prompts: the words of all views are asked, and those that fit a direction hold there, "
        "each as often as its part of a circle; the camera tells none. null: the camera's words.",
    )
    perp_neg: PerpNegConfig = PerpNegConfig()
    lora: LoraConfig = LoraConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "GuidanceConfig":
        if self.name in ("sds", "csd", "sdi") and self.lam is not None:
            raise ConfigError(
                f"guidance={self.name} has no lambda; use guidance=esd with guidance.lambda."
            )
        if self.name == "vsd" and self.lam != 0:
            raise ConfigError("guidance=vsd is lambda 0; use guidance=esd with guidance.lambda.")
        if self.name == "esd" and self.lam is None:
            raise ConfigError("guidance.lambda must lie in [0, 1], got null; SDS is guidance=sds.")
        if self.entropy == "phi" and (self.lam or 0) > 1:
            raise ConfigError(
                f"guidance.lambda must lie in [0, 1], got {self.lam}; above 1 what "
                "phi says of the camera has a negative weight. guidance.entropy=exact allows 4."
            )
        if self.entropy == "exact" and self.name != "esd":
            raise ConfigError(
                f"guidance.entropy=exact is for guidance=esd; guidance={self.name} has no entropy."
            )
        if self.name == "sdi" and self.rectify:
            raise ConfigError(
                "guidance.rectify learns from random noise, and guidance=sdi draws none: use "
                "another guidance, or guidance.rectify=null."
            )
        for bound in ("t_max", "t_max_end"):
            if getattr(self, bound) <= self.t_min:
                raise ConfigError(
                    f"guidance.{bound} must lie above guidance.t_min = {self.t_min}, "
                    f"got {getattr(self, bound)}."
                )
        return self


class BackgroundConfig(FrozenSection):
    """What is behind the object while it is optimised."""

    color: tuple[Unit, Unit, Unit] = key((1.0, 1.0, 1.0), "Red, green, blue in [0, 1].")
    random_probability: Unit = key(1.0, "Probability that a view has a random colour instead.")


class CamerasConfig(FrozenSection):
    """Cameras around the object; azimuths are spread evenly in each batch; angles in degrees."""

    batch_size: Annotated[int, within("[1, 1024]")] = key(4, "Views at each step.")
    elevation: Annotated[tuple[Degrees, Degrees], Rising] = key(
        (-10.0, 45.0), "Degrees above the horizon: [lowest, highest]."
    )
    distance: Annotated[tuple[Positive, Positive], Rising] = key(
        (2.3, 2.6), "From the origin, in world units (the object fits a ball of radius 1)."
    )
    fovy: Annotated[
        tuple[Annotated[float, within("(0, 180)")], Annotated[float, within("(0, 180)")]], Rising
    ] = key((40.0, 46.0), "Vertical field of view in degrees: [narrowest, widest].")
    progressive_until: Unit = key(
        0.3, "Fraction of the run in which views spread from 90 degrees at the front to all around."
    )
    background: BackgroundConfig = BackgroundConfig()

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

    backend: Literal["auto", "cpu", "cuda", "reference"] = key(
        "auto",
        "auto (gsplat on a CUDA GPU, else C++) | cpu (C++) | cuda (gsplat) | reference (PyTorch)",
    )
    antialiased: bool = key(False, "Dim splats smaller than a pixel, as Mip-Splatting does.")
    near_plane: Positive = key(0.01, "Nothing nearer to the camera is drawn, in world units.")
    eps2d: Weight = key(0.3, "Added to the variance of each splat on the screen, in pixels^2.")


Ball = tuple[float, float, float, Positive]
Box = tuple[float, float, float, float, float, float]


class InitConfig(FrozenSection):
    """The Gaussians of step 0."""

    kind: Literal["ball", "ply", "points"] = key("ball", "Which start: init=KIND sets it.")
    path: UserPath | None = key(
        None,
        "File to start from: a splat of any format (init=ply), points or a mesh (init=points).",
    )
    count: Annotated[int, within("[4, 10000000]")] = key(10000, "Gaussians at the start.")
    radius: Positive = key(0.6, "Radius of the ball, in world units.")
    opacity: Annotated[float, within("(0, 1)")] = key(0.1, "Opacity of each Gaussian, in (0, 1).")
    color: Unit = key(0.5, "Grey level of each Gaussian, in [0, 1].")
    keep: Literal["none", "shape", "colour"] = key(
        "none", "What a start from splats holds on to: none | shape (places, sizes) | colour"
    )
    region: Ball | Box | None = key(
        None,
        "Where alone it may change: [x, y, z, radius] or [low x y z, high x y z], in the file's "
        "axes; null: everywhere.",
    )
    front: Annotated[float, within("[-360, 360]")] = key(
        0.0, "Azimuth of the start's front, in degrees: 0 is +x, 90 is +y, z is up."
    )

    @model_validator(mode="after")
    def _has_file(self) -> "InitConfig":
        if self.kind == "ball" and self.path is not None:
            raise ConfigError("init.path needs init=ply (a splat) or init=points (a point cloud).")
        if self.kind != "ball" and self.path is None:
            raise ConfigError(f"init={self.kind} needs a file: init.path=cloud.ply.")
        if self.kind != "ply" and (self.keep != "none" or self.region is not None):
            raise ConfigError("init.keep and init.region need splats to start from: init=ply.")
        return self


class ImportConfig(FrozenSection):
    """How a splat file of any program is read."""

    up: Literal["auto", "-y", "y", "z"] = key(
        "auto",
        'Up axis of the file: auto (what it says, else what its kind mostly means) | "-y" | y | z',
    )
    crop: Literal["auto"] | Ball | Box | None = key(
        None,
        "Keep [x, y, z, radius] or [low x y z, high x y z], in the file's axes | auto (no sky, no "
        "floaters) | null (all)",
    )
    fit: bool = key(
        False, "Move into the unit ball; a start that does not lie in it is moved in any case."
    )


class DensityConfig(FrozenSection):
    """When Gaussians are added and removed."""

    strategy: Literal["default", "mcmc", "none"] = key(
        "default", "Which rule: density=STRATEGY sets it."
    )
    start: Unit = key(0.1, "When it begins ...")
    stop: Unit = key(0.6, "... and ends, as fractions of the run.")
    every: Count = key(100, "Steps between two rounds.")
    cap: Crowd = key(20000, "Largest number of Gaussians.")
    grow_quantile: Unit = key(
        0.9, "Grow those whose screen gradient lies above this quantile; 1 grows none."
    )
    grow_scale: Positive = key(0.05, "Split those larger than this, clone others; world units.")
    prune_opacity: Unit = key(0.01, "Remove (mcmc: relocate) those with less opacity.")
    prune_scale: Positive = key(0.5, "Remove those larger than this, in world units.")
    specks: Unit = key(
        0.005,
        "Leave out of a finished run what hangs apart and holds less than this share of the "
        "surface; 0: nothing. What started from a file stays whole.",
    )
    noise: Weight = key(0.0, "mcmc only: strength of the random walk, times the rate of means.")

    @model_validator(mode="after")
    def _ordered(self) -> "DensityConfig":
        if self.start > self.stop:
            raise ConfigError(
                f"density.start must not lie above density.stop = {self.stop}, got {self.start}."
            )
        return self


class QualityConfig(FrozenSection):
    """The length of a run; quality=NAME also sets init.count and density.cap."""

    name: Literal["draft", "normal", "high"] = key("normal", "quality=NAME sets it.")
    steps: Count = key(500, "Steps of a run, times prior.steps_factor, unless steps= is given.")


class OptimConfig(FrozenSection):
    """Adam's learning rates at the [start, end] of a run, over the root of prior.steps_factor."""

    means: Rates = key((1e-2, 5e-4), "Positions, in world units.")
    log_scales: Rates = key((1.5e-2, 1.5e-2), "Logarithms of the sizes.")
    quats: Rates = key((5e-3, 5e-3), "Rotations, as quaternions.")
    logit_opacities: Rates = key((5e-2, 1e-2), "Logits of the opacities.")
    sh: Rates = key((4e-2, 1e-2), "Colours, as spherical harmonics.")


class RegularizeConfig(FrozenSection):
    """Weights of the terms added to the loss; 0 turns a term off."""

    cover: Weight = key(0.005, "Sum of alpha over a view: clears fog ...")
    cover_until: Unit = key(
        0.6, "... and ends at this share of the run: what it kept thin becomes solid."
    )
    scale: Weight = key(1.0, "Mean size of the Gaussians in world units: fewer blobs.")
    range: Weight = key(0.5, "Squared excess of colours outside [0, 1], summed over a view.")

    def at(self, progress: float) -> dict[str, float]:
        """Returns the weights of the terms at a share of the run."""
        cover = self.cover if progress < self.cover_until else 0.0
        return {"cover": cover, "scale": self.scale, "range": self.range}


class ExportConfig(FrozenSection):
    """The files made from a splat."""

    formats: Annotated[tuple[Format, ...], Field(min_length=1)] = key(
        ("ply", "turntable", "sheet", "viewer", "glb"),
        "Files to write: ply compressed splat spz gltf usda (the splat), glb obj stl (a mesh), "
        "turntable strip (films), sheet (views in one picture), viewer (a web page)",
    )
    up: Literal["-y", "y", "z"] = key(
        "-y", 'Up axis in .ply and .splat: "-y" (splat viewers) | y | z; others are always y up.'
    )
    spz_version: Literal[3, 4] = key(
        3, "Version of .spz: 3 (Spark, Scaniverse, most readers) | 4 (PlayCanvas)"
    )
    full_ply: bool = key(False, "Write all 62 floats a splat into the PLY, for old viewers.")
    frames: Count = key(60, "Views in the turntable.")
    size: Annotated[int, within("[16, 4096]")] = key(
        512,
        "Width and height of the turntable, a multiple of 16, in pixels; a view of the sheet has "
        "half of it.",
    )
    transparent: bool = key(False, "No background in turntable.webp and sheet.png.")

    @model_validator(mode="after")
    def _video_size(self) -> "ExportConfig":
        if self.size % 16:
            raise ConfigError(f"export.size must be a multiple of 16, got {self.size}.")
        return self


class MeshConfig(FrozenSection):
    """How .glb, .obj and .stl are made."""

    faces: Annotated[int, within("[500, 1000000]")] = key(
        50000, "Most triangles of the mesh; 5000: a prop for a game, its normals smooth."
    )
    texture: Annotated[int, within("[64, 8192]")] = key(
        1024, "Width and height of its texture, in pixels."
    )
    origin: Literal["splat", "centre", "feet"] = key(
        "splat",
        "Where its origin lies: splat (as the splat has it) | centre (of its box) | feet (under "
        "its middle, on the ground)",
    )
    height: Positive | None = key(None, "Its height, in the file's units; null: the splat's.")
    material: Literal["lit", "unlit"] = key(
        "lit", "In .glb: lit | unlit (as painted: the light of the pictures is in the texture)"
    )
    watertight: bool = key(True, "Close the mesh; where that needs it, with fewer triangles.")
    sharpen: Annotated[int, within("[0, 100]")] = key(
        3, "Rounds of fitting the texture to renders of the splat; 0: none."
    )


class LogConfig(FrozenSection):
    """How often something is written, in steps."""

    every: Count = key(10, "A line in metrics.jsonl.")
    preview_every: Count = key(100, "A preview picture.")
    checkpoint_every: Count = key(200, "A checkpoint to resume from.")
