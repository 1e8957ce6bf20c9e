"""Training of the embedded prior, and the prior that is shipped."""

import numpy as np
import pytest
import torch

from splat_esd.config.commands import ZooTrainArguments, read_arguments
from splat_esd.diffusion.loading import load_prior
from splat_esd.errors import UsageError
from splat_esd.paths import ASSETS
from splat_esd.zoo.prior import models, train
from splat_esd.zoo.prior.dataset import compose, take_photos
from splat_esd.zoo.world.captions import LENGTH, WORDS


def test_every_word_of_every_caption_is_one_token():
    tokenizer = models.build_tokenizer()
    assert all(len(tokenizer.tokenize(word)) == 1 for word in WORDS)
    photos, rng = take_photos(40, 16), np.random.default_rng(0)
    for i in range(40):
        assert len(tokenizer(photos.caption(rng, i)).input_ids) <= LENGTH


def test_folding_the_statistics_gives_unit_latents_and_the_same_pictures():
    torch.manual_seed(0)
    vae, photos = models.build_vae().eval(), take_photos(12, models.SIZE)
    x = compose(photos, torch.arange(12), torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = vae.decode(vae.encode(x).latent_dist.mean).sample
        vae = train.fold_statistics(vae, photos, torch.Generator().manual_seed(1))
        z = vae.encode(x).latent_dist.mean
        after = vae.decode(z).sample
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)
    assert z.mean((0, 2, 3)).abs().max() < 0.2 and (z.std((0, 2, 3)) - 1).abs().max() < 0.2


def train_prior(arguments):
    train.main(read_arguments(ZooTrainArguments, arguments, command="zoo train"))


def test_training_stops_on_time_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "FOLDED", 8)
    given = [f"out={tmp_path}", "photos=8", "batch=2", "threads=1", "vae_minutes=0.02"]
    train_prior([*given, "unet_minutes=0.02"])
    before = torch.load(tmp_path / "work" / "unet.pt", weights_only=True)["step"]
    train_prior([*given, "unet_minutes=0.05"])
    assert torch.load(tmp_path / "work" / "unet.pt", weights_only=True)["step"] > before > 0
    prior = load_prior(str(tmp_path), device="cpu", dtype="fp32")
    assert prior.image_size == models.SIZE and prior.prediction == "v_prediction"
    weights = (f for f in tmp_path.rglob("*.safetensors"))
    assert sum(f.stat().st_size for f in weights) <= 30e6
    with pytest.raises(UsageError, match=r"does not know 'zebra'.*prior=sd21"):
        prior.check_words("a zebra")


def test_training_from_a_prior_keeps_its_autoencoder_and_starts_at_its_weights(tmp_path):
    folder = ASSETS / "zoo"
    given = [f"out={tmp_path}", f"start={folder}", "photos=4", "batch=2", "threads=1"]
    train_prior([*given, "unet_minutes=1e-9"])
    vae, model = models.load_prior(tmp_path)
    same_vae, same_model = models.load_prior(folder)
    torch.testing.assert_close(vae.state_dict(), same_vae.state_dict(), atol=0, rtol=0)
    weights, same = model.state_dict(), same_model.state_dict()
    for name, start in same.items():  # a prior of before knows fewer words, the first ones
        torch.testing.assert_close(weights[name][: len(start)], start, atol=0, rtol=0)
    train_prior([*given, "unet_minutes=0.03"])
    moved = models.load_prior(tmp_path)[1].state_dict()
    assert any(
        not torch.equal(moved[name], value) for name, value in same_model.state_dict().items()
    )
    with pytest.raises(UsageError, match=r"here has no model_index.json; train a prior first"):
        train_prior([f"out={tmp_path / 'other'}", f"start={tmp_path / 'here'}"])


def test_a_lora_is_trained_on_a_prior_and_prior_lora_takes_it_at_any_strength(tmp_path):
    given = [f"out={tmp_path}", f"start={ASSETS / 'zoo'}", "photos=4", "batch=2", "threads=1"]
    file = tmp_path / "from-the-front.safetensors"
    train_prior([*given, f"lora={file}", "rank=4", "front=1", "unet_minutes=0.1"])
    assert file.stat().st_size < 0.5e6 and not (tmp_path / "model_index.json").exists()
    t, g = torch.tensor([500]), torch.Generator().manual_seed(0)
    z_t = torch.randn(1, models.CHANNELS, 16, 16, generator=g)
    answers = []
    for loras in ((), (f"{file}:0",), (f"{file}:1",), (f"{file}:2",)):
        prior = load_prior(str(ASSETS / "zoo"), device="cpu", dtype="fp32", loras=loras)
        answers.append(prior.eps(z_t, t, prior.encode_text(["a corgi"])))
    bare, none, once, twice = answers
    torch.testing.assert_close(none, bare, atol=1e-6, rtol=0)
    assert (once - bare).norm() > 1e-3
    torch.testing.assert_close(
        twice - bare, 2 * (once - bare), atol=0.05 * float((once - bare).abs().max()), rtol=0
    )
    with pytest.raises(UsageError, match=r"a LoRA needs a prior to start from"):
        train_prior([f"out={tmp_path}", f"lora={file}"])


def test_the_embedded_prior_is_small_and_loads_in_a_stock_pipeline():
    from diffusers import StableDiffusionPipeline

    folder = ASSETS / "zoo"
    dial = folder / "all-sides.safetensors"
    files = [f for f in folder.rglob("*") if f.is_file() and f != dial]
    assert sum(f.stat().st_size for f in files) <= 30e6 and dial.stat().st_size <= 2e6
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    g = torch.Generator().manual_seed(0)
    image = pipeline("a corgi", num_inference_steps=3, generator=g, output_type="np").images[0]
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    assert image.shape == (size, size, 3) and np.isfinite(image).all() and image.std() > 0.02


@torch.no_grad()
def test_the_embedded_prior_denoises_toys_better_when_told_which():
    """The right caption lowers the denoising error on what the prior itself draws, a wrong one
    raises it: the text is heard.
    """
    prior = load_prior(str(ASSETS / "zoo"), device="cpu", dtype="fp32")
    names = ["cat", "corgi", "duck", "frog", "panda", "snowman"]
    g = torch.Generator().manual_seed(0)
    text = prior.encode_text([f"a {name}" for name in names])
    side = prior.denoiser.config.sample_size
    z = torch.randn(len(names), prior.denoiser.config.in_channels, side, side, generator=g)
    times = list(range(980, -1, -70))
    for t, after in zip(times, [*times[1:], 0], strict=True):  # DDIM
        now, then = (torch.full((len(names),), step) for step in (t, after))
        eps = prior.eps(z, now, text)
        alpha, sigma = prior.schedule.alpha(now), prior.schedule.sigma(now)
        clean = (z - sigma * eps) / alpha
        z = prior.schedule.add_noise(clean, eps, then)
    eps = torch.randn(z.shape, generator=g)
    t = torch.full((len(names),), 700)
    z_t = prior.schedule.add_noise(z, eps, t)
    said = ([f"a {n}" for n in names], [""] * 6, [f"a {n}" for n in [*names[1:], names[0]]])
    right, nothing, wrong = (
        (prior.eps(z_t, t, prior.encode_text(list(s))) - eps).square().mean().item() for s in said
    )
    assert right < nothing < wrong
