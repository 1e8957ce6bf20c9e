"""Fidelity: an asset's views beside those of the real thing, which the zoo has."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.cameras import Cameras
from splat_esd.zoo.world.captions import Composition
from splat_esd.zoo.world.compose import build
from splat_esd.zoo.world.render import render_parts


def true_views(composition: Composition, cameras: Cameras) -> Float[Tensor, "B H W 3"]:
    """Renders the real thing before white, colours in [0, 1]; for metrics, never for generation.

    Raises:
        ValueError: If the pictures are not square.
    """
    if cameras.width != cameras.height:
        raise ValueError(f"cameras: expected square ones, got {cameras.width} x {cameras.height}.")
    parts, pictures = build(composition), []
    for view, K in zip(cameras.viewmats.numpy(), cameras.Ks.numpy(), strict=True):
        rgba = render_parts(parts, view, K, cameras.width)
        pictures.append(rgba[..., :3] + 1.0 - rgba[..., 3:])
    return torch.from_numpy(np.stack(pictures)).float()


def psnr(a: Float[Tensor, "B H W 3"], b: Float[Tensor, "B H W 3"]) -> Float[Tensor, " B"]:
    """Returns -10 log10 of each picture's mean squared error, in dB; colours in [0, 1]."""
    error = (a - b).square().mean(dim=(1, 2, 3))
    return -10.0 * error.clamp_min(1e-10).log10()


def ssim(a: Float[Tensor, "B H W 3"], b: Float[Tensor, "B H W 3"]) -> Float[Tensor, " B"]:
    """Returns each picture's structural similarity, in [-1, 1].

    References:
        Image Quality Assessment (Wang et al., 2004), with scikit-image's window of 7 x 7.
    """
    from skimage.metrics import structural_similarity

    pairs = zip(a.numpy(), b.numpy(), strict=True)
    values = [structural_similarity(x, y, channel_axis=-1, data_range=1.0) for x, y in pairs]
    return torch.tensor(values, dtype=torch.float32)


def aligned_fidelity(
    views: Float[Tensor, "K H W 3"], truth: Float[Tensor, "K H W 3"]
) -> dict[str, float]:
    """Compares turntables after turning one so that they agree best: a prompt asks for no azimuth.

    Returns:
        Mean `psnr` in dB and `ssim` over the K views, and the `turn` in degrees that was taken.
    """
    turns = [psnr(views.roll(-k, dims=0), truth).mean().item() for k in range(len(views))]
    best = int(np.argmax(turns))
    turned = views.roll(-best, dims=0)
    return {
        "psnr": round(turns[best], 3),
        "ssim": round(ssim(turned, truth).mean().item(), 4),
        "turn": best * 360.0 / len(views),
    }
