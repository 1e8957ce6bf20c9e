"""The entropic term: of what phi says, how large it is; and exactly, without a network.

    eps_null - eps_camera = sigma_t grad_z_t log q(c | z_t)

With a single object the renders' distribution is known: q(z_t | c) = N(alpha_t z_c, sigma_t^2 I),
and q(z_t) is the mean of these over all cameras. A few views drawn from p(c) stand for the mean:

    eps_null - eps_camera = alpha_t (z_c - z_bar) / sigma_t,
    z_bar = sum_i w_i z_i,   w_i ~ exp(-|z_t - alpha_t z_i|^2 / (2 sigma_t^2))

References:
    ESD (Wang et al., 2024): the entropy of the renders. https://arxiv.org/abs/2401.00909
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.diffusion.schedule import Schedule

BUCKETS = 4  # of t, for the measured share of the entropic term


def null_minus_camera(
    z: Float[Tensor, "B C h w"],
    z_t: Float[Tensor, "B C h w"],
    t: Int[Tensor, " B"],
    others: Float[Tensor, "K C h w"],
    schedule: Schedule,
) -> Float[Tensor, "B C h w"]:
    """Returns  alpha_t (z - z_bar) / sigma_t,  z_bar the mean of z and the other views, each as
    likely as z_t is to be a noisy one of it.

    Arguments:
        z: Latents that z_t was made from.
        others: Latents of views drawn from p(c), before the same background.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    views = torch.cat([z[:, None], others.expand(len(z), *others.shape)], 1)  # [B, 1 + K, ...]
    away = z_t[:, None] - alpha[:, None] * views
    likely = (-0.5 * (away / sigma[:, None]).square().flatten(2).sum(2)).softmax(1)
    z_bar = torch.einsum("bk,bkchw->bchw", likely, views)
    return alpha * (z - z_bar) / sigma


def entropic_shares(
    entropic: Float[Tensor, "B C h w"],
    difference: Float[Tensor, "B C h w"],
    t: Int[Tensor, " B"],
    T: int,
) -> dict[str, float]:
    """Returns |entropic term| / |eps_prior - eps_q|, a mean for each quarter of the schedule that
    the batch fell into.
    """
    share = entropic.flatten(1).norm(dim=1) / difference.flatten(1).norm(dim=1).clamp_min(1e-12)
    bucket = t * BUCKETS // T
    return {
        f"entropic_share_{b}": share[bucket == b].mean().item() for b in bucket.unique().tolist()
    }
