import math

import pytest
import torch

from splat_esd.cameras import (
    BackgroundDistribution,
    CameraDistribution,
    Cameras,
    fibonacci_cameras,
    orbit_cameras,
    turntable,
)

ORBIT = {"elevation": 0.3, "distance": 2.5, "fovy": 0.8, "width": 64, "height": 48}


def project(cameras: Cameras, point: tuple[float, float, float]) -> torch.Tensor:
    """Projects one point of the world into every camera:  (u, v, depth) [B, 3]."""
    p = cameras.viewmats @ torch.tensor([*point, 1.0])
    uvw = (cameras.Ks @ p[:, :3, None]).squeeze(-1)
    return torch.cat([uvw[:, :2] / uvw[:, 2:], p[:, 2:3]], dim=1)


def distribution(batch_size: int = 4, **changes) -> CameraDistribution:
    ranges = {"elevation": (-0.2, 0.8), "distance": (2.4, 2.8), "fovy": (0.7, 0.9)}
    return CameraDistribution(batch_size, **{**ranges, **changes}, width=64, height=64)


def test_a_point_off_every_axis_lands_where_geometry_says_from_front_and_side():
    x, y, z, r, size = 0.3, 0.2, 0.1, 2.5, 64
    cameras = orbit_cameras(
        torch.tensor([0, math.pi / 2]),
        torch.zeros(2),
        torch.full((2,), r),
        torch.full((2,), math.pi / 2),
        width=size,
        height=size,
    )
    f = c = size / 2  # at a field of view of 90 degrees
    front = [c + f * y / (r - x), c - f * z / (r - x), r - x]
    side = [c - f * x / (r - y), c - f * z / (r - y), r - y]
    torch.testing.assert_close(project(cameras, (x, y, z)), torch.tensor([front, side]))


def test_from_above_the_right_of_the_image_is_the_objects_left_hand():
    cameras = orbit_cameras(
        torch.tensor([0.0]),
        torch.tensor([math.pi / 2]),
        torch.tensor([2.0]),
        torch.tensor([math.pi / 2]),
        width=64,
        height=64,
    )
    u, v, depth = project(cameras, (0.5, 0.25, 0.0))[0]
    assert (u, v, depth) == pytest.approx((32 + 32 * 0.125, 32 + 32 * 0.25, 2.0), abs=1e-4)


def test_the_turntable_starts_at_the_front_and_turns_counter_clockwise():
    cameras = turntable(4, **ORBIT)
    at = cameras.c2w[:, :3, 3]
    across, high = 2.5 * math.cos(0.3), 2.5 * math.sin(0.3)
    expected = torch.tensor(
        [[across, 0, high], [0, across, high], [-across, 0, high], [0, -across, high]]
    )
    torch.testing.assert_close(at, expected, atol=1e-5, rtol=1e-5)
    assert (cameras.width, cameras.height) == (64, 48)


def test_every_camera_sees_the_origin_in_the_middle_at_its_distance():
    cameras = fibonacci_cameras(100, distance=2.5, fovy=0.8, width=64, height=48)
    expected = torch.tensor([32.0, 24, 2.5]).expand(100, 3)
    torch.testing.assert_close(project(cameras, (0, 0, 0)), expected, atol=1e-4, rtol=1e-4)


def test_the_cameras_of_a_fibonacci_sphere_spread_evenly():
    cameras = fibonacci_cameras(200, distance=1.0, fovy=0.8, width=8, height=8)
    at = cameras.c2w[:, :3, 3]
    torch.testing.assert_close(at.mean(0), torch.zeros(3), atol=0.01, rtol=0)
    nearest = (torch.cdist(at, at) + 9 * torch.eye(200)).amin(1)
    assert nearest.min() > 0.7 * nearest.max()


def test_c2w_undoes_the_view():
    cameras = distribution(8).sample(torch.Generator().manual_seed(0))
    identity = torch.eye(4).expand(8, 4, 4)
    torch.testing.assert_close(cameras.c2w @ cameras.viewmats, identity, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("index", "kept"),
    [
        (1, [1]),
        (-1, [5]),
        (slice(1, 4), [1, 2, 3]),
        (torch.tensor([4, 0]), [4, 0]),
        (torch.tensor([False, True, False, False, True, False]), [1, 4]),
    ],
)
def test_picked_cameras_keep_everything_that_belongs_to_them(index, kept):
    cameras = turntable(6, **ORBIT)
    picked = cameras[index]
    assert len(picked) == len(kept)
    assert torch.equal(picked.azimuth, cameras.azimuth[kept])
    assert torch.equal(picked.viewmats, cameras.viewmats[kept])
    assert torch.equal(picked.Ks, cameras.Ks[kept])
    assert (picked.width, picked.height) == (64, 48)


def test_a_loop_over_cameras_ends():
    assert [len(camera) for camera in turntable(3, **ORBIT)] == [1, 1, 1]


def test_cameras_do_not_change():
    with pytest.raises(AttributeError):
        turntable(1, **ORBIT).width = 3


@pytest.mark.parametrize("batch_size", [1, 2, 4, 7])
def test_each_stratum_of_the_circle_is_hit_once_per_batch(batch_size):
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        before = generator.get_state()
        azimuth = distribution(batch_size).sample(generator).azimuth
        assert ((azimuth >= 0) & (azimuth <= 2 * math.pi)).all()
        replay = torch.Generator()
        replay.set_state(before)
        torch.rand(batch_size, generator=replay)
        offset = torch.rand(1, generator=replay)
        place = ((azimuth / (2 * math.pi) - offset) % 1 * batch_size) % batch_size
        jitter = place - torch.arange(batch_size)
        assert ((jitter > -1e-5) & (jitter < 1 + 1e-5)).all()


def test_the_offset_lets_every_camera_of_a_batch_see_every_side():
    generator = torch.Generator().manual_seed(0)
    first = torch.cat([distribution().sample(generator).azimuth[:1] for _ in range(400)])
    share = torch.histc(first, bins=4, min=0, max=2 * math.pi) / 400
    torch.testing.assert_close(share, torch.full((4,), 0.25), atol=0.08, rtol=0)


def test_views_spread_out_from_the_front_until_they_look_from_everywhere():
    views = distribution(2000, progressive_until=0.4)
    for progress, reach in [(0.0, 0.25), (0.2, 0.625), (0.4, 1.0), (1.0, 1.0)]:
        azimuth = views.sample(torch.Generator().manual_seed(0), progress).azimuth
        turn = torch.remainder(azimuth + math.pi, 2 * math.pi) - math.pi
        share = torch.histc(turn, bins=8, min=-reach * math.pi, max=reach * math.pi) / 2000
        torch.testing.assert_close(share, torch.full((8,), 0.125), atol=0.01, rtol=0)


def test_elevation_distance_and_field_of_view_fill_their_ranges():
    cameras = distribution(2000).sample(torch.Generator().manual_seed(0))
    for values, (low, high) in [
        (cameras.elevation, (-0.2, 0.8)),
        (cameras.distance, (2.4, 2.8)),
        (cameras.fovy, (0.7, 0.9)),
    ]:
        assert values.min() >= low
        assert values.max() <= high
        assert values.max() - values.min() > 0.99 * (high - low)
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
    up = cameras.c2w[:, 2, 3] / cameras.distance
    torch.testing.assert_close(up.asin(), cameras.elevation, atol=1e-5, rtol=1e-4)


def test_the_same_generator_draws_the_same_cameras():
    one, two = (distribution().sample(torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one.viewmats, two.viewmats)
    assert torch.equal(one.Ks, two.Ks)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"elevation": (-10.0, 45.0)}, "cameras.elevation"),
        ({"elevation": (0.5, 0.1)}, "cameras.elevation"),
        ({"distance": (0.0, 2.0)}, "cameras.distance"),
        ({"fovy": (40.0, 50.0)}, "cameras.fovy"),
        ({"fovy": (0.7, float("nan"))}, "cameras.fovy"),
    ],
)
def test_a_range_that_no_camera_can_have_is_named(changes, key):
    with pytest.raises(ValueError, match=f"{key}: expected"):
        distribution(**changes)


def test_the_background_is_fixed_or_random_by_one_coin_per_view():
    colors = BackgroundDistribution((0.0, 0.5, 1.0), 0.25).sample(
        4000, torch.Generator().manual_seed(0)
    )
    fixed = (colors == torch.tensor([0.0, 0.5, 1.0])).all(1)
    assert fixed.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert colors[~fixed].mean().item() == pytest.approx(0.5, abs=0.03)
    assert ((colors >= 0) & (colors <= 1)).all()


@pytest.mark.parametrize(("probability", "all_fixed"), [(0.0, True), (1.0, False)])
def test_a_coin_may_be_certain(probability, all_fixed):
    colors = BackgroundDistribution(random_probability=probability).sample(
        100, torch.Generator().manual_seed(0)
    )
    assert (colors == 1).all(1).any() == all_fixed


def test_pictures_grow_at_the_shares_of_the_run_that_were_asked_for():
    grows = distribution(growth=((0.1, 16), (0.5, 32)))
    generator = torch.Generator().manual_seed(0)
    sides = [grows.sample(generator, progress).width for progress in (0.0, 0.09, 0.1, 0.5, 1.0)]
    assert sides == [16, 16, 32, 64, 64]
    small, large = (
        distribution(growth=g).sample(torch.Generator().manual_seed(1)) for g in (((1.1, 16),), ())
    )
    assert torch.equal(small.viewmats, large.viewmats)
    torch.testing.assert_close(small.Ks[:, :2], large.Ks[:, :2] / 4)
