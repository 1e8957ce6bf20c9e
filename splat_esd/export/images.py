"""The splat as a camera on a turntable sees it: colour, what is covered, and how far away it is."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from splat_esd.cameras import Cameras, turntable
from splat_esd.formats.frame import Frame, viewing_frame
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import RenderOutput, rasterize

ELEVATION = math.radians(15)
FOVY = math.radians(45)
DISTANCE = 2.8  # a ball of radius 1 just fits at 45 degrees: 1 / sin(22.5 deg) = 2.61
_FILLS, _FILLS_WIDTH = 0.75, 0.9  # of a picture's height, of its width
_LOOKS, _LOOK_SIZE = 8, 96  # views, pixels
GROUND = 214  # grey level behind the object: white paws vanish on white
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

    def over_grey(self, grey: int = GROUND) -> UInt8[Tensor, "T H W 3"]:
        """Composes over a grey level in [0, 255]:  a c + (1 - a) grey."""
        color, alpha = self.rgba[..., :3].float(), self.rgba[..., 3:].float() / 255
        return (alpha * color + (1 - alpha) * grey).round().byte()

    def strips(self) -> UInt8[Tensor, "T H W3 3"]:
        """Puts colour over grey, depth (near is bright) and alpha side by side."""
        alpha = self.rgba[..., 3]
        solid = self.depth[alpha > 127]
        near, far = (solid.amin(), solid.amax()) if len(solid) else (0.0, 1.0)
        away = ((self.depth - near) / max(float(far - near), 1e-6)).clamp(0, 1)
        shade = (1 - (1 - _FARTHEST_SHADE) * away) * alpha
        grey = torch.stack([shade.round().byte(), alpha], 1)[..., None].expand(-1, -1, -1, -1, 3)
        return torch.cat([self.over_grey(), grey[:, 0], grey[:, 1]], dim=2)


def to_images(out: RenderOutput) -> Images:
    """Turns what was rendered without a background into pictures."""
    color = (out.rgb.detach() / out.alpha.detach().clamp_min(1e-6)).clamp(0, 1)
    rgba = torch.cat([color, out.alpha.detach().clamp(0, 1)], dim=-1)
    return Images((rgba * 255).round().byte().cpu(), out.depth.detach()[..., 0].cpu())


def render_turntable(gaussians: Gaussians, count: int, *, size: int) -> tuple[Images, Cameras]:
    """Renders views on a circle, the first from the front, around the splat's portrait frame."""
    gaussians = portrait_frame(gaussians).place(gaussians)
    cameras = portrait_cameras(count, size).to(gaussians.device)
    with torch.no_grad():
        views = [to_images(rasterize(gaussians, cameras[i])) for i in range(count)]
    rgba = torch.cat([view.rgba for view in views])
    return Images(rgba, torch.cat([view.depth for view in views])), cameras


def portrait_frame(gaussians: Gaussians) -> Frame:
    """Returns the ball for which the object, seen from DISTANCE at FOVY, fills `_FILLS` of a
    square picture's height, or `_FILLS_WIDTH` of its width, over a whole turn.

    It starts at the viewing frame and measures what is covered in small renders.
    """
    gaussians = gaussians.detach()
    frame = viewing_frame(gaussians)
    for _ in range(2):  # once more, for perspective
        frame = _fitted(gaussians, frame)
    return frame


def portrait_cameras(count: int, size: int) -> Cameras:
    """Returns cameras on a circle around a `portrait_frame`, the first in front."""
    return turntable(
        count, elevation=ELEVATION, distance=DISTANCE, fovy=FOVY, width=size, height=size
    )


@torch.no_grad()
def _fitted(gaussians: Gaussians, frame: Frame) -> Frame:
    cameras = portrait_cameras(_LOOKS, _LOOK_SIZE).to(gaussians.device)
    covered = rasterize(frame.place(gaussians), cameras).alpha[..., 0].amax(0) > 0.5
    rows, columns = (covered.any(dim).nonzero()[:, 0].cpu() for dim in (1, 0))
    if not len(rows):
        return frame
    top, bottom = (1 - 2 * edge / _LOOK_SIZE for edge in (rows[0].item(), rows[-1].item() + 1))
    outer = max(_LOOK_SIZE / 2 - columns[0].item(), columns[-1].item() + 1 - _LOOK_SIZE / 2)
    wider = max((top - bottom) / 2 / _FILLS, outer / (_LOOK_SIZE / 2) / _FILLS_WIDTH)
    # Half the picture's height, at the object's distance, in the world's units.
    half = frame.radius * DISTANCE * math.tan(FOVY / 2)
    up = np.array([0.0, 0.0, (top + bottom) / 2 * half / math.cos(ELEVATION)])
    return Frame(frame.center + up, frame.radius * wider)
