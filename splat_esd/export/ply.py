"""Splats as PLY in the layout of the first 3D Gaussian Splatting code, which all viewers read.

One `vertex` per splat, all float32: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_* (all red
coefficients, then green, then blue), opacity (logit), scale_0..2 (log), rot_0..3 (w x y z, unit).
A header comment `splat_esd up=-y` says which way is up; files without one are taken as y-down.
"""

import re
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.errors import UsageError
from splat_esd.export import replacing
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import up_rotation

_BEFORE_REST = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
_AFTER_REST = ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
_FOREIGN_UP = "-y"


def write_ply(gaussians: Gaussians, path: Path | str, *, up: str = "-y") -> Path:
    """Writes splats as a binary PLY, all at once or not at all.

    Means, rotations and spherical harmonics are turned so that `up` is up. Degrees 1 and 2 are
    padded to 3 with zeros, because some readers know only 0 and 3.

    Arguments:
        up: "-y" (most splat viewers), "y" (glTF, game engines) or "z" (Blender, this package).
    Raises:
        ValueError: If there are no splats, a value is not finite, or `up` is unknown.
        EnvironmentProblem: If the disk does not take the file.
    """
    from plyfile import PlyData, PlyElement

    if not len(gaussians):
        raise ValueError(f"there are no splats to write to {path}.")
    turned = gaussians.detach().to("cpu").rotate(up_rotation(up))
    columns = _columns(turned)
    rows = np.empty(len(turned), dtype=[(name, "<f4") for name in columns])
    for name, column in columns.items():
        if not column.isfinite().all():
            raise ValueError(f"{path} was not written: {name} holds NaN or infinity.")
        rows[name] = column.numpy()
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


def _columns(gaussians: Gaussians) -> dict[str, Tensor]:
    sh = gaussians.sh
    if gaussians.sh_degree in (1, 2):
        sh = torch.cat([sh, sh.new_zeros(len(sh), 16 - sh.shape[1], 3)], dim=1)
    rest = sh[:, 1:].mT.flatten(1)
    quats = gaussians.quats
    lengths = quats.norm(dim=-1, keepdim=True)
    # A zero quaternion means no rotation here, but NaN in most readers.
    quats = torch.where(lengths == 0, quats.new_tensor([1.0, 0.0, 0.0, 0.0]), quats / lengths)
    values = [
        gaussians.means,
        torch.zeros_like(gaussians.means),
        sh[:, 0],
        rest,
        gaussians.logit_opacities[:, None],
        gaussians.log_scales,
        quats,
    ]
    names = _BEFORE_REST + [f"f_rest_{i}" for i in range(rest.shape[1])] + _AFTER_REST
    return dict(zip(names, torch.cat(values, dim=1).float().T, strict=True))


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


def _not_splats(path: Path | str, ply, missing: list[str]) -> str:
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
