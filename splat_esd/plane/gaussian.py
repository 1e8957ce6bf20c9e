"""One Gaussian: the covariance each method converges to, against its closed form."""

import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.plane.exact import SCHEDULE, ExactPhi, ExactPrior, Mixture, make_guidance, ring

MEAN = torch.tensor([0.5, -1.0])
COV = torch.tensor([[1.5, 0.6], [0.6, 0.8]])
TIME = 0.2  # the one time at which the scores are compared: the closed form is that of one t
VIEWS, STEPS = 256, 1500


def closed_form(lam: float | None) -> Float[Tensor, "2 2"]:
    """Returns the stationary covariance, negative eigenvalues set to 0; SDS is lambda = 0.

    Sigma_q = lambda Sigma_p - (1 - lambda) (sigma / alpha)^2 I
    """
    lam, t = lam or 0.0, torch.tensor([int(TIME * len(SCHEDULE))])
    ratio = (SCHEDULE.sigma(t) / SCHEDULE.alpha(t)).item() ** 2
    values, vectors = torch.linalg.eigh(lam * COV - (1 - lam) * ratio * torch.eye(2))
    return vectors @ values.clamp_min(0).diag() @ vectors.T


def fit(lam: float | None, *, seed: int, steps: int) -> Float[Tensor, "2 2"]:
    """Descends grad_z on m and L of the views  x = m + L u,  u ~ N(0, I),  from N(0, I / 4), and
    returns the covariance L L^T, averaged over the second half of the run.
    """
    phi, prior = ExactPhi(), ExactPrior(Mixture(torch.ones(1, 1), MEAN.view(1, 1, 2), COV))
    just = (TIME, TIME + 1e-6, TIME + 1e-6)
    guidance = make_guidance(prior, phi, lam=lam, times=just, steps=steps)
    m = torch.zeros(2, requires_grad=True)
    L = (0.5 * torch.eye(2)).requires_grad_()
    cameras, optimizer = ring(VIEWS), torch.optim.SGD([m, L], lr=1.0)
    found, g = [], torch.Generator().manual_seed(seed)
    for step in range(steps):
        half = torch.randn(VIEWS // 2, 2, generator=g)
        u = torch.cat([half, -half])
        z = (m + u @ L.T)[:, :, None, None]
        with torch.no_grad():
            phi.views = z.detach()
            phi.marginal = Mixture(torch.ones(1, 1), m.view(1, 1, 2), L @ L.T)
        grad_z = guidance.gradient(z.detach(), cameras, step, g).grad
        optimizer.param_groups[0]["lr"] = 4.0 / (1 + step / 100)
        optimizer.zero_grad()
        ((grad_z * z).sum() / VIEWS).backward()
        optimizer.step()
        if 2 * step >= steps:
            found.append((L @ L.T).detach())
    return torch.stack(found).mean(0)


def compare(lam: float | None, *, seed: int, steps: int | None = None) -> dict:
    """Returns the result and its closed form: covariances, and traces relative to the
    target's.
    """
    found, expected = fit(lam, seed=seed, steps=steps or STEPS), closed_form(lam)
    traces = [(cov.trace() / COV.trace()).item() for cov in (found, expected)]
    return {
        "lambda": lam,
        "covariance": _rounded(found),
        "closed_form": _rounded(expected),
        "trace_ratio": round(traces[0], 5),
        "trace_ratio_closed_form": round(traces[1], 5),
        "error": round(abs(traces[0] - traces[1]), 5),
        "largest_entry_error": round((found - expected).abs().max().item(), 5),
    }


def _rounded(cov: Tensor) -> list[list[float]]:
    return [[round(value, 5) for value in row] for row in cov.tolist()]
