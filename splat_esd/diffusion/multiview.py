"""MVDream: a UNet that draws several views at once, each attending to all, and told its camera.

    h_i <- h_i + attention(q = h_i, k = v = [h_1, ..., h_4])       in place of self-attention
    time embedding <- time embedding + MLP(pose)                    pose = 0: as of a lone picture

Its folders hold the UNet in the layout of its training code; the stock UNet computes the same with
its class embedding in place of the camera's, and attention that gathers the views of a batch.

References:
    MVDream (Shi et al., 2023), Sec. 3.1 and 3.2. https://arxiv.org/abs/2308.16512
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

VIEWS = 4  # of one elevation, a quarter turn apart
_TRUNK = "model.diffusion_model."
_CAMERA = {"camera_embed.0.": "label_emb.0.0.", "camera_embed.2.": "label_emb.0.2."}


def is_multiview(config: dict[str, Any]) -> bool:
    """Tells whether a UNet's configuration is that of a multi-view one."""
    return config.get("camera_dim") is not None


def stock_config(config: dict[str, Any]) -> dict[str, Any]:
    """Says what diffusers' UNet2DConditionModel is to be made with.

    Raises:
        ValueError: If it wants a picture too (ImageDream), or what a camera is told by is not 16
            numbers.
    """
    if config.get("ip_dim"):
        raise ValueError("unet: ImageDream is asked with a picture; use MVDream, asked with words.")
    if config["camera_dim"] != 16:
        raise ValueError(f"unet: expected a camera of 16 numbers, got {config['camera_dim']}.")
    width, mults = config["model_channels"], config["channel_mult"]
    attends = [2**level in config["attention_resolutions"] for level in range(len(mults))]
    channels = tuple(width * mult for mult in mults)
    return {
        "sample_size": config.get("image_size"),
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "block_out_channels": channels,
        "layers_per_block": config["num_res_blocks"],
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple(
            "CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)
        ),
        # Diffusers' name for the number of heads.
        "attention_head_dim": tuple(c // config["num_head_channels"] for c in channels),
        "transformer_layers_per_block": config.get("transformer_depth", 1),
        "cross_attention_dim": config["context_dim"],
        "use_linear_projection": True,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": config["camera_dim"],
    }


def read_unet(part: Path, config: dict[str, Any], dtype: torch.dtype) -> Any:
    """Reads a multi-view UNet's folder as a stock UNet that `attend_across_views` has changed.

    Raises:
        ValueError: If weights are missing, or are not those that the configuration tells of.
    """
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    shape = stock_config(config)
    state = {}
    for name, value in _weights(part).items():
        for old, new in _CAMERA.items():
            name = name.replace(old, new)
        state[_TRUNK + name.removeprefix(_TRUNK)] = value
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**shape)
    converted = convert_ldm_unet_checkpoint(state, shape)
    lacking = set(unet.state_dict()) - set(converted)
    if lacking:
        raise ValueError(f"its weights lack {len(lacking)} tensors, {min(lacking)} for one.")
    unet.load_state_dict(converted, assign=True)
    unet.to(dtype)
    attend_across_views(unet)
    return unet


def _weights(part: Path) -> dict[str, Tensor]:
    from diffusers.models.model_loading_utils import load_state_dict

    for pattern in ("*.safetensors", "*.bin"):
        files = sorted(part.glob(pattern))
        if files:
            return {k: v for file in files for k, v in load_state_dict(file).items()}
    raise ValueError("it has no weights.")


def attend_across_views(unet: Any) -> None:
    """Makes self-attention look at all views of a group, and cameras of zeros add nothing."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    class AcrossViews(AttnProcessor2_0):
        """Attention whose keys are the tokens of `views` rows; to the text it is the stock one."""

        def __call__(
            self,
            attn: Any,
            hidden_states: Tensor,
            encoder_hidden_states: Tensor | None = None,
            *rest: Any,
            views: int = 1,
            **named: Any,
        ) -> Tensor:
            if encoder_hidden_states is not None:
                return super().__call__(attn, hidden_states, encoder_hidden_states, *rest, **named)
            together = hidden_states.reshape(-1, views * hidden_states.shape[1], attn.query_dim)
            out = super().__call__(attn, together, None, *rest, **named)
            return out.reshape(hidden_states.shape)

    def only_cameras(_module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output * inputs[0].any(dim=-1, keepdim=True)

    unet.set_attn_processor(AcrossViews())
    unet.class_embedding.register_forward_hook(only_cameras)


def poses(c2w: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 16"]:
    """Returns what MVDream is told of each camera: c2w row by row, in Blender's axes.

    A camera there looks along -z with y up, its place is at distance 1, and the front of an object
    faces -y, where ours faces +x. A matrix of zeros stands for no camera, and stays zero.
    """
    turn = c2w.new_tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    axes = c2w.new_tensor([1.0, -1.0, -1.0])
    rotation = turn @ c2w[:, :3, :3] * axes
    place = turn @ c2w[:, :3, 3:]
    place = place / place.norm(dim=1, keepdim=True).clamp_min(1e-8)
    return torch.cat([torch.cat([rotation, place], dim=2), c2w[:, 3:]], dim=1).flatten(1)
