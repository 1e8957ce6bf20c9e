import math

import pytest
import torch
from test_bundle import toy

from splat_esd.export.images import Images, render_turntable


def test_pictures_start_at_the_front_over_white():
    pictures, cameras = render_turntable(toy(), 4, size=32)
    frames = pictures.over_white()
    assert frames.shape == (4, 32, 32, 3)
    assert frames.dtype == torch.uint8
    assert cameras.azimuth[0] == 0
    assert (frames[:, 0, 0] == 255).all()
    assert (frames[:, 16, 16] < 200).all()


def test_a_large_splat_is_seen_from_afar():
    _, near = render_turntable(toy(), 1, size=16)
    _, far = render_turntable(toy(radius=10.0), 1, size=16)
    assert far.distance[0] > 10 / math.sin(math.radians(45) / 2) * 0.9
    assert near.distance[0] == pytest.approx(2.8)


def test_a_faint_color_is_kept_whole_beside_its_alpha():
    splats = toy()
    splats.logit_opacities[:], splats.sh[:] = -4.0, splats.sh[0]
    pictures, _ = render_turntable(splats, 1, size=32)
    color, alpha = pictures.rgba[0, 16, 16, :3], pictures.rgba[0, 16, 16, 3]
    assert 0 < alpha < 100
    torch.testing.assert_close(color.float(), 255 * splats.colors[0], atol=1, rtol=0)


def test_a_strip_shows_color_then_depth_then_alpha():
    rgba = torch.zeros(1, 2, 2, 4, dtype=torch.uint8)
    rgba[0, :, 0] = torch.tensor([200, 0, 0, 255], dtype=torch.uint8)
    depth = torch.tensor([[[2.0, 0.0], [3.0, 0.0]]])
    strip = Images(rgba, depth).strips()[0]
    assert strip.shape == (2, 6, 3)
    assert strip[0, 0].tolist() == [200, 0, 0] and strip[0, 1].tolist() == [255, 255, 255]
    assert strip[:, 2, 0].tolist() == [255, 51], "near is bright"
    assert strip[:, 3].max() == 0, "nothing is black"
    assert strip[:, 4:, 0].tolist() == [[255, 0], [255, 0]]


def test_a_strip_of_nothing_is_white_and_black():
    strip = Images(torch.zeros(1, 2, 2, 4, dtype=torch.uint8), torch.zeros(1, 2, 2)).strips()
    assert strip[0, :, :2].min() == 255 and strip[0, :, 2:].max() == 0
