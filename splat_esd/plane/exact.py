"""Exact scores in place of networks: a prior and a phi made of Gaussians, for the real guidance."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.cameras import Cameras, turntable
from splat_esd.config.schema import GuidanceConfig
from splat_esd.diffusion.families import FAMILIES
from splat_esd.diffusion.lora import Phi
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.prompts import PromptBook
from splat_esd.diffusion.schedule import Schedule
from splat_esd.diffusion.text import Text
from splat_esd.guidance import ESD, SDS

_BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2  # Stable Diffusion's
SCHEDULE = Schedule.variance_preserving(torch.cumprod(1 - _BETAS, 0))


class Mixture:
    """G mixtures of K Gaussians each in the plane, and the exact noise prediction of each:

        p(x) = sum_k w_k N(x; mu_k, cov),   eps(z_t, t) = -sigma_t grad log p_t(z_t)

    Arguments:
        weights: Sum to 1 over K.
        cov: Shared by all Gaussians; zero makes them points.
    """

    def __init__(
        self,
        weights: Float[Tensor, "G K"],
        means: Float[Tensor, "G K 2"],
        cov: Float[Tensor, "2 2"],
    ):
        self.log_weights = weights.log()
        self.variances, self.basis = torch.linalg.eigh(cov)
        self.means = means @ self.basis

    def eps(self, z_t: Float[Tensor, "B 2 1 1"], t: Int[Tensor, " B"]) -> Float[Tensor, "B 2 1 1"]:
        """Returns each row's expected noise; row i belongs to mixture i mod G."""
        groups = len(self.means)
        alpha = SCHEDULE.alpha(t).reshape(-1, groups, 1, 1)
        sigma = SCHEDULE.sigma(t).reshape(-1, groups, 1, 1)
        z = z_t.reshape(-1, groups, 1, 2) @ self.basis
        spread = alpha.square() * self.variances + sigma.square()
        away = z - alpha * self.means  # [rows, G, K, 2]
        log_likelihood = -0.5 * (away.square() / spread).sum(-1)
        share = (self.log_weights + log_likelihood).softmax(-1)[..., None]
        noise = sigma[..., 0, :] * (share * away / spread).sum(2)
        return (noise @ self.basis.T).reshape(z_t.shape)


class ExactPrior(Prior):
    """A prior whose score is a mixture's, for every prompt."""

    schedule, family = SCHEDULE, FAMILIES[None]

    def __init__(self, mixture: Mixture):
        self.mixture = mixture

    def eps(self, z_t: Tensor, t: Tensor, text: Text) -> Tensor:
        """Returns the mixture's noise; the text is ignored."""
        return self.mixture.eps(z_t, t)


class ExactPhi(Phi):
    """The scores that a perfect LoRA would learn of the current `views` [B, 2, 1, 1].

    With a camera, its view is known, and the noise with it; without, there is the `marginal` of
    all views.
    """

    views: Tensor
    marginal: Mixture

    def __init__(self):
        torch.nn.Module.__init__(self)

    def eps(self, z_t: Tensor, t: Tensor, camera: Tensor) -> Tensor:
        """Returns the view's noise where a camera is given, else that of the marginal."""
        views = self.views.repeat(len(z_t) // len(self.views), 1, 1, 1)
        nameless = (camera == 0).all(1)[:, None, None, None]
        return torch.where(nameless, self.marginal.eps(z_t, t), SCHEDULE.eps_from_z(views, z_t, t))

    def eps_and_losses(
        self, z: Tensor, z_t: Tensor, t: Tensor, eps: Tensor, camera: Tensor, dropped: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns `eps`, and no loss: there is nothing to learn."""
        return self.eps(z_t, t, camera.masked_fill(dropped[:, None], 0.0)), z_t.new_zeros(len(z_t))


class Numbers(PromptBook):
    """Prompt embeddings that are numbers: 0 is no words, 1, 2, ... are `sides` of equal shares."""

    def __init__(self, sides: int = 0):
        self.negative = Text(torch.zeros(1, 1, 1))
        self.around = [Text(torch.full((1, 1, 1), 1.0 + side)) for side in range(sides)]
        self.shares = torch.full((sides,), 1 / max(sides, 1))

    def embed(self, cameras: Cameras) -> Text:
        return self.negative.expand(len(cameras))


def make_guidance(
    prior: ExactPrior,
    phi: ExactPhi,
    *,
    lam: float | None,
    times: tuple[float, float, float],
    steps: int,
    sides: int = 0,
) -> SDS:
    """Returns `Guidance` with exact scores in place of both networks.

    Arguments:
        lam: Lambda of ESD, 0 being VSD; None is SDS.
        times: t_min, t_max and, from a fifth of the run on, t_max_end, in parts of the schedule.
        sides: How many sides the prior can be asked for, if it is to be rectified.
    """
    config, book = _config(lam, times, rectify="prompts" if sides else None), Numbers(sides)
    options = {"cfg_scale": 1.0, "perp_neg": False, "steps": steps}
    if lam is None:
        return SDS(prior, book, config, **options)
    return ESD(prior, book, config, phi=phi, **options)


def ring(count: int) -> Cameras:
    """Returns distinct cameras; the exact phi needs no more of them."""
    return turntable(count, elevation=0.2, distance=2.4, fovy=0.75, width=16, height=16)


def _config(
    lam: float | None, times: tuple[float, float, float], rectify: Literal["prompts"] | None
) -> GuidanceConfig:
    t_min, t_max, t_max_end = times
    return GuidanceConfig(
        name="sds" if lam is None else "esd",
        lam=lam,
        branches="both",
        t_min=t_min,
        t_max=t_max,
        t_max_end=t_max_end,
        rectify=rectify,
    )
