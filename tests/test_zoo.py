import math
import re

import numpy as np
import pytest
import torch

from splat_esd.cameras import orbit_cameras
from splat_esd.diffusion.prior import load_prior
from splat_esd.errors import UsageError
from splat_esd.paths import ASSETS
from splat_esd.zoo import train
from splat_esd.zoo.dataset import (
    Bias,
    backgrounds,
    caption,
    compose,
    sample_azimuth,
    take_photos,
    view_name,
)
from splat_esd.zoo.objects import TOYS, Part
from splat_esd.zoo.render import render_parts

SIZE = 64


def look(azimuth=0.0, elevation=0.0, distance=2.5, fovy=0.75):
    values = (torch.tensor([v]) for v in (azimuth, elevation, distance, fovy))
    camera = orbit_cameras(*values, width=SIZE, height=SIZE)
    return camera.viewmats[0].numpy(), camera.Ks[0].numpy()


def test_a_sphere_covers_the_area_of_its_projection():
    radius, distance, fovy = 0.6, 2.5, 0.75
    image = render_parts([Part((0, 0, 0), (radius,) * 3, (1, 1, 1))], *look(), SIZE, supersample=4)
    focal = SIZE / 2 / math.tan(fovy / 2)
    expected = math.pi * focal**2 * radius**2 / (distance**2 - radius**2)
    assert image[..., 3].sum() == pytest.approx(expected, rel=0.01)


def test_a_turned_ellipsoid_is_the_sphere_stretched_along_its_own_axis():
    """Brute force: a ray marched through |A (p - c)|^2 <= 1 meets the part where the renderer
    says.
    """
    part = Part((0.1, -0.2, 0.15), (0.5, 0.2, 0.1), (1, 1, 1), pitch=0.6, roll=0.4)
    view, K = look(azimuth=0.8, elevation=0.3)
    alpha = render_parts([part], view, K, SIZE, supersample=1)[..., 3]
    u = (np.arange(SIZE) + 0.5 - K[0, 2]) / K[0, 0]
    d = np.stack(np.broadcast_arrays(u[None, :], u[:, None], 1.0), -1) @ view[:3, :3]
    origin = -view[:3, :3].T @ view[:3, 3]
    s = np.linspace(1.2, 3.8, 2601)[:, None, None, None]
    local = (origin + s * d - part.center) @ part.rotation() / np.array(part.radii)
    inside = ((local**2).sum(-1) <= 1).any(0)
    assert (inside != (alpha > 0)).mean() < 0.004


def test_the_nearest_part_hides_the_other():
    red, blue = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    parts = [Part((0.4, 0, 0), (0.2,) * 3, red), Part((-0.4, 0, 0), (0.2,) * 3, blue)]
    for azimuth, channel in ((0.0, 0), (math.pi, 2)):
        middle = render_parts(parts, *look(azimuth), SIZE)[SIZE // 2, SIZE // 2]
        assert middle[:3].argmax() == channel and middle[3] == 1


def test_a_camera_inside_a_toy_is_refused():
    with pytest.raises(ValueError, match="inside the toy"):
        render_parts([Part((0, 0, 0), (2.5,) * 3, (1, 1, 1))], *look(), SIZE)


@pytest.mark.parametrize("name", sorted(TOYS))
def test_a_toy_lies_in_the_unit_ball_is_left_right_alike_and_has_a_front(name):
    parts = TOYS[name]()
    assert 12 <= len(parts) <= 60
    assert max(np.linalg.norm(p.center) + max(p.radii) for p in parts) < 1
    front = render_parts(parts, *look(0.0), SIZE)
    back = render_parts(parts, *look(math.pi), SIZE)
    assert np.abs(front - back).mean() > 0.01
    sides = [render_parts(parts, *look(s * math.pi / 2), SIZE)[..., 3] for s in (1, -1)]
    assert np.abs(sides[0] - sides[1][:, ::-1]).mean() < 0.03


def test_photos_are_taken_from_the_front_as_often_as_the_bias_says():
    rng = np.random.default_rng(0)
    azimuth = np.array([sample_azimuth(rng, Bias()) for _ in range(20000)])
    names = np.array([view_name(a) for a in azimuth])
    inside = math.erf(45 / 20 / math.sqrt(2))  # of a normal of 20 degrees within 45 degrees
    front = 0.7 * inside + 0.1 * 0.25 + 0.2 * (1 - inside) / 2
    assert (names == "front").mean() == pytest.approx(front, abs=0.01)
    assert np.abs(azimuth).max() <= math.pi
    even = [sample_azimuth(rng, Bias(front=0.0, sides=0.0)) for _ in range(20000)]
    assert np.histogram(even, 8)[0] / 20000 == pytest.approx(np.full(8, 0.125), abs=0.01)


def test_thirty_percent_of_captions_name_the_view_and_name_it_right():
    rng = np.random.default_rng(0)
    captions = [caption(rng, "corgi", math.pi) for _ in range(4000)]
    named = [c for c in captions if re.search("front|side|back", c)]
    assert len(named) / 4000 == pytest.approx(0.3, abs=0.03)
    assert all("back" in c and "front" not in c for c in named)


def test_every_word_of_every_caption_is_one_token_the_prior_knows():
    tokenizer = train.build_tokenizer()
    assert all(len(tokenizer.tokenize(word)) == 1 for word in train.WORDS)
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = caption(rng, rng.choice(sorted(TOYS)), rng.uniform(-3, 3))
        assert set(re.findall(r"\w+|,", text)) <= set(train.WORDS)
        assert len(tokenizer(text).input_ids) <= train.LENGTH


def test_photos_are_a_function_of_the_seed():
    a, b, c = (take_photos(6, 32, seed) for seed in (0, 0, 1))
    assert np.array_equal(a.rgba, b.rgba) and not np.array_equal(a.rgba, c.rgba)
    assert a.toy.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_composed_photo_shows_the_background_where_nothing_stands():
    photos = take_photos(6, 32, 0)
    g = torch.Generator().manual_seed(3)
    images = compose(photos, torch.arange(6), g)
    corner = images[:, :, 0, 0]
    assert images.shape == (6, 3, 32, 32) and images.abs().max() <= 1
    assert torch.equal(corner, images[:, :, 0, -1])
    assert backgrounds(100, g).min() >= 0 and backgrounds(100, g).max() <= 1


def test_folding_the_statistics_gives_unit_latents_and_the_same_pictures():
    torch.manual_seed(0)
    vae, photos = train.build_vae().eval(), take_photos(12, SIZE, 0)
    x = compose(photos, torch.arange(12), torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = vae.decode(vae.encode(x).latent_dist.mean).sample
        vae = train.fold_statistics(vae, photos, torch.Generator().manual_seed(1))
        z = vae.encode(x).latent_dist.mean
        after = vae.decode(z).sample
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)
    assert z.mean((0, 2, 3)).abs().max() < 0.15 and (z.std((0, 2, 3)) - 1).abs().max() < 0.15


def test_training_stops_on_time_and_goes_on_where_it_stopped(tmp_path):
    given = [f"out={tmp_path}", "photos=12", "batch=2", "threads=1", "unet_minutes=0.02"]
    train.main([*given, "vae_minutes=0.02"])
    before = torch.load(tmp_path / "work" / "unet.pt", weights_only=True)["step"]
    train.main([*given[:-1], "vae_minutes=0.02", "unet_minutes=0.05"])
    assert torch.load(tmp_path / "work" / "unet.pt", weights_only=True)["step"] > before > 0
    prior = load_prior(str(tmp_path), device="cpu", dtype="auto")
    assert prior.image_size == SIZE and prior.prediction == "v_prediction"
    with pytest.raises(UsageError, match=r"does not know 'zebra'.*corgi.*prior=sd21"):
        prior.check_words("a zebra")


@pytest.mark.parametrize("wrong", ["minutes=3", "photos", "photos=many"])
def test_a_wrong_setting_of_the_training_is_refused(wrong):
    with pytest.raises(UsageError, match=r"zoo train takes|expected a int"):
        train.main([wrong])


def test_the_embedded_prior_is_small_and_loads_in_a_stock_pipeline():
    from diffusers import StableDiffusionPipeline

    folder = ASSETS / "zoo"
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) <= 25e6
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    g = torch.Generator().manual_seed(0)
    image = pipeline("a corgi", num_inference_steps=3, generator=g, output_type="np").images[0]
    assert image.shape == (SIZE, SIZE, 3) and np.isfinite(image).all() and image.std() > 0.02


@torch.no_grad()
def test_the_embedded_prior_denoises_its_toys_better_when_told_which():
    """The caption lowers the denoising error on fresh photos: the text is heard."""
    prior = load_prior(str(ASSETS / "zoo"), device="cpu", dtype="auto")
    photos = take_photos(24, SIZE, 12345)
    x = compose(photos, torch.arange(24), torch.Generator().manual_seed(0))
    z = prior.encode_images(0.5 + 0.5 * x.permute(0, 2, 3, 1))
    g = torch.Generator().manual_seed(1)
    eps, t = torch.randn(z.shape, generator=g), torch.full((24,), 700)
    z_t = prior.schedule.add_noise(z, eps, t)
    names = sorted(TOYS)
    right = [f"a {names[i]}" for i in photos.toy]
    wrong = [f"a {names[(i + 1) % 6]}" for i in photos.toy]
    errors = [
        (prior.eps(z_t, t, prior.encode_text(text)) - eps).square().mean().item()
        for text in (right, [""] * 24, wrong)
    ]
    assert errors[0] < errors[1] < errors[2]
