"""Growing and pruning: gsplat's strategies, on any backend, calibrated for score distillation.

Gradients of score distillation are noise, and thresholds published for them span two orders of
magnitude. So what grows is a share of the Gaussians, those whose screen gradients are largest, up
to a cap; opacities are never reset.

References:
    3D Gaussian Splatting (Kerbl et al., 2023), Sec. 5: clone, split, prune.
    3D Gaussian Splatting as Markov Chain Monte Carlo (Kheradmand et al., 2024).
"""

import math
import warnings
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.config import DensityConfig
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
_NEVER = 2**31


class Density:
    """Drives a strategy over a run and keeps the Gaussians, their optimisers and its sums in step.

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
        self.state: dict[str, Tensor | float | None] = {}
        if config.strategy == "none":
            return
        gsplat = _gsplat()
        times = {
            "refine_start_iter": self.first - 1,
            "refine_stop_iter": self.last,
            "refine_every": config.every,
        }
        if config.strategy == "default":
            self.strategy = gsplat.DefaultStrategy(
                prune_opa=config.prune_opacity,
                grow_scale3d=config.grow_scale,
                reset_every=_NEVER,
                **times,
            )
        else:
            self.strategy = gsplat.MCMCStrategy(
                cap_max=config.cap,
                noise_lr=config.noise,
                min_opacity=config.prune_opacity,
                **times,
            )
        self.state = self.strategy.initialize_state()

    def before_backward(self, out: RenderOutput) -> None:
        """Asks autograd to keep the screen gradients, which the default strategy gathers."""
        if self.config.strategy == "default":
            self.strategy.step_pre_backward({}, {}, self.state, 0, out.info)

    def after_step(
        self, out: RenderOutput, step: int, generator: torch.Generator
    ) -> dict[str, float | int]:
        """Gathers, and every `every` steps between start and stop grows and prunes.

        Returns:
            Nothing, or on a refining step how many were `grown` and `pruned`.
        Raises:
            ValueError: If pruning would leave no Gaussian.
        """
        if self.config.strategy == "none":
            return {}
        before = len(self.gaussians)
        params, optimizers = self._as_gsplat_names_them()
        seed = int(torch.randint(_NEVER, (), generator=generator, device=generator.device))
        with _seeded(seed, self.gaussians.device), _cpu_kernels(self.gaussians.device):
            if self.config.strategy == "default":
                pruned = self._default_step(params, optimizers, out, step)
            else:
                rate = optimizers["means"].param_groups[0]["lr"]
                self.strategy.step_post_backward(
                    params, optimizers, self.state, step, out.info, lr=rate
                )
                pruned = 0
        for name, field in NAMES.items():
            setattr(self.gaussians, field, params[name])
        changed = len(self.gaussians) - before
        return {"grown": changed + pruned, "pruned": pruned} if changed or pruned else {}

    def _default_step(self, params, optimizers, out: RenderOutput, step: int) -> int:
        """Runs gsplat's default strategy with today's threshold; returns how many were pruned."""
        self.strategy.grow_grad2d = math.inf
        refines = self.first <= step < self.last and step % self.config.every == 0
        if refines and self.state["grad2d"] is not None:
            self._keep_one(params)
            self.strategy.grow_grad2d = self._threshold()
        self.strategy.step_post_backward(params, optimizers, self.state, step, out.info)
        if not refines:
            return 0
        grown = len(params["means"])
        self._drop_large(params, optimizers)
        return grown - len(params["means"])

    def _threshold(self) -> float:
        """Returns the gradient above which Gaussians grow: a quantile, or what the cap allows."""
        mean = self.state["grad2d"] / self.state["count"].clamp_min(1)
        room = self.config.cap - len(mean)
        count = min(round((1.0 - self.config.grow_quantile) * len(mean)), room)
        if count <= 0:
            return math.inf
        return mean.sort(descending=True).values[min(count, len(mean) - 1)].item()

    def _keep_one(self, params) -> None:
        if (params["opacities"].sigmoid() < self.config.prune_opacity).all():
            raise ValueError(
                f"every Gaussian is more transparent than density.prune_opacity = "
                f"{self.config.prune_opacity}; nothing would be left. Lower it, or raise "
                "init.opacity or optim.logit_opacities."
            )

    def _drop_large(self, params, optimizers) -> None:
        from gsplat.strategy.ops import remove

        large = params["scales"].exp().amax(dim=1) > self.config.prune_scale
        if large.any() and not large.all():
            remove(params, optimizers, self.state, large)

    def _as_gsplat_names_them(self):
        params = {name: getattr(self.gaussians, field) for name, field in NAMES.items()}
        return params, {name: self.optimizers[field] for name, field in NAMES.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the sums gathered so far."""
        return {k: v for k, v in self.state.items() if isinstance(v, Tensor)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Puts the sums back."""
        device = self.gaussians.device
        self.state |= {k: v.to(device) for k, v in state.items()}


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
    new_opacities = 1.0 - (1.0 - opacities) ** (1.0 / n)
    k = torch.arange(int(n.max()), device=opacities.device)
    term = (-1.0) ** k * new_opacities[:, None] ** (k + 1) / (k + 1).sqrt()
    # sum_{i=1..n} C(i-1, k) for every n: rows of the table summed up to it
    chosen = binoms[: len(k), : len(k)].cumsum(dim=0)[n - 1]
    return new_opacities, scales * (opacities / (chosen * term).sum(dim=1))[:, None]


def quat_scale_to_covar_preci(
    quats: Float[Tensor, "N 4"], scales: Float[Tensor, "N 3"], **_options: bool
) -> tuple[Float[Tensor, "N 3 3"], None]:
    """Returns covariances  R diag(s^2) R^T, as gsplat's CUDA function of this name does."""
    axes = quat_to_rotmat(quats) * scales[:, None, :]
    return axes @ axes.mT, None


def _gsplat():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a CUDA toolkit and says so
        import gsplat
    return gsplat


@contextmanager
def _cpu_kernels(device: torch.device):
    """Lends gsplat's strategies what they otherwise take from CUDA."""
    import gsplat.strategy.ops as ops

    if device.type == "cuda":
        yield
        return
    real = ops.compute_relocation, ops.quat_scale_to_covar_preci
    ops.compute_relocation = compute_relocation
    ops.quat_scale_to_covar_preci = quat_scale_to_covar_preci
    try:
        yield
    finally:
        ops.compute_relocation, ops.quat_scale_to_covar_preci = real


@contextmanager
def _seeded(seed: int, device: torch.device):
    """Makes gsplat's draws, which come from torch's global generator, a function of the step."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
