"""Signals that ask a run to end: Ctrl-C, SIGTERM as Slurm and Kubernetes send it, SIGHUP."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

BURST = 1.0  # seconds within which several signals are one wish


class Interrupted(KeyboardInterrupt):
    """A signal ended the run; `exit_code` is 128 and its number, as shells have it."""

    def __init__(self, number: int):
        super().__init__()
        self.exit_code = 128 + number


class Stop:
    """What has been asked for by signals, and when it may be obeyed.

    Between `wait` and `now` a first signal is only remembered, so that a step is whole; a second
    one, more than a second later, no longer waits. Within `shielded` none is obeyed at all.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at = -math.inf
        self._waiting = self._shielded = False

    def wait(self) -> None:
        """From here on a first signal is remembered until `check`."""
        self._waiting = True

    def now(self) -> None:
        """From here on a signal ends the run at once.

        Raises:
            Interrupted: If one came in the meantime.
        """
        self._waiting = False
        self.check()

    def check(self) -> None:
        """Ends the run if a signal came.

        Raises:
            Interrupted: If so; the next signal counts as a first one.
        """
        if self.number is not None:
            number, self.number = self.number, None
            raise Interrupted(number)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """A block that no signal ends; what comes is remembered."""
        before, self._shielded = self._shielded, True
        try:
            yield
        finally:
            self._shielded = before

    @property
    def heard_lately(self) -> bool:
        """Whether a signal now would be the same wish as the last."""
        return time.monotonic() - self._at < BURST

    def handing_over(self, handler: Any) -> Callable[[int, FrameType | None], None]:
        """Returns a handler that drops what belongs to the last wish and then gives way to
        `handler`.
        """

        def heard(number: int, _: FrameType | None) -> None:
            if not self.heard_lately:
                signal.signal(number, handler)
                signal.raise_signal(number)

        return heard

    def heard(self, number: int, _: FrameType | None = None) -> None:
        """Handles one signal; one within a second of the last is the same wish."""
        same, self._at = self.heard_lately, time.monotonic()
        if same:
            return
        again = self.number is not None
        self.number = number
        if not self._shielded and (again or not self._waiting):
            self.check()


@contextmanager
def listening() -> Iterator[Stop]:
    """Yields what signals ask for within the block; outside the main thread none is heard.

    A signal that the process ignores, as under nohup, stays ignored. Several within a second stay
    one wish where the block has ended meanwhile.
    """
    stop, before = Stop(), {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop.heard)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, stop.handing_over(handler) if stop.heard_lately else handler)
