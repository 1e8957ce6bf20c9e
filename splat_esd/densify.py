"""Density control: which Gaussians are cloned, split, relocated or pruned during a run.

Score distillation gradients are noisy, and published thresholds for them differ by two orders of
magnitude. So a fixed share of the Gaussians grows, those with the largest screen-space gradients,
up to a cap; opacities are never reset. Cloning, splitting and pruning use gsplat's functions.

References:
    3D Gaussian Splatting (Kerbl et al., 2023), Sec. 5: clone, split, prune.
    3D Gaussian Splatting as Markov Chain Monte Carlo (Kheradmand et al., 2024).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from splat_esd.config.schema import DensityConfig
from splat_esd.errors import UsageError
from splat_esd.gaussians import Gaussians
from splat_esd.gsplat_cpu.relocation import Optimizers, Params, add, add_noise, relocate
from splat_esd.rasterize import RenderOutput

# gsplat's names of the fields; it names log scales and logit opacities after their activations.
NAMES = {
    "means": "means",
    "quats": "quats",
    "scales": "log_scales",
    "opacities": "logit_opacities",
    "sh": "sh",
}
_SEEDS = 2**31


class Density:
    """Runs the density control of a run and updates the Gaussians and their optimisers.

    A round happens at every step s with  start <= s / steps < stop  that `every` divides. It
    replaces the Gaussians' tensors by new parameters, which the optimisers then hold.

    Arguments:
        config: The `density` section; `start` and `stop` are fractions of `steps`.
        steps: The number of steps of the run.
        gaussians: The Gaussians that are optimised.
        optimizers: One Adam for each field of the Gaussians, by the field's name.
    """

    def __init__(
        self,
        config: DensityConfig,
        steps: int,
        gaussians: Gaussians,
        optimizers: dict[str, torch.optim.Optimizer],
    ):
        self.config, self.gaussians, self.optimizers = config, gaussians, optimizers
        self.first, self.last = round(config.start * steps), round(config.stop * steps)
        self.state: dict[str, Tensor] = {}

    def before_backward(self, out: RenderOutput) -> None:
        """Keeps the gradient of the projected means, which the default strategy gathers."""
        if self.config.strategy == "default":
            out.info["means2d"].retain_grad()

    def screen_gradients(self, out: RenderOutput, step: int, views: int) -> dict[str, Tensor]:
        """Returns for each Gaussian the sum of the norms of its screen gradients, in units of half
        the image, and how many views show it; call it after the backward pass.

        Only Gaussians with a positive radius in a view count there, as in gsplat.

        Arguments:
            views: Of the whole batch, over which the loss is a mean.
        """
        if self.config.strategy != "default" or step >= self.last:
            return {}
        info = out.info
        grads = info["means2d"].grad.clone()
        grads[..., 0] *= info["width"] / 2.0 * views
        grads[..., 1] *= info["height"] / 2.0 * views
        seen = (info["radii"] > 0).all(dim=-1)  # [C, N]
        norms = torch.where(seen, grads.norm(dim=-1), 0.0)
        return {"grad2d": norms.sum(0), "count": seen.sum(0, dtype=torch.float32)}

    def after_step(
        self, screen: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, float | int]:
        """Adds up screen gradients, and grows and prunes in a round; call it after the optimisers.

        Arguments:
            screen: What `screen_gradients` returned.
        Returns:
            Nothing, or in a round the numbers `grown` and `pruned` (mcmc: `moved`).
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
                stats = self._mcmc_step(params, optimizers, in_round)
            else:
                for name, value in screen.items():
                    self.state[name] = self.state.get(name, torch.zeros_like(value)) + value
                stats = self._round(params, optimizers) if in_round else {}
        for name, field in NAMES.items():
            setattr(self.gaussians, field, params[name])
        return stats

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the sums gathered since the last round."""
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores the sums; the Gaussians must be those they were gathered for."""
        self.state = {k: v.to(self.gaussians.device, copy=True) for k, v in state.items()}

    def _round(self, params: Params, optimizers: Optimizers) -> dict[str, float | int]:
        """Prunes transparent and huge Gaussians, then clones small and splits large ones."""
        from gsplat.strategy import ops

        pruned = self._to_prune(params)
        ops.remove(params, optimizers, self.state, pruned)
        chosen = self._to_grow()
        large = params["scales"].exp().amax(dim=1) > self.config.grow_scale
        clones, splits = chosen & ~large, chosen & large
        ops.duplicate(params, optimizers, self.state, clones)
        ops.split(params, optimizers, self.state, F.pad(splits, (0, int(clones.sum()))))
        for gathered in self.state.values():
            gathered.zero_()
        return {"grown": int(chosen.sum()), "pruned": int(pruned.sum())}

    def _mcmc_step(
        self, params: Params, optimizers: Optimizers, in_round: bool
    ) -> dict[str, float | int]:
        """Adds noise to the means; in a round first relocates dead Gaussians and adds new ones."""
        stats: dict[str, float | int] = {}
        if in_round:
            dead, faintest = self._to_prune(params), self.config.prune_opacity
            relocate(params, optimizers, dead, faintest)
            grown = add(params, optimizers, self.config.cap, faintest)
            stats = {"grown": grown, "moved": int(dead.sum())}
        add_noise(params, optimizers["means"].param_groups[0]["lr"] * self.config.noise)
        return stats

    def _to_prune(self, params: Params) -> Bool[Tensor, " N"]:
        """Marks the Gaussians to prune (mcmc: to relocate).

        Raises:
            UsageError: If these are all.
        """
        marked = faint = params["opacities"].sigmoid() <= self.config.prune_opacity
        if self.config.strategy == "default":
            marked = faint | (params["scales"].exp().amax(dim=1) > self.config.prune_scale)
        if marked.all():
            raise UsageError(
                f"density would leave none of the {len(marked)} Gaussians: {int(faint.sum())} are "
                f"no more opaque than density.prune_opacity = {self.config.prune_opacity:g}, the "
                f"others larger than density.prune_scale = {self.config.prune_scale:g}; lower the "
                "one, raise the other, or weaken regularize.cover."
            )
        return marked

    def _to_grow(self) -> Bool[Tensor, " N"]:
        """Marks the Gaussians with the largest mean gradients, within quantile and cap."""
        mean = self.state["grad2d"] / self.state["count"].clamp_min(1)
        share = round((1.0 - self.config.grow_quantile) * len(mean))
        room = max(self.config.cap - len(mean), 0)
        wanted = min(share, room, int((mean > 0).sum()))
        chosen = torch.zeros_like(mean, dtype=torch.bool)
        chosen[mean.argsort(descending=True, stable=True)[:wanted]] = True
        return chosen


@contextmanager
def _seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generator, which gsplat draws from, and restores it afterwards."""
    seed = int(torch.randint(_SEEDS, (), generator=generator, device=generator.device))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
