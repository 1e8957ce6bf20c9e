"""Colours on a mesh: what the splat shows is painted, gaps are filled, nothing shines through."""

import math

import numpy as np
import pytest
import torch

from splat_esd.cameras import turntable
from splat_esd.gaussians import Gaussians
from splat_esd.initialize import from_points
from splat_esd.mesh import fidelity, texture
from splat_esd.mesh.atlas import Unwrapped, point_normals, unwrap
from splat_esd.mesh.texture import bake, near_colors, pad, sample
from splat_esd.mesh.views import around, render_views


def ball_mesh(radius, rings=16):
    """Makes a sphere of squares cut in two, closed at the poles."""
    tilt, turn = np.pi * np.arange(1, rings) / rings, np.pi * np.arange(2 * rings) / rings
    tilt, turn = np.meshgrid(tilt, turn, indexing="ij")
    around_ = np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)], -1)
    points = np.concatenate([around_.reshape(-1, 3), [[0, 0, 1], [0, 0, -1.0]]])
    index = np.arange((rings - 1) * 2 * rings).reshape(rings - 1, 2 * rings)
    right = np.roll(index, -1, axis=1)
    north, south = len(points) - 2, len(points) - 1
    faces = [
        *zip(index[:-1].ravel(), index[1:].ravel(), right[1:].ravel(), strict=True),
        *zip(index[:-1].ravel(), right[1:].ravel(), right[:-1].ravel(), strict=True),
        *((north, a, b) for a, b in zip(index[0], right[0], strict=True)),
        *((south, b, a) for a, b in zip(index[-1], right[-1], strict=True)),
    ]
    return radius * points, np.array(faces, np.int64)


def painted_ball(color_of, *, radius=0.7, count=6000):
    """Covers a sphere with splats whose colour is a function of the place."""
    i = torch.arange(count) + 0.5
    z, turn = 1 - 2 * i / count, i * math.pi * (3 - math.sqrt(5))
    across = (1 - z * z).sqrt()
    points = radius * torch.stack([across * turn.cos(), across * turn.sin(), z], 1)
    splats = from_points(points, color_of(points), opacity=0.98)
    splats.log_scales = splats.log_scales - 0.3
    return splats


def half_red_half_blue(points):
    red = (points[:, :1] > 0).float()
    return torch.cat([red, torch.zeros_like(red), 1 - red], 1)


@pytest.fixture(scope="module")
def unwrapped() -> Unwrapped:
    return unwrap(*ball_mesh(0.72), size=128)


def shots(splats, size=96):
    return render_views(splats, around(24, size=size))


def colors_at(mesh, image, direction):
    """Returns the colours of the faces that look one way."""
    facing = mesh.normals[mesh.faces].mean(1) @ np.array(direction) > 0.9
    return sample(image, mesh.uv[mesh.faces[facing]].mean(1))


def front(mesh, image):
    return colors_at(mesh, image, (1, 0, 0)).mean(0)


def behind(mesh, image):
    return colors_at(mesh, image, (-1, 0, 0)).mean(0)


def test_every_side_gets_its_colour(unwrapped: Unwrapped):
    splats = painted_ball(half_red_half_blue)
    image, seen = bake(unwrapped, splats, shots(splats), size=128, steps=0)
    assert seen > 0.99
    np.testing.assert_allclose(front(unwrapped, image), [1, 0, 0], atol=0.04)
    np.testing.assert_allclose(behind(unwrapped, image), [0, 0, 1], atol=0.04)


def test_what_stands_before_a_surface_leaves_no_paint_on_it():
    # A small green ball before a red one: behind it, red must stay red.
    red = painted_ball(lambda p: torch.tensor([[1.0, 0, 0]]).expand(len(p), 3), radius=0.4)
    green = painted_ball(lambda p: torch.tensor([[0, 1.0, 0]]).expand(len(p), 3), radius=0.15)
    green.means = green.means + torch.tensor([0.7, 0.0, 0.0])
    big, small = ball_mesh(0.42), ball_mesh(0.165)
    points = np.concatenate([big[0], small[0] + (0.7, 0, 0)])
    mesh = unwrap(points, np.concatenate([big[1], small[1] + len(big[0])]), size=128)
    splats = Gaussians.cat([red, green])
    image, _ = bake(mesh, splats, shots(splats), size=128, steps=0)
    on_big = (mesh.point[mesh.faces] < len(big[0])).all(1)
    paint = sample(image, mesh.uv[mesh.faces].mean(1))
    assert np.quantile(paint[on_big][:, 1], 0.99) < 0.1
    assert np.quantile(paint[~on_big][:, 0], 0.99) < 0.1


def test_where_no_view_looks_the_gaussians_give_the_colour(unwrapped: Unwrapped):
    splats = painted_ball(half_red_half_blue)
    camera = turntable(1, elevation=0.0, distance=2.8, fovy=0.8, width=96, height=96)
    image, seen = bake(unwrapped, splats, render_views(splats, camera), size=128, steps=0)
    assert 0.2 < seen < 0.5
    np.testing.assert_allclose(behind(unwrapped, image), [0, 0, 1], atol=0.04)


def test_near_colours_are_an_average_by_opacity_and_distance():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    pair = from_points(points, torch.tensor([[1.0, 0, 0], [0, 0, 1]]), opacity=0.5)
    at = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0.25, 0, 0]])
    expected = torch.tensor([[1.0, 0, 0], [0.5, 0, 0.5], [0.9, 0, 0.1]])
    torch.testing.assert_close(near_colors(at, pair), expected, atol=1e-5, rtol=0)


def test_padding_takes_the_nearest_colour_and_leaves_the_rest():
    image = np.zeros((4, 4, 3), np.float32)
    image[0, 0], image[3, 3] = (1, 0, 0), (0, 1, 0)
    filled = np.zeros((4, 4), bool)
    filled[0, 0] = filled[3, 3] = True
    padded = pad(image, filled)
    assert (padded[:2, :2] == (1, 0, 0)).all()
    assert (padded[2:, 2:] == (0, 1, 0)).all()


def test_a_texture_is_read_at_its_texels_and_between_them():
    image = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    middles = np.array([[2.5, 6.5], [0.5, 0.5], [7.5, 7.5]]) / 8
    np.testing.assert_allclose(sample(image, middles), image[[6, 0, 7], [2, 0, 7]], atol=1e-6)
    between = np.array([[3.0, 4.0]]) / 8
    np.testing.assert_allclose(sample(image, between)[0], image[3:5, 2:4].mean((0, 1)), atol=1e-6)


def test_sharpening_finds_the_colours_from_the_pictures_alone(unwrapped: Unwrapped):
    splats = painted_ball(half_red_half_blue)
    seen = shots(splats)
    looks = [texture._look(unwrapped, seen, i) for i in range(24)]
    grey = np.full((128, 128, 3), 0.5, np.float32)
    found = texture.sharpen(grey, unwrapped, seen, looks, steps=8)
    np.testing.assert_allclose(front(unwrapped, found), [1, 0, 0], atol=0.05)
    np.testing.assert_allclose(behind(unwrapped, found), [0, 0, 1], atol=0.05)


def test_a_haze_gets_paler_but_not_white(unwrapped: Unwrapped):
    haze = painted_ball(lambda p: torch.tensor([[0.8, 0, 0]]).expand(len(p), 3))
    haze.logit_opacities = torch.full_like(haze.logit_opacities, 0.15).logit()
    seen = shots(haze)
    own, _ = bake(unwrapped, haze, seen, size=128, steps=0)
    pale, _ = bake(unwrapped, haze, seen, size=128, steps=3)
    np.testing.assert_allclose(colors_at(unwrapped, own, (0, 0, 1)).mean(0), [0.8, 0, 0], atol=0.05)
    assert 0.05 < colors_at(unwrapped, pale, (0, 0, 1))[:, 1].mean() < 0.6


def test_charts_fit_the_picture_and_do_not_overlap(unwrapped: Unwrapped):
    assert unwrapped.uv.min() >= 0
    assert unwrapped.uv.max() <= 1
    a, b, c = (unwrapped.uv[unwrapped.faces[:, i]] for i in range(3))
    area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum() / 2
    covered = len(texture._texels(unwrapped, 512).index) / 512**2
    assert covered == pytest.approx(area, rel=0.02)
    assert covered > 0.4
    assert (unwrapped.point[unwrapped.faces] == unwrapped.triangles).all()


def test_normals_point_away_from_the_middle_and_are_one_across_seams():
    points, triangles = ball_mesh(0.5)
    normals = point_normals(points, triangles)
    np.testing.assert_allclose(normals, points / 0.5, atol=0.05)
    lonely = point_normals(np.concatenate([points, [[9.0, 9, 9]]]), triangles)
    np.testing.assert_allclose(lonely[-1], [0, 0, 1])


def test_likeness_is_perfect_to_itself_and_falls_with_an_error(unwrapped: Unwrapped):
    image = np.full((128, 128, 3), 0.4, np.float32)
    cameras = fidelity.held_out()[slice(0, 2)]
    own = torch.from_numpy(
        np.stack([fidelity.draw(unwrapped, image, cameras, i) for i in range(2)])
    ).float()
    views = render_views(painted_ball(half_red_half_blue), cameras)
    views.alpha.fill_(1.0)
    views.rgb.copy_(own)
    same = fidelity.compare(unwrapped, image, views)
    assert same["psnr"] > 90
    assert same["ssim"] == pytest.approx(1)
    covered = float((own[0] < 0.99).all(-1).float().mean())
    off = fidelity.compare(unwrapped, image + np.float32(0.1), views)
    assert off["psnr"] == pytest.approx(-10 * math.log10(0.01 * covered), abs=1.0)
