"""Which score distils: SDS, VSD and ESD are in guidance.py; here are two more for the same table.

    CSD    grad_z = w(t) s (eps(z_t, t, y) - eps_q),        eps_q = eps(z_t, t)
    SDI    grad_z = sigma_t / alpha_t (eps_prior - eps_q),  eps_q = (z_t - alpha_t z) / sigma_t,
           z_t the end of a path from z on which the prior itself adds the noise

References:
    CSD: Text-to-3D with Classifier Score Distillation (Yu et al., 2023), Eq. 8.
    https://arxiv.org/abs/2310.19415
    SDI: Score Distillation via Reparametrized DDIM (Lukoianov et al., 2024), Algorithm 1.
    https://arxiv.org/abs/2405.15891
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.cameras import Cameras
from splat_esd.config.schema import GuidanceConfig
from splat_esd.diffusion.lora import Phi
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.prompts import PromptBook
from splat_esd.distributed import Rows
from splat_esd.guidance import ESD, SDS, Noisy, Particles

# SDI's own: steps of the path over the whole schedule, CFG on it, and fresh noise at each step.
PATH_STEPS, PATH_SCALE, PATH_ETA = 10, -7.5, 0.3


class CSD(SDS):
    """Classifier score distillation:  grad_z = w(t) s (eps_c - eps_u).

    What is subtracted is eps_u, which the prior's own pass contains: both are left out.
    """

    def prior_eps(
        self, z_t: Tensor, t: Int[Tensor, " B"], cameras: Cameras
    ) -> Float[Tensor, "B C h w"]:
        """Returns what the prompt's words change:  s (eps_c - eps_u)."""
        return self.prior_terms(z_t, t, cameras, self.cfg_scale)[1]

    def particles(
        self, noisy: Noisy, cameras: Cameras, generator: torch.Generator, rows: Rows
    ) -> Particles:
        """Returns zeros: eps_u is left out on both sides."""
        return Particles(torch.zeros_like(noisy.eps))


class SDI(SDS):
    """Score distillation via inversion: the noise that leads the prior back to z, not a random one.

    t falls from t_max to t_max_end over the run, and is the same for all views.
    """

    _shown = 0  # times that the last path showed each view's latents to the UNet

    @property
    def evaluations(self) -> dict[str, int]:
        return super().evaluations | {"unet_inversion": self._shown}

    def diffuse(
        self, z: Tensor, cameras: Cameras, step: int, generator: torch.Generator, rows: Rows
    ) -> Noisy:
        """Returns z_t at the end of a DDIM path from z, where the prior adds the noise, and
        eps_q = (z_t - alpha_t z) / sigma_t.
        """
        schedule, T = self.prior.schedule, len(self.prior.schedule)
        high, low = self.config.t_max, self.config.t_max_end
        end = min(int((high + (low - high) * step / self.steps) * T), T - 1)
        ones = torch.ones(len(z), dtype=torch.long, device=z.device)
        shape, z_t, here = (rows.count, *z.shape[1:]), z, 0
        self._shown = 0
        while here < end:
            there = min(here + -(-T // PATH_STEPS), end)
            t = here * ones
            eps_u, change = self.prior_terms(z_t, t, cameras, PATH_SCALE)
            eps = eps_u + change
            z_0 = (z_t - schedule.sigma(t) * eps) / schedule.alpha(t)
            noise = torch.randn(shape, generator=generator, device=generator.device)
            eps = mixed(eps, rows.of(noise), PATH_ETA)
            z_t, here = schedule.add_noise(z_0, eps, there * ones), there
            self._shown += 2
        t = end * ones
        return Noisy(z, z_t, t, schedule.eps_from_z(z, z_t, t))

    def weight(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """Returns sigma_t / alpha_t, by which a step of noise moves the clean latents."""
        return self.prior.schedule.sigma(t) / self.prior.schedule.alpha(t)


def mixed(eps: Tensor, noise: Tensor, eta: float) -> Tensor:
    """Returns  sqrt(1 - eta^2) eps + eta noise,  as long as eps on average.

    References:
        DDIM (Song et al., 2021), Eq. 12. https://arxiv.org/abs/2010.02502
    """
    return (1 - eta**2) ** 0.5 * eps + eta * noise


def make_guidance(
    prior: Prior,
    book: PromptBook,
    config: GuidanceConfig,
    *,
    rank: int,
    seed: int,
    cfg_scale: float,
    perp_neg: bool,
    steps: int,
) -> SDS:
    """Makes the guidance that the configuration names; `rank` and `seed` are those of a new phi."""
    without_phi = {"sds": SDS, "csd": CSD, "sdi": SDI}.get(config.name)
    if without_phi is not None:
        return without_phi(prior, book, config, cfg_scale=cfg_scale, perp_neg=perp_neg, steps=steps)
    phi = Phi(prior, book.plain, rank=rank, seed=seed)
    return ESD(prior, book, config, phi=phi, cfg_scale=cfg_scale, perp_neg=perp_neg, steps=steps)
