"""Terms beside the score: less fog, fewer blobs, no impossible colours."""

from jaxtyping import Float
from torch import Tensor

from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import RenderOutput


def regularize(
    out: RenderOutput, gaussians: Gaussians, *, cover: float, scale: float, range: float
) -> Float[Tensor, ""]:
    """Returns  cover * sum A + range * sum |x - clamp(x, 0, 1)|^2 + scale * mean(s).

    Sums run over the pixels of a view, means over views. A is a pixel's alpha and x its colour,
    which splats may drive beyond what a picture can hold. s are the Gaussians' standard deviations
    along their axes, in world units.
    """
    views = len(out.rgb)
    cover_of_views = out.alpha.sum() / views
    excess = (out.rgb - out.rgb.clamp(0.0, 1.0)).square().sum() / views
    return cover * cover_of_views + range * excess + scale * gaussians.scales.mean()
