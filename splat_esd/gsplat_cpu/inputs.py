"""Checks of what gsplat's operators are given."""

import math
from collections.abc import Callable
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from types import NoneType
from typing import Any, ParamSpec, TypeVar, get_args

import torch
from torch import Tensor

Given = ParamSpec("Given")
Made = TypeVar("Made")

SIDE = 65535 * 16  # pixels
# The whole numbers among gsplat's arguments, which have one name wherever they occur.
_RANGES = {
    "width": (1, SIDE),
    "height": (1, SIDE),
    "tile_size": (1, SIDE),
    "tile_width": (1, 65535),
    "tile_height": (1, 65535),
    "n_images": (0, 2**26),
    "degree": (0, 2**31),
    "sh_degree": (0, 2**31),
    "num_bases": (1, 2**20),
}


def typed(operator: Callable[Given, Made]) -> Callable[Given, Made]:
    """Checks every argument against its annotation before the operator sees it: a tensor, a whole
    number in its range, a number, text or a truth value.

    Raises:
        ValueError: It names the argument.
    """
    parameters = signature(operator)

    @wraps(operator)
    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        for name, value in parameters.bind(*args, **kwargs).arguments.items():
            _check(name, value, parameters.parameters[name].annotation)
        return operator(*args, **kwargs)

    return checked


def expect(name: str, tensor: Tensor | None, *shape: int) -> None:
    """Lets None and a tensor of this shape pass.

    Raises:
        ValueError: If it is another.
    """
    if tensor is not None and tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}.")


def expect_ids(name: str, ids: Tensor | None, count: int) -> None:
    """Lets None and a list of whole numbers in [0, count) pass.

    Raises:
        ValueError: If it is another.
    """
    if ids is None:
        return
    if ids.ndim != 1 or ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name}: expected a list of int32 or int64, got {ids.dtype}.")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < count:
        raise ValueError(f"{name}: must lie in [0, {count}).")


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


def _check(name: str, value: Any, annotation: Any) -> None:
    kinds = get_args(annotation) or (annotation,)
    if NoneType in kinds and value is None:
        return
    kind = kinds[0]
    if name in _RANGES:
        low, high = _RANGES[name]
        if not isinstance(value, Integral) or not low <= int(value) <= high:
            raise ValueError(f"{name}: must be a whole number in [{low}, {high}], got {value!r}.")
    elif kind is float:
        if not isinstance(value, Real) or math.isnan(value):
            raise ValueError(f"{name}: must be a number, got {value!r}.")
    elif kind in (str, bool):
        wanted = (bool, int, NoneType) if kind is bool else str
        if not isinstance(value, wanted):
            raise ValueError(f"{name}: must be {kind.__name__}, got {type(value).__name__}.")
    elif kind is Tensor or getattr(kind, "array_type", None) is Tensor:
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: must be a tensor, got {type(value).__name__}.")
        if value.layout is not torch.strided or value.device.type != "cpu":
            raise ValueError(f"{name}: must be a dense tensor on the cpu, got {value.device}.")
