"""What hangs apart from the finished object is left out, and nothing else."""

import pytest
import torch

from splat_esd.gaussians import Gaussians
from splat_esd.initialize import ball
from splat_esd.specks import without_specks


def cloud(count: int, *, at=(0.0, 0.0, 0.0), radius: float = 0.4, opacity: float = 0.8):
    generator = torch.Generator().manual_seed(count)
    made = ball(count, radius=radius, opacity=opacity, color=0.5, generator=generator)
    made.means.data += torch.tensor(at)
    return made.detach()


def together(*clouds: Gaussians) -> Gaussians:
    parts = [c.parameters() for c in clouds]
    return Gaussians(**{name: torch.cat([p[name] for p in parts]) for name in parts[0]})


def kept(gaussians: Gaussians, share: float = 0.005) -> int:
    return len(without_specks(gaussians, share))


def test_a_small_piece_apart_from_the_body_is_left_out():
    body, speck = cloud(3000), cloud(12, at=(0.9, 0.0, 0.0), radius=0.03)
    left = without_specks(together(body, speck), 0.005)
    assert torch.equal(left.means, body.means)
    assert torch.equal(left.sh, body.sh)


def test_a_piece_with_a_fair_share_stays():
    assert kept(together(cloud(3000), cloud(100, at=(0.9, 0.0, 0.0), radius=0.1))) == 3100


def test_a_small_piece_that_touches_the_body_stays():
    assert kept(together(cloud(3000), cloud(12, at=(0.42, 0.0, 0.0), radius=0.03))) == 3012


def test_a_faint_splat_far_away_goes_and_one_beside_the_body_stays():
    far, beside = (cloud(2, at=(x, 0.0, 0.0), radius=0.001, opacity=0.02) for x in (0.9, 0.45))
    assert kept(together(cloud(3000), far, beside)) == 3002


@pytest.mark.parametrize("count", [2, 50, 200, 1000, 5000])
def test_a_cloud_of_any_density_is_one_piece(count):
    assert kept(cloud(count)) == count


def test_two_pieces_alike_are_both_meant():
    assert kept(together(cloud(2000), cloud(2000, at=(1.2, 0.0, 0.0)))) == 4000


def test_nothing_is_left_out_where_nothing_is_asked_for_or_all_is_faint():
    speckled = together(cloud(3000), cloud(5, at=(0.9, 0.0, 0.0), radius=0.03))
    assert kept(speckled, 0.0) == 3005
    assert kept(cloud(100, opacity=0.01)) == 100
