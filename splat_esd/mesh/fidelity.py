"""How like the splat its mesh is: both drawn from views that the texture was not made from."""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from splat_esd.cameras import Cameras, orbit_cameras
from splat_esd.mesh.atlas import Unwrapped
from splat_esd.mesh.raycast import rasterize_mesh
from splat_esd.mesh.texture import sample, sample_points
from splat_esd.mesh.views import DISTANCE, FOVY, Views

VIEWS, VIEW_SIZE = 12, 256
_ELEVATIONS = (-10.0, 15.0, 40.0)  # degrees
_FINE = 2  # rays across a pixel


def held_out() -> Cameras:
    """Returns 12 cameras as far away as the turntable's; low, level and high in turns."""
    turn = torch.arange(VIEWS)
    full = torch.ones(VIEWS)
    return orbit_cameras(
        math.radians(7.5) + 2 * math.pi * turn / VIEWS,
        torch.deg2rad(torch.tensor(_ELEVATIONS)).repeat(VIEWS // len(_ELEVATIONS)),
        DISTANCE * full,
        FOVY * full,
        width=VIEW_SIZE,
        height=VIEW_SIZE,
    )


def compare(
    mesh: Unwrapped, texture: Float[ndarray, "S S 3"], views: Views
) -> dict[str, float | int]:
    """Measures PSNR and SSIM between the mesh and pictures of the splat, both over white.

    Arguments:
        mesh: In the same ball as the views.
        texture: Its colours in [0, 1].
        views: Of the splat, by `held_out` cameras.
    Returns:
        Median and lowest PSNR in decibels, median SSIM, number of views.
    References:
        Image Quality Assessment: From Error Visibility to Structural Similarity (Wang et al.,
        2004).
    """
    from skimage.metrics import structural_similarity

    wanted = views.over_white().numpy()
    psnr, ssim = [], []
    for i, target in enumerate(wanted):
        shown = draw(mesh, texture, views.cameras, i)
        error = max(float(((shown - target) ** 2).mean()), 1e-10)
        psnr.append(-10 * math.log10(error))
        ssim.append(structural_similarity(shown, target, channel_axis=-1, data_range=1.0))
    return {
        "psnr": float(np.median(psnr)),
        "psnr_lowest": float(min(psnr)),
        "ssim": float(np.median(ssim)),
        "views": len(wanted),
    }


def draw(
    mesh: Unwrapped,
    texture: Float[ndarray, "S S 3"],
    cameras: Cameras,
    i: int,
    *,
    ground: float = 1.0,
) -> Float[ndarray, "H W 3"]:
    """Draws the mesh over a grey level as camera i sees it: its texture alone, no lights."""
    height, width = cameras.height, cameras.width
    viewmat, K = cameras.viewmats[i].double().numpy(), cameras.Ks[i].double().numpy()
    hits = rasterize_mesh(
        mesh.points,
        mesh.triangles,
        viewmat,
        K * [[_FINE], [_FINE], [1]],
        width=_FINE * width,
        height=_FINE * height,
    )
    picture = np.full((_FINE * height * _FINE * width, 3), ground, np.float32)
    picture[hits.pixels] = sample(texture, sample_points(mesh, hits))
    return picture.reshape(height, _FINE, width, _FINE, 3).mean((1, 3))
