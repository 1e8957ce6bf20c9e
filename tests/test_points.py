"""What a run can start from besides splats: each usual form gives the same points and colours."""

import struct

import numpy as np
import pytest
import trimesh

from splat_esd.config.schema import ImportConfig
from splat_esd.errors import UsageError
from splat_esd.formats.points import read_raw_points
from splat_esd.initialize import from_file

POINTS = np.random.default_rng(0).uniform(-0.5, 0.5, (30, 3)).round(4)
RED = (200, 20, 40)


def lines(form: str, *more, head: str = "", joint: str = " ") -> str:
    rows = (joint.join([*(f"{v:.4f}" for v in point), *map(str, more)]) for point in POINTS)
    return head + form + "\n".join(rows) + "\n"


def colmap() -> str:
    rows = (f"{i} {x} {y} {z} 200 20 40 0.5 1 2 {i} 3" for i, (x, y, z) in enumerate(POINTS))
    return "# 3D point list with one line of data per point:\n" + "\n".join(rows)


def colmap_binary() -> bytes:
    rows = (
        struct.pack("<Q3d3Bd Q2i".replace(" ", ""), i, *point, *RED, 0.5, 1, 1, 2)
        for i, point in enumerate(POINTS)
    )
    return struct.pack("<Q", len(POINTS)) + b"".join(rows)


TEXTS = {
    "plain.xyz": lines("", *RED),
    "UPPER.XYZ": lines("", *RED),
    "cloud.txt": lines("//X Y Z R G B\n", *RED),
    "sharp.txt": lines("# x y z red green blue\n", *RED),
    "table.csv": lines("x,y,z,red,green,blue\n", *RED, joint=","),
    "semi.csv": lines("X;Y;Z;R;G;B\n", *RED, joint=";"),
    "named.csv": lines("x,y,z,intensity,red,green,blue\n", 7, *RED, joint=","),
    "count.pts": lines("30\n", *RED),
    "intensity.pts": lines("30\n", -1200, *RED),
    "unit.xyzrgb": lines("", 200 / 255, 20 / 255, 40 / 255),
    "normals.asc": lines("x y z nx ny nz r g b\n", 0, 0, 1, *RED),
    "points3D.txt": colmap(),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_form_gives_the_points_and_their_colors(name: str, tmp_path):
    (tmp_path / name).write_text(TEXTS[name])
    raw = read_raw_points(tmp_path / name, count=10)
    np.testing.assert_allclose(raw.points, POINTS, atol=1e-6)
    np.testing.assert_allclose(255 * raw.colors, [RED] * 30, atol=0.01)


def test_normals_are_no_colors(tmp_path):
    normals = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    np.savetxt(tmp_path / "a.xyz", np.concatenate([POINTS, normals], 1))
    raw = read_raw_points(tmp_path / "a.xyz", count=10)
    assert raw.colors is None
    assert "columns 4 to 6 are normals and were dropped." in raw.notes


def test_point_e_and_colmap_are_read(tmp_path):
    red, green, blue = (np.full(30, value / 255, "f4") for value in RED)
    np.savez(tmp_path / "cloud.npz", coords=POINTS, R=red, G=green, B=blue)
    (tmp_path / "points3D.bin").write_bytes(colmap_binary())
    for name in ("cloud.npz", "points3D.bin"):
        raw = read_raw_points(tmp_path / name, count=10)
        np.testing.assert_allclose(raw.points, POINTS, atol=1e-6)
        np.testing.assert_allclose(255 * raw.colors, [RED] * 30, atol=0.01)


@pytest.mark.parametrize("suffix", ["obj", "glb", "stl", "off"])
def test_a_mesh_is_sampled_evenly(suffix: str, tmp_path):
    trimesh.creation.icosphere(3, 0.5).export(tmp_path / f"a.{suffix}")
    raw = read_raw_points(tmp_path / f"a.{suffix}", count=2000)
    assert raw.points.shape == (2000, 3)
    radii = np.linalg.norm(raw.points, axis=1)
    assert 0.48 < radii.min() and radii.max() < 0.501
    assert np.abs(raw.points.mean(0)).max() < 0.03


@pytest.mark.parametrize(("scale", "off"), [(40.0, 100.0), (1e-3, 0.0), (1.0, 5e5)])
def test_a_start_outside_the_unit_ball_is_moved_into_it(scale: float, off: float, tmp_path):
    np.save(tmp_path / "a.npy", POINTS * scale + off)
    found = from_file(tmp_path / "a.npy", opacity=0.1, count=10, imported=ImportConfig())
    means = found.gaussians.means
    assert 0.3 < means.norm(dim=1).max() < 1
    assert any("moved" in note for note in found.notes)
    np.testing.assert_allclose(found.in_place().means, POINTS * scale + off, atol=1e-5 * scale)


def test_points_in_one_place_are_named(tmp_path):
    (tmp_path / "same.xyz").write_text("1 2 3\n" * 9)
    with pytest.raises(UsageError, match="all 9 points are in one place"):
        from_file(tmp_path / "same.xyz", opacity=0.1, count=10, imported=ImportConfig())


def test_a_splat_gives_its_points_where_only_points_are_asked_for(tmp_path):
    from test_ply import some

    from splat_esd.formats.ply import write_ply

    path = write_ply(some(), tmp_path / "a.ply")
    found = from_file(path, opacity=0.3, count=9, imported=ImportConfig(), points_only=True)
    assert found.gaussians.opacities.tolist() == pytest.approx([0.3] * 20)
    assert any("only their places and colours" in note for note in found.notes)
