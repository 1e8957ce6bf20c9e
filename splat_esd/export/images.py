"""The splat as a camera on a turntable sees it: colour, what is covered, and how far away it is."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from splat_esd.cameras import Cameras, turntable
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import RenderOutput, rasterize

ELEVATION = math.radians(15)
FOVY = math.radians(45)
DISTANCE = 2.8  # a ball of radius 1 just fits at 45 degrees: 1 / sin(22.5 deg) = 2.61
_FARTHEST_SHADE = 0.2  # grey of the farthest point; what is not there is black


@dataclass(frozen=True, eq=False)
class Images:
    """T views, ready to be written.

    Arguments:
        rgba: Colours not multiplied by their alpha [T, H, W, 4].
        depth: Expected distance along the camera's axis, 0 where nothing is [T, H, W].
    """

    rgba: UInt8[Tensor, "T H W 4"]
    depth: Float[Tensor, "T H W"]

    def over_white(self) -> UInt8[Tensor, "T H W 3"]:
        """Composes over white:  a c + (1 - a)."""
        color, alpha = self.rgba[..., :3].float(), self.rgba[..., 3:].float() / 255
        return (alpha * color + (1 - alpha) * 255).round().byte()

    def strips(self) -> UInt8[Tensor, "T H W3 3"]:
        """Puts colour over white, depth (near is bright) and alpha side by side."""
        alpha = self.rgba[..., 3]
        solid = self.depth[alpha > 127]
        near, far = (solid.amin(), solid.amax()) if len(solid) else (0.0, 1.0)
        away = ((self.depth - near) / max(float(far - near), 1e-6)).clamp(0, 1)
        shade = (1 - (1 - _FARTHEST_SHADE) * away) * alpha
        grey = torch.stack([shade.round().byte(), alpha], 1)[..., None].expand(-1, -1, -1, -1, 3)
        return torch.cat([self.over_white(), grey[:, 0], grey[:, 1]], dim=2)


def to_images(out: RenderOutput) -> Images:
    """Turns what was rendered without a background into pictures."""
    color = (out.rgb.detach() / out.alpha.detach().clamp_min(1e-6)).clamp(0, 1)
    rgba = torch.cat([color, out.alpha.detach().clamp(0, 1)], dim=-1)
    return Images((rgba * 255).round().byte().cpu(), out.depth.detach()[..., 0].cpu())


def render_turntable(gaussians: Gaussians, count: int, *, size: int) -> tuple[Images, Cameras]:
    """Renders views on a circle, the first from the front; a large splat from afar."""
    reach = torch.quantile(gaussians.means.norm(dim=1)[:1_000_000], 0.99).item()
    cameras = turntable(
        count,
        elevation=ELEVATION,
        distance=DISTANCE * max(1.0, reach),
        fovy=FOVY,
        width=size,
        height=size,
    ).to(gaussians.device)
    with torch.no_grad():
        views = [to_images(rasterize(gaussians, cameras[i])) for i in range(count)]
    rgba = torch.cat([view.rgba for view in views])
    return Images(rgba, torch.cat([view.depth for view in views])), cameras
