"""The equation: each method against its closed form, and the paper's claim on two-dimensional
Gaussians.
"""

import math

import pytest
import torch

from splat_esd import distillation
from splat_esd.cameras import orbit_cameras
from splat_esd.config.schema import GuidanceConfig, LoraConfig, PerpNegConfig
from splat_esd.diffusion.families import FAMILIES
from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.lora import CAMERA_NUMBERS, Phi, camera_vector
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.prompts import PromptBook
from splat_esd.diffusion.schedule import Schedule
from splat_esd.diffusion.text import Text
from splat_esd.distillation import CSD, SDI, make_guidance, mixed
from splat_esd.distributed import Rows
from splat_esd.entropy import entropic_shares
from splat_esd.guidance import ESD, SDS, Noisy, perpendicular

T = 1000
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, T, dtype=torch.float64) ** 2
SCHEDULE = Schedule.variance_preserving(torch.cumprod(1 - BETAS, 0))


def guidance_config(name="esd", lam=0.5, **changes):
    # These are what the closed forms below were written for.
    values = {"anneal_at": 0.2, "lora": LoraConfig(rank=4), "branches": "both"}
    return GuidanceConfig(name=name, lam=lam, **(values | changes))


def ring(count, dtype=torch.float32):
    azimuth = torch.arange(count, dtype=dtype) * (2 * math.pi / count)
    one = torch.ones_like(azimuth)
    return orbit_cameras(azimuth, 0.2 * one, 2.4 * one, 0.75 * one, width=16, height=16)


class ExactPrior(Prior):
    """The score of N(mean, cov) diffused:  eps = sigma (alpha^2 cov + sigma^2 I)^-1 (z_t - alpha
    mean).
    """

    schedule, family = SCHEDULE, FAMILIES[None]

    def __init__(self, mean, cov):
        self.mean, self.cov = mean, cov

    def eps(self, z_t, t, text):
        return gaussian_eps(z_t, t, self.mean, self.cov)


class ExactPhi(Phi):
    """The true scores of x = m + L u: without the camera those of N(m, L L^T), with it those of
    x.
    """

    def __init__(self):
        torch.nn.Module.__init__(self)

    def eps(self, z_t, t, camera):
        null = gaussian_eps(z_t, t, self.mean, self.cov)
        x = self.x.repeat(len(z_t) // len(self.x), 1, 1, 1)
        known = SCHEDULE.eps_from_z(x, z_t, t)
        return torch.where((camera == 0).all(1)[:, None, None, None], null, known)

    def eps_and_losses(self, z, z_t, t, eps, camera, dropped):
        told = camera.masked_fill(dropped[:, None], 0.0)
        return self.eps(z_t, t, told), torch.zeros(len(z_t), dtype=z_t.dtype)


def gaussian_eps(z_t, t, mean, cov):
    alpha, sigma = SCHEDULE.alpha(t[:1]).item(), SCHEDULE.sigma(t[:1]).item()
    spread = alpha**2 * cov + sigma**2 * torch.eye(2, dtype=cov.dtype)
    flat = z_t.flatten(1) - alpha * mean
    return (sigma * torch.linalg.solve(spread, flat.T).T).view_as(z_t)


class NoBook(PromptBook):
    """Prompts for a prior that hears none."""

    def __init__(self):
        self.negative = Text(torch.zeros(1, 1, 1, dtype=torch.float64))

    def embed(self, cameras):
        return self.negative.expand(len(cameras))


MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COV = torch.tensor([[1.5, 0.6], [0.6, 0.8]], dtype=torch.float64)


def fit_gaussian(lam, *, steps=1500, count=256, time=0.2):
    """Descends the real ESD gradient on m and L from N(0, I / 4) and returns the covariance
    found.
    """
    config = guidance_config("esd", lam, t_min=time, t_max=time + 1e-6, anneal_at=1.0)
    prior, phi = ExactPrior(MEAN, COV), ExactPhi()
    esd = ESD(prior, NoBook(), config, phi=phi, cfg_scale=1.0, perp_neg=False, steps=steps)
    m = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    L = (0.5 * torch.eye(2, dtype=torch.float64)).requires_grad_()
    cameras, optimizer = ring(count, torch.float64), torch.optim.SGD([m, L], lr=1.0)
    average, weight = torch.zeros(2, 2, dtype=torch.float64), 0
    g = torch.Generator().manual_seed(0)
    for step in range(steps):
        u = torch.randn(count // 2, 2, dtype=torch.float64, generator=g)
        u = torch.cat([u, -u])
        z = (m + u @ L.T)[:, :, None, None]
        phi.x, phi.mean, phi.cov = z.detach(), m.detach(), (L @ L.T).detach()
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        grad = esd.gradient(z.detach(), cameras, step, g).grad
        torch.set_default_dtype(default)
        optimizer.param_groups[0]["lr"] = 4.0 / (1 + step / 100)
        optimizer.zero_grad()
        ((grad * z).sum() / count).backward()
        optimizer.step()
        if step >= steps // 2:
            average, weight = average + (L @ L.T).detach(), weight + 1
    return average / weight


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.75, 1.0])
def test_the_paper_in_one_test_the_covariance_is_lambda_of_the_targets(lam):
    """Stationary point  Sigma_q = lambda Sigma_p - (1 - lambda) (sigma / alpha)^2 I, clipped at
    0.
    """
    found = fit_gaussian(lam)
    t = torch.tensor([int(0.2 * T)])
    ratio = (SCHEDULE.sigma(t) / SCHEDULE.alpha(t)).item() ** 2
    expected = lam * COV - (1 - lam) * ratio * torch.eye(2, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(expected)
    expected = vectors @ values.clamp_min(0).diag() @ vectors.T
    scale = COV.trace().item()
    assert (found - expected).abs().max().item() < 0.02 * scale
    assert found.trace().item() / scale == pytest.approx(expected.trace().item() / scale, abs=0.02)
    if lam == 0.0:
        assert found.trace().item() / scale < 0.01


def test_variety_grows_with_lambda():
    traces = [fit_gaussian(lam, steps=600).trace().item() for lam in (0.0, 0.4, 0.6, 0.8, 1.0)]
    assert traces == sorted(traces)


def test_when_the_renders_are_the_target_every_gradient_is_exactly_zero():
    """lambda = 1 and q = p, per sample."""
    count = 16
    prior, phi = ExactPrior(MEAN, COV), ExactPhi()
    phi.x, phi.mean, phi.cov = torch.randn(count, 2, 1, 1, dtype=torch.float64), MEAN, COV
    esd = ESD(
        prior,
        NoBook(),
        guidance_config("esd", 1.0),
        phi=phi,
        cfg_scale=1.0,
        perp_neg=False,
        steps=1,
    )
    config = guidance_config("esd", 1.0, t_min=0.3, t_max=0.3 + 1e-6, anneal_at=1.0)
    esd.config = config
    z_t = torch.randn(count, 2, 1, 1, dtype=torch.float64)
    t = torch.full((count,), 300)
    null = particles(esd, z_t, t, torch.zeros_like(z_t), ring(count, torch.float64)).eps
    assert torch.equal(prior.eps(z_t, t, None), null)


def test_esd_is_vsd_plus_lambda_times_the_mutual_information():
    """lambda KL(q || p) + (1 - lambda) E_c KL(q_c || p) = E_c KL(q_c || p) - lambda I(x; c),
    discrete.
    """
    g = torch.Generator().manual_seed(0)
    q_c = torch.rand(5, 7, dtype=torch.float64, generator=g)
    q_c /= q_c.sum(1, keepdim=True)
    p = torch.rand(7, dtype=torch.float64, generator=g)
    p /= p.sum()
    q = q_c.mean(0)
    kl = lambda a, b: (a * (a / b).log()).sum(-1)  # noqa: E731
    information = kl(q_c, q).mean()
    torch.testing.assert_close(kl(q, p), kl(q_c, p).mean() - information)


@pytest.fixture
def prior(tiny_sd):
    return load_prior(str(tiny_sd), device="cpu", dtype="fp32")


def make(prior, config, seed=0, **options):
    book = PromptBook(prior, "a corgi", "", by_view=True)
    options = {"cfg_scale": 7.5, "steps": 10, "rank": 4, "perp_neg": False} | options
    return make_guidance(prior, book, config, seed=seed, **options)


def particles(guidance, z_t, t, eps, cameras, seed=0):
    alpha, sigma = guidance.prior.schedule.alpha(t), guidance.prior.schedule.sigma(t)
    noisy = Noisy((z_t - sigma * eps) / alpha, z_t, t, eps)
    return guidance.particles(noisy, cameras, torch.Generator().manual_seed(seed), Rows(len(z_t)))


def zeros(count):
    return torch.zeros(count, 4, 8, 8)


def disturb(phi, seed=1):
    """Moves phi away from the prior, as training would."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in phi.trainable().values():
            p.add_(0.1 * torch.randn(p.shape, generator=g))


def noisy(prior, count=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    z_t = torch.randn(count, 4, 8, 8, generator=g)
    return z_t, torch.tensor([10, 400, 900])[:count], torch.randn(z_t.shape, generator=g)


@pytest.mark.parametrize("lam", [0.0, 0.25, 1.0])
def test_lambda_weighs_the_null_score_and_one_minus_lambda_the_cameras(prior, lam):
    """At 0 it is VSD, at 1 the null score, bit for bit; 0.25 tells lambda from 1 - lambda."""
    esd = make(prior, guidance_config("esd", lam))
    disturb(esd.phi)
    z_t, t, eps = noisy(prior)
    cameras = ring(3)
    found = particles(esd, z_t, t, eps, cameras).eps
    with torch.enable_grad():  # as the pass that teaches runs: its attention is written out
        camera = esd.phi.eps(z_t, t, camera_vector(cameras)).detach()
        null = esd.phi.eps(z_t, t, torch.zeros(3, CAMERA_NUMBERS)).detach()
    assert (camera - null).abs().max() > 1e-3
    if lam == 0.0:
        assert torch.equal(found, camera)
    elif lam == 1.0:
        assert torch.equal(found, null)
    else:
        torch.testing.assert_close(found, 0.25 * null + 0.75 * camera, atol=1e-5, rtol=1e-5)


def test_one_branch_answers_each_view_and_in_the_mean_it_is_the_mixture(prior):
    """Of many coins; the view whose camera was not told is the one that the null branch answers."""
    esd = make(prior, guidance_config("esd", 0.25, branches="one"))
    disturb(esd.phi)
    z_t, t, eps = noisy(prior)
    cameras, told = ring(3), camera_vector(ring(3))
    with torch.enable_grad():
        camera = esd.phi.eps(z_t, t, told).detach()
        null = esd.phi.eps(z_t, t, torch.zeros_like(told)).detach()
    answers = [particles(esd, z_t, t, eps, cameras, seed) for seed in range(60)]
    for q in answers:
        expected = torch.where(q.losses.dropped[:, None, None, None], null, camera)
        torch.testing.assert_close(q.eps, expected, atol=1e-5, rtol=1e-5)
        assert q.entropic is None
    share = torch.stack([q.losses.dropped for q in answers]).float().mean(0)[:, None, None, None]
    assert share.mean().item() == pytest.approx(0.25, abs=0.08)
    mean = torch.stack([q.eps for q in answers]).mean(0)
    torch.testing.assert_close(mean, share * null + (1 - share) * camera, atol=1e-5, rtol=1e-5)


def test_vsd_is_esd_with_lambda_zero_bit_for_bit(tiny_sd):
    gradients = []
    for config in (guidance_config("vsd", 0.0), guidance_config("esd", 0.0)):
        guidance = make(load_prior(str(tiny_sd), device="cpu", dtype="fp32"), config)
        disturb(guidance.phi)
        z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        score = guidance.gradient(z, ring(3), 0, torch.Generator().manual_seed(5))
        gradients.append(score.grad)
    assert torch.equal(*gradients)


def test_the_loss_gradient_is_the_weighted_score_difference_over_the_batch(prior):
    """d loss / d z = w (eps_prior - mix) / B, each term computed on its own here."""
    esd = make(prior, guidance_config("esd", 0.5), cfg_scale=4.0)
    disturb(esd.phi)
    cameras = ring(3)
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    grad = esd.gradient(z.detach(), cameras, 0, torch.Generator().manual_seed(5)).grad
    ((grad * z).sum() / 3).backward()
    g = torch.Generator().manual_seed(5)
    t = torch.randint(20, 980, (3,), generator=g)
    eps = torch.randn(z.shape, generator=g)
    z_t = prior.schedule.add_noise(z.detach(), eps, t)
    with torch.no_grad():
        e_u = prior.eps(z_t, t, prior.encode_text([""] * 3))
        e_c = prior.eps(z_t, t, esd.book.embed(cameras))
        mix = 0.5 * esd.phi.eps(z_t, t, torch.zeros(3, CAMERA_NUMBERS))
        mix = mix + 0.5 * esd.phi.eps(z_t, t, camera_vector(cameras))
    w = 1 - prior.schedule.alphas[t].square().view(-1, 1, 1, 1)
    expected = w * (e_u + 4.0 * (e_c - e_u) - mix) / 3
    torch.testing.assert_close(z.grad, expected, atol=1e-5, rtol=1e-4)


def test_sds_subtracts_the_noise_itself(prior):
    sds = make(prior, guidance_config("sds", None))
    z_t, t, eps = noisy(prior)
    assert type(sds) is SDS
    q = particles(sds, z_t, t, eps, ring(3))
    assert torch.equal(q.eps, eps) and q.entropic is None and q.losses is None


@pytest.mark.parametrize("branches", ["one", "both"])
def test_a_step_costs_two_evaluations_of_the_prior_and_one_or_two_of_phi(prior, branches):
    """One of phi's also trains it."""
    esd = make(prior, guidance_config("esd", 0.5, branches=branches))
    z = torch.randn(3, 4, 8, 8)
    calls = []
    prior.denoiser.register_forward_hook(
        lambda m, args, out: calls.append((len(args[0]), torch.is_grad_enabled()))
    )
    stats = esd.gradient(z, ring(3), 0, torch.Generator().manual_seed(0)).stats
    more = [(3, False)] if branches == "both" else []
    assert calls == [(3, True), *more, (6, False)]
    assert (stats["unet_prior"], stats["unet_phi"]) == (2, 1 + len(more))


def test_guidance_of_scale_one_is_the_conditional_score(prior):
    sds = make(prior, guidance_config("sds", None), cfg_scale=1.0)
    z_t, t, _ = noisy(prior)
    with torch.no_grad():
        found = sds.prior_eps(z_t, t, ring(3))
        expected = prior.eps(z_t, t, sds.book.embed(ring(3)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_clamp_bounds_what_guidance_adds_to_the_unconditional_score(prior):
    sds = make(prior, guidance_config("sds", None, grad_clamp=0.01), cfg_scale=100.0)
    z_t, t, _ = noisy(prior)
    with torch.no_grad():
        change = sds.prior_eps(z_t, t, ring(3)) - prior.eps(z_t, t, prior.encode_text([""] * 3))
    assert change.abs().max() <= 0.01 + 1e-5
    assert change.abs().max() > 0.009


def test_perp_neg_keeps_the_prompts_own_direction_and_costs_two_evaluations_more(prior):
    config = guidance_config("sds", None, perp_neg=PerpNegConfig(weight=2.0))
    plain, perp = make(prior, config), make(prior, config, perp_neg=True)
    z_t, t, _ = noisy(prior)
    with torch.no_grad():
        e_u = prior.eps(z_t, t, prior.encode_text([""] * 3))
        direction = plain.prior_eps(z_t, t, ring(3)) - e_u
        changed = perp.prior_eps(z_t, t, ring(3)) - e_u
    difference = changed - direction
    along = (difference * direction).flatten(1).sum(1) / direction.flatten(1).norm(dim=1)
    assert difference.flatten(1).norm(dim=1).min() > 1e-4
    torch.testing.assert_close(along, torch.zeros(3), atol=1e-4, rtol=0)
    rows = []
    prior.denoiser.register_forward_hook(lambda m, args, out: rows.append(len(args[0])))
    with torch.no_grad():
        perp.prior_eps(z_t, t, ring(3))
    assert rows == [12] and perp.evaluations["unet_prior"] == 4


def test_perpendicular_leaves_nothing_along_the_other():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 4, 8, 8, dtype=torch.float64, generator=g)
    left = (perpendicular(a, b) * b).flatten(1).sum(1)
    torch.testing.assert_close(left, torch.zeros_like(left), atol=1e-12, rtol=0)


def test_the_upper_time_falls_once_at_the_fraction_asked_for(prior):
    sds = make(prior, guidance_config("sds", None, anneal_at=0.2), steps=100)
    assert [sds.time_range(step)[1] for step in (0, 19, 20, 99)] == [0.98, 0.98, 0.5, 0.5]


@pytest.mark.parametrize(
    ("branches", "lam", "share"),
    [("both", 0.5, 0.3), ("one", 0.5, 0.5), ("one", 0.8, 0.8)]
    + [(b, lam, lam) for b in ("both", "one") for lam in (0.0, 1.0)],
)
def test_the_camera_is_dropped_from_its_share_of_phis_samples(prior, branches, lam, share):
    """Each sample on its own coin; at lambda 0 and 1 phi is taught the one branch that is asked."""
    esd = make(prior, guidance_config("esd", lam, branches=branches))
    esd.phi.eps_and_losses = lambda z, z_t, t, eps, camera, dropped: (eps, eps.sum((1, 2, 3)))
    esd.phi.eps = lambda z_t, t, camera: z_t
    drops = torch.stack(
        [
            esd.losses(zeros(8), ring(8), 0, torch.Generator().manual_seed(step), Rows(8)).dropped
            for step in range(200)
        ]
    ).float()
    assert drops.mean().item() == pytest.approx(share, abs=0.04)
    mixed = drops.any(1) & ~drops.all(1)
    assert mixed.float().mean() > 0.7 if 0 < lam < 1 else not mixed.any()


def test_phi_is_taught_at_the_very_draw_that_theta_is_moved_by(prior):
    """Algorithm 1: one (z_t, t, eps) for both updates."""
    esd = make(prior, guidance_config("esd", 0.5, t_max=0.4))
    disturb(esd.phi)
    cameras, z = ring(3), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    score = esd.gradient(z, cameras, 0, torch.Generator().manual_seed(5))
    noisy = esd.diffuse(z, cameras, 0, torch.Generator().manual_seed(5), Rows(len(z)))
    assert noisy.t.max() < 400
    camera = camera_vector(cameras).masked_fill(score.phi.dropped[:, None], 0.0)
    with torch.no_grad():
        answer = esd.phi.eps(noisy.z_t, noisy.t, camera)
    expected = (answer - noisy.eps).square().mean((1, 2, 3))
    torch.testing.assert_close(score.phi.values.detach(), expected, atol=1e-5, rtol=1e-4)
    score.phi.values.mean().backward()
    assert all(p.grad is not None for p in esd.phi.trainable().values())


def test_the_entropic_share_is_measured_by_quarter_of_the_schedule(prior):
    esd = make(prior, guidance_config("esd", 0.5))
    disturb(esd.phi)
    z_t, t, eps = noisy(prior)
    cameras = ring(3)
    with torch.no_grad():
        q = particles(esd, z_t, t, eps, cameras)
        difference = esd.prior_eps(z_t, t, cameras) - q.eps
        stats = entropic_shares(q.entropic, difference, t, len(prior.schedule))
        term = 0.5 * (
            esd.phi.eps(z_t, t, camera_vector(cameras))
            - esd.phi.eps(z_t, t, torch.zeros(3, CAMERA_NUMBERS))
        )
    expected = (term.flatten(1).norm(dim=1) / difference.flatten(1).norm(dim=1)).tolist()
    found = [stats[f"entropic_share_{b}"] for b in (0, 1, 3)]
    assert found == pytest.approx(expected, rel=1e-3)


class Unspoken:
    """Prompts for a prior that does not listen."""

    negative = Text(torch.zeros(1, 1, 1))

    def embed(self, cameras):
        return self.negative.expand(len(cameras))


def unit_gaussian():
    return ExactPrior(torch.zeros(2).double(), torch.eye(2).double())


def unheard(cls, prior, name, **changes):
    guidance = object.__new__(cls)  # its prompts are not of the kind that is checked for
    guidance.prior, guidance.book = prior, Unspoken()
    guidance.config = guidance_config(name, None, **changes)
    guidance.cfg_scale, guidance.perp_neg, guidance.steps = 7.5, False, 10
    return guidance


def test_csd_is_what_the_words_change_and_nothing_where_they_change_nothing(prior):
    csd, sds = (make(prior, guidance_config(name, None)) for name in ("csd", "sds"))
    z, cameras = torch.randn(3, 4, 8, 8), ring(3)
    grads = [g.gradient(z, cameras, 0, torch.Generator().manual_seed(2)) for g in (csd, sds)]
    noisy = csd.diffuse(z, cameras, 0, torch.Generator().manual_seed(2), Rows(3))
    eps_u = csd.prior_terms(noisy.z_t, noisy.t, cameras, 1.0)[0]
    apart = csd.weight(noisy.t) * (eps_u - noisy.eps)
    torch.testing.assert_close(grads[0].grad + apart, grads[1].grad, atol=1e-4, rtol=1e-4)
    deaf = unheard(CSD, unit_gaussian(), "csd")
    still = deaf.gradient(
        torch.randn(4, 2, 1, 1).double(), ring(4), 0, torch.Generator().manual_seed(0)
    )
    assert (still.grad == 0).all()


def test_sdis_path_through_a_unit_gaussian_stays_where_it_begins(monkeypatch):
    """The probability flow of N(0, I) moves nothing:  z_t = z,  grad_z = (1 - alpha_t) z."""
    monkeypatch.setattr(distillation, "PATH_ETA", 0.0)
    monkeypatch.setattr(distillation, "PATH_STEPS", 1000)
    sdi = unheard(SDI, unit_gaussian(), "sdi", t_max=0.6, t_max_end=0.3)
    z, generator = torch.randn(5, 2, 1, 1).double(), torch.Generator().manual_seed(0)
    noisy = sdi.diffuse(z, ring(5), 0, generator, Rows(5))
    torch.testing.assert_close(noisy.z_t, z, atol=0.01, rtol=0.01)
    grad = sdi.gradient(z, ring(5), 0, generator).grad
    expected = (1 - sdi.prior.schedule.alpha(noisy.t)) * z
    torch.testing.assert_close(grad, expected, atol=0.02, rtol=0.02)


def test_sdi_leaves_alone_what_the_prior_is_sure_of():
    mean = torch.tensor([0.7, -0.4]).double()
    sdi = unheard(SDI, ExactPrior(mean, 1e-6 * torch.eye(2).double()), "sdi")
    z = mean.view(1, 2, 1, 1).repeat(4, 1, 1, 1)
    score = sdi.gradient(z, ring(4), 3, torch.Generator().manual_seed(1))
    assert score.grad.abs().max() < 1e-2
    away = sdi.gradient(z + 0.5, ring(4), 3, torch.Generator().manual_seed(1))
    assert (away.grad > 0.1).all()  # to descend: back towards the mean


def test_sdis_time_falls_evenly_and_its_passes_are_counted():
    sdi = unheard(SDI, unit_gaussian(), "sdi", t_max=0.9, t_max_end=0.4)
    z, generator = torch.zeros(2, 2, 1, 1).double(), torch.Generator().manual_seed(0)
    times = [sdi.diffuse(z, ring(2), step, generator, Rows(2)).t[0].item() for step in (0, 5)]
    assert times == [900, 650]
    stats = sdi.gradient(z, ring(2), 5, generator).stats
    assert stats["unet_prior"] == 2 and stats["unet_inversion"] == 2 * 7


def test_mixed_noise_is_as_long_as_noise():
    a, b = torch.randn(2, 100_000)
    assert mixed(a, b, 0.3).std().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(mixed(a, b, 0.0), a)
