"""The many spellings of a splat's columns, brought to one: what a PLY of any program holds.

Names first, whatever their case and prefix; then kinds: colours for harmonics, opacities for
logits, sizes for their logarithms, a missing third scale, Mip-Splatting's filter.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from splat_esd.errors import UsageError
from splat_esd.formats.raw import LOG_SCALE_MIN, RawSplats, cut, dc, logit

# Ours; the stems that others use for it; and the letters they use for its numbers.
_FAMILIES = {
    "scale": ("scale scales scaling log_scale log_scales s", "xyz"),
    "rot": ("rot rots quat quats rotation rotations q", "wxyz"),
    "f_dc": ("f_dc sh0 dc features_dc feature_dc sh_dc", "rgb"),
    "xyz": ("xyz mean means pos position positions center p", "xyz"),
    "color": ("color colors colour", "rgb"),
}
_PLAIN = {
    f"{stem}{joint}{end}": f"{family}_{i}"
    for family, (stems, letters) in _FAMILIES.items()
    for stem in stems.split()
    for joint in ("", "_")
    for i, letter in enumerate(letters)
    for end in (i, letter)
}
_SINGLE = {
    "xyz_0": "x",
    "xyz_1": "y",
    "xyz_2": "z",
    "color_0": "red r diffuse_red",
    "color_1": "green g diffuse_green",
    "color_2": "blue b diffuse_blue",
    "opacity": "opacity opacities opacity_0 opacities_0 logit_opacity logit_opacities",
    "alpha": "alpha a alpha_0 diffuse_alpha",
    "filter_3d": "filter_3d filter3d filter_3d_0",
    "scale": "scale scales scaling radius",
}
_PLAIN |= {alias: name for name, aliases in _SINGLE.items() for alias in aliases.split()}
_USUAL = {"x", "y", "z", "red", "green", "blue", "opacity", "alpha"}
_USUAL |= {f"{name}_{i}" for name in ("f_dc", "f_rest", "scale", "rot") for i in range(72)}
_REST = re.compile(r"(?:f_rest|sh_rest|shn|features_rest|feature_rest|f_rest)_?(\d+)")
Table = Mapping[str, ndarray] | ndarray  # a structured array, or a dict of columns
Column = Callable[[str], ndarray]  # by our name, as float32
_PREFIX = re.compile(r"(scalar|vertex|gs|splat|gaussian|gaussians|attr|attribute|property)[_.]")
_UNUSED = re.compile(r"n[xyz]|normal_?[xyz]|nxx|nyy|nzz")
_SPLAT = {"opacity", "rot_0", "rot_1", "scale_0", "scale_1", "scale", "f_dc_0"}
_ENOUGH = 16  # rows from which a guess by value is sound
_FEW = 3  # missing f_rest_*, with which it is still clear where a channel begins
_FLATTER = 7.0  # of the missing third log scale, below the smaller of the other two


def normalised(names: Sequence[str]) -> dict[str, str]:
    """Maps our names, f_rest_7 among them, to the file's own; an exact name goes first."""
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name not in _USUAL):
        plain = name.lower()
        while prefix := _PREFIX.match(plain):
            plain = plain[prefix.end() :]
        rest = _REST.fullmatch(plain)
        ours = f"f_rest_{int(rest[1])}" if rest else _PLAIN.get(plain)
        if ours is not None:
            found.setdefault(ours, name)
    return found


def is_splats(names: Sequence[str]) -> bool:
    """Tells splats from points: any column of opacity, scale or rotation makes them splats."""
    found = normalised(names)
    return bool(_SPLAT & set(found)) or any("packed_" in name for name in names)


def from_columns(table: Table, names: Sequence[str], path: object) -> RawSplats:
    """Reads the splats out of a table of columns, whatever they are called.

    Arguments:
        table: A structured array, or a dict of columns.
        names: Of its columns that are not lists.
        path: For the messages.
    Raises:
        UsageError: If a column that nothing can stand for is missing.
    """
    found, notes = normalised(names), []

    def get(name: str) -> Float[ndarray, " N"]:
        return np.asarray(table[found[name]]).astype(np.float32)

    missing = ["xyz"[i] for i in range(3) if f"xyz_{i}" not in found]
    if not any(f"scale_{i}" in found for i in range(3)) and "scale" not in found:
        missing.append("scale_0")
    if missing:
        raise UsageError(
            f"{path} holds splats without {', '.join(missing)}; its columns are "
            f"{', '.join(names[:20])}."
        )
    means = np.stack([np.asarray(table[found[f"xyz_{i}"]]) for i in range(3)], axis=1)
    if means.dtype != np.float64:
        means = means.astype(np.float32)
    log_scales = _log_scales(found, get, means, notes)
    opacities = _opacities(table, found, get, notes)
    if "filter_3d" in found:
        log_scales, opacities = _filtered(log_scales, opacities, get("filter_3d"))
        notes.append("filter_3D (Mip-Splatting) was applied to scales and opacities.")
    raw = RawSplats(
        means=means,
        quats=_quats(found, get, len(means), notes),
        log_scales=log_scales,
        logit_opacities=opacities,
        sh=_harmonics(table, found, get, notes),
        notes=notes,
    )
    used = set(found.values())
    if dropped := [n for n in names if n not in used and not _UNUSED.fullmatch(n.lower())]:
        more = f" and {len(dropped) - 12} more" if len(dropped) > 12 else ""
        notes.append(f"columns that splats have not were dropped: {', '.join(dropped[:12])}{more}.")
    return raw


def colors_of(table: Table, found: Mapping[str, str]) -> tuple[Float[ndarray, "N 3"] | None, str]:
    """Reads red green blue by their type and range as [0, 1]; negative values are no colours.

    Returns:
        The colours, or None; and what was assumed, or "".
    """
    names = [f"color_{i}" for i in range(3)]
    if not set(names) <= set(found):
        return None, ""
    columns = [np.asarray(table[found[name]]) for name in names]
    kind = columns[0].dtype
    values = np.stack([column.astype(np.float32) for column in columns], axis=1)
    if np.issubdtype(kind, np.unsignedinteger):
        return values / np.iinfo(kind).max, ""
    return by_range(values)


def by_range(values: Float[ndarray, "N 3"]) -> tuple[Float[ndarray, "N 3"] | None, str]:
    """Reads colours of unknown range: up to 1, 255 or 65535; none if any is negative."""
    if not len(values) or not np.isfinite(values).all() or values.min() < 0:
        return None, "red, green and blue are negative or not finite in places: no colours."
    top = float(values.max())
    full = 1 if top <= 1 else 255 if top <= 255 else 65535
    if top > 65535:
        return None, f"red, green and blue go up to {top:g}: no colours."
    return values / np.float32(full), ""


def _log_scales(
    found: Mapping[str, str], get: Column, means: Float[ndarray, "N 3"], notes: list[str]
) -> Float[ndarray, "N 3"]:
    there = [i for i in range(3) if f"scale_{i}" in found]
    if not there:
        scales = np.repeat(get("scale")[:, None], 3, axis=1)
        notes.append("one scale for all three axes: round splats.")
    elif len(there) == 1:
        scales = np.repeat(get(f"scale_{there[0]}")[:, None], 3, axis=1)
        notes.append(f"only scale_{there[0]}: round splats.")
    else:
        scales = np.stack([get(f"scale_{i}") for i in there], axis=1)
    scales = _logarithms(scales, means, notes)
    if len(there) == 2:
        flat = np.maximum(scales.min(axis=1) - _FLATTER, LOG_SCALE_MIN)
        gone = next(i for i in range(3) if i not in there)
        scales = np.insert(scales, gone, flat, axis=1)
        notes.append(f"no scale_{gone}: flat splats (2DGS), a thousandth as thick as wide.")
    return scales


def _logarithms(
    scales: Float[ndarray, "N K"], means: Float[ndarray, "N 3"], notes: list[str]
) -> Float[ndarray, "N K"]:
    """Takes sizes as they are for sizes only where their exponentials dwarf the whole scene."""
    if len(scales) < _ENOUGH or not np.isfinite(scales).all() or scales.min() < 0:
        return scales
    middle = np.median(means, axis=0)
    extent = float(np.median(np.linalg.norm(means - middle, axis=1)))
    width = float(np.median(scales))
    if not width < extent < 2 * np.exp(min(width, 50.0)):
        return scales
    notes.append("scales are positive and small: taken as sizes, not as logarithms.")
    with np.errstate(divide="ignore"):
        return np.log(scales)


def _opacities(
    table: Table, found: Mapping[str, str], get: Column, notes: list[str]
) -> Float[ndarray, " N"]:
    name = "opacity" if "opacity" in found else "alpha" if "alpha" in found else ""
    if not name:
        notes.append("no column of opacities: all are taken as opaque.")
        return np.full(len(table[found["xyz_0"]]), logit(np.ones(1))[0])
    kind = np.asarray(table[found[name]]).dtype
    values = get(name)
    if np.issubdtype(kind, np.integer):
        notes.append(f"{found[name]} holds whole numbers: taken as opacities, not as logits.")
        return logit(np.clip(values / np.iinfo(kind).max, 0, 1))
    inside = len(values) >= _ENOUGH and values.min() >= 0 and values.max() <= 1
    if inside and (name == "alpha" or values.max() - values.min() > 0.5):
        notes.append(f"{found[name]} lies in [0, 1]: taken as opacities, not as logits.")
        return logit(values)
    return values


def _filtered(
    log_scales: Float[ndarray, "N 3"], logits: Float[ndarray, " N"], width: Float[ndarray, " N"]
) -> tuple[Float[ndarray, "N 3"], Float[ndarray, " N"]]:
    """Applies the 3D filter:  s' = sqrt(s^2 + f^2),  o' = o sqrt(prod s^2 / prod s'^2)."""
    wide = 0.5 * np.logaddexp(2 * log_scales, 2 * np.log(np.maximum(width, 1e-12))[:, None])
    shrink = np.exp((log_scales - wide).sum(axis=1))
    return wide.astype(np.float32), logit(shrink / (1 + np.exp(-logits.clip(-80, 80))))


def _quats(
    found: Mapping[str, str], get: Column, count: int, notes: list[str]
) -> Float[ndarray, "N 4"]:
    there = [f"rot_{i}" for i in range(4) if f"rot_{i}" in found]
    if len(there) == 4:
        return np.stack([get(name) for name in there], axis=1)
    if there:
        notes.append(f"only {', '.join(there)} of four columns of rotation: no rotations.")
    else:
        notes.append("no columns of rotation: no rotations.")
    return np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1))


def _harmonics(
    table: Table, found: Mapping[str, str], get: Column, notes: list[str]
) -> Float[ndarray, "N K 3"]:
    count = len(table[found["xyz_0"]])
    if all(f"f_dc_{i}" in found for i in range(3)):
        base = np.stack([get(f"f_dc_{i}") for i in range(3)], axis=1)
    else:
        colors, said = colors_of(table, found)
        notes.append(said or ("red green blue instead of f_dc." if colors is not None else ""))
        if colors is None:
            notes.append("no colours: all splats are grey.")
        base = np.zeros((count, 3), np.float32) if colors is None else dc(colors)
        notes[:] = list(filter(None, notes))
    rest = sorted(int(name[7:]) for name in found if name.startswith("f_rest_"))
    if not rest:
        return base[:, None]
    channel = next((n for n in (3, 8, 15, 24) if 3 * n > rest[-1]), 0)
    # All of red, then of green, then of blue: a coefficient counts if all three have it.
    whole = next(
        (i for i in range(channel) if any(i + c * channel not in rest for c in range(3))), channel
    )
    kept = max(n for n in (0, 3, 8, 15) if n <= whole)
    if 3 * channel - len(rest) > _FEW:  # nobody knows of how many columns these are the rest
        kept = 0
    if len(rest) != 3 * kept:
        notes.append(
            f"{len(rest)} columns f_rest_* are not three times 3, 8 or 15: cut to {3 * kept}."
        )
    sh = np.empty((count, 1 + kept, 3), np.float32)
    sh[:, 0] = base
    for c in range(3):
        for i in range(kept):
            sh[:, 1 + i, c] = table[found[f"f_rest_{i + c * channel}"]]
    return cut(sh, notes)
