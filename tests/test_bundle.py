"""The files a run ends with: what was asked for, named and openable."""

import math
from pathlib import Path

import pytest
import torch

from splat_esd.config import ExportConfig
from splat_esd.export.bundle import take_pictures, write_files
from splat_esd.export.ply import read_ply
from splat_esd.initialize import ball


def toy(*, radius: float = 0.5):
    generator = torch.Generator().manual_seed(0)
    return ball(64, radius=radius, opacity=0.9, color=0.2, generator=generator)


def asked(*formats: str) -> ExportConfig:
    return ExportConfig(formats=formats, up="-y", frames=4, size=32)


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("ply", ["splat.ply"]),
        ("turntable", ["turntable.mp4", "turntable.webp"]),
        ("sheet", ["sheet.png"]),
        ("viewer", ["viewer.html"]),
    ],
)
def test_each_format_writes_its_files_and_nothing_else(form: str, names: list[str], tmp_path: Path):
    files = write_files(toy(), tmp_path / "new" / "folder", asked(form))
    assert [path.name for path, _ in files] == names
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == names
    assert all(path.stat().st_size > 0 and opens for path, opens in files)


def test_files_come_in_the_order_asked_for_and_once(tmp_path: Path):
    files = write_files(toy(), tmp_path, asked("sheet", "ply", "sheet"))
    assert [path.name for path, _ in files] == ["sheet.png", "splat.ply"]


def test_the_ply_is_the_splat(tmp_path: Path):
    made = toy()
    [(path, _)] = write_files(made, tmp_path, asked("ply"))
    read = read_ply(path)
    torch.testing.assert_close(read.means, made.means)
    torch.testing.assert_close(read.opacities, made.opacities)


def test_pictures_start_at_the_front_over_white():
    frames, cameras = take_pictures(toy(), 4, size=32)
    assert frames.shape == (4, 32, 32, 3)
    assert frames.dtype == torch.uint8
    assert cameras.azimuth[0] == 0
    assert (frames[:, 0, 0] == 255).all()
    assert (frames[:, 16, 16] < 200).all()


def test_a_large_splat_is_seen_from_afar():
    _, near = take_pictures(toy(), 1, size=16)
    _, far = take_pictures(toy(radius=10.0), 1, size=16)
    assert far.distance[0] > 10 / math.sin(math.radians(45) / 2) * 0.9
    assert near.distance[0] == pytest.approx(2.8)


def test_no_splats_is_an_error_and_no_empty_files(tmp_path: Path):
    nothing = toy().select(torch.zeros(64, dtype=torch.bool))
    with pytest.raises(ValueError, match="no splats"):
        write_files(nothing, tmp_path / "out", asked("ply"))
    assert not (tmp_path / "out").exists()
