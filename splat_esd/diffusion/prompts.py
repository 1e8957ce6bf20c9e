"""The prompt as the prior hears it: with the view's name for each camera, and its opposites."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd import console
from splat_esd.cameras import Cameras
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.text import Text

VIEWS = ("front", "left side", "back", "right side", "overhead")
AROUND = 4  # of them make a circle, each a quarter
SIDE = "side"  # either of them, as most priors know it: no caption says which one a photo shows
_FRONT, _BACK, _OVERHEAD = math.radians(45.0), math.radians(135.0), math.radians(60.0)
# Perp-Neg: what each view must not be.
_OPPOSED = torch.tensor([[1, 2], [0, 2], [1, 0], [0, 2], [0, 2]])


def view_index(cameras: Cameras, front: float = 0.0) -> Int[Tensor, " B"]:
    """Names each camera's view as an index into VIEWS: overhead above 60 degrees of elevation,
    else front within 45 degrees of the front's azimuth, back beyond 135, between them the side
    that the camera stands at (a toy seen from its left looks to the left)."""
    turn = _turn(cameras, front)
    view = torch.where(turn > 0, 1, 3)
    view = torch.where(turn.abs() < _FRONT, 0, view)
    view = torch.where(turn.abs() > _BACK, 2, view)
    return torch.where(cameras.elevation > _OVERHEAD, 4, view)


def view_weights(cameras: Cameras, front: float = 0.0) -> Float[Tensor, "B 5"]:
    """Shares each camera out between VIEWS: w = max(0, 1 - |turn - place|), in quarter turns, of
    front, left, back and right at the places 0, 1, 2, 3 of a circle; overhead takes all above 60
    degrees of elevation."""
    quarters = _turn(cameras, front)[:, None] / (math.pi / 2)
    places = torch.arange(4, device=quarters.device)
    around = (1 - (torch.remainder(quarters - places + 2, 4) - 2).abs()).clamp(min=0)
    above = (cameras.elevation > _OVERHEAD).to(around)[:, None]
    return torch.cat([(1 - above) * around, above], dim=1)


def _turn(cameras: Cameras, front: float) -> Float[Tensor, " B"]:
    """Returns how far each camera is turned from the front, in [-pi, pi), to the left if > 0."""
    return torch.remainder(cameras.azimuth - front + math.pi, 2 * math.pi) - math.pi


def named_views(prior: Prior) -> list[str]:
    """Names VIEWS as the prior knows them: left and right side where its vocabulary has the words,
    else "side" for both."""
    told = prior.vocabulary is not None and {"left", "right"} <= prior.vocabulary.words
    return [SIDE if SIDE in view and not told else view for view in VIEWS]


class PromptBook:
    """Holds the embeddings of one prompt: plain, negative, and one for each view.

    Arguments:
        negative_prompt: Words that the prior does not know are left out.
        by_view: Whether the prior hears "..., front view" and the like, or the plain prompt always.
        front: Azimuth of the cameras that see the front, in radians.

    `around` are the different words for the views of a circle, one row each, and `shares` how much
    of it each takes.

    Raises:
        UsageError: If the prompt has a word the prior does not know.
    References:
        DreamFusion (Poole et al., 2022), Sec. 3.2: view-dependent prompts.
    """

    def __init__(
        self,
        prior: Prior,
        prompt: str,
        negative_prompt: str,
        *,
        by_view: bool,
        front: float = 0.0,
    ):
        self.front = front
        prior.check_words(prompt)
        negative_prompt, _ = prior.split_words(negative_prompt)
        views = named_views(prior)
        ending = f", {max(views, key=len)} view" if by_view else ""
        prompt = _cut(prior, prompt, ending)
        negative_prompt = _cut(prior, negative_prompt, "")
        named = [f"{prompt}, {view} view" if by_view else prompt for view in views]
        embedded = prior.encode_text([prompt, negative_prompt, *named])
        self.plain: Text = embedded.rows(slice(0, 1))
        self.negative: Text = embedded.rows(slice(1, 2))
        self.views: Text = embedded.rows(slice(2, None))
        circle = views[:AROUND]
        kinds = [circle.index(view) for view in dict.fromkeys(circle)]
        self.around: list[Text] = [self.views.rows(slice(k, k + 1)) for k in kinds]
        shares = [circle.count(circle[k]) / AROUND for k in kinds]
        self.shares = torch.tensor(shares, device=prior.device)

    def embed(self, cameras: Cameras) -> Text:
        """Returns the embedding of the prompt as seen by each camera, between those of the two
        views beside it:  (1 - r) front + r side  at azimuth r pi / 2, and so on to the back.

        A view halfway to the side that hears "side view" forgets on which side the front is.

        References:
            Perp-Neg (Armandpour et al., 2023): interpolated view prompts.
        """
        return self.views.blend(view_weights(cameras, self.front))

    def opposed(self, cameras: Cameras) -> list[Text]:
        """Returns, for Perp-Neg, the two views that each camera's image must not look like."""
        index = view_index(cameras, self.front).cpu()
        return [self.views.rows(v) for v in _OPPOSED[index].unbind(1)]


def _cut(prior: Prior, prompt: str, ending: str) -> str:
    """Drops words off the prompt's end until the tokenizer keeps the ending, and says which."""
    kept = prompt
    while not prior.fits(kept + ending) and kept:
        kept = kept.rpartition(" ")[0].rstrip(" ,") if " " in kept else kept[:-1]
    if kept != prompt:
        console.warn(
            f"the prompt is longer than the prior reads; left out: {prompt[len(kept) :].strip()!r}."
        )
    return kept
