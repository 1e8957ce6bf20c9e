"""A splat as a mesh: files that others read, upright, closed, and like the splat."""

import json
import math
import struct
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from splat_esd.cli import main as cli
from splat_esd.config.schema import MeshConfig
from splat_esd.errors import UsageError
from splat_esd.formats.ply import write_ply
from splat_esd.gaussians import Gaussians
from splat_esd.initialize import from_points
from splat_esd.mesh import textured as module
from splat_esd.mesh.textured import (
    POOR,
    make_mesh,
    stood,
    summary,
    write_glb,
    write_meshes,
    write_obj,
    write_stl,
)

SMALL = MeshConfig(faces=800, texture=128, watertight=True, sharpen=1)


def figure(count=6000):
    """Covers an egg that stands upright: red in front, blue behind, with a green tip."""
    i = torch.arange(count) + 0.5
    z, turn = 1 - 2 * i / count, i * math.pi * (3 - math.sqrt(5))
    across = (1 - z * z).sqrt()
    points = torch.stack([0.3 * across * turn.cos(), 0.5 * across * turn.sin(), 0.8 * z], 1)
    colors = torch.zeros(count, 3)
    colors[:, 0], colors[:, 2] = (points[:, 0] > 0).float(), (points[:, 0] <= 0).float()
    colors[points[:, 2] > 0.6] = torch.tensor([0.0, 1, 0])
    made = from_points(points, colors, opacity=0.97)
    made.log_scales = made.log_scales - 0.7  # thin: a splat is seen as far as two sigmas
    return made


@cache
def made():
    return make_mesh(figure(), SMALL)


def read_glb(path: Path):
    """Reads what a renderer would: positions, normals, uv, triangles, the document."""
    data = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size = struct.unpack("<I", data[12:16])[0]
    document, body = json.loads(data[20 : 20 + size]), data[20 + size + 8 :]
    (primitive,) = document["meshes"][0]["primitives"]

    def values(index: int, kind: str, width: int):
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        count = accessor["count"] * width
        return np.frombuffer(body, kind, count, start).reshape(-1, width)

    named = primitive["attributes"]
    return (
        values(named["POSITION"], "<f4", 3),
        values(named["NORMAL"], "<f4", 3),
        values(named["TEXCOORD_0"], "<f4", 2),
        values(primitive["indices"], "<u4", 1).reshape(-1, 3),
        document,
    )


def test_the_mesh_is_where_the_splat_is_and_looks_like_it():
    points = made().surface.points
    np.testing.assert_allclose(np.ptp(points, axis=0), [0.6, 1.0, 1.6], atol=0.12)
    facts = made().facts
    assert facts["psnr"] > POOR
    assert facts["watertight"]
    assert facts["manifold"]
    assert facts["components"] == 1
    assert facts["faces"] <= 800
    assert facts["texture_size"] == 128


def test_a_glb_stands_upright_and_faces_plus_z(tmp_path: Path):
    positions, normals, uv, triangles, document = read_glb(write_glb(made(), tmp_path / "a.glb"))
    np.testing.assert_allclose(np.ptp(positions, axis=0), [1.0, 1.6, 0.6], atol=0.12)
    texture = made().texture
    at = (uv * len(texture)).astype(int).clip(0, len(texture) - 1)
    color = texture[at[:, 1], at[:, 0]].astype(float)
    assert color[positions[:, 2] > 0.2].argmax(1).mean() < 0.1  # red towards +z
    assert (color[positions[:, 1] > 0.72].argmax(1) == 1).mean() > 0.9  # the green tip on top
    a, b, c = (positions[triangles[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a) * (a + b + c)).sum(1).mean() > 0  # wound to be seen from outside
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    assert (normals * positions).sum(1).min() > 0
    (material,) = document["materials"]
    surface = material["pbrMetallicRoughness"]
    assert (surface["metallicFactor"], surface["roughnessFactor"]) == (0, 1)
    assert "baseColorTexture" in surface


def test_trimesh_reads_a_closed_surface_of_the_same_volume_from_all_three(tmp_path: Path):
    import trimesh

    for write, name in ((write_glb, "m.glb"), (write_obj, "m.obj"), (write_stl, "m.stl")):
        read = trimesh.load_mesh(write(made(), tmp_path / name))
        read.merge_vertices(merge_tex=True, merge_norm=True)  # seams have several vertices
        assert read.is_watertight, name
        assert read.is_winding_consistent, name
        assert read.volume == pytest.approx(made().facts["volume"], rel=1e-3), name


def test_an_obj_brings_its_material_and_its_picture(tmp_path: Path):
    write_obj(made(), tmp_path / "m.obj")
    assert {path.name for path in tmp_path.iterdir()} == {"m.obj", "m.mtl", "m.png"}
    assert "mtllib m.mtl" in (tmp_path / "m.obj").read_text()
    assert "map_Kd m.png" in (tmp_path / "m.mtl").read_text()


def test_an_stl_stands_on_its_z_axis(tmp_path: Path):
    data = write_stl(made(), tmp_path / "m.stl").read_bytes()
    (count,) = struct.unpack("<I", data[80:84])
    assert count == made().facts["faces"]
    corners = np.frombuffer(data[84:], np.dtype([("f", "<f4", 12), ("n", "<u2")]))["f"][:, 3:]
    np.testing.assert_allclose(np.ptp(corners.reshape(-1, 3), axis=0), [0.6, 1.0, 1.6], atol=0.12)


@pytest.mark.parametrize("origin", ["splat", "centre", "feet"])
def test_a_mesh_stands_where_and_as_tall_as_asked(origin: str):
    settings = SMALL.model_copy(update={"origin": origin, "height": 2.5})
    mesh = stood(made(), settings)
    low, high = mesh.surface.points.min(0), mesh.surface.points.max(0)
    assert high[2] - low[2] == pytest.approx(2.5)
    wide = np.ptp(made().surface.points, axis=0)
    np.testing.assert_allclose((high - low) / wide, (high - low)[2] / wide[2])  # no squeezing
    if origin != "splat":
        np.testing.assert_allclose(low[:2] + high[:2], 0, atol=1e-9)
        assert low[2] == pytest.approx(0.0 if origin == "feet" else -1.25)
    assert mesh.facts["extents"] == pytest.approx((high - low).tolist())
    back = (mesh.surface.points - mesh.facts["moved_by"]) / mesh.facts["scaled_by"]
    np.testing.assert_allclose(back, made().surface.points, atol=1e-6)


def test_a_mesh_that_is_left_alone_is_the_same_mesh():
    assert stood(made(), SMALL).surface.points is made().surface.points


def test_the_object_is_called_what_it_is_and_unlit_if_asked(tmp_path: Path):
    mesh = replace(made(), name="a corgi")
    *_, document = read_glb(write_glb(mesh, tmp_path / "a.glb"))
    assert document["meshes"][0]["name"] == document["materials"][0]["name"] == "a corgi"
    assert "a corgi" in [node.get("name") for node in document["nodes"]]
    assert "extensionsUsed" not in document
    *_, document = read_glb(write_glb(replace(mesh, unlit=True), tmp_path / "b.glb"))
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]
    assert document["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}


def test_the_report_says_how_good_it_is_and_which_way_is_up(tmp_path: Path):
    files = write_meshes(figure(), tmp_path, SMALL, ["glb", "stl"])
    assert [path.name for path, _ in files] == ["mesh.glb", "mesh.stl", "mesh.json"]
    report = json.loads((tmp_path / "mesh.json").read_text())
    assert report["up"] == {"glb": "y", "stl": "z"}
    assert "radius 1" in report["units"]
    assert report["views"] == 12
    assert files[-1][1].startswith(f"{report['psnr']:.1f} dB on 12 views, water")


def test_a_mesh_that_is_little_like_the_splat_comes_with_a_warning():
    good, poor = made().facts, made().facts | {"psnr": 19.9}
    assert "warning" not in summary(good)
    assert summary(poor).startswith("warning: little like the splat, 19.9 dB")


def test_a_splat_from_elsewhere_keeps_its_place_and_size():
    far = figure()
    far.means = 50 * far.means + torch.tensor([100.0, -20, 7])
    far.log_scales = far.log_scales + math.log(50)
    mesh = make_mesh(far, SMALL)
    middle = (mesh.surface.points.min(0) + mesh.surface.points.max(0)) / 2
    np.testing.assert_allclose(middle, [100, -20, 7], atol=2)
    np.testing.assert_allclose(np.ptp(mesh.surface.points, axis=0), [30, 50, 80], atol=6)
    assert mesh.facts["psnr"] > POOR


def test_rows_that_are_not_finite_change_nothing():
    broken = figure(20)
    broken.means[:] = math.nan
    mesh = make_mesh(Gaussians.cat([figure(), broken]), SMALL)
    assert mesh.facts["volume"] == pytest.approx(made().facts["volume"], rel=1e-3)


def test_a_surface_that_cannot_be_closed_is_not_called_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "decimate", lambda *_, **__: None)
    with pytest.raises(UsageError, match=r"no closed surface of 800 faces"):
        make_mesh(figure(), SMALL)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    from trimesh.exchange import gltf

    path = tmp_path / "mesh.glb"
    path.write_text("old")
    monkeypatch.setattr(gltf, "export_glb", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_glb(made(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def ascii_splats(path: Path, *, big: bool = False) -> Path:
    from plyfile import PlyData

    # Read from another file than is written: plyfile reads what it needs when it needs it.
    ply = PlyData.read(str(write_ply(figure(3000), path.with_name("ours.ply"))))
    ply.text, ply.byte_order = (False, ">") if big else (True, "=")
    ply.write(str(path))
    return path


def damaged(kind: str, folder: Path) -> Path:
    path = folder / "in.ply"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "no rows":
        write_ply(figure(4), path)
        head = path.read_bytes().split(b"end_header\n")[0].replace(b"vertex 4", b"vertex 0")
        path.write_bytes(head + b"end_header\n")
    elif kind == "truncated":
        write_ply(figure(100), path)
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "mesh":
        path.write_text(
            "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
            "property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
            "0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
        )
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty", "is not a splat file: it is empty"),
        ("no rows", "is empty"),
        ("truncated", "is cut short"),
        ("mesh", "is a mesh, not splats"),
        ("folder", "holds no splat.ply"),
    ],
)
def test_bad_input_is_refused_and_leaves_no_file(kind: str, said: str, tmp_path, capsys):
    out = tmp_path / "out"
    code = cli.main(["export", f"from={damaged(kind, tmp_path)}", f"out={out}", "formats=[glb]"])
    assert code == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("big", [False, True], ids=["ascii", "big-endian"])
def test_other_encodings_give_the_same_mesh(big: bool, tmp_path: Path):
    path = ascii_splats(tmp_path / "in.ply", big=big)
    small = ["mesh.faces=500", "mesh.texture=64", "mesh.sharpen=0"]
    out = tmp_path / "out"
    assert cli.main(["export", f"from={path}", f"out={out}", "formats=[stl]", *small]) == 0
    extents = json.loads((out / "mesh.json").read_text())["extents"]
    np.testing.assert_allclose(extents, [0.6, 1.0, 1.6], atol=0.2)


def test_a_splat_too_faint_to_see_gives_an_error_and_no_file(tmp_path: Path):
    faint = figure()
    faint.logit_opacities = torch.full_like(faint.logit_opacities, -9.0)
    with pytest.raises(UsageError, match="no splat is opaque enough"):
        write_meshes(faint, tmp_path, SMALL, ["glb"])
    assert not list(tmp_path.iterdir())


def test_importing_the_exporter_does_not_import_what_is_slow():
    code = (
        "import sys, splat_esd.mesh.textured; "
        "sys.exit(any(m in sys.modules for m in ('trimesh', 'xatlas', 'skimage', 'scipy.ndimage')))"
    )
    with warnings.catch_warnings():
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0
