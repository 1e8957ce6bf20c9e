"""Splats as .splat, the 32 bytes of the first viewer for the web (antimatter15/splat).

For each splat, little-endian: centre (3 float32), standard deviations (3 float32), red green blue
opacity (4 bytes), rotation (w x y z, 4 bytes:  128 + 128 q). Colours are those of degree 0.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat_esd.formats.atomic import replacing
from splat_esd.formats.orient import upright_parts
from splat_esd.gaussians import Gaussians

_ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def write_splat(gaussians: Gaussians, path: Path | str, *, up: str = "-y") -> Path:
    """Writes splats as .splat, all at once or not at all.

    Arguments:
        up: "-y" (what viewers of this format expect), "y" or "z".
    Raises:
        ValueError: If there are no splats, a value is not finite, or `up` is unknown.
        EnvironmentProblem: If the disk does not take the file.
    """
    with replacing(path) as part, part.open("wb") as file:
        for _, splats in upright_parts(gaussians, path, up=up):
            rows = np.empty(len(splats), _ROW)
            rows["means"] = splats.means
            rows["scales"] = splats.scales
            rows["rgba"] = _bytes(torch.cat([splats.colors, splats.opacities[:, None]], 1) * 255)
            rows["quats"] = _bytes(128 + 128 * splats.quats)
            file.write(rows.tobytes())
    return Path(path)


def _bytes(values: Tensor) -> np.ndarray:
    return values.round().clamp(0, 255).byte().numpy()
