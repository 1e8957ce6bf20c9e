"""MCMC densification in three steps: relocate dead Gaussians, add new ones, add noise to the means.

The parameters and optimisers are dictionaries by gsplat's names, with scales and opacities before
their activations (log and logit). gsplat has the relocation equation in CUDA only; this is the same
equation in torch, on any device.

References:
    3D Gaussian Splatting as Markov Chain Monte Carlo (Kheradmand et al., 2024).
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from splat_esd.geometry import quat_to_rotmat

MAX_RATIO = 51  # most copies that one Gaussian is shared among, as in gsplat
GROWTH = 1.05  # most that a round multiplies the number of Gaussians by

Params = dict[str, torch.nn.Parameter]
Optimizers = dict[str, torch.optim.Optimizer]


@torch.no_grad()
def relocate(
    params: Params, optimizers: Optimizers, dead: Bool[Tensor, " N"], min_opacity: float
) -> None:
    """Moves dead Gaussians onto living ones, drawn in proportion to their opacities, in place.

    The Gaussians that receive a copy lose their moments in the optimisers.

    Raises:
        RuntimeError: If an opacity is not finite, or no Gaussian is alive.
    """
    if not dead.any():
        return
    targets, alive = dead.nonzero().flatten(), (~dead).nonzero().flatten()
    opacities = params["opacities"].sigmoid()
    sources = alive[opacities[alive].multinomial(len(targets), replacement=True)]
    _share(params, sources, min_opacity)
    for name, parameter in params.items():
        parameter[targets] = parameter[sources]
        for key, moment in optimizers[name].state[parameter].items():
            if key != "step":
                moment[sources] = 0


@torch.no_grad()
def add(params: Params, optimizers: Optimizers, cap: int, min_opacity: float) -> int:
    """Adds up to 5 % new Gaussians as copies of others, drawn in proportion to their opacities.

    Replaces the parameters by longer ones, which the optimisers then hold, with zero moments for
    the new rows.

    Returns:
        The number of new Gaussians; there are never more than `cap` in total.
    """
    count = len(params["means"])
    wanted = max(0, min(cap, int(GROWTH * count)) - count)
    if wanted == 0:
        return 0
    sources = params["opacities"].sigmoid().multinomial(wanted, replacement=True)
    _share(params, sources, min_opacity)
    for name, old in list(params.items()):
        new = torch.nn.Parameter(torch.cat([old, old[sources]]), requires_grad=old.requires_grad)
        moments = optimizers[name].state.pop(old, {})
        optimizers[name].state[new] = {
            key: value if key == "step" else torch.cat([value, torch.zeros_like(value[sources])])
            for key, value in moments.items()
        }
        optimizers[name].param_groups[0]["params"] = [new]
        params[name] = new
    return wanted


@torch.no_grad()
def add_noise(params: Params, scale: float) -> None:
    """Adds noise to the means, shaped by the covariances and largest for transparent Gaussians.

        mu <- mu + scale * sigmoid(100 ((1 - o) - 0.995)) * Sigma * N(0, 1)

    References:
        3D Gaussian Splatting as Markov Chain Monte Carlo (Kheradmand et al., 2024), Eq. 8.
    """
    means, opacities = params["means"], params["opacities"].sigmoid()
    weight = 1 / (1 + torch.exp(-100 * ((1 - opacities) - 0.995)))
    noise = torch.randn_like(means) * weight[:, None] * scale
    covariances = covariance(params["quats"], params["scales"].exp())
    means.add_(torch.einsum("bij,bj->bi", covariances, noise))


def covariance(quats: Float[Tensor, "N 4"], scales: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3 3"]:
    """Returns the covariances  R diag(s^2) R^T  of Gaussians."""
    axes = quat_to_rotmat(quats) * scales[:, None, :]
    return axes @ axes.mT


def compute_relocation(
    opacities: Float[Tensor, " N"],
    scales: Float[Tensor, "N 3"],
    ratios: Int[Tensor, " N"],
    binoms: Float[Tensor, "n n"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
    """Returns the opacities and scales with which `ratios` copies render like one Gaussian.

        o' = 1 - (1 - o)^(1/n)
        s' = s o / sum_{i=1..n} sum_{k<i} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1)

    Arguments:
        ratios: The number n of copies, clamped to 1..len(binoms).
        binoms: Binomial coefficients C(i, k), see `binomials`.
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


def binomials(n: int = MAX_RATIO) -> Float[Tensor, "n n"]:
    """Returns the binomial coefficients C(i, k) in float32, 0 where k > i, as gsplat does."""
    return torch.tensor([[float(math.comb(i, k)) for k in range(n)] for i in range(n)])


def _share(params: Params, sources: Int[Tensor, " M"], min_opacity: float) -> None:
    """Sets the opacity and scales of each source to those of its share, in place."""
    opacities, scales = compute_relocation(
        params["opacities"].sigmoid()[sources],
        params["scales"].exp()[sources],
        sources.bincount()[sources] + 1,
        binomials().to(sources.device),
    )
    opacities = opacities.clamp(min=min_opacity, max=1.0 - torch.finfo(torch.float32).eps)
    params["opacities"][sources] = opacities.logit()
    params["scales"][sources] = scales.log()
