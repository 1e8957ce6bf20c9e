"""A ring of views and a prior peaked at the front: when the entropic term helps, and when not.

Each view is a point in the plane. The prior has modes on a circle, one for each side of an object
that a picture may show, and prefers the front by its peakedness kappa:

    pi_m ~ exp(kappa cos(theta_m)),   theta_m = 2 pi m / M

SDS and VSD send every view to the likeliest mode: a face on every side. What ESD comes to, where
the modes are far apart beside the noise, minimises over distributions q of the views on modes

    J(q) = lambda KL(q | pi) + (1 - lambda) sum_m q_m (-log pi_m)
         = -lambda H(q) - sum_m q_m log pi_m          so   q ~ pi^(1 / lambda)

a prior of peakedness kappa / lambda. So lambda <= 1 pays back at most the entropy of the prior
itself: where the prior draws hardly anything but fronts, so do the views.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.metrics.inception import entropy
from splat_esd.plane.exact import ExactPhi, ExactPrior, Mixture, make_guidance, ring

MODES, VIEWS, STEPS = 8, 64, 800
WIDTH = 0.15  # of a mode, on a circle of radius 1
CLEAR = 3 * WIDTH  # a view this near to a mode shows it
TIMES = (0.02, 0.98, 0.2)
RATES = (0.2, 0.01)  # of the descent, at its start and its end
ANGLES = torch.arange(MODES) * (2 * math.pi / MODES)
PLACES = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)


def preference(peak: float) -> Float[Tensor, " M"]:
    """Returns pi, the prior's probability of each side."""
    return (peak * ANGLES.cos()).softmax(0)


def best(peak: float, lam: float | None) -> Float[Tensor, " M"]:
    """Returns the minimiser of J,  pi^(1 / lambda)  normalised; all on the likeliest at lambda = 0
    and for SDS (None).
    """
    if lam:
        return preference(peak / lam)
    return torch.nn.functional.one_hot(torch.tensor(0), MODES).float()


def fit(lam: float | None, peaks: list[float], *, seed: int, steps: int) -> Float[Tensor, "G V 2"]:
    """Descends grad_z on V views for each of G priors and returns their final positions.

    All start in the middle, hardly apart, as the views of a grey ball do.
    """
    groups = len(peaks)
    pi = torch.stack([preference(peak) for peak in peaks])
    prior = ExactPrior(Mixture(pi, PLACES.expand(groups, -1, -1), WIDTH**2 * torch.eye(2)))
    phi, uniform = ExactPhi(), torch.full((groups, VIEWS), 1 / VIEWS)
    guidance = make_guidance(prior, phi, lam=lam, times=TIMES, steps=steps)
    g = torch.Generator().manual_seed(seed)
    x = 0.1 * torch.randn(VIEWS * groups, 2, 1, 1, generator=g)
    cameras = ring(len(x))
    for step in range(steps):
        phi.views = x
        together = x.view(VIEWS, groups, 2).transpose(0, 1)
        phi.marginal = Mixture(uniform, together, torch.zeros(2, 2))
        rate = RATES[0] * (RATES[1] / RATES[0]) ** (step / steps)
        x = x - rate * guidance.gradient(x, cameras, step, g).grad
    return x.view(VIEWS, groups, 2).transpose(0, 1).contiguous()


def measure(views: Float[Tensor, "V 2"], peak: float, lam: float | None) -> dict:
    """Returns the views' statistics and their closed form: entropies in nats, the share of the
    front, and how many views show a mode clearly.
    """
    distance, nearest = torch.cdist(views, PLACES).min(dim=1)
    shown = torch.bincount(nearest, minlength=MODES) / len(views)
    ideal = best(peak, lam)
    numbers = {
        "entropy": entropy(shown),
        "entropy_closed_form": entropy(ideal),
        "entropy_prior": entropy(preference(peak)),
        "front": shown[0],
        "front_closed_form": ideal[0],
        "front_prior": preference(peak)[0],
        "clear": (distance < CLEAR).float().mean(),
    }
    rounded = {name: abs(round(value.item(), 4)) for name, value in numbers.items()}  # no -0.0
    return {"lambda": lam, "peak": peak} | rounded | {"shown": shown.tolist()}


def compare(
    lam: float | None, peaks: list[float], *, seed: int, steps: int | None = None
) -> list[dict]:
    """Returns one measurement for each peakedness, with the views' places."""
    rest = fit(lam, peaks, seed=seed, steps=steps or STEPS)
    return [
        measure(views, peak, lam) | {"views": [[round(v, 4) for v in xy] for xy in views.tolist()]}
        for views, peak in zip(rest, peaks, strict=True)
    ]
