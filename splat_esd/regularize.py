"""Terms beside the score: less haze, fewer blobs."""

from jaxtyping import Float
from torch import Tensor

from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import RenderOutput


def regularize(
    out: RenderOutput, gaussians: Gaussians, *, opacity: float, scale: float
) -> Float[Tensor, ""]:
    """Returns  opacity * mean(4 A (1 - A)) + scale * mean(s).

    A is each pixel's alpha: haze is what is neither there nor not. s are the Gaussians' standard
    deviations along their axes, in world units.
    """
    haze = (4.0 * out.alpha * (1.0 - out.alpha)).mean()
    return opacity * haze + scale * gaussians.scales.mean()
