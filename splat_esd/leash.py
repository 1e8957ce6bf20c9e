"""What of a start stays as it was: a leash on its parameters, and a region that alone may change.

A refined asset is somebody's own: words change what they speak of, and leave the rest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from splat_esd.config.schema import Ball, Box, InitConfig
from splat_esd.formats.read import ImportedSplats, within
from splat_esd.gaussians import Gaussians

# How far a steady pull can move each parameter, in its own units: world units, natural logarithms,
# logits, coefficients.
LENGTHS: dict[str, dict[str, float]] = {
    "none": {},
    "shape": {"means": 0.03, "log_scales": 0.2, "quats": 0.1, "logit_opacities": 0.5},
    "colour": {"sh": 0.2},
}


@dataclass(frozen=True, eq=False)
class Leash:
    """Holds splats near their start, and those outside a region where they are.

    Arguments:
        start: The splats as they were, and where they came from.
        lengths: Of the leash, by parameter; those not named are free.
        region: [x, y, z, radius] or [low x y z, high x y z] in the file's axes; None: everywhere.
    """

    start: ImportedSplats
    lengths: dict[str, float]
    region: Ball | Box | None = None

    @torch.no_grad()
    def pull(self, gaussians: Gaussians, optimizers: dict[str, torch.optim.Optimizer]) -> None:
        """Draws each parameter back, once Adam has moved it by about its rate eta:

            theta <- theta - min(1, eta / length) (theta - theta_0)

        so that a steady pull, eta a step, is balanced at `length` from the start.

        References:
            Decoupled weight decay (Loshchilov and Hutter, 2019), towards the start instead of 0.
        """
        for name, length in self.lengths.items():
            parameter, rate = getattr(gaussians, name), optimizers[name].param_groups[0]["lr"]
            there = getattr(self.start.gaussians, name).to(parameter)
            parameter.lerp_(there, min(1.0, rate / length))

    @torch.no_grad()
    def hold(self, gaussians: Gaussians, screen: dict[str, Tensor]) -> None:
        """Takes the gradients, on the screen too, from the splats outside the region; they then
        neither move nor grow.
        """
        if self.region is None:
            return
        inside = within(self.start.in_file(gaussians.means), self.region)
        outside = ~torch.from_numpy(inside).to(gaussians.device)
        for values in [p.grad for p in gaussians.parameters().values()] + list(screen.values()):
            if values is not None:
                values[outside] = 0.0


def make_leash(start: ImportedSplats, init: InitConfig) -> Leash:
    """Makes the leash that the configuration asks for."""
    return Leash(start, LENGTHS[init.keep], init.region)
