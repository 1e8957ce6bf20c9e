"""An asset in Python."""

import numpy as np
import pytest
import torch
from foreign_programs import mascot
from test_generate import SMALL

import splat_esd
from splat_esd.errors import UsageError
from splat_esd.export.images import GROUND
from splat_esd.formats.ply import write_ply
from splat_esd.formats.read import open_splats


@pytest.fixture(scope="module")
def asset(tmp_path_factory) -> splat_esd.Asset:
    folder = tmp_path_factory.mktemp("asset")
    return splat_esd.load(write_ply(mascot(0), folder / "splat.ply"))


def test_a_picture_shows_the_side_that_is_asked_for(asset):
    front, left = asset.render(size=64), asset.render(azimuth=90, size=64)
    assert front.shape == (64, 64, 3) and front.dtype == np.uint8
    assert (np.abs(front[0, 0].astype(int) - GROUND) <= 1).all()
    red = front.astype(int)[..., 0] - front.astype(int)[..., 1]
    green = left.astype(int)[..., 1] - left.astype(int)[..., 0]
    assert red.max() > 60, "the nose is in front"
    assert green[16:48, 16:48].max() > 30, "the ear is at its left"
    assert (asset.render(azimuth=360, size=64) == front).mean() > 0.99


@pytest.mark.parametrize("name", ["a.ply", "a.spz", "a.splat", "a.html"])
def test_the_ending_chooses_the_format(asset, tmp_path, name):
    path = asset.export(tmp_path / name)
    assert path == tmp_path / name and path.stat().st_size > 0
    if name == "a.ply":
        torch.testing.assert_close(open_splats(path).means, asset.gaussians.means)


def test_another_ending_is_refused_with_those_that_are_known(asset, tmp_path):
    with pytest.raises(UsageError, match=r"a.fbx must end in one of .ply, .*\.glb, .*\.html"):
        asset.export(tmp_path / "a.fbx")


def test_a_run_is_made_from_the_words_of_the_command_line(tmp_path, tiny_sd):
    settings = dict(text.split("=") for text in SMALL) | {"steps": 2, "export.formats": ["ply"]}
    steps = []
    made = splat_esd.generate(
        "a corgi",
        prior="sd15",
        **settings,
        **{"prior.path": str(tiny_sd), "out": tmp_path},
        callback=lambda step, stats: steps.append((step, stats["score_norm"] > 0)),
    )
    assert steps == [(1, True), (2, True)]
    assert made.path.parent.parent == tmp_path / "a-corgi"
    with pytest.raises(UsageError, match="does not know 'dragon'"):
        splat_esd.generate("a dragon", prior="zoo", out=tmp_path)
