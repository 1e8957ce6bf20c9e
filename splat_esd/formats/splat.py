"""Splats as .splat, the 32 bytes of the first viewer for the web (antimatter15/splat).

For each splat, little-endian: centre (3 float32), standard deviations (3 float32), red green blue
opacity (4 bytes), rotation (w x y z, 4 bytes:  128 + 128 q). Colours are those of degree 0.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat_esd.errors import UsageError
from splat_esd.formats.atomic import replacing
from splat_esd.formats.orient import upright_parts
from splat_esd.formats.raw import RawSplats, dc, logit
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


def decode_splat(data: bytes, path: object) -> RawSplats:
    """Unpacks the bytes of a .splat.

    Raises:
        UsageError: If its length is not that of whole splats.
    """
    if not data or len(data) % _ROW.itemsize:
        raise UsageError(
            f"{path} is cut short or no .splat: its {len(data)} bytes are not whole splats of 32."
        )
    rows = np.frombuffer(data, _ROW)
    rgba = rows["rgba"].astype(np.float32) / 255
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scales = np.log(rows["scales"].astype(np.float32))
    return RawSplats(
        means=rows["means"].astype(np.float32),
        quats=(rows["quats"].astype(np.float32) - 128) / 128,
        log_scales=log_scales,
        logit_opacities=logit(rgba[:, 3]),
        sh=dc(rgba[:, :3])[:, None],
    )


def looks_like_splat(data: bytes) -> bool:
    """Tells whether bytes can be rows of .splat: finite places, sizes above 0, unit rotations."""
    rows = np.frombuffer(data[: len(data) // _ROW.itemsize * _ROW.itemsize], _ROW)
    if not len(rows):
        return False
    with np.errstate(all="ignore"):
        length = np.linalg.norm((rows["quats"].astype(float) - 128) / 128, axis=1)
        placed = np.isfinite(rows["means"]).all(1) & (rows["scales"] >= 0).all(1)
    return bool((placed & (np.abs(length - 1) < 0.1)).mean() > 0.8)


def _bytes(values: Tensor) -> np.ndarray:
    return values.round().clamp(0, 255).byte().numpy()
