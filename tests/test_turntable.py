import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from splat_esd.errors import EnvironmentProblem
from splat_esd.export.turntable import write_sheet, write_turntable


def frames(count: int = 6, height: int = 48, width: int = 64) -> torch.Tensor:
    """A bright column that wanders to the right on dark grey."""
    turn = torch.full((count, height, width, 3), 40, dtype=torch.uint8)
    for i in range(count):
        turn[i, :, i * width // count : (i + 1) * width // count] = 220
    return turn


def film(path) -> tuple[str, np.ndarray]:
    """Decodes a film:  ffmpeg's line about its video stream, and the frames [T, H, W, 3]."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo"]
    ran = subprocess.run([*command, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    about = next(line for line in ran.stderr.decode().splitlines() if "Video:" in line)
    width, height = map(int, re.search(r", (\d+)x(\d+)[, ]", about).groups())
    return about, np.frombuffer(ran.stdout, np.uint8).reshape(-1, height, width, 3)


def test_the_film_shows_every_frame_in_order(tmp_path):
    path, _ = write_turntable(frames(), tmp_path / "turntable", fps=12)
    about, shown = film(path)
    assert path == tmp_path / "turntable.mp4"
    assert "h264" in about and " 12 fps" in about
    assert "yuv420p" in about, "the one that browsers and phones play"
    assert shown.shape == (6, 48, 64, 3)
    assert np.abs(shown.astype(int) - frames().numpy()).mean() < 4


@pytest.mark.parametrize(("height", "width"), [(33, 47), (50, 30), (2, 2), (1, 1)])
def test_a_size_that_no_codec_likes_is_rounded_up_to_even(tmp_path, height, width):
    path, _ = write_turntable(frames(3, height, width), tmp_path / "turn", fps=10)
    _, shown = film(path)
    assert shown.shape == (3, height + height % 2, width + width % 2, 3)


def test_the_animation_loops_at_the_same_speed(tmp_path):
    _, path = write_turntable(frames().numpy(), tmp_path / "turntable", fps=20)
    with Image.open(path) as animation:
        assert (animation.format, animation.n_frames, animation.size) == ("WEBP", 6, (64, 48))
        assert animation.info["loop"] == 0
        shown = []
        for i in range(6):
            animation.seek(i)
            shown.append(np.asarray(animation.convert("RGB")))
            assert animation.info["duration"] == 50
    assert np.abs(np.stack(shown).astype(int) - frames().numpy()).mean() < 6


def test_a_dot_in_the_name_stays(tmp_path):
    written = write_turntable(frames(2), tmp_path / "corgi.v2", fps=5)
    assert [path.name for path in written] == ["corgi.v2.mp4", "corgi.v2.webp"]
    assert sorted(tmp_path.iterdir()) == sorted(written)


def test_no_frames_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected at least one frame"):
        write_turntable(frames(0), tmp_path / "turntable", fps=5)
    assert not list(tmp_path.iterdir())


def test_a_missing_ffmpeg_is_the_machines_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-ffmpeg"))
    with pytest.raises(EnvironmentProblem, match=r"ffmpeg could not write .*turntable.mp4"):
        write_turntable(frames(), tmp_path / "turntable", fps=5)
    assert not list(tmp_path.iterdir())


def test_the_sheet_shows_every_view_with_a_label_below(tmp_path):
    labels = [f"{45 * i}°" for i in range(8)]
    path = write_sheet(frames(8, 48, 64), tmp_path / "sheet.png", labels, columns=3)
    with Image.open(path) as image:
        sheet = np.asarray(image)
    tall = sheet.shape[0] // 3
    assert sheet.shape == (3 * tall, 3 * 64, 3)
    for i, view in enumerate(frames(8, 48, 64).numpy()):
        cell = sheet[i // 3 * tall : (i // 3 + 1) * tall, i % 3 * 64 : (i % 3 + 1) * 64]
        assert (cell[:48] == view).all()
        assert cell[48:].min() < 100, "the label is there"
    assert sheet[2 * tall :, 2 * 64 :].min() == 255, "nothing where there is no view"


def test_a_label_wider_than_its_view_is_not_cut(tmp_path):
    label = "azimuth 315 degrees, elevation 15 degrees"
    path = write_sheet(frames(1, 8, 8), tmp_path / "sheet.png", [label], columns=4)
    with Image.open(path) as image:
        ink = np.asarray(image)[8:].min(axis=(0, 2)) < 128
    assert image.width > 200
    assert not ink[:2].any() and not ink[-2:].any()


@pytest.mark.parametrize(("count", "labels"), [(2, ["one"]), (0, [])])
def test_every_view_has_one_label(tmp_path, count, labels):
    with pytest.raises(ValueError, match="expected as many labels as views and at least one"):
        write_sheet(frames(count), tmp_path / "sheet.png", labels, columns=4)


def test_eight_views_stand_four_by_two_without_a_hole_and_the_title_below(tmp_path):
    labels = ["view"] * 8
    for title in ("", "a corgi (esd, seed 0)"):
        path = write_sheet(frames(8, 48, 64), tmp_path / "s.png", labels, columns=4, title=title)
        with Image.open(path) as image:
            assert image.size[0] == 4 * 64
            tall = image.size[1]
    assert tall == 3 * 22 + 2 * 48
