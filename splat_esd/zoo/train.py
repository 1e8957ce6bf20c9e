"""How the embedded prior was trained: an autoencoder, then a diffusion model on its latents."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat_esd.zoo.captions import LENGTH, WORDS
from splat_esd.zoo.dataset import Bias, Photos, compose, take_photos
from splat_esd.zoo.history import sample, write_history
from splat_esd.zoo.training import Clock, descend, load, log, read_settings, save

SIZE = 128
SCALE = 8  # pixels along one side of a latent
CHANNELS = 8
TEXT_WIDTH = 160
UNCAPTIONED = 0.12  # of the photos, for classifier-free guidance
CROP = 64  # pixels: of what the autoencoder sees until WHOLE of its time is over
WHOLE = 0.6
SAMPLED = 1200.0  # seconds between two looks at what the denoiser draws
NOISE = 0.15  # at most, on half of the autoencoder's input: it must read unfinished splats too


@dataclass(frozen=True)
class Settings:
    """What `splat-esd zoo train` takes: folder, minutes for each model, photos and what share of
    them shows front and sides, batch of the denoiser, threads, seed.
    """

    out: str = "zoo-prior"
    vae_minutes: float = 90.0
    unet_minutes: float = 240.0
    photos: int = 40000
    front: float = 0.7
    sides: float = 0.2
    batch: int = 32
    threads: int = 2
    seed: int = 0


def main(arguments: list[str]) -> None:
    """Trains the prior; run it again on the same folder and it goes on where it stopped."""
    settings = read_settings(Settings, arguments, command="zoo train")
    torch.set_num_threads(settings.threads)
    out = Path(settings.out)
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    photos = take_photos(
        settings.photos,
        SIZE,
        seed=settings.seed,
        bias=Bias(front=settings.front, sides=settings.sides),
        folder=work / "photos",
        processes=settings.threads,
    )
    vae = train_vae(photos, settings, work)
    latents = encode_photos(vae, photos, work / "latents.npy", settings.seed + 1)
    train_unet(vae, latents, photos, settings, out)


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

    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
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


def train_vae(photos: Photos, settings: Settings, work: Path):
    """Trains the autoencoder on |x - x'| + |grad x - grad x'| + 2 |x - x'|^2 + 1e-5 KL, half of
    the input under noise; returns it with unit latents.

    At first it sees small crops, since many cheap steps teach it colours sooner than few dear ones.
    """
    torch.manual_seed(settings.seed)
    vae = build_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    step, spent = load(work / "vae.pt", model=vae, optimizer=optimizer)
    generator = torch.Generator().manual_seed(settings.seed + step)
    clock, saved, losses = Clock(settings.vae_minutes, spent), spent, []
    while clock.running:
        x = compose(photos, torch.randint(len(photos), (8,), generator=generator), generator)
        x = _crop(x, generator) if clock.spent < WHOLE * clock.budget else x[::2]
        strength = NOISE * torch.rand(len(x), 1, 1, 1, generator=generator)
        strength[: len(x) // 2] = 0.0
        with torch.autocast("cpu", torch.bfloat16):
            seen = x + strength * torch.randn(x.shape, generator=generator)
            posterior = vae.encode(seen).latent_dist
            y = vae.decode(posterior.sample(generator=generator)).sample
        loss = _reconstruction(y.float(), x) + 1e-5 * posterior.kl().mean() / SCALE**2
        descend(loss, vae, optimizer, clock.rate(2e-3, step))
        losses.append(loss.item())
        step += 1
        if step % 100 == 0:
            log(work / "vae.jsonl", step=step, minutes=clock.spent / 60, loss=np.mean(losses))
            losses = []
        if clock.spent - saved > 120:
            saved = clock.spent
            save(work / "vae.pt", step=step, spent=saved, model=vae, optimizer=optimizer)
    save(work / "vae.pt", step=step, spent=clock.spent, model=vae, optimizer=optimizer)
    return fold_statistics(vae, photos, torch.Generator().manual_seed(settings.seed))


def _crop(x: Tensor, generator: torch.Generator) -> Tensor:
    top, left = torch.randint(SIZE - CROP + 1, (2,), generator=generator).tolist()
    return x[:, :, top : top + CROP, left : left + CROP]


def _reconstruction(y: Tensor, x: Tensor) -> Tensor:
    rows = (y.diff(dim=-2) - x.diff(dim=-2)).abs().mean()
    columns = (y.diff(dim=-1) - x.diff(dim=-1)).abs().mean()
    return (y - x).abs().mean() + rows + columns + 2.0 * (y - x).square().mean()


@torch.no_grad()
def fold_statistics(vae, photos: Photos, generator: torch.Generator):
    """Folds (z - mean) / std per channel into the 1 x 1 convolutions on both sides of the
    latents.
    """
    vae.eval().requires_grad_(False)
    index = torch.randint(len(photos), (512,), generator=generator)
    z = torch.cat(
        [vae.encode(compose(photos, i, generator)).latent_dist.mean for i in index.split(64)]
    )
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[None, :, None, None]
    quant.weight[:CHANNELS] /= std[:, None, None, None]
    quant.bias[:CHANNELS] = (quant.bias[:CHANNELS] - mean) / std
    quant.bias[CHANNELS:] -= 2.0 * std.log()
    return vae


@torch.no_grad()
def encode_photos(vae, photos: Photos, path: Path, seed: int) -> np.ndarray:
    """Encodes every photo twice, each time before another background: float16 [2 N, C, h, w].

    They are kept in a file; it goes stale if the autoencoder is trained on, so delete it then.
    """
    if path.exists():
        return np.load(path)
    generator = torch.Generator().manual_seed(seed)
    side = SIZE // SCALE
    latents = np.empty((2 * len(photos), CHANNELS, side, side), np.float16)
    for index in torch.arange(len(latents)).split(64):
        with torch.autocast("cpu", torch.bfloat16):
            x = compose(photos, index % len(photos), generator)
            latents[index.numpy()] = vae.encode(x).latent_dist.mean.half().numpy()
    np.save(path, latents)
    return latents


def train_unet(vae, latents: np.ndarray, photos: Photos, settings: Settings, out: Path) -> None:
    """Trains denoiser and text encoder on |v - v_phi(z_t, t, y)|^2, some captions dropped."""
    torch.manual_seed(settings.seed)
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    model = torch.nn.ModuleDict(
        {"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)}
    ).train()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=_ema)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=1e-3)
    state = {"model": model, "optimizer": optimizer, "average": average}
    step, spent = load(out / "work" / "unet.pt", **state)
    generator = torch.Generator().manual_seed(settings.seed + step)
    rng = np.random.default_rng(settings.seed + step)
    clock, saved, sampled, losses = Clock(settings.unet_minutes, spent), spent, spent, []
    while clock.running:
        index = torch.randint(len(latents), (settings.batch,), generator=generator).numpy()
        tokens = tokenizer(
            [
                "" if rng.random() < UNCAPTIONED else photos.caption(rng, int(i) % len(photos))
                for i in index
            ],
            padding="max_length",
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        ).input_ids
        z = torch.from_numpy(latents[index]).float()
        loss = _denoise(model, scheduler, z, tokens, generator)
        descend(loss, model, optimizer, clock.rate(4e-4, step))
        losses.append(loss.item())
        average.update_parameters(model)
        step += 1
        if step % 100 == 0:
            log(out / "work" / "unet.jsonl", step=step, minutes=clock.spent / 60,
                loss=np.mean(losses))  # fmt: skip
            losses = []
        if clock.spent - saved > 300:
            saved = clock.spent
            save(out / "work" / "unet.pt", step=step, spent=saved, **state)
            save_prior(out, vae, average.module, tokenizer, scheduler)
            if saved - sampled > SAMPLED:
                sampled = saved
                sample(out, int(saved / 60))
    save(out / "work" / "unet.pt", step=step, spent=clock.spent, **state)
    save_prior(out, vae, average.module, tokenizer, scheduler)
    sample(out, int(clock.spent / 60))
    write_history(out)


@torch.no_grad()
def _ema(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
    """Keeps a running mean at first, an exponential one of 1000 steps later."""
    torch._foreach_lerp_(averages, values, max(1e-3, 1.0 / (10.0 + float(count))))


def _denoise(model, scheduler, z: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
    eps = torch.randn(z.shape, generator=generator)
    t = torch.randint(scheduler.config.num_train_timesteps, (len(z),), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        text = model["text_encoder"](tokens).last_hidden_state
        v = model["unet"](scheduler.add_noise(z, eps, t), t, text).sample
    return (v.float() - scheduler.get_velocity(z, eps, t)).square().mean()


def save_prior(out: Path, vae, model, tokenizer, scheduler) -> None:
    """Writes the prior as a Stable Diffusion pipeline, mostly in half precision, with the words
    it knows.
    """
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline(
        vae=copy.deepcopy(vae).half(),
        unet=copy.deepcopy(model["unet"]).half().eval(),
        # In single precision: transformers keeps the dtype of a file, diffusers does not.
        text_encoder=model["text_encoder"].eval(),
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(out)
    (out / "vocabulary.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
