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

A rectified prior is asked for each side by words, and finds out which hold for which view: then all
sides are as likely, whatever the peakedness, and ESD shows each as often as any other,

    q = 1 / M                                                       at every lambda > 0
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.diffusion.text import Text
from splat_esd.guidance import SDS
from splat_esd.metrics.inception import entropy
from splat_esd.plane.exact import SCHEDULE, ExactPhi, ExactPrior, Mixture, make_guidance, ring

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
    """Descends grad_z on V views for each of G priors and returns their final positions."""
    groups = len(peaks)
    pi = torch.stack([preference(peak) for peak in peaks])
    prior = ExactPrior(Mixture(pi, PLACES.expand(groups, -1, -1), WIDTH**2 * torch.eye(2)))
    phi = ExactPhi()
    guidance = make_guidance(prior, phi, lam=lam, times=TIMES, steps=steps)
    return _descend(guidance, phi, groups, seed)


def _descend(guidance: SDS, phi: ExactPhi, groups: int, seed: int) -> Float[Tensor, "G V 2"]:
    """All start in the middle, hardly apart, as the views of a grey ball do."""
    uniform = torch.full((groups, VIEWS), 1 / VIEWS)
    g = torch.Generator().manual_seed(seed)
    x = 0.1 * torch.randn(VIEWS * groups, 2, 1, 1, generator=g)
    cameras = ring(len(x))
    for step in range(guidance.steps):
        phi.views = x
        together = x.view(VIEWS, groups, 2).transpose(0, 1)
        phi.marginal = Mixture(uniform, together, torch.zeros(2, 2))
        score = guidance.gradient(x, cameras, step, g)
        x = x - RATES[0] * (RATES[1] / RATES[0]) ** (step / guidance.steps) * score.grad
        if guidance.rectifier is not None and score.evidence is not None:
            guidance.rectifier.learn(score.evidence)
    return x.view(VIEWS, groups, 2).transpose(0, 1).contiguous()


class SidesPrior(ExactPrior):
    """A prior that draws one side where it is asked for by its number, from 1; 0 is any of them."""

    def eps(self, z_t: Tensor, t: Int[Tensor, " B"], text: Text) -> Tensor:
        """Returns the noise of one Gaussian, or of the mixture where nothing is asked."""
        asked = text.embeds[:, 0, 0].long()
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        place = PLACES[(asked - 1).clamp(min=0), :, None, None]
        one = sigma * (z_t - alpha * place) / (alpha.square() * WIDTH**2 + sigma.square())
        return torch.where((asked > 0)[:, None, None, None], one, self.mixture.eps(z_t, t))


def rectified(lam: float | None, peak: float, *, seed: int, steps: int | None = None) -> dict:
    """Returns one measurement of the same descent on the rectified prior, which has to find out
    which side each view shows, as a run has.
    """
    mixture = Mixture(preference(peak)[None], PLACES[None], WIDTH**2 * torch.eye(2))
    phi, prior = ExactPhi(), SidesPrior(mixture)
    guidance = make_guidance(prior, phi, lam=lam, times=TIMES, steps=steps or STEPS, sides=MODES)
    found = measure(_descend(guidance, phi, 1, seed)[0], peak, lam)
    ideal = {"entropy_closed_form": round(math.log(MODES), 4), "front_closed_form": 1 / MODES}
    return found | (ideal if lam else {"entropy_closed_form": None, "front_closed_form": None})


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
