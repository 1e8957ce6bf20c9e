"""The entropic term without a network: the score of a mixture, and how a run uses it."""

import pytest
import torch

from splat_esd.config.load import load_config
from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.schedule import Schedule
from splat_esd.entropy import null_minus_camera
from splat_esd.errors import UsageError
from splat_esd.train import make_run, train_step

T = 1000
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, T, dtype=torch.float64) ** 2
SCHEDULE = Schedule.variance_preserving(torch.cumprod(1 - BETAS, 0))


def views(count, seed=0, size=0.3):
    g = torch.Generator().manual_seed(seed)
    return size * torch.randn(count, 2, 3, 3, dtype=torch.float64, generator=g)


def diffused(z, t, seed=1):
    g = torch.Generator().manual_seed(seed)
    return SCHEDULE.add_noise(z, torch.randn(z.shape, dtype=z.dtype, generator=g), t)


@pytest.mark.parametrize("time", [50, 400, 700, 980])
def test_the_difference_is_that_of_the_scores_of_the_mixture_and_of_one_view(time):
    """-sigma grad (log mean_i N(z_t; alpha z_i, sigma^2) - log N(z_t; alpha z_c, sigma^2))."""
    z, others = views(3), views(5, seed=2)
    t = torch.full((3,), time)
    z_t = diffused(z, t).requires_grad_()
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    density = 0.0
    for b in range(3):
        mixture = torch.cat([z[b : b + 1], others])
        logs = -0.5 * ((z_t[b] - alpha[b] * mixture) / sigma[b]).square().flatten(1).sum(1)
        density = density + logs.logsumexp(0) - logs[0]
    (slope,) = torch.autograd.grad(density, z_t)
    found = null_minus_camera(z, z_t.detach(), t, others, SCHEDULE)
    torch.testing.assert_close(found, -sigma * slope)


def test_without_noise_the_view_is_known_and_with_much_all_views_are_as_likely():
    z, others = views(2, size=2.0), views(6, seed=2, size=2.0)
    early, late = torch.tensor([1, 1]), torch.tensor([T - 1, T - 1])
    near = null_minus_camera(z, diffused(z, early), early, others, SCHEDULE)
    assert near.abs().max() < 1e-9
    small, few = 0.01 * z, 0.01 * others
    far = null_minus_camera(small, diffused(small, late), late, few, SCHEDULE)
    mean = torch.cat([small[:, None], few.expand(2, -1, -1, -1, -1)], 1).mean(1)
    alpha, sigma = SCHEDULE.alpha(late), SCHEDULE.sigma(late)
    torch.testing.assert_close(far, alpha * (small - mean) / sigma, rtol=0, atol=1e-5)


def test_views_that_do_not_differ_have_no_entropy():
    z, t = views(1).expand(3, -1, -1, -1), torch.tensor([100, 500, 900])
    found = null_minus_camera(z, diffused(z, t), t, z[:1].expand(4, -1, -1, -1), SCHEDULE)
    assert found.abs().max() < 1e-12


@pytest.fixture
def prior(tiny_sd):
    return load_prior(str(tiny_sd), device="cpu", dtype="fp32")


def after(prior, steps, *asked):
    given = ["prompt=a corgi", "seed=0", "steps=6", "init.count=200", *asked]
    run = make_run(load_config(given), prior)
    stats = [train_step(run, step) for step in range(steps)]
    return run, stats


EXACT = "guidance.entropy=exact"


def test_lambda_0_is_vsd_bit_for_bit(tiny_sd):
    found = []
    for asked in (["guidance=vsd"], ["guidance.lambda=0", EXACT]):
        prior = load_prior(str(tiny_sd), device="cpu", dtype="fp32")
        run, _ = after(prior, 2, *asked)
        found.append(run.gaussians.parameters())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_a_run_asks_phi_once_and_measures_the_term(prior):
    _, stats = after(prior, 3, "guidance.lambda=2", EXACT, "guidance.entropy_views=5")
    assert all(told["unet_phi"] == 1 for told in stats)
    assert all("phi_loss_null" not in told for told in stats), "phi is always told the camera"
    assert any(name.startswith("entropic_share") for told in stats for name in told)


def test_lambda_moves_the_splats(tiny_sd):
    found = []
    for lam in (0.5, 4):
        prior = load_prior(str(tiny_sd), device="cpu", dtype="fp32")
        run, _ = after(prior, 2, f"guidance.lambda={lam}", EXACT)
        found.append(run.gaussians.means.detach().clone())
    assert not torch.equal(*found)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["guidance.lambda=1.5"], r"must lie in \[0, 1\], got 1.5; .* allows 4"),
        (["guidance.lambda=5", EXACT], r"\[0, 4\]"),
        (["guidance=vsd", EXACT], "guidance=vsd has no entropy"),
        (["guidance=sds", EXACT], "guidance=sds has no entropy"),
    ],
)
def test_what_has_no_entropy_or_too_much_lambda_is_refused(asked, says):
    with pytest.raises(UsageError, match=says):
        load_config(["prompt=a corgi", *asked])
