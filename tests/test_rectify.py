"""The rectified prior: shares of a circle, evidence, and the integral behind them."""

import math
from copy import deepcopy

import pytest
import torch

from splat_esd.cameras import orbit_cameras
from splat_esd.config.load import load_config
from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.schedule import Schedule
from splat_esd.distributed import Rows
from splat_esd.errors import UsageError
from splat_esd.rectify import AROUND, BUCKETS, Evidence, Rectifier, mixed
from splat_esd.train import make_run, restore_run, run_state, train_step

T = 1000
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, T) ** 2
SCHEDULE = Schedule.variance_preserving(torch.cumprod(1 - BETAS, 0))
F = torch.tensor([0.25, 0.5, 0.25])
DIRECTIONS = torch.arange(AROUND) * (2 * math.pi / AROUND)


def around(azimuth):
    one = torch.ones_like(azimuth)
    return orbit_cameras(azimuth, 0.2 * one, 2.4 * one, 0.75 * one, width=16, height=16)


def taught(seed=0, scale=1.0):
    """A rectifier that has seen something at every direction and time."""
    rectifier = Rectifier(F, SCHEDULE)
    g = torch.Generator().manual_seed(seed)
    rectifier.mean = scale * torch.randn(rectifier.mean.shape, generator=g)
    return rectifier


def test_without_evidence_every_view_has_its_part_of_the_circle():
    rho = Rectifier(F, SCHEDULE).shares(torch.tensor([5, 500, 999]), torch.tensor([0.0, 1, -2]))
    torch.testing.assert_close(rho, F.expand(3, -1))


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_shares_of_all_directions_average_what_was_asked(scale):
    rectifier = taught(scale=scale)
    for t in (100, 450, 900):
        rho = rectifier.shares(torch.full((AROUND,), t), DIRECTIONS)
        torch.testing.assert_close(rho.sum(1), torch.ones(AROUND))
        torch.testing.assert_close(rho.mean(0), F, atol=2e-3, rtol=0)


def test_one_direction_cannot_be_preferred_by_an_advantage_that_all_have():
    """The front's words may explain everything better: only differences between directions tell."""
    rectifier, better = taught(), taught()
    better.mean[..., 0] -= 50.0
    t = torch.full((AROUND,), 300)
    expected = rectifier.shares(t, DIRECTIONS)
    torch.testing.assert_close(better.shares(t, DIRECTIONS), expected, atol=2e-3, rtol=0)


def test_the_words_that_explain_a_direction_hold_there_and_less_under_noise():
    rectifier = Rectifier(F, SCHEDULE)
    rectifier.mean[2, :, 0] = -2.0  # the front is seen at 90 degrees
    early, late = (rectifier.shares(torch.tensor([t]), DIRECTIONS[2:3])[0, 0] for t in (950, 100))
    assert 0.25 < early < 0.5 and late > 0.9
    assert rectifier.shares(torch.tensor([100]), DIRECTIONS[6:7])[0, 0] < 0.25


def test_evidence_adds_up_to_the_expected_log_likelihood_of_each_view():
    """Of N(mu_k, v I):  E log p(z_t) = const - alpha^2 |z - mu_k|^2 / 2 (alpha^2 v + sigma^2)."""
    v, g = 0.3, torch.Generator().manual_seed(0)
    z, mu = torch.randn(1, 2, 4, 4, generator=g), 0.5 * torch.randn(3, 2, 4, 4, generator=g)
    rectifier = Rectifier(torch.full((3,), 1 / 3), SCHEDULE)
    times = torch.arange(0, T, 2)
    for t in times[torch.randperm(len(times), generator=g)].split(50):
        eps = torch.randn(len(t), 2, 4, 4, generator=g)
        z_t = SCHEDULE.add_noise(z.expand_as(eps), eps, t)
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        answers = [sigma * (z_t - alpha * m) / (alpha**2 * v + sigma**2) for m in mu]
        cameras = around(torch.zeros(len(t)))
        rectifier.mix(answers, t, cameras)
        rectifier.learn(rectifier.evidence(eps, t, cameras, Rows(len(t))))
    for time in (400, 600, 800):
        t = torch.tensor([time])
        a2, s2 = SCHEDULE.alpha(t).item() ** 2, SCHEDULE.sigma(t).item() ** 2
        expected = 0.5 * a2 * (z - mu).square().sum((1, 2, 3)) / (a2 * v + s2)
        found = rectifier._surprise(t)[0, 0]
        centred = [x - x.mean() for x in (found, expected)]
        assert (centred[0] - centred[1]).abs().max() < 0.15 * centred[1].abs().max()


def test_evidence_falls_to_the_two_directions_beside_the_camera():
    rectifier = Rectifier(F, SCHEDULE)
    azimuth = torch.tensor([DIRECTIONS[1] + 0.25 * DIRECTIONS[1]])
    rectifier.learn(Evidence(azimuth, torch.tensor([950.0]), torch.tensor([[1.0, 2.0, 6.0]])))
    expected = torch.zeros(AROUND, BUCKETS)
    expected[1, 9], expected[2, 9] = 0.75, 0.25
    torch.testing.assert_close(rectifier.count[..., 0], expected)
    assert (rectifier.mean[[0, 3, 4, 5, 6, 7]] == 0).all()
    torch.testing.assert_close(rectifier.mean[1, 9], 0.75 * torch.tensor([-2.0, -1.0, 3.0]))


def test_scores_are_mixed_by_their_shares():
    g = torch.Generator().manual_seed(0)
    answers, rho = torch.randn(3, 2, 1, 2, 2, generator=g), torch.rand(2, 3, generator=g)
    expected = [sum(rho[b, k] * answers[k, b] for k in range(3)) for b in range(2)]
    torch.testing.assert_close(mixed(answers, rho), torch.stack(expected))


def test_rows_of_several_processes_make_the_evidence_of_one():
    g = torch.Generator().manual_seed(0)
    answers, eps = torch.randn(3, 4, 1, 2, 2, generator=g), torch.randn(4, 1, 2, 2, generator=g)
    azimuth, t = torch.tensor([0.0, 1.0, 2.0, -1.0]), torch.tensor([10, 400, 700, 900])

    def evidence(rows):
        rectifier = Rectifier(F, SCHEDULE)
        cameras = around(rows.of(azimuth))
        rectifier.mix([rows.of(a) for a in answers], rows.of(t), cameras)
        return rectifier.evidence(rows.of(eps), rows.of(t), cameras, rows).tensors()

    whole = evidence(Rows(4))
    parts = [evidence(Rows(4, rank, 2)) for rank in range(2)]
    for one, *halves in zip(whole, *parts, strict=True):
        torch.testing.assert_close(sum(halves), one)


@pytest.fixture
def prior(tiny_sd):
    return load_prior(str(tiny_sd), device="cpu", dtype="fp32")


def short_run(prior, *more):
    asked = ["prompt=a corgi", "seed=0", "steps=6", "init.count=200", "guidance.rectify=prompts"]
    return make_run(load_config([*asked, *more]), prior)


def test_a_run_learns_its_views_and_goes_on_from_what_it_has_learnt(prior, tiny_sd):
    run = short_run(prior)
    for step in range(3):
        stats = train_step(run, step)
    assert stats["unet_prior"] == 4  # no words, front, side, back
    assert run.guidance.rectifier.count.sum() == pytest.approx(12)
    state = deepcopy(run_state(run))
    again = short_run(load_prior(str(tiny_sd), device="cpu", dtype="fp32"))
    restore_run(again, state)
    for going_on in (run, again):
        train_step(going_on, 3)
    assert torch.equal(run.guidance.rectifier.mean, again.guidance.rectifier.mean)
    assert torch.equal(run.gaussians.means, again.gaussians.means)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["prior.view_prompts=false"], "needs prior.view_prompts=true"),
        (["guidance.perp_neg.enabled=true"], "use one of them"),
        (["guidance=sdi"], "guidance=sdi draws none"),
    ],
)
def test_what_does_not_go_with_it_is_said(asked, says):
    with pytest.raises(UsageError, match=says):
        load_config(["prompt=a corgi", "guidance.rectify=prompts", *asked])
