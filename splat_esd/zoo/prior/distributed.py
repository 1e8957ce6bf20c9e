"""One model trained by several processes of one thread each: on a CPU they do more than one
process of as many threads.
"""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=1)  # for another process: the first one also draws samples


def spawn(work: Callable, processes: int, meeting: Path, *arguments) -> None:
    """Runs work(*arguments) in processes that know of each other, and waits for them; they meet
    at a file. A single one is this one.
    """
    meeting.unlink(missing_ok=True)
    if processes == 1:
        _join(0, 1, meeting.absolute(), work, arguments)
        dist.destroy_process_group()
        return
    torch.multiprocessing.spawn(
        _join_and_exit, (processes, meeting.absolute(), work, arguments), nprocs=processes
    )


def _join_and_exit(
    rank: int, processes: int, meeting: Path, work: Callable, arguments: tuple
) -> None:
    """Works, waits for the others and leaves without tidying up: gloo's threads, when they were
    taken down, have aborted a process whose work was done.
    """
    _join(rank, processes, meeting, work, arguments)
    dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _join(rank: int, processes: int, meeting: Path, work: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes, timeout=PATIENCE
    )
    work(*arguments)


def rank() -> int:
    """Returns this process's number; the one with 0 keeps the files."""
    return dist.get_rank()


def processes() -> int:
    """Returns how many there are."""
    return dist.get_world_size()


def agree(value: float) -> float:
    """Returns the first process's value to all of them."""
    shared = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(shared, 0)
    return shared.item()


def average_gradients(model: torch.nn.Module) -> None:
    """Replaces gradients by their mean over the processes:  g = 1/P sum_p g_p."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes()
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])
