"""What each training here needs: a budget in minutes, a log, and checkpoints."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from splat_esd import distributed

PAUSE = 20.0  # seconds, longer than any step takes


class Clock:
    """A training budget in minutes that survives restarts and pauses; tells the learning rate and
    when to stop.
    """

    def __init__(self, minutes: float, spent: float = 0.0):
        self.budget, self._spent, self._seen = 60.0 * minutes, spent, time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds so far; of a longer while without a look, as when the process was stopped or
        the machine asleep, only `PAUSE` counts.
        """
        now = time.monotonic()
        self._spent += min(now - self._seen, PAUSE)
        self._seen = now
        return self._spent

    @property
    def running(self) -> bool:
        return self.spent < self.budget

    def rate(self, peak: float, step: int, spent: float | None = None) -> float:
        """Returns the learning rate: 200 steps of warm-up, then a cosine over the budget; `spent`
        is what the clock says, unless all processes go by that of one.
        """
        done = min((self.spent if spent is None else spent) / self.budget, 1.0)
        return (
            peak * min(1.0, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        )


def descend(
    loss: Tensor,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rate: float,
    share: Callable[[torch.nn.Module], None] | None = None,
) -> None:
    """Takes one step down the gradient, clipped to norm 1 after `share` has made it that of all
    processes.
    """
    if not torch.isfinite(loss):
        raise FloatingPointError("the loss is not finite; resume from the last checkpoint.")
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss.backward()
    if share is not None:
        share(model)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def average_gradients(model: torch.nn.Module) -> None:
    """Replaces gradients by their mean over the processes:  g = 1/P sum_p g_p."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    distributed.sum_in_place(gradients)
    torch._foreach_div_(gradients, float(distributed.world()))


def log(path: Path, **values: float | int) -> None:
    """Appends one line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({k: round(v, 5) for k, v in values.items()}) + "\n")


def save(path: Path, *, step: int, spent: float, **parts) -> None:
    """Writes the state of all parts (models, optimizers, averages) in one move."""
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save(state | {"step": step, "spent": spent}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def load(path: Path, **parts) -> tuple[int, float]:
    """Restores all parts if the file is there; returns the step and the seconds spent, or zeros."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"], state["spent"]
