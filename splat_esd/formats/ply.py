"""Splats as PLY in the layout of the first 3D Gaussian Splatting code, which all viewers read.

One `vertex` per splat, all float32: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_* (all red
coefficients, then green, then blue), opacity (logit), scale_0..2 (log), rot_0..3 (w x y z, unit).
A header comment `splat_esd up=-y` says which way is up; files without one are taken as y-down.
"""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.errors import UsageError
from splat_esd.formats.atomic import replacing
from splat_esd.formats.orient import upright_parts
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import up_rotation

_BEFORE_REST = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
_AFTER_REST = ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
_FOREIGN_UP = "-y"


SPLAT = "splat.ply"  # the asset in a run's folder


def splat_file(path: Path | str) -> Path:
    """Returns the splat file that a path stands for: the file itself, or a run folder's splat.ply.

    Raises:
        UsageError: If there is no such file, or the folder holds no splat.
    """
    path = Path(path).expanduser()
    splat = path / SPLAT if path.is_dir() else path
    if splat.is_file():
        return splat
    if path.is_dir():
        raise UsageError(f"{path} holds no {SPLAT}; go on with the run by resume={path}")
    raise UsageError(f"there is no file or folder {path}.")


def write_ply(
    gaussians: Gaussians, path: Path | str, *, up: str = "-y", full: bool = False
) -> Path:
    """Writes splats as a binary PLY, all at once or not at all.

    Means, rotations and spherical harmonics are turned so that `up` is up. Degrees 1 and 2 are
    padded to 3 with zeros, because some readers know only 0 and 3.

    Arguments:
        up: "-y" (most splat viewers), "y" (glTF, game engines) or "z" (Blender, this package).
        full: Pad degree 0 as well: all 62 floats, which old viewers insist on.
    Raises:
        ValueError: If there are no splats, a value is not finite, or `up` is unknown.
        EnvironmentProblem: If the disk does not take the file.
    """
    from plyfile import PlyData, PlyElement

    names = _names(rest=45 if full or gaussians.sh_degree else 0)
    rows = np.zeros(len(gaussians), dtype=[(name, "<f4") for name in names])
    for which, splats in upright_parts(gaussians, path, up=up):
        for name, column in _columns(splats).items():
            rows[name][which] = column.numpy()
    element = PlyElement.describe(rows, "vertex")
    with replacing(path) as part:
        PlyData([element], byte_order="<", comments=[f"splat_esd up={up}"]).write(str(part))
    return Path(path)


def read_ply(path: Path | str) -> Gaussians:
    """Reads the splats of a PLY, ours or another program's, into this package's world.

    Raises:
        UsageError: If the file is not there, not whole, or holds no splats with finite values.
    """
    ply = _read(path)
    rows = ply["vertex"].data
    names = set(rows.dtype.names)
    missing = [
        name for name in _BEFORE_REST[:3] + _BEFORE_REST[6:] + _AFTER_REST if name not in names
    ]
    if missing:
        raise UsageError(_not_splats(path, ply, missing))
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest not in (0, 9, 24, 45):
        raise UsageError(f"{path}: expected 0, 9, 24 or 45 f_rest_* properties, got {rest}.")
    sh = _stack(rows, [f"f_dc_{i}" for i in range(3)])[:, None]
    if rest:
        channels = _stack(rows, [f"f_rest_{i}" for i in range(rest)]).unflatten(1, (3, -1))
        sh = torch.cat([sh, channels.mT], dim=1)
    gaussians = Gaussians(
        means=_stack(rows, ["x", "y", "z"]),
        quats=_stack(rows, [f"rot_{i}" for i in range(4)]),
        log_scales=_stack(rows, [f"scale_{i}" for i in range(3)]),
        logit_opacities=_stack(rows, ["opacity"])[:, 0],
        sh=sh,
    )
    _check_finite(path, gaussians)
    return gaussians.rotate(up_rotation(_up_of(path, ply.comments)).T)


def has_splats(path: Path | str) -> bool:
    """Tells a PLY of splats from a PLY of points or of a mesh.

    Raises:
        UsageError: If the file is not a PLY or not whole.
    """
    return {"f_dc_0", "opacity", "rot_0"} <= set(_read(path)["vertex"].data.dtype.names)


def read_ply_points(
    path: Path | str,
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"] | None]:
    """Reads x y z of a PLY, in this package's world, and red green blue in [0, 1] if it has them.

    Raises:
        UsageError: If the file is not a PLY, not whole, or its vertices have no x y z.
    """
    rows = _read(path)["vertex"].data
    names = rows.dtype.names
    if not {"x", "y", "z"} <= set(names):
        raise UsageError(f"{path}: expected vertices with x y z, got {' '.join(names)}.")
    points = _stack(rows, ["x", "y", "z"])
    if not {"red", "green", "blue"} <= set(names):
        return points, None
    colors = _stack(rows, ["red", "green", "blue"])
    integer = np.issubdtype(rows.dtype["red"], np.integer)
    return points, colors / np.iinfo(rows.dtype["red"]).max if integer else colors


def _names(*, rest: int) -> list[str]:
    return _BEFORE_REST + [f"f_rest_{i}" for i in range(rest)] + _AFTER_REST


def _columns(gaussians: Gaussians) -> dict[str, Float[Tensor, " N"]]:
    """Returns what a row holds; the rest is zero: normals, and bands that the splats have not."""
    values = {"x": gaussians.means, "f_dc_0": gaussians.sh[:, 0], "scale_0": gaussians.log_scales}
    values |= {"opacity": gaussians.logit_opacities[:, None], "rot_0": gaussians.quats}
    names, columns = _names(rest=0), {}
    for first, block in values.items():
        start = names.index(first)
        columns |= dict(zip(names[start:], block.float().T, strict=False))
    channels = gaussians.sh[:, 1:].float().unbind(2)
    for channel, block in enumerate(channels):
        columns |= {f"f_rest_{15 * channel + i}": column for i, column in enumerate(block.T)}
    return columns


def _read(path: Path | str):
    from plyfile import PlyData, PlyParseError

    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path} does not exist.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; expected a PLY file, such as {path / 'splat.ply'}.")
    with path.open("rb") as stream:
        if stream.read(4) not in (b"ply\n", b"ply\r"):
            raise UsageError(f"{path} is not a PLY file: it does not begin with the line 'ply'.")
    try:
        with warnings.catch_warnings():
            # NumPy warns of an element without rows; the line below says it better.
            warnings.simplefilter("ignore", UserWarning)
            ply = PlyData.read(str(path))
    except (PlyParseError, ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is cut short or damaged: {error}.") from error
    if "vertex" not in ply or not len(ply["vertex"].data):
        raise UsageError(f"{path} is empty: it has no vertices.")
    return ply


def _not_splats(path: Path | str, ply: Any, missing: list[str]) -> str:
    names = ply["vertex"].data.dtype.names
    if "packed_position" in names:
        return (
            f"{path} is a compressed splat PLY; expand it first: splat-transform {path} splat.ply."
        )
    if missing == ["scale_2"]:
        return f"{path} holds flat 2D splats (no scale_2); expected 3D splats."
    kind = "a mesh" if "face" in ply else "a cloud of points"
    return f"{path} is {kind}, not splats: its vertices lack {', '.join(missing)}."


def _stack(rows: np.ndarray, names: list[str]) -> Float[Tensor, "N K"]:
    return torch.from_numpy(np.stack([rows[name].astype(np.float32) for name in names], axis=1))


def _check_finite(path: Path | str, gaussians: Gaussians) -> None:
    values = torch.cat(
        [value.reshape(len(value), -1) for value in gaussians.parameters().values()], dim=1
    )
    bad = (~values.isfinite()).any(dim=1).nonzero()[:, 0]
    if len(bad):
        raise UsageError(
            f"{path}: {len(bad)} of {len(gaussians)} splats hold NaN or infinity, "
            f"the first in row {int(bad[0])}."
        )


def _up_of(path: Path | str, comments: list[str]) -> str:
    for comment in comments:
        if match := re.fullmatch(r"splat_esd up=(\S+)", comment.strip()):
            if match[1] not in ("-y", "y", "z"):
                raise UsageError(f"{path}: its header says up={match[1]}; expected -y, y or z.")
            return match[1]
    return _FOREIGN_UP
