"""Random splats and cameras for the rasterisers' tests, and who is to draw them."""

from dataclasses import dataclass, replace

import torch

from splat_esd.cameras import Cameras, turntable
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import RenderOutput, rasterize, reference


@dataclass(frozen=True)
class Backend:
    """One that must mean what the reference says."""

    name: str
    device: str = "cpu"

    def draw(self, gaussians: Gaussians, cameras: Cameras, **options) -> RenderOutput:
        background = options.pop("background", None)
        if background is not None:
            background = background.to(self.device)
        return rasterize(
            gaussians.to(self.device),
            cameras.to(self.device),
            backend=self.name,
            background=background,
            **options,
        )

    def __str__(self) -> str:
        return self.name


BACKENDS = [Backend("cpu")]


def random_gaussians(count: int, *, degree: int = 0, seed: int = 0) -> Gaussians:
    """Fills the unit ball with splats of all opacities; exact in float32, held in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    directions = torch.nn.functional.normalize(normal(count, 3), dim=-1)
    radius = torch.rand(count, 1, generator=generator) ** (1 / 3)
    gaussians = Gaussians(
        means=directions * radius,
        quats=normal(count, 4),
        log_scales=0.3 * normal(count, 3) - 3,
        logit_opacities=1.5 * normal(count),
        sh=0.3 * normal(count, (degree + 1) ** 2, 3),
    )
    return astype(gaussians, torch.float64)


def some_cameras(count: int = 2, *, width: int = 50, height: int = 37) -> Cameras:
    """Looks at the unit ball from all sides; exact in float32, held in float64."""
    cameras = turntable(count, elevation=0.2, distance=2.6, fovy=0.9, width=width, height=height)
    return astype(cameras, torch.float64)


def astype(what, dtype: torch.dtype):
    """Converts every tensor of a dataclass."""
    tensors = {k: v.to(dtype) for k, v in vars(what).items() if isinstance(v, torch.Tensor)}
    return replace(what, **tensors)


def leaves(gaussians: Gaussians, dtype: torch.dtype) -> Gaussians:
    """Copies splats into tensors that collect gradients."""
    return Gaussians(
        *(v.detach().to(dtype, copy=True).requires_grad_() for v in gaussians.parameters().values())
    )


def screened(make, cameras: Cameras, *, antialiased: bool = False, seed: int = 0) -> Gaussians:
    """Returns the first scene, by seed, in which rounding cannot change a decision.

    No pair of pixel and splat lies within 1e-5 of the faintest alpha or of the largest, and no
    pixel within 1e-3 of its end: a flip there is no mistake and would hide one elsewhere.
    """
    while not _is_flip_free(make(seed), cameras, antialiased):
        seed += 1000
    return make(seed)


def _is_flip_free(gaussians: Gaussians, cameras: Cameras, antialiased: bool) -> bool:
    splats = reference.project(
        gaussians, cameras, near_plane=0.01, far_plane=1e10, eps2d=0.3, antialiased=antialiased
    )
    x, y = torch.arange(cameras.width) + 0.5, torch.arange(cameras.height) + 0.5
    for b in range(len(cameras)):
        order = splats.depths[b].argsort(stable=True)
        order = order[splats.radii[b, order, 0] > 0]
        dx = x[None, :, None] - splats.means2d[b, order, 0]
        dy = y[:, None, None] - splats.means2d[b, order, 1]
        xx, xy, yy = splats.conics[b, order].unbind(-1)
        sigma = (xx * dx**2 + yy * dy**2) / 2 + xy * dx * dy
        raw = splats.opacities[b, order] * torch.exp(-sigma)
        alpha = torch.where(raw >= 1 / 255, raw.clamp_max(0.999), 0)
        after = (1 - alpha).cumprod(-1)
        margins = [
            (255 * raw - 1).abs().min() / 1e-5,
            (raw / 0.999 - 1).abs().min() / 1e-5,
            (after / 1e-4 - 1).abs().min() / 1e-3,
        ]
        if min(margins) < 1:
            return False
    return True
