"""Checks a pipeline's configuration files before its weights are read: what cannot run, and why."""

import json
import re
from pathlib import Path
from typing import Any

from splat_esd.diffusion.families import FAMILIES

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
    if not (index.get("unet") or [None])[0]:
        name = index.get("_class_name", "a pipeline")
        raise ValueError(f"{name} has no unet; Stable Diffusion 1, 2 and XL are supported.")
    unet = _json(folder / "unet" / "config.json")
    _check_scores(index, unet, _json(folder / "scheduler" / "scheduler_config.json"), source)
    _check_channels(unet, folder, bool((index.get("vae") or [None])[0]))
    _check_text(unet, folder)


def _check_scores(
    index: dict[str, Any], unet: dict[str, Any], scheduler: dict[str, Any], source: str
) -> None:
    said = _DISTILLED.search(Path(source).name)
    if said or index.get("is_distilled") or unet.get("time_cond_proj_dim"):
        why = f"its name says {said[1]!r}" if said else "its configuration says so"
        raise ValueError(f"it is distilled ({why}): {_BASE}.")
    name = str(scheduler.get("_class_name", ""))
    if "FlowMatch" in name:
        raise ValueError(
            f"scheduler: expected a noise schedule (DDPM, DDIM, Euler ...) beside a unet, got "
            f"{name}; put the scheduler of the model's original pipeline into the folder."
        )


def _check_channels(unet: dict[str, Any], folder: Path, latent: bool) -> None:
    expected = _json(folder / "vae" / "config.json").get("latent_channels", 4) if latent else 3
    kind, found = "latents of its vae" if latent else "pictures", unet.get("in_channels", 4)
    if found != expected:
        hint = " (an inpainting model)" if found == 2 * expected + 1 else ""
        raise ValueError(
            f"unet: expected {expected} input channels, as the {kind} have, got {found}{hint}; "
            "use the text-to-image model of the same family."
        )


def _check_text(unet: dict[str, Any], folder: Path) -> None:
    kind = unet.get("addition_embed_type")
    if kind not in FAMILIES:
        raise ValueError(f"unet: addition_embed_type {kind!r} is not supported.")
    encoders = FAMILIES[kind].encoders
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
