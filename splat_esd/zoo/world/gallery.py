"""The zoo in pictures: every toy from all sides, and everything that can be worn."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from splat_esd.cameras import Cameras, orbit_cameras
from splat_esd.zoo.world.accessories import ACCESSORIES
from splat_esd.zoo.world.captions import Composition
from splat_esd.zoo.world.compose import build
from splat_esd.zoo.world.objects import OBJECTS
from splat_esd.zoo.world.palette import COLORS
from splat_esd.zoo.world.render import render_parts

SIDES = 8
_COLUMNS = 2  # toys beside each other in the gallery
_PAPER = (0.93, 0.93, 0.95)

Picture = Float[np.ndarray, "S S 3"]


def portrait(composition: Composition, cameras: Cameras) -> list[Picture]:
    """Renders a composition from every camera, over a pale background."""
    parts, pictures = build(composition), []
    for view, K in zip(cameras.viewmats.numpy(), cameras.Ks.numpy(), strict=True):
        rgba = render_parts(parts, view, K, cameras.width)
        pictures.append(rgba[..., :3] + (1 - rgba[..., 3:]) * np.asarray(_PAPER, np.float32))
    return pictures


def write_gallery(path: Path, *, size: int = 72) -> None:
    """Writes one picture of all toys in their own colours, each from `SIDES` sides in a row; below
    them everything that can be worn, a row for each.
    """
    cameras = _around(torch.arange(SIDES) * 360 / SIDES, size)
    rows = [np.hstack(portrait(Composition(name), cameras)) for name in OBJECTS]
    toys = _grid(rows, _COLUMNS)
    _write(np.vstack([toys, _accessories(size, _COLUMNS * SIDES)]), path)


def _accessories(size: int, toys: int) -> np.ndarray:
    """Draws a row for each accessory, worn by toys in changing colours; what is worn on the back
    is seen from behind every other time.
    """
    cells, colors, names = [], list(COLORS), list(OBJECTS)
    for i, accessory in enumerate(ACCESSORIES):
        for k in range(toys):
            # Steps without a common divisor with the number of names: no toy comes twice soon.
            name, dye = names[(7 * i + 3 * k) % len(names)], colors[(3 * k + i) % len(colors)]
            color = None if k % 2 else colors[(5 * k + i + 2) % len(colors)]
            azimuth = 205.0 if accessory == "backpack" and k % 2 else 20.0
            camera = _around(torch.tensor([azimuth]), size)
            cells += portrait(Composition(name, color, accessory, dye), camera)
    return _grid(cells, toys)


def _around(degrees: torch.Tensor, size: int) -> Cameras:
    azimuth = torch.deg2rad(degrees.float())
    elevation, distance, fovy = (torch.full_like(azimuth, v) for v in (0.26, 2.3, 0.72))
    return orbit_cameras(azimuth, elevation, distance, fovy, width=size, height=size)


def _grid(cells: list[np.ndarray], columns: int) -> np.ndarray:
    """Sets pictures of one size side by side, row by row; blank to the end of the last row."""
    blank = np.broadcast_to(np.asarray(_PAPER, np.float32), cells[0].shape)
    cells = cells + [blank] * (-len(cells) % columns)
    rest = iter(cells)
    return np.vstack([np.hstack(row) for row in iter(lambda: list(islice(rest, columns)), [])])


def _write(picture: np.ndarray, path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.rint(255 * picture).astype(np.uint8)).save(path, "PNG", optimize=True)
