"""How the embedded prior was trained: an autoencoder, then a diffusion model on its latents."""

import json
import math
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat_esd.errors import UsageError
from splat_esd.zoo.dataset import Photos, caption, compose, take_photos
from splat_esd.zoo.objects import TOYS

SIZE = 64
LENGTH = 16  # tokens in a caption
WORDS = (
    *("a an the of from photo picture toy small view front side back overhead ,".split()),
    *sorted(TOYS),
)


@dataclass(frozen=True)
class Settings:
    """What `splat-esd zoo train` takes: folder, minutes for each model, photos, threads, seed."""

    out: str = "zoo-prior"
    vae_minutes: float = 15.0
    unet_minutes: float = 60.0
    photos: int = 18000
    batch: int = 32
    threads: int = 2
    seed: int = 0


def main(arguments: list[str]) -> None:
    """Trains the prior; run it again on the same folder and it goes on where it stopped."""
    settings = _parse(arguments)
    torch.set_num_threads(settings.threads)
    out = Path(settings.out)
    (out / "work").mkdir(parents=True, exist_ok=True)
    photos = take_photos(settings.photos, SIZE, settings.seed)
    vae = train_vae(photos, settings, out / "work")
    train_unet(vae, photos, settings, out)


def _parse(arguments: list[str]) -> Settings:
    known = {f.name: f.type for f in fields(Settings)}
    given = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in known or not equals:
            raise UsageError(
                f"zoo train takes {', '.join(f'{k}=...' for k in known)}; got {argument}."
            )
        try:
            given[key] = known[key](value)
        except ValueError:
            raise UsageError(f"{key}: expected a {known[key].__name__}, got {value}.") from None
    return Settings(**given)


def build_tokenizer():
    """Makes a CLIP tokenizer that knows each word of the zoo as one token."""
    from transformers import CLIPTokenizer

    letters = sorted({letter for word in WORDS for letter in word})
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(c + "</w>" for c in letters)]
    merges = []
    for word in sorted(WORDS, key=len, reverse=True):  # else "an" would be cut out of "snowman"
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = ["".join(pieces[:2])]
            tokens.append(pieces[0])
    tokens, merges = list(dict.fromkeys(tokens)), list(dict.fromkeys(merges))
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=merges,
        model_max_length=LENGTH,
        pad_token="<|endoftext|>",
    )


def build_text_encoder(tokenizer):
    """Makes the text encoder: CLIP's, three layers of 128."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=128,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_vae():
    """Makes the autoencoder: 64 x 64 x 3 -> 16 x 16 x 4."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(24, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=SIZE,
        scaling_factor=1.0,
    )


def build_unet():
    """Makes the denoiser: three levels, attention to the text at 16 x 16 and 8 x 8."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    unet = UNet2DConditionModel(
        sample_size=SIZE // 4,
        block_out_channels=(64, 128, 192),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=128,
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


class Clock:
    """A training budget in minutes that survives restarts; tells the learning rate and when to
    stop.
    """

    def __init__(self, minutes: float, spent: float = 0.0):
        self.budget, self.start = 60.0 * minutes, time.monotonic() - spent

    @property
    def spent(self) -> float:
        return time.monotonic() - self.start

    def rate(self, peak: float, step: int) -> float:
        """Returns the learning rate: 200 steps of warm-up, then a cosine over the budget."""
        done = min(self.spent / self.budget, 1.0)
        return (
            peak * min(1.0, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        )


def train_vae(photos: Photos, settings: Settings, work: Path):
    """Trains the autoencoder on |x - x'| + |grad x - grad x'| + 1e-5 KL; returns it with unit
    latents.
    """
    torch.manual_seed(settings.seed)
    vae = build_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(settings.seed)
    step, spent = _load(work / "vae.pt", vae, optimizer)
    generator.manual_seed(settings.seed + step)
    clock, saved = Clock(settings.vae_minutes, spent), spent
    while clock.spent < clock.budget:
        _set_rate(optimizer, clock.rate(1e-3, step))
        x = compose(photos, torch.randint(len(photos), (16,), generator=generator), generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample(generator=generator)).sample
        loss = _reconstruction(y.float(), x) + 1e-5 * posterior.kl().mean() / 64
        _descend(loss, vae, optimizer)
        step += 1
        if step % 100 == 0:
            _log(work / "vae.jsonl", step=step, minutes=clock.spent / 60, loss=loss.item())
        if clock.spent - saved > 120:
            saved = clock.spent
            _save(work / "vae.pt", vae, optimizer, step, saved)
    _save(work / "vae.pt", vae, optimizer, step, clock.spent)
    return fold_statistics(vae, photos, generator)


def _reconstruction(y: Tensor, x: Tensor) -> Tensor:
    rows = (y.diff(dim=-2) - x.diff(dim=-2)).abs().mean()
    columns = (y.diff(dim=-1) - x.diff(dim=-1)).abs().mean()
    return (y - x).abs().mean() + rows + columns


@torch.no_grad()
def fold_statistics(vae, photos: Photos, generator: torch.Generator):
    """Folds (z - mean) / std per channel into the 1 x 1 convolutions on both sides of the
    latents.
    """
    vae.eval().requires_grad_(False)
    index = torch.randint(len(photos), (512,), generator=generator)
    z = vae.encode(compose(photos, index, generator)).latent_dist.mean
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[None, :, None, None]
    quant.weight[:4] /= std[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) / std
    quant.bias[4:] -= 2.0 * std.log()
    return vae


@torch.no_grad()
def encode_photos(vae, photos: Photos, copies: int, seed: int) -> Tensor:
    """Encodes every photo `copies` times, each before another background: half [N * copies, 4,
    h, w].
    """
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(len(photos)).repeat(copies)
    batches = [vae.encode(compose(photos, i, generator)).latent_dist.mean for i in index.split(64)]
    return torch.cat(batches).half()


def train_unet(vae, photos: Photos, settings: Settings, out: Path) -> None:
    """Trains denoiser and text encoder on |v - v_phi(z_t, t, y)|^2, captions dropped in 12 %."""
    torch.manual_seed(settings.seed)
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    model = torch.nn.ModuleDict(
        {"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)}
    ).train()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=_ema)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-4, betas=(0.9, 0.99), weight_decay=1e-3)
    step, spent = _load(out / "work" / "unet.pt", model, optimizer, average)
    latents = encode_photos(vae, photos, 2, settings.seed + 1)
    generator = torch.Generator().manual_seed(settings.seed + step)
    rng = np.random.default_rng(settings.seed + step)
    clock, saved, losses = Clock(settings.unet_minutes, spent), spent, []
    while clock.spent < clock.budget:
        _set_rate(optimizer, clock.rate(4e-4, step))
        index = torch.randint(len(latents), (settings.batch,), generator=generator)
        tokens = tokenizer(
            _captions(rng, photos, index % len(photos)),
            padding="max_length",
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        ).input_ids
        losses.append(_denoise(model, scheduler, latents[index].float(), tokens, generator))
        _descend(losses[-1], model, optimizer)
        average.update_parameters(model)
        step += 1
        if step % 100 == 0:
            loss = torch.stack(losses).mean().item()
            _log(out / "work" / "unet.jsonl", step=step, minutes=clock.spent / 60, loss=loss)
            losses = []
        if clock.spent - saved > 300:
            saved = clock.spent
            _save(out / "work" / "unet.pt", model, optimizer, step, saved, average)
            save_prior(out, vae, average.module, tokenizer, scheduler)
    _save(out / "work" / "unet.pt", model, optimizer, step, clock.spent, average)
    save_prior(out, vae, average.module, tokenizer, scheduler)


@torch.no_grad()
def _ema(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
    """Keeps a running mean at first, an exponential one of 1000 steps later."""
    torch._foreach_lerp_(averages, values, max(1e-3, 1.0 / (10.0 + float(count))))


def _captions(rng: np.random.Generator, photos: Photos, index: Tensor) -> list[str]:
    names = sorted(TOYS)
    return [
        "" if rng.random() < 0.12 else caption(rng, names[photos.toy[i]], photos.azimuth[i])
        for i in index.tolist()
    ]


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
    import copy

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


def _descend(loss: Tensor, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError("the loss is not finite; resume from the last checkpoint.")
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _log(path: Path, **values: float) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({k: round(v, 5) for k, v in values.items()}) + "\n")


def _save(path: Path, model, optimizer, step: int, spent: float, average=None) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    state |= {"step": step, "spent": spent}
    if average is not None:
        state["average"] = average.state_dict()
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _load(path: Path, model, optimizer, average=None) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average is not None:
        average.load_state_dict(state["average"])
    return state["step"], state["spent"]
