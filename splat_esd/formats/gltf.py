"""Splats as binary glTF with the extension KHR_gaussian_splatting.

One primitive of points, all float32: POSITION, ROTATION (x y z w), SCALE (linear), OPACITY in
[0, 1], SH_DEGREE_l_COEF_n; COLOR_0 is what programs without the extension draw. Up is y and the
front faces +z, as glTF has it.

References:
    KHR_gaussian_splatting. https://github.com/KhronosGroup/glTF/tree/main/extensions/2.0/Khronos
"""

import json
import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.formats.atomic import replacing
from splat_esd.formats.orient import upright_parts
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import up_rotation

_EXTENSION = "KHR_gaussian_splatting"
_FLOAT, _SHORT, _POINTS, _VERTICES = 5126, 5123, 0, 34962
_KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
_HEADER = 12 + 8  # of the file and of its first chunk


def write_gltf(gaussians: Gaussians, path: Path | str) -> Path:
    """Writes splats as .glb, all at once or not at all.

    Raises:
        ValueError: If there are no splats or a value is not finite.
        EnvironmentProblem: If the disk does not take the file.
    """
    columns = _columns(gaussians.sh_degree)
    document = _document(gaussians, columns)
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    size = document["buffers"][0]["byteLength"]
    start = _HEADER + len(text) + 8
    offsets = [start + view["byteOffset"] for view in document["bufferViews"]]
    with replacing(path) as part, part.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, start + size))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", size, b"BIN\0"))
        for which, splats in upright_parts(gaussians, path, up="y"):
            for values, offset in zip(_values(splats), offsets, strict=True):
                file.seek(offset + which.start * values[0].nbytes)
                file.write(values.tobytes())
    return Path(path)


def _columns(degree: int) -> dict[str, tuple[int, int]]:
    """Maps each attribute to its component type and count, in the order of `_values`."""
    names = {
        "POSITION": (_FLOAT, 3),
        "COLOR_0": (_SHORT, 4),
        f"{_EXTENSION}:ROTATION": (_FLOAT, 4),
        f"{_EXTENSION}:SCALE": (_FLOAT, 3),
        f"{_EXTENSION}:OPACITY": (_FLOAT, 1),
    }
    for band in range(degree + 1):
        for i in range(2 * band + 1):
            names[f"{_EXTENSION}:SH_DEGREE_{band}_COEF_{i}"] = (_FLOAT, 3)
    return names


def _values(splats: Gaussians) -> list[np.ndarray]:
    seen = torch.cat([_linear(splats.colors.clamp_max(1)), splats.opacities[:, None]], 1)
    floats = [splats.quats[:, [1, 2, 3, 0]], splats.scales, splats.opacities[:, None]]
    floats += splats.sh.unbind(1)
    color = (seen * 65535).round().int().numpy().astype("<u2")
    return [_float(splats.means), color, *map(_float, floats)]


def _document(gaussians: Gaussians, columns: dict[str, tuple[int, int]]) -> dict:
    count, views, accessors, offset = len(gaussians), [], [], 0
    for kind, width in columns.values():
        size = count * width * (2 if kind == _SHORT else 4)
        view = {"buffer": 0, "byteOffset": offset, "byteLength": size, "target": _VERTICES}
        accessor = {"bufferView": len(views), "componentType": kind, "count": count}
        accessors.append(accessor | {"type": _KINDS[width]})
        views.append(view)
        offset += size
    accessors[0] |= _bounds(gaussians.means.detach())
    accessors[1]["normalized"] = True
    settings = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance",
        "projection": "perspective",
    }
    primitive = {
        "attributes": {name: i for i, name in enumerate(columns)},
        "mode": _POINTS,
        "extensions": {_EXTENSION: settings},
    }
    return {
        "asset": {"version": "2.0", "generator": "splat-esd"},
        "extensionsUsed": [_EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "splat"}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }


def _bounds(means: Float[Tensor, "N 3"]) -> dict[str, list[float]]:
    """Returns the bounds of what is written: the turn only swaps axes, so they are exact."""
    if not len(means) or not means.isfinite().all():
        return {}  # refused, with its name, when the parts are asked for
    ends = torch.stack([means.amin(0), means.amax(0)]).cpu() @ up_rotation("y").to(means.dtype).T
    return {"min": ends.amin(0).float().tolist(), "max": ends.amax(0).float().tolist()}


def _linear(srgb: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Undoes the transfer function of sRGB: COLOR_0 is linear."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _float(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.numpy(), "<f4")
