"""The files a run ends with: what was asked for, named and openable."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_turntable import film

from splat_esd.config.schema import ExportConfig, MeshConfig
from splat_esd.errors import UsageError
from splat_esd.export.bundle import write_files
from splat_esd.formats.read import open_splats
from splat_esd.initialize import ball

MESH = MeshConfig(faces=500, texture=64, watertight=True, sharpen=0)


def toy(*, radius: float = 0.5):
    generator = torch.Generator().manual_seed(0)
    return ball(64, radius=radius, opacity=0.9, color=0.2, generator=generator)


def asked(*formats: str, **more: bool) -> ExportConfig:
    settings = {"up": "-y", "full_ply": False, "frames": 4, "size": 32, "transparent": False}
    return ExportConfig(formats=formats, **(settings | more))


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("ply", ["splat.ply"]),
        ("splat", ["splat.splat"]),
        ("spz", ["splat.spz"]),
        ("gltf", ["splat.glb"]),
        ("glb", ["mesh.glb", "mesh.json"]),
        ("stl", ["mesh.stl", "mesh.json"]),
        ("turntable", ["turntable.mp4", "turntable.webp"]),
        ("strip", ["strip.mp4", "strip.webp"]),
        ("sheet", ["sheet.png"]),
        ("viewer", ["viewer.html"]),
    ],
)
def test_each_format_writes_its_files_and_nothing_else(form: str, names: list[str], tmp_path: Path):
    files = write_files(toy(), tmp_path / "new" / "folder", asked(form), MESH)
    assert [path.name for path, _ in files] == names
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == set(names)
    assert all(path.stat().st_size > 0 and opens for path, opens in files)


def test_files_come_in_the_order_asked_for_and_once_the_splats_first(tmp_path: Path):
    files = write_files(toy(), tmp_path, asked("sheet", "ply", "spz", "sheet"), MESH)
    assert [path.name for path, _ in files] == ["splat.ply", "sheet.png", "splat.spz"]


def test_the_ply_is_the_splat(tmp_path: Path):
    made = toy()
    [(path, _)] = write_files(made, tmp_path, asked("ply"), MESH)
    read = open_splats(path)
    torch.testing.assert_close(read.means, made.means)
    torch.testing.assert_close(read.opacities, made.opacities)


def test_an_old_viewer_gets_all_its_floats(tmp_path: Path):
    [(path, _)] = write_files(toy(), tmp_path, asked("ply", full_ply=True), MESH)
    assert path.read_bytes().count(b"property float") == 62
    assert open_splats(path).sh[:, 1:].abs().max() == 0


def test_a_transparent_turntable_has_no_background_and_its_film_a_white_one(tmp_path: Path):
    files = write_files(toy(), tmp_path, asked("turntable", "sheet", transparent=True), MESH)
    assert len(files) == 3
    for name, columns in (("turntable.webp", 1), ("sheet.png", 4)):
        with Image.open(tmp_path / name) as image:
            rgba = np.asarray(image.convert("RGBA"))
        assert rgba[0, 0, 3] == 0
        middle = rgba[16 if columns == 1 else 8, rgba.shape[1] // (2 * columns)]
        assert middle[3] > 200 and middle[:3].max() < 120
    _, shown = film(tmp_path / "turntable.mp4")
    assert shown[0, 0, 0].min() > 250 and shown[0, 16, 16].max() < 120


def test_no_splats_is_an_error_and_no_empty_files(tmp_path: Path):
    nothing = toy().select(torch.zeros(64, dtype=torch.bool))
    with pytest.raises(UsageError, match="no splats"):
        write_files(nothing, tmp_path / "out", asked("ply"), MESH)
    assert not (tmp_path / "out").exists()
