"""Photographs made worse: shifted, blurred, noisy, before anything, so that a judge of soft
generated pictures has seen the like.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from splat_esd.zoo.prior.dataset import backgrounds

RGBA = Float[Tensor, "B 4 S S"]
RGB = Float[Tensor, "B 3 S S"]


def disturb(rgba: RGBA, generator: torch.Generator) -> RGB:
    """Moves photos (premultiplied), puts them between scenes and clouds, and spoils the picture;
    in [0, 1].
    """
    rgba = becloud(warp(rgba, generator), generator)
    rgb = rgba[:, :3] + (1.0 - rgba[:, 3:]) * scenes(len(rgba), rgba.shape[-1], generator)
    rgb = recolor(rgb, generator)
    chunks = [_spoil(chunk, generator) for chunk in rgb.split(16)]
    return torch.cat(chunks).clamp(0.0, 1.0)


def warp(rgba: RGBA, generator: torch.Generator) -> RGBA:
    """Zooms by 0.75 to 1.15, shifts by up to a tenth, rolls by up to 6 degrees, and pulls out of
    shape by up to a few pixels.
    """
    count, size = len(rgba), rgba.shape[-1]
    roll, right, down, zoom = torch.rand(4, count, generator=generator)
    roll, scale = (2.0 * roll - 1.0) * math.radians(6.0), 1.0 / (0.75 + 0.4 * zoom)
    c, s = scale * roll.cos(), scale * roll.sin()
    rows = [c, -s, 0.4 * right - 0.2, s, c, 0.4 * down - 0.2]
    grid = F.affine_grid(torch.stack(rows, -1).view(-1, 2, 3), list(rgba.shape), False)
    cells = 2 ** int(torch.randint(2, 6, (), generator=generator))
    pull = 0.15 / cells * torch.rand(count, 1, 1, 1, generator=generator)
    pull = pull * _enlarged(torch.randn(count, 2, cells, cells, generator=generator), size)
    return F.grid_sample(rgba, grid + pull.permute(0, 2, 3, 1), align_corners=False)


def becloud(rgba: RGBA, generator: torch.Generator) -> RGBA:
    """Puts clouds before photos, as Gaussians are that are not yet where they belong."""
    count, size = len(rgba), rgba.shape[-1]
    cells = 2 ** int(torch.randint(2, 6, (), generator=generator))
    thick = torch.randn(count, 1, cells, cells, generator=generator)
    clouds = 0.5 * torch.rand(count, 1, 1, 1, generator=generator) * _enlarged(thick, size)
    color = torch.rand(count, 3, 1, 1, generator=generator)
    alpha = (clouds - 0.2).clamp(0.0, 0.5)
    return (1.0 - alpha) * rgba + alpha * torch.cat([color, torch.ones(count, 1, 1, 1)], 1)


def scenes(count: int, size: int, generator: torch.Generator) -> RGB:
    """Draws backgrounds: half of them plain, a quarter gradients, a quarter clouds and noise."""
    plain = backgrounds(count, generator)[:, :, None, None].expand(-1, -1, size, size)
    gradient = _enlarged(backgrounds(4 * count, generator).view(count, 3, 2, 2), size)
    cells = 2 ** int(torch.randint(2, 7, (), generator=generator))
    noise = torch.randn(count, 3, cells, cells, generator=generator)
    clouds = plain + 0.3 * torch.rand(count, 1, 1, 1, generator=generator) * _enlarged(noise, size)
    kind = torch.rand(count, 1, 1, 1, generator=generator)
    return torch.where(kind < 0.5, plain, torch.where(kind < 0.75, gradient, clouds)).clamp(0, 1)


def _enlarged(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def recolor(rgb: RGB, generator: torch.Generator) -> RGB:
    """Changes brightness, contrast and saturation by up to a fifth, and each channel by 3 %."""
    brightness, contrast, saturation = (
        0.4 * torch.rand(3, len(rgb), 1, 1, 1, generator=generator) - 0.2
    )
    tint = 1.0 + 0.03 * torch.randn(len(rgb), 3, 1, 1, generator=generator)
    grey = rgb.mean(1, keepdim=True)
    rgb = grey + (1.0 + saturation) * (rgb - grey)
    return tint * (0.5 + (1.0 + contrast) * (rgb - 0.5)) + 0.5 * brightness


def _spoil(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Lowers the resolution, blurs, compresses or adds noise: each to a third of what
    comes.
    """
    size, (low, soft, packed, noisy) = rgb.shape[-1], torch.rand(4, generator=generator).tolist()
    if low < 1 / 3:
        smaller = round(size * (0.35 + low))
        rgb = _enlarged(F.interpolate(rgb, (smaller, smaller), mode="area"), size)
    if soft < 1 / 3:
        rgb = _blur(rgb, 0.3 + 4.0 * soft)
    if packed < 1 / 3:
        rgb = _compress(rgb, 0.3 * packed)
    if noisy < 1 / 3:
        rgb = rgb + 0.12 * noisy * torch.randn(rgb.shape, generator=generator)
    return rgb


def _blur(rgb: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(2.5 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1.0) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    rgb = F.conv2d(F.pad(rgb, (reach, reach, 0, 0), "replicate"), kernel, groups=3)
    return F.conv2d(F.pad(rgb, (0, 0, reach, reach), "replicate"), kernel.mT, groups=3)


def _compress(rgb: Tensor, strength: float) -> Tensor:
    """Rounds the cosine transform of 8 x 8 blocks, high frequencies more coarsely, as JPEG does."""
    k = torch.arange(8.0)
    dct = 0.5 * torch.cos(math.pi * k[:, None] * (2 * k + 1) / 16)
    dct[0] /= math.sqrt(2.0)
    step = 0.05 * strength + strength * (k[:, None] + k) / 7
    blocks = rgb.unfold(2, 8, 8).unfold(3, 8, 8)
    blocks = dct.mT @ (torch.round(dct @ blocks @ dct.mT / step) * step) @ dct
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(rgb.shape)
