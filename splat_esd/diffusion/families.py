"""The families of priors: their denoiser and text encoders, and what sets them apart.

SD     embeds = the last hidden states of CLIP-L (or OpenCLIP-H)
SDXL   embeds = the penultimate hidden states of CLIP-L and CLIP-G side by side, pooled = CLIP-G's;
       added conditions: pooled, and the sizes (H, W, 0, 0, H, W) of the picture, uncropped
SD3    embeds = as SDXL's, filled with zeros to T5's width, and T5's (zeros without it) behind them;
       pooled = CLIP-L's and CLIP-G's; it answers the flow eps - z

References:
    SDXL (Podell et al., 2023), Sec. 2.1 and 2.2. https://arxiv.org/abs/2307.01952
    Stable Diffusion 3 (Esser et al., 2024), Sec. 4 and 5.2. https://arxiv.org/abs/2403.03206
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from splat_esd.diffusion.text import Text

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_JOINT = (*_ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_T5_TOKENS = 256


@dataclass(frozen=True)
class Family:
    """What one family of denoisers needs.

    Arguments:
        encoders: The class in transformers of each text encoder, by its folder; its tokenizer's
            folder has the same ending.
        embed: Turns the encoders' outputs, and the denoiser's configuration, into a Text.
        conditions: Returns the denoiser's further arguments for a Text and the pictures' height
            and width in pixels.
        denoiser: Its folder and its class in diffusers.
        prediction: What it answers; None: what its scheduler says.
        time_embedding: The module whose output the camera of phi is added to.
        lora_targets: The layers that phi's LoRA changes.
        optional: Text encoders that a folder may lack.
        longest: Tokens that a prompt may have, if its tokenizer takes more.
    """

    encoders: dict[str, str]
    embed: Callable[[list[Any], Any], Text]
    conditions: Callable[[Text, int, int], dict[str, Any]]
    denoiser: tuple[str, str] = ("unet", "UNet2DConditionModel")
    prediction: str | None = None
    time_embedding: str = "time_embedding"
    lora_targets: tuple[str, ...] = _ATTENTION
    optional: tuple[str, ...] = ()
    longest: int = _T5_TOKENS


def _sd_embed(outputs: list[Any], config: Any) -> Text:
    return Text(outputs[0].last_hidden_state.float())


def _sd_conditions(text: Text, height: int, width: int) -> dict[str, Any]:
    return {"encoder_hidden_states": text.embeds}


def _sdxl_embed(outputs: list[Any], config: Any) -> Text:
    return Text(_penultimate(outputs), outputs[-1].text_embeds.float())


def _sdxl_conditions(text: Text, height: int, width: int) -> dict[str, Any]:
    sizes = text.embeds.new_tensor([[height, width, 0, 0, height, width]])
    added = {"text_embeds": text.pooled, "time_ids": sizes.expand(len(text), -1)}
    return {"encoder_hidden_states": text.embeds, "added_cond_kwargs": added}


def _sd3_embed(outputs: list[Any], config: Any) -> Text:
    clips, t5 = outputs[:2], outputs[2:]
    clip = _penultimate(clips)
    clip = F.pad(clip, (0, config.joint_attention_dim - clip.shape[-1]))
    behind = t5[0].last_hidden_state.float() if t5 else clip.new_zeros(len(clip), _T5_TOKENS, 1)
    embeds = torch.cat([clip, behind.expand(-1, -1, clip.shape[-1])], dim=1)
    return Text(embeds, torch.cat([clip.text_embeds.float() for clip in clips], dim=-1))


def _sd3_conditions(text: Text, height: int, width: int) -> dict[str, Any]:
    return {"encoder_hidden_states": text.embeds, "pooled_projections": text.pooled}


def _penultimate(outputs: list[Any]) -> Tensor:
    return torch.cat([output.hidden_states[-2].float() for output in outputs], dim=-1)


# By the UNet's addition_embed_type, or the transformer's class.
FAMILIES: dict[str | None, Family] = {
    None: Family(
        encoders={"text_encoder": "CLIPTextModel"},
        embed=_sd_embed,
        conditions=_sd_conditions,
    ),
    "text_time": Family(
        encoders={
            "text_encoder": "CLIPTextModel",
            "text_encoder_2": "CLIPTextModelWithProjection",
        },
        embed=_sdxl_embed,
        conditions=_sdxl_conditions,
    ),
    "SD3Transformer2DModel": Family(
        encoders={
            "text_encoder": "CLIPTextModelWithProjection",
            "text_encoder_2": "CLIPTextModelWithProjection",
            "text_encoder_3": "T5EncoderModel",
        },
        embed=_sd3_embed,
        conditions=_sd3_conditions,
        denoiser=("transformer", "SD3Transformer2DModel"),
        prediction="flow",
        time_embedding="time_text_embed",
        lora_targets=_JOINT,
        optional=("text_encoder_3",),
    ),
}
