"""One Adam for each parameter of the Gaussians, and the learning rates over a run."""

import torch

from splat_esd.gaussians import Gaussians


def make_optimizers(gaussians: Gaussians) -> dict[str, torch.optim.Optimizer]:
    """Turns the Gaussians' fields into parameters in place and gives each an Adam of its own.

    One optimiser a parameter is what gsplat's strategies expect when they add and drop rows.
    """
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for name, value in gaussians.parameters().items():
        parameter = torch.nn.Parameter(value.detach().clone())
        setattr(gaussians, name, parameter)
        optimizers[name] = torch.optim.Adam([{"params": [parameter], "name": name}], eps=1e-15)
    return optimizers


def learning_rate(start: float, end: float, progress: float) -> float:
    """Returns the rate at p in [0, 1] of the run:  start^(1-p) end^p,  linear if an end is 0."""
    if start > 0 and end > 0:
        return start ** (1.0 - progress) * end**progress
    return start + (end - start) * progress


def set_learning_rates(
    optimizers: dict[str, torch.optim.Optimizer],
    rates: dict[str, tuple[float, float]],
    progress: float,
) -> None:
    """Sets each parameter's rate for this step from its (start, end)."""
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(*rates[name], progress)


def set_phi_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets phi's learning rates: `rate`, times what each of its groups says."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["times"]
