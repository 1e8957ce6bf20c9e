"""gsplat's `rasterization`, argument by argument, on a CPU: for programs written for gsplat 1.5.

    from splat_esd.gsplat_cpu.rasterization import rasterization

gsplat itself is not needed, and its strategies run on what comes back.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.gsplat_cpu.inputs import expect, refuse_all_but_float32, typed
from splat_esd.rasterize import cpu

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
_ISECT = ("tiles_per_gauss", "isect_ids", "flatten_ids", "isect_offsets")
_DEGREES = {0: 1, 1: 4, 2: 9, 3: 16}


class Meta(dict):
    """What gsplat returns beside the images, under gsplat's names.

    What belongs to intersections of splats and tiles is counted when it is first asked for.
    """

    def __missing__(self, key: str) -> Any:
        if key not in _ISECT:
            raise KeyError(key)
        self.update(zip(_ISECT, _intersect(self), strict=True))
        return self[key]


@typed
def rasterization(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: str = "pinhole",
    segmented: bool = False,
    covars: Tensor | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "C H W X"], Float[Tensor, "C H W 1"], Meta]:
    """Draws as `gsplat.rasterization` of version 1.5 does, with our C++ kernels.

    Arguments mean what they mean there, without batch dimensions. `tile_size` decides only what
    meta says of tiles; `channel_chunk` and `segmented` change nothing. Gradients reach means,
    quats, scales, opacities, colors, backgrounds, viewmats and covars.

    Returns:
        Colours with X channels (D, 1 for the modes D and ED, D + 1 for RGB+D and RGB+ED), alphas,
        and meta: in the packed layout for nnz visible couples of camera and Gaussian, else with
        radii 0 where culled. `meta["means2d"]` may `retain_grad()`, and has `.absgrad` after the
        backward pass if that was asked for.
    Raises:
        NotImplementedError: If something is asked for that only gsplat has; it is named.
        ValueError: If shapes do not fit, or the tensors are not float32 on the CPU.
    References:
        gsplat (Ye et al., 2024). https://arxiv.org/abs/2409.06765
    """
    _refuse_what_only_gsplat_has(
        others | {"sparse_grad": sparse_grad, "distributed": distributed},
        means=means,
        camera_model=camera_model,
        sh_degree=sh_degree,
    )
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode must be one of {RENDER_MODES}, got {render_mode!r}.")
    if rasterize_mode not in ("classic", "antialiased"):
        raise ValueError(
            f"rasterize_mode must be 'classic' or 'antialiased', got {rasterize_mode!r}."
        )
    _check_shapes(means, quats, scales, opacities, colors, viewmats, Ks, covars, sh_degree)
    refuse_all_but_float32(
        means=means, quats=quats, scales=scales, opacities=opacities, colors=colors,
        viewmats=viewmats, Ks=Ks, covars=covars, backgrounds=backgrounds,
    )  # fmt: skip
    if render_mode not in ("D", "ED"):
        expect("backgrounds", backgrounds, len(viewmats), colors.shape[-1])

    view = cpu.View(
        width, height, near_plane, far_plane, eps2d, rasterize_mode == "antialiased", radius_clip
    )
    shared_sh = None
    if sh_degree is not None and colors.ndim == 3:
        shared_sh = colors[:, : _DEGREES[sh_degree]]
    splats = cpu.project(
        means,
        quats if covars is None else None,
        scales if covars is None else None,
        opacities,
        shared_sh,
        viewmats,
        Ks,
        view,
        covars=None if covars is None else _upper_triangle(covars),
    )
    if splats.colors is not None:
        colors = splats.colors
    elif sh_degree is not None:
        colors = _colors_of_each_camera(sh_degree, means, viewmats, colors)
    else:
        colors = colors.expand(len(viewmats), *colors.shape[-2:])

    meta = Meta(batch_ids=None, camera_ids=None, gaussian_ids=None)
    first = None
    if packed:
        splats, colors, first, ids = _pack(splats, colors)
        meta |= ids
    meta |= {
        "radii": splats.radii,
        "means2d": splats.means2d,
        "depths": splats.depths,
        "conics": splats.conics,
        "opacities": splats.opacities,
        "tile_width": -(-width // tile_size),
        "tile_height": -(-height // tile_size),
        "tile_size": tile_size,
        "width": width,
        "height": height,
        "n_batches": 1,
        "n_cameras": len(viewmats),
    }
    images, alphas = _draw(
        splats, colors, backgrounds, first, (width, height), render_mode, absgrad
    )
    return images, alphas, meta


def _draw(
    splats: cpu.Projected,
    colors: Tensor,
    backgrounds: Tensor | None,
    first: Tensor | None,
    size: tuple[int, int],
    render_mode: str,
    absgrad: bool,
):
    """Blends what the mode asks for; the depth's background is 0."""
    depths = splats.depths[..., None]
    wanted = {"RGB": colors, "D": depths, "ED": depths}.get(render_mode)
    # Three channels bring their expected depth along.
    joined = render_mode == "RGB+ED" and colors.shape[-1] == 3
    if wanted is None:
        wanted = colors if joined else torch.cat([colors, depths], dim=-1)
    if absgrad and wanted.shape[-1] > 4:
        raise NotImplementedError(
            f"absgrad is there for at most 4 channels, depth included; got {wanted.shape[-1]}."
        )
    if backgrounds is not None and not joined:
        if render_mode in ("D", "ED"):
            backgrounds = None
        elif render_mode != "RGB":
            backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(len(backgrounds), 1)], -1)
    images, alphas, mean_depth = cpu.blend(
        splats._replace(colors=wanted), backgrounds, size=size, absgrad=absgrad, first=first
    )
    if joined:
        images = torch.cat([images, mean_depth], dim=-1)
    elif render_mode in ("ED", "RGB+ED"):
        mean = images[..., -1:] / alphas.clamp_min(1e-10)
        images = torch.cat([images[..., :-1], mean], dim=-1)
    return images, alphas


def _pack(splats: cpu.Projected, colors: Tensor):
    """Keeps the visible couples of camera and Gaussian only, camera by camera."""
    n = splats.depths.shape[1]
    visible = (splats.radii > 0).all(-1)
    which = visible.flatten().nonzero().squeeze(-1)
    first = torch.nn.functional.pad(visible.sum(1).cumsum(0), (1, 0))
    kept: Any = [None if x is None else x.flatten(0, 1)[which] for x in splats]
    ids = {
        "batch_ids": torch.zeros_like(which),
        "camera_ids": which // max(n, 1),
        "gaussian_ids": which % max(n, 1),
    }
    return cpu.Projected(*kept), colors.flatten(0, 1)[which], first, ids


def _colors_of_each_camera(sh_degree: int, means: Tensor, viewmats: Tensor, sh: Tensor):
    """Colours from coefficients that every camera has of its own, [C, N, K, 3]."""
    centers = torch.inverse(viewmats)[:, None, :3, 3]
    directions = (means - centers).flatten(0, 1)
    colors = cpu.spherical_harmonics(sh_degree, directions, sh.flatten(0, 1))
    return (colors + 0.5).clamp_min(0.0).unflatten(0, sh.shape[:2])


def _upper_triangle(covars: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N 6"]:
    rows, columns = torch.triu_indices(3, 3)
    return covars[:, rows, columns]


def _intersect(meta: Meta) -> tuple[Int[Tensor, "..."], ...]:
    """Counts, keys and order of splats and tiles, and where each tile begins in them."""
    cameras, tiles = meta["n_cameras"], meta["tile_width"] * meta["tile_height"]
    if meta["camera_ids"] is None:
        first = torch.arange(cameras + 1) * meta["depths"].shape[1]
    else:
        counts = meta["camera_ids"].bincount(minlength=cameras)
        first = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    counts, keys, order = cpu.intersect(
        meta["means2d"], meta["radii"], meta["depths"], first,
        tile_size=meta["tile_size"], columns=meta["tile_width"], rows=meta["tile_height"],
    )  # fmt: skip
    tile = keys >> 32
    bits = tiles.bit_length()
    flat = (tile >> bits) * tiles + (tile & ((1 << bits) - 1))
    offsets = torch.searchsorted(flat, torch.arange(cameras * tiles)).int()
    return (
        counts.view(meta["depths"].shape),
        keys,
        order,
        offsets.view(cameras, meta["tile_height"], meta["tile_width"]),
    )


def _refuse_what_only_gsplat_has(
    options: dict[str, Any], *, means: Tensor, camera_model: Any, sh_degree: int | None
) -> None:
    known = {
        "sparse_grad", "distributed", "with_ut", "with_eval3d", "radial_coeffs",
        "tangential_coeffs", "thin_prism_coeffs", "ftheta_coeffs", "rolling_shutter", "viewmats_rs",
    }  # fmt: skip
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"rasterization() got an unexpected keyword argument {name!r}")
        if value is not None and value is not False and getattr(value, "name", "") != "GLOBAL":
            raise NotImplementedError(f"{name}: only gsplat on a GPU has it.")
    if camera_model != "pinhole":
        raise NotImplementedError(f"camera_model={camera_model!r}: only 'pinhole' is there.")
    if sh_degree is not None and sh_degree not in _DEGREES:
        raise NotImplementedError(f"sh_degree={sh_degree}: only degrees 0 to 3 are there.")
    if means.ndim > 2:
        raise NotImplementedError(
            f"batch dimensions: means [N, 3] is wanted, got {list(means.shape)}; call it for each."
        )


def _check_shapes(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    covars: Tensor | None,
    sh_degree: int | None,
) -> None:
    for name, tensor in {"means": means, "viewmats": viewmats}.items():
        if tensor.ndim == 0:
            raise ValueError(f"{name}: expected a list of them, got one number.")
    n, cameras = len(means), len(viewmats)
    wanted = {
        "means": (means, (n, 3)),
        "opacities": (opacities, (n,)),
        "viewmats": (viewmats, (cameras, 4, 4)),
        "Ks": (Ks, (cameras, 3, 3)),
    }
    if covars is None:
        wanted |= {"quats": (quats, (n, 4)), "scales": (scales, (n, 3))}
    else:
        wanted["covars"] = (covars, (n, 3, 3))
    for name, (tensor, shape) in wanted.items():
        if tensor is None or tensor.shape != shape:
            got = None if tensor is None else list(tensor.shape)
            raise ValueError(f"{name}: expected shape {list(shape)}, got {got}.")
    rows = 1 if sh_degree is None else 2
    leading = colors.shape[:-rows]
    if colors.ndim <= rows or leading not in ((n,), (cameras, n)):
        raise ValueError(
            f"colors: expected [N, ...] or [C, N, ...] with N = {n}, C = {cameras}, "
            f"got {list(colors.shape)}."
        )
    if colors.shape[-1] == 0:
        raise ValueError("colors: expected one channel or more, got none.")
    if sh_degree is not None:
        least = _DEGREES[sh_degree]
        if colors.shape[-1] != 3 or colors.shape[-2] < least:
            raise ValueError(
                f"colors: sh_degree={sh_degree} wants [..., K, 3] with K >= {least}, "
                f"got {list(colors.shape)}."
            )
