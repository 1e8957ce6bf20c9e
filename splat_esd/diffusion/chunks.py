"""A batch through a network a few rows at a time, for machines that cannot hold it whole."""

from collections.abc import Callable

import torch
from torch import Tensor


def by_rows(call: Callable[[slice], Tensor], count: int, rows: int | None) -> Tensor:
    """Returns the answers to rows 0 .. count - 1, asked for `rows` at a time (None: all at once).

    Where a gradient is wanted, each part is computed anew on the way back, so that the graph of
    one part at most is held.

    References:
        Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016).
    """
    if rows is None or rows >= count:
        return call(slice(0, count))
    from torch.utils.checkpoint import checkpoint

    parts = []
    for start in range(0, count, rows):
        part = slice(start, min(start + rows, count))
        graph = torch.is_grad_enabled()
        parts.append(checkpoint(call, part, use_reentrant=False) if graph else call(part))
    return torch.cat(parts)


def halved(rows: int | None, count: int) -> int | None:
    """Returns half as many rows at a time; None if one is the fewest."""
    now = count if rows is None else min(rows, count)
    return max(1, now // 2) if now > 1 else None
