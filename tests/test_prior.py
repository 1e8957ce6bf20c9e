import copy
import json
import shutil

import pytest
import torch

from splat_esd.diffusion.loading import _channels_last, load_prior
from splat_esd.errors import EnvironmentProblem, UsageError


def load(folder, dtype="fp32"):
    return load_prior(str(folder), device="cpu", dtype=dtype)


def test_an_epsilon_prior_answers_with_its_unets_own_output(tiny_sd):
    prior = load(tiny_sd)
    z_t, t = torch.randn(2, 4, 8, 8), torch.tensor([3, 700])
    text = prior.encode_text(["a corgi", "a cat"])
    with torch.no_grad():
        expected = prior.denoiser(z_t, t, encoder_hidden_states=text.embeds).sample
        assert torch.equal(prior.eps(z_t, t, text), expected)


def test_a_v_prior_speaks_eps_on_the_outside(tiny_sd_v):
    prior = load(tiny_sd_v)
    z_t, t = torch.randn(2, 4, 8, 8), torch.tensor([3, 700])
    text = prior.encode_text(["a corgi", "a cat"])
    with torch.no_grad():
        v = prior.denoiser(z_t, t, encoder_hidden_states=text.embeds).sample
        abar = prior.schedule.alphas[t].square().view(-1, 1, 1, 1)
        torch.testing.assert_close(
            prior.eps(z_t, t, text), (1 - abar).sqrt() * z_t + abar.sqrt() * v
        )


def test_the_schedule_is_the_one_in_the_folder(tiny_sd):
    schedule = load(tiny_sd).schedule
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    torch.testing.assert_close(schedule.alphas**2, torch.cumprod(1 - betas, 0))


def test_a_pixel_priors_latents_are_the_images_from_minus_one_to_one(tiny_pixels):
    prior = load(tiny_pixels)
    rgb = torch.rand(2, 16, 16, 3)
    assert prior.image_size == 16
    torch.testing.assert_close(prior.encode_images(rgb), 2 * rgb.permute(0, 3, 1, 2) - 1)


def test_latents_carry_the_scaling_factor_and_a_gradient_to_the_pixels(tiny_sd):
    prior = load(tiny_sd)
    rgb = torch.rand(2, 16, 16, 3, requires_grad=True)
    z = prior.encode_images(rgb)
    with torch.no_grad():
        mean = prior.vae.encode(2 * rgb.permute(0, 3, 1, 2) - 1).latent_dist.mean
    assert prior.image_size == 16
    torch.testing.assert_close(z, 0.18215 * mean)
    direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    (z * direction).sum().backward()
    step = 1e-2 * torch.sign(rgb.grad)
    with torch.no_grad():
        up = (prior.encode_images(rgb + step) * direction).sum()
        down = (prior.encode_images(rgb - step) * direction).sum()
    predicted = (rgb.grad * step).sum()
    assert ((up - down) / 2).item() == pytest.approx(predicted.item(), rel=0.05)


def test_bf16_is_an_autocast_inside_and_float32_outside(tiny_sd):
    exact, half = load(tiny_sd), load(tiny_sd, "bf16")
    z_t, t = torch.randn(2, 4, 8, 8), torch.tensor([3, 700])
    with torch.no_grad():
        a, b = (p.eps(z_t, t, p.encode_text(["a", "b"])) for p in (exact, half))
    assert half.denoiser.dtype == torch.bfloat16 and b.dtype == torch.float32
    assert 0 < (a - b).abs().max() < 0.1


@pytest.mark.parametrize(
    ("has", "dtype"),
    [({}, "float32"), ({"avx512_f": True}, "float32"), ({"avx512_bf16": True}, "bfloat16")],
)
def test_auto_is_bf16_only_where_the_processor_computes_in_it(tiny_sd, monkeypatch, has, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    prior = load(tiny_sd, "auto")
    assert prior.dtype == prior.denoiser.dtype == getattr(torch, dtype)


def test_the_decoders_pullback_in_bf16_is_that_of_float32_rounded(tiny_sd):
    rgb, grads = torch.rand(2, 16, 16, 3, requires_grad=True), []
    grad_z = torch.randn(2, 4, 8, 8)
    for dtype in ("fp32", "bf16"):
        prior = load_prior(str(tiny_sd), device="cpu", dtype=dtype, pullback="decoder")
        loss = prior.surrogate(rgb, prior.encode_images(rgb), grad_z)
        grads.append(torch.autograd.grad(loss, rgb)[0])
    assert 0 < (grads[0] - grads[1]).norm() < 0.1 * grads[0].norm()
    assert grads[1].dtype == torch.float32


def test_nothing_of_the_prior_is_trainable(tiny_sd):
    prior = load(tiny_sd)
    modules = (prior.denoiser, prior.vae, *prior.text_encoders)
    assert not any(p.requires_grad for module in modules for p in module.parameters())


def test_a_word_outside_the_vocabulary_is_named_with_the_words_known(tiny_sd, tmp_path):
    folder = shutil.copytree(tiny_sd, tmp_path / "prior")
    (folder / "vocabulary.txt").write_text("a\ncorgi\ncat\n,\n")
    prior = load(folder)
    prior.check_words("A corgi, a cat")
    with pytest.raises(UsageError, match=r"'zebra'.*It knows a, cat, corgi\..*prior=sd21"):
        prior.check_words("a zebra")


def test_of_a_negative_prompt_only_known_words_are_heard(tiny_sd, tmp_path):
    folder = shutil.copytree(tiny_sd, tmp_path / "prior")
    (folder / "vocabulary.txt").write_text("a\ncorgi\ncat\n,\n")
    assert load(folder).split_words("Blurry, a cat") == ("a cat", ["blurry"])
    assert load(tiny_sd).split_words("Blurry, a cat") == ("Blurry, a cat", [])


def test_a_prior_without_a_vocabulary_takes_any_word(tiny_sd):
    load(tiny_sd).check_words("ein Zebra mit Hut")


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no model_index.json"):
        load(tmp_path)


def test_a_damaged_prior_is_refused_in_one_line(tiny_sd, tmp_path):
    folder = shutil.copytree(tiny_sd, tmp_path / "prior")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UsageError, match=r"cannot be read as a diffusers pipeline") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_an_unknown_prediction_type_is_refused(tiny_sd, tmp_path):
    folder = shutil.copytree(tiny_sd, tmp_path / "prior")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "sample"}))
    with pytest.raises(UsageError, match=r"expected one of .*got 'sample'"):
        load(folder)


def test_a_hub_prior_that_is_nowhere_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match=r"hf download no-one/no-prior.*prior=zoo"):
        load_prior("no-one/no-prior", mirrors=("no-one/else",), device="cpu", dtype="fp32")


def test_what_is_neither_a_folder_nor_an_id_is_refused():
    with pytest.raises(UsageError, match=r"neither a folder nor a hub id"):
        load_prior("no such folder", device="cpu", dtype="fp32")


def test_the_encoders_pullback_is_the_chain_rule(tiny_sd):
    prior = load(tiny_sd)
    rgb = torch.rand(2, 16, 16, 3, requires_grad=True)
    grad_z = torch.randn(2, 4, 8, 8)
    z = prior.encode_images(rgb)
    prior.surrogate(rgb, z, grad_z).backward()
    (expected,) = torch.autograd.grad(prior.encode_images(rgb), rgb, grad_z / 2)
    torch.testing.assert_close(rgb.grad, expected)


def test_the_decoders_pullback_is_the_pictures_move_when_the_latents_move(tiny_sd):
    prior = load_prior(str(tiny_sd), device="cpu", dtype="fp32", pullback="decoder")
    rgb = torch.rand(2, 16, 16, 3, requires_grad=True)
    z = prior.encode_images(rgb).detach()
    grad_z = 1e-4 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def decoded(latents):
        return 0.5 + 0.5 * prior.vae.decode(latents / 0.18215).sample.permute(0, 2, 3, 1)

    prior.surrogate(rgb, z, grad_z).backward()
    with torch.no_grad():
        moved = 0.5 * (decoded(z + grad_z) - decoded(z - grad_z))
    pull = 0.1 * (rgb.detach() - decoded(z).detach())
    found = 2 * rgb.grad - pull
    assert (found - moved).norm() < 0.05 * moved.norm()


def test_on_a_gpu_convolutions_are_laid_out_channels_last_and_answer_the_same(tiny_sd):
    prior = load(tiny_sd)
    network = copy.deepcopy(prior.denoiser)
    z_t, t, text = torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), prior.encode_text(["a", "b"])
    answer = prior.eps(z_t, t, text)
    prior.denoiser = _channels_last(network)
    weights = [m.weight for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    torch.testing.assert_close(prior.eps(z_t, t, text), answer, atol=1e-4, rtol=1e-4)
    assert _channels_last(None) is None
