import math
import subprocess
import sys

import gsplat_oracle
import pytest
import torch
from scenes import astype, random_gaussians, some_cameras

from splat_esd.config.schema import DensityConfig
from splat_esd.densify import NAMES, Density
from splat_esd.errors import UsageError
from splat_esd.gaussians import Gaussians
from splat_esd.gsplat_cpu.relocation import binomials, compute_relocation, covariance
from splat_esd.optim import make_optimizers
from splat_esd.rasterize import RenderOutput, rasterize

N = 100
DEFAULT = {
    "strategy": "default",
    "start": 0.0,
    "stop": 1.0,
    "every": 4,
    "cap": 10_000,
    "grow_quantile": 0.9,
    "grow_scale": 0.05,
    "prune_opacity": 0.01,
    "prune_scale": 10.0,
    "noise": 0.0,
}


def generator(step=0):
    return torch.Generator().manual_seed(step)


class Training:
    """What a run does with a density: draw, descend, let it grow."""

    def __init__(self, gaussians=None, *, steps=20, **config):
        self.gaussians = gaussians or astype(random_gaussians(N), torch.float32)
        self.optimizers = make_optimizers(self.gaussians)
        config = DensityConfig(**DEFAULT | config)
        self.density = Density(config, steps, self.gaussians, self.optimizers)
        self.cameras = astype(some_cameras(2, width=32, height=32), torch.float32)

    def step(self, step):
        out = rasterize(self.gaussians, self.cameras, backend="cpu")
        target = torch.rand(out.rgb.shape, generator=generator(step))
        loss = (out.rgb * (target - 0.5)).sum()
        self.density.before_backward(out)
        loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        screen = self.density.screen_gradients(out, step, len(self.cameras))
        stats = self.density.after_step(screen, step, generator(step))
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        return stats

    def save(self):
        return {
            "gaussians": {k: v.detach().clone() for k, v in self.gaussians.parameters().items()},
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "density": self.density.state_dict(),
        }

    def load(self, state):
        for name, value in state["gaussians"].items():
            parameter = torch.nn.Parameter(value)
            setattr(self.gaussians, name, parameter)
            self.optimizers[name].param_groups[0]["params"] = [parameter]
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        self.density.load_state_dict(state["density"])

    def moments(self, name):
        (parameter,) = self.optimizers[name].param_groups[0]["params"]
        assert parameter is getattr(self.gaussians, name)
        return self.optimizers[name].state[parameter]


def seen_with(gaussians, gradients):
    """A picture on which every splat is visible and has the given screen gradient."""
    n = len(gaussians)
    means2d = torch.zeros(1, n, 2, device=gradients.device, requires_grad=True)
    means2d.grad = torch.stack([gradients, torch.zeros_like(gradients)], dim=-1)[None]
    picture = torch.zeros(1, 2, 2, 1)
    info = {"width": 2, "height": 2, "n_cameras": 1, "means2d": means2d, "gaussian_ids": None}
    info["radii"] = torch.ones(1, n, 2, dtype=torch.int32, device=gradients.device)
    return RenderOutput(picture.expand(1, 2, 2, 3), picture, picture, info)


def with_moments(training):
    """Fills the optimisers: the moments of row i are i + 1."""
    for name, parameter in training.gaussians.parameters().items():
        parameter.grad = torch.zeros_like(parameter)
        training.optimizers[name].step()
        rows = torch.arange(1.0, len(parameter) + 1).view(-1, *[1] * (parameter.ndim - 1))
        for key in ("exp_avg", "exp_avg_sq"):
            training.moments(name)[key].add_(rows)
    return training


def in_one_round(training, gradients, step=0):
    out = seen_with(training.gaussians, gradients)
    screen = training.density.screen_gradients(out, step, 1)
    return training.density.after_step(screen, step, generator())


def test_what_grows_has_the_largest_gradients():
    gaussians = astype(random_gaussians(N), torch.float32)
    gaussians.log_scales.fill_(math.log(0.02))
    training = Training(gaussians)
    before = gaussians.means.detach().clone()
    gradients = torch.rand(N, generator=generator())
    assert in_one_round(training, gradients) == {"grown": 10, "pruned": 0}
    largest = gradients.argsort(descending=True)[:10].sort().values
    assert torch.equal(training.gaussians.means[:N], before)
    assert torch.equal(training.gaussians.means[N:], before[largest])


def test_gradients_are_means_over_the_views_that_see_a_splat():
    gaussians = astype(random_gaussians(N), torch.float32)
    gaussians.log_scales.fill_(math.log(0.02))
    training = Training(gaussians, every=2)
    out = seen_with(gaussians, torch.full((N,), 2.0))
    out.info["radii"][0, :10] = 0
    out.info["means2d"].grad[0, :10] = 0
    training.density.after_step(training.density.screen_gradients(out, 1, 1), 1, generator())
    gradients = torch.full((N,), 2.0)
    gradients[:10] = 3.0  # a sum of 3 over one view, where others have 4 over two
    before = gaussians.means.detach().clone()
    assert in_one_round(training, gradients, step=2) == {"grown": 10, "pruned": 0}
    assert torch.equal(training.gaussians.means[N:], before[:10])


def test_a_round_starts_the_sums_anew():
    training = Training()
    in_one_round(training, torch.ones(N))
    for sums in training.density.state_dict().values():
        assert len(sums) == len(training.gaussians) > N
        assert not sums.any()


def test_large_splats_are_split_and_small_ones_cloned():
    gaussians = astype(random_gaussians(N), torch.float32)
    gaussians.log_scales.fill_(math.log(0.02))
    gaussians.log_scales[7, 1] = math.log(0.2)
    training = Training(gaussians, grow_quantile=0.98)
    gradients = torch.full((N,), 0.1)
    gradients[[7, 8]] = 1.0
    clone, large = gaussians.means[8].detach().clone(), gaussians.means[7].detach().clone()
    assert in_one_round(training, gradients) == {"grown": 2, "pruned": 0}
    grown = training.gaussians
    assert torch.equal(grown.means[7], clone)  # the split one has left its place
    assert torch.equal(grown.means[N - 1], clone)
    assert torch.allclose(grown.scales[-2:, 1], torch.full((2,), 0.2 / 1.6))
    assert ((grown.means[-2:] - large).norm(dim=1) < 1).all()
    assert not torch.equal(grown.means[-1], grown.means[-2])


def test_growth_stops_at_the_cap():
    training = Training(cap=N + 3, grow_quantile=0.5)
    for step in range(9):
        training.step(step)
        assert len(training.gaussians) <= N + 3
    assert len(training.gaussians) == N + 3


def test_more_gaussians_than_the_cap_stay_and_do_not_grow():
    training = Training(cap=N // 2)
    for step in range(5):
        assert not training.step(step).get("grown")
    assert len(training.gaussians) == N


def test_a_quantile_of_one_grows_none_and_of_zero_all():
    assert in_one_round(Training(grow_quantile=1.0), torch.ones(N))["grown"] == 0
    assert in_one_round(Training(grow_quantile=0.0), torch.ones(N))["grown"] == N


def test_what_no_gradient_reached_does_not_grow():
    gradients = torch.zeros(N)
    gradients[3] = 1.0
    assert in_one_round(Training(), gradients)["grown"] == 1


def test_the_transparent_and_the_huge_are_pruned():
    gaussians = astype(random_gaussians(N), torch.float32)
    gaussians.logit_opacities.fill_(0.0)
    gaussians.logit_opacities[:5] = torch.tensor(0.009).logit()
    gaussians.logit_opacities[5:9] = torch.tensor(0.011).logit()
    gaussians.log_scales[9] = torch.tensor([-4.0, -4.0, 3.0])
    kept = gaussians.means[[*range(5, 9), *range(10, N)]].clone()
    training = Training(gaussians)
    assert in_one_round(training, torch.zeros(N)) == {"grown": 0, "pruned": 6}
    assert torch.equal(training.gaussians.means, kept)


def test_room_made_by_pruning_is_grown_into():
    gaussians = astype(random_gaussians(N), torch.float32)
    gaussians.logit_opacities.fill_(0.0)
    gaussians.logit_opacities[:5] = -9.0
    training = Training(gaussians, cap=N)
    assert in_one_round(training, torch.ones(N)) == {"grown": 5, "pruned": 5}


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_pruning_everything_is_refused(strategy):
    gaussians = astype(random_gaussians(N), torch.float32)
    gaussians.logit_opacities.fill_(-9.0)
    training = Training(gaussians, strategy=strategy)
    with pytest.raises(UsageError, match=r"none of the 100 Gaussians.*prune_opacity = 0\.01"):
        in_one_round(training, torch.ones(N))
    assert len(training.gaussians) == N


def test_moments_follow_their_splats():
    gaussians = astype(random_gaussians(N), torch.float32)
    gaussians.logit_opacities.fill_(0.0)
    gaussians.logit_opacities[0] = -9.0
    gaussians.log_scales.fill_(math.log(0.02))
    gaussians.log_scales[7] = math.log(0.2)
    training = with_moments(Training(gaussians, grow_quantile=0.98))
    gradients = torch.full((N,), 0.1)
    gradients[[7, 8]] = 1.0
    assert in_one_round(training, gradients) == {"grown": 2, "pruned": 1}
    kept = [i + 1.0 for i in range(N) if i not in (0, 7)]
    for name, parameter in training.gaussians.parameters().items():
        assert isinstance(parameter, torch.nn.Parameter)
        moments = training.moments(name)
        assert moments["step"] == 1
        for key in ("exp_avg", "exp_avg_sq"):
            rows = moments[key].flatten(1)[:, 0] if parameter.ndim > 1 else moments[key]
            assert moments[key].shape == parameter.shape
            assert rows.tolist() == [*kept, 0.0, 0.0, 0.0]  # the clone and both halves start anew
        training.optimizers[name].step()


def test_rounds_keep_to_their_time():
    training = Training(start=0.25, stop=0.5, every=2, steps=20)
    rounds = [step for step in range(20) if training.step(step)]
    assert rounds == [6, 8]
    counts = {step: len(training.gaussians) for step in range(20, 22) if not training.step(step)}
    assert len(set(counts.values())) == 1


def test_mcmc_moves_the_transparent_and_adds_up_to_the_cap():
    gaussians = astype(random_gaussians(N), torch.float32)
    gaussians.logit_opacities.fill_(0.0)
    gaussians.logit_opacities[:10] = -9.0
    opaque = gaussians.means[10:].clone()
    training = with_moments(Training(gaussians, strategy="mcmc", cap=N + 3))
    assert in_one_round(training, torch.zeros(N)) == {"grown": 3, "moved": 10}
    grown = training.gaussians
    assert len(grown) == N + 3
    moved = torch.cat([grown.means[:10], grown.means[N:]])
    assert (torch.cdist(moved, opaque).amin(1) < 1e-3).all()
    assert (grown.opacities > 0.01).all()
    assert grown.opacities.min() < 0.49  # who shares its place shares its opacity
    for name, parameter in grown.parameters().items():
        assert training.moments(name)["exp_avg"].shape == parameter.shape
        assert not training.moments(name)["exp_avg"][N:].any()


def test_mcmc_lets_splats_wander_where_they_are_transparent():
    gaussians = astype(random_gaussians(N), torch.float32)
    gaussians.logit_opacities[:50], gaussians.logit_opacities[50:] = -4.0, 6.0
    before = gaussians.means.clone()
    training = Training(gaussians, strategy="mcmc", noise=1e3)
    in_one_round(training, torch.zeros(N), step=1)
    moved = (training.gaussians.means - before).norm(dim=1)
    assert moved[:50].min() > 0
    assert moved[50:].max() < 1e-6 * moved[:50].mean()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_rounds_are_held_on_a_gpu(strategy):
    gaussians = astype(random_gaussians(N), torch.float32).to("cuda")
    gaussians.logit_opacities[:5] = -9.0
    training = with_moments(Training(gaussians, strategy=strategy, cap=N + 3, noise=1.0))
    out = seen_with(training.gaussians, torch.ones(N, device="cuda"))
    screen = training.density.screen_gradients(out, 0, 1)
    stats = training.density.after_step(screen, 0, torch.Generator("cuda").manual_seed(0))
    assert stats["grown"] > 0
    assert N <= len(training.gaussians) <= N + 3
    for name, parameter in training.gaussians.parameters().items():
        assert parameter.device.type == "cuda"
        assert training.moments(name)["exp_avg"].shape == parameter.shape
    saved = training.density.state_dict()
    training.density.load_state_dict({name: value.cpu() for name, value in saved.items()})
    assert all(v.device.type == "cuda" for v in training.density.state_dict().values())


def test_no_strategy_does_nothing():
    training = Training(strategy="none")
    before = training.gaussians.parameters()
    assert in_one_round(training, torch.ones(N)) == {}
    for name, value in training.gaussians.parameters().items():
        assert value is before[name]
    assert training.density.state_dict() == {}


def test_no_strategy_does_not_wait_for_gsplat():
    code = """
import sys, torch
from splat_esd.config.schema import DensityConfig
from splat_esd.densify import Density
config = dict(strategy="none", start=0, stop=1, every=1, cap=1, grow_quantile=1, grow_scale=1)
Density(DensityConfig(**config, prune_opacity=0, prune_scale=1, noise=0), 1, None, {})
sys.exit("gsplat" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
@pytest.mark.parametrize("half", [4, 6])
def test_ten_steps_are_some_and_the_rest_after_a_pause(strategy, half, tmp_path):
    whole = Training(strategy=strategy, noise=1e3)
    for step in range(half):
        whole.step(step)
    torch.save(whole.save(), tmp_path / "state.pt")
    for step in range(half, 10):
        whole.step(step)

    torch.manual_seed(half)  # the global generator must not matter
    rest = Training(strategy=strategy, noise=1e3)
    rest.load(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(half, 10):
        rest.step(step)

    assert len(whole.gaussians) > N
    for name, value in whole.gaussians.parameters().items():
        assert torch.equal(value, getattr(rest.gaussians, name)), name
        for key, moment in whole.moments(name).items():
            assert torch.equal(moment, rest.moments(name)[key]), (name, key)
    for name, value in whole.density.state_dict().items():
        assert torch.equal(value, rest.density.state_dict()[name]), name


def test_loading_forgets_what_was_gathered_since():
    training = Training()
    training.step(1)
    assert set(training.density.state_dict()) == {"grad2d", "count"}
    training.density.load_state_dict({})
    assert training.density.state_dict() == {}


def test_the_global_generator_is_left_alone():
    training = Training(strategy="mcmc", noise=1.0)
    state = torch.random.get_rng_state()
    training.step(0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_never_replaces_gsplats_functions(monkeypatch):
    from gsplat.strategy import ops

    class Frozen(type(ops)):
        def __setattr__(self, name, value):
            assert name == "__class__", f"gsplat.strategy.ops.{name} is replaced"
            super().__setattr__(name, value)

    monkeypatch.setattr(ops, "__class__", Frozen)
    for strategy in ("default", "mcmc"):
        training = Training(strategy=strategy)
        for step in range(5):
            training.step(step)


def test_mcmc_refuses_opacities_that_are_no_numbers():
    training = Training(strategy="mcmc")
    training.gaussians.logit_opacities.data.fill_(math.nan)
    with pytest.raises(RuntimeError):
        in_one_round(training, torch.ones(N))


def test_binomial_coefficients_are_exact_where_float32_is():
    table = binomials(20)
    assert all(table[i, k] == math.comb(i, k) for i in range(20) for k in range(20))
    assert binomials().shape == (51, 51)


def test_relocation_is_gsplats_sum_term_by_term():
    opacities = torch.tensor([0.02, 0.5, 0.9, 0.99, 0.6, 0.3])
    scales = torch.rand(6, 3, generator=generator()) + 0.1
    ratios = torch.tensor([1, 2, 3, 10, 51, 80])
    new_opacities, new_scales = compute_relocation(opacities, scales, ratios, binomials())
    expected = gsplat_oracle.relocation(opacities, scales, ratios.clamp(max=51), binomials(), 51)
    assert torch.allclose(new_opacities, expected[0], rtol=1e-5)
    assert torch.allclose(new_scales, expected[1], rtol=1e-4)
    assert torch.equal(new_scales[0], scales[0])  # one share is the whole


def test_relocation_stays_finite_where_opacities_are_one():
    opacities, ratios = torch.ones(51), torch.arange(1, 52)
    new_opacities, scales = compute_relocation(opacities, torch.ones(51, 3), ratios, binomials())
    assert new_opacities.isfinite().all()
    assert scales.isfinite().all()
    assert (scales > 0).all()


def test_covariances_are_gsplats():
    gaussians = random_gaussians(20)
    ours = covariance(gaussians.quats, gaussians.scales)
    theirs, _ = gsplat_oracle.quat_scale_to_covar_preci_fwd(
        gaussians.quats, gaussians.scales, True, False, False
    )
    assert torch.allclose(ours, theirs)


def test_every_field_has_a_name_for_gsplat():
    assert list(NAMES.values()) == list(Gaussians.__dataclass_fields__)
