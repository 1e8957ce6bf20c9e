"""Splats on their way into a file: checked, turned so that up is up, and a part at a time."""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from splat_esd.errors import UsageError
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import up_rotation

_PART = 1 << 18  # splats held twice at once; millions would not fit into a laptop three times


def upright_parts(
    gaussians: Gaussians, path: Path | str, *, up: str
) -> Iterator[tuple[slice, Gaussians]]:
    """Yields the splats for a file: detached, on the CPU, turned as `up_rotation(up)` turns them.

    Quaternions have unit length; a zero one means no rotation here, but NaN in most readers, and
    becomes (1, 0, 0, 0).

    Arguments:
        path: The file, for the messages.
        up: "-y", "y" or "z".
    Raises:
        UsageError: If there are no splats, or a value is not finite.
        ValueError: If `up` is unknown.
    """
    rotation = up_rotation(up)
    if not len(gaussians):
        raise UsageError(f"there are no splats to write to {path}.")
    stored = gaussians.detach()
    for name, values in stored.parameters().items():
        if not values.isfinite().all():
            raise UsageError(f"{path} was not written: {name} holds NaN or infinity.")
    for start in range(0, len(stored), _PART):
        which = slice(start, min(start + _PART, len(stored)))
        part = Gaussians(**{name: value[which] for name, value in stored.parameters().items()})
        turned = part.to("cpu").rotate(rotation)
        turned.quats = _unit(turned.quats)
        yield which, turned


def _unit(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
    lengths = quats.norm(dim=-1, keepdim=True)
    return torch.where(lengths == 0, quats.new_tensor([1.0, 0.0, 0.0, 0.0]), quats / lengths)
