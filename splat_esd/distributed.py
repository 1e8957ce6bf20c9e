"""One batch spread over processes: ranks of torch.distributed, by gloo on CPUs, nccl on GPUs.

Each rank draws the whole batch of (seed, step) and takes its rows; gradients are summed over the
ranks, and every rank makes the same update. A process alone is rank 0 of 1 and sends nothing.

References:
    PyTorch Distributed: Experiences on Accelerating Data Parallel Training (Li et al., 2020).
    https://arxiv.org/abs/2006.15704
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from splat_esd.errors import EnvironmentProblem

# A paused run keeps the others waiting; a process that has died is noticed by its connection.
PATIENCE = timedelta(days=30)
# What a container may take: control groups of version 2 and 1.
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
LOOPBACK = "lo" if sys.platform.startswith("linux") else "lo0"
Sliced = TypeVar("Sliced", bound=Any)


class LostProcess(EnvironmentProblem):
    """Another process of the run is gone."""


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that one rank takes:  rank, rank + world, rank + 2 world, ...

    Arguments:
        count: Rows of the whole batch.
    """

    count: int
    rank: int = 0
    world: int = 1

    def of(self, batch: Sliced) -> Sliced:
        """Returns these rows of something with a row for each of the batch."""
        return batch if self.world == 1 else batch[self.rank :: self.world]

    @property
    def share(self) -> float:
        """How much of a mean over the batch the mean over these rows is."""
        return len(range(self.rank, self.count, self.world)) / self.count


def rows_of(count: int) -> Rows:
    """Returns this process's rows of a batch."""
    return Rows(count, rank(), world())


def rank() -> int:
    """Returns this process's number; the one with 0 keeps the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Returns how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def join(meeting: Path, number: int, count: int) -> None:
    """Joins the processes of this machine that meet at a file."""
    if Path("/sys/class/net", LOOPBACK).exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)  # nobody else may listen in
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting.absolute()}",
        rank=number,
        world_size=count,
        timeout=PATIENCE,
    )


def join_launched() -> None:
    """Joins the processes that the launcher names in RANK, WORLD_SIZE and MASTER_ADDR."""
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    leave()  # a run before this one, which a follower does not leave by itself
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)


def leave() -> None:
    """Takes leave of the other processes, if there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast(value: Any = None) -> Any:
    """Returns the first process's value to all of them.

    Raises:
        LostProcess: If one of them is gone.
    """
    shared = [value]
    with _noticing():
        dist.broadcast_object_list(shared, 0, device=torch.device("cpu"))
    return shared[0]


def collect(value: Any) -> list[Any]:
    """Returns every process's value to all of them, in the order of their ranks.

    Raises:
        LostProcess: If one of them is gone.
    """
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    with _noticing():
        dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def sum_in_place(tensors: Sequence[Tensor]) -> None:
    """Replaces tensors of one dtype and device by their sums over the ranks, in one message.

    Raises:
        LostProcess: If one of them is gone.
    """
    if world() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with _noticing():
        dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def mean_of(stats: Mapping[str, float | int], weight: float) -> dict[str, float | int]:
    """Returns the weighted mean of each number over the ranks that have it."""
    if world() == 1:
        return dict(stats)
    found = collect((dict(stats), weight))
    means = {}
    for name in dict.fromkeys(name for numbers, _ in found for name in numbers):
        known = [(numbers[name], w) for numbers, w in found if name in numbers]
        means[name] = sum(x * w for x, w in known) / sum(w for _, w in known)
    return means


def checksum(tensors: Sequence[Tensor]) -> int:
    """Returns a number that two lists of float32 tensors of equal bits share."""
    total = 0
    for tensor in tensors:
        bits = tensor.detach().contiguous().view(torch.int32).to(torch.int64).flatten()
        place = torch.arange(1, len(bits) + 1, device=bits.device) % 65521
        total = 31 * total + int((bits * place).sum())
    return total % 2**63


@contextmanager
def _noticing() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what gloo and nccl raise when a connection closes
        raise LostProcess(f"another process of this run is gone ({_first_line(error)}).") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def spawn(work: Callable, count: int, meeting: Path, *arguments: Any) -> None:
    """Runs work(*arguments) in processes of one thread each that know of each other, and waits
    for them. A single one is this one.
    """
    meeting.unlink(missing_ok=True)
    if count == 1:
        torch.set_num_threads(1)
        join(meeting, 0, 1)
        work(*arguments)
        leave()
        return
    torch.multiprocessing.spawn(_work_and_exit, (count, meeting, work, arguments), nprocs=count)


def _work_and_exit(
    number: int, count: int, meeting: Path, work: Callable, arguments: tuple
) -> None:
    torch.set_num_threads(1)
    join(meeting, number, count)
    work(*arguments)
    dist.barrier()
    exit_at_once()


def exit_at_once(code: int = 0) -> None:
    """Ends this process without tidying up: gloo's threads, when they were taken down, have
    aborted a process whose work was done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def memory() -> int:
    """Returns the bytes of memory that processes here may take together: the machine's, or less
    where a container has a limit.
    """
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [path.read_text().strip() for path in LIMITS if path.is_file()]
    return min([whole, *(int(limit) for limit in limits if limit.isdecimal())])
