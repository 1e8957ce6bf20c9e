"""Which files of a prior count, and what is said of those that do not."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.locate import locate, missing_parts, variant_of
from splat_esd.errors import EnvironmentProblem, UsageError

PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture
def copy(tiny_sd, tmp_path):
    return shutil.copytree(tiny_sd, tmp_path / "prior")


def weights(folder, part):
    return next((folder / part).glob("*.safetensors"))


def in_half(folder):
    for part in PARTS:
        file = weights(folder, part)
        halved = {n: v.half() for n, v in load_file(file).items()}
        save_file(halved, file.with_suffix(".fp16.safetensors"), {"format": "pt"})
        file.unlink()


def in_pickles(folder):
    for part in PARTS:
        file = weights(folder, part)
        name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
        torch.save(load_file(file), file.with_name(name))
        file.unlink()


def in_shards(folder, kept=2):
    file = weights(folder, "unet")
    table = load_file(file)
    names = sorted(table)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    index: dict = {"metadata": {}, "weight_map": {}}
    for i, half in enumerate(halves, 1):
        shard = f"diffusion_pytorch_model-{i:05d}-of-00002.safetensors"
        index["weight_map"] |= dict.fromkeys(half, shard)
        if i <= kept:
            save_file({n: table[n] for n in half}, file.with_name(shard), {"format": "pt"})
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(index))
    file.unlink()


@pytest.mark.parametrize("spell", [in_half, in_pickles, in_shards])
def test_weights_are_found_in_every_spelling(spell, tiny_sd, copy):
    spell(copy)
    assert missing_parts(copy) == []
    there, here = (load_prior(str(f), device="cpu", dtype="fp32") for f in (tiny_sd, copy))
    for a, b in zip(there.denoiser.parameters(), here.denoiser.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_plain_weights_come_before_half_ones(copy):
    file = weights(copy, "unet")
    shutil.copy(file, file.with_suffix(".fp16.safetensors"))
    assert variant_of(copy / "unet") is None
    file.unlink()
    assert variant_of(copy / "unet") == "fp16"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_weights_is_named(part, copy):
    weights(copy, part).unlink()
    with pytest.raises(UsageError, match=f"lacks {part}, which"):
        locate(str(copy), (), None)


def test_a_shard_that_is_not_there_is_a_part_that_is_missing(copy):
    in_shards(copy, kept=1)
    assert missing_parts(copy) == ["unet"]


def test_weights_that_are_not_finite_are_refused(copy):
    file = weights(copy, "unet")
    table = load_file(file)
    table["conv_in.weight"][0] = float("nan")
    save_file(table, file, {"format": "pt"})
    with pytest.raises(UsageError, match="unet: a trial call gave NaN"):
        load_prior(str(copy), device="cpu", dtype="fp32")


def test_a_lone_file_is_told_for_what_it_is(tmp_path):
    save_file({"lora_unet_a.lora_down.weight": torch.zeros(2)}, tmp_path / "style.safetensors")
    for source in (tmp_path, tmp_path / "style.safetensors"):
        with pytest.raises(UsageError, match=r"a LoRA and no model; prior\.lora=.*style"):
            locate(str(source), (), None)
    (tmp_path / "style.safetensors").unlink()
    (tmp_path / "old.ckpt").write_bytes(b"")
    with pytest.raises(UsageError, match="can run code"):
        locate(str(tmp_path / "old.ckpt"), (), None)


class Cache:
    """A hub's cache: what it holds of each repository."""

    def __init__(self, **folders):
        self.folders, self.asked = folders, []

    def __call__(self, name, *, local_files_only, **_):
        self.asked.append((name, local_files_only))
        if not local_files_only or name not in self.folders:
            raise OSError("not here")
        return str(self.folders[name])


def test_a_copy_that_is_not_whole_is_passed_over_for_the_next_mirror(tiny_sd, copy, monkeypatch):
    weights(copy, "vae").unlink()
    cache = Cache(**{"a/first": copy, "b/second": tiny_sd})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", cache)
    folder, name, _ = locate("a/first", ("b/second",), None)
    assert (folder, name) == (tiny_sd, "b/second")


def test_no_whole_copy_says_what_to_do(copy, monkeypatch):
    weights(copy, "vae").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Cache(**{"a/first": copy}))
    monkeypatch.setattr("splat_esd.diffusion.locate._hub_answers", lambda: False)
    with pytest.raises(EnvironmentProblem, match=r"not whole.*hf download a/first"):
        locate("a/first", (), None)
