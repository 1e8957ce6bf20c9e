"""What a format cannot hold of these splats, in numbers, before it is written."""

import numpy as np
import torch

from splat_esd.formats.spz import fractional_bits
from splat_esd.gaussians import Gaussians

_COARSE = 0.1  # of the median splat's size: positions in larger steps are worth a warning
_SPZ_SCALES = (-10.0, 255 / 16 - 10)  # of log scales
_SPZ_DC = 0.5 / 0.15  # largest f_dc


def losses(gaussians: Gaussians, form: str) -> list[str]:
    """Returns a line for each thing that a format would cut or round to a visible degree.

    Arguments:
        form: ply | splat | spz | gltf | usda | compressed.
    """
    gaussians = gaussians.detach()
    if not len(gaussians) or not all(v.isfinite().all() for v in gaussians.parameters().values()):
        return []  # refused, with its name, by the writer
    return [*_positions(gaussians, form), *_others(gaussians, form)]


def _positions(gaussians: Gaussians, form: str) -> list[str]:
    farthest = float(gaussians.means.abs().max())
    step = float(np.spacing(np.float32(farthest)))
    if form == "spz":
        bits = fractional_bits(gaussians.means)
        step = max(step, 2.0**-bits)
        if farthest * 2**bits >= 2**23:
            return [f"positions beyond {2 ** (23 - bits):g} do not fit into .spz and are cut."]
    if form == "compressed":
        step = max(step, _chunk_step(gaussians))
    size = float(gaussians.log_scales.amax(1).median().exp())
    if step <= _COARSE * size:
        return []
    return [
        f"positions are held in steps of {step:.2g}, where the median splat is {size:.2g} wide; "
        "import.fit=true moves them to the origin."
    ]


def _chunk_step(gaussians: Gaussians) -> float:
    """Returns the step in a chunk of 256 neighbours, if splats filled their box evenly."""
    box = (gaussians.means.amax(0) - gaussians.means.amin(0)).max()
    chunks = max(1.0, len(gaussians) / 256)
    return float(box) / chunks ** (1 / 3) / 1023


def _others(gaussians: Gaussians, form: str) -> list[str]:
    lines, total = [], len(gaussians)
    sh, scales = gaussians.sh, gaussians.log_scales

    def say(cut: torch.Tensor, what: str) -> None:
        if count := int(cut.sum()):
            lines.append(f"{what} of {count} of {total} splats.")

    if form == "spz":
        low, high = _SPZ_SCALES
        say((scales < low).any(1) & (scales.amax(1) < low + 1), "scales below 4.5e-05 are raised")
        say((scales > high).any(1), f"scales above {np.exp(high):.0f} are cut")
        say((sh[:, 0].abs() > _SPZ_DC).any(1), "colours beyond what .spz holds are cut")
        say((sh[:, 1:].abs() > 1).flatten(1).any(1), "harmonics beyond 1 are cut")
    if form == "splat":
        colors = gaussians.colors
        say((colors > 1).any(1), "colours above 1 are cut")
        if sh.shape[1] > 1 and bool((sh[:, 1:] != 0).any()):
            lines.append(f"harmonics of degree {gaussians.sh_degree} are left out.")
    if form == "compressed":
        say((sh[:, 1:].abs() > 4).flatten(1).any(1), "harmonics beyond 4 are cut")
    return [f".{form}: {line}" for line in lines]
