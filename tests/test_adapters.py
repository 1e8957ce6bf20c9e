"""LoRAs that people bring: every format gives the same fused weights, at any strength."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from splat_esd.diffusion.adapters import split_weight
from splat_esd.diffusion.loading import load_prior
from splat_esd.errors import UsageError

RANK, ALPHA = 2, 6
_QUERY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def lora(tiny_sd):
    """The A and B of a random LoRA on the denoiser's attention, by peft's names."""
    unet = UNet2DConditionModel.from_pretrained(tiny_sd / "unet")
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets))
    state = get_peft_model_state_dict(unet, adapter_name="default")
    generator = torch.Generator().manual_seed(0)
    return {n: 0.3 * torch.randn(v.shape, generator=generator) for n, v in state.items()}


def alphas(lora):
    modules = {name.rsplit(".lora_", 1)[0] for name in lora}
    return {module: torch.tensor(float(ALPHA)) for module in modules}


def as_kohya(lora, path):
    ends = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
    table = {}
    for name, value in lora.items():
        module, end = name.rsplit(".lora_", 1)
        table[f"lora_unet_{module.replace('.', '_')}.{ends['lora_' + end]}"] = value
    table |= {f"lora_unet_{m.replace('.', '_')}.alpha": a for m, a in alphas(lora).items()}
    save_file(table, path / "kohya.safetensors")
    return path / "kohya.safetensors"


def as_diffusers(lora, path):
    scaled = {n: v * ALPHA / RANK if "lora_B" in n else v for n, v in lora.items()}
    StableDiffusionPipeline.save_lora_weights(path, unet_lora_layers=scaled)
    return path  # a folder


def as_peft(lora, path):
    table = {f"base_model.model.{name}": value for name, value in lora.items()}
    save_file(table, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
    return path / "adapter_model.safetensors"


def load(folder, *loras):
    return load_prior(str(folder), device="cpu", dtype="fp32", loras=tuple(loras))


@pytest.mark.parametrize("weight", [1.0, 0.25, 0.0, -1.0])
@pytest.mark.parametrize("form", [as_kohya, as_diffusers, as_peft])
def test_every_format_adds_its_product_of_matrices(form, weight, lora, tiny_sd, tmp_path):
    plain, fused = load(tiny_sd), load(tiny_sd, f"{form(lora, tmp_path)}:{weight}")
    after = dict(fused.denoiser.named_parameters())
    for name, value in plain.denoiser.named_parameters():
        module = name.removesuffix(".weight")
        expected = value
        if f"{module}.lora_A.weight" in lora:
            a, b = (lora[f"{module}.lora_{x}.weight"] for x in "AB")
            expected = value + weight * ALPHA / RANK * b @ a
        torch.testing.assert_close(after[name], expected)
    assert after.keys() == dict(plain.denoiser.named_parameters()).keys()


@pytest.mark.parametrize("form", [as_peft, "diffusers"])
@pytest.mark.parametrize("prior", ["tiny_sd3", "tiny_flux2"])
def test_a_transformers_lora_is_fused_as_well(prior, form, request, tmp_path):
    folder = request.getfixturevalue(prior)
    plain = load(folder)
    weights = dict(plain.denoiser.named_parameters())
    module = "transformer_blocks.0.attn.to_q"
    width, inner = weights[f"{module}.weight"].shape
    a, b = torch.randn(RANK, inner), torch.randn(width, RANK)
    lora = {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    if form is as_peft:
        file, scale = as_peft(lora, tmp_path), ALPHA / RANK
    else:
        file, scale = tmp_path / "a.safetensors", 1.0
        save_file({f"transformer.{name}": value for name, value in lora.items()}, file)
    after = dict(load(folder, f"{file}:0.5").denoiser.named_parameters())
    assert after.keys() == weights.keys()
    moved = after[f"{module}.weight"] - weights[f"{module}.weight"]
    torch.testing.assert_close(moved, 0.5 * scale * b @ a, atol=1e-5, rtol=1e-5)
    others = [n for n in weights if not torch.equal(after[n], weights[n])]
    assert others == [f"{module}.weight"]


def test_several_loras_add_up(lora, tiny_sd, tmp_path):
    file = as_kohya(lora, tmp_path)
    once, twice = load(tiny_sd, f"{file}:0.8"), load(tiny_sd, f"{file}:0.5", f"{file}:0.3")
    for a, b in zip(once.denoiser.parameters(), twice.denoiser.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_text_encoder_is_changed_too(lora, tiny_sd, tmp_path):
    plain = load(tiny_sd)
    width = plain.text_encoders[0].config.hidden_size
    table, expected = load_file(as_kohya(lora, tmp_path)), {}
    for name in ("q_proj", "out_proj"):
        a, b = torch.randn(2, width), torch.randn(width, 2)
        stem = f"lora_te_text_model_encoder_layers_0_self_attn_{name}"
        table |= {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b}
        table[f"{stem}.alpha"] = torch.tensor(4.0)
        expected[name] = 0.5 * 4 / 2 * b @ a
    save_file(table, tmp_path / "te.safetensors")
    fused = load(tiny_sd, f"{tmp_path / 'te.safetensors'}:0.5")
    before, after = (dict(p.text_encoders[0].named_parameters()) for p in (plain, fused))
    changed = {n.split(".")[-2]: n for n in before if not torch.equal(before[n], after[n])}
    assert changed.keys() == expected.keys()
    for module, name in changed.items():
        moved = after[name] - before[name]
        torch.testing.assert_close(moved, expected[module], atol=1e-5, rtol=1e-5)


def test_a_name_finds_the_file_beside_the_prior(lora, tiny_sd, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_sd, tmp_path / "prior")
    as_kohya(lora, folder).rename(folder / "front-bias.safetensors")
    named, plain = load(folder, "front-bias:0.5"), load(folder)
    pairs = zip(named.denoiser.parameters(), plain.denoiser.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lora_unet_nothing_at_all.lora_down.weight": (2, 8)}, "prior.lora: .*"),
        ({f"{_QUERY}.lora_A.weight": (2, 999), f"{_QUERY}.lora_B.weight": (999, 2)},
         "does not fit this prior"),
        ({"weights": (3,)}, "prior.lora: .*"),
    ],
)  # fmt: skip
def test_a_lora_that_does_not_fit_is_refused_in_one_line(table, message, tiny_sd, tmp_path):
    save_file({n: torch.randn(s) for n, s in table.items()}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=message) as raised:
        load(tiny_sd, str(tmp_path / "a.safetensors"))
    assert "\n" not in str(raised.value)


def test_a_lora_that_is_not_there_is_named(tiny_sd):
    with pytest.raises(UsageError, match=r"no file nowhere\.safetensors"):
        load(tiny_sd, "nowhere.safetensors:0.3")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.7", ("a.safetensors", 0.7)),
        ("C:\\loras\\a.safetensors", ("C:\\loras\\a.safetensors", 1.0)),
        ("C:\\a.safetensors:-0.5", ("C:\\a.safetensors", -0.5)),
    ],
)
def test_a_weight_stands_behind_a_colon(text, expected):
    assert split_weight(text) == expected


def test_a_weight_that_is_no_number_is_named():
    with pytest.raises(UsageError, match="'strong' is no number"):
        split_weight("a.safetensors:strong")


def test_a_lora_changes_what_the_embedded_prior_draws(tmp_path):
    from splat_esd.paths import ASSETS

    unet = UNet2DConditionModel.from_pretrained(ASSETS / "zoo" / "unet").float()
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v"]))
    z_t, t, text = torch.randn(4, 8, 16, 16), torch.full((4,), 500), torch.randn(4, 12, 160)
    wanted = unet(z_t, t, text).sample.detach() + 0.3
    optimizer = torch.optim.Adam([p for p in unet.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(15):
        loss = (unet(z_t, t, text).sample - wanted).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.save_lora_adapter(tmp_path, adapter_name="default")
    off = []
    for loras in ((), (str(tmp_path),)):
        prior = load(ASSETS / "zoo", *loras)
        off.append((prior.denoiser(z_t, t, text).sample - wanted).square().mean().item())
    assert off[1] < 0.9 * off[0]


def test_a_run_keeps_where_its_loras_lie(tmp_path, monkeypatch):
    from splat_esd.config.load import Config, load_config

    (tmp_path / "a b.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    asked = ["prompt=a corgi", "prior=zoo", "prior.lora=a b.safetensors:0.5,front-bias"]
    config = load_config(asked)
    assert config.prior.lora == (f"{tmp_path}/a b.safetensors:0.5", "front-bias")
    assert Config.from_yaml(config.to_yaml()) == config
