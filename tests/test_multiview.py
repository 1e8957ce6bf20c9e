"""MVDream: the stock UNet with attention across views, beside what its own code computes."""

import json
import math
import shutil

import pytest
import torch
from conftest import MVDREAM
from diffusers import UNet2DConditionModel

from splat_esd.cameras import CameraDistribution, orbit_cameras
from splat_esd.config.load import load_config
from splat_esd.config.schema import GuidanceConfig
from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.lora import CAMERA_NUMBERS, Phi, camera_vector
from splat_esd.diffusion.multiview import attend_across_views, poses, stock_config
from splat_esd.diffusion.prompts import PromptBook
from splat_esd.distillation import make_guidance
from splat_esd.errors import UsageError
from splat_esd.runs.generate import generate
from splat_esd.train import make_run


@pytest.fixture
def prior(tiny_mvdream):
    return load_prior(str(tiny_mvdream), device="cpu", dtype="fp32")


def around(count: int = 4, elevation: float = 0.3):
    azimuth = 2 * math.pi * torch.arange(count) / count
    full = torch.ones(count)
    return orbit_cameras(azimuth, elevation * full, 2.4 * full, 0.7 * full, width=16, height=16)


def noisy(prior, count: int):
    generator = torch.Generator().manual_seed(0)
    z_t = torch.randn(count, 4, 8, 8, generator=generator)
    return z_t, torch.full((count,), 500), prior.encode_text(["a cat"]).expand(count)


def test_a_lone_picture_is_answered_as_by_the_stock_unet_without_a_camera(prior):
    z_t, t, text = noisy(prior, 3)
    shape = {**stock_config(MVDREAM), "class_embed_type": None}
    stock = UNet2DConditionModel(**shape).eval()
    stock.load_state_dict(prior.denoiser.state_dict(), strict=False)
    expected = stock(z_t, t, text.embeds).sample
    torch.testing.assert_close(prior.denoise(z_t, t, text), expected, atol=1e-5, rtol=1e-5)


def test_a_view_sees_the_others_of_its_group_and_no_other_group(prior):
    z_t, t, text = noisy(prior, 8)
    text = text.seen_from(poses(around().c2w).repeat(2, 1))
    answer = prior.denoise(z_t, t, text)
    z_t[0] += 1.0
    moved = (prior.denoise(z_t, t, text) - answer).abs().amax((1, 2, 3))
    assert (moved[:4] > 1e-4).all()
    assert (moved[4:] == 0).all()


def test_self_attention_across_views_is_that_over_all_their_tokens():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**stock_config(MVDREAM)).eval()
    attention = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    h = torch.randn(4, 5, 32)
    q, k, v = attention.to_q(h), attention.to_k(h), attention.to_v(h)
    heads = [x.reshape(20, 4, 8).transpose(0, 1) for x in (q, k, v)]
    weights = (heads[0] @ heads[1].mT / math.sqrt(8)).softmax(-1)
    expected = attention.to_out[0]((weights @ heads[2]).transpose(0, 1).reshape(4, 5, 32))
    attend_across_views(unet)
    torch.testing.assert_close(attention(h, views=4), expected, atol=1e-5, rtol=1e-5)


def test_the_camera_passes_through_its_two_layers_onto_the_time_embedding(prior):
    pose = poses(around().c2w)
    first, second = prior.denoiser.class_embedding.linear_1, prior.denoiser.class_embedding.linear_2
    told = prior.denoiser.class_embedding(pose)
    torch.testing.assert_close(told, second(torch.nn.functional.silu(first(pose))))
    assert (prior.denoiser.class_embedding(torch.zeros(2, 16)) == 0).all()


def test_the_front_is_where_blender_has_it_and_cameras_stand_at_distance_one():
    c2w = poses(around(elevation=0.0).c2w).unflatten(1, (4, 4))
    places = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0]])
    torch.testing.assert_close(c2w[:, :3, 3], places, atol=1e-6, rtol=0)
    torch.testing.assert_close(c2w[:, :3, 2], places, atol=1e-6, rtol=0)  # it looks along -z
    up = torch.tensor([0.0, 0, 1]).expand(4, 3)
    torch.testing.assert_close(c2w[:, :3, 1], up, atol=1e-6, rtol=0)
    assert (poses(torch.zeros(2, 4, 4)) == 0).all()


def test_views_of_a_group_share_elevation_distance_and_field_and_stand_a_quarter_turn_apart():
    ranges = {"elevation": (-0.1, 0.8), "distance": (2.0, 3.0), "fovy": (0.5, 0.9)}
    several = CameraDistribution(8, **ranges, width=8, height=8, together=4, progressive_until=1.0)
    cameras = several.sample(torch.Generator().manual_seed(3))
    for group in (cameras[:4], cameras[4:]):
        turn = torch.remainder(group.azimuth - group.azimuth[0], 2 * math.pi)
        torch.testing.assert_close(turn, torch.arange(4) * math.pi / 2, atol=1e-5, rtol=0)
        for value in (group.elevation, group.distance, group.fovy):
            assert (value == value[0]).all()
    assert cameras.elevation[0] != cameras.elevation[4]


def test_every_camera_of_a_group_is_uniform_around():
    ranges = {"elevation": (0.0, 0.1), "distance": (2.0, 2.1), "fovy": (0.5, 0.6)}
    several = CameraDistribution(4, **ranges, width=8, height=8, together=4)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([several.sample(generator).azimuth for _ in range(2000)])
    for azimuth in drawn.T:
        share = torch.histc(torch.remainder(azimuth, 2 * math.pi), 8, 0, 2 * math.pi) / 2000
        torch.testing.assert_close(share, torch.full((8,), 0.125), atol=0.03, rtol=0)


def test_views_drawn_together_are_equally_noisy_and_phi_is_told_all_their_cameras_or_none(prior):
    book = PromptBook(prior, "a cat", "", by_view=False)
    guidance = make_guidance(
        prior, book, GuidanceConfig(lam=0.5), rank=2, seed=0, cfg_scale=3.0, perp_neg=False,
        steps=10,
    )  # fmt: skip
    z = torch.zeros(8, 4, 8, 8)
    cameras = around()[torch.arange(4).repeat(2)]
    drops = []
    for step in range(20):
        score = guidance.gradient(z, cameras, 0, torch.Generator().manual_seed(step))
        assert score.phi is not None
        groups = score.phi.dropped.unflatten(0, (2, 4))
        assert (groups == groups[:, :1]).all()
        drops += groups[:, 0].tolist()
    assert 0 < sum(drops) < len(drops)


def test_phi_begins_as_the_prior_with_and_without_cameras(prior):
    z_t, t, text = noisy(prior, 4)
    bare = prior.eps(z_t, t, text.seen_from(torch.zeros(4, 16)))
    told = prior.eps(z_t, t, text.seen_from(poses(around().c2w)))
    phi = Phi(prior, text.rows(slice(0, 1)), rank=2, seed=0)
    vector = camera_vector(around())
    assert torch.equal(phi.eps(z_t, t, vector), told)
    assert torch.equal(phi.eps(z_t, t, torch.zeros(4, CAMERA_NUMBERS)), bare)
    assert not torch.allclose(told, bare)


def test_one_view_at_a_time_still_means_one_group_at_a_time(prior):
    z_t, t, text = noisy(prior, 8)
    text = text.seen_from(poses(around().c2w).repeat(2, 1))
    whole = prior.eps(z_t, t, text)
    prior.rows = 1
    torch.testing.assert_close(prior.eps(z_t, t, text), whole, atol=1e-5, rtol=1e-5)


def test_a_batch_that_is_no_whole_group_is_refused_with_the_way_out(prior, tiny_mvdream):
    config = load_config(
        ["prompt=a cat", "prior=mvdream", f"prior.path={tiny_mvdream}", "cameras.batch_size=6",
         "seed=0"]
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"4 views together; expected a multiple of 4, got 6"):
        make_run(config, prior)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ip_dim": 16}, r"unet: ImageDream is asked with a picture"),
        ({"camera_dim": 12}, r"unet: expected a camera of 16 numbers, got 12"),
        ({"context_dim": 24}, r"text_encoder.*width 24, got 16"),
        ({"channel_mult": [1, 2, 4]}, r"unet: its weights lack \d+ tensors"),
    ],
)
def test_another_multi_view_model_is_refused_in_one_line(tiny_mvdream, tmp_path, changes, message):
    folder = shutil.copytree(tiny_mvdream, tmp_path / "prior")
    (folder / "unet" / "config.json").write_text(json.dumps({**MVDREAM, **changes}))
    with pytest.raises(UsageError, match=message) as caught:
        load_prior(str(folder), device="cpu", dtype="fp32")
    assert "\n" not in str(caught.value)


def test_sds_runs_on_several_views(tiny_mvdream, tmp_path):
    folder = generate(
        load_config(
            ["prompt=a cat", "prior=mvdream", f"prior.path={tiny_mvdream}", "quality=draft",
             "guidance=sds", "steps=2", "device=cpu", "seed=1",
             "init.count=50", "export.formats=[ply]", f"out={tmp_path}"]
        )
    )  # fmt: skip
    assert (folder / "splat.ply").stat().st_size > 1000
