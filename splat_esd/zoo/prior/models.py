"""The parts of the embedded prior, in diffusers' own classes, and the folder they make."""

import copy
from pathlib import Path
from typing import Any

from splat_esd.diffusion.vocabulary import write_vocabulary
from splat_esd.errors import UsageError
from splat_esd.zoo.world.captions import GROUPS, LENGTH, WORDS

SIZE = 128
SCALE = 8  # pixels along one side of a latent
CHANNELS = 8
TEXT_WIDTH = 160


def build_tokenizer():
    """Makes a CLIP tokenizer that knows each word of the zoo as one token."""
    from transformers import CLIPTokenizer

    letters = sorted({letter for word in WORDS for letter in word})
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(c + "</w>" for c in letters)]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:  # from the end: no merge of one word can then split another
            merges.append((pieces[-2], pieces[-1]))
            pieces[-2:] = ["".join(pieces[-2:])]
            tokens.append(pieces[-1])
    tokens, merges = list(dict.fromkeys(tokens)), list(dict.fromkeys(merges))
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=merges,
        model_max_length=LENGTH,
        pad_token="<|endoftext|>",
    )


def build_text_encoder(tokenizer):
    """Makes the text encoder: CLIP's, four layers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=5,
            max_position_embeddings=LENGTH,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_vae():
    """Makes the autoencoder: 128 x 128 x 3 -> 16 x 16 x 8; few channels where pixels are many, and
    those normalised together, since norms of two or three channels each erase the colour.
    """
    from diffusers import AutoencoderKL

    levels: dict[str, Any] = {  # declared for one level only
        "block_out_channels": (16, 32, 64, 128),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    return AutoencoderKL(
        **levels,
        latent_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=SIZE,
        scaling_factor=1.0,
    )


def build_unet():
    """Makes the denoiser: three levels, attention to the text at 16 x 16 and 8 x 8."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    unet = UNet2DConditionModel(
        sample_size=SIZE // SCALE,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(96, 160, 160),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    unet.set_attn_processor(AttnProcessor())  # a step takes 17 % less than with torch's fused one
    return unet


def build_scheduler():
    """Makes the noise schedule: Stable Diffusion's betas, v-prediction."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def save_prior(out: Path, vae, model, tokenizer, scheduler) -> None:
    """Writes the prior as a Stable Diffusion pipeline, mostly in half precision, with the words
    it knows.
    """
    from diffusers import StableDiffusionPipeline

    absent: Any = None  # by which diffusers leaves a part out
    StableDiffusionPipeline(
        vae=copy.deepcopy(vae).half(),
        unet=copy.deepcopy(model["unet"]).half().eval(),
        # In single precision: transformers keeps the dtype of a file, diffusers does not.
        text_encoder=model["text_encoder"].eval(),
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=absent,
        feature_extractor=absent,
        requires_safety_checker=False,
    ).save_pretrained(out)
    write_vocabulary(out, WORDS, GROUPS)


def add_lora(unet, rank: int) -> None:
    """Puts a LoRA on the attention of a denoiser, the only part of it that is then trained."""
    from peft import LoraConfig

    names = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=names))


def write_lora(unet, path: Path) -> None:
    """Writes the LoRA of a denoiser as diffusers does, in half precision."""
    from diffusers import StableDiffusionPipeline
    from peft import get_peft_model_state_dict

    layers: dict[str, Any] = {
        k: v.half().contiguous() for k, v in get_peft_model_state_dict(unet).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    StableDiffusionPipeline.save_lora_weights(path.parent, layers, weight_name=path.name)


def load_prior(folder: Path):
    """Reads the autoencoder, and denoiser and text encoder, of a prior that `save_prior` wrote, in
    single precision.

    Raises:
        UsageError: If there is none.
    """
    from diffusers import StableDiffusionPipeline
    from torch.nn import ModuleDict

    if not (folder / "model_index.json").is_file():
        raise UsageError(f"{folder} has no model_index.json; train a prior first.")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    model = ModuleDict({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})
    return pipeline.vae.float().eval().requires_grad_(False), model.float()
