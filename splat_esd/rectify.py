"""The rectified prior: each side of a thing as likely as was asked, whatever the prior prefers.

    p~(z_t | y)   = sum_k f_k p(z_t | y_k),            y_k = "PROMPT, front view", ...
    eps~(z_t, t)  = sum_k rho_k eps(z_t, t, y_k),      rho_k ~ f_k p(z_t | y_k)

f are the shares of a circle around the thing. No camera is told to the prior: which words hold is
found out, from how well they explain the renders of each direction. What is needed is known from
the prior's own denoising losses:

    E log p(z_t | y_k) = const - 1/2 int E |eps - eps(z_s, s, y_k)|^2 d log snr_s    over s > t

References:
    RecDreamer (ICLR 2025): rectifying the prior, there by a classifier of poses.
    Information-Theoretic Diffusion (Kong et al., 2023): the integral.
    https://arxiv.org/abs/2302.03792
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.cameras import Cameras
from splat_esd.diffusion.schedule import Schedule
from splat_esd.distributed import Rows

AROUND = 8  # directions whose losses are remembered
BUCKETS = 10  # of t
RATE = 0.1  # of the running means, once ten samples are in
BALANCING = 50  # rounds in which the shares of all directions are brought to f


@dataclass(frozen=True)
class Evidence:
    """What one step tells of the words for a view: its whole batch, zeros in others' rows.

    Arguments:
        losses: |eps - eps(z_t, t, y_k)|^2.
    """

    azimuth: Float[Tensor, " B"]
    t: Float[Tensor, " B"]
    losses: Float[Tensor, "B K"]

    def tensors(self) -> list[Tensor]:
        """Returns what is to be summed over processes."""
        return [self.azimuth, self.t, self.losses]


class Rectifier:
    """Remembers how well the words of each view explain each direction, and mixes their scores.

    The shares of all directions together are kept at f: where the front explains everything a
    little better, as it does at the start, one direction only may have it.

    Arguments:
        shares: f, how much of the circle each view takes.
    """

    def __init__(self, shares: Float[Tensor, " K"], schedule: Schedule):
        self.log_shares = shares.log()
        edges = torch.linspace(0, len(schedule) - 1, BUCKETS + 1).long().to(shares.device)
        self.schedule, self.edges = schedule, edges
        self.mean = torch.zeros(AROUND, BUCKETS, len(shares), device=shares.device)
        self.count = torch.zeros(AROUND, BUCKETS, 1, device=shares.device)
        self._answers: Tensor | None = None

    def mix(self, answers: Sequence[Tensor], t: Int[Tensor, " B"], cameras: Cameras) -> Tensor:
        """Returns  sum_k rho_k eps(z_t, t, y_k),  and keeps the answers for `evidence`."""
        self._answers = torch.stack(list(answers))
        return mixed(self._answers, self.shares(t, cameras.azimuth))

    def shares(self, t: Int[Tensor, " B"], azimuth: Float[Tensor, " B"]) -> Float[Tensor, "B K"]:
        """Returns rho: how much each view's words hold for a render from there at time t."""
        surprise = self._surprise(t)
        log_weights = self._balanced(surprise)
        here = (_spread(azimuth)[:, :, None] * surprise).sum(1)
        return (log_weights - here).softmax(-1)

    def evidence(
        self,
        eps: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
        cameras: Cameras,
        rows: Rows,
    ) -> Evidence:
        """Returns what the noise that was put in says of the answers that were mixed last.

        Raises:
            ValueError: If none were.
        """
        if self._answers is None:
            raise ValueError("mix() is to be called first.")
        losses = (self._answers - eps).square().flatten(2).sum(2).T
        found = [cameras.azimuth, t.to(losses.dtype), losses]
        whole = [value.new_zeros(rows.count, *value.shape[1:]) for value in found]
        for place, value in zip(whole, found, strict=True):
            rows.of(place).copy_(value)
        return Evidence(*whole)

    def learn(self, evidence: Evidence) -> None:
        """Takes the evidence of a whole batch into the means, row by row."""
        around = _spread(evidence.azimuth)
        bucket = torch.searchsorted(self.edges, evidence.t.long(), right=True) - 1
        bucket = bucket.clamp(0, BUCKETS - 1)
        # A loss common to all words says nothing of the view.
        losses = evidence.losses - evidence.losses.mean(1, keepdim=True)
        for weight, b, loss in zip(around, bucket.tolist(), losses, strict=True):
            weight = weight[:, None]
            self.count[:, b] += weight
            rate = weight / self.count[:, b].clamp(min=1.0, max=1 / RATE)
            self.mean[:, b] += rate * (loss - self.mean[:, b])

    def state_dict(self) -> dict[str, Any]:
        """Returns what a continued run needs."""
        return {"mean": self.mean.clone(), "count": self.count.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` returned."""
        self.mean.copy_(state["mean"])
        self.count.copy_(state["count"])

    def _surprise(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B A K"]:
        """Returns  1/2 int |eps - eps_k|^2 d log snr  over the times above t, by direction."""
        log_snr = 2 * (self.schedule.alphas.log() - self.schedule.sigmas.log())
        lower = torch.maximum(self.edges[None, :-1], t[:, None])  # [B, buckets]
        above = self.edges[None, 1:] > lower
        width = (log_snr[lower] - log_snr[self.edges[1:]][None]) * above
        return 0.5 * torch.einsum("bs,ask->bak", width, self.mean)

    def _balanced(self, surprise: Float[Tensor, "B A K"]) -> Float[Tensor, "B K"]:
        """Returns log w so that the shares  softmax(log w - surprise)  of all directions average f.

        References:
            Sinkhorn Distances (Cuturi, 2013), Algorithm 1. https://arxiv.org/abs/1306.0895
        """
        log_w = self.log_shares.expand(len(surprise), -1)
        for _ in range(BALANCING):
            rho = (log_w[:, None] - surprise).log_softmax(-1)
            log_w = log_w + self.log_shares - (rho.logsumexp(1) - math.log(AROUND))
        return log_w


def mixed(
    answers: Float[Tensor, "K B C h w"], rho: Float[Tensor, "B K"]
) -> Float[Tensor, "B C h w"]:
    """Returns  sum_k rho_k eps(z_t, t, y_k)."""
    return torch.einsum("kbchw,bk->bchw", answers, rho)


def _spread(azimuth: Float[Tensor, " B"]) -> Float[Tensor, "B A"]:
    """Shares each azimuth between the two of AROUND directions beside it."""
    place = azimuth[:, None] / (2 * math.pi / AROUND) - torch.arange(AROUND, device=azimuth.device)
    away = torch.remainder(place + AROUND / 2, AROUND) - AROUND / 2
    return (1 - away.abs()).clamp(min=0)
