"""Reads .spz of versions 2, 3 and 4; `spz` has the layout."""

import struct
import zlib

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from splat_esd.errors import UsageError
from splat_esd.formats.raw import RawSplats, cut, logit
from splat_esd.formats.spz import COLOR_SCALE, MAGIC, decompress

_COEFFICIENTS = (0, 3, 8, 15, 24)
_HEADER, _HEADER_4 = 16, 32
_ROTATION = {2: 3, 3: 4, 4: 4}  # bytes
_MOST = 1 << 28  # splats: what a damaged header asks for is not allocated


def decode_spz(data: bytes, path: object) -> RawSplats:
    """Unpacks the bytes of a .spz.

    Raises:
        UsageError: If it is damaged, cut short or of another version.
    """
    try:
        return _decode(data, path)
    except (zlib.error, EOFError, struct.error, ValueError) as error:
        raise UsageError(f"{path} is cut short or damaged: {error}.") from error


def _decode(data: bytes, path: object) -> RawSplats:
    body = data if data[:4] == MAGIC else _gunzip(data)
    if body[:4] != MAGIC or len(body) < _HEADER:
        raise UsageError(f"{path} is packed with gzip, but is no .spz.")
    version, count, degree, bits, flags = struct.unpack_from("<IIBBB", body, 4)
    if version not in _ROTATION:
        raise UsageError(f"{path} is .spz version {version}; versions 2, 3 and 4 can be read.")
    if degree > 4 or count > _MOST or bits > 30:
        raise ValueError(f"degree {degree}, {count} splats, {bits} fractional bits")
    rest = 3 * _COEFFICIENTS[degree]
    widths = [9, 1, 3, 3, _ROTATION[version], rest]
    arrays = _streams(body, widths, count) if version == 4 else _split(body, widths, count)
    means, opacities, colors, scales, quats, harmonics = arrays
    notes = [] if not flags & 2 else ["extensions of the .spz were left out."]
    colors = (colors.astype(np.float32) / 255 - 0.5) / np.float32(COLOR_SCALE)
    sh = (harmonics.astype(np.float32) / 128 - 1).reshape(count, -1, 3)
    return RawSplats(
        means=_fixed_point(means, bits),
        quats=_first_three(quats) if version == 2 else _smallest_three(quats),
        log_scales=scales.astype(np.float32) / 16 - 10,
        logit_opacities=logit(opacities[:, 0].astype(np.float32) / 255),
        sh=cut(np.concatenate([colors[:, None], sh], axis=1), notes),
        up="y",
        notes=notes,
    )


def _gunzip(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(data)


def _split(body: bytes, widths: list[int], count: int) -> list[UInt8[ndarray, "N K"]]:
    if len(body) < _HEADER + count * sum(widths):
        raise ValueError(f"{len(body)} bytes do not hold {count} splats")
    arrays, start = [], _HEADER
    for width in widths:
        flat = np.frombuffer(body, np.uint8, count * width, start)
        arrays.append(flat.reshape(count, width))
        start += count * width
    return arrays


def _streams(body: bytes, widths: list[int], count: int) -> list[UInt8[ndarray, "N K"]]:
    """Unpacks version 4: a table of (packed, unpacked) sizes, then a zstd frame for each array."""
    streams, table = struct.unpack_from("<BI", body, 15)
    sizes = struct.unpack_from(f"<{2 * streams}Q", body, table)
    start, arrays = table + 16 * streams, []
    packed = iter(zip(sizes[::2], sizes[1::2], strict=True))
    for width in widths:
        flat = b""
        if count * width:  # empty arrays have no stream
            size, length = next(packed, (0, 0))
            if length != count * width or start + size > len(body):
                raise ValueError(f"a stream of {length} bytes where {count * width} are due")
            flat = decompress(body[start : start + size], length)
            start += size
        arrays.append(np.frombuffer(flat, np.uint8).reshape(count, width))
    return arrays


def _fixed_point(packed: UInt8[ndarray, "N 9"], bits: int) -> Float[ndarray, "N 3"]:
    wide = np.zeros((len(packed), 3, 4), np.uint8)
    wide[..., 1:] = packed.reshape(-1, 3, 3)  # times 256, so that the sign is the highest bit
    return (wide.view("<i4")[..., 0] / np.float64(256 * 2**bits)).astype(np.float32)


def _first_three(packed: UInt8[ndarray, "N 3"]) -> Float[ndarray, "N 4"]:
    xyz = packed.astype(np.float32) / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(axis=1)))
    return np.concatenate([w[:, None], xyz], axis=1).astype(np.float32)


def _smallest_three(packed: UInt8[ndarray, "N 4"]) -> Float[ndarray, "N 4"]:
    words = np.ascontiguousarray(packed).view("<u4")[:, 0]
    index, rows = (words >> np.uint32(30)).astype(int), np.arange(len(words))
    xyzw = np.zeros((len(words), 4), np.float32)
    for i in range(3):
        part = words >> np.uint32(20 - 10 * i)
        value = (part & np.uint32(511)).astype(np.float32) / np.float32(511 * 2**0.5)
        sign = np.where(part & np.uint32(512), np.float32(-1), np.float32(1))
        xyzw[rows, i + (i >= index)] = sign * value
    xyzw[rows, index] = np.sqrt(np.maximum(0, 1 - (xyzw**2).sum(axis=1)))
    return xyzw[:, [3, 0, 1, 2]]
