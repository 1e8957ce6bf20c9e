"""What a process needs before torch is loaded: how threads wait, and how memory is kept."""

import ctypes
import os
from contextlib import suppress

# mallopt's name and number for each, and from how many bytes on. Where glibc gives freed blocks
# back to the system, every step of every process faults them in again.
_KEPT = {
    ("MALLOC_MMAP_THRESHOLD_", -3): 2**30,
    ("MALLOC_TRIM_THRESHOLD_", -1): 2**31 - 1,
}


def prepare() -> None:
    """Settles how this process and those that it starts wait and keep memory, unless the
    environment says otherwise.

    References:
        mallopt(3).
    """
    # OpenMP's threads spin while they wait: long, and one other program here makes a step six times
    # slower; never, and a step alone takes twice as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    for (name, number), size in _KEPT.items():
        if name not in os.environ:
            os.environ[name] = str(size)  # for the processes it starts
            with suppress(AttributeError, OSError, TypeError):  # another C library
                ctypes.CDLL(None).mallopt(number, size)
