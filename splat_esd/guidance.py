"""Score distillation: SDS, VSD and ESD differ only in what is subtracted from the prior's noise.

    grad_z = w(t) * (eps_prior(z_t, t, y) - eps_q)

    SDS    eps_q = eps                                                the noise itself
    ESD    eps_q = lambda * phi(z_t, t) + (1 - lambda) * phi(z_t, t, c)
    VSD    ESD with lambda = 0

phi(z_t, t) is the score of all our renders, phi(z_t, t, c) that of the renders from camera c; their
difference is the gradient of log q(c | z_t), so lambda > 0 rewards views that tell where they were
taken from: no face on every side. With one object it is also known without phi: entropy.py.

References:
    ESD: Taming Mode Collapse in Score Distillation (Wang et al., 2024), Eq. 10 and Algorithm 1.
    https://arxiv.org/abs/2401.00909 -- its Eq. 6 prints an ascent; the update descends.
    DreamFusion: SDS (Poole et al., 2022), Eq. 3. ProlificDreamer: VSD (Wang et al., 2023), Eq. 9.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from splat_esd.cameras import Cameras
from splat_esd.config.schema import GuidanceConfig
from splat_esd.diffusion.lora import Phi, camera_vector
from splat_esd.diffusion.multiview import poses
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.prompts import PromptBook
from splat_esd.diffusion.schedule import sample_steps
from splat_esd.diffusion.text import concatenate
from splat_esd.distributed import Rows
from splat_esd.entropy import entropic_shares, null_minus_camera
from splat_esd.rectify import Evidence, Rectifier


@dataclass(frozen=True)
class Score:
    """What one evaluation of the guidance gives.

    Arguments:
        grad: grad_z of each view, to descend:  d loss / d z = grad_z / B.
        phi: What teaches phi, at the same (z_t, t, eps); None without a phi.
        evidence: What teaches the rectifier; None without one.
        stats: Numbers to log: the norm of the score, UNet evaluations (one for each view's latents
            shown to the UNet once), the entropic term's share by quarter of the schedule.
    """

    grad: Float[Tensor, "B C h w"]
    stats: dict[str, float]
    phi: "DenoisingLosses | None" = None
    evidence: Evidence | None = None


@dataclass(frozen=True)
class DenoisingLosses:
    """|phi(z_t, t, c or nothing) - eps|^2 of each view, in the prior's prediction, with a graph.

    Arguments:
        dropped: The views whose camera phi was not told.
    """

    values: Float[Tensor, " B"]
    dropped: Bool[Tensor, " B"]

    def stats(self) -> dict[str, float]:
        """Returns the means to log: of all, and of each branch that has a view."""
        values = self.values.detach()
        stats = {"phi_loss": values.mean().item()}
        for name, rows in (("null", self.dropped), ("camera", ~self.dropped)):
            if rows.any():
                stats[f"phi_loss_{name}"] = values[rows].mean().item()
        return stats


@dataclass(frozen=True)
class Noisy:
    """The renders' latents z, and z_t = alpha_t z + sigma_t eps: one draw for theta and phi.

    Arguments:
        others: Latents of further views, where the entropic term is computed from them.
    """

    z: Float[Tensor, "B C h w"]
    z_t: Float[Tensor, "B C h w"]
    t: Int[Tensor, " B"]
    eps: Float[Tensor, "B C h w"]
    others: Float[Tensor, "K C h w"] | None = None


@dataclass(frozen=True)
class Particles:
    """What the renders' own distribution answers.

    Arguments:
        eps: eps_q, its score.
        entropic: lambda (eps(z_t, t, c) - eps(z_t, t)), or None where it is not known.
        losses: What teaches phi, or None without one.
    """

    eps: Float[Tensor, "B C h w"]
    entropic: Float[Tensor, "B C h w"] | None = None
    losses: DenoisingLosses | None = None


class SDS:
    """Score distillation sampling:  grad_z = w(t) (eps_prior - eps).

    Arguments:
        cfg_scale: s of classifier-free guidance  eps_u + s (eps_c - eps_u);  100 is usual for SDS
            on Stable Diffusion.
        perp_neg: Whether each view is kept from looking like the others.
        steps: Length of the run; the range of t narrows at `config.anneal_at` of it.
    """

    phi: Phi | None = None
    rectifier: Rectifier | None = None
    others = 0  # further views that a step needs

    @property
    def evaluations(self) -> dict[str, int]:
        """Returns how often a step shows each view's latents to the UNet; one of phi's passes also
        trains it.
        """
        asked = 1 if self.rectifier is None else len(self.book.shares)
        return {"unet_prior": 1 + asked + (2 if self.perp_neg else 0), "unet_phi": 0}

    def __init__(
        self,
        prior: Prior,
        book: PromptBook,
        config: GuidanceConfig,
        *,
        cfg_scale: float,
        perp_neg: bool,
        steps: int,
    ):
        self.prior, self.book, self.config = prior, book, config
        self.cfg_scale, self.perp_neg, self.steps = cfg_scale, perp_neg, steps
        if config.rectify is not None:
            self.rectifier = Rectifier(book.shares, prior.schedule)

    @torch.no_grad()
    def gradient(
        self,
        z: Float[Tensor, "B C h w"],
        cameras: Cameras,
        step: int,
        generator: torch.Generator,
        rows: Rows | None = None,
        others: Float[Tensor, "K C h w"] | None = None,
    ) -> Score:
        """Returns grad_z = w(t) (eps_prior - eps_q) of each view at a random time.

        Arguments:
            rows: Which rows of the whole batch these views are, for which all is drawn.
            others: Latents of `self.others` further views, before the same background.
        """
        rows = rows or Rows(len(z))
        noisy = replace(self.diffuse(z, cameras, step, generator, rows), others=others)
        q = self.particles(noisy, cameras, generator, rows)
        difference = self.prior_eps(noisy.z_t, noisy.t, cameras) - q.eps
        evidence = None
        if self.rectifier is not None:
            evidence = self.rectifier.evidence(noisy.eps, noisy.t, cameras, rows)
        stats = {"score_norm": difference.square().mean().sqrt().item()}
        if q.entropic is not None:
            stats |= entropic_shares(q.entropic, difference, noisy.t, len(self.prior.schedule))
        grad = self.weight(noisy.t) * difference
        return Score(grad, stats | self.evaluations, q.losses, evidence)

    def diffuse(
        self, z: Tensor, cameras: Cameras, step: int, generator: torch.Generator, rows: Rows
    ) -> Noisy:
        """Draws t from this step's range and eps ~ N(0, I):  z_t = alpha_t z + sigma_t eps."""
        size = (rows.count, *z.shape[1:])
        group = self.prior.together  # views that are drawn together are equally noisy
        drawn = rows.count // group
        t = sample_steps(self.prior.schedule, *self.time_range(step), drawn, generator)
        t = t.repeat_interleave(group)
        eps = torch.randn(size, generator=generator, device=generator.device)
        t, eps = rows.of(t), rows.of(eps)
        return Noisy(z, self.prior.schedule.add_noise(z, eps, t), t, eps)

    def particles(
        self, noisy: Noisy, cameras: Cameras, generator: torch.Generator, rows: Rows
    ) -> Particles:
        """Returns eps_q, the score of our own renders: for a single image, the noise put in."""
        return Particles(noisy.eps)

    def prior_eps(
        self, z_t: Tensor, t: Int[Tensor, " B"], cameras: Cameras
    ) -> Float[Tensor, "B C h w"]:
        """Returns the prior's score with classifier-free guidance:  eps_u + s [d_c + ...]."""
        eps_u, change = self.prior_terms(z_t, t, cameras, self.cfg_scale)
        return eps_u + change

    def prior_terms(
        self, z_t: Tensor, t: Int[Tensor, " B"], cameras: Cameras, scale: float
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Returns eps_u, the score without the prompt's words, and what they change of it, with
        Perp-Neg if asked for:

            clamp(s * [d_c + sum_i w_i perp(d_i, d_c)]),   d_c = eps_c - eps_u,  w_i < 0

        where d_i are the views that this one must not look like. A rectified prior's eps_c is that
        of all views' words, each as far as it holds.

        References:
            Perp-Neg (Armandpour et al., 2023), Eq. 8; score clipping: Debiasing Scores and Prompts
            (Hong et al., 2023), Sec. 4.1.
        """
        negative = self.book.negative.expand(len(z_t))
        texts = [negative]
        if self.rectifier is None:
            texts.append(self.book.embed(cameras))
        else:
            texts += [text.expand(len(z_t)) for text in self.book.around]
        if self.perp_neg:
            texts += self.book.opposed(cameras)
        rows, text = len(texts), concatenate(texts)
        if self.prior.together > 1:
            text = text.seen_from(poses(cameras.c2w).repeat(rows, 1))
        out = self.prior.eps(z_t.repeat(rows, 1, 1, 1), t.repeat(rows), text)
        eps_u, eps_c, *others = out.chunk(rows)
        if self.rectifier is not None:
            eps_c, others = self.rectifier.mix([eps_c, *others], t, cameras), []
        direction = eps_c - eps_u
        away = sum((perpendicular(e - eps_u, direction) for e in others), torch.zeros_like(z_t))
        change = scale * (direction - self.config.perp_neg.weight * away)
        if self.config.grad_clamp is not None:
            change = change.clamp(-self.config.grad_clamp, self.config.grad_clamp)
        return eps_u, change

    def weight(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """Returns w(t): sigma_t^2 or 1."""
        sigma2 = self.prior.schedule.sigma(t).square()
        return sigma2 if self.config.weight == "sigma2" else torch.ones_like(sigma2)

    def time_range(self, step: int) -> tuple[float, float]:
        """Returns the range of t / T at a step; its upper end falls once, at `anneal_at`."""
        late = step >= self.config.anneal_at * self.steps
        return self.config.t_min, self.config.t_max_end if late else self.config.t_max


class ESD(SDS):
    """Entropic score distillation; VSD at lambda = 0.

    Arguments:
        phi: The LoRA that learns the score of our renders while they change.
    """

    phi: Phi

    def __init__(
        self,
        prior: Prior,
        book: PromptBook,
        config: GuidanceConfig,
        *,
        phi: Phi,
        cfg_scale: float,
        perp_neg: bool,
        steps: int,
    ):
        super().__init__(prior, book, config, cfg_scale=cfg_scale, perp_neg=perp_neg, steps=steps)
        self.phi = phi

    @property
    def lam(self) -> float:
        """Lambda as it stands; the live view's slider may move it between two steps.

        Raises:
            ValueError: If the configuration has none.
        """
        if self.config.lam is None:
            raise ValueError("config.lam: expected a number, got None.")
        return self.config.lam

    @property
    def exact(self) -> bool:
        """Whether the entropic term is computed from further views instead of phi."""
        return self.config.entropy == "exact"

    @property
    def others(self) -> int:
        """How many further views a step needs: none at lambda = 0, which is VSD."""
        return self.config.entropy_views if self.exact and self.lam > 0 else 0

    @property
    def evaluations(self) -> dict[str, int]:
        return super().evaluations | {"unet_phi": 2 if self._both else 1}

    @property
    def _both(self) -> bool:
        """Whether each view is given both of phi's answers."""
        mixed = not self.exact and self.lam not in (0.0, 1.0)
        return mixed and self.config.branches == "both"

    def particles(
        self, noisy: Noisy, cameras: Cameras, generator: torch.Generator, rows: Rows
    ) -> Particles:
        """Returns  lambda phi(z_t, t) + (1 - lambda) phi(z_t, t, c)  and the entropic term
        lambda (phi(z_t, t, c) - phi(z_t, t));  or, with branches=one, each view's answer from one
        branch, the one without the camera with probability lambda, which is the same in the mean
        over these coins. A branch that is not run leaves the term unknown.

        Algorithm 1 has one (z_t, t, eps) for both updates, so the pass that answers here also
        teaches phi: of each sample one branch carries a graph, the one without the camera with
        probability `camera_drop` or lambda, each on its own coin. One coin for the batch would
        starve the null branch, the one that carries the entropy.

        With the exact entropic term phi is always told the camera, and eps_q is
        phi(z_t, t, c) + lambda (eps_null - eps_camera).
        """
        lam = self.lam
        eps, losses = self._taught(noisy, cameras, generator, rows)
        if noisy.others is not None:
            schedule = self.prior.schedule
            term = lam * null_minus_camera(noisy.z, noisy.z_t, noisy.t, noisy.others, schedule)
            return Particles(eps + term, -term, losses)
        if not self._both:
            return Particles(eps, None, losses)
        kept, camera = ~losses.dropped, camera_vector(cameras)
        other = self.phi.eps(noisy.z_t, noisy.t, camera.masked_fill(kept[:, None], 0.0))
        told = kept[:, None, None, None]
        eps_camera, eps_null = torch.where(told, eps, other), torch.where(told, other, eps)
        mixed = lam * eps_null + (1.0 - lam) * eps_camera
        return Particles(mixed, lam * (eps_camera - eps_null), losses)

    def losses(
        self, z: Tensor, cameras: Cameras, step: int, generator: torch.Generator, rows: Rows
    ) -> DenoisingLosses:
        """Returns what teaches phi once more, at a (z_t, t, eps) of its own."""
        noisy = self.diffuse(z, cameras, step, generator, rows)
        return self._taught(noisy, cameras, generator, rows)[1]

    def _taught(
        self, noisy: Noisy, cameras: Cameras, generator: torch.Generator, rows: Rows
    ) -> tuple[Tensor, DenoisingLosses]:
        dropped = rows.of(self._coins(rows.count, generator))
        with torch.enable_grad():
            eps, losses = self.phi.eps_and_losses(
                noisy.z, noisy.z_t, noisy.t, noisy.eps, camera_vector(cameras), dropped
            )
        return eps, DenoisingLosses(losses, dropped)

    def _coins(self, count: int, generator: torch.Generator) -> Bool[Tensor, " B"]:
        """Draws whose camera phi is not told: with probability lambda, or `camera_drop` where both
        branches answer; at lambda = 0 and 1 one branch alone is asked.
        """
        if self.exact or self.lam in (0.0, 1.0):
            nameless = not self.exact and self.lam == 1.0
            return torch.full((count,), nameless, device=generator.device)
        group = self.prior.together  # one that is told would tell its neighbours
        coin = torch.rand(count // group, generator=generator, device=generator.device)
        share = self.config.lora.camera_drop if self._both else self.lam
        return (coin < share).repeat_interleave(group)


def perpendicular(
    a: Float[Tensor, "B C h w"], b: Float[Tensor, "B C h w"]
) -> Float[Tensor, "B C h w"]:
    """Returns the part of each a that is perpendicular to b:  a - (a . b / b . b) b."""
    dims = (1, 2, 3)
    along = (a * b).sum(dims, keepdim=True) / b.square().sum(dims, keepdim=True).clamp_min(1e-12)
    return a - along * b
