"""What a launcher such as torchrun tells the processes that it starts, by their environment."""

import os

from splat_esd.errors import UsageError


def launched() -> bool:
    """Tells whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


def leads() -> bool:
    """Tells whether this process is the first of those that a launcher started, or alone."""
    return not launched() or int(os.environ.get("RANK", "0")) == 0


def refuse_several(what: str) -> None:
    """Refuses what several processes of a launcher cannot share.

    Raises:
        UsageError: If this is one of several.
    """
    if launched():
        raise UsageError(f"{what}: a launcher spreads one run; start this without it.")
