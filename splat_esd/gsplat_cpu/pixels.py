"""gsplat's operators from splats on image planes to pixels."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from splat_esd.gsplat_cpu.inputs import expect, expect_ids, refuse_all_but_float32, typed
from splat_esd.rasterize import cpu
from splat_esd.rasterize.autograd import empty, kernels

TILE = 16  # pixels; the only size that the kernels draw
MOST_TILES = 2**26


@typed
@torch.no_grad()
def intersect_tile(
    means2d: Tensor,
    radii: Tensor,
    depths: Tensor,
    image_ids: Tensor | None,
    gaussian_ids: Tensor | None,
    n_images: int,
    tile_size: int,
    tile_width: int,
    tile_height: int,
    sort: bool,
    segmented: bool,
):
    """Lists which splats touch which tiles: tiles_per_gauss, isect_ids, flatten_ids.

    Always sorted, and of `segmented` and plain sorting the result is the same.
    """
    refuse_all_but_float32(means2d=means2d, depths=depths)
    if depths.ndim == 0:
        raise ValueError("depths: expected a list of them, got one number.")
    expect("means2d", means2d, *depths.shape, 2)
    expect("radii", radii, *depths.shape, 2)
    expect("image_ids", image_ids, *depths.shape)
    expect_ids("image_ids", image_ids, n_images)
    if image_ids is None:
        first = torch.arange(n_images + 1) * depths.shape[-1]
    elif (image_ids.diff() < 0).any():
        raise NotImplementedError("image_ids: only ascending ones, as projection packs them.")
    else:
        counts = torch.bincount(image_ids, minlength=n_images)
        first = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    counts, *rest = cpu.intersect(
        means2d, radii, depths, first, tile_size=tile_size, columns=tile_width, rows=tile_height
    )
    return counts.view(depths.shape), *rest


@typed
def intersect_offset(
    isect_ids: Int[Tensor, " P"], n_images: int, tile_width: int, tile_height: int
) -> Int[Tensor, "I h w"]:
    """Tells where each tile begins in the sorted list."""
    tiles = tile_width * tile_height
    if n_images * tiles > MOST_TILES:
        raise ValueError(f"n_images: {n_images} of {tiles} tiles are more than {MOST_TILES} tiles.")
    if isect_ids.dtype != torch.int64 or isect_ids.ndim != 1:
        raise ValueError(f"isect_ids: expected a list of int64, got {isect_ids.dtype}.")
    keys, bits = isect_ids >> 32, tiles.bit_length()
    flat = (keys >> bits) * tiles + (keys & ((1 << bits) - 1))
    offsets = torch.searchsorted(flat, torch.arange(n_images * tiles))
    return offsets.int().view(n_images, tile_height, tile_width)


@typed
@torch.no_grad()
def rasterize_to_pixels_3dgs_fwd(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    backgrounds: Tensor | None,
    masks: Tensor | None,
    width: int,
    height: int,
    tile_size: int,
    offsets: Tensor,
    flatten_ids: Tensor,
):
    """Blends front to back: colours, alphas, and last_ids.

    last_ids says nothing of pixels here: it carries what the backward pass needs, which gsplat
    hands back to us with it, unless a hook on saved tensors hands back a copy.
    """
    if tile_size != TILE:
        raise NotImplementedError(f"tile_size={tile_size}: only {TILE} is there.")
    refuse_all_but_float32(
        means2d=means2d, conics=conics, colors=colors, opacities=opacities, backgrounds=backgrounds
    )
    _check_splats(means2d, conics, colors, opacities)
    if offsets.ndim < 2:
        raise ValueError(f"offsets: expected [..., rows, columns], got {list(offsets.shape)}.")
    if offsets.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"offsets: expected int32 or int64, got {offsets.dtype}.")
    images = offsets.shape[:-2]
    expect("offsets", offsets, *images, -(-height // TILE), -(-width // TILE))
    expect("backgrounds", backgrounds, *images, colors.shape[-1])
    expect("masks", masks, *offsets.shape)
    cameras, channels = images.numel(), colors.shape[-1]
    image, alpha = (empty(cameras, height, width, x) for x in (channels, 1))
    ends = torch.tensor([len(flatten_ids)])
    plan = kernels.rasterize(
        *_flat_splats(means2d, conics, colors, opacities),
        None if backgrounds is None else backgrounds.reshape(cameras, channels).contiguous(),
        None if masks is None else masks.reshape(-1).contiguous(),
        torch.cat([offsets.reshape(-1).long(), ends]),
        flatten_ids.contiguous(),
        image,
        alpha,
        torch.get_num_threads(),
    )
    shape = (*images, height, width)
    last_ids: Any = torch.zeros(shape, dtype=torch.int32)
    last_ids.plan, last_ids.image = plan, image
    return image.view(*shape, channels), alpha.view(*shape, 1), last_ids


@typed
@torch.no_grad()
def rasterize_to_pixels_3dgs_bwd(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    backgrounds: Tensor | None,
    masks: Tensor | None,
    width: int,
    height: int,
    tile_size: int,
    offsets: Tensor,
    flatten_ids: Tensor,
    render_alphas: Tensor,
    last_ids: Any,
    v_colors: Tensor,
    v_alphas: Tensor,
    absgrad: bool,
):
    """Back from images to splats: absolute and plain gradients of means2d, and the others."""
    channels = colors.shape[-1]
    if absgrad and channels > 4:
        raise NotImplementedError(f"absgrad is there for at most 4 channels, got {channels}.")
    if not hasattr(last_ids, "plan"):
        _, _, last_ids = rasterize_to_pixels_3dgs_fwd(
            means2d, conics, colors, opacities, backgrounds, masks, width, height, tile_size,
            offsets, flatten_ids,
        )  # fmt: skip
    _check_splats(means2d, conics, colors, opacities)
    shape = last_ids.image.shape
    for name, given, last in (
        ("render_alphas", render_alphas, 1), ("v_colors", v_colors, shape[-1]),
        ("v_alphas", v_alphas, 1),
    ):  # fmt: skip
        if given.numel() != shape[:-1].numel() * last:
            raise ValueError(f"{name}: expected as many numbers as the image has.")
        if not given.is_floating_point():
            raise ValueError(f"{name}: expected float32, got {given.dtype}.")
    splats = _flat_splats(means2d, conics, colors, opacities)
    found = [torch.zeros_like(x) for x in splats]
    absolute = torch.zeros_like(found[0]) if absgrad else None
    image = last_ids.image
    kernels.blend_backward(
        last_ids.plan, splats[1], splats[2], splats[3], image,
        render_alphas.float().reshape(*image.shape[:-1], 1).contiguous(), None,
        v_colors.reshape(image.shape).contiguous(),
        v_alphas.reshape(*image.shape[:-1], 1).contiguous(), None,
        *found, None, None, absolute, torch.get_num_threads(),
    )  # fmt: skip
    shapes = [x.shape for x in (means2d, conics, colors, opacities)]
    found = [v.view(shape) for v, shape in zip(found, shapes, strict=True)]
    return None if absolute is None else absolute.view(means2d.shape), *found


def _check_splats(means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor) -> None:
    splats = opacities.shape
    expect("means2d", means2d, *splats, 2)
    expect("conics", conics, *splats, 3)
    if colors.ndim == 0 or colors.shape[-1] == 0:
        raise ValueError("colors: expected one channel or more, got none.")
    expect("colors", colors, *splats, colors.shape[-1])


def _flat_splats(means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor):
    return (
        means2d.detach().reshape(-1, 2).contiguous(),
        conics.detach().reshape(-1, 3).contiguous(),
        colors.detach().reshape(-1, colors.shape[-1]).contiguous(),
        opacities.detach().reshape(-1).contiguous(),
    )
