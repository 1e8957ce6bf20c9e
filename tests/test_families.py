"""Each family is compared with its own pipeline in diffusers, on tiny random weights."""

import json
import shutil
import warnings

import pytest
import torch

from splat_esd.config.load import load_config
from splat_esd.diffusion.loading import load_prior
from splat_esd.errors import UsageError
from splat_esd.runs.generate import generate


def load(folder):
    return load_prior(str(folder), device="cpu", dtype="fp32")


def edited(folder, target, part, **changes):
    """Copies a prior and changes some keys of one configuration."""
    copy = shutil.copytree(folder, target)
    path = copy / part
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return copy


@pytest.fixture
def pipeline(tiny_sdxl):
    from diffusers import StableDiffusionXLPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)


@torch.no_grad()
def test_sdxls_text_is_what_its_own_pipeline_makes_of_it(tiny_sdxl, pipeline):
    text = load(tiny_sdxl).encode_text(["a cat", ""])
    embeds, null, pooled, pooled_null = pipeline.encode_prompt("a cat", device="cpu")
    torch.testing.assert_close(text.embeds, torch.cat([embeds, null]))
    torch.testing.assert_close(text.pooled, torch.cat([pooled, pooled_null]))
    assert not text.embeds[1].any() and not text.pooled[1].any()


@torch.no_grad()
def test_sdxls_noise_is_its_unets_given_the_pooled_text_and_the_sizes(tiny_sdxl, pipeline):
    prior = load(tiny_sdxl)
    z_t, t, text = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), prior.encode_text(["a", "b"])
    ids = torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 2)
    added = {"text_embeds": text.pooled, "time_ids": ids}
    expected = pipeline.unet(z_t, t, text.embeds, added_cond_kwargs=added).sample
    assert torch.equal(prior.eps(z_t, t, text), expected)
    added["time_ids"] = ids * 2
    assert not torch.equal(
        pipeline.unet(z_t, t, text.embeds, added_cond_kwargs=added).sample, expected
    )


def test_the_whole_program_runs_on_sdxl(tiny_sdxl, tmp_path):
    options = ["prior=sdxl", f"prior.path={tiny_sdxl}", "quality=draft", "steps=2", "seed=1"]
    more = ["device=cpu", "init.count=50", "export.formats=[ply]", f"out={tmp_path}"]
    folder = generate(load_config(["prompt=a cat", *options, *more]))
    assert (folder / "splat.ply").stat().st_size > 1000


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("unet/config.json", {"in_channels": 9}, r"unet: expected 4 input channels.*inpainting"),
        ("unet/config.json", {"cross_attention_dim": 24}, r"text_encoder.*width 24, got 16"),
        ("unet/config.json", {"time_cond_proj_dim": 8}, r"distilled.*base"),
        ("unet/config.json", {"addition_embed_type": "image"}, r"'image' is not supported"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"},
         r"scheduler: .*got FlowMatchEuler"),
        ("model_index.json", {"unet": None, "_class_name": "FluxPipeline"}, r"FluxPipeline"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_in_one_line(tiny_sd, tmp_path, part, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        load(edited(tiny_sd, tmp_path / "prior", part, **changes))
    assert "\n" not in str(caught.value)


def test_a_distilled_model_is_refused_by_its_name(tiny_sd, tmp_path):
    with pytest.raises(UsageError, match=r"'turbo'.*base"):
        load(shutil.copytree(tiny_sd, tmp_path / "sd-turbo"))


def test_a_refused_prior_leaves_no_folder_of_a_run(tiny_sd, tmp_path):
    prior = edited(tiny_sd, tmp_path / "prior", "unet/config.json", in_channels=9)
    out = tmp_path / "out"
    with pytest.raises(UsageError):
        generate(load_config(["prompt=a cat", "prior=sd15", f"prior.path={prior}", f"out={out}"]))
    assert not out.exists()
