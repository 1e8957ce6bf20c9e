import os

import gsply
import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.formats.ply import write_ply
from splat_esd.formats.points import read_raw_points
from splat_esd.formats.read import holds_splats, open_splats, read_splats
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import sh_basis, up_rotation


def some(n: int = 20, degree: int = 3, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    quats = torch.randn(n, 4, generator=generator)
    return Gaussians(
        means=torch.randn(n, 3, generator=generator),
        quats=quats / quats.norm(dim=1, keepdim=True),
        log_scales=torch.randn(n, 3, generator=generator) - 3,
        logit_opacities=torch.randn(n, generator=generator),
        sh=torch.randn(n, (degree + 1) ** 2, 3, generator=generator),
    )


def assert_same(a: Gaussians, b: Gaussians) -> None:
    for name, value in a.parameters().items():
        torch.testing.assert_close(b.parameters()[name], value, atol=1e-6, rtol=1e-6)


def rewrite(path, comments=(), drop=(), **options) -> None:
    """Writes the PLY again, as another program would."""
    rows = PlyData.read(str(path), mmap=False)["vertex"].data
    kept = [name for name in rows.dtype.names if name not in drop]
    fresh = np.empty(len(rows), [(name, "f4") for name in kept])
    for name in kept:
        fresh[name] = rows[name]
    element = PlyElement.describe(fresh, "vertex")
    PlyData([element], comments=list(comments), **options).write(str(path))


@pytest.mark.parametrize("degree", [0, 3])
@pytest.mark.parametrize("up", ["-y", "y", "z"])
def test_what_is_written_is_read_again(tmp_path, up, degree):
    splats = some(degree=degree)
    assert_same(splats, open_splats(write_ply(splats, tmp_path / "splat.ply", up=up)))


@pytest.mark.parametrize("degree", [1, 2])
def test_degrees_one_and_two_are_padded_to_three(tmp_path, degree):
    splats = some(degree=degree)
    back = open_splats(write_ply(splats, tmp_path / "splat.ply"))
    known = splats.sh.shape[1]
    assert back.sh_degree == 3
    torch.testing.assert_close(back.sh[:, :known], splats.sh)
    assert back.sh[:, known:].abs().max() == 0


@pytest.mark.parametrize(("degree", "floats"), [(0, 17), (3, 62)])
def test_the_layout_is_the_one_that_every_viewer_knows(tmp_path, degree, floats):
    ply = PlyData.read(str(write_ply(some(degree=degree), tmp_path / "splat.ply")))
    names = [p.name for p in ply["vertex"].properties]
    rest = [f"f_rest_{i}" for i in range(floats - 17)]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity"]
    expected += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert names == expected
    assert all(p.val_dtype == "f4" for p in ply["vertex"].properties)
    assert (ply.text, ply.byte_order) == (False, "<")
    assert ply.comments == ["splat_esd up=-y"]


@pytest.mark.parametrize("degree", [0, 3])
def test_a_foreign_reader_reads_the_same_values(tmp_path, degree):
    splats = some(degree=degree)
    data = gsply.plyread(write_ply(splats, tmp_path / "splat.ply", up="z"))
    np.testing.assert_allclose(data.means, splats.means, rtol=1e-6)
    np.testing.assert_allclose(data.quats, splats.quats, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.scales, splats.log_scales, rtol=1e-6)
    np.testing.assert_allclose(data.opacities, splats.logit_opacities, rtol=1e-6)
    np.testing.assert_allclose(data.sh0, splats.sh[:, 0], rtol=1e-6)
    if degree:
        np.testing.assert_allclose(data.shN, splats.sh[:, 1:], rtol=1e-5, atol=1e-6)


def test_what_a_foreign_writer_wrote_is_read(tmp_path):
    splats = some()
    turned = splats.rotate(up_rotation("-y"))
    gsply.plywrite(
        tmp_path / "foreign.ply",
        turned.means.numpy(),
        turned.log_scales.numpy(),
        turned.quats.numpy(),
        turned.logit_opacities.numpy(),
        turned.sh[:, 0].numpy(),
        turned.sh[:, 1:].numpy(),
    )
    assert_same(splats, open_splats(tmp_path / "foreign.ply"))


@pytest.mark.parametrize("up", ["-y", "y", "z"])
def test_a_turned_file_shows_the_same_colors_from_turned_directions(tmp_path, up):
    splats = some(n=4)
    data = gsply.plyread(write_ply(splats, tmp_path / "splat.ply", up=up))
    stored = torch.cat([torch.tensor(data.sh0)[:, None], torch.tensor(data.shN)], dim=1)
    directions = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    world = torch.einsum("dk,nkc->ndc", sh_basis(directions, 3), splats.sh)
    file = torch.einsum("dk,nkc->ndc", sh_basis(directions @ up_rotation(up).T, 3), stored)
    torch.testing.assert_close(file, world, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(data.means, splats.means @ up_rotation(up).T, rtol=1e-6)


def test_a_foreign_file_is_taken_as_y_down(tmp_path):
    splats = some()
    path = write_ply(splats, tmp_path / "splat.ply", up="-y")
    rewrite(path, comments=["Generated by another program"])
    assert_same(splats, open_splats(path))


@pytest.mark.parametrize("options", [{"text": True}, {"byte_order": ">"}, {"byte_order": "<"}])
def test_text_and_big_endian_are_read_right(tmp_path, options):
    splats = some()
    path = write_ply(splats, tmp_path / "splat.ply", up="y")
    rewrite(path, comments=["splat_esd up=y"], **options)
    assert_same(splats, open_splats(path))


def test_normals_are_not_asked_for(tmp_path):
    path = write_ply(some(), tmp_path / "splat.ply")
    rewrite(path, drop=("nx", "ny", "nz"))
    assert_same(some(), open_splats(path))


def test_quaternions_are_written_with_unit_length_and_zero_ones_as_no_rotation(tmp_path):
    splats = some(2)
    splats.quats = torch.tensor([[0.0, 0, 0, 0], [0, 0, 3, 4]])
    ply = PlyData.read(str(write_ply(splats, tmp_path / "splat.ply", up="z")))
    quats = [[row[f"rot_{i}"] for i in range(4)] for row in ply["vertex"].data]
    np.testing.assert_allclose(quats, [[1, 0, 0, 0], [0, 0, 0.6, 0.8]], atol=1e-7)


def test_splats_in_training_can_be_written(tmp_path):
    splats = some()
    splats.means.requires_grad_()
    assert len(open_splats(write_ply(splats, tmp_path / "splat.ply"))) == 20


@pytest.mark.parametrize("field", ["means", "quats", "log_scales", "logit_opacities", "sh"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_and_the_old_file_stays(tmp_path, field, poison):
    path = write_ply(some(), tmp_path / "splat.ply")
    before = path.read_bytes()
    splats = some()
    getattr(splats, field).view(-1)[5] = poison
    with pytest.raises(UsageError, match=r"was not written: \w+ holds NaN or infinity"):
        write_ply(splats, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_no_splats_are_refused(tmp_path):
    with pytest.raises(UsageError, match="there are no splats to write"):
        write_ply(some().select(torch.zeros(20, dtype=torch.bool)), tmp_path / "splat.ply")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_ply(some(), tmp_path / "splat.ply")
    before = path.read_bytes()

    def write_half(self, target):
        with open(target, "wb") as stream:
            stream.write(b"ply\n")
        raise KeyboardInterrupt

    monkeypatch.setattr(PlyData, "write", write_half)
    with pytest.raises(KeyboardInterrupt):
        write_ply(some(seed=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_the_machines_problem(tmp_path, monkeypatch):
    def no_space(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PlyData, "write", no_space)
    with pytest.raises(EnvironmentProblem, match=r"cannot write .*splat.ply: No space left"):
        write_ply(some(), tmp_path / "splat.ply")


def test_the_folder_is_made_when_it_is_missing(tmp_path):
    path = write_ply(some(), tmp_path / "new" / "splat.ply")
    assert path.is_file()
    assert os.stat(path).st_mode & 0o400


MESH = b"""ply
format ascii 1.0
element vertex 3
property float x
property float y
property float z
element face 1
property list uchar int vertex_indices
end_header
0 0 0
1 0 0
0 1 0
3 0 1 2
"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a splat file: it is empty"),
        (b"plymouth", "is not a PLY file"),
        (b"\x89PNG\r\n\x1a\n", "is not a PLY file"),
        (b"ply\n", "is cut short or damaged"),
        (b"ply\nformat ascii 1.0\nelement", "is cut short or damaged"),
        (b"ply\nformat ascii 1.0\n\xff\xfe\nend_header\n", "is cut short or damaged"),
        (b"ply\nformat ascii 1.0\nend_header\n", "is empty: it has no vertices"),
        (MESH, "is a mesh, not splats: its vertices lack f_dc_0"),
        (MESH.split(b"element face")[0] + b"end_header\n0 0 0\n1 0 0\n", "is cut short"),
        (MESH.replace(b"0 1 0\n", b"0 x 0\n"), "is cut short or damaged"),
        (MESH.split(b"element face")[0].replace(b"x 3", b"x 0") + b"end_header\n", "is empty"),
    ],
)
def test_a_file_without_splats_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "bad.ply"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as raised:
        open_splats(path)
    assert "bad.ply" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = write_ply(some(), tmp_path / "splat.ply")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UsageError, match="is cut short or damaged"):
        open_splats(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(UsageError, match="there is no file or folder"):
        open_splats(tmp_path / "gone.ply")
    with pytest.raises(UsageError, match=r"holds no splat.ply and no other"):
        open_splats(tmp_path)


def broken(path, rows: int) -> None:
    """Writes 20 splats of which so many hold NaN."""
    ply = PlyData.read(str(write_ply(some(), path)), mmap=False)
    ply["vertex"].data["scale_1"][:rows] = np.nan
    ply.write(str(path))


def test_a_few_rows_that_are_not_finite_are_dropped_and_counted(tmp_path):
    broken(tmp_path / "a.ply", 3)
    found = read_splats(tmp_path / "a.ply")
    assert len(found.gaussians) == 17
    assert "a.ply: 3 of 20 splats held NaN or infinity and were dropped." in found.notes


def test_a_file_of_mostly_broken_rows_is_refused(tmp_path):
    broken(tmp_path / "a.ply", 12)
    with pytest.raises(UsageError, match=r"12 of 20 splats hold NaN.*the first in row 0"):
        open_splats(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (["x"], "holds splats without x; its columns are y"),
        (["scale_0", "scale_1", "scale_2"], "holds splats without scale_0"),
    ],
)
def test_a_missing_property_that_nothing_stands_for_is_named(tmp_path, drop, message):
    path = write_ply(some(), tmp_path / "splat.ply")
    rewrite(path, drop=drop)
    with pytest.raises(UsageError, match=message):
        open_splats(path)


def test_half_a_compressed_splat_is_named(tmp_path):
    rows = np.zeros(2, [("packed_position", "u4"), ("packed_rotation", "u4")])
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "a.ply"))
    with pytest.raises(UsageError, match="compressed splat PLY that lacks packed_scale"):
        open_splats(tmp_path / "a.ply")


def test_an_up_that_nobody_knows_is_refused(tmp_path):
    path = write_ply(some(), tmp_path / "splat.ply")
    rewrite(path, comments=["splat_esd up=sideways"])
    with pytest.raises(UsageError, match="its header says up=sideways; expected -y, y or z"):
        open_splats(path)
    with pytest.raises(ValueError, match="up must be one of z, y, -y, got 'x'"):
        write_ply(some(), path, up="x")


def test_splats_and_points_are_told_apart(tmp_path):
    (tmp_path / "mesh.ply").write_bytes(MESH)
    assert holds_splats(write_ply(some(), tmp_path / "splat.ply"))
    assert not holds_splats(tmp_path / "mesh.ply")
    raw = read_raw_points(tmp_path / "mesh.ply", count=10)
    assert raw.points.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert raw.colors is None
