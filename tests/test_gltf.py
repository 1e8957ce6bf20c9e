import json
import struct

import numpy as np
import pytest
import torch
from test_ply import some

from splat_esd.errors import UsageError
from splat_esd.formats.gltf import write_gltf
from splat_esd.geometry import up_rotation

PREFIX = "KHR_gaussian_splatting:"


def read(path) -> tuple[dict, dict[str, np.ndarray]]:
    """Returns the document and each attribute, read as the specification of glTF says."""
    content = path.read_bytes()
    magic, version, size, length, kind = struct.unpack("<4sIII4s", content[:20])
    assert (magic, version, size, kind) == (b"glTF", 2, len(content), b"JSON")
    document = json.loads(content[20 : 20 + length])
    size, kind = struct.unpack("<I4s", content[20 + length : 28 + length])
    binary = content[28 + length :]
    assert (kind, size) == (b"BIN\0", len(binary)) and size == document["buffers"][0]["byteLength"]
    (primitive,) = document["meshes"][0]["primitives"]
    attributes = {}
    for name, index in primitive["attributes"].items():
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        dtype = {5126: "<f4", 5123: "<u2"}[accessor["componentType"]]
        assert view["byteOffset"] % 4 == 0
        data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        attributes[name] = np.frombuffer(data, dtype).reshape(accessor["count"], -1)
    return document, attributes


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_attribute_is_read_back_upright(tmp_path, degree):
    splats = some(50, degree=degree)
    _, attributes = read(write_gltf(splats, tmp_path / "splat.glb"))
    turned = splats.rotate(up_rotation("y"))
    np.testing.assert_allclose(attributes["POSITION"], turned.means, rtol=1e-6)
    np.testing.assert_allclose(attributes[PREFIX + "SCALE"], splats.scales, rtol=1e-6)
    np.testing.assert_allclose(attributes[PREFIX + "OPACITY"][:, 0], splats.opacities, rtol=1e-6)
    quats = attributes[PREFIX + "ROTATION"][:, [3, 0, 1, 2]]
    np.testing.assert_allclose(quats, turned.quats, atol=1e-6)
    k = 0
    for band in range(degree + 1):
        for i in range(2 * band + 1):
            stored = attributes[f"{PREFIX}SH_DEGREE_{band}_COEF_{i}"]
            np.testing.assert_allclose(stored, turned.sh[:, k], atol=1e-6)
            k += 1
    assert len(attributes) == 5 + k


def test_the_extension_is_declared_with_what_it_requires(tmp_path):
    document, _ = read(write_gltf(some(), tmp_path / "splat.glb"))
    assert document["extensionsUsed"] == ["KHR_gaussian_splatting"]
    assert "extensionsRequired" not in document, "others may show the points"
    (primitive,) = document["meshes"][0]["primitives"]
    assert primitive["mode"] == 0
    settings = primitive["extensions"]["KHR_gaussian_splatting"]
    assert (settings["kernel"], settings["colorSpace"]) == ("ellipse", "srgb_rec709_display")


def test_the_bounds_are_exactly_those_of_the_positions(tmp_path):
    document, attributes = read(write_gltf(some(300), tmp_path / "splat.glb"))
    assert document["accessors"][0]["min"] == attributes["POSITION"].min(0).tolist()
    assert document["accessors"][0]["max"] == attributes["POSITION"].max(0).tolist()


def test_programs_without_the_extension_see_points_in_linear_color(tmp_path):
    splats = some(2, degree=0)
    splats.sh[:, 0] = torch.tensor([[0.0, 10.0, -10.0], [-1.0, 0.0, 0.0]])
    _, attributes = read(write_gltf(splats, tmp_path / "splat.glb"))
    color = attributes["COLOR_0"] / 65535
    np.testing.assert_allclose(color[0, :3], [0.2140, 1, 0], atol=1e-4)  # sRGB 0.5 is 0.214
    np.testing.assert_allclose(color[:, 3], splats.opacities, atol=1e-4)


def test_millions_of_splats_are_written_a_part_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("splat_esd.formats.orient._PART", 7)
    splats = some(50, degree=1)
    _, attributes = read(write_gltf(splats, tmp_path / "splat.glb"))
    turned = splats.rotate(up_rotation("y"))
    np.testing.assert_allclose(attributes["POSITION"], turned.means, rtol=1e-6)
    np.testing.assert_allclose(
        attributes[PREFIX + "SH_DEGREE_1_COEF_2"], turned.sh[:, 3], atol=1e-6
    )


def test_nothing_is_written_of_nothing_or_of_nan(tmp_path):
    with pytest.raises(UsageError, match="there are no splats to write"):
        write_gltf(some().select(torch.zeros(20, dtype=torch.bool)), tmp_path / "splat.glb")
    splats = some()
    splats.means[3, 1] = torch.nan
    with pytest.raises(UsageError, match="means holds NaN or infinity"):
        write_gltf(splats, tmp_path / "splat.glb")
    assert not list(tmp_path.iterdir())
