import math

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from splat_esd.config.schema import ImportConfig
from splat_esd.errors import UsageError
from splat_esd.formats.ply import write_ply
from splat_esd.formats.points import read_raw_points
from splat_esd.gaussians import Gaussians
from splat_esd.initialize import ball, from_file, from_points


def grey_ball(count: int = 2000, seed: int = 0, **changes) -> Gaussians:
    options = {"radius": 0.6, "opacity": 0.1, "color": 0.5} | changes
    return ball(count, **options, generator=torch.Generator().manual_seed(seed))


def write_points(path, points, colors=None, dtype="u1", **options) -> None:
    fields = [(axis, "f4") for axis in "xyz"]
    if colors is not None:
        fields += [(name, dtype) for name in ("red", "green", "blue")]
    rows = np.zeros(len(points), fields)
    for i, axis in enumerate("xyz"):
        rows[axis] = points[:, i]
    for i, name in enumerate(("red", "green", "blue") if colors is not None else ()):
        rows[name] = colors[:, i]
    PlyData([PlyElement.describe(rows, "vertex")], **options).write(str(path))


def test_the_ball_is_filled_evenly():
    radii = grey_ball(4000).means.norm(dim=1) / 0.6
    assert radii.max() <= 1
    inside = [(radii < share ** (1 / 3)).float().mean().item() for share in (0.25, 0.5, 0.75)]
    assert inside == pytest.approx([0.25, 0.5, 0.75], abs=0.03)
    assert grey_ball(4000).means.mean(0).abs().max() < 0.02


def test_a_splat_of_the_ball_is_as_wide_as_its_neighbours_are_far():
    splats = grey_ball(500)
    distances = torch.cdist(splats.means, splats.means).topk(4, largest=False).values[:, 1:]
    expected = distances.mean(1, keepdim=True).expand(500, 3)
    torch.testing.assert_close(splats.scales, expected, atol=1e-4, rtol=1e-3)


def test_a_scale_that_is_given_is_taken():
    assert grey_ball(10, scale=0.02).scales == pytest.approx(0.02)


def test_the_ball_has_the_opacity_and_nearly_the_color_it_was_given():
    splats = grey_ball(opacity=0.2, color=0.3)
    assert splats.opacities == pytest.approx(0.2)
    assert splats.colors.mean().item() == pytest.approx(0.3, abs=0.01)
    assert 0.01 < splats.colors.std() < 0.1
    assert splats.sh_degree == 0


def test_the_rotations_of_the_ball_are_unit_and_differ():
    quats = grey_ball().quats
    torch.testing.assert_close(quats.norm(dim=1), torch.ones(2000))
    assert quats.mean(0).abs().max() < 0.05


def test_a_seed_names_a_ball():
    one, two, other = grey_ball(seed=1), grey_ball(seed=1), grey_ball(seed=2)
    assert all(torch.equal(v, two.parameters()[k]) for k, v in one.parameters().items())
    assert not torch.equal(one.means, other.means)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opacity": 1.0}, r"init.opacity must lie in \(0, 1\), got 1.0"),
        ({"opacity": 0.0}, r"init.opacity must lie in \(0, 1\), got 0.0"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"count": 1}, "expected two points or more"),
        ({"count": 0}, "expected two points or more"),
    ],
)
def test_a_ball_that_cannot_be_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        grey_ball(**changes)


def test_points_keep_their_places_and_colors():
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    colors = torch.rand(50, 3, generator=torch.Generator().manual_seed(1))
    splats = from_points(points, colors, opacity=0.3)
    assert torch.equal(splats.means, points)
    torch.testing.assert_close(splats.colors, colors)
    assert splats.opacities == pytest.approx(0.3)


def test_points_that_coincide_still_get_a_size():
    points = torch.tensor([[0.0, 0, 0]] * 5 + [[1.0, 0, 0]])
    splats = from_points(points, opacity=0.1)
    assert splats.log_scales.isfinite().all()
    assert splats.scales.min() > 1e-5


def test_points_that_are_nowhere_are_refused():
    points = torch.zeros(5, 3)
    points[3, 1] = math.nan
    with pytest.raises(UsageError, match="expected finite points"):
        from_points(points, opacity=0.1)


def start(path, opacity: float = 0.1):
    settings = ImportConfig()
    return from_file(path, opacity=opacity, count=100, imported=settings).gaussians


def test_a_ply_of_splats_gives_those_splats(tmp_path):
    splats = grey_ball(20)
    write_ply(splats, tmp_path / "splat.ply")
    back = start(tmp_path / "splat.ply", 0.9)
    torch.testing.assert_close(back.means, splats.means)
    torch.testing.assert_close(back.log_scales, splats.log_scales)
    assert back.opacities == pytest.approx(0.1)


@pytest.mark.parametrize(("dtype", "full"), [("u1", 255), ("u2", 65535), ("f4", 1)])
@pytest.mark.parametrize("options", [{"text": True}, {"byte_order": "<"}, {"byte_order": ">"}])
def test_a_ply_of_colored_points_gives_splats_there(tmp_path, dtype, full, options):
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (10, 3)).astype(np.float32)
    colors = np.array([[full, 0, full]] * 10)
    write_points(tmp_path / "points.ply", points, colors, dtype, **options)
    splats = start(tmp_path / "points.ply", 0.4)
    torch.testing.assert_close(splats.means, torch.from_numpy(points))
    torch.testing.assert_close(splats.colors, torch.tensor([1.0, 0, 1]).expand(10, 3))
    assert splats.opacities == pytest.approx(0.4)


def test_points_without_color_become_grey(tmp_path):
    write_points(tmp_path / "points.ply", np.eye(3))
    assert start(tmp_path / "points.ply").colors == pytest.approx(0.5)


@pytest.mark.parametrize("full", [1, 255])
@pytest.mark.parametrize("suffix", [".npy", ".xyz", ".txt"])
def test_points_come_as_tables_too(tmp_path, suffix, full):
    table = np.array([[0.1, 0.2, 0.3, 0, full, 0], [0.4, 0.5, 0.6, full, 0, 0]])
    path = tmp_path / f"points{suffix}"
    np.save(path, table) if suffix == ".npy" else np.savetxt(path, table)
    raw = read_raw_points(path, count=10)
    np.testing.assert_allclose(raw.points, [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert raw.colors.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_a_table_of_three_columns_has_no_colors(tmp_path):
    np.save(tmp_path / "points.npy", np.zeros((4, 3)))
    assert read_raw_points(tmp_path / "points.npy", count=10).colors is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.doc", b"v 0 0 0", "expected points as .ply, .npy, .npz"),
        ("a.npy", b"no array", "cannot be read as points"),
        ("a.npy", b"", "cannot be read as points"),
        ("a.xyz", b"one two three", "cannot be read as points"),
        ("a.xyz", b"1 2\n3 4", r"expected points \[N, 3\] or \[N, 6\], got \[2, 2\]"),
        ("a.ply", b"plum", "is not a PLY file"),
    ],
)
def test_a_file_that_holds_no_points_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as raised:
        read_raw_points(tmp_path / name, count=10)
    assert name in str(raised.value)


@pytest.mark.parametrize("name", ["gone.npy", "gone.xyz", "gone.ply"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(UsageError, match=name):
        read_raw_points(tmp_path / name, count=10)
