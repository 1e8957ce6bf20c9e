"""Tiny random priors in diffusers' layout: they go through the same loaders as Stable Diffusion."""

import json
import os
import shutil
import string
import warnings

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the program does, before torch is loaded
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a network
if "PYTEST_XDIST_WORKER" in os.environ:  # one core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def own_threads():
    """What a test makes of this process's threads is gone after it: sums depend on their number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def build_text(length: int = 32, *, layers: int = 1):
    """Makes a tokenizer that spells every word and a text encoder of one layer."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(c + "</w>" for c in letters)]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[],
        model_max_length=length,
        pad_token="<|endoftext|>",
    )
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=length,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return tokenizer, CLIPTextModel(config)


def build_unet(channels: int, size: int, **options):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        **{"cross_attention_dim": 16} | options,
    )


def build_vae(size: int):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=size,
        scaling_factor=0.18215,
    )


def save_tiny_prior(folder, *, prediction: str = "epsilon", pixels: bool = False, size: int = 16):
    """Saves a random prior for size x size images; a pixel prior has no VAE."""
    from diffusers import PNDMScheduler

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        tokenizer, text_encoder = build_text()
        unet = build_unet(3 if pixels else 4, size if pixels else size // 2)
        # Stable Diffusion's own scheduler_config names PNDM, which the loader must understand.
        scheduler = PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction,
        )
        parts = {"unet": unet, "text_encoder": text_encoder, "tokenizer": tokenizer}
        parts |= {"scheduler": scheduler} | ({} if pixels else {"vae": build_vae(size)})
        for name, part in parts.items():
            part.save_pretrained(folder / name)
    index = {name: ["diffusers", type(part).__name__] for name, part in parts.items()}
    index["_class_name"] = "StableDiffusionPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def save_tiny_sdxl(folder):
    """Saves a random Stable Diffusion XL for 16 x 16 images: two text encoders, pooled text."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModelWithProjection

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        tokenizer, text_encoder = build_text(layers=2)
        text_encoder.config.projection_dim = 16
        StableDiffusionXLPipeline(
            vae=build_vae(16),
            text_encoder=text_encoder,
            text_encoder_2=CLIPTextModelWithProjection(text_encoder.config),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=build_unet(
                4,
                8,
                cross_attention_dim=32,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 16,
            ),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
            ),
        ).save_pretrained(folder)
    return folder


def build_t5():
    """Makes a T5 tokenizer that spells, and an encoder of one layer."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = ["\u2581", *string.ascii_lowercase, ",", "<extra_id_0>"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -1.0) for c in letters)]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
    config = T5Config(
        vocab_size=len(vocabulary), d_model=40, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return tokenizer, T5EncoderModel(config)


def save_tiny_sd3(folder, *, t5: bool = True):
    """Saves a random Stable Diffusion 3 for 16 x 16 images: a flow, three text encoders or two."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        tokenizer, text_encoder = build_text(layers=2)
        text_encoder.config.projection_dim = 12
        tokenizer_3, text_encoder_3 = build_t5() if t5 else (None, None)
        vae = build_vae(16)
        vae.register_to_config(scaling_factor=1.5305, shift_factor=0.0609)
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=40,
            caption_projection_dim=16,
            pooled_projection_dim=24,
            out_channels=4,
            pos_embed_max_size=16,
        )
        for parameter in transformer.parameters():  # some layers start at zero
            torch.nn.init.normal_(parameter, std=0.2)
        StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=vae,
            text_encoder=CLIPTextModelWithProjection(text_encoder.config),
            tokenizer=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(text_encoder.config),
            tokenizer_2=tokenizer,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sd3(tmp_path_factory):
    """A Stable Diffusion 3 of 16 x 16 pixels with T5, on disk."""
    return save_tiny_sd3(tmp_path_factory.mktemp("tiny-sd3"))


@pytest.fixture(scope="session")
def tiny_sd3_without_t5(tmp_path_factory):
    """The same without its third text encoder."""
    return save_tiny_sd3(tmp_path_factory.mktemp("tiny-sd3-clips"), t5=False)


def save_tiny_flux2(folder):
    """Saves a random FLUX.2-klein-base for 16 x 16 images: 2 x 2 latents in one, Qwen3 text."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        words = [
            "<pad>",
            "<unk>",
            "user",
            "a",
            "cat",
            "corgi",
            ",",
            "front",
            "side",
            "back",
            "view",
        ]
        spelled = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
        spelled.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=spelled, pad_token="<pad>", unk_token="<unk>", model_max_length=4096
        )
        tokenizer.chat_template = "{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %}"
        config = Qwen3Config(
            vocab_size=len(words),
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=28,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=4,
        )
        transformer = Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        for parameter in transformer.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        vae = AutoencoderKLFlux2(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=16,
        )
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2.0)
        Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=vae,
            text_encoder=Qwen3ForCausalLM(config),
            tokenizer=tokenizer,
            transformer=transformer,
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_flux2(tmp_path_factory):
    """A FLUX.2-klein-base of 16 x 16 pixels, on disk."""
    return save_tiny_flux2(tmp_path_factory.mktemp("tiny-flux2"))


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory):
    """A Stable Diffusion XL of 16 x 16 pixels, on disk."""
    return save_tiny_sdxl(tmp_path_factory.mktemp("tiny-sdxl"))


MVDREAM = {
    "_class_name": "MultiViewUNetModel",
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention_resolutions": [1],
    "num_head_channels": 8,
    "transformer_depth": 1,
    "context_dim": 16,
    "camera_dim": 16,
}


def save_tiny_mvdream(folder):
    """Saves a random MVDream for 16 x 16 images: the UNet's tensors named as in its own code."""
    from diffusers import UNet2DConditionModel
    from ldm_layout import ldm_names
    from safetensors.torch import save_file

    from splat_esd.diffusion.multiview import stock_config

    save_tiny_prior(folder)
    shutil.rmtree(folder / "unet")
    (folder / "unet").mkdir()
    (folder / "unet" / "config.json").write_text(json.dumps(MVDREAM))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = UNet2DConditionModel(**stock_config(MVDREAM)).state_dict()
    camera = {"class_embedding.linear_1": "camera_embed.0"}
    camera |= {"class_embedding.linear_2": "camera_embed.2"}
    named = ldm_names([n for n in state if not n.startswith("class_")], layers=1)
    named |= {n: n.replace(n[:24], camera[n[:24]]) for n in state if n.startswith("class_")}
    weights = {named[name]: value.contiguous() for name, value in state.items()}
    save_file(weights, folder / "unet" / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def tiny_mvdream(tmp_path_factory):
    """An MVDream of 16 x 16 pixels, on disk, its UNet in the layout of its training code."""
    return save_tiny_mvdream(tmp_path_factory.mktemp("tiny-mvdream"))


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory):
    """A Stable Diffusion of 16 x 16 pixels that predicts eps, on disk."""
    return save_tiny_prior(tmp_path_factory.mktemp("tiny-sd"))


@pytest.fixture(scope="session")
def tiny_sd_v(tmp_path_factory):
    """The same with v-prediction, as SD 2.1."""
    return save_tiny_prior(tmp_path_factory.mktemp("tiny-sd-v"), prediction="v_prediction")


@pytest.fixture(scope="session")
def tiny_pixels(tmp_path_factory):
    """A prior on pixels: no VAE."""
    return save_tiny_prior(tmp_path_factory.mktemp("tiny-pixels"), pixels=True)
