"""The memory that rendering a scene takes, measured in a process of its own."""

import ctypes
import gc
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from splat_esd.bench.scenes import Scene


def memory_growth(scene: Scene, *, threads: int) -> int | None:
    """Returns the growth of the resident set during forward and backward, in bytes.

    Its peak during the call less what it was before the call: pictures, gradients and all that is
    kept between the passes. None where the system does not tell.
    """
    if sys.platform == "win32":
        return None
    # A new process, for in an old one the allocator has room that it was given earlier.
    # Ctrl-C is for the parent to answer, in one line.
    deaf = (signal.signal, (signal.SIGINT, signal.SIG_IGN))
    with ProcessPoolExecutor(1, get_context("spawn"), *deaf) as pool:
        return pool.submit(_growth_here, scene, threads).result()


def _growth_here(scene: Scene, threads: int) -> int:
    torch.set_num_threads(threads)
    Scene(64, 16).build().forward_backward()  # brings in what is loaded once
    stage = scene.build()
    gc.collect()
    _return_what_was_freed()
    peak, before = _peak_from_now()
    stage.forward_backward()
    return max(0, peak() - before)


def peak_from_now(device: torch.device) -> Callable[[], float]:
    """Returns a function that tells the highest memory from now on in GiB: the GPU's, or on a CPU
    that of this process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device) / 2**30
    _return_what_was_freed()
    peak, _ = _peak_from_now()
    return lambda: peak() / 2**30


def _return_what_was_freed() -> None:
    """Makes glibc's allocator return freed memory, so that reuse does not hide growth."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _peak_from_now() -> tuple[Callable[[], int], int]:
    """Returns a function that reads the peak from now on, and its present value."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak forgets the past
        return lambda: _status("VmHWM"), _status("VmRSS")
    except OSError:
        return _peak_of_all_time, _peak_of_all_time()


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    value = next(line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(value.split()[1])


def _peak_of_all_time() -> int:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
