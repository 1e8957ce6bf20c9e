"""The families of priors: their text encoders, and what a denoiser needs besides z_t, t and text.

SD     embeds = the last hidden states of CLIP-L (or OpenCLIP-H)
SDXL   embeds = the penultimate hidden states of CLIP-L and CLIP-G side by side, pooled = CLIP-G's;
       added conditions: pooled, and the sizes (H, W, 0, 0, H, W) of the picture, uncropped

References:
    SDXL (Podell et al., 2023), Sec. 2.1 and 2.2. https://arxiv.org/abs/2307.01952
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splat_esd.diffusion.text import Text


@dataclass(frozen=True)
class Family:
    """What one family of denoisers needs.

    Arguments:
        encoders: The class in transformers of each text encoder, by its folder; its tokenizer's
            folder has the same ending.
        embed: Turns the encoders' outputs into a Text.
        conditions: Returns the denoiser's further arguments for a Text and the pictures' height
            and width in pixels.
    """

    encoders: dict[str, str]
    embed: Callable[[list[Any]], Text]
    conditions: Callable[[Text, int, int], dict[str, Any]]


def _sd_embed(outputs: list[Any]) -> Text:
    return Text(outputs[0].last_hidden_state.float())


def _sdxl_embed(outputs: list[Any]) -> Text:
    penultimate = [output.hidden_states[-2].float() for output in outputs]
    return Text(torch.cat(penultimate, dim=-1), outputs[-1].text_embeds.float())


def _sdxl_conditions(text: Text, height: int, width: int) -> dict[str, dict[str, Tensor | None]]:
    sizes = text.embeds.new_tensor([[height, width, 0, 0, height, width]])
    added = {"text_embeds": text.pooled, "time_ids": sizes.expand(len(text), -1)}
    return {"added_cond_kwargs": added}


# By the UNet's addition_embed_type.
FAMILIES: dict[str | None, Family] = {
    None: Family(
        encoders={"text_encoder": "CLIPTextModel"},
        embed=_sd_embed,
        conditions=lambda text, height, width: {},
    ),
    "text_time": Family(
        encoders={
            "text_encoder": "CLIPTextModel",
            "text_encoder_2": "CLIPTextModelWithProjection",
        },
        embed=_sdxl_embed,
        conditions=_sdxl_conditions,
    ),
}
