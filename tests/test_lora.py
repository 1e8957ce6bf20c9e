import math

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from peft.tuners.lora import LoraLayer

from splat_esd.cameras import orbit_cameras
from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.lora import CAMERA_NUMBERS, Phi, camera_vector


def cameras(azimuth, fovy=0.75):
    azimuth = torch.tensor(azimuth)
    one = torch.ones_like(azimuth)
    return orbit_cameras(azimuth, 0.2 * one, 2.4 * one, fovy * one, width=16, height=16)


UNETS = ["tiny_sd", "tiny_sd_v", "tiny_pixels", "tiny_sdxl"]


@pytest.fixture(params=[*UNETS, "tiny_sd3", "tiny_flux2"])
def prior(request):
    return load_prior(str(request.getfixturevalue(request.param)), device="cpu", dtype="fp32")


def phi_of(prior, seed=0):
    return Phi(prior, prior.encode_text(["a corgi"]), rank=2, seed=seed)


def disturb(phi):
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in phi.trainable().values():
            p.add_(0.1 * torch.randn(p.shape, generator=g))


def losses_of(phi, z, t, eps, camera, dropped):
    z_t = phi.prior.schedule.add_noise(z, eps, t)
    return phi.eps_and_losses(z, z_t, t, eps, camera, dropped)[1]


MIXED = torch.tensor([False, True])


def noisy(prior):
    size, channels = (
        (getattr(prior.denoiser.config, "sample_size", None) or 4),
        prior.denoiser.config.in_channels,
    )
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, size, size, generator=g), torch.tensor([5, 600])


@torch.no_grad()
def test_outside_phis_passes_the_prior_is_bit_for_bit_what_was_loaded(prior):
    z_t, t = noisy(prior)
    text = prior.encode_text(["a corgi"] * 2)
    before = prior.eps(z_t, t, text)
    phi = phi_of(prior)
    assert torch.equal(prior.eps(z_t, t, text), before)
    disturb(phi)
    phi.eps(z_t, t, camera_vector(cameras([0.0, 1.0])))
    assert torch.equal(prior.eps(z_t, t, text), before)


@torch.no_grad()
def test_phi_starts_at_the_prior_with_and_without_a_camera(prior):
    z_t, t = noisy(prior)
    phi = phi_of(prior)
    expected = prior.eps(z_t, t, prior.encode_text(["a corgi"] * 2))
    torch.testing.assert_close(phi.eps(z_t, t, camera_vector(cameras([0.0, 1.0]))), expected)
    torch.testing.assert_close(phi.eps(z_t, t, torch.zeros(2, CAMERA_NUMBERS)), expected)


@torch.no_grad()
def test_without_a_camera_phi_does_not_know_where_the_view_is_from(prior):
    phi = phi_of(prior)
    disturb(phi)
    z_t, t = noisy(prior)
    answers = [
        phi.eps(z_t, t, camera_vector(cameras(a)).mul(keep))
        for keep in (0, 1)
        for a in ([0.0, 1.0], [2.0, 3.0])
    ]
    assert torch.equal(answers[0], answers[1])
    assert (answers[2] - answers[3]).abs().max() > 1e-4


@torch.no_grad()
def test_a_batch_may_mix_views_with_and_without_a_camera(prior):
    phi = phi_of(prior)
    disturb(phi)
    z_t, t = noisy(prior)
    camera = camera_vector(cameras([0.0, 1.0]))
    mixed = phi.eps(z_t, t, camera * torch.tensor([[1.0], [0.0]]))
    torch.testing.assert_close(mixed[:1], phi.eps(z_t[:1], t[:1], camera[:1]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        mixed[1:], phi.eps(z_t[1:], t[1:], camera[:1] * 0), atol=1e-5, rtol=1e-4
    )


def test_no_camera_looks_like_the_null_token_and_the_field_of_view_is_told():
    a, b = camera_vector(cameras([0.0])), camera_vector(cameras([0.0], fovy=1.0))
    assert a[0, 15] == 1.0
    assert torch.equal(a[:, :16], b[:, :16])
    assert b[0, 16].item() == pytest.approx(math.tan(0.5))


def test_phi_is_told_waves_of_the_azimuth():
    azimuth = torch.tensor([0.3, -2.0])
    told = camera_vector(cameras(azimuth.tolist()))[:, 17:]
    k = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = torch.cat([torch.sin(azimuth[:, None] * k), torch.cos(azimuth[:, None] * k)], 1)
    torch.testing.assert_close(told, expected, atol=1e-6, rtol=1e-6)


def test_the_camera_moves_every_words_vector_alike(tiny_sd):
    phi = phi_of(load_prior(str(tiny_sd), device="cpu", dtype="fp32"))
    disturb(phi)
    heard = []
    phi.prior.denoiser.register_forward_pre_hook(
        lambda _module, _inputs, named: heard.append(named["encoder_hidden_states"]),
        with_kwargs=True,
    )
    z_t, t = noisy(phi.prior)
    camera = camera_vector(cameras([0.0, 1.0]))
    phi.eps(z_t, t, camera)
    expected = phi.text.embeds + phi.camera(camera)[:, None]
    torch.testing.assert_close(heard[0], expected)


def test_phi_learns_to_denoise_what_it_is_shown_and_the_prior_stays(prior):
    phi = phi_of(prior)
    z_t, t = noisy(prior)
    z, camera = torch.full_like(z_t, 0.5), camera_vector(cameras([0.0, 2.0]))
    frozen = {n: p.clone() for n, p in prior.denoiser.named_parameters() if ".phi." not in n}
    optimizer = torch.optim.Adam(phi.trainable().values(), lr=1e-2)
    losses = []
    for step in range(40):
        eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(step % 4))
        loss = losses_of(phi, z, t, eps, camera, torch.tensor([False, True])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])
    now = dict(prior.denoiser.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert all(p.grad is None for n, p in now.items() if ".phi." not in n)


def test_every_trainable_parameter_gets_a_gradient(prior):
    phi = phi_of(prior)
    disturb(phi)
    z_t, t = noisy(prior)
    camera = camera_vector(cameras([0.0, 2.0]))
    losses_of(phi, z_t, t, torch.randn_like(z_t), camera, MIXED).sum().backward()
    lost = [n for n, p in phi.trainable().items() if p.grad is None or not p.grad.abs().sum() > 0]
    # What SD3's last block says of the text goes nowhere, so its question has no effect either.
    assert [n for n in lost if "transformer_blocks.1.attn.add_q_proj" not in n] == []
    assert {"camera.0.weight", "camera.2.bias"} < set(phi.trainable())
    adapted = {name.split(".lora_")[0] for name in phi.trainable() if ".phi." in name}
    targets = {target.rsplit(".")[-1] for target in prior.family.lora_targets}
    assert {name.rsplit(".", 1)[1] for name in adapted} == targets


def test_the_same_seed_gives_the_same_phi_and_leaves_the_global_randomness_alone(tiny_sd):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    phis = [
        phi_of(load_prior(str(tiny_sd), device="cpu", dtype="fp32"), seed) for seed in (7, 7, 8)
    ]
    assert torch.equal(torch.rand(3), expected)
    a, b, c = (torch.cat([p.flatten() for p in phi.trainable().values()]) for phi in phis)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_phis_weights_are_float32_on_a_bf16_prior(tiny_sd):
    prior = load_prior(str(tiny_sd), device="cpu", dtype="bf16")
    phi = phi_of(prior)
    assert {p.dtype for p in phi.trainable().values()} == {torch.float32}
    z_t, t = noisy(prior)
    camera = camera_vector(cameras([0.0, 2.0]))
    losses_of(phi, z_t, t, torch.randn_like(z_t), camera, MIXED).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in phi.trainable().values())


def test_a_folded_layer_answers_as_pefts_does_and_so_do_its_gradients(prior):
    phi = phi_of(prior)
    disturb(phi)
    prior.denoiser.enable_adapters()
    g = torch.Generator().manual_seed(2)
    layers = [m for m in prior.denoiser.modules() if isinstance(m, LoraLayer)]
    assert layers
    for layer in layers:
        matrices = [layer.lora_A["phi"].weight, layer.lora_B["phi"].weight]
        x = torch.randn(3, 5, layer.in_features, generator=g).requires_grad_()
        cotangent = torch.randn(3, 5, layer.out_features, generator=g)
        found, expected = layer(x), type(layer).forward(layer, x)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found, [x, *matrices], cotangent),
            torch.autograd.grad(expected, [x, *matrices], cotangent),
        )


@pytest.mark.parametrize("prior", UNETS, indirect=True)
def test_attention_with_a_graph_answers_as_without_one_and_so_do_its_gradients(prior):
    """On a CPU it is written out when there is a graph, and torch's fused one otherwise."""
    phi = phi_of(prior)
    disturb(phi)
    z_t, t = noisy(prior)
    camera = camera_vector(cameras([0.0, 2.0]))
    cotangent = torch.randn(z_t.shape, generator=torch.Generator().manual_seed(3))

    def gradients():
        learnt = phi.trainable()
        loss = (phi.eps(z_t, t, camera) * cotangent).sum()
        return dict(zip(learnt, torch.autograd.grad(loss, learnt.values()), strict=True))

    with torch.no_grad():
        fused = phi.eps(z_t, t, camera)
    torch.testing.assert_close(phi.eps(z_t, t, camera).detach(), fused, atol=1e-5, rtol=1e-4)
    written_out = gradients()
    phi.prior.denoiser.set_attn_processor(AttnProcessor2_0())
    for name, gradient in gradients().items():
        torch.testing.assert_close(written_out[name], gradient, atol=1e-4, rtol=1e-3)
