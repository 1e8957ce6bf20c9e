"""Splats as compressed PLY, the layout of SuperSplat and of gsplat's exporter.

256 splats share a `chunk` of float bounds: of positions, of log scales and (since 2024) of colours.
Between them a splat is four uint32: position and scale in 11 + 10 + 11 bits, rotation as the index
of the largest component and the three others in 10 bits each, colour and opacity in 8 bits each.
Harmonics, if any, are bytes of an element `sh`:  8 (b + 0.5) / 256 - 4.

References:
    SuperSplat, PlayCanvas. https://github.com/playcanvas/splat-transform
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt32
from numpy import ndarray

from splat_esd.errors import UsageError
from splat_esd.formats.atomic import replacing
from splat_esd.formats.orient import upright_parts
from splat_esd.formats.raw import RawSplats, cut, dc, logit
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import SH_C0

_CHUNK = 256
_BOUNDS = [
    f"{end}_{kind}{axis}" for kind in ("", "scale_") for end in ("min", "max") for axis in "xyz"
]
_COLORS = [f"{end}_{name}" for end in ("min", "max") for name in "rgb"]
_PACKED = [f"packed_{name}" for name in ("position", "rotation", "scale", "color")]
_XYZ = (11, 10, 11)


def decode_compressed(ply: Any, path: object) -> RawSplats:
    """Unpacks the elements `chunk`, `vertex` and `sh` of a compressed PLY.

    Raises:
        UsageError: If columns are missing or there are too few chunks.
    """
    rows = ply["vertex"].data
    missing = [name for name in _PACKED if name not in rows.dtype.names]
    if missing or "chunk" not in ply:
        lacks = ", ".join(missing) or "the element chunk"
        raise UsageError(f"{path} is a compressed splat PLY that lacks {lacks}.")
    chunks = ply["chunk"].data
    lacking = [name for name in _BOUNDS if name not in chunks.dtype.names]
    if lacking or _CHUNK * len(chunks) < len(rows):
        raise UsageError(
            f"{path} is a compressed splat PLY with {len(chunks)} chunks for {len(rows)} splats"
            + (f", without {lacking[0]}." if lacking else ".")
        )
    which = np.arange(len(rows)) // _CHUNK
    position, rotation, scale, color = (rows[name].astype(np.uint32) for name in _PACKED)
    rgba = _unpack(color, (8, 8, 8, 8))
    rgb = rgba[:, :3]
    if set(_COLORS) <= set(chunks.dtype.names):
        rgb = _between(rgb, chunks, which, ["r", "g", "b"])
    sh = dc(rgb)[:, None]
    notes: list[str] = []
    if "sh" in ply and len(ply["sh"].data) == len(rows):
        sh = cut(np.concatenate([sh, _harmonics(ply["sh"].data)], axis=1), notes)
    return RawSplats(
        means=_between(_unpack(position, _XYZ), chunks, which, ["x", "y", "z"]),
        quats=_unpack_quats(rotation),
        log_scales=_between(_unpack(scale, _XYZ), chunks, which, ["scale_x", "scale_y", "scale_z"]),
        logit_opacities=logit(rgba[:, 3]),
        sh=sh,
        notes=notes,
    )


def write_compressed(gaussians: Gaussians, path: Path | str, *, up: str = "-y") -> Path:
    """Writes splats as compressed PLY, all at once or not at all; neighbours share a chunk.

    Arguments:
        up: "-y" (what readers of this format expect), "y" or "z".
    Raises:
        UsageError: If there are no splats or a value is not finite.
        EnvironmentProblem: If the disk does not take the file.
    """
    from gsplat.exporter import sort_centers

    parts = [part for _, part in upright_parts(gaussians, path, up=up)]
    splats = parts[0] if len(parts) == 1 else Gaussians.cat(parts)
    splats = splats.select(sort_centers(splats.means.float(), torch.arange(len(splats))))
    from splat_esd.formats.ply import write_elements

    spread = {
        "": splats.means.double().numpy(),
        "scale_": splats.log_scales.clamp(-20, 20).double().numpy(),
        "color": (0.5 + SH_C0 * splats.sh[:, 0]).double().numpy(),
    }
    starts = np.arange(0, len(splats), _CHUNK)
    chunks = np.empty(len(starts), [(name, "<f4") for name in _BOUNDS + _COLORS])
    shares = {}
    for name, values in spread.items():
        axes = "rgb" if name == "color" else [f"{name}{axis}" for axis in "xyz"]
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        low, high = low.astype("<f4"), high.astype("<f4")
        for i, axis in enumerate(axes):
            chunks[f"min_{axis}"], chunks[f"max_{axis}"] = low[:, i], high[:, i]
        span = np.where(high > low, high.astype(float) - low, 1)
        which = np.arange(len(splats)) // _CHUNK
        shares[name] = (values - low[which]) / span[which]
    opacity = splats.opacities.double().numpy()[:, None]
    rows = np.empty(len(splats), [(name, "<u4") for name in _PACKED])
    rows["packed_position"] = _pack(shares[""], _XYZ)
    rows["packed_rotation"] = _pack_quats(splats.quats.double().numpy())
    rows["packed_scale"] = _pack(shares["scale_"], _XYZ)
    rows["packed_color"] = _pack(np.concatenate([shares["color"], opacity], 1), (8, 8, 8, 8))
    elements = {"chunk": chunks, "vertex": rows}
    if splats.sh_degree:
        channels = splats.sh[:, 1:].mT.flatten(1).double().numpy()
        count = channels.shape[1]
        sh = np.empty(len(splats), [(f"f_rest_{i}", "u1") for i in range(count)])
        for i in range(count):
            sh[f"f_rest_{i}"] = np.clip(np.floor((channels[:, i] / 8 + 0.5) * 256), 0, 255)
        elements["sh"] = sh
    with replacing(path) as part:
        write_elements(elements, part, comments=[f"splat_esd up={up}"])
    return Path(path)


def _unpack(words: UInt32[ndarray, " N"], bits: tuple[int, ...]) -> Float[ndarray, "N K"]:
    shares, shift = [], sum(bits)
    for width in bits:
        shift -= width
        full = (1 << width) - 1
        shares.append((words >> np.uint32(shift) & np.uint32(full)).astype(np.float32) / full)
    return np.stack(shares, axis=1)


def _pack(shares: Float[ndarray, "N K"], bits: tuple[int, ...]) -> UInt32[ndarray, " N"]:
    words = np.zeros(len(shares), np.uint32)
    for share, width in zip(shares.T, bits, strict=True):
        full = (1 << width) - 1
        words = words << np.uint32(width) | np.clip(np.round(share * full), 0, full).astype("u4")
    return words


def _between(
    shares: Float[ndarray, "N 3"], chunks: ndarray, which: Int[ndarray, " N"], axes: list[str]
) -> Float[ndarray, "N 3"]:
    low = np.stack([chunks[f"min_{axis}"] for axis in axes], axis=1).astype(np.float32)[which]
    high = np.stack([chunks[f"max_{axis}"] for axis in axes], axis=1).astype(np.float32)[which]
    return low + shares * (high - low)


def _unpack_quats(words: UInt32[ndarray, " N"]) -> Float[ndarray, "N 4"]:
    three = (_unpack(words & np.uint32(0x3FFFFFFF), (10, 10, 10)) - 0.5) * np.float32(2**0.5)
    largest = np.sqrt(np.maximum(0, 1 - (three**2).sum(axis=1)))
    index = (words >> np.uint32(30)).astype(int)
    quats = np.empty((len(words), 4), np.float32)
    rows = np.arange(len(words))
    for i in range(3):
        quats[rows, i + (i >= index)] = three[:, i]
    quats[rows, index] = largest
    return quats


def _pack_quats(quats: Float[ndarray, "N 4"]) -> UInt32[ndarray, " N"]:
    rows, index = np.arange(len(quats)), np.abs(quats).argmax(axis=1)
    quats = quats * np.where(quats[rows, index] < 0, -1, 1)[:, None]
    three = np.stack([quats[rows, i + (i >= index)] for i in range(3)], axis=1)
    return index.astype(np.uint32) << np.uint32(30) | _pack(three / 2**0.5 + 0.5, (10, 10, 10))


def _harmonics(rows: ndarray) -> Float[ndarray, "N K 3"]:
    names = [name for name in rows.dtype.names or () if re.fullmatch(r"f_rest_\d+", name)]
    names.sort(key=lambda name: int(name[7:]))
    count = len(names) // 3
    sh = np.empty((len(rows), count, 3), np.float32)
    for i, name in enumerate(names[: 3 * count]):
        byte = rows[name].astype(np.float32)
        sh[:, i % count, i // count] = 8 * (byte + 0.5) / 256 - 4
    return sh
