"""Statistics for small samples: confidence intervals, tests of differences and rank correlation."""

from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 4000


def wilson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns Wilson's score interval of a rate, which holds for few trials and at 0 and 1.

    Raises:
        ValueError: If there are no trials, or more successes than trials.
    References:
        Probable Inference (Wilson, 1927); recommended for small n by Brown, Cai and DasGupta, 2001.
    """
    from scipy.stats import binomtest

    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"wilson: expected 0 <= successes <= trials, got {successes}, {trials}.")
    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    # The rate lies inside; at 0 and 1 rounding would leave it a hair outside.
    rate = successes / trials
    return min(rate, float(interval.low)), max(rate, float(interval.high))


def bootstrap_mean(
    values: Sequence[float | int], *, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a mean, the same for the same seed.

    Raises:
        ValueError: If there are no values.
    References:
        An Introduction to the Bootstrap (Efron and Tibshirani, 1993), Ch. 13.
    """
    from scipy.stats import bootstrap

    data = np.asarray(values, dtype=np.float64)
    if not data.size:
        raise ValueError("bootstrap_mean: expected values, got none.")
    if np.ptp(data) == 0:  # scipy refuses a single value
        return float(data[0]), float(data[0])
    found = bootstrap(
        (data,), np.mean, n_resamples=RESAMPLES, confidence_level=confidence,
        method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def fisher(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Returns the two-sided p-value of Fisher's exact test that two rates are equal.

    Arguments:
        a: Successes and trials of the first rate.
        b: Successes and trials of the second.
    """
    from scipy.stats import fisher_exact

    table = [[a[0], a[1] - a[0]], [b[0], b[1] - b[0]]]
    return min(1.0, float(np.asarray(fisher_exact(table))[1]))


def holm(p: Sequence[float | int]) -> list[float]:
    """Returns p-values adjusted by Holm's method, which controls the family-wise error rate.

    References:
        A Simple Sequentially Rejective Multiple Test Procedure (Holm, 1979).
    """
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = worst
    return adjusted


def spearman(
    x: Sequence[float | int],
    y: Sequence[float | int],
    *,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[float, float, float] | None:
    """Returns Spearman's rank correlation of y with x and its bootstrap interval (low, high).

    None if x or y is constant. The x are fixed by design, so the y are resampled within each x.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(np.unique(xs)) < 2 or len(np.unique(ys)) < 2:
        return None
    rng = np.random.default_rng(seed)
    order = np.argsort(xs, kind="stable")
    xs, ys = xs[order], ys[order]
    drawn = np.concatenate(
        [ys[at][rng.integers(0, len(at), (RESAMPLES, len(at)))] for at in _equal(xs)], axis=1
    )
    low, high = _percentiles(_rank_correlation(xs, drawn), confidence)
    return float(_rank_correlation(xs, ys[None])[0]), low, high


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlates the ranks of x [N] with those of each row of y [R, N]; 0 where a row is flat."""
    from scipy.stats import rankdata

    ranks_x, ranks_y = rankdata(x), rankdata(y, axis=1)
    a = ranks_x - ranks_x.mean()
    b = ranks_y - ranks_y.mean(axis=1, keepdims=True)
    size = np.sqrt((a * a).sum() * (b * b).sum(axis=1))
    return np.divide(b @ a, size, out=np.zeros(len(b)), where=size > 0)


def _equal(x: np.ndarray) -> list[np.ndarray]:
    """Returns the average ranks of a sorted array's values."""
    return np.split(np.arange(len(x)), np.flatnonzero(np.diff(x)) + 1)


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
