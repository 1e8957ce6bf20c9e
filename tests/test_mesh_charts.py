"""Charts: few, each laid flat nearly without stretch, and no two in one place."""

import numpy as np
import pytest
from test_mesh_texture import ball_mesh

from splat_esd.mesh.atlas import unwrap
from splat_esd.mesh.charts import cut, halves, hang_together, lay_flat
from splat_esd.mesh.flatten import areas, crosses_itself, flatten, in_plane, stretched
from splat_esd.mesh.raycast import _candidates


def sheet(rows, columns, place):
    """Makes a strip of squares cut in two; place gives a point for (row, column) in [0, 1]."""
    down, across = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    halves_ = [np.stack([a, b, c], -1), np.stack([a, c, d], -1)]
    return place(down.ravel(), across.ravel()), np.concatenate(halves_).reshape(-1, 3)


def part_of_a_ramp(turns):
    """Returns a place on a screw's thread, nearly level, that goes round so many times."""

    def place(down, across):
        turn, radius = 2 * np.pi * turns * across, 1 + down
        return np.stack([radius * np.cos(turn), radius * np.sin(turn), 0.1 * across], 1)

    return place


def part_of_a_pipe(turn):
    return lambda down, across: np.stack(
        [np.cos(turn * across), np.sin(turn * across), 3 * down], 1
    )


def border_of(triangles):
    edges = {(int(a), int(b)) for t in triangles for a, b in zip(t, np.roll(t, -1), strict=True)}
    return np.array(sorted(edge for edge in edges if edge[::-1] not in edges))


def rough_ball():
    points, triangles = ball_mesh(0.7, rings=48)
    return points * np.random.default_rng(0).uniform(0.995, 1.005, (len(points), 1)), triangles


def test_three_quarters_of_a_pipe_become_a_rectangle():
    points, triangles = sheet(7, 40, part_of_a_pipe(1.5 * np.pi))
    flat = flatten(points, triangles, border_of(triangles), stretch=1.001)
    assert flat is not None
    corners = flat.reshape(7, 40)[[0, 0, -1, -1], [0, -1, -1, 0]]
    around = 39 * 2 * np.sin(0.75 * np.pi / 39)  # 39 chords
    lengths = np.abs(np.roll(corners, -1) - corners)
    np.testing.assert_allclose(lengths, [around, 3, around, 3], rtol=1e-3)
    assert abs(corners[2] - corners[0]) == pytest.approx(np.hypot(around, 3), rel=1e-3)


def test_what_would_lie_on_itself_is_not_laid_flat():
    points, triangles = sheet(4, 60, part_of_a_ramp(0.9))
    assert flatten(points, triangles, border_of(triangles), stretch=1.2) is not None
    points, triangles = sheet(4, 60, part_of_a_ramp(1.2))
    assert flatten(points, triangles, border_of(triangles), stretch=1.2) is None


def test_half_a_ball_needs_more_stretch_than_a_little():
    points, triangles = ball_mesh(1.0)
    half = triangles[points[triangles][..., 2].mean(1) > 0]
    used, triangles = np.unique(half, return_inverse=True)
    points, triangles = points[used], triangles.reshape(-1, 3)
    border = border_of(triangles)
    assert flatten(points, triangles, border, stretch=1.01) is None
    assert flatten(points, triangles, border, stretch=1.3) is not None


@pytest.mark.parametrize("factor", [1.0, 2.0, 5.0])
def test_stretch_of_a_square_pulled_one_way_and_pressed_the_other(factor: float):
    before = np.array([[0, 1, 1 + 1j], [0, 1 + 1j, 1j]])
    after = before.real * factor + 1j * before.imag / factor
    assert stretched(before, after) == pytest.approx(np.sqrt((factor**2 + factor**-2) / 2))


def test_triangles_in_their_planes_keep_lengths_and_areas():
    rng = np.random.default_rng(0)
    points, triangles = rng.normal(size=(30, 3)), np.arange(30).reshape(-1, 3)
    flat, corners = in_plane(points, triangles), points[triangles]
    for k in range(3):
        there = np.linalg.norm(corners[:, k] - corners[:, k - 1], axis=1)
        np.testing.assert_allclose(np.abs(flat[:, k] - flat[:, k - 1]), there)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(areas(flat), np.linalg.norm(across, axis=1) / 2)


def test_a_polygon_crosses_itself_as_edge_by_edge():
    def side(a, b, p):
        return np.sign(
            (b.real - a.real) * (p.imag - a.imag) - (b.imag - a.imag) * (p.real - a.real)
        )

    rng, found = np.random.default_rng(0), set()
    for _ in range(60):
        z = np.exp(2j * np.pi * np.arange(8) / 8) + rng.normal(0, 0.3, (8, 2)) @ [1, 1j]
        expected = any(
            side(z[i], z[i - 7], z[j]) != side(z[i], z[i - 7], z[j - 7])
            and side(z[j], z[j - 7], z[i]) != side(z[j], z[j - 7], z[i - 7])
            for i in range(8)
            for j in range(i + 2, 8 if i else 7)
        )
        border = np.stack([np.arange(8), (np.arange(8) + 1) % 8], 1)
        assert crosses_itself(z, border) == expected
        found.add(expected)
    assert found == {True, False}


def test_only_a_disk_is_laid_flat():
    pipe = sheet(5, 25, part_of_a_pipe(1.2 * np.pi))
    assert lay_flat(hang_together(*pipe), np.arange(len(pipe[1]))) is not None
    with_a_hole = np.delete(np.arange(len(pipe[1])), 130)
    assert lay_flat(hang_together(*pipe), with_a_hole) is None
    ball = ball_mesh(1.0)
    assert lay_flat(hang_together(*ball), np.arange(len(ball[1]))) is None


def test_halves_are_connected_and_together_the_whole():
    points, triangles = rough_ball()
    surface = hang_together(points, triangles)
    pieces = halves(surface, np.arange(len(triangles)))
    assert (np.sort(np.concatenate(pieces)) == np.arange(len(triangles))).all()
    assert sorted(surface.area(piece) for piece in pieces)[-2] > 0.35 * 4 * np.pi * 0.7**2


def test_a_rough_ball_has_few_charts_each_triangle_in_one():
    points, triangles = rough_ball()
    charts = cut(points, triangles)
    assert len(charts) < 20
    faces = np.concatenate([chart.faces for chart in charts])
    assert (np.sort(faces) == np.arange(len(triangles))).all()
    for chart in charts:
        assert (chart.point[chart.triangles] == triangles[chart.faces]).all()
        sides = in_plane(points[chart.point], chart.triangles)
        assert stretched(sides, chart.flat[chart.triangles]) <= 1.05
        assert areas(chart.flat[chart.triangles]).sum() == pytest.approx(areas(sides).sum())


def test_size_plays_no_role():
    points, triangles = ball_mesh(0.7)
    for one, other in zip(cut(points, triangles), cut(1024 * points, triangles), strict=True):
        assert (one.faces == other.faces).all()


@pytest.mark.parametrize(
    "faces", [[[0, 1, 2]], [[0, 1, 2], [3, 4, 5]], [[0, 1, 2], [0, 2, 1]], [[0, 1, 1]]]
)
def test_loose_doubled_and_flat_triangles_are_charts_too(faces):
    points = np.random.default_rng(0).normal(size=(6, 3))
    charts = cut(points, np.array(faces))
    assert sorted(face for chart in charts for face in chart.faces) == list(range(len(faces)))


def test_no_texel_is_claimed_twice():
    mesh, size = unwrap(*rough_ball(), size=256), 512
    x, y = size * mesh.uv[mesh.faces].transpose(2, 0, 1)
    which, column, row = _candidates(x, y, size, size)
    at = column + 0.5 + 1j * (row + 0.5)
    corners = (x + 1j * y)[which]
    turns = [
        np.sign(np.imag((corners[:, k - 2] - corners[:, k]).conj() * (at - corners[:, k])))
        for k in range(3)
    ]
    inside = np.abs(sum(turns)) == 3
    claims = np.bincount(row[inside] * size + column[inside])
    assert claims.max() == 1
    assert (claims > 0).sum() > 0.4 * size**2
