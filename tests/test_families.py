"""Each family is compared with its own pipeline in diffusers, on tiny random weights."""

import json
import shutil
import warnings

import pytest
import torch

from splat_esd.config.load import load_config
from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.prior import Prior
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


@pytest.fixture(params=["tiny_sd3", "tiny_sd3_without_t5"])
def sd3(request):
    return request.getfixturevalue(request.param)


def flow_pipeline(folder):
    from diffusers import StableDiffusion3Pipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        t5 = (folder / "text_encoder_3").is_dir()
        without = {} if t5 else {"text_encoder_3": None, "tokenizer_3": None}
        return StableDiffusion3Pipeline.from_pretrained(folder, **without)


@torch.no_grad()
def test_sd3s_text_is_what_its_own_pipeline_makes_of_it(sd3):
    text = load(sd3).encode_text(["a cat", ""])
    asked = {"prompt_2": None, "prompt_3": None, "negative_prompt": "", "device": "cpu"}
    encoded = flow_pipeline(sd3).encode_prompt("a cat", **asked)
    embeds, null, pooled, pooled_null = encoded
    torch.testing.assert_close(text.embeds, torch.cat([embeds, null]))
    torch.testing.assert_close(text.pooled, torch.cat([pooled, pooled_null]))


@torch.no_grad()
def test_sd3s_latents_are_shifted_and_scaled_as_its_pipeline_undoes_it(tiny_sd3):
    prior, pipeline = load(tiny_sd3), flow_pipeline(tiny_sd3)
    rgb = torch.rand(2, 16, 16, 3)
    z = prior.encode_images(rgb)
    raw = z / pipeline.vae.config.scaling_factor + pipeline.vae.config.shift_factor
    wanted = pipeline.vae.encode(2 * rgb.permute(0, 3, 1, 2) - 1).latent_dist.mode()
    torch.testing.assert_close(raw, wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_sd3s_noise_is_its_flows_at_the_times_of_its_own_scheduler(tiny_sd3):
    prior, pipeline = load(tiny_sd3), flow_pipeline(tiny_sd3)
    schedule, own = prior.schedule, pipeline.scheduler
    torch.testing.assert_close(schedule.sigmas, own.sigmas[:1000].flip(0))
    torch.testing.assert_close(schedule.times, own.timesteps.flip(0))
    z_t, t, text = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), prior.encode_text(["a", "b"])
    time, s = schedule.times[t], schedule.sigmas[t].view(-1, 1, 1, 1)
    flow = pipeline.transformer(
        z_t, timestep=time, encoder_hidden_states=text.embeds, pooled_projections=text.pooled
    ).sample
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(prior.eps(z_t, t, text), z_t + (1 - s) * flow, **close)
    # The scheduler's own step to s = 0 lands on the z that this noise was added to.
    z = (z_t - s * prior.eps(z_t, t, text)) / (1 - s)
    torch.testing.assert_close(z_t - s * flow, z, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_the_flow_of_known_latents_turns_into_their_noise(tiny_sd3):
    prior = load(tiny_sd3)
    z, eps, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 400, 999])
    z_t = prior.schedule.add_noise(z, eps, t)
    torch.testing.assert_close(
        prior.as_eps(prior.target(z, eps, t), z_t, t), eps, atol=1e-5, rtol=1e-4
    )
    assert prior.schedule.sigmas[-1] == 1 and (prior.schedule.sigmas.diff() > 0).all()


@pytest.fixture
def klein(tiny_flux2):
    from diffusers import Flux2KleinPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Flux2KleinPipeline.from_pretrained(tiny_flux2)


@torch.no_grad()
def test_flux2s_text_is_what_its_own_pipeline_makes_of_it(tiny_flux2, klein):
    text = load(tiny_flux2).encode_text(["a cat", ""])
    for i, prompt in enumerate(["a cat", ""]):
        embeds, _ = klein.encode_prompt(prompt, device="cpu")
        torch.testing.assert_close(text.embeds[i : i + 1], embeds)


@torch.no_grad()
def test_flux2s_latents_are_gathered_and_normalised_as_its_own_pipeline_does_it(tiny_flux2, klein):
    prior = load(tiny_flux2)
    rgb = torch.rand(2, 16, 16, 3)
    x = 2 * rgb.permute(0, 3, 1, 2) - 1
    z = prior.encode_images(rgb)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(z, klein._encode_vae_image(x, torch.Generator()), **close)
    latents = prior.family.latents
    torch.testing.assert_close(latents.to_z(prior.vae, latents.to_e(prior.vae, z)), z, **close)
    torch.testing.assert_close(
        latents.to_e(prior.vae, z), klein.vae.encode(x).latent_dist.mode(), **close
    )


@torch.no_grad()
def test_flux2s_noise_is_its_flows_with_the_places_of_its_tokens(tiny_flux2, klein):
    prior = load(tiny_flux2)
    z_t, t, text = torch.randn(2, 16, 4, 4), torch.tensor([3, 700]), prior.encode_text(["a", "cat"])
    s = prior.schedule.sigmas[t]
    packed = klein.transformer(
        hidden_states=klein._pack_latents(z_t),
        timestep=s,
        guidance=None,
        encoder_hidden_states=text.embeds,
        txt_ids=klein._prepare_text_ids(text.embeds),
        img_ids=klein._prepare_latent_ids(z_t),
    ).sample
    flow = packed.permute(0, 2, 1).reshape(z_t.shape)
    s = s.view(-1, 1, 1, 1)
    torch.testing.assert_close(prior.eps(z_t, t, text), z_t + (1 - s) * flow, atol=1e-4, rtol=1e-4)


def test_a_distilled_klein_is_refused_by_its_own_index(tiny_flux2, tmp_path):
    with pytest.raises(UsageError, match=r"distilled \(its configuration says so\).*base"):
        load(edited(tiny_flux2, tmp_path / "prior", "model_index.json", is_distilled=True))


PROGRAMS = {"sdxl": "tiny_sdxl", "sd35": "tiny_sd3", "flux2_klein": "tiny_flux2"}
PROGRAMS |= {"mvdream": "tiny_mvdream"}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_the_whole_program_runs_on_every_family(kind, request, tmp_path):
    folder = request.getfixturevalue(PROGRAMS[kind])
    options = [f"prior={kind}", f"prior.path={folder}", "prior.size=16", "quality=draft", "seed=1"]
    more = ["steps=4", "device=cpu", "init.count=50", "export.formats=[ply]", "density=none"]

    def stop(step, _):
        if step == 2:
            raise KeyboardInterrupt

    def asked(out):
        return load_config(["prompt=a cat", *options, *more, f"out={tmp_path / out}"])

    whole = generate(asked("whole"))
    with pytest.raises(KeyboardInterrupt):
        generate(asked("stopped"), on_step=stop)
    assert (generate(asked("stopped")) / "splat.ply").read_bytes() == (
        whole / "splat.ply"
    ).read_bytes()
    assert (whole / "splat.ply").stat().st_size > 1000


def test_a_young_run_shows_the_prior_smaller_pictures(tiny_sd, tmp_path, monkeypatch):
    sides, encode = [], Prior.encode_images

    def noted(self, rgb):
        sides.append(rgb.shape[1])
        return encode(self, rgb)

    monkeypatch.setattr(Prior, "encode_images", noted)
    options = ["prior=sd15", f"prior.path={tiny_sd}", "prior.growth=[[0.3,0.5]]", "steps=4"]
    more = ["device=cpu", "init.count=50", "export.formats=[ply]", f"out={tmp_path}", "seed=1"]
    generate(load_config(["prompt=a cat", "quality=draft", *options, *more]))
    assert sides == [8, 8, 16, 16]


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
