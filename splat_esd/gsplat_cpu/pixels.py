"""gsplat's operators from splats on image planes to pixels."""

import torch
from jaxtyping import Int
from torch import Tensor

from splat_esd.gsplat_cpu.inputs import refuse_all_but_float32
from splat_esd.rasterize import cpu
from splat_esd.rasterize.autograd import kernels

TILE = 16  # pixels; the only size that the kernels draw


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


def intersect_offset(
    isect_ids: Int[Tensor, " P"], n_images: int, tile_width: int, tile_height: int
) -> Int[Tensor, "I h w"]:
    """Tells where each tile begins in the sorted list."""
    tiles = tile_width * tile_height
    keys, bits = isect_ids >> 32, tiles.bit_length()
    flat = (keys >> bits) * tiles + (keys & ((1 << bits) - 1))
    offsets = torch.searchsorted(flat, torch.arange(n_images * tiles))
    return offsets.int().view(n_images, tile_height, tile_width)


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
    offsets: Tensor | None,
    flatten_ids: Tensor | None,
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
    cameras, channels = offsets.shape[:-2].numel(), colors.shape[-1]
    image = torch.empty(cameras, height, width, channels)
    alpha = torch.empty(cameras, height, width, 1)
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
    shape = (*offsets.shape[:-2], height, width)
    last_ids = torch.zeros(shape, dtype=torch.int32)
    last_ids.plan, last_ids.image = plan, image
    return image.view(*shape, channels), alpha.view(*shape, 1), last_ids


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
    offsets: Tensor | None,
    flatten_ids: Tensor | None,
    render_alphas: Tensor | None,
    last_ids: Tensor | None,
    v_colors: Tensor,
    v_alphas: Tensor | None,
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
    splats = _flat_splats(means2d, conics, colors, opacities)
    found = [torch.zeros_like(x) for x in splats]
    absolute = torch.zeros_like(found[0]) if absgrad else None
    image = last_ids.image
    kernels.blend_backward(
        *last_ids.plan, splats[1], splats[2], splats[3], image,
        render_alphas.float().reshape(*image.shape[:-1], 1).contiguous(), None,
        v_colors.reshape(image.shape).contiguous(),
        v_alphas.reshape(*image.shape[:-1], 1).contiguous(), None,
        *found, None, None, absolute, torch.get_num_threads(),
    )  # fmt: skip
    shapes = [x.shape for x in (means2d, conics, colors, opacities)]
    found = [v.view(shape) for v, shape in zip(found, shapes, strict=True)]
    return None if absolute is None else absolute.view(means2d.shape), *found


def _flat_splats(means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor):
    return (
        means2d.detach().reshape(-1, 2).contiguous(),
        conics.detach().reshape(-1, 3).contiguous(),
        colors.detach().reshape(-1, colors.shape[-1]).contiguous(),
        opacities.detach().reshape(-1).contiguous(),
    )
