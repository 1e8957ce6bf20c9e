"""The names that Stable Diffusion's training code gave to its tensors, from those in diffusers."""

import re

_INSIDE = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_AROUND = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def ldm_names(names: list[str], layers: int) -> dict[str, str]:
    """Returns the old name of each tensor of a UNet with that many layers a block."""
    return {name: _ldm_name(name, layers, names) for name in names}


def _ldm_name(name: str, layers: int, names: list[str]) -> str:
    block = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    for new, old in _AROUND.items():
        if name.startswith(f"{new}."):
            return _inside(old + name.removeprefix(new))
    assert block is not None, name
    side, number, kind, place, rest = block.groups()
    each, start = layers + 1, 1 if side == "down" else 0
    i = start + int(number) * each + int(place)
    old = "input_blocks" if side == "down" else "output_blocks"
    if kind == "downsamplers":
        return f"{old}.{start + int(number) * each + layers}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        attends = any(n.startswith(f"up_blocks.{number}.attentions") for n in names)
        return f"{old}.{(int(number) + 1) * each - 1}.{2 if attends else 1}.{rest}"
    return _inside(f"{old}.{i}.{1 if kind == 'attentions' else 0}.{rest}")


def _inside(name: str) -> str:
    if "transformer_blocks" in name or ".proj_" in name:
        return name
    for new, old in _INSIDE.items():
        name = re.sub(rf"\.{new}\.", f".{old}.", name)
    return name


def ldm_checkpoint(unet, vae, text_encoder, layers: int) -> dict:
    """Returns a Stable Diffusion 1 as one table of tensors, named as its checkpoints are."""
    state = unet.state_dict()
    table = {
        f"model.diffusion_model.{ldm_names(list(state), layers)[n]}": v for n, v in state.items()
    }
    levels = len(vae.config.block_out_channels)
    for name, value in vae.state_dict().items():
        table[f"first_stage_model.{_ldm_vae_name(name, levels)}"] = _as_convolution(name, value)
    for name, value in text_encoder.state_dict().items():
        prefix = "" if name.startswith("text_model.") else "text_model."
        table[f"cond_stage_model.transformer.{prefix}{name}"] = value
    return {name: value.contiguous() for name, value in table.items()}


def _ldm_vae_name(name: str, levels: int) -> str:
    up = re.match(r"decoder\.up_blocks\.(\d+)\.", name)
    if up:  # counted from the other end
        name = name.replace(up[0], f"decoder.up.{levels - 1 - int(up[1])}.")
    for new, old in {
        "down_blocks": "down",
        "resnets": "block",
        "downsamplers.0": "downsample",
        "upsamplers.0": "upsample",
        "conv_shortcut": "nin_shortcut",
        "conv_norm_out": "norm_out",
        "mid_block.block.0": "mid.block_1",
        "mid_block.block.1": "mid.block_2",
        "mid_block.attentions.0": "mid.attn_1",
        "group_norm": "norm",
        "to_out.0": "proj_out",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
    }.items():
        name = name.replace(new, old)
    return name


def _as_convolution(name: str, value):
    """Gives attention's matrices the two dimensions of one pixel that they had."""
    matrix = "attentions" in name and value.ndim == 2
    return value[:, :, None, None] if matrix else value
