"""The estimate of a step's memory: what a graph keeps, counted on tensors without contents."""

import pytest
import torch
from test_rehearse import tiny_shapes  # noqa: F401

from splat_esd.bench.estimate import estimate, kept_for_backward
from splat_esd.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_chain_keeps_the_input_of_each_layer_and_not_its_weights():
    chain = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.SiLU(), torch.nn.Linear(20, 5))
    x = torch.zeros(3, 10, requires_grad=True)
    # In float32: the input, what the activation was given, and what it gave.
    assert kept_for_backward(lambda: chain(x), chain) == (4 * 3 * (10 + 20 + 20), 4 * 3 * 20)


def test_without_contents_the_same_is_counted_as_with_them():
    def block(device):
        layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.GroupNorm(2, 8), torch.nn.SiLU()]
        net = torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 4, 3)).to(device)
        x = torch.zeros(2, 3, 16, 16, device=device, requires_grad=True)
        return kept_for_backward(lambda: net(x), net)

    assert block("meta") == block("cpu")


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd35", "flux2_klein", "mvdream"])
def test_more_pixels_and_more_views_take_more_and_low_takes_least(kind, tiny_shapes):  # noqa: F811
    asked = {"views": 4, "dtype": torch.float32, "rank": 2}
    small, large = (estimate(kind, size=size, **asked) for size in (32, 64))
    ratio = large["graphs"]["encoder"] / small["graphs"]["encoder"]
    assert ratio == pytest.approx(4, rel=0.3)  # attention within the autoencoder grows faster
    assert large["full"] > large["low"] > large["weights"]
    one = estimate(kind, size=64, **{**asked, "views": 1})
    grown = large["full"] - one["full"]  # of a group drawn together too: counted by the view
    assert grown > 3 * (sum(large["graphs"].values()) - 1e-9)


def test_half_precision_halves_the_encoder_and_spares_the_denoiser(tiny_shapes):  # noqa: F811
    asked = {"size": 64, "views": 1, "rank": 2}
    single = estimate("sd15", dtype=torch.float32, **asked)
    half = estimate("sd15", dtype=torch.bfloat16, **asked)
    assert half["graphs"]["encoder"] == pytest.approx(single["graphs"]["encoder"] / 2, rel=0.15)
    assert half["graphs"]["phi"] < single["graphs"]["phi"]
    assert half["weights"] < single["weights"]


def test_the_doctor_prints_both_levels_and_which_fits(tiny_shapes, capsys):  # noqa: F811
    assert main(["doctor", "prior=sd15", "size=64"]) == 0
    out = capsys.readouterr().out
    assert "prior.memory=full" in out and "prior.memory=low" in out
    assert "prior.memory=full fits.\n" in out
    assert out.endswith("An estimate; measured by:  splat-esd rehearse prior=sd15\n")
    assert ("Without a CUDA GPU a step takes minutes" in out) != torch.cuda.is_available()
