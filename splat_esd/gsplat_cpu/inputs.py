"""What gsplat's operators take here."""

import torch
from torch import Tensor


def refuse_all_but_float32(**tensors: Tensor | None) -> None:
    """Lets float32 on the CPU pass, as gsplat's own kernels let only float32 on a GPU pass.

    Raises:
        ValueError: If any other is among them; None is not.
    """
    for name, tensor in tensors.items():
        if tensor is None or (tensor.dtype == torch.float32 and tensor.device.type == "cpu"):
            continue
        raise ValueError(
            f"{name}: gsplat on a CPU wants float32 on the cpu, got {tensor.dtype} on "
            f"{tensor.device}; convert it with `.to('cpu', torch.float32)`."
        )
