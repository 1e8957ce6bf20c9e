"""The rehearsal: real shapes, random weights, a run's own steps."""

import json
import math
from contextlib import nullcontext

import pytest
import torch

from splat_esd.bench import rehearse
from splat_esd.bench.products import ProductsInFloat32
from splat_esd.cli.main import main

TINY = {
    "sd15": {"block_out_channels": (16, 16), "cross_attention_dim": 16, "norm_num_groups": 4},
    "sdxl": {
        "block_out_channels": (16, 16),
        "cross_attention_dim": 24,
        "norm_num_groups": 4,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 8,
    },
    "sd35": {
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "joint_attention_dim": 24,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 8,
        "pos_embed_max_size": 16,
    },
    "flux2_klein": {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "joint_attention_dim": 24,
        "axes_dims_rope": (4, 4, 4, 4),
        "guidance_embeds": False,
    },
    "mvdream": {
        "block_out_channels": (16, 16),
        "cross_attention_dim": 16,
        "norm_num_groups": 4,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 16,
    },
}
TEXT = {"sd15": (7, 16, 0), "sdxl": (7, 24, 8), "sd35": (9, 24, 8), "flux2_klein": (9, 24, 0)}
TEXT["mvdream"] = TEXT["sd15"]


@pytest.fixture
def tiny_shapes(monkeypatch):
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
    }
    for kind, shape in TINY.items():
        family = rehearse.SHAPES[kind][0]
        common = {"sample_size": 8, "in_channels": 4, "out_channels": 4}
        more = {"sd35": {"patch_size": 2}, "flux2_klein": {}}.get(kind, blocks)
        common = {} if kind == "flux2_klein" else common
        shapes = (family, common | more | shape, TEXT[kind])
        monkeypatch.setitem(rehearse.SHAPES, kind, shapes)
    vae = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    vae |= {"down_block_types": ("DownEncoderBlock2D",) * 2}
    vae |= {"up_block_types": ("UpDecoderBlock2D",) * 2}
    monkeypatch.setattr(rehearse, "VAE", vae)


@pytest.mark.parametrize("memory", ["full", "low"])
@pytest.mark.parametrize("kind", TINY)
def test_a_rehearsal_tells_seconds_and_memory_by_part(kind, memory, tiny_shapes, tmp_path):
    out = tmp_path / "figures.json"
    asked = [f"prior={kind}", "size=16", "views=4", "device=cpu", f"memory={memory}"]
    assert main(["rehearse", *asked, f"out={out}"]) == 0
    found = json.loads(out.read_text())
    assert found["parts"].keys() == {"encode", "prior", "phi, forward", "all else"}
    together = sum(part["seconds"] for part in found["parts"].values())
    assert together == pytest.approx(sum(found["seconds"]), rel=0.01)
    assert all(0 < part["gib"] <= found["peak_gib"] for part in found["parts"].values())
    assert math.isfinite(found["peak_gib"]) and found["parameters"] > 1000


def test_views_that_are_drawn_together_are_asked_for_in_groups(tiny_shapes, capsys):
    assert main(["rehearse", "prior=mvdream", "size=16", "views=6", "device=cpu"]) == 2
    assert "cameras.batch_size" in capsys.readouterr().err


def test_the_shapes_are_the_published_ones():
    """By their numbers of parameters, in millions; counted without memory."""
    import diffusers

    wanted = {"sd15": 860, "sd21": 866, "sdxl": 2567, "sd35": 2243, "flux2_klein": 3876}
    wanted["mvdream"] = 868
    for kind, millions in wanted.items():
        family, shape, _ = rehearse.SHAPES[kind]
        cls = getattr(diffusers, rehearse.FAMILIES[family].denoiser[1])
        with torch.device("meta"):
            count = sum(p.numel() for p in cls(**shape).parameters())
        assert count / 1e6 == pytest.approx(millions, rel=0.015), kind


def test_products_of_bf16_are_those_of_float32_rounded_and_backwards_too():
    g = torch.Generator().manual_seed(0)
    x, w = (torch.randn(*s, generator=g).bfloat16() for s in ((2, 4, 8, 8), (4, 4, 3, 3)))
    answers = []
    for dtype, mode in ((torch.bfloat16, ProductsInFloat32()), (torch.float32, nullcontext())):
        inputs = [v.to(dtype, copy=True).requires_grad_() for v in (x, w)]
        with mode:
            q = torch.nn.functional.conv2d(*inputs, padding=1).flatten(2)[:, None].contiguous()
            y = torch.nn.functional.scaled_dot_product_attention(q, q, q)
            y.backward(torch.ones_like(y))
        answers.append([y.detach(), *(v.grad for v in inputs)])
    for found, exact in zip(*answers, strict=True):
        assert found.dtype == torch.bfloat16
        assert (found.float() - exact).norm() < 0.02 * exact.norm()


def test_a_rehearsal_in_bf16_says_where_products_are_computed_in_float32(
    tiny_shapes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(rehearse, "computes_bf16", lambda device: False)
    out = tmp_path / "found.json"
    asked = ["size=16", "views=2", "steps=1", "device=cpu", "dtype=bf16", f"out={out}"]
    assert main(["rehearse", "prior=sd15", *asked]) == 0
    assert "memory is right, seconds are not" in " ".join("".join(capsys.readouterr()).split())
    found = json.loads(out.read_text())
    assert found["dtype"] == "torch.bfloat16" and found["products"] == "float32"
