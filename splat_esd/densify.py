"""Growing and pruning: gsplat's strategies, on any backend, calibrated for score distillation.

Gradients of score distillation are noise, and thresholds published for them span two orders of
magnitude. So what grows is a share of the Gaussians, those whose screen gradients are largest, up
to a cap; opacities are never reset.

References:
    3D Gaussian Splatting (Kerbl et al., 2023), Sec. 5: clone, split, prune.
    3D Gaussian Splatting as Markov Chain Monte Carlo (Kheradmand et al., 2024).
"""

from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from splat_esd.config.schema import DensityConfig
from splat_esd.errors import UsageError
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import quat_to_rotmat
from splat_esd.rasterize import RenderOutput

# gsplat's names for what is stored, which are those of the linear values.
NAMES = {
    "means": "means",
    "quats": "quats",
    "scales": "log_scales",
    "opacities": "logit_opacities",
    "sh": "sh",
}
GATHERED = ("grad2d", "count")  # per Gaussian: screen gradients, and in how many views
_NEVER = 2**31


class Density:
    """Drives a strategy over a run and keeps the Gaussians, their optimisers and its sums in step.

    Rounds happen at every step s with  start <= s / steps < stop  that `every` divides. They
    replace the Gaussians' tensors by new parameters, which the optimisers then hold.

    Arguments:
        config: The `density` section; `start` and `stop` are fractions of `steps`.
        optimizers: One Adam for each field of the Gaussians, by the field's name.
    """

    def __init__(
        self,
        config: DensityConfig,
        steps: int,
        gaussians: Gaussians,
        optimizers: dict[str, torch.optim.Adam],
    ):
        self.config, self.gaussians, self.optimizers = config, gaussians, optimizers
        self.first, self.last = round(config.start * steps), round(config.stop * steps)
        self.strategy = self._make_strategy()
        self.state: dict[str, Any] = self._initial_state()

    def before_backward(self, out: RenderOutput) -> None:
        """Asks autograd to keep the screen gradients, which the default strategy gathers."""
        if self.config.strategy == "default":
            self.strategy.step_pre_backward({}, {}, self.state, 0, out.info)

    def after_step(
        self, out: RenderOutput, step: int, generator: torch.Generator
    ) -> dict[str, float | int]:
        """Gathers, and in a round grows and drops; call it when the optimisers have stepped.

        Returns:
            Nothing, or in a round how many were `grown` and `pruned` (mcmc: `moved`).
        Raises:
            UsageError: If no Gaussian would be left.
        """
        if self.config.strategy == "none":
            return {}
        params = {name: getattr(self.gaussians, field) for name, field in NAMES.items()}
        optimizers = {name: self.optimizers[field] for name, field in NAMES.items()}
        in_round = self.first <= step < self.last and step % self.config.every == 0
        with _seeded(generator, self.gaussians.device):
            if self.config.strategy == "mcmc":
                stats = self._mcmc_step(params, optimizers, out, step, in_round)
            else:
                self.strategy.step_post_backward(params, optimizers, self.state, step, out.info)
                stats = self._round(params, optimizers) if in_round else {}
        for name, field in NAMES.items():
            setattr(self.gaussians, field, params[name])
        return stats

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the sums gathered since the last round."""
        return {k: self.state[k] for k in GATHERED if self.state.get(k) is not None}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Puts the sums back; the Gaussians must be those of the time."""
        device = self.gaussians.device
        self.state = self._initial_state() | {k: v.to(device, copy=True) for k, v in state.items()}

    def _make_strategy(self):
        if self.config.strategy == "none":
            return None
        from gsplat.strategy import DefaultStrategy, MCMCStrategy

        if self.config.strategy == "default":
            # It only gathers: its rounds know a threshold, where `_round` knows a share and a cap.
            return DefaultStrategy(
                refine_start_iter=_NEVER, refine_stop_iter=self.last, reset_every=_NEVER
            )
        return MCMCStrategy(
            cap_max=self.config.cap,
            noise_lr=self.config.noise,
            min_opacity=self.config.prune_opacity,
            refine_start_iter=self.first - 1,
            refine_stop_iter=self.last,
            refine_every=self.config.every,
        )

    def _initial_state(self) -> dict[str, Any]:
        return self.strategy.initialize_state() if self.strategy else {}

    def _round(self, params, optimizers) -> dict[str, float | int]:
        """Drops what is transparent or huge, then clones what is small and splits what is large."""
        from gsplat.strategy import ops

        doomed = self._doomed(params)
        ops.remove(params, optimizers, self.state, doomed)
        chosen = self._chosen()
        large = params["scales"].exp().amax(dim=1) > self.config.grow_scale
        clones, splits = chosen & ~large, chosen & large
        ops.duplicate(params, optimizers, self.state, clones)
        ops.split(params, optimizers, self.state, F.pad(splits, (0, int(clones.sum()))))
        for name in GATHERED:
            self.state[name].zero_()
        return {"grown": int(chosen.sum()), "pruned": int(doomed.sum())}

    def _mcmc_step(
        self, params, optimizers, out: RenderOutput, step: int, in_round: bool
    ) -> dict[str, float | int]:
        """Lets all wander; in a round moves the transparent onto the opaque, and adds some."""
        moved = int(self._doomed(params).sum()) if in_round else 0
        before = len(params["means"])
        with _lent_kernels():
            self.strategy.step_post_backward(
                params, optimizers, self.state, step, out.info,
                lr=optimizers["means"].param_groups[0]["lr"],
            )  # fmt: skip
        return {"grown": len(params["means"]) - before, "moved": moved} if in_round else {}

    def _doomed(self, params) -> Bool[Tensor, " N"]:
        """Marks those to drop, or with mcmc to move; refuses to mark all."""
        doomed = faint = params["opacities"].sigmoid() <= self.config.prune_opacity
        if self.config.strategy == "default":
            doomed = faint | (params["scales"].exp().amax(dim=1) > self.config.prune_scale)
        if doomed.all():
            raise UsageError(
                f"density would leave none of the {len(doomed)} Gaussians: {int(faint.sum())} are "
                f"no more opaque than density.prune_opacity = {self.config.prune_opacity:g}, the "
                f"others larger than density.prune_scale = {self.config.prune_scale:g}; lower the "
                "one, raise the other, or weaken regularize.cover."
            )
        return doomed

    def _chosen(self) -> Bool[Tensor, " N"]:
        """Marks those to grow: the largest mean gradients, as many as quantile and cap allow."""
        mean = self.state["grad2d"] / self.state["count"].clamp_min(1)
        share = round((1.0 - self.config.grow_quantile) * len(mean))
        room = max(self.config.cap - len(mean), 0)
        wanted = min(share, room, int((mean > 0).sum()))
        chosen = torch.zeros_like(mean, dtype=torch.bool)
        chosen[mean.argsort(descending=True, stable=True)[:wanted]] = True
        return chosen


def compute_relocation(
    opacities: Float[Tensor, " N"],
    scales: Float[Tensor, "N 3"],
    ratios: Int[Tensor, " N"],
    binoms: Float[Tensor, "n n"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
    """Shares one Gaussian among `ratios` copies so that the picture hardly changes.

        o' = 1 - (1 - o)^(1/n)
        s' = s o / sum_{i=1..n} sum_{k<i} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1)

    gsplat has this in CUDA only.

    References:
        3D Gaussian Splatting as Markov Chain Monte Carlo (Kheradmand et al., 2024), Eq. 9.
    """
    n = ratios.clamp(1, len(binoms)).long()
    # The terms alternate in sign and outgrow their sum: float64, and never an opacity of 1.
    old = opacities.double().clamp_max(1.0 - torch.finfo(torch.float32).eps)
    new = 1.0 - (1.0 - old) ** (1.0 / n)
    k = torch.arange(int(n.max()), device=old.device)
    terms = (-1.0) ** k * new[:, None] ** (k + 1) / (k + 1).sqrt()
    summed = binoms.double()[: len(k), : len(k)].cumsum(dim=0)[n - 1]  # over i = 1..n
    factors = old / (summed * terms).sum(dim=1)
    return new.to(opacities.dtype), scales * factors[:, None].to(scales.dtype)


def quat_scale_to_covar_preci(
    quats: Float[Tensor, "N 4"], scales: Float[Tensor, "N 3"], **_options: bool
) -> tuple[Float[Tensor, "N 3 3"], None]:
    """Returns covariances  R diag(s^2) R^T, as gsplat's CUDA function of this name does."""
    axes = quat_to_rotmat(quats) * scales[:, None, :]
    return axes @ axes.mT, None


@contextmanager
def _lent_kernels():
    """Lends gsplat's MCMC strategy what it otherwise has in CUDA only."""
    from gsplat.strategy import ops

    real = ops.compute_relocation, ops.quat_scale_to_covar_preci
    ops.compute_relocation = compute_relocation
    ops.quat_scale_to_covar_preci = quat_scale_to_covar_preci
    try:
        yield
    finally:
        ops.compute_relocation, ops.quat_scale_to_covar_preci = real


@contextmanager
def _seeded(generator: torch.Generator, device: torch.device):
    """Makes gsplat's draws, which come from torch's global generator, a function of ours."""
    seed = int(torch.randint(_NEVER, (), generator=generator, device=generator.device))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
