"""Networks of others, read from local folders: a classifier of pictures, and CLIP."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from splat_esd.errors import UsageError

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@torch.no_grad()
def classify(folder: Path, images: Float[Tensor, "B S S 3"]) -> Float[Tensor, "B K"]:
    """Returns the class probabilities of pictures in [0, 1], by any image classifier of
    transformers.

    Raises:
        UsageError: If the folder holds none.
    """
    from transformers import AutoModelForImageClassification

    network = _read(AutoModelForImageClassification, folder, "classifier")
    size = getattr(network.config, "image_size", 224)
    return network(_prepared(folder, images, size)).logits.softmax(-1)


@torch.no_grad()
def clip_score(folder: Path, images: Float[Tensor, "B S S 3"], prompt: str) -> float:
    """Returns the mean cosine of pictures and prompt in CLIP's space, times 100.

    Raises:
        UsageError: If the folder holds no CLIP with its tokenizer.
    References:
        CLIPScore (Hessel et al., 2021), Eq. 1 without the clipping and its factor.
    """
    from transformers import CLIPModel, CLIPTokenizer

    network: Any = _read(CLIPModel, folder, "clip")
    tokenizer = _read(CLIPTokenizer, folder, "clip")
    length = network.config.text_config.max_position_embeddings
    tokens = tokenizer([prompt], truncation=True, max_length=length, return_tensors="pt")
    pixels = _prepared(folder, images, network.config.vision_config.image_size)
    seen = network(input_ids=tokens.input_ids, pixel_values=pixels)
    return 100.0 * F.cosine_similarity(seen.image_embeds, seen.text_embeds).mean().item()


def _read(kind: Any, folder: Path, key: str):
    import transformers

    transformers.utils.logging.set_verbosity_error()
    try:
        made = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{key}: {folder} cannot be read: {reason}") from error
    return made.eval() if isinstance(made, torch.nn.Module) else made


def _prepared(folder: Path, images: Tensor, size: int) -> Float[Tensor, "B 3 S S"]:
    """Resizes and normalises pictures as the folder's preprocessor_config.json says."""
    path = folder / "preprocessor_config.json"
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    mean, std = (torch.tensor(known.get(k, _IMAGENET[k])).view(3, 1, 1) for k in _IMAGENET)
    x = images.permute(0, 3, 1, 2)
    x = F.interpolate(x, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return (x.clamp(0, 1) - mean) / std
