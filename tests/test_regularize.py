import pytest
import torch

from splat_esd.config.schema import RegularizeConfig
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import RenderOutput
from splat_esd.regularize import regularize

GAUSSIANS = Gaussians(
    means=torch.zeros(2, 3),
    quats=torch.tensor([[1.0, 0, 0, 0]] * 2),
    log_scales=torch.tensor([[0.1] * 3, [0.3] * 3]).log(),
    logit_opacities=torch.zeros(2),
    sh=torch.zeros(2, 1, 3),
)


def drawn(alpha, rgb):
    alpha = torch.tensor(alpha).view(1, 1, -1, 1)
    rgb = torch.tensor(rgb).view(1, 1, -1, 1).expand(-1, -1, -1, 3)
    return RenderOutput(rgb=rgb, alpha=alpha, depth=torch.zeros_like(alpha), info={})


def term(out, **weights):
    return regularize(
        out, GAUSSIANS, **({"cover": 0.0, "scale": 0.0, "range": 0.0} | weights)
    ).item()


def test_cover_is_how_much_of_a_view_is_hidden():
    assert term(drawn([0.0, 0.0], [0.0, 0.0]), cover=2.0) == 0.0
    assert term(drawn([0.5, 1.0], [0.0, 0.0]), cover=2.0) == pytest.approx(3.0)


def test_range_is_the_squared_excess_of_the_colours():
    assert term(drawn([1.0, 1.0], [0.0, 1.0]), range=2.0) == 0.0
    assert term(drawn([1.0, 1.0], [-0.5, 1.5]), range=2.0) == pytest.approx(2.0 * 3 * 0.5)


def test_scale_is_the_mean_size():
    assert term(drawn([1.0], [0.0]), scale=2.0) == pytest.approx(0.4)


def test_cover_ends_where_it_was_asked_to_and_the_other_terms_go_on():
    config = RegularizeConfig(cover=0.01, cover_until=0.6, scale=2.0, range=3.0)
    assert config.at(0.59) == {"cover": 0.01, "scale": 2.0, "range": 3.0}
    assert config.at(0.6) == {"cover": 0.0, "scale": 2.0, "range": 3.0}
