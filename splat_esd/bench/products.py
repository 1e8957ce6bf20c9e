"""bf16 on processors that cannot multiply it: products in float32, everything else as it is."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_aten = torch.ops.aten
_PRODUCTS = {
    _aten.mm.default,
    _aten.bmm.default,
    _aten.addmm.default,
    _aten.baddbmm.default,
    _aten.convolution.default,
    _aten.convolution_backward.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}


class ProductsInFloat32(TorchDispatchMode):
    """Multiplies bf16 tensors in float32 and rounds what comes out to bf16.

    What is kept between operations is bf16 as ever, so memory is that of a processor with
    instructions for it, but for the copies that one product needs; emulated, a product takes some
    hundred times as long.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        halves: list[None] = []

        def widened(x: torch.Tensor) -> torch.Tensor:
            if x.dtype != torch.bfloat16:
                return x
            halves.append(None)
            return x.float()

        if func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map_only(torch.Tensor, widened, (args, kwargs or {}))
        out = func(*args, **kwargs)
        if not halves:
            return out
        if func is _aten._scaled_dot_product_flash_attention_for_cpu.default:
            return out[0].bfloat16(), out[1]  # the sum of exponentials is never halved
        return tree_map_only(torch.Tensor, torch.Tensor.bfloat16, out)
