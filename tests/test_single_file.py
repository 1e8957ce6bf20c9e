"""Checkpoints in one file, as they are shared: made a folder of, once, and read as that model."""

import json
import shutil
import warnings

import huggingface_hub
import pytest
import torch
from ldm_layout import ldm_checkpoint
from safetensors.torch import save_file

from splat_esd.cli.main import main
from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.locate import locate
from splat_esd.errors import EnvironmentProblem, UsageError

MIRROR = "somebody/sd15"


@pytest.fixture
def table(tiny_sd):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unet = UNet2DConditionModel.from_pretrained(tiny_sd, subfolder="unet")
        vae = AutoencoderKL.from_pretrained(tiny_sd, subfolder="vae")
        text = CLIPTextModel.from_pretrained(tiny_sd, subfolder="text_encoder")
    return ldm_checkpoint(unet, vae, text, layers=1)


@pytest.fixture
def cache(tiny_sd, tmp_path, monkeypatch):
    """A hub's cache that holds the model which the file was trained from."""
    asked = []
    trained_from = shutil.copytree(tiny_sd, tmp_path / "trained-from")
    index = json.loads((trained_from / "model_index.json").read_text())
    index |= {"text_encoder": ["transformers", "CLIPTextModel"]}
    index |= {"tokenizer": ["transformers", "CLIPTokenizer"]}
    (trained_from / "model_index.json").write_text(json.dumps(index))

    def snapshot(name, *, local_files_only, **_):
        asked.append(name)
        if name == MIRROR and local_files_only:
            return str(trained_from)
        raise OSError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asked


@pytest.fixture
def file(table, tmp_path):
    (tmp_path / "models").mkdir()
    save_file(table, tmp_path / "models" / "mix.safetensors")
    return tmp_path / "models" / "mix.safetensors"


def load(source, mirrors=(MIRROR,)):
    return load_prior(str(source), mirrors=mirrors, device="cpu", dtype="fp32")


def test_a_checkpoint_in_one_file_is_the_model_it_was_written_from(tiny_sd, file, cache):
    there, here = load(tiny_sd), load(file)
    for part in ("denoiser", "vae"):
        mine, theirs = (getattr(p, part).state_dict() for p in (here, there))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    text = [p.encode_text(["a cat"]).embeds for p in (here, there)]
    assert torch.equal(*text)
    assert here.prediction == there.prediction


def test_it_is_written_once_and_again_only_when_it_has_changed(file, table, cache):
    folder = locate(str(file), (MIRROR,), None)[0]
    asked = len(cache)
    assert locate(str(file), (), None)[0] == folder
    assert len(cache) == asked
    save_file({**table, "more": torch.zeros(1)}, file)
    assert locate(str(file), (MIRROR,), None)[0] != folder


def test_a_folder_that_holds_only_such_a_file_will_do(file, cache):
    assert (locate(str(file.parent), (MIRROR,), None)[0] / "unet").is_dir()


def test_a_half_one_stays_half_on_disk(file, table, cache):
    save_file({name: value.half() for name, value in table.items()}, file)
    folder = locate(str(file), (MIRROR,), None)[0]
    from safetensors.torch import load_file

    weights = load_file(next((folder / "unet").glob("*.safetensors")))
    assert {value.dtype for value in weights.values()} == {torch.float16}


def test_without_its_models_configuration_the_way_to_it_is_told(file, cache):
    with pytest.raises(EnvironmentProblem, match=r"those of other/one.*hf download other/one"):
        locate(str(file), ("other/one",), None)


def test_a_part_alone_is_refused(table, cache, tmp_path):
    part = {n: v for n, v in table.items() if n.startswith("first_stage_model.")}
    save_file(part, tmp_path / "vae.safetensors")
    with pytest.raises(UsageError, match=r"vae\.safetensors is no whole text-to-image model"):
        locate(str(tmp_path / "vae.safetensors"), (MIRROR,), None)


def test_a_file_of_another_shape_is_one_line_and_leaves_nothing(table, cache, tmp_path):
    name = "model.diffusion_model.input_blocks.0.0.weight"
    save_file({**table, name: torch.zeros(8, 9, 3, 3)}, tmp_path / "odd.safetensors")
    with pytest.raises(UsageError) as caught:
        locate(str(tmp_path / "odd.safetensors"), (MIRROR,), None)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache" / "splat-esd").iterdir()) == []


def test_an_sdxl_is_told_to_be_one(table, cache, tmp_path):
    marks = {"conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,)}
    more = {name: torch.zeros(shape) for name, shape in marks.items()}
    save_file({**table, **more}, tmp_path / "xl.safetensors")
    with pytest.raises(UsageError, match=r"a checkpoint of sdxl; say prior=sdxl"):
        locate(str(tmp_path / "xl.safetensors"), (MIRROR,), None)


def test_the_command_line_takes_one(file, cache, tmp_path, monkeypatch):
    out = tmp_path / "out"
    asked = ["prompt=a cat", "prior=sd15", f"prior.path={file}", "prior.size=16", "steps=2"]
    more = ["quality=draft", "device=cpu", "init.count=50", "export.formats=[ply]", f"out={out}"]
    assert main([*asked, f"prior.mirrors=[{MIRROR}]", *more]) == 0
    assert len(list(out.rglob("splat.ply"))) == 1
