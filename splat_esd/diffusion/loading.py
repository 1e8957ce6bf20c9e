"""Reads a prior: from a folder in diffusers' layout, the hub's local cache, or the hub."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from splat_esd.diffusion.adapters import fuse_loras
from splat_esd.diffusion.checks import check_pipeline, family_of, is_there
from splat_esd.diffusion.families import Family
from splat_esd.diffusion.locate import FP16, locate, variant_of
from splat_esd.diffusion.multiview import read_unet
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.schedule import Schedule
from splat_esd.diffusion.vocabulary import read_vocabulary
from splat_esd.errors import UsageError

PREDICTIONS = ("epsilon", "v_prediction")  # of the models with a noise schedule


def load_prior(
    source: str,
    *,
    mirrors: tuple[str, ...] = (),
    revision: str | None = None,
    device: torch.device | str,
    dtype: str,
    pullback: str = "encoder",
    loras: tuple[str, ...] = (),
    size: int | None = None,
) -> Prior:
    """Loads a prior from a folder, from the hub's local cache, or from the hub.

    Arguments:
        source: A folder in diffusers' layout, or a hub id; `mirrors` are tried after it, in order.
        dtype: "auto" (bf16 where the device computes in it, else fp32), "bf16" or "fp32".
        pullback: "encoder" or "decoder".
        loras: FILE[:weight] each, fused into the weights; see `fuse_loras`.
        size: Side of the pictures it is shown, in pixels; None: as it was trained.
    Raises:
        UsageError: If the folder is not a prior.
        EnvironmentProblem: If a hub id is neither on this machine nor to be reached.
    """
    device = torch.device(device)
    folder, source, commit = locate(source, mirrors, revision)
    half = computes_bf16(device) if dtype == "auto" else dtype == "bf16"
    compute = torch.bfloat16 if half else torch.float32
    try:
        check_pipeline(folder, source)
        prior = _read(folder, device, compute, loras, pullback)
        prior = replace(prior, source=source, revision=commit or None, size=size)
        _try_call(prior)
    except UsageError:
        raise
    except Exception as error:  # whatever a damaged file makes of four libraries' parsers
        raise UsageError(
            f"prior.path: {folder} cannot be read as a diffusers pipeline: {_first_line(error)}"
        ) from error
    return prior


@torch.no_grad()
def _try_call(prior: Prior) -> None:
    """Asks the denoiser once, at the smallest size that passes through it."""
    config = prior.denoiser.config
    side = 2 ** len(getattr(config, "block_out_channels", (0, 0)))
    z_t = torch.zeros(1, config.in_channels, side, side, device=prior.device)
    part = "tokenizer and text_encoder"
    try:
        text = prior.encode_text([""])
        part = prior.family.denoiser[0]
        out = prior.eps(z_t, torch.zeros(1, dtype=torch.long, device=prior.device), text)
    except Exception as error:
        raise ValueError(f"{part}: a trial call failed: {_first_line(error)}") from error
    if not out.isfinite().all():
        raise ValueError(f"{part}: a trial call gave NaN or infinity; its weights are damaged.")
    if out.shape != z_t.shape:
        raise ValueError(
            f"{part}: expected {z_t.shape[1]} output channels, got {out.shape[1]}; "
            "use a text-to-image model that predicts eps or v."
        )


def computes_bf16(device: torch.device) -> bool:
    """Tells whether bf16 is the faster: on a GPU, and on processors with instructions for it."""
    if device.type != "cpu":
        return True
    # Older torch cannot tell, and without such instructions bf16 is slower than float32.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _read(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    loras: tuple[str, ...],
    pullback: str,
) -> Prior:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))

    def part(cls: Any, name: str, **options: Any) -> Any:
        try:
            if variant_of(folder / name) == FP16:
                options["variant"] = FP16
            return cls.from_pretrained(folder, subfolder=name, local_files_only=True, **options)
        except Exception as error:
            raise ValueError(f"{name}: {_first_line(error)}") from error

    family = family_of(folder, index)
    single = torch.float32
    vae = part(getattr(diffusers, family.vae), "vae") if is_there(index, "vae") else None
    # Large ones come in the precision that they are used in; LoRAs are fused in single precision.
    kept = {"torch_dtype": single if loras else dtype}
    if family.views > 1:
        denoiser = _multiview(folder / family.denoiser[0], kept["torch_dtype"])
    else:
        denoiser = part(getattr(diffusers, family.denoiser[1]), family.denoiser[0], **kept)
    names = [n for n in family.encoders if n not in family.optional or is_there(index, n)]
    encoders = []
    for name in names:
        precision = dtype if name in family.large else single
        encoder = part(getattr(transformers, family.encoders[name]), name, torch_dtype=precision)
        encoders.append(encoder.to(precision))
    fuse_loras(loras, folder, family, denoiser, encoders)
    if vae is not None:
        # Where gradients pass through the encoder its graph is most of a step's memory.
        vae = vae.to(device, dtype if pullback == "encoder" else single)
    for module in (vae, denoiser, *encoders):
        if module is not None:
            module.eval().requires_grad_(False)
    schedule, prediction = _schedule(part, family)
    denoiser = denoiser.to(device, dtype)
    if device.type == "cuda":  # on CPUs it gains nothing
        denoiser, vae = (_channels_last(network) for network in (denoiser, vae))
    return Prior(
        schedule=schedule.to(device),
        denoiser=denoiser,
        vae=vae,
        text_encoders=encoders,
        tokenizers=[
            part(_tokenizer(family.encoders[n]), n.replace("text_encoder", "tokenizer"))
            for n in names
        ],
        family=family,
        zero_empty=bool(index.get("force_zeros_for_empty_prompt")),
        prediction=prediction,
        size=None,
        source=str(folder),
        revision=None,
        dtype=dtype,
        vocabulary=read_vocabulary(folder),
        pullback=pullback,
    )


def _channels_last(network: Any) -> Any:
    """Lays the weights of convolutions out as a GPU's matrix units read them."""
    return None if network is None else network.to(memory_format=torch.channels_last)


def _multiview(part: Path, dtype: torch.dtype) -> Any:
    try:
        config = json.loads((part / "config.json").read_text(encoding="utf-8"))
        return read_unet(part, config, dtype)
    except Exception as error:
        raise ValueError(f"{part.name}: {_first_line(error)}") from error


def _schedule(part: Callable[[Any, str], Any], family: Family) -> tuple[Schedule, str]:
    """Returns the path to noise that the scheduler's configuration names, and the prediction."""
    import diffusers

    if family.prediction == "flow":
        flow = part(diffusers.FlowMatchEulerDiscreteScheduler, "scheduler").config
        return Schedule.linear(flow.num_train_timesteps, flow.shift or 1.0), "flow"
    scheduler = part(diffusers.DDPMScheduler, "scheduler")
    prediction = scheduler.config.prediction_type
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction_type: expected one of {PREDICTIONS}, got {prediction!r}.")
    return Schedule.variance_preserving(scheduler.alphas_cumprod), prediction


def _tokenizer(encoder: str) -> Any:
    import transformers

    return transformers.CLIPTokenizer if encoder.startswith("CLIP") else transformers.AutoTokenizer


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
