import pytest
import torch

from splat_esd.diffusion.schedule import Schedule, sample_steps


@pytest.fixture
def schedule():
    return Schedule.variance_preserving(torch.linspace(0.999, 0.005, 100, dtype=torch.float64))


def _batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    z, eps = torch.randn(2, 7, 4, 3, 3, dtype=torch.float64, generator=g)
    return z, eps, torch.tensor([0, 1, 20, 50, 70, 98, 99])


def test_noise_has_the_closed_form_mean_and_variance(schedule):
    t = torch.full((20000,), 60)
    z = torch.full((20000, 1, 1, 1), 2.0, dtype=torch.float64)
    eps = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z_t = schedule.add_noise(z, eps, t)
    abar = schedule.alphas[60].square()
    assert z_t.mean().item() == pytest.approx(2.0 * abar.sqrt().item(), abs=0.03)
    assert z_t.var().item() == pytest.approx(1.0 - abar.item(), rel=0.03)


def test_alpha_and_sigma_lie_on_the_unit_circle(schedule):
    t = torch.arange(100)
    one = schedule.alpha(t).square() + schedule.sigma(t).square()
    torch.testing.assert_close(one, torch.ones_like(one))


def test_v_and_z_turn_into_the_noise_that_was_added(schedule):
    z, eps, t = _batch()
    z_t = schedule.add_noise(z, eps, t)
    v = schedule.velocity(z, eps, t)
    torch.testing.assert_close(schedule.eps_from_v(v, z_t, t), eps)
    torch.testing.assert_close(schedule.eps_from_z(z, z_t, t), eps)


@pytest.mark.parametrize("bad", [-1, 100])
def test_a_step_outside_the_schedule_is_refused(schedule, bad):
    z, eps, _ = _batch()
    with pytest.raises(ValueError, match=r"expected steps in \[0, 100\)"):
        schedule.add_noise(z, eps, torch.full((7,), bad))


def test_steps_are_drawn_from_the_range_asked_for_and_reach_its_ends(schedule):
    t = sample_steps(schedule, 0.02, 0.5, 5000, torch.Generator().manual_seed(0))
    assert (t.min().item(), t.max().item()) == (2, 49)


def test_an_empty_range_still_gives_a_step(schedule):
    t = sample_steps(schedule, 0.98, 0.98, 3, torch.Generator().manual_seed(0))
    assert t.tolist() == [98, 98, 98]
