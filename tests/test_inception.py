import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat_esd.metrics.inception import entropy, inception_scores


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 9), st.floats(0.1, 8.0))
def test_quality_never_exceeds_variety(seed, views, classes, sharpness):
    g = torch.Generator().manual_seed(seed)
    p = (sharpness * torch.randn(views, classes, dtype=torch.float64, generator=g)).softmax(1)
    scores = inception_scores(p)
    assert scores["quality"] <= scores["variety"] + 1e-12
    assert scores["variety"] <= math.log(classes) + 1e-12


def test_equal_views_have_no_variety_beyond_their_quality():
    p = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).expand(6, -1)
    scores = inception_scores(p)
    assert scores["information"] == pytest.approx(0.0, abs=1e-12)
    assert scores["gain"] == pytest.approx(0.0, abs=1e-12)


def test_sure_and_different_views_carry_all_the_information_there_is():
    scores = inception_scores(torch.eye(4, dtype=torch.float64))
    assert scores["quality"] == 0.0
    assert scores["information"] == pytest.approx(math.log(4))


def test_fog_has_variety_but_no_information():
    fog = inception_scores(torch.full((8, 5), 0.2, dtype=torch.float64))
    assert fog["variety"] == pytest.approx(math.log(5))
    assert fog["information"] == pytest.approx(0.0, abs=1e-12)


def test_entropy_takes_zero_probabilities():
    assert entropy(torch.tensor([1.0, 0.0])).item() == 0.0


def test_rows_that_are_no_distributions_are_refused():
    with pytest.raises(ValueError, match="expected a distribution"):
        inception_scores(torch.tensor([[0.5, 0.1]]))
