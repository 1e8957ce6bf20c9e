import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from splat_esd.cameras import orbit_cameras
from splat_esd.zoo.prior.dataset import plan
from splat_esd.zoo.world.accessories import ACCESSORIES
from splat_esd.zoo.world.captions import Composition
from splat_esd.zoo.world.compose import RADIUS, build
from splat_esd.zoo.world.gallery import SIDES, write_gallery
from splat_esd.zoo.world.objects import OBJECTS
from splat_esd.zoo.world.palette import COLORS
from splat_esd.zoo.world.primitives import Part, ball, box, cone, dome, pair, ring, rod
from splat_esd.zoo.world.render import render_parts
from splat_esd.zoo.world.surface import mesh, surface

SIZE = 64
WHITE = (1.0, 1.0, 1.0)
FACES = list(OBJECTS)[:17]
DRESSED = [(name, worn) for name in OBJECTS for worn in (None, *ACCESSORIES)]
TURNED = {
    "ellipsoid": ball((0.1, -0.2, 0.15), (0.5, 0.2, 0.1), WHITE, pitch=0.6, roll=0.4, yaw=0.5),
    "dome": dome((0.1, -0.1, 0.1), (0.5, 0.4, 0.3), WHITE, pitch=0.6, roll=0.4, yaw=0.5),
    "box": box((0.1, -0.2, 0.15), (0.5, 0.3, 0.2), WHITE, pitch=0.6, roll=0.4, yaw=0.5, top=0.4),
    "cone": cone((0.1, -0.2, 0.15), (0.3, 0.2, 0.4), WHITE, pitch=0.6, roll=0.4, yaw=0.5, top=0.2),
    "ring": ring((0.1, -0.2, 0.15), (0.5, 0.4, 0.1), WHITE, pitch=0.6, roll=0.4, yaw=0.5),
}
each_shape = pytest.mark.parametrize("part", TURNED.values(), ids=list(TURNED))


def look(azimuth=0.0, elevation=0.0, distance=2.5, fovy=0.75, size=SIZE):
    values = (torch.tensor([v]) for v in (azimuth, elevation, distance, fovy))
    camera = orbit_cameras(*values, width=size, height=size)
    return camera.viewmats[0].numpy(), camera.Ks[0].numpy()


@cache
def seen(name: str, azimuth: float, size: int = 32) -> np.ndarray:
    """Renders a toy in its own colours."""
    return render_parts(build(Composition(name)), *look(azimuth, 0.2, size=size), size)


# --- primitives


@each_shape
def test_the_gradient_of_a_gauge_is_its_slope(part):
    p = np.random.default_rng(0).normal(0, 0.8, (200, 3))
    _, *gradient = part.gauge(*p.T)
    for k in range(3):
        step = 1e-6 * np.eye(3)[k]
        slope = (part.gauge(*(p + step).T)[0] - part.gauge(*(p - step).T)[0]) / 2e-6
        np.testing.assert_allclose(gradient[k], slope, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", ["ellipsoid", "dome", "box", "cone"])
def test_a_convex_gauge_grows_evenly_and_bends_upwards(shape):
    """G(2 p) = 2 G(p) and G((p + q) / 2) <= (G(p) + G(q)) / 2: what Newton's method rests on."""
    p, q = np.random.default_rng(1).normal(0, 1, (2, 3, 500))
    g = [TURNED[shape].gauge(*points)[0] for points in (p, q, 2 * p, (p + q) / 2)]
    np.testing.assert_allclose(g[2], 2 * g[0], rtol=1e-6)
    assert (g[3] <= (g[0] + g[1]) / 2 + 1e-6).all()


@each_shape
def test_the_world_and_the_unit_frame_map_onto_each_other(part):
    points = np.random.default_rng(2).normal(size=(50, 3))
    np.testing.assert_allclose(part.to_world(part.to_unit(points)), points, atol=1e-12)


def test_a_pair_is_a_mirror_image():
    left, right = pair(TURNED["cone"])
    points = np.random.default_rng(3).normal(0, 0.5, (500, 3))
    mirrored = points * (1, -1, 1)
    np.testing.assert_allclose(
        left.gauge(*left.to_unit(points).T)[0],
        right.gauge(*right.to_unit(mirrored).T)[0],
        rtol=1e-5,
    )


def test_a_rod_runs_from_one_point_to_another():
    start, end = (0.1, 0.2, -0.3), (-0.4, 0.5, 0.6)
    part = rod(start, end, 0.02, WHITE)
    on_it = np.linspace(start, end, 20)
    beyond = np.array([np.add(end, np.subtract(end, start) * 0.1)])
    assert (part.gauge(*part.to_unit(on_it).T)[0] < 1).all()
    assert (part.gauge(*part.to_unit(beyond).T)[0] > 1).all()


# --- render


def test_a_sphere_covers_the_area_of_its_projection():
    radius, distance, fovy = 0.6, 2.5, 0.75
    image = render_parts([ball((0, 0, 0), radius, WHITE)], *look(), SIZE, supersample=4)
    focal = SIZE / 2 / math.tan(fovy / 2)
    expected = math.pi * focal**2 * radius**2 / (distance**2 - radius**2)
    assert image[..., 3].sum() == pytest.approx(expected, rel=0.01)


@each_shape
@pytest.mark.parametrize("azimuth", [0.3, 1.7, 4.0])
def test_a_part_is_seen_where_a_ray_marched_through_it_is_inside(part, azimuth):
    view, K = look(azimuth, 0.3)
    alpha = render_parts([part], view, K, SIZE, supersample=1)[..., 3]
    u = (np.arange(SIZE) + 0.5 - K[0, 2]) / K[0, 0]
    d = np.stack(np.broadcast_arrays(u[None, :], u[:, None], 1.0), -1).reshape(-1, 3)
    d, origin = d @ view[:3, :3], -view[:3, :3].T @ view[:3, 3]
    inside = np.zeros(len(d), bool)
    for s in np.linspace(1.6, 3.4, 600):
        inside |= part.gauge(*part.to_unit(origin + s * d).T)[0] <= 1
    assert (inside.reshape(SIZE, SIZE) != (alpha > 0)).mean() < 0.003


@pytest.mark.parametrize(
    ("part", "azimuth", "light"),
    [
        (box((0, 0, 0), (0.4, 0.4, 0.4), WHITE), 0.0, 0.60),
        (cone((0, 0, 0), (0.4, 0.4, 0.4), WHITE), 2.0, 0.60),
        (ball((0, 0, 0), 0.4, WHITE), 4.0, 0.60),
    ],
)
def test_a_wall_that_faces_the_camera_is_lit_by_half_the_sky(part, azimuth, light):
    """The normal in the middle is horizontal, and the sun stands straight above."""
    sun = np.array([0.0, 0.0, 2.0])
    image = render_parts([part], *look(azimuth, size=65), 65, sun=sun)
    assert image[32, 32, 0] == pytest.approx(1.05 * light, abs=0.01)


def test_the_nearest_part_hides_the_other():
    red, blue = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    for other in (ball((-0.4, 0, 0), 0.2, blue), box((-0.4, 0, 0), (0.2, 0.2, 0.2), blue)):
        parts = [ball((0.4, 0, 0), 0.2, red), other]
        for azimuth, channel in ((0.0, 0), (math.pi, 2)):
            middle = render_parts(parts, *look(azimuth), SIZE)[SIZE // 2, SIZE // 2]
            assert middle[:3].argmax() == channel and middle[3] == 1


def test_one_looks_through_a_ring():
    hoop = ring((0, 0, 0), (0.5, 0.5, 0.1), WHITE, pitch=-math.pi / 2)
    alpha = render_parts([hoop], *look(), SIZE)[..., 3]
    assert alpha[SIZE // 2, SIZE // 2] == 0 and alpha.max() == 1


def test_the_order_of_parts_does_not_matter():
    parts = build(Composition("robot"))
    pictures = [render_parts(order, *look(0.7), SIZE) for order in (parts, parts[::-1])]
    assert np.abs(pictures[0] - pictures[1]).mean() < 1e-3


def test_a_camera_inside_a_toy_is_refused():
    with pytest.raises(ValueError, match="inside the toy"):
        render_parts([ball((0, 0, 0), 2.5, WHITE)], *look(), SIZE)


def test_what_lies_outside_the_picture_is_left_out():
    assert not render_parts([ball((0, 1.5, 0), 0.2, WHITE)], *look(), SIZE).any()


# --- toys, what they wear, and what is asked for


@pytest.mark.parametrize(("name", "worn"), DRESSED)
def test_whatever_is_worn_the_toy_fits_its_ball_and_fills_it(name, worn):
    parts = build(Composition(name, None, worn))
    vertices = mesh(parts)[0]
    assert np.linalg.norm(vertices, axis=-1).max() == pytest.approx(RADIUS, abs=1e-6)
    assert np.abs(vertices).max(0).min() > 0.3
    assert len(parts) <= 60


def test_hardly_any_photo_cuts_anything_off():
    alpha = plan(500, seed=3).render(32)[..., 3]
    rims = np.concatenate([alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1]], axis=1)
    assert rims.any(axis=1).mean() < 0.01


@pytest.mark.parametrize("name", FACES)
def test_a_toy_with_a_face_has_a_front_and_is_left_right_alike(name):
    front, back = seen(name, 0.0), seen(name, math.pi)
    assert np.abs(front - back).mean() > 0.015
    sides = [seen(name, sign * math.pi / 2) for sign in (1, -1)]
    assert np.abs(sides[0] - sides[1][:, ::-1])[..., 3].mean() < 0.01
    assert np.abs(sides[0] - front).mean() > 0.015


def test_any_two_toys_look_different_from_anywhere():
    for azimuth in (0.0, math.pi / 2, math.pi):
        for a, b in itertools.combinations(OBJECTS, 2):
            difference = np.abs(seen(a, azimuth) - seen(b, azimuth)).mean()
            assert difference > 0.02, (a, b, azimuth)


def shares(parts: list[Part], chosen: list[bool]) -> Iterator[float]:
    """Yields how much of the silhouette the chosen parts cover, from eight sides."""
    painted = [
        replace(part, color=WHITE if choice else (0.0, 0.0, 0.0))
        for part, choice in zip(parts, chosen, strict=True)
    ]
    for azimuth in np.arange(8) * math.pi / 4:
        image = render_parts(painted, *look(float(azimuth), 0.2, size=32), 32)
        yield float((image[..., 0] > 0.2).sum() / (image[..., 3] > 0.2).sum())


@pytest.mark.parametrize("name", OBJECTS)
def test_a_color_that_is_asked_for_covers_most_of_a_toy(name):
    parts = build(Composition(name, "blue"))
    blue = list(shares(parts, [part.color == COLORS["blue"] for part in parts]))
    assert min(blue) > 0.25 and np.mean(blue) > 0.45


@pytest.mark.parametrize("worn", ACCESSORIES)
@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_worn_can_be_seen_in_the_color_that_is_asked_for(name, worn):
    plain = build(Composition(name))
    parts = build(Composition(name, None, worn, "purple"))
    on = [i >= len(plain) and part.color == COLORS["purple"] for i, part in enumerate(parts)]
    covered = list(shares(parts, on))
    assert max(covered) > 0.03 and np.mean(covered) > 0.01


def test_without_a_color_a_toy_keeps_its_own_and_with_one_only_the_dyed_parts_change():
    own, red = build(Composition("corgi")), build(Composition("corgi", "red"))
    assert own == build(Composition("corgi"))
    for before, after in zip(own, red, strict=True):
        assert after.color == (COLORS["red"] if before.dyed else before.color)
        assert replace(after, color=before.color) == before


def test_a_scarf_is_dyed_and_the_dog_is_not():
    own = build(Composition("corgi", None, "scarf"))
    dyed = build(Composition("corgi", None, "scarf", "green"))
    changed = [a.color != b.color for a, b in zip(own, dyed, strict=True)]
    worn = len(own) - len(build(Composition("corgi")))
    assert any(changed[-worn:]) and not any(changed[:-worn])


def test_colors_are_told_apart_in_sun_and_shade():
    """The distance of chromaticities, or for white and black of brightness, passes shading."""
    for a, b in itertools.combinations(COLORS.values(), 2):
        a, b = np.array(a), np.array(b)
        hues = np.linalg.norm(a / a.sum() - b / b.sum())
        assert hues > 0.08 or abs(a.mean() - b.mean()) > 0.6


# --- surface


@each_shape
def test_points_lie_on_the_surface_and_normals_point_outwards(part):
    points, normals, colors = surface([part], 500, np.random.default_rng(0))
    g = part.gauge(*part.to_unit(points).T)[0]
    np.testing.assert_allclose(g, 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-9)
    assert (part.gauge(*part.to_unit(points + 1e-3 * normals).T)[0] > 1).all()
    assert (colors == 1).all()


def test_points_are_spread_evenly_over_a_sphere():
    points, _, _ = surface([ball((0, 0, 0), 0.5, WHITE)], 20000, np.random.default_rng(0))
    counts = np.histogram(points[:, 2], 8, (-0.5, 0.5))[0]  # Archimedes: even in height
    np.testing.assert_allclose(counts / 20000, 1 / 8, atol=0.008)


@pytest.mark.parametrize("name", ["corgi", "house", "cake"])
def test_no_point_of_a_toy_lies_inside_another_part(name):
    parts = build(Composition(name, None, "scarf"))
    points, _, colors = surface(parts, 2000, np.random.default_rng(0))
    depth = np.min([part.gauge(*part.to_unit(points).T)[0] for part in parts], 0)
    assert len(points) == len(colors) == 2000 and depth.min() > 1 - 1e-6
    assert {tuple(c) for c in colors} <= {part.color for part in parts}


def test_points_are_a_function_of_the_seed():
    parts = build(Composition("duck"))
    a, b, c = (surface(parts, 50, np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_nothing_to_touch_is_refused():
    with pytest.raises(ValueError, match="got none"):
        surface([], 5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("part", "volume"),
    [
        (ball((0.1, 0, 0), (0.5, 0.3, 0.2), WHITE, yaw=1.0), 4 / 3 * math.pi * 0.03),
        (ring((0, 0.2, 0), (0.5, 0.5, 0.1), WHITE, pitch=1.0), 2 * math.pi**2 * 0.4 * 0.01),
        (box((0, 0, 0.1), (0.5, 0.3, 0.2), WHITE, roll=1.0), 8 * 0.03),
        (cone((0, 0, 0), (0.3, 0.3, 0.4), WHITE), math.pi * 0.09 * 0.8),
    ],
)
def test_a_mesh_is_closed_and_holds_the_volume_of_its_part(part, volume):
    vertices, faces, _ = mesh([part])
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    # Soft edges and flat triangles take away up to a tenth.
    assert 0.88 * volume < (np.cross(a, b) * c).sum() / 6 < volume


def test_a_mesh_leaves_out_what_is_swallowed():
    small, large = ball((0, 0, 0), 0.2, (1.0, 0.0, 0.0)), ball((0, 0, 0), 0.5, WHITE)
    _, faces, colors = mesh([small, large])
    assert len(faces) == len(mesh([large])[1])
    assert (colors[faces] == 1).all()


# --- gallery


def test_the_gallery_shows_every_toy_from_all_sides_and_all_that_is_worn(tmp_path):
    write_gallery(tmp_path / "gallery.png", size=12)
    with Image.open(tmp_path / "gallery.png") as image:
        rows = len(OBJECTS) // 2 + len(ACCESSORIES)
        assert image.size == (2 * SIDES * 12, rows * 12)
        cells = np.asarray(image, int).reshape(rows, 12, 16, 12, 3).swapaxes(1, 2)
    assert (np.ptp(cells, axis=(2, 3)) > 30).any(-1).all()
