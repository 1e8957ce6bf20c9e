"""The toys: exact scores are exact, each method comes to rest where its closed form says."""

import json
import math

import pytest
import torch

from splat_esd.cli.main import main
from splat_esd.config.commands import ToyArguments, read_arguments
from splat_esd.diffusion.schedule import Schedule
from splat_esd.diffusion.text import Text
from splat_esd.errors import UsageError
from splat_esd.plane import exact, gaussian, janus
from splat_esd.plane.exact import SCHEDULE, Mixture
from splat_esd.rectify import mixed


def test_a_mixtures_noise_is_minus_sigma_times_the_gradient_of_its_log_density():
    """Against autograd through a density written with torch.distributions."""
    weights, means = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([[0.0, 1], [2, -1], [-1, 0.5]])
    cov = torch.tensor([[0.3, 0.1], [0.1, 0.2]])
    t = torch.tensor([5, 200, 900])
    z = torch.tensor([[0.3, 0.2], [1.0, -2.0], [0.1, 3.0]], requires_grad=True)
    for i in range(3):
        alpha, sigma = SCHEDULE.alpha(t[i : i + 1]).item(), SCHEDULE.sigma(t[i : i + 1]).item()
        spread = alpha**2 * cov + sigma**2 * torch.eye(2)
        parts = torch.distributions.MultivariateNormal(alpha * means, spread)
        density = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(weights), parts
        )
        (score,) = torch.autograd.grad(density.log_prob(z[i]), z)
        mixture = Mixture(weights[None], means[None], cov)
        found = mixture.eps(z.detach()[i].view(1, 2, 1, 1), t[i : i + 1])
        torch.testing.assert_close(found.flatten(), -sigma * score[i], rtol=1e-4, atol=1e-5)


def test_rows_belong_to_mixtures_in_turn():
    means = torch.tensor([[[3.0, 0.0]], [[-3.0, 0.0]]])
    both = Mixture(torch.ones(2, 1), means, torch.eye(2))
    z, t = torch.randn(6, 2, 1, 1), torch.full((6,), 100)
    for group in (0, 1):
        alone = Mixture(torch.ones(1, 1), means[group : group + 1], torch.eye(2))
        rows = slice(group, None, 2)
        torch.testing.assert_close(both.eps(z, t)[rows], alone.eps(z[rows], t[rows]))


@pytest.mark.parametrize("lam", [0.25, 0.75])
def test_a_gaussian_keeps_lambda_of_the_targets_variance(lam):
    row = gaussian.compare(lam, seed=1, steps=500)
    assert row["error"] < 0.01
    assert row["largest_entry_error"] < 0.02


def test_the_closed_form_kills_the_narrow_direction_first():
    """Eigenvalues lambda s_i - (1 - lambda) (sigma / alpha)^2, the smaller s_i below 0 first."""
    s = torch.linalg.eigvalsh(gaussian.COV)
    t = torch.tensor([200])
    ratio = (SCHEDULE.sigma(t) / SCHEDULE.alpha(t)).item() ** 2
    between = 0.5 * sum(ratio / (value + ratio) for value in s.tolist())
    found = torch.linalg.eigvalsh(gaussian.closed_form(between))
    assert abs(found[0].item()) < 1e-6 and found[1].item() > 0.05
    assert gaussian.closed_form(0.0).abs().max() == 0
    torch.testing.assert_close(gaussian.closed_form(1.0), gaussian.COV)


def test_no_distribution_over_modes_beats_the_tempered_prior():
    peak, lam = 2.0, 0.5
    log_pi = janus.preference(peak).log()

    def objective(q):
        return -lam * janus.entropy(q) - (q * log_pi).sum(-1)

    others = torch.rand(5000, janus.MODES, generator=torch.Generator().manual_seed(0)).pow(6)
    others = others / others.sum(1, keepdim=True)
    assert (objective(others) > objective(janus.best(peak, lam))).all()


def test_on_exact_scores_sds_and_vsd_are_one_and_show_the_front_on_every_side():
    """VSD's score of a view that does not vary is the noise that was put in."""
    sds, vsd = (janus.compare(lam, [2.0], seed=0, steps=300)[0] for lam in (None, 0.0))
    assert sds["front"] == vsd["front"] == 1.0
    assert torch.allclose(torch.tensor(sds["views"]), torch.tensor(vsd["views"]), atol=1e-3)


def test_esd_gives_back_the_priors_entropy_and_no_more():
    """At lambda = 1 the sides show as often as the prior draws them: variety where it is mild, and
    almost nothing but fronts where it is peaked, which is where ESD fails.
    """
    mild, peaked = janus.compare(1.0, [0.5, 8.0], seed=0, steps=500)
    assert mild["clear"] > 0.9 and peaked["clear"] > 0.9
    for row in (mild, peaked):
        assert row["entropy"] == pytest.approx(row["entropy_prior"], abs=0.15)
        assert row["front"] == pytest.approx(row["front_prior"], abs=0.1)
    assert mild["front"] < 0.3 and peaked["front"] > 0.7


def test_entropy_grows_with_lambda_and_stays_below_its_closed_form():
    rows = [janus.compare(lam, [1.0], seed=0, steps=400)[0] for lam in (0.25, 0.5, 1.0)]
    found = [row["entropy"] for row in rows]
    assert found == sorted(found) and found[2] > found[1] + 0.3 > found[0] + 0.6
    assert all(row["entropy"] < row["entropy_closed_form"] + 0.1 for row in rows)


@pytest.mark.parametrize("lam", [0.5, 1.0])
def test_on_a_rectified_prior_all_sides_show_alike_however_peaked_it_is(lam):
    row = janus.rectified(lam, 8.0, seed=0)
    assert row["clear"] > 0.95
    assert row["entropy"] == pytest.approx(math.log(janus.MODES), abs=0.05)
    assert row["front"] == pytest.approx(1 / janus.MODES, abs=0.05)


def test_each_sides_score_by_its_share_is_the_score_of_the_rectified_mixture():
    """rho_k ~ f_k p(z_t | y_k),  with densities written with torch.distributions."""
    t, z = torch.full((5,), 300), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    alpha, sigma = SCHEDULE.alpha(t[:1]).item(), SCHEDULE.sigma(t[:1]).item()
    wide = (alpha**2 * janus.WIDTH**2 + sigma**2) ** 0.5
    density = torch.distributions.Normal(alpha * janus.PLACES, wide)
    rho = density.log_prob(z[:, None]).sum(-1).softmax(-1)
    cov = janus.WIDTH**2 * torch.eye(2)
    prior = janus.SidesPrior(Mixture(janus.preference(8.0)[None], janus.PLACES[None], cov))
    z_t = z[:, :, None, None]
    asked = [torch.full((5, 1, 1), 1.0 + side) for side in range(janus.MODES)]
    answers = torch.stack([prior.eps(z_t, t, Text(number)) for number in asked])
    even = Mixture(torch.full((1, janus.MODES), 1 / janus.MODES), janus.PLACES[None], cov)
    torch.testing.assert_close(mixed(answers, rho), even.eps(z_t, t), atol=1e-5, rtol=1e-4)


def test_the_command_writes_its_numbers_and_a_figure(tmp_path, capsys):
    out = tmp_path / "toy"
    assert main(["toy", f"out={out}", "lambdas=[1]", "peaks=[1,4]", "steps=20", "seed=3"]) == 0
    found = json.loads((out / "toy.json").read_text())
    assert [row["lambda"] for row in found["gaussian"]] == [None, 1.0]
    assert len(found["janus"]) == 4 and found["seed"] == 3
    assert [row["lambda"] for row in found["rectified"]] == [None, 1.0]
    assert math.isclose(sum(found["janus"][0]["shown"]), 1.0, rel_tol=1e-6)
    assert (out / "toy.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "| ESD 1 " in said and "rectified prior" in said


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("lambda=1", "unknown key lambda; did you mean lambdas?"),
        ("lambdas=[2]", r"lambdas must lie in \[0, 1\], got 2.0"),
        ("peaks=[]", "peaks has the wrong number of values"),
        ("quick", "'quick' is no setting; toy takes out="),
    ],
)
def test_what_the_toy_does_not_know_is_refused(argument, says):
    with pytest.raises(UsageError, match=says):
        read_arguments(ToyArguments, [argument], command="toy")


class FlowPrior(exact.ExactPrior):
    """The same, through a denoiser that answers the flow from pictures to noise."""

    prediction = "flow"

    def eps(self, z_t, t, text):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        eps = self.mixture.eps(z_t, t)
        flow = eps - (z_t - sigma * eps) / alpha  # eps - z
        return self.as_eps(flow, z_t, t)


@pytest.mark.parametrize("lam", [0.6, 1.0])
def test_a_flow_prior_is_reached_as_its_closed_form_says(lam, monkeypatch):
    path = Schedule.linear(1000, shift=3.0)
    monkeypatch.setattr(exact, "SCHEDULE", path)
    monkeypatch.setattr(gaussian, "SCHEDULE", path)
    monkeypatch.setattr(exact.ExactPrior, "schedule", path)
    monkeypatch.setattr(gaussian, "ExactPrior", FlowPrior)
    row = gaussian.compare(lam, seed=1, steps=800)
    assert row["error"] < 0.03
    assert row["largest_entry_error"] < 0.05
    if lam == 1.0:
        assert abs(row["trace_ratio_closed_form"] - 1) < 1e-4
