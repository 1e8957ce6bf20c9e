"""Splats as PLY in the layout of the first 3D Gaussian Splatting code, which all viewers read.

One `vertex` per splat, all float32: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_* (all red
coefficients, then green, then blue), opacity (logit), scale_0..2 (log), rot_0..3 (w x y z, unit).
A header comment `splat_esd up=-y` says which way is up; files without one are taken as y-down.
"""

import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from splat_esd.errors import UsageError
from splat_esd.formats.atomic import replacing
from splat_esd.formats.orient import upright_parts
from splat_esd.gaussians import Gaussians

_BEFORE_REST = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
_AFTER_REST = ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
_HEADER_MOST = 1 << 16
_REMARKS = ([b"comment"], [b"obj_info"])


def write_ply(
    gaussians: Gaussians,
    path: Path | str,
    *,
    up: str = "-y",
    full: bool = False,
    placement: tuple[float, float, float, float] | None = None,
) -> Path:
    """Writes splats as a binary PLY, all at once or not at all.

    Means, rotations and spherical harmonics are turned so that `up` is up. Degrees 1 and 2 are
    padded to 3 with zeros, because some readers know only 0 and 3.

    Arguments:
        up: "-y" (most splat viewers), "y" (glTF, game engines) or "z" (Blender, this package).
        placement: Middle and radius of the ball that the splats were taken from, for the header.
        full: Pad degree 0 as well: all 62 floats, which old viewers insist on.
    Raises:
        ValueError: If there are no splats, a value is not finite, or `up` is unknown.
        EnvironmentProblem: If the disk does not take the file.
    """
    names = _names(rest=45 if full or gaussians.sh_degree else 0)
    rows = np.zeros(len(gaussians), dtype=[(name, "<f4") for name in names])
    for which, splats in upright_parts(gaussians, path, up=up):
        for name, column in _columns(splats).items():
            rows[name][which] = column.numpy()
    comments = [f"splat_esd up={up}"]
    if placement is not None:
        comments.append("splat_esd placement=" + " ".join(map(repr, placement)))
    with replacing(path) as part:
        write_elements({"vertex": rows}, part, comments=comments)
    return Path(path)


def write_elements(
    elements: dict[str, np.ndarray], path: Path | str, *, comments: list[str]
) -> None:
    """Writes structured arrays as the elements of a binary PLY, in their order."""
    from plyfile import PlyData, PlyElement

    described = [PlyElement.describe(rows, name) for name, rows in elements.items()]
    PlyData(described, byte_order="<", comments=comments).write(str(path))


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


def open_ply(path: Path | str) -> Any:
    """Reads a PLY of any program, as plyfile gives it; letters beyond ASCII in comments are `?`.

    Raises:
        UsageError: If the file is not a PLY, not whole, or has no vertices.
    """
    from plyfile import PlyData, PlyParseError

    path = Path(path)
    with path.open("rb") as stream:
        if stream.read(4) not in (b"ply\n", b"ply\r"):
            raise UsageError(f"{path} is not a PLY file: it does not begin with the line 'ply'.")
    try:
        with warnings.catch_warnings():
            # NumPy warns of an element without rows; the line below says it better.
            warnings.simplefilter("ignore", UserWarning)
            ply = PlyData.read(_ascii_header(path))
    except (PlyParseError, ValueError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise UsageError(f"{path} is cut short or damaged: {error}.") from error
    if "vertex" not in ply or not len(ply["vertex"].data):
        raise UsageError(f"{path} is empty: it has no vertices.")
    return ply


def up_of(path: Path | str, comments: list[str]) -> str:
    """Returns which axis a header's comments call up, "ours" for z with the front at +x, or "".

    Raises:
        UsageError: If our own comment names no axis.
    """
    for comment in comments:
        if match := re.fullmatch(r"splat_esd up=(\S+)", comment.strip()):
            if match[1] not in ("-y", "y", "z"):
                raise UsageError(f"{path}: its header says up={match[1]}; expected -y, y or z.")
            return "ours" if match[1] == "z" else match[1]
        if match := re.fullmatch(r"vertical axis:\s*([+-]?[xyz])", comment.strip().lower()):
            if (axis := match[1].removeprefix("+")) in ("-y", "y", "z"):
                return axis
    return ""


def placement_of(comments: list[str]) -> tuple[float, float, float, float] | None:
    """Returns the ball that our own header says the splats were taken from."""
    number = r"(-?[\d.]+(?:e[+-]?\d+)?)"
    for comment in comments:
        if match := re.fullmatch(rf"splat_esd placement={' '.join([number] * 4)}", comment.strip()):
            x, y, z, radius = map(float, match.groups())
            return x, y, z, radius
    return None


def _ascii_header(path: Path) -> str | BytesIO:
    """Returns the path, or the file's bytes where plyfile would stumble over a comment."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER_MOST)
        end = head.find(b"end_header")
        if end < 0 or head[:end].isascii():
            return str(path)
        stream.seek(end)
        lines = head[:end].splitlines(keepends=True)
        kept = [_plain(line) if line.split()[:1] in _REMARKS else line for line in lines]
        return BytesIO(b"".join(kept) + stream.read())


def _plain(line: bytes) -> bytes:
    return bytes(byte if byte < 128 else ord("?") for byte in line)
