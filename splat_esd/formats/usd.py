"""Splats as OpenUSD text: one ParticleField3DGaussianSplat, y up, in metres.

The prim's arrays: positions, orientations (w, x, y, z), scales (standard deviations), opacities in
[0, 1], and radiance:sphericalHarmonicsCoefficients, all of one particle after the other.

References:
    OpenUSD 26.03. https://openusd.org/release/user_guides/schemas/usdVol/ParticleField.html
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from splat_esd.formats.atomic import replacing
from splat_esd.formats.orient import upright_parts
from splat_esd.gaussians import Gaussians

_HEAD = """\
#usda 1.0
(
    defaultPrim = "splat"
    doc = "written by splat-esd"
    metersPerUnit = 1
    upAxis = "Y"
)

def ParticleField3DGaussianSplat "splat"
{
"""


def write_usd(gaussians: Gaussians, path: Path | str) -> Path:
    """Writes splats as .usda, all at once or not at all.

    Raises:
        UsageError: If there are no splats or a value is not finite.
        EnvironmentProblem: If the disk does not take the file.
    """
    parts = [part for _, part in upright_parts(gaussians, path, up="y")]
    ends = [end for part in parts for end in (part.means.amin(0), part.means.amax(0))]
    box = np.stack([end.numpy() for end in ends]).astype(np.float32)
    with replacing(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.write(_HEAD)
        bounds = ", ".join(map(_tuple, (box.min(0), box.max(0))))
        file.write(f"    float3[] extent = [{bounds}]\n")
        for name in ("positions", "orientations", "scales", "opacities", "coefficients"):
            kind, label = _ARRAYS[name]
            file.write(f"    {kind}[] {label} = [")
            for i, part in enumerate(parts):
                file.write(", " * (i > 0) + _written(_values(part, name)))
            file.write("]\n")
        file.write(f"    int radiance:sphericalHarmonicsDegree = {gaussians.sh_degree}\n")
        file.write("}\n")
    return Path(path)


_ARRAYS = {
    "positions": ("point3f", "positions"),
    "orientations": ("quatf", "orientations"),
    "scales": ("float3", "scales"),
    "opacities": ("float", "opacities"),
    "coefficients": ("float3", "radiance:sphericalHarmonicsCoefficients"),
}


def _values(splats: Gaussians, name: str) -> Float[ndarray, "M K"]:
    values = {
        "positions": splats.means,
        "orientations": splats.quats,
        "scales": splats.scales,
        "opacities": splats.opacities[:, None],
        "coefficients": splats.sh.flatten(0, 1),
    }[name]
    return values.numpy().astype(np.float32)


def _written(rows: Float[ndarray, "M K"]) -> str:
    if rows.shape[1] == 1:
        return ", ".join(f"{value:.9g}" for value in rows[:, 0].tolist())
    return ", ".join(map(_tuple, rows))


def _tuple(row: Float[ndarray, " K"]) -> str:
    return "(" + ", ".join(f"{value:.9g}" for value in row.tolist()) + ")"
