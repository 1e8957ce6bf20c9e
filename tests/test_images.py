import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_bundle import toy

from splat_esd.export.images import GROUND, Images, portrait_frame, render_turntable
from splat_esd.formats.frame import viewing_frame
from splat_esd.gaussians import Gaussians


def test_pictures_start_at_the_front_over_grey():
    pictures, cameras = render_turntable(toy(), 4, size=32)
    frames = pictures.over_grey()
    assert frames.shape == (4, 32, 32, 3)
    assert frames.dtype == torch.uint8
    assert cameras.azimuth[0] == 0
    assert (frames[:, 0, 0].int() - GROUND).abs().max() <= 1
    assert (frames[:, 16, 16] != GROUND).any(-1).all()


def covered(splats) -> tuple[float, float]:
    """Returns the share of a picture that the splats cover, and how far off its middle they are."""
    alpha = render_turntable(splats, 1, size=64)[0].rgba[0, ..., 3].float()
    rows = alpha.sum(1) / alpha.sum() @ torch.arange(64.0)
    columns = alpha.sum(0) / alpha.sum() @ torch.arange(64.0)
    return float((alpha > 127).float().mean()), math.hypot(rows - 31.5, columns - 31.5)


@pytest.mark.parametrize("times", [1e-3, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize("off", [0.0, 20.0])
def test_a_splat_fills_its_pictures_wherever_it_is_and_however_large(times: float, off: float):
    splats = toy()
    moved = replace(
        splats,
        means=(splats.means + off) * times,
        log_scales=splats.log_scales + math.log(times),
    )
    share, aside = covered(moved)
    assert share > 0.5 * covered(splats)[0] > 0
    assert aside < 4


@pytest.mark.parametrize(
    "stretch", [(1.0, 1.0, 1.0), (0.3, 0.3, 1.0), (1.0, 1.0, 0.2), (0.2, 1.0, 0.5)]
)
def test_an_object_fills_three_quarters_of_the_height_or_nine_tenths_of_the_width(stretch):
    splats = toy()
    lying = replace(splats, means=splats.means * torch.tensor(stretch) + 0.3)
    alpha = render_turntable(lying, 8, size=128)[0].rgba[..., 3].amax(0) > 127
    tall, wide = (alpha.any(dim).float().mean().item() for dim in (1, 0))
    assert tall == pytest.approx(0.75, abs=0.04) or wide == pytest.approx(0.9, abs=0.04)
    assert tall < 0.79 and wide < 0.94
    rows = alpha.any(1).nonzero()
    assert abs(rows[0] + rows[-1] - 127) <= 4


def test_what_nobody_can_see_is_framed_as_it_is():
    splats = toy()
    splats.logit_opacities[:] = -4.0
    assert portrait_frame(splats).radius == viewing_frame(splats).radius


def test_a_sky_and_floaters_do_not_move_the_picture():
    splats = toy()
    sky = toy(radius=300.0)
    both = Gaussians.cat([splats, sky.select(torch.arange(len(sky) // 4))])
    np.testing.assert_allclose(viewing_frame(both).center, 0, atol=0.1)
    assert viewing_frame(both).radius < 1.5


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
    assert strip[0, 0].tolist() == [200, 0, 0] and strip[0, 1].tolist() == [GROUND] * 3
    assert strip[:, 2, 0].tolist() == [255, 51], "near is bright"
    assert strip[:, 3].max() == 0, "nothing is black"
    assert strip[:, 4:, 0].tolist() == [[255, 0], [255, 0]]


def test_a_strip_of_nothing_is_grey_and_black():
    strip = Images(torch.zeros(1, 2, 2, 4, dtype=torch.uint8), torch.zeros(1, 2, 2)).strips()
    assert (strip[0, :, :2] == GROUND).all() and strip[0, :, 2:].max() == 0
