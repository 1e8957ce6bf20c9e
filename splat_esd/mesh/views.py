"""What a splat looks like from all sides: the pictures that a mesh is made from."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.cameras import Cameras, fibonacci_cameras
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import rasterize

FOVY = math.radians(45)
DISTANCE = 2.8  # a ball of radius 1 just fits at 45 degrees: 1 / sin(22.5 deg) = 2.61


@dataclass(frozen=True, eq=False)
class Views:
    """What B cameras see; colours are premultiplied, as over black.

    Arguments:
        cameras: Where from.
        rgb: sum_i w_i c_i [B, H, W, 3].
        alpha: sum_i w_i [B, H, W].
        depth: Expected camera z; 0 where alpha is 0 [B, H, W].
    """

    cameras: Cameras
    rgb: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W"]
    depth: Float[Tensor, "B H W"]

    def over_white(self) -> Float[Tensor, "B H W 3"]:
        """Composes over white:  rgb + (1 - alpha), in [0, 1]."""
        return (self.rgb + 1 - self.alpha[..., None]).clamp(0, 1)


def around(count: int, *, size: int) -> Cameras:
    """Spreads cameras evenly around the unit ball, which fits into their pictures."""
    return fibonacci_cameras(count, distance=DISTANCE, fovy=FOVY, width=size, height=size)


@torch.no_grad()
def render_views(gaussians: Gaussians, cameras: Cameras) -> Views:
    """Renders a splat that lies in its frame, one view at a time."""
    shape = (len(cameras), cameras.height, cameras.width)
    rgb, alpha, depth = torch.empty(*shape, 3), torch.empty(shape), torch.empty(shape)
    for i in range(len(cameras)):
        shot = rasterize(gaussians, cameras[i].to(gaussians.device))
        rgb[i], alpha[i], depth[i] = shot.rgb[0], shot.alpha[0, ..., 0], shot.depth[0, ..., 0]
    return Views(cameras, rgb, alpha, depth)
