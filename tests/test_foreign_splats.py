"""Our splats in the programs they are made for, beside our own picture from the same camera."""

import json

import numpy as np
import pytest
import torch
from foreign_programs import (
    CAMERA,
    assert_alike,
    covariances,
    mascot,
    node,
    own_picture,
    picture,
    shoot,
)
from plyfile import PlyData

from splat_esd.formats.gltf import write_gltf
from splat_esd.formats.ply import write_ply
from splat_esd.formats.read import open_splats
from splat_esd.formats.splat import write_splat
from splat_esd.formats.spz import write_spz
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import up_rotation

pytestmark = pytest.mark.foreign

TRANSFORM = "node_modules/@playcanvas/splat-transform/bin/cli.mjs"


def write(splats: Gaussians, folder, name: str, *, up: str = "-y", full: bool = False):
    path = folder / name
    if name.endswith(".ply"):
        return write_ply(splats, path, up=up, full=full)
    if name.endswith(".splat"):
        return write_splat(splats, path, up=up)
    return write_spz(splats, path) if name.endswith(".spz") else write_gltf(splats, path)


def shown(page: str, folder, name: str, **query: object) -> torch.Tensor:
    """Takes a picture of a file in a program, from the camera that all use."""
    query = CAMERA | {"file": name} | query
    shoot(page, folder / "shot.png", data=str(folder), query=query)
    return picture(folder / "shot.png")


@pytest.mark.parametrize(
    ("name", "up", "degree", "full"),
    [
        ("a.ply", "-y", 3, False),
        ("a.ply", "y", 0, True),
        ("a.spz", "y", 3, False),
        ("a.splat", "-y", 0, False),
    ],
)
def test_spark_shows_what_we_see(tmp_path, name, up, degree, full):
    splats = mascot(degree)
    write(splats, tmp_path, name, up=up, full=full)
    shot = shown("pages/spark.html", tmp_path, name, up=up, blur=0.3)
    assert_alike(shot, own_picture(splats), least=0.97)


def test_spark_as_it_comes_shows_what_we_see_antialiased(tmp_path):
    """Its default fades small splats by what it widens them, as rasterizer.antialiased does."""
    splats = mascot(0)
    write(splats, tmp_path, "a.spz")
    shot = shown("pages/spark.html", tmp_path, "a.spz", up="y", antialiased=1)
    assert_alike(shot, own_picture(splats, antialiased=True), least=0.97)


@pytest.mark.parametrize("name", ["a.ply", "a.splat"])
def test_gsplat_js_shows_what_we_see(tmp_path, name):
    splats = mascot(0)
    write(splats, tmp_path, name)
    shot = shown("pages/gsplatjs.html", tmp_path, name)
    assert_alike(shot, own_picture(splats), least=0.97)


def test_playcanvas_shows_our_gltf_as_we_see_it(tmp_path):
    splats = mascot(3)
    write(splats, tmp_path, "a.glb")
    shot = shown("pages/playcanvas.html", tmp_path, "a.glb")
    assert_alike(shot, own_picture(splats), least=0.95)


@pytest.mark.parametrize("degree", [0, 3])
def test_threes_own_addon_shows_our_gltf_as_we_see_it(tmp_path, degree):
    splats = mascot(degree)
    write(splats, tmp_path, "a.glb")
    shot = shown("pages/three-splats.html", tmp_path, "a.glb")
    assert_alike(shot, own_picture(splats), least=0.93)


def test_the_playcanvas_tools_read_our_spz_of_version_4(tmp_path):
    splats = mascot(3)
    write_spz(splats, tmp_path / "a.spz", version=4)
    node(TRANSFORM, "-q", tmp_path / "a.spz", tmp_path / "back.ply")
    back = open_splats(tmp_path / "back.ply")
    assert (back.means - splats.means).abs().max() < 2e-4
    assert (back.colors - splats.colors).abs().max() < 0.004
    assert (back.sh[:, 1:] - splats.sh[:, 1:]).abs().max() < 0.006


@pytest.mark.parametrize("degree", [0, 3])
@pytest.mark.parametrize("name", ["a.ply", "a.spz", "a.splat"])
def test_splat_transform_reads_the_same_splats(tmp_path, name, degree):
    splats = mascot(degree)
    write(splats, tmp_path, name)
    node(TRANSFORM, "-q", tmp_path / name, tmp_path / "back.ply")
    back = open_splats(tmp_path / "back.ply")  # a foreign file: taken as y down, as theirs are
    coarse = name != "a.ply"
    assert (back.means - splats.means).abs().max() < 2e-4
    assert (back.log_scales - splats.log_scales).abs().max() < (0.035 if coarse else 1e-5)
    assert (back.opacities - splats.opacities).abs().max() < (0.003 if coarse else 1e-5)
    assert (back.colors - splats.colors).abs().max() < (0.004 if coarse else 1e-5)
    shape = covariances(splats)
    off = (covariances(back) - shape).norm(dim=(1, 2)) / shape.norm(dim=(1, 2))
    assert off.max() < (0.08 if coarse else 1e-5)
    if degree == 3 and name != "a.splat":
        assert (back.sh[:, 1:] - splats.sh[:, 1:]).abs().max() < (0.006 if coarse else 1e-5)


def test_splat_transform_makes_a_sog_of_our_ply(tmp_path):
    """The way that export's README shows: no library for Python writes .sog."""
    splats = mascot(0)
    write(splats, tmp_path, "a.ply")
    node(TRANSFORM, "-q", "-g", "cpu", tmp_path / "a.ply", tmp_path / "a.sog")
    node(TRANSFORM, "-q", tmp_path / "a.sog", tmp_path / "back.ply")
    back = open_splats(tmp_path / "back.ply")  # in an order of its own
    away, nearest = torch.cdist(splats.means, back.means).min(dim=1)
    assert len(back) == len(splats) and away.max() < 2e-3
    assert (back.colors[nearest] - splats.colors).abs().mean() < 0.02
    assert (tmp_path / "a.sog").stat().st_size < (tmp_path / "a.ply").stat().st_size / 2


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_reference_library_reads_our_spz_upright(tmp_path, degree):
    splats = mascot(degree, count=300)
    told = node("read_spz.mjs", write(splats, tmp_path, "a.spz"))
    read = json.loads(told.splitlines()[-1])
    turned = splats.rotate(up_rotation("y"))
    count = len(splats)
    assert (read["numPoints"], read["shDegree"]) == (count, degree)
    arrays = {name: np.reshape(read[name], (count, -1)) for name in ("positions", "scales", "sh")}
    np.testing.assert_allclose(arrays["positions"], turned.means, atol=2e-4)
    np.testing.assert_allclose(arrays["scales"], splats.log_scales, atol=0.035)
    stored = turned.sh[:, 1:].flatten(1)
    np.testing.assert_allclose(arrays["sh"], stored.clamp(-1, 1), atol=0.009)
    xyzw = torch.tensor(read["rotations"]).reshape(count, 4)
    turned.quats /= turned.quats.norm(dim=1, keepdim=True)
    assert (xyzw[:, [3, 0, 1, 2]] * turned.quats).sum(1).abs().min() > 0.99999


def test_the_validator_of_gltf_stumbles_over_nothing_but_the_extension_it_does_not_know(tmp_path):
    told = json.loads(node("validate.mjs", write(mascot(3), tmp_path, "a.glb")))
    known = [m for m in told["messages"] if "KHR_gaussian_splatting" not in json.dumps(m)]
    assert not known
    assert {m["code"] for m in told["messages"]} == {
        "UNSUPPORTED_EXTENSION",
        "MESH_PRIMITIVE_INVALID_ATTRIBUTE",
    }


def test_plyfile_reads_every_value_of_our_ply(tmp_path):
    splats = mascot(3)
    rows = PlyData.read(str(write(splats, tmp_path, "a.ply", up="z")))["vertex"].data
    for i in range(45):
        channel, k = divmod(i, 15)
        np.testing.assert_allclose(rows[f"f_rest_{i}"], splats.sh[:, 1 + k, channel], atol=1e-6)
