"""LoRAs that people have trained, fused into the prior's own weights before anything else happens.

    W <- W + weight * alpha / r * B A

peft's, diffusers' and kohya's files; what a file changes of the text encoders is fused there.
"""

import json
from pathlib import Path
from typing import Any

import torch

from splat_esd.config.schema import file_and_weight
from splat_esd.diffusion.families import Family
from splat_esd.errors import UsageError

_PEFT = "base_model.model."


def split_weight(text: str) -> tuple[str, float]:
    """Returns the file and the weight of FILE[:weight].

    Raises:
        UsageError: If the weight is no number.
    """
    name, weight = file_and_weight(text)
    try:
        return name, float(weight or 1.0)
    except ValueError:
        raise UsageError(f"prior.lora: {text}: {weight!r} is no number; say FILE:0.7.") from None


def fuse_loras(
    loras: tuple[str, ...], folder: Path, family: Family, denoiser: Any, text_encoders: list[Any]
) -> None:
    """Fuses LoRAs into a denoiser and its text encoders, in place, one after the other.

    Arguments:
        loras: FILE[:weight] each: a .safetensors file, a folder that holds one, or the name of one
            beside the prior, without its ending.
        folder: The prior's.
    Raises:
        UsageError: If a file is not there, or does not fit this prior.
    """
    for text in loras:
        name, weight = split_weight(text)
        path = _file(name, folder)
        try:
            changed = _fuse(path, weight, family, denoiser, text_encoders)
        except Exception as error:  # whatever a strange file makes of three libraries
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise UsageError(f"prior.lora: {path} does not fit this prior: {said}") from error
        if not changed:
            raise UsageError(
                f"prior.lora: {path} changes nothing in this prior: none of its names is one of "
                "the denoiser's or the text encoders'; is it for another family?"
            )


def _file(name: str, folder: Path) -> Path:
    path = Path(name).expanduser()
    beside = folder / f"{name}.safetensors"
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) == 1:
            return found[0]
        raise UsageError(f"prior.lora: {path} holds {len(found)} .safetensors files; name one.")
    if path.is_file():
        return path
    if beside.is_file():
        return beside
    raise UsageError(f"prior.lora: there is no file {path}, nor {beside}.")


@torch.no_grad()
def _fuse(
    path: Path, weight: float, family: Family, denoiser: Any, text_encoders: list[Any]
) -> bool:
    """Loads one file as an adapter, fuses it and takes the adapter off; returns whether any of
    its names was known.
    """
    from diffusers import loaders

    mixin, part = getattr(loaders, family.loras), family.denoiser[0]
    named = _named(path, part)
    if part == "unet":
        state, alphas = mixin.lora_state_dict(named, unet_config=denoiser.config)[:2]
    else:
        state, alphas = mixin.lora_state_dict(named), None
    changed = False
    if any(key.startswith(f"{part}.") for key in state):
        if part == "unet":
            mixin.load_lora_into_unet(state, alphas, unet=denoiser, adapter_name="given")
        else:
            mixin.load_lora_into_transformer(state, transformer=denoiser, adapter_name="given")
        if getattr(denoiser, "peft_config", None):
            denoiser.fuse_lora(lora_scale=weight, adapter_names=["given"])
            denoiser.unload_lora()
            changed = True
    for i, encoder in enumerate(text_encoders):
        prefix = "text_encoder" if i == 0 else f"text_encoder_{i + 1}"
        if any(key.startswith(f"{prefix}.") for key in state):
            _fuse_text(mixin, state, alphas, encoder, prefix, weight)
            changed = True
    return changed


def _fuse_text(
    mixin: Any, state: dict, alphas: Any, encoder: Any, prefix: str, weight: float
) -> None:
    from diffusers.loaders.lora_base import fuse_text_encoder_lora
    from diffusers.utils.peft_utils import recurse_remove_peft_layers

    mixin.load_lora_into_text_encoder(state, alphas, encoder, prefix=prefix, adapter_name="given")
    fuse_text_encoder_lora(encoder, weight, adapter_names=["given"])
    recurse_remove_peft_layers(encoder)
    encoder.__dict__.pop("peft_config", None)
    encoder._hf_peft_config_loaded = False


def _named(path: Path, part: str) -> dict[str, torch.Tensor]:
    """Reads a file as diffusers names its parts: `unet.` or `transformer.`, `text_encoder.`; peft's
    own names and bare ones are those of the denoiser, its scale alpha / r multiplied in.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        state = {key: file.get_tensor(key).float() for key in file.keys()}
        kept = (file.metadata() or {}).get("lora_adapter_metadata")
    known = ("unet.", "transformer.", "diffusion_model.", "text_encoder", "lora_")
    bare = not any(key.startswith(known) for key in state)
    if not bare:
        return state
    beside = path.with_name("adapter_config.json")
    told = json.loads(kept or (beside.read_text(encoding="utf-8") if beside.is_file() else "{}"))
    named = {}
    for key, value in state.items():
        name = key.removeprefix(_PEFT)
        if name.endswith("lora_B.weight") and told.get("lora_alpha"):
            value = value * told["lora_alpha"] / told.get("r", value.shape[1])
        named[f"{part}.{name}"] = value
    return named
