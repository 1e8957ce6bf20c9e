"""Where the front of a splat is, by asking the prior."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.cameras import turntable
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.prompts import AROUND, PromptBook, named_views, view_weights
from splat_esd.diffusion.text import Text
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import rasterize

SHOWN = 12  # views that are shown to the prior
CANDIDATES = 36  # directions among which the front is sought
ELEVATION, DISTANCE, FOVY = math.radians(15), 2.45, math.radians(43)
TIMES = (0.6, 0.7, 0.75, 0.8, 0.85)  # of the schedule: the less noise, the more details count
GREY = 0.75  # of the background


@torch.no_grad()
def find_front(prior: Prior, book: PromptBook, gaussians: Gaussians, *, seed: int) -> float:
    """Returns the azimuth of the front in degrees, of CANDIDATES around the splat.

    Of K views x_i at azimuths a_i and the words v = front, left, back, right, the prior tells how
    well each word explains each view, by its denoising loss; the front is where all agree best:

        argmin_f  sum_i sum_v  w_v(a_i - f) E_{t, eps} |eps_prior(z_t, t, y_v) - eps|^2

    with w of `view_weights`, the same t and eps for all words, and y_v both "PROMPT, front view"
    and "front view" alone: the prompt may ask for a colour that the splat has not, and the bare
    words may mean little. The losses of one t are divided by their spread among words, since what
    a picture has and the prompt has not adds to all of them.

    References:
        Your Diffusion Model is Secretly a Zero-Shot Classifier (Li et al., 2023), Eq. 7.
    """
    cameras = turntable(
        SHOWN,
        elevation=ELEVATION,
        distance=DISTANCE,
        fovy=FOVY,
        width=prior.image_size,
        height=prior.image_size,
    ).to(prior.device)
    background = torch.full((SHOWN, 3), GREY, device=prior.device)
    z = prior.encode_images(rasterize(gaussians, cameras, background=background).rgb)
    bare = prior.encode_text([f"{view} view" for view in named_views(prior)])
    asked, alone = (denoising_losses(prior, texts, z, seed=seed) for texts in (book.views, bare))
    losses = asked + alone
    around = 2 * math.pi * torch.arange(CANDIDATES) / CANDIDATES
    weights = torch.stack([view_weights(cameras, float(front))[:, :AROUND] for front in around])
    best = (weights.to(losses) * losses).sum((1, 2)).argmin()
    return round(math.degrees(float(around[best])), 1)


def denoising_losses(
    prior: Prior, texts: Text, z: Float[Tensor, "B C h w"], *, seed: int
) -> Float[Tensor, "B V"]:
    """Returns  E_{t, eps} |eps_prior(z_t, t, y) - eps|^2  of each picture under each view's words,
    a sum over TIMES with one eps that all words share, in units of the spread at that time.
    """
    generator = torch.Generator(z.device).manual_seed(seed)
    losses = torch.zeros(len(z), AROUND, device=z.device)
    for time in TIMES:
        t = torch.full((len(z),), int(time * len(prior.schedule)), device=z.device)
        eps = torch.randn(z.shape, generator=generator, device=z.device)
        z_t = prior.schedule.add_noise(z, eps, t)
        found = []
        for view in range(AROUND):
            text = texts.rows(slice(view, view + 1)).expand(len(z))
            off = prior.eps(z_t, t, text) - eps
            found.append(off.square().flatten(1).mean(1))
        at_t = torch.stack(found, dim=1)
        losses += at_t / (at_t - at_t.mean(1, keepdim=True)).std().clamp_min(1e-12)
    return losses
