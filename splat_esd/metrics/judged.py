"""What the zoo's judge says of an asset's turntable."""

import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.metrics.inception import inception_scores
from splat_esd.metrics.janus import Faces, count_faces
from splat_esd.zoo.judge.network import CLASSES, Judge, Verdict, circular_mean
from splat_esd.zoo.world.captions import Composition

_GREYS = (1.0, 0.75, 0.4)  # backgrounds: what is white must be seen too
_BESIDE = 1  # views on each side of the middle of the face that tell what is seen from the front
_RESPECTS = ("object", "color", "accessory")


def judge_views(
    judge: Judge, rgb: Float[Tensor, "K S S 3"], alpha: Float[Tensor, "K S S 1"]
) -> Verdict:
    """Judges premultiplied views before several greys and averages the probabilities."""
    verdicts = [judge((rgb + grey * (1 - alpha)).clamp(0, 1)) for grey in _GREYS]
    mean = {
        name: torch.stack([getattr(v, name) for v in verdicts]).mean(0)
        for name in (*CLASSES, "turn")
    }
    azimuth, sharpness = circular_mean(mean["turn"])
    return Verdict(**mean, azimuth=azimuth, sharpness=sharpness)


def faces(judge: Judge, verdict: Verdict, composition: Composition) -> Faces:
    """Counts the faces of what should be `composition`, by the rule of `count_faces`."""
    return count_faces(
        verdict.azimuth,
        verdict.sharpness,
        has_front=composition.object not in judge.frontless,
    )


def matches_prompt(verdict: Verdict, composition: Composition, front: int) -> dict[str, bool]:
    """Tells in which respects the views around view `front` show what was asked for."""
    count = len(verdict.azimuth)
    views = [(front + k) % count for k in range(-_BESIDE, _BESIDE + 1)]
    respects: list[str] = list(_RESPECTS)
    if composition.accessory_color is not None:
        respects.append("accessory_color")
    answers = {name: getattr(verdict, name)[views].mean(0).argmax().item() for name in respects}
    return {
        name: CLASSES[name][int(index)] == getattr(composition, name)
        for name, index in answers.items()
    }


def variety(verdict: Verdict) -> dict[str, float]:
    """Returns the inception scores of the views; a class is an object seen from one of BINS."""
    joint = verdict.object[:, :, None] * verdict.turn[:, None, :]
    return inception_scores(joint.flatten(1))
