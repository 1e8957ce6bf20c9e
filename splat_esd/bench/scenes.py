"""The scenes that are timed: balls of random Gaussians, and the two calls on each."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from splat_esd.cameras import Cameras, turntable
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import rasterize

OPACITIES = {"low": (0.05, 0.2), "mixed": (0.05, 0.95), "high": (0.8, 0.99)}
SCALES = (0.01, 0.03)  # of the ball's radius, along each axis on its own
FILLED = 0.6  # of the pixels, by the disc that the ball appears as
DISTANCE = 3.0
SEED = 0


@dataclass(frozen=True)
class Scene:
    """A ball of Gaussians and cameras around it.

    Arguments:
        count: Gaussians, N.
        size: Width and height in pixels.
        opacity: A key of `OPACITIES`.
        degree: Of the spherical harmonics.
        cameras: Views in one call, B.
    """

    count: int
    size: int
    opacity: str = "mixed"
    degree: int = 0
    cameras: int = 1

    def __str__(self) -> str:
        return f"{short(self.count)} @ {self.size}"

    def build(self) -> "Stage":
        """Samples the Gaussians of a scene; the same scene gives the same ones."""
        g = torch.Generator().manual_seed(SEED)

        def between(bounds: tuple[float, float], *shape: int) -> Tensor:
            return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(*shape, generator=g)

        n, views, size = self.count, self.cameras, self.size
        directions = F.normalize(torch.randn(n, 3, generator=g), dim=-1)
        gaussians = Gaussians(
            means=directions * torch.rand(n, 1, generator=g) ** (1 / 3),
            quats=torch.randn(n, 4, generator=g),
            log_scales=between(SCALES, n, 3).log(),
            logit_opacities=between(OPACITIES[self.opacity], n).logit(),
            sh=0.3 * torch.randn(n, (self.degree + 1) ** 2, 3, generator=g),
        )
        for tensor in gaussians.parameters().values():
            tensor.requires_grad_()
        # The ball's outline has the slope tan asin(1 / distance); its disc is FILLED of the image.
        slope = math.tan(math.asin(1 / DISTANCE)) / (2 * math.sqrt(FILLED / math.pi))
        camera = {"elevation": 0.2, "distance": DISTANCE, "fovy": 2 * math.atan(slope)}
        return Stage(
            gaussians,
            turntable(views, **camera, width=size, height=size),
            background=torch.rand(views, 3, generator=g).requires_grad_(),
            v_rgb=torch.randn(views, size, size, 3, generator=g),
        )


@dataclass(frozen=True, eq=False)
class Stage:
    """A scene in memory; its calls go from tensors to tensors, through `rasterize`.

    Arguments:
        gaussians, cameras, background: What is drawn; all but the cameras want gradients.
        v_rgb: The gradient of a loss by the picture, as score distillation gives one.
    """

    gaussians: Gaussians
    cameras: Cameras
    background: Float[Tensor, "B 3"]
    v_rgb: Float[Tensor, "B H W 3"]

    def forward(self, *, backend: str = "cpu") -> Float[Tensor, "B H W 3"]:
        """Renders without a graph."""
        with torch.no_grad():
            return self._draw(backend, False)

    def forward_backward(self, *, backend: str = "cpu", absgrad: bool = False) -> list[Tensor]:
        """Renders and returns the gradients of all five tensors and of the background."""
        inputs = [*self.gaussians.parameters().values(), self.background]
        return list(torch.autograd.grad(self._draw(backend, absgrad), inputs, self.v_rgb))

    def _draw(self, backend: str, absgrad: bool) -> Float[Tensor, "B H W 3"]:
        drawn = rasterize(
            self.gaussians,
            self.cameras,
            background=self.background,
            backend=backend,
            absgrad=absgrad,
        )
        return drawn.rgb


def short(count: int) -> str:
    """Returns 2000 as 2k and 1000000 as 1M."""
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if count >= unit:
            return f"{count / unit:g}{name}"
    return str(count)
