"""Training of the embedded prior: an autoencoder, then a diffusion model on its latents."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat_esd import distributed
from splat_esd.config.commands import ZooTrainArguments
from splat_esd.diffusion.loading import computes_bf16
from splat_esd.errors import UsageError
from splat_esd.zoo.prior.dataset import Bias, Photos, compose, take_photos
from splat_esd.zoo.prior.history import sample, write_history
from splat_esd.zoo.prior.loop import Clock, average_gradients, descend, load, log, save
from splat_esd.zoo.prior.models import (
    CHANNELS,
    SCALE,
    SIZE,
    add_lora,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    build_vae,
    load_prior,
    save_prior,
    write_lora,
)
from splat_esd.zoo.world.captions import LENGTH

UNCAPTIONED = 0.12  # of the photos, for classifier-free guidance
CROP = 64  # pixels: of what the autoencoder sees until WHOLE of its time is over
WHOLE = 0.6
FOLDED = 512  # photos that latents are normalised by
SAMPLED = 1200.0  # seconds between two looks at what the denoiser draws
RATE, LORA_RATE = 5e-4, 2e-3  # of Adam, at most, unless `rate` says another
NOISE = 0.15  # at most, on half of the autoencoder's input: it must read unfinished splats too


def main(settings: ZooTrainArguments) -> None:
    """Trains the prior, or a LoRA on one; run it again on the same folder and it goes on where it
    stopped.

    Raises:
        UsageError: If a LoRA has no prior to start from.
    """
    if settings.lora and not settings.start:
        raise UsageError("lora: a LoRA needs a prior to start from; say start=assets/zoo.")
    torch.set_num_threads(settings.threads)
    out = settings.out
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    started = load_prior(settings.start)[0] if settings.start else None
    photos = photos_of(settings)
    vae = started or train_vae(photos, settings, work)
    encode_photos(vae, photos, work / "latents.npy", settings.seed + 1)
    distributed.spawn(train_unet, settings.threads, work / "meeting", settings, vae)
    if not settings.lora:
        write_history(out)


def photos_of(settings: ZooTrainArguments) -> Photos:
    """Takes the photos, or finds them taken."""
    return take_photos(
        settings.photos,
        SIZE,
        seed=settings.seed,
        bias=Bias(front=settings.front, sides=settings.sides),
        folder=settings.out / "work" / "photos",
        processes=settings.threads,
    )


def cast() -> torch.autocast:
    """Computes in bf16 where the processor has instructions for it; elsewhere that is slower."""
    enabled = computes_bf16(torch.device("cpu"))
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


def train_vae(photos: Photos, settings: ZooTrainArguments, work: Path) -> Any:
    """Trains the autoencoder on |x - x'| + |grad x - grad x'| + 2 |x - x'|^2 + 1e-5 KL, half of
    the input under noise; returns it with unit latents.

    At first it sees small crops, since many cheap steps teach it colours sooner than few dear ones.
    """
    torch.manual_seed(settings.seed)
    vae: Any = build_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    step, spent = load(work / "vae.pt", model=vae, optimizer=optimizer)
    generator = torch.Generator().manual_seed(settings.seed + step)
    clock, saved, losses = Clock(settings.vae_minutes, spent), spent, []
    while clock.running:
        x = compose(photos, torch.randint(len(photos), (8,), generator=generator), generator)
        x = _crop(x, generator) if clock.spent < WHOLE * clock.budget else x[::2]
        strength = NOISE * torch.rand(len(x), 1, 1, 1, generator=generator)
        strength[: len(x) // 2] = 0.0
        with cast():
            seen = x + strength * torch.randn(x.shape, generator=generator)
            posterior = vae.encode(seen).latent_dist
            y = vae.decode(posterior.sample(generator=generator)).sample
        loss = _reconstruction(y.float(), x) + 1e-5 * posterior.kl().mean() / SCALE**2
        descend(loss, vae, optimizer, clock.rate(2e-3, step))
        losses.append(loss.item())
        step += 1
        if step % 100 == 0:
            loss = float(np.mean(losses))
            log(work / "vae.jsonl", step=step, minutes=clock.spent / 60, loss=loss)
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
    index = torch.randint(len(photos), (FOLDED,), generator=generator)
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
    side = SIZE // SCALE
    latents = np.empty((2 * len(photos), CHANNELS, side, side), np.float16)
    for index in torch.arange(len(latents)).split(64):
        latents[index.numpy()] = encode_batch(vae, photos, index, seed)
    np.save(path, latents)
    return latents


@torch.no_grad()
def encode_batch(vae, photos: Photos, index: Tensor, seed: int) -> np.ndarray:
    """Encodes photos index mod N; the backgrounds are a function of the seed and index[0]."""
    generator = torch.Generator().manual_seed(seed * 2**32 + int(index[0]))
    with cast():
        x = compose(photos, index % len(photos), generator)
        return vae.encode(x).latent_dist.mean.half().numpy()


def train_unet(settings: ZooTrainArguments, vae) -> None:
    """Trains denoiser and text encoder, or a LoRA on the denoiser, on |v - v_phi(z_t, t, y)|^2,
    some captions dropped, in each of several processes, and writes their running average.
    """
    out = settings.out
    photos, first = photos_of(settings), distributed.rank() == 0
    latents = np.load(out / "work" / "latents.npy", mmap_mode="r")
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    model = _model(settings, tokenizer)
    running_mean: Any = _ema  # declared for tuples too
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=running_mean)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    state = {"model": model, "optimizer": optimizer, "average": average}
    step, spent = load(out / "work" / "unet.pt", **state)
    generator, rng = _randomness(settings.seed, step)
    clock, saved, losses = Clock(settings.unet_minutes, spent), spent, []
    share = settings.batch // distributed.world()
    keep = partial(_keep, settings, vae, average.module, tokenizer, scheduler)
    while (spent := distributed.broadcast(clock.spent)) < clock.budget:
        index = torch.randint(len(latents), (share,), generator=generator).numpy()
        captions = [_caption(photos, int(i) % len(photos), rng) for i in index]
        tokens = _tokens(tokenizer, captions)
        loss = _denoise(
            model, scheduler, torch.from_numpy(latents[index]).float(), tokens, generator
        )
        peak = settings.rate or (LORA_RATE if settings.lora else RATE)
        descend(loss, model, optimizer, clock.rate(peak, step, spent), average_gradients)
        losses.append(loss.item())
        average.update_parameters(model)
        step += 1
        if first and step % 100 == 0:
            loss = float(np.mean(losses))
            log(out / "work" / "unet.jsonl", step=step, minutes=spent / 60, loss=loss)
            losses = []
        if first and spent - saved > 300:
            saved = spent
            save(out / "work" / "unet.pt", step=step, spent=saved, **state)
            keep(spent)
    if first:
        save(out / "work" / "unet.pt", step=step, spent=spent, **state)
        keep(spent)


def _model(settings: ZooTrainArguments, tokenizer) -> torch.nn.ModuleDict:
    """Makes what is trained: a new denoiser and text encoder, those of `start`, or `start` frozen
    with a LoRA on its denoiser's attention.
    """
    torch.manual_seed(settings.seed)
    parts = {"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)}
    # Not compiled: torch 2.13's compiled bf16 gradients on CPUs were 15 to 62 % off float32's,
    # where these are 0.5 % off, and a prior taught by them forgot its words for the views.
    parts["unet"].to(memory_format=torch.channels_last)
    # As in the denoiser: torch's fused attention takes longer for gradients of short texts.
    parts["text_encoder"].set_attn_implementation("eager")
    model = torch.nn.ModuleDict(parts).train()
    if settings.start:
        started: Any = load_prior(settings.start)[1]  # the text encoder's class is not declared
        # It may know fewer words: the first ones of today's.
        started["text_encoder"].resize_token_embeddings(len(tokenizer))
        model.load_state_dict(started.state_dict())
    teachable_norms(model)
    if settings.lora:
        add_lora(model.requires_grad_(False)["unet"], settings.rank)
    return model


class _Norm(torch.nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(input.dtype)


def teachable_norms(model: torch.nn.Module) -> None:
    """Computes layer norms in float32: in bf16, torch 2.13 sums the gradients of their scales and
    shifts on CPUs with errors of up to 65 %; in float32 all gradients are within 2 %.
    """
    for norm in model.modules():
        if type(norm) is torch.nn.LayerNorm:
            norm.__class__ = _Norm


def _keep(settings: ZooTrainArguments, vae, model, tokenizer, scheduler, spent: float) -> None:
    """Writes the LoRA; or the prior and, every SAMPLED seconds and at the end, what it draws."""
    if settings.lora:
        return write_lora(model["unet"], settings.lora)
    save_prior(settings.out, vae, model, tokenizer, scheduler)
    drawn = len(list((settings.out / "work" / "samples").glob("*.png")))
    if spent > SAMPLED * (drawn + 1) or spent >= 60.0 * settings.unet_minutes:
        sample(settings.out, round(spent / 60))


def _randomness(seed: int, step: int) -> tuple[torch.Generator, np.random.Generator]:
    state = np.random.SeedSequence([seed, step, distributed.rank()])
    number = int(state.generate_state(1)[0])
    return torch.Generator().manual_seed(number), np.random.default_rng(state)


def _caption(photos: Photos, index: int, rng: np.random.Generator) -> str:
    return "" if rng.random() < UNCAPTIONED else photos.caption(rng, index)


def _tokens(tokenizer, captions: list[str]) -> Tensor:
    return tokenizer(
        captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    ).input_ids


@torch.no_grad()
def _ema(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
    """Keeps a running mean at first, an exponential one of 1000 steps later."""
    torch._foreach_lerp_(averages, values, max(1e-3, 1.0 / (10.0 + float(count))))


def _denoise(model, scheduler, z: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
    eps = torch.randn(z.shape, generator=generator)
    t = torch.randint(scheduler.config.num_train_timesteps, (len(z),), generator=generator)
    with cast():
        text = model["text_encoder"](tokens).last_hidden_state
        v = model["unet"](scheduler.add_noise(z, eps, t), t, text).sample
    return (v.float() - scheduler.get_velocity(z, eps, t)).square().mean()
