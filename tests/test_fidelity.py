import math

import pytest
import torch

from splat_esd.cameras import turntable
from splat_esd.metrics.fidelity import aligned_fidelity, psnr, ssim, true_views
from splat_esd.zoo.world.captions import Composition


def around(count, **changes):
    options = {"elevation": 0.26, "distance": 2.45, "fovy": 0.75, "width": 32, "height": 32}
    return turntable(count, **options | changes)


def test_an_error_of_a_tenth_is_twenty_decibels():
    a = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0)) * 0.8
    torch.testing.assert_close(psnr(a, a + 0.1), torch.full((2,), 20.0))


def test_equal_pictures_are_wholly_similar():
    a = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ssim(a, a), torch.ones(2))
    assert (ssim(a, a.flip(1)) < 0.5).all()


def test_a_turned_asset_is_turned_back_before_it_is_compared():
    truth = true_views(Composition("corgi"), around(8))
    same = aligned_fidelity(truth.roll(3, dims=0), truth)
    assert same["turn"] == 135.0 and same["ssim"] == 1.0 and same["psnr"] == 100.0
    other = aligned_fidelity(true_views(Composition("house"), around(8)), truth)
    assert other["psnr"] < 20 and other["ssim"] < 0.9


def test_the_truth_turns_counter_clockwise_from_the_front():
    """Seen from its own left, a corgi looks to the picture's left, where its pale muzzle is."""
    front, left = true_views(Composition("corgi"), around(4))[:2]
    assert (front - front.flip(1)).abs().mean() < 0.02
    assert (left - left.flip(1)).abs().mean() > 0.05


def test_only_square_pictures_are_taken():
    with pytest.raises(ValueError, match="square"):
        true_views(Composition("cat"), around(1, width=16, fovy=math.pi / 4))
