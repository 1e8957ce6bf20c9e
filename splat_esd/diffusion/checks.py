"""Checks a pipeline's configuration files before its weights are read: what cannot run, and why."""

import json
import re
from pathlib import Path
from typing import Any

from splat_esd.diffusion.families import FAMILIES, MULTIVIEW, Family
from splat_esd.diffusion.multiview import is_multiview, stock_config

_DISTILLED = re.compile(r"(?:^|[-_.])(turbo|lightning|lcm|hyper|schnell)(?:[-_.]|$)", re.I)
_BASE = "a distilled model has no score to distill; use the model it was made from (its base)"


def check_pipeline(folder: Path, source: str) -> None:
    """Checks that the parts of a folder in diffusers' layout fit each other and this program.

    Arguments:
        source: The folder's name or the hub id, which tells some distilled models.
    Raises:
        ValueError: Naming the part, what was wanted, what came and the way out, in one line.
    """
    index = _json(folder / "model_index.json")
    family = family_of(folder, index)
    name = family.denoiser[0]
    denoiser = _json(folder / name / "config.json")
    denoiser = stock_config(denoiser) if is_multiview(denoiser) else denoiser
    _check_distilled(index, denoiser, source)
    _check_scheduler(name, _json(folder / "scheduler" / "scheduler_config.json"))
    _check_channels(family, denoiser, folder, is_there(index, "vae"))
    if name == "unet":
        _check_text(family, denoiser, folder)


def family_of(folder: Path, index: dict[str, Any]) -> Family:
    """Returns the family of a pipeline.

    Raises:
        ValueError: If it is none of those in FAMILIES.
    """
    if is_there(index, "unet"):
        config = _json(folder / "unet" / "config.json")
        kind = MULTIVIEW if is_multiview(config) else config.get("addition_embed_type")
        if kind not in FAMILIES:
            raise ValueError(f"unet: addition_embed_type {kind!r} is not supported.")
        return FAMILIES[kind]
    kind = (index.get("transformer") or [None, None])[1]
    if kind is None or kind not in FAMILIES:
        name = index.get("_class_name", "a pipeline")
        raise ValueError(
            f"{name} is of no family that is known here; Stable Diffusion 1, 2, XL, 3 and 3.5, "
            "MVDream and FLUX.2-klein-base are."
        )
    return FAMILIES[kind]


def is_there(index: dict[str, Any], name: str) -> bool:
    """Tells whether a pipeline's index names a part."""
    return bool((index.get(name) or [None])[0])


def _check_distilled(index: dict[str, Any], denoiser: dict[str, Any], source: str) -> None:
    said = _DISTILLED.search(Path(source).name)
    marks = (index.get("is_distilled"), denoiser.get("time_cond_proj_dim"))
    if said or any(marks) or denoiser.get("guidance_embeds"):
        why = f"its name says {said[1]!r}" if said else "its configuration says so"
        raise ValueError(f"it is distilled ({why}): {_BASE}.")


def _check_scheduler(part: str, scheduler: dict[str, Any]) -> None:
    name, flows = str(scheduler.get("_class_name", "")), part == "transformer"
    if ("FlowMatch" in name) != flows:
        wanted = "a FlowMatch one" if flows else "a noise schedule (DDPM, DDIM, Euler ...)"
        raise ValueError(
            f"scheduler: expected {wanted} beside a {part}, got {name}; put the scheduler of the "
            "model's original pipeline into the folder."
        )


def _check_channels(family: Family, unet: dict[str, Any], folder: Path, latent: bool) -> None:
    part, expected = family.denoiser[0], 3
    if latent:
        gathered = family.latents.patch**2
        expected = gathered * _json(folder / "vae" / "config.json").get("latent_channels", 4)
    kind, found = "latents of its vae" if latent else "pictures", unet.get("in_channels", 4)
    if found != expected:
        hint = " (an inpainting model)" if found == 2 * expected + 1 else ""
        raise ValueError(
            f"{part}: expected {expected} input channels, as the {kind} have, got {found}{hint}; "
            "use the text-to-image model of the same family."
        )


def _check_text(family: Family, unet: dict[str, Any], folder: Path) -> None:
    encoders = family.encoders
    widths: list[Any] = [
        _json(folder / name / "config.json").get("hidden_size") for name in encoders
    ]
    if None in widths:
        return  # an old configuration that leaves the default out; the trial call decides
    found, expected = sum(map(int, widths)), unet.get("cross_attention_dim", 1280)
    if isinstance(expected, int) and found != expected:
        raise ValueError(
            f"{' and '.join(encoders)}: the unet expects text of width {expected}, got {found}; "
            "take the text encoder from the same model as the unet."
        )


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
