"""The noise schedule, and what denoisers answer: eps, v, or the flow from pictures to noise."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """The path from latents to noise:  z_t = alpha_t z + sigma_t eps,  t = 0 .. T-1.

    Arguments:
        alphas: The signal's scales, decreasing.
        sigmas: The noise's scales, increasing.
        times: What a denoiser is told of each t; None: t itself.
    """

    alphas: Float[Tensor, " T"]
    sigmas: Float[Tensor, " T"]
    times: Float[Tensor, " T"] | None = None

    @staticmethod
    def variance_preserving(alphas_cumprod: Float[Tensor, " T"]) -> "Schedule":
        """Returns  alpha_t^2 = alphas_cumprod_t,  alpha_t^2 + sigma_t^2 = 1.

        References:
            Denoising Diffusion Probabilistic Models (Ho et al., 2020), Eq. 4.
            https://arxiv.org/abs/2006.11239
        """
        return Schedule(alphas_cumprod.sqrt(), (1.0 - alphas_cumprod).sqrt())

    @staticmethod
    def linear(count: int, shift: float) -> "Schedule":
        """Returns the straight path  alpha_t = 1 - s,  sigma_t = s,  of which a denoiser is told
        count * s, where shift moves the times towards noise:

            s = shift u / (1 + (shift - 1) u),   u = (t + 1) / count

        References:
            Flow Matching (Lipman et al., 2022); Stable Diffusion 3 (Esser et al., 2024), Sec. 5.3.
        """
        u = torch.arange(1, count + 1, dtype=torch.float32) / count
        s = shift * u / (1 + (shift - 1) * u)
        return Schedule(1 - s, s, count * s)

    def to(self, device: torch.device) -> "Schedule":
        """Moves the tables to a device."""
        times = None if self.times is None else self.times.to(device)
        return Schedule(self.alphas.to(device), self.sigmas.to(device), times)

    def __len__(self) -> int:
        return len(self.alphas)

    def alpha(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """Returns the signal's scale alpha_t."""
        return self._at(self.alphas, t)

    def sigma(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """Returns the noise's scale sigma_t."""
        return self._at(self.sigmas, t)

    def told(self, t: Int[Tensor, " B"]) -> Tensor:
        """Returns what a denoiser is told of t."""
        return t if self.times is None else self._at(self.times, t).flatten()

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
        """
        return self.alpha(t) * z + self.sigma(t) * eps

    def eps_from_v(self, v: Tensor, z_t: Tensor, t: Int[Tensor, " B"]) -> Tensor:
        """Turns a velocity into noise:  eps = sigma_t z_t + alpha_t v  (Salimans & Ho, 2022)."""
        return self.sigma(t) * z_t + self.alpha(t) * v

    def eps_from_flow(self, v: Tensor, z_t: Tensor, t: Int[Tensor, " B"]) -> Tensor:
        """Turns the flow v = eps - z of a straight path into noise:  eps = z_t + alpha_t v."""
        return z_t + self.alpha(t) * v

    def eps_from_z(self, z: Tensor, z_t: Tensor, t: Int[Tensor, " B"]) -> Tensor:
        """Turns clean latents into noise:  eps = (z_t - alpha_t z) / sigma_t."""
        return (z_t - self.alpha(t) * z) / self.sigma(t)

    def velocity(self, z: Tensor, eps: Tensor, t: Int[Tensor, " B"]) -> Tensor:
        """Returns what a v-predicting denoiser is trained on:  v = alpha_t eps - sigma_t z."""
        return self.alpha(t) * eps - self.sigma(t) * z

    def _at(self, table: Tensor, t: Tensor) -> Tensor:
        if t.numel() and (int(t.min()) < 0 or int(t.max()) >= len(self)):
            raise ValueError(
                f"t: expected steps in [0, {len(self)}), got {int(t.min())} to {int(t.max())}."
            )
        return table.to(t.device)[t].view(-1, 1, 1, 1)


def sample_steps(
    schedule: Schedule, low: float, high: float, count: int, generator: torch.Generator
) -> Int[Tensor, " B"]:
    """Draws steps uniformly from [low T, high T), which is at least one step wide."""
    first = min(int(low * len(schedule)), len(schedule) - 1)
    last = max(int(high * len(schedule)), first + 1)
    return torch.randint(first, last, (count,), generator=generator, device=generator.device)
