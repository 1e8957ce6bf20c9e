"""Files that others hand in, through the commands that read them: done right, or why not."""

import subprocess
import sys

import numpy as np
import pytest
from plyfile import PlyData
from test_page import told
from test_ply import MESH, assert_same, rewrite, some

from splat_esd.cli import main as cli
from splat_esd.formats.ply import write_ply
from splat_esd.formats.read import open_splats

FORMATS = "formats=[ply,splat,spz,gltf,turntable,strip,sheet,viewer]"


def rows_of_nan(path):
    ply = PlyData.read(str(path), mmap=False)
    ply["vertex"].data["x"][3:] = np.nan
    ply.write(str(path))


def cut(path):
    path.write_bytes(path.read_bytes()[:-17])


def emptied(path):
    path.write_bytes(
        path.read_bytes().split(b"element vertex")[0] + b"element vertex 0\nend_header\n"
    )


def unreadable_folder(path):
    path.unlink()
    path.mkdir()


HOSTILE = [
    (lambda path: path.write_bytes(b""), "is not a splat file: it is empty"),
    (emptied, "is empty: it has no vertices"),
    (rows_of_nan, "17 of 20 splats hold NaN"),
    (cut, "is cut short or damaged"),
    (lambda path: path.write_bytes(MESH), "is a mesh, not splats"),
    (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500)), "is not a PLY file"),
    (unreadable_folder, "holds no splat.ply"),
]


@pytest.mark.parametrize("command", ["export", "view", "compare"])
@pytest.mark.parametrize(("spoil", "message"), HOSTILE)
def test_what_cannot_be_read_is_one_line_and_no_file(tmp_path, capsys, command, spoil, message):
    path = write_ply(some(), tmp_path / "in" / "a.ply")
    spoil(path)
    out = tmp_path / "out"
    arguments = {
        "export": [f"from={path}", f"out={out}", FORMATS],
        "view": [str(path)],
        "compare": [str(path), str(path), f"out={out / 'compare.html'}"],
    }
    assert cli.main([command, *arguments[command]]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and "a.ply" in said
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("options", [{"text": True}, {"byte_order": ">"}])
def test_ascii_and_big_endian_are_exported_as_they_mean(tmp_path, options):
    path = write_ply(some(), tmp_path / "a.ply", up="y")
    rewrite(path, comments=["splat_esd up=y"], **options)
    assert cli.main(["export", f"from={path}", f"out={tmp_path / 'out'}", "formats=[ply]"]) == 0
    assert_same(some(), open_splats(tmp_path / "out" / "splat.ply"))


def test_ascii_is_compared_as_it_means(tmp_path):
    path = write_ply(some(), tmp_path / "a.ply")
    plain = write_ply(some(), tmp_path / "b.ply")
    rewrite(path, comments=["splat_esd up=-y"], text=True)
    page = tmp_path / "compare.html"
    assert cli.main(["compare", str(path), str(plain), f"out={page}"]) == 0
    ((a,), (b,)) = (result["frames"] for result in told(page)["results"])
    assert a["spz"] == b["spz"]


def test_an_export_that_fails_half_way_leaves_the_old_file(tmp_path, capsys, monkeypatch):
    path = write_ply(some(), tmp_path / "a.ply")
    out = tmp_path / "out"
    assert cli.main(["export", f"from={path}", f"out={out}", "formats=[gltf,spz,splat]"]) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    write_ply(some(seed=1), path)
    monkeypatch.setattr(
        "splat_esd.formats.atomic.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )
    for form in ("gltf", "spz", "splat"):
        assert cli.main(["export", f"from={path}", f"out={out}", f"formats=[{form}]"]) == 3
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


MILLIONS = """
import resource, sys
import torch
from splat_esd.formats.splat import write_splat
from splat_esd.formats.gltf import write_gltf
from splat_esd.formats.ply import write_ply
from splat_esd.formats.read import open_splats
from splat_esd.formats.spz import write_spz
from splat_esd.gaussians import Gaussians

torch.set_num_threads(1)
count, folder = 5_000_000, sys.argv[1]
row = torch.arange(count) % 1000 / 1000
splats = Gaussians(
    means=row[:, None].repeat(1, 3), quats=torch.ones(count, 4),
    log_scales=row[:, None].repeat(1, 3) - 5, logit_opacities=row, sh=torch.zeros(count, 1, 3),
)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
write_splat(splats, folder + "/a.splat")
write_gltf(splats, folder + "/a.glb")
write_spz(splats, folder + "/a.spz")
write_ply(splats, folder + "/a.ply")
written = peak() - before
del splats
back = open_splats(folder + "/a.ply")
assert len(back) == count and torch.allclose(back.means[:, 0], row, atol=1e-6)
print(written, peak() - before)
"""


@pytest.mark.slow
def test_five_million_splats_fit_into_a_laptop(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", MILLIONS, str(tmp_path)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    written, read = map(float, ran.stdout.split())
    sizes = {path.suffix: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes[".splat"] == 32 * 5_000_000
    assert sizes[".glb"] > (12 + 8 + 16 + 12 + 4 + 12) * 5_000_000
    assert written < 600 and read < 1500, "MiB beside the splats themselves, which are 270"
    for path in tmp_path.iterdir():
        path.unlink()
