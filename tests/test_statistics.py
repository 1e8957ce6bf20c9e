"""Intervals and tests against values worked out elsewhere, and against what they promise."""

import math

import numpy as np
import pytest

from splat_esd.study.statistics import bootstrap_mean, fisher, holm, spearman, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_that_of_the_literature(successes, trials, low, high):
    """Newcombe, Two-sided confidence intervals for the single proportion, 1998, Table I."""
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5.1e-5)
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=5.1e-5)


def test_wilsons_interval_solves_the_score_equation():
    """|p - P| = z sqrt(P (1 - P) / n) at both ends."""
    for end in wilson(7, 23):
        assert abs(7 / 23 - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / 23))


def test_every_rate_lies_inside_its_interval():
    for trials in range(1, 60):
        for successes in range(trials + 1):
            low, high = wilson(successes, trials)
            assert 0 <= low <= successes / trials <= high <= 1


def test_a_rate_of_nothing_is_refused():
    for given in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="successes <= trials"):
            wilson(*given)


def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        low, high = bootstrap_mean(rng.exponential(1.0, 40).tolist(), seed=trial)
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 300 <= 0.97  # a little short of 0.95 on skewed data, as it must be


def test_the_bootstrap_is_as_wide_as_the_normal_interval_where_that_holds():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = bootstrap_mean(values.tolist())
    reach = 1.959964 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.03)
    assert bootstrap_mean([3.0]) == (3.0, 3.0)
    assert bootstrap_mean([1.0, 2.0]) == bootstrap_mean([1.0, 2.0])
    with pytest.raises(ValueError, match="got none"):
        bootstrap_mean([])


def test_fishers_p_is_the_sum_of_all_tables_as_unlikely():
    """The lady tasting tea, and every table of two small studies by counting."""
    assert fisher((3, 4), (1, 4)) == pytest.approx(34 / 70)
    n, m = 7, 5
    for a in range(n + 1):
        for b in range(m + 1):
            chance = [
                math.comb(n, k) * math.comb(m, a + b - k) / math.comb(n + m, a + b)
                for k in range(max(0, a + b - m), min(n, a + b) + 1)
            ]
            mine = math.comb(n, a) * math.comb(m, b) / math.comb(n + m, a + b)
            expected = sum(c for c in chance if c <= mine * (1 + 1e-9))
            assert fisher((a, n), (b, m)) == pytest.approx(expected)


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_spearman_is_scipys_and_its_interval_holds_it():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    x = np.repeat([0.0, 0.25, 0.5, 1.0], 12)
    y = x + rng.normal(0, 0.5, len(x))
    order = rng.permutation(len(x))
    rho, low, high = spearman(x[order].tolist(), y[order].tolist())
    assert rho == pytest.approx(spearmanr(x, y).statistic)
    assert low < rho < high and low > 0


def test_a_trend_of_ones_and_zeros_has_ties_and_none_has_no_trend():
    from scipy.stats import spearmanr

    x, y = [0, 0, 0, 0.5, 0.5, 1, 1, 1], [0, 0, 1, 0, 1, 1, 1, 1]
    rho, low, high = spearman(x, y)
    assert rho == pytest.approx(spearmanr(x, y).statistic) and low <= rho <= high
    assert spearman([0, 1, 2], [1, 1, 1]) is None
    assert spearman([1, 1, 1], [0, 1, 2]) is None
