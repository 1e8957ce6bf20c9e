"""Splats as .spz, versions 3 and 4: a quarter of the PLY, for phones and the web.

Version 3 is a gzip stream: 16 bytes of header, then one array after the other for all splats.

    header      magic "NGSP", version, count (uint32); degree, fractional bits, flags, 0 (bytes)
    means       signed 24-bit integers:  x * 2^bits
    opacities   255 sigmoid(logit)
    colours     255 (0.5 + 0.15 sh_0)
    scales      16 (log scale + 10)
    rotations   uint32: which of x y z w is largest (2 bits), then sign and magnitude of the others
                (1 + 9 bits each, 511 standing for 1 / sqrt 2)
    harmonics   128 (1 + sh), coefficient by coefficient, red green blue

Version 4 holds the same arrays: 32 bytes of header (the last byte of the first 16 is the number of
arrays, then the offset of a table), a table of packed and unpacked sizes (uint64), then each array
that is not empty as a zstd frame.

The format knows one orientation, y up (and the front towards +z).

References:
    The reference implementation, load-spz.cc. https://github.com/nianticlabs/spz
"""

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.formats.atomic import replacing
from splat_esd.formats.orient import upright_parts
from splat_esd.gaussians import Gaussians

MAGIC, VERSION = b"NGSP", 3
COLOR_SCALE = 0.15
_FRACTIONAL_BITS = 12  # of a reference writer; fewer where something lies beyond 2^11
_MOST_BITS = 24  # that readers take
_SMALL = 0.25  # extent under which 12 fractional bits are too coarse
_LEVEL, _ZSTD_LEVEL = 6, 12


def write_spz(gaussians: Gaussians, path: Path | str, *, version: int = VERSION) -> Path:
    """Writes splats as .spz, all at once or not at all.

    Arguments:
        version: 3 or 4.
    Raises:
        ValueError: If there are no splats or a value is not finite.
        EnvironmentProblem: If the disk does not take the file.
    """
    packed = pack_spz(gaussians, path, version=version)
    with replacing(path) as part:
        part.write_bytes(packed)
    return Path(path)


def pack_spz(
    gaussians: Gaussians, path: Path | str = "the .spz", *, version: int = VERSION
) -> bytes:
    """Returns what `write_spz` writes.

    Arguments:
        path: The file, for the messages.
        version: 3 or 4.
    Raises:
        ValueError: If there are no splats or a value is not finite.
    """
    count, rest = len(gaussians), gaussians.sh.shape[1] - 1
    bits = fractional_bits(gaussians.means.detach())
    widths = {"means": 9, "opacities": 1, "colors": 3, "scales": 3, "quats": 4, "sh": 3 * rest}
    arrays = {name: np.empty((count, width), np.uint8) for name, width in widths.items()}
    for which, splats in upright_parts(gaussians, path, up="y"):
        arrays["means"][which] = _fixed_point(splats.means, bits)
        arrays["opacities"][which] = _bytes(255 * splats.opacities[:, None])
        arrays["colors"][which] = _bytes(255 * (0.5 + COLOR_SCALE * splats.sh[:, 0]))
        arrays["scales"][which] = _bytes(16 * (splats.log_scales + 10))
        arrays["quats"][which] = _smallest_three(splats.quats).view(np.uint8).reshape(-1, 4)
        arrays["sh"][which] = _bytes(128 * (1 + splats.sh[:, 1:].flatten(1)))
    header = struct.pack("<4sIIBBB", MAGIC, version, count, gaussians.sh_degree, bits, 0)
    if version == 4:
        return header + _framed([array.tobytes() for array in arrays.values()])
    body = b"".join([header, b"\0", *(array.tobytes() for array in arrays.values())])
    return gzip.compress(body, _LEVEL, mtime=0)  # no clock in it: the same splats, the same bytes


def fractional_bits(means: Float[Tensor, "N 3"]) -> int:
    """Returns the bits behind the point: 12, fewer for scenes beyond 2^11, more for small ones."""
    farthest = float(means.abs().max()) if len(means) else 0.0
    if not 0 < farthest < math.inf:  # what is not finite is refused, with its name, later
        return _FRACTIONAL_BITS
    if farthest < _SMALL:
        return min(_MOST_BITS, 22 - math.floor(math.log2(farthest)))
    if farthest < 2**11:
        return _FRACTIONAL_BITS
    return max(0, 22 - math.floor(math.log2(farthest)))


def decompress(frame: bytes, length: int) -> bytes:
    """Unpacks one zstd frame of so many bytes.

    Raises:
        ValueError: If it is damaged or of another length.
    """
    import zstandard

    try:
        data = zstandard.ZstdDecompressor().decompress(frame, max_output_size=length)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    if len(data) != length:
        raise ValueError(f"a stream of {len(data)} bytes where {length} are due")
    return data


def _framed(arrays: list[bytes]) -> bytes:
    """Returns what follows the first 15 bytes of version 4."""
    import zstandard

    arrays = [array for array in arrays if array]
    frames = [zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(array) for array in arrays]
    sizes = zip(map(len, frames), map(len, arrays), strict=True)
    table = b"".join(struct.pack("<QQ", *pair) for pair in sizes)
    return struct.pack("<BI12x", len(arrays), 32) + table + b"".join(frames)


def _fixed_point(means: Float[Tensor, "N 3"], bits: int) -> np.ndarray:
    whole = (means.double() * 2**bits).round().clamp(-(2**23), 2**23 - 1)
    return (
        whole.int().numpy().astype("<i4").view(np.uint8).reshape(-1, 3, 4)[..., :3].reshape(-1, 9)
    )


def _smallest_three(quats: Float[Tensor, "N 4"]) -> np.ndarray:
    """Packs unit quaternions (w, x, y, z); the largest component follows from the others."""
    xyzw = quats[:, [1, 2, 3, 0]].double()
    largest = xyzw.abs().argmax(1, keepdim=True)
    xyzw = xyzw * torch.where(xyzw.gather(1, largest) < 0, -1.0, 1.0)
    others = _others(largest)
    values = xyzw.gather(1, others)
    magnitude = (values.abs() * (511 * math.sqrt(2))).round().clamp_max(511).long()
    fields = (values < 0).long() << 9 | magnitude
    packed = largest[:, 0] << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]
    return packed.numpy().astype("<u4")


def _others(largest: Int[Tensor, "N 1"]) -> Int[Tensor, "N 3"]:
    """Returns the three of 0..3 that are not `largest`, rising."""
    index = torch.arange(3).expand(len(largest), 3)
    return index + (index >= largest)


def _bytes(values: Tensor) -> np.ndarray:
    return values.round().clamp(0, 255).byte().numpy()
