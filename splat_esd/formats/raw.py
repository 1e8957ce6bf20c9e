"""Splats as a file holds them, before anything is turned; and what is mended in them."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

from splat_esd.errors import UsageError
from splat_esd.geometry import SH_C0

LOGIT_MAX = 20.0  # of what a file calls fully opaque: the logit of 1 - 2e-9
LOG_SCALE_MIN = -20.0  # of what a file calls without any size: 2e-9
_HARMONICS = (1, 4, 9, 16)


@dataclass
class RawSplats:
    """The columns of N splats in the file's own axes, and what there is to say about them.

    Arguments:
        means: Centres; in double where the file has double [N, 3].
        quats: (w, x, y, z), of any length [N, 4].
        log_scales: Logarithms of the standard deviations [N, 3].
        logit_opacities: Logits [N].
        sh: Spherical harmonics [N, K, 3].
        up: The axis that the file says is up, or "" if it does not say; "ours" is z, front +x.
        usual: The axis that such files mostly mean.
        notes: What was assumed, dropped or cut: one line each.
        placement: Middle and radius of the ball where the splats were taken from, if the file says.
    """

    means: Shaped[ndarray, "N 3"]
    quats: Float[ndarray, "N 4"]
    log_scales: Float[ndarray, "N 3"]
    logit_opacities: Float[ndarray, " N"]
    sh: Float[ndarray, "N K 3"]
    up: str = ""
    usual: str = "-y"
    notes: list[str] = field(default_factory=list)
    placement: tuple[float, float, float, float] | None = None

    def __len__(self) -> int:
        return len(self.means)

    def select(self, which: Bool[ndarray, " N"]) -> None:
        """Keeps the rows that a mask marks."""
        for name in ("means", "quats", "log_scales", "logit_opacities", "sh"):
            setattr(self, name, getattr(self, name)[which])


def clean(raw: RawSplats, path: object) -> None:
    """Mends infinities that have a meaning, and drops rows of which nothing can be known.

    A logit of +-inf is +-20, a log scale of -inf is -20; every other NaN or infinity drops its row.

    Raises:
        UsageError: If there are no splats, or most rows are broken.
    """
    total = len(raw)
    if not total:
        raise UsageError(f"{path} is empty: it has no splats.")
    opacities, scales = raw.logit_opacities, raw.log_scales
    opaque = np.isinf(opacities)
    if opaque.any():
        raw.logit_opacities = np.clip(opacities, -LOGIT_MAX, LOGIT_MAX)
        raw.notes.append(
            f"{opaque.sum()} opacities are exactly 0 or 1; their logits are taken as "
            f"-{LOGIT_MAX:g} or {LOGIT_MAX:g}."
        )
    flat = np.isneginf(scales)
    if flat.any():
        raw.log_scales = np.where(flat, np.float32(LOG_SCALE_MIN), scales)
        raw.notes.append(f"{flat.sum()} scales are exactly 0; they are taken as 2e-9.")
    finite = np.isfinite(raw.logit_opacities)
    with np.errstate(over="ignore"):
        for values in (raw.means, raw.quats, raw.log_scales, raw.sh.reshape(total, -1)):
            finite &= np.isfinite(values.astype(np.float32, copy=False)).all(axis=1)
        finite &= np.abs(raw.log_scales).max(axis=1, initial=0) < 80  # exp of it is a float32
    bad = total - int(finite.sum())
    if 2 * bad > total:
        first = int(np.flatnonzero(~finite)[0])
        raise UsageError(
            f"{path}: {bad} of {total} splats hold NaN, infinity or sizes beyond float32, the "
            f"first in row {first}; this file is damaged, or its training diverged."
        )
    if bad:
        raw.select(finite)
        raw.notes.append(f"{bad} of {total} splats held NaN or infinity and were dropped.")


def logit(opacities: Float[ndarray, " N"]) -> Float[ndarray, " N"]:
    """Returns  log(o / (1 - o)),  +-20 at the ends."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(opacities) - np.log1p(-opacities)
    return np.clip(logits, -LOGIT_MAX, LOGIT_MAX).astype(np.float32)


def dc(colors: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
    """Returns the harmonics of degree 0 of colours in [0, 1]:  (c - 0.5) / C0."""
    return ((colors - 0.5) / SH_C0).astype(np.float32)


def cut(sh: Float[ndarray, "N K 3"], notes: list[str]) -> Float[ndarray, "N L 3"]:
    """Cuts harmonics to the last whole degree up to 3, and says so."""
    kept = max(count for count in _HARMONICS if count <= sh.shape[1])
    if kept < sh.shape[1]:
        notes.append(
            f"{sh.shape[1] - 1} harmonics above degree 0 were cut to {kept - 1}: whole degrees, "
            "3 at most."
        )
    return sh[:, :kept]
