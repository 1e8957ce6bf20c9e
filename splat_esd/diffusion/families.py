"""The families of priors: their denoiser and text encoders, and what sets them apart.

SD     embeds = the last hidden states of CLIP-L (or OpenCLIP-H)
SDXL   embeds = the penultimate hidden states of CLIP-L and CLIP-G side by side, pooled = CLIP-G's;
       added conditions: pooled, and the sizes (H, W, 0, 0, H, W) of the picture, uncropped
SD3    embeds = as SDXL's, filled with zeros to T5's width, and T5's (zeros without it) behind them;
       pooled = CLIP-L's and CLIP-G's; it answers the flow eps - z
MVDream embeds = SD's; it draws groups of four views, and is told the camera of each
FLUX.2 embeds = three hidden states of Qwen3 side by side, of the prompt as a chat; four latents
       gathered in one, normalised by the statistics in its VAE; it answers the flow

References:
    SDXL (Podell et al., 2023), Sec. 2.1 and 2.2. https://arxiv.org/abs/2307.01952
    Stable Diffusion 3 (Esser et al., 2024), Sec. 4 and 5.2. https://arxiv.org/abs/2403.03206
    FLUX.2 has no paper; its pipeline in diffusers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from splat_esd.diffusion.multiview import VIEWS as MV_VIEWS
from splat_esd.diffusion.text import Text

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_JOINT = (*_ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_T5_TOKENS = 256
_QWEN_TOKENS, _QWEN_LAYERS = 512, (9, 18, 27)
MULTIVIEW = "multiview"  # among FAMILIES: a UNet that is told cameras


@dataclass(frozen=True)
class Latents:
    """How the autoencoder's latents e become the denoiser's z, and back.

    Arguments:
        to_z, to_e: Take the autoencoder, and a batch of latents.
        patch: Side of the square of e that one position of z gathers.
    """

    to_z: Callable[[Any, Tensor], Tensor]
    to_e: Callable[[Any, Tensor], Tensor]
    patch: int = 1


def _shift(vae: Any) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0


SCALED = Latents(
    to_z=lambda vae, e: vae.config.scaling_factor * (e - _shift(vae)),
    to_e=lambda vae, z: z / vae.config.scaling_factor + _shift(vae),
)


def _gathered(vae: Any, e: Tensor) -> Tensor:
    mean, std = _statistics(vae)
    return (F.pixel_unshuffle(e, 2) - mean) / std


def _spread(vae: Any, z: Tensor) -> Tensor:
    mean, std = _statistics(vae)
    return F.pixel_shuffle(z * std + mean, 2)


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    return mean, (vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps).sqrt()


def _tokens(tokenizer: Any, prompts: list[str], length: int) -> dict[str, Tensor]:
    padded = {"padding": "max_length", "truncation": True, "max_length": length}
    return {"input_ids": tokenizer(prompts, return_tensors="pt", **padded).input_ids}


def _chat(tokenizer: Any, prompts: list[str], length: int) -> dict[str, Tensor]:
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        for prompt in prompts
    ]
    padded = {"padding": "max_length", "truncation": True, "max_length": length}
    tokens = tokenizer(chats, return_tensors="pt", **padded)
    return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}


@dataclass(frozen=True)
class Family:
    """What one family of denoisers needs.

    Arguments:
        encoders: The class in transformers of each text encoder, by its folder; its tokenizer's
            folder has the same ending.
        embed: Turns the encoders' outputs, and the denoiser's configuration, into a Text.
        answer: Asks the denoiser about z_t at the times it is told, given a Text and the pictures'
            height and width in pixels.
        denoiser: Its folder and its class in diffusers; `vae` the autoencoder's class.
        prediction: What it answers; None: what its scheduler says.
        lora_targets: The layers that phi's LoRA changes.
        optional: Text encoders that a folder may lack; `large` ones are kept in the precision that
            the denoiser computes in.
        longest: Tokens that a prompt may have, if its tokenizer takes more.
        loras: The class in diffusers.loaders that reads LoRAs made for it.
        views: Rows of a batch that are drawn together: of one elevation, equally far apart.
    """

    encoders: dict[str, str]
    embed: Callable[[list[Any], Any], Text]
    answer: Callable[[Any, Tensor, Tensor, Text, int, int], Tensor]
    denoiser: tuple[str, str] = ("unet", "UNet2DConditionModel")
    vae: str = "AutoencoderKL"
    latents: Latents = SCALED
    tokens: Callable[[Any, list[str], int], dict[str, Tensor]] = _tokens
    prediction: str | None = None
    lora_targets: tuple[str, ...] = _ATTENTION
    optional: tuple[str, ...] = ()
    large: tuple[str, ...] = ()
    longest: int = _T5_TOKENS
    loras: str = "StableDiffusionLoraLoaderMixin"
    views: int = 1


def _sd_embed(outputs: list[Any], config: Any) -> Text:
    return Text(outputs[0].last_hidden_state.float())


def _sd_answer(unet: Any, z_t: Tensor, time: Tensor, text: Text, height: int, width: int) -> Tensor:
    return unet(z_t, timestep=time, encoder_hidden_states=text.embeds).sample


def _mvdream_answer(
    unet: Any, z_t: Tensor, time: Tensor, text: Text, height: int, width: int
) -> Tensor:
    lone = text.poses is None
    poses = z_t.new_zeros(len(z_t), 16) if text.poses is None else text.poses
    told = {"class_labels": poses, "cross_attention_kwargs": {"views": 1 if lone else MV_VIEWS}}
    return unet(z_t, timestep=time, encoder_hidden_states=text.embeds, **told).sample


def _sdxl_embed(outputs: list[Any], config: Any) -> Text:
    return Text(_penultimate(outputs), outputs[-1].text_embeds.float())


def _sdxl_answer(
    unet: Any, z_t: Tensor, time: Tensor, text: Text, height: int, width: int
) -> Tensor:
    sizes = text.embeds.new_tensor([[height, width, 0, 0, height, width]])
    added = {"text_embeds": text.pooled, "time_ids": sizes.expand(len(text), -1)}
    given = {"encoder_hidden_states": text.embeds, "added_cond_kwargs": added}
    return unet(z_t, timestep=time, **given).sample


def _sd3_embed(outputs: list[Any], config: Any) -> Text:
    clips, t5 = outputs[:2], outputs[2:]
    clip = _penultimate(clips)
    clip = F.pad(clip, (0, config.joint_attention_dim - clip.shape[-1]))
    behind = t5[0].last_hidden_state.float() if t5 else clip.new_zeros(len(clip), _T5_TOKENS, 1)
    embeds = torch.cat([clip, behind.expand(-1, -1, clip.shape[-1])], dim=1)
    return Text(embeds, torch.cat([clip.text_embeds.float() for clip in clips], dim=-1))


def _sd3_answer(
    transformer: Any, z_t: Tensor, time: Tensor, text: Text, height: int, width: int
) -> Tensor:
    given = {"encoder_hidden_states": text.embeds, "pooled_projections": text.pooled}
    return transformer(z_t, timestep=time, **given).sample


def _flux2_embed(outputs: list[Any], config: Any) -> Text:
    states = [outputs[0].hidden_states[layer].float() for layer in _QWEN_LAYERS]
    return Text(torch.cat(states, dim=-1))


def _flux2_answer(
    transformer: Any, z_t: Tensor, time: Tensor, text: Text, height: int, width: int
) -> Tensor:
    rows, columns = z_t.shape[-2:]
    out = transformer(
        hidden_states=z_t.flatten(2).mT,
        timestep=time / 1000,
        guidance=None,
        encoder_hidden_states=text.embeds,
        txt_ids=_places(z_t, 1, 1, 1, text.embeds.shape[1]),
        img_ids=_places(z_t, 1, rows, columns, 1),
    ).sample
    return out.mT.unflatten(-1, (rows, columns))


def _places(like: Tensor, *counts: int) -> Tensor:
    """Returns the four coordinates of each token: time, row, column, place in the text."""
    ranges = [torch.arange(count, device=like.device) for count in counts]
    return torch.cartesian_prod(*ranges).expand(len(like), -1, -1)


def _penultimate(outputs: list[Any]) -> Tensor:
    return torch.cat([output.hidden_states[-2].float() for output in outputs], dim=-1)


# By the UNet's addition_embed_type, or the transformer's class.
FAMILIES: dict[str | None, Family] = {
    None: Family(
        encoders={"text_encoder": "CLIPTextModel"},
        embed=_sd_embed,
        answer=_sd_answer,
    ),
    MULTIVIEW: Family(
        encoders={"text_encoder": "CLIPTextModel"},
        embed=_sd_embed,
        answer=_mvdream_answer,
        prediction="epsilon",
        views=MV_VIEWS,
    ),
    "text_time": Family(
        encoders={
            "text_encoder": "CLIPTextModel",
            "text_encoder_2": "CLIPTextModelWithProjection",
        },
        embed=_sdxl_embed,
        answer=_sdxl_answer,
        loras="StableDiffusionXLLoraLoaderMixin",
    ),
    "SD3Transformer2DModel": Family(
        encoders={
            "text_encoder": "CLIPTextModelWithProjection",
            "text_encoder_2": "CLIPTextModelWithProjection",
            "text_encoder_3": "T5EncoderModel",
        },
        embed=_sd3_embed,
        answer=_sd3_answer,
        denoiser=("transformer", "SD3Transformer2DModel"),
        prediction="flow",
        lora_targets=_JOINT,
        loras="SD3LoraLoaderMixin",
        optional=("text_encoder_3",),
        large=("text_encoder_3",),
    ),
    "Flux2Transformer2DModel": Family(
        encoders={"text_encoder": "Qwen3Model"},
        embed=_flux2_embed,
        answer=_flux2_answer,
        denoiser=("transformer", "Flux2Transformer2DModel"),
        vae="AutoencoderKLFlux2",
        latents=Latents(_gathered, _spread, patch=2),
        tokens=_chat,
        prediction="flow",
        lora_targets=(*_JOINT, "to_qkv_mlp_proj"),
        loras="Flux2LoraLoaderMixin",
        large=("text_encoder",),
        longest=_QWEN_TOKENS,
    ),
}
