"""Reads splats of glTF: primitives with KHR_gaussian_splatting in a .glb, one or many."""

import json
import struct
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from splat_esd.errors import UsageError
from splat_esd.formats.raw import RawSplats, cut, dc, logit

EXTENSION = "KHR_gaussian_splatting"
_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def glb_document(data: bytes, path: object) -> tuple[dict[str, Any], bytes]:
    """Splits a .glb into its JSON and its binary chunk.

    Raises:
        UsageError: If it is damaged or cut short.
    """
    try:
        length, kind = struct.unpack_from("<I4s", data, 12)
        document = json.loads(data[20 : 20 + length])
        binary = b""
        if len(data) > 20 + length:
            size, _ = struct.unpack_from("<I4s", data, 20 + length)
            binary = data[28 + length : 28 + length + size]
    except (struct.error, ValueError) as error:
        raise UsageError(f"{path} is cut short or damaged: {error}.") from error
    if kind != b"JSON" or not isinstance(document, dict):
        raise UsageError(f"{path} is cut short or damaged: it has no JSON.")
    return document, binary


def has_gltf_splats(document: dict[str, Any]) -> bool:
    """Tells a glTF with splats from one with meshes."""
    return EXTENSION in document.get("extensionsUsed", ())


def decode_gltf(data: bytes, path: object) -> RawSplats:
    """Reads all primitives with the extension, where their nodes put them.

    Raises:
        UsageError: If there are none, or they are damaged or compressed by a further extension.
    """
    document, binary = glb_document(data, path)
    try:
        parts = [
            _placed(_primitive(document, binary, primitive), matrix)
            for node, matrix in _nodes(document)
            for primitive in document["meshes"][node["mesh"]]["primitives"]
            if EXTENSION in primitive.get("extensions", {})
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is cut short or damaged: {error!r}.") from error
    if not parts:
        raise UsageError(f"{path} is a mesh or a scene, not splats: it lacks {EXTENSION}.")
    degree = min(part.sh.shape[1] for part in parts)
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    if any(part.sh.shape[1] > degree for part in parts):
        notes.append("parts of different degrees: harmonics were cut to those of all parts.")
    sh = np.concatenate([part.sh[:, :degree] for part in parts])
    return RawSplats(
        means=np.concatenate([part.means for part in parts]),
        quats=np.concatenate([part.quats for part in parts]),
        log_scales=np.concatenate([part.log_scales for part in parts]),
        logit_opacities=np.concatenate([part.logit_opacities for part in parts]),
        sh=sh,
        up="y",
        notes=notes,
    )


def _nodes(document: dict[str, Any]) -> list[tuple[dict[str, Any], Float[ndarray, "4 4"]]]:
    """Returns the nodes with meshes and their matrices to the world."""
    nodes = document["nodes"]
    scene = document.get("scenes", [{}])[document.get("scene", 0)]
    children = {child for node in nodes for child in node.get("children", ())}
    roots = scene.get("nodes", [i for i in range(len(nodes)) if i not in children])
    found, todo = [], [(root, np.eye(4), 0) for root in roots]
    while todo:
        index, above, depth = todo.pop(0)
        if depth > 64:
            raise ValueError("nodes within nodes without end")
        node = nodes[index]
        matrix = above @ _matrix(node)
        if "mesh" in node:
            found.append((node, matrix))
        todo += [(child, matrix, depth + 1) for child in node.get("children", ())]
    return found


def _matrix(node: dict[str, Any]) -> Float[ndarray, "4 4"]:
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T
    matrix = np.eye(4)
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    matrix[:3, :3] = _rotation(np.array([[w, x, y, z]], float))[0] * node.get("scale", (1, 1, 1))
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _rotation(quats: Float[ndarray, "N 4"]) -> Float[ndarray, "N 3 3"]:
    import torch

    from splat_esd.geometry import quat_to_rotmat

    return quat_to_rotmat(torch.from_numpy(quats)).numpy()


def _placed(raw: RawSplats, matrix: Float[ndarray, "4 4"]) -> RawSplats:
    """Moves splats by a node's matrix; one that shears or stretches unevenly is refused."""
    if np.array_equal(matrix, np.eye(4)):
        return raw
    import torch

    from splat_esd.gaussians import Gaussians

    turn = matrix[:3, :3]
    size = np.cbrt(np.linalg.det(turn))
    if not size > 0 or not np.allclose(turn @ turn.T, size**2 * np.eye(3), atol=1e-4 * size**2):
        raise ValueError("a node stretches or mirrors its splats")
    splats = Gaussians(
        means=torch.from_numpy(size * raw.means.astype(float)),
        quats=torch.from_numpy(raw.quats),
        log_scales=torch.from_numpy(raw.log_scales + np.float32(np.log(size))),
        logit_opacities=torch.from_numpy(raw.logit_opacities),
        sh=torch.from_numpy(raw.sh),
    ).rotate(torch.from_numpy(turn / size).float())
    raw.means = splats.means.numpy() + matrix[:3, 3]
    raw.quats, raw.log_scales = splats.quats.float().numpy(), splats.log_scales.numpy()
    raw.sh = splats.sh.numpy()
    return raw


def _primitive(document: dict[str, Any], binary: bytes, primitive: dict[str, Any]) -> RawSplats:
    extension = primitive["extensions"][EXTENSION]
    further = list(extension.get("extensions", ()))
    if further:
        raise ValueError(f"compressed by {', '.join(further)}, which is not read here")
    names = primitive["attributes"]

    def get(name: str, plain: str = "") -> Float[ndarray, "N K"]:
        known = (f"{EXTENSION}:{name}", f"_{name}", name)
        return _accessor(document, binary, names[next(k for k in known if k in names)])

    means = _accessor(document, binary, names["POSITION"])
    notes: list[str] = []
    bands = []
    for degree in range(5):
        keys = [f"SH_DEGREE_{degree}_COEF_{i}" for i in range(2 * degree + 1)]
        if any(f"{EXTENSION}:{key}" not in names for key in keys):
            break
        bands += [get(key) for key in keys]
    if not bands:
        notes.append("no harmonics: the colours of COLOR_0.")
        color = _accessor(document, binary, names["COLOR_0"])[:, :3]
        srgb = np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1 / 2.4) - 0.055)
        bands = [dc(srgb)]
    scales = get("SCALE")
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scales = np.log(scales)
    return RawSplats(
        means=means,
        quats=get("ROTATION")[:, [3, 0, 1, 2]],
        log_scales=log_scales,
        logit_opacities=logit(np.clip(get("OPACITY")[:, 0], 0, 1)),
        sh=cut(np.stack(bands, axis=1).astype(np.float32), notes),
        notes=notes,
    )


def _accessor(document: dict[str, Any], binary: bytes, index: int) -> Float[ndarray, "N K"]:
    accessor = document["accessors"][index]
    if "sparse" in accessor:
        raise ValueError("sparse accessors are not read here")
    view = document["bufferViews"][accessor["bufferView"]]
    if document["buffers"][view["buffer"]].get("uri"):
        raise ValueError("its data lies in another file: pack it into one .glb")
    kind, width = np.dtype(_TYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    stride = view.get("byteStride") or kind.itemsize * width
    count = int(accessor["count"])
    values = np.ndarray((count, width), kind, binary, start, (stride, kind.itemsize))
    floats = values.astype(np.float32)
    if accessor.get("normalized"):
        floats = np.maximum(floats / np.iinfo(kind).max, -1).astype(np.float32)
    return floats
