"""The surface of a splat: where the views agree it is, closed, in one piece, and turned with it."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree

from splat_esd.errors import UsageError
from splat_esd.formats.frame import UNIT_BALL, frame_of_splats, visible
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import quat_to_rotmat
from splat_esd.initialize import from_points
from splat_esd.mesh.decimate import decimate, is_closed, seal
from splat_esd.mesh.surface import Grid, choose_level, clean, contour, extract, fuse, softness
from splat_esd.mesh.views import around, render_views


def shell(count=4000, *, radius=0.6, at=(0.0, 0.0, 0.0), opacity=0.95):
    """Covers a sphere with flat Gaussians."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    z, turn = 1 - 2 * i / count, i * math.pi * (3 - math.sqrt(5))
    across = (1 - z * z).sqrt()
    normals = torch.stack([across * turn.cos(), across * turn.sin(), z], 1).float()
    made = from_points(radius * normals, opacity=opacity)
    # The half turn that takes z to the normal has its axis halfway between the two.
    half = torch.nn.functional.normalize(normals + torch.tensor([0.0, 0.0, 1 + 1e-6]), dim=1)
    made.quats = torch.cat([torch.zeros(count, 1), half], 1)
    made.log_scales = made.log_scales + torch.tensor([0.8, 0.8, 0.1]).log()
    made.means = made.means + torch.tensor(at)
    return made


@cache
def sphere():
    """Returns points, triangles and findings of a sphere of radius 0.6."""
    return extract(views(shell(8000), size=192), cells=40)


def views(gaussians, *, size=128):
    return render_views(gaussians, around(30, size=size))


def volume(points, triangles):
    a, b, c = (points[triangles[:, i]] for i in range(3))
    return float(np.einsum("nk,nk->n", a, np.cross(b, c)).sum() / 6)


def test_a_sphere_of_gaussians_gives_a_sphere():
    points, triangles, found = sphere()
    radii = np.linalg.norm(points, axis=1)
    assert radii.mean() == pytest.approx(0.6, rel=0.03)
    assert radii.std() < 0.01
    assert volume(points, triangles) == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.1)
    assert is_closed(points, triangles)
    assert found["silhouette_agreement"] > 0.97


def test_what_lies_inside_and_cannot_be_seen_makes_no_second_surface():
    both = Gaussians.cat([shell(), shell(500, radius=0.2)])
    points, _, _ = extract(views(both), cells=24)
    assert np.linalg.norm(points, axis=1).min() > 0.5


def test_a_speck_is_dropped_and_a_twin_is_kept():
    speck = shell(200, radius=0.05, at=(0.0, 0.0, 0.85))
    points, _, _ = extract(views(Gaussians.cat([shell(radius=0.5), speck])), cells=32)
    assert np.linalg.norm(points, axis=1).max() < 0.6
    twins = [shell(2000, radius=0.3, at=(0.0, y, 0.0)) for y in (-0.5, 0.5)]
    points, _, _ = extract(views(Gaussians.cat(twins)), cells=32)
    assert (points[:, 1] < -0.3).any()
    assert (points[:, 1] > 0.3).any()


def test_turning_the_splat_turns_the_surface():
    turn = quat_to_rotmat(torch.tensor([0.9, 0.2, -0.3, 0.25]))
    egg = shell(3000)
    egg.means = egg.means * torch.tensor([1.2, 0.7, 0.5])
    points, _, _ = extract(views(egg), cells=32)
    turned, _, _ = extract(views(egg.rotate(turn)), cells=32)
    back = turned @ turn.numpy()
    # Grid and cameras stay where they are, so that the two are equal but for a cell or so.
    apart = KDTree(points).query(back)[0]
    assert apart.mean() < 0.025
    assert apart.max() < 0.06
    assert KDTree(points).query(turned)[0].mean() > 0.05


def test_haze_all_over_still_has_a_surface_and_is_soft():
    haze, solid = views(shell(opacity=0.05)), views(shell())
    points, triangles, _ = extract(haze, cells=32)
    assert is_closed(points, triangles)
    assert softness(haze) > 0.9
    assert softness(solid) < 0.2


def test_nothing_to_see_is_an_error():
    dark = views(shell())
    dark.alpha.zero_()
    with pytest.raises(UsageError, match="too thin to be seen"):
        extract(dark, cells=32)


def test_the_level_agrees_best_with_the_silhouettes_of_all_levels():
    seen = views(shell())
    grid = Grid(np.full(3, -1.05), 2.1 / 40, (41, 41, 41))
    # A field whose level 0.3 is the sphere, and whose others are too small or too large.
    distance = np.linalg.norm(
        np.stack(np.meshgrid(*[grid.low[0] + grid.step * np.arange(41)] * 3)), axis=0
    )
    level, agreement = choose_level((3 * (distance - 0.62) + 0.3).astype(np.float32), grid, seen)
    assert level == 0.3
    assert agreement > 0.95


def test_fusing_gives_the_signed_distance_near_a_surface():
    seen = views(shell(8000), size=256)
    grid = Grid(np.array([0.56, 0.0, 0.0]), 0.01, (8, 1, 1))
    field = fuse(seen, grid, np.ones(grid.shape, bool))[:, 0, 0]
    assert (np.diff(field) > 0).all()
    crossing = np.interp(0.0, field, 0.56 + 0.01 * np.arange(8))
    assert crossing == pytest.approx(0.6, abs=0.02)


def test_cleaning_fills_what_is_hollow_and_closes_the_border():
    field = np.ones((24, 24, 24), np.float32)
    field[2:20, 2:20, 0:20] = -1
    field[8:14, 8:14, 8:14] = 1
    solid = clean(field, 0.0) < 0
    assert solid[10, 10, 10]
    assert not solid[:, :, 0].any()
    points, triangles = contour(clean(field, 0.0), 0.0, Grid(np.zeros(3), 1.0, field.shape))
    assert is_closed(points, triangles)
    assert volume(points, triangles) == pytest.approx(18 * 18 * 19.5, rel=0.05)


def test_the_frame_holds_the_object_and_ignores_what_strays():
    stray = shell(20, radius=0.1, at=(40.0, 0.0, 0.0))
    frame = frame_of_splats(Gaussians.cat([shell(at=(3.0, -2.0, 1.0)), stray]))
    np.testing.assert_allclose(frame.center, [3, -2, 1], atol=0.05)
    assert 0.6 < frame.radius < 0.75
    placed = frame.place(shell(at=(3.0, -2.0, 1.0)))
    assert placed.means.norm(dim=1).max() < 1
    np.testing.assert_allclose(
        frame.to_world(placed.means.double().numpy()), shell(at=(3.0, -2.0, 1.0)).means, atol=1e-5
    )
    assert UNIT_BALL.holds(frame_of_splats(shell()))


def test_splats_that_nobody_sees_are_left_out():
    kept = shell(100)
    ghost = shell(100, opacity=0.001)
    broken = shell(100)
    broken.means[:, 0] = math.nan
    assert len(visible(Gaussians.cat([kept, ghost, broken]))) == 100
    with pytest.raises(UsageError, match="no splat is opaque enough"):
        visible(ghost)


def test_splats_in_one_point_are_an_error():
    point = shell(50)
    point.means = torch.zeros_like(point.means)
    point.log_scales = torch.full_like(point.log_scales, -math.inf)
    with pytest.raises(UsageError, match="in one point"):
        frame_of_splats(point)


@pytest.mark.parametrize("faces", [2000, 300])
def test_fewer_triangles_are_still_closed_and_near_the_sphere(faces: int):
    points, triangles, _ = sphere()
    fewer = decimate(points, triangles, faces=faces, watertight=True)
    assert fewer is not None
    assert 0.9 * faces <= len(fewer[1]) <= faces
    assert is_closed(*fewer)
    assert volume(*fewer) == pytest.approx(volume(points, triangles), rel=0.02)


def test_a_mesh_small_enough_is_left_as_it_is():
    points, triangles, _ = sphere()
    same = decimate(points, triangles, faces=len(triangles), watertight=True)
    assert same is not None
    assert same[0] is points


def cube(at=(0.0, 0.0, 0.0)):
    corners = np.array([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)]) + at
    sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = [t for a, b, c, d in sides for t in ((a, b, c), (a, c, d))]
    return corners, np.array(triangles)


def joined(*shapes):
    """Joins shapes and makes corners that coincide one."""
    points = np.concatenate([shape[0] for shape in shapes])
    first = np.cumsum([0, *(len(shape[0]) for shape in shapes)])
    triangles = np.concatenate([s[1] + n for s, n in zip(shapes, first[:-1], strict=True)])
    unique, same = np.unique(points, axis=0, return_inverse=True)
    return unique, same.reshape(-1)[triangles]


@pytest.mark.parametrize("at", [(1.0, 1.0, 0.0), (1.0, 1.0, 1.0)], ids=["edge", "corner"])
def test_cubes_that_touch_are_taken_apart(at):
    points, triangles = joined(cube(), cube(at))
    sealed = seal(points, triangles)
    assert is_closed(*sealed)
    assert len(sealed[0]) == 16
    assert volume(*sealed) == pytest.approx(2, rel=0.05)


def test_triangles_back_to_back_are_dropped():
    points, triangles = cube()
    tip = np.array([[2.0, 2, 2]])
    a, b = triangles[0][:2]
    fins = np.array([[a, b, 8], [b, a, 8]])
    sealed = seal(np.concatenate([points, tip]), np.concatenate([triangles, fins]))
    assert is_closed(*sealed)
    assert len(sealed[1]) == 12


def test_closed_means_every_edge_runs_both_ways_once():
    points, triangles = cube()
    assert is_closed(points, triangles)
    assert not is_closed(points, triangles[1:])
    assert not is_closed(points, np.concatenate([triangles[:1, ::-1], triangles[1:]]))
    assert not is_closed(*joined(cube(), cube((1.0, 1.0, 0.0))))
    assert not is_closed(points, triangles[:0])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), blur=st.floats(0.7, 2.0), level=st.floats(-0.2, 0.2))
def test_the_contour_of_any_field_is_closed(seed: int, blur: float, level: float):
    noise = np.random.default_rng(seed).normal(0, 1, (14, 14, 14)).astype(np.float32)
    field = clean(noise, level, blur=blur)
    if (field < level).any():
        points, triangles = contour(field, level, Grid(np.zeros(3), 0.1, field.shape))
        assert is_closed(*seal(points, triangles))
        assert volume(points, triangles) > 0


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_a_field_without_a_surface_is_refused_in_our_own_words(value: float):
    field = np.full((6, 6, 6), value)
    with pytest.raises(UsageError, match="the splat shows no surface"):
        contour(field, 0.0, Grid(np.zeros(3), 1.0, field.shape))
