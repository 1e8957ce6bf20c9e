"""The noise schedule and the three ways a denoiser speaks: eps, v and x0."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """A variance-preserving schedule  z_t = alpha_t z + sigma_t eps,  alpha_t^2 + sigma_t^2 = 1.

    Arguments:
        alphas_cumprod: alpha_t^2 for t = 0 .. T-1, decreasing in (0, 1).
    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020). https://arxiv.org/abs/2006.11239
    """

    alphas_cumprod: Float[Tensor, " T"]

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def alpha(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """Returns the signal's scale alpha_t."""
        return self._at(t).sqrt()

    def sigma(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """Returns the noise's scale sigma_t."""
        return (1.0 - self._at(t)).sqrt()

    def add_noise(
        self,
        z: Float[Tensor, "B C h w"],
        eps: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
    ) -> Float[Tensor, "B C h w"]:
        """Diffuses latents to time t:  z_t = alpha_t z + sigma_t eps.

        Arguments:
            z: Clean latents with the prior's scaling factor applied.
            t: Steps of the training schedule, in [0, T).
        Raises:
            ValueError: If a step lies outside the schedule.
        References:
            Denoising Diffusion Probabilistic Models (Ho et al., 2020), Eq. 4.
        """
        return self.alpha(t) * z + self.sigma(t) * eps

    def eps_from_v(self, v: Tensor, z_t: Tensor, t: Int[Tensor, " B"]) -> Tensor:
        """Turns a velocity into noise:  eps = sigma_t z_t + alpha_t v  (Salimans & Ho, 2022)."""
        return self.sigma(t) * z_t + self.alpha(t) * v

    def eps_from_z(self, z: Tensor, z_t: Tensor, t: Int[Tensor, " B"]) -> Tensor:
        """Turns clean latents into noise:  eps = (z_t - alpha_t z) / sigma_t."""
        return (z_t - self.alpha(t) * z) / self.sigma(t)

    def velocity(self, z: Tensor, eps: Tensor, t: Int[Tensor, " B"]) -> Tensor:
        """Returns what a v-predicting denoiser is trained on:  v = alpha_t eps - sigma_t z."""
        return self.alpha(t) * eps - self.sigma(t) * z

    def _at(self, t: Tensor) -> Tensor:
        if t.numel() and (int(t.min()) < 0 or int(t.max()) >= len(self)):
            raise ValueError(
                f"t: expected steps in [0, {len(self)}), got {int(t.min())} to {int(t.max())}."
            )
        return self.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)


def sample_steps(
    schedule: Schedule, low: float, high: float, count: int, generator: torch.Generator
) -> Int[Tensor, " B"]:
    """Draws steps uniformly from [low T, high T), which is at least one step wide."""
    first = min(int(low * len(schedule)), len(schedule) - 1)
    last = max(int(high * len(schedule)), first + 1)
    return torch.randint(first, last, (count,), generator=generator, device=generator.device)
