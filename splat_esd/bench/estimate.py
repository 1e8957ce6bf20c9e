"""What a large prior will take, told by its shapes alone: nothing is computed, nothing downloaded.

    full   base + weights + views (graph of the encoder + graph of phi) + what a pass works with
    low    base + weights + the larger of the two graphs, of one view    + what a pass works with

What a multi-view prior draws together passes through phi together at memory=low too.
A graph is what autograd keeps between a forward pass and its backward one. The passes are made on
tensors without contents, and what they would keep is counted.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from splat_esd.bench.rehearse import RandomPrior, random_prior
from splat_esd.diffusion.lora import CAMERA_NUMBERS, FEW_TOKENS, Phi
from splat_esd.diffusion.text import Text

GIB = 2**30
BASE = 0.7  # GiB: Python, torch and the splats
WORKING = 4  # of the largest tensor that is kept: what a pass holds for a moment
META = torch.device("meta")


class _Shapes(RandomPrior):
    def _cast(self) -> AbstractContextManager:
        return nullcontext()  # all is in one precision here, and autocast knows no such tensors


def estimate(
    kind: str, *, size: int, views: int, dtype: torch.dtype, rank: int, on_cpu: bool = True
) -> dict[str, Any]:
    """Returns GiB by part, and the peak of a step at memory=full and at memory=low.

    Arguments:
        kind: One of rehearse.SHAPES.
        size: Side of the pictures, in pixels.
        dtype: What the denoiser and the autoencoder compute in.
        rank: Of phi's LoRA.
        on_cpu: Whether phi's attention over few tokens is written out, as it is there.
    """
    prior = random_prior(kind, META, dtype, cls=_Shapes)
    prior.size = size
    # Times are looked up, which nothing without contents can be.
    prior.schedule = replace(prior.schedule, times=None)
    text = prior.encode_text([""])
    pooled = None if text.pooled is None else text.pooled.to(dtype)
    phi = Phi(prior, Text(text.embeds.to(dtype), pooled), rank=rank, seed=0)
    phi.camera.to(dtype)
    for parameter in phi.trainable().values():
        parameter.data = parameter.data.to(dtype)
    images = torch.zeros(1, size, size, 3, device=META, requires_grad=True)
    side = size // prior.factor
    drawn = prior.together
    z = torch.zeros(drawn, prior.denoiser.config.in_channels, side, side, device=META, dtype=dtype)
    t = torch.full((drawn,), 500, device=META)
    camera = torch.zeros(drawn, CAMERA_NUMBERS, device=META, dtype=dtype)
    encoder, largest = kept_for_backward(lambda: prior.encode_images(images), prior.vae)
    written_out = on_cpu and prior.family.denoiser[0] == "unet" and drawn == 1
    few = FEW_TOKENS if written_out else 0
    denoiser, largest_2 = kept_for_backward(lambda: phi.denoise(z, t, camera), prior.denoiser, few)
    weights = sum(_bytes(p) for m in (prior.denoiser, prior.vae) for p in m.parameters())
    always, largest_2 = BASE + weights / GIB, largest_2 / drawn
    working = WORKING * max(largest, largest_2) / GIB
    graphs = {"encoder": encoder / GIB, "phi": denoiser / drawn / GIB}
    return {
        "weights": weights / GIB,
        "graphs": graphs,
        "full": always + views * (sum(graphs.values()) + working),
        "low": always
        + max(graphs["encoder"] + working, drawn * (graphs["phi"] + WORKING * largest_2 / GIB)),
    }


def kept_for_backward(
    call: Callable[[], Any], network: Any, few_tokens: int = 0
) -> tuple[int, int]:
    """Returns how many bytes a pass keeps for its backward one, besides the weights, and those of
    the largest tensor.

    A matrix of attention over more than `few_tokens` is left out: the fused attention that runs in
    its place does not keep it.
    """
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}
    matrices: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.ndim == 3 and tensor.shape[-1] == tensor.shape[-2] > few_tokens:
            matrices.add(storage._cdata)
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), tensor)  # held, so that none is counted twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    sizes = [size for number, (size, _) in kept.items() if number not in matrices]
    return sum(sizes), max(sizes, default=0)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
