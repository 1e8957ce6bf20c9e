"""Initial splats: a grey ball, a point cloud, a mesh, or the splats of a file."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from splat_esd.config.schema import ImportConfig
from splat_esd.errors import UsageError
from splat_esd.formats.points import read_raw_points
from splat_esd.formats.read import (
    ImportedSplats,
    fitted,
    holds_splats,
    placed_points,
    read_splats,
)
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import SH_C0

_COLOR_NOISE = 0.05  # Splats of one colour get one gradient and move as one.


def ball(
    count: int,
    *,
    radius: float,
    opacity: float,
    scale: float | None = None,
    color: float,
    generator: torch.Generator,
) -> Gaussians:
    """Fills a ball around the origin evenly:  mean = radius u^(1/3) n,  n uniform on the sphere.

    Arguments:
        count: Number of Gaussians, N.
        radius: Of the ball, in world units.
        opacity: Of every Gaussian, in (0, 1).
        scale: Standard deviation of every Gaussian; the distance to its neighbours by default.
        color: Grey level in [0, 1]; every channel gets a little noise.
        generator: Decides where things are drawn and on which device they lie.
    Raises:
        UsageError: If there are too few points to measure a distance, or opacity is out of range.
    """
    device = generator.device
    directions = F.normalize(torch.randn(count, 3, generator=generator, device=device), dim=-1)
    u = torch.rand(count, 1, generator=generator, device=device)
    noise = torch.randn(count, 3, generator=generator, device=device)
    means = radius * u ** (1 / 3) * directions
    colors = (color + _COLOR_NOISE * noise).clamp(0, 1)
    log_scales = _neighbour_log_scales(means) if scale is None else _full_log_scales(means, scale)
    quats = F.normalize(torch.randn(count, 4, generator=generator, device=device), dim=-1)
    return _assemble(means, quats, log_scales, opacity, colors)


def from_points(
    points: Float[Tensor, "N 3"], colors: Float[Tensor, "N 3"] | None = None, *, opacity: float
) -> Gaussians:
    """Returns one isotropic Gaussian per point, as large as the distance to its neighbours.

    Arguments:
        points: In the world (z up, the front at +x, inside the unit ball).
        colors: RGB in [0, 1]; mid-grey by default.
        opacity: Of every Gaussian, in (0, 1).
    Raises:
        UsageError: If there are fewer than two points, a coordinate is not finite, or opacity is
            out of range.
    """
    colors = torch.full_like(points, 0.5) if colors is None else colors
    quats = points.new_tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(points), 1)
    return _assemble(points, quats, _neighbour_log_scales(points), opacity, colors)


def from_file(
    path: Path, *, opacity: float, count: int, imported: ImportConfig, points_only: bool = False
) -> ImportedSplats:
    """Returns the splats of a file, or splats at its points, moved into the unit ball if need be.

    Arguments:
        path: A splat file of any program, a point cloud, or a mesh.
        opacity: Of the Gaussians that start at points.
        count: Points spread over a mesh.
        imported: How the file is read.
        points_only: Take the places and colours of splats alone.
    Raises:
        UsageError: If the file cannot be read as any of these.
    """
    if path.is_dir() or holds_splats(path):
        splats = read_splats(path, imported)
        gaussians, placement, notes = splats.gaussians, splats.placement, list(splats.notes)
        up = splats.up
        if points_only:
            notes.append(f"{path.name} holds splats: only their places and colours are used.")
            gaussians = from_points(gaussians.means, gaussians.colors.clamp_max(1), opacity=opacity)
    else:
        raw = read_raw_points(path, count=count)
        up = (raw.up if imported.up == "auto" else imported.up) or "ours"
        means, placement = placed_points(raw, imported, path)
        colors = None if raw.colors is None else torch.from_numpy(raw.colors.astype(np.float32))
        gaussians = from_points(means, colors, opacity=opacity)
        notes = [f"{path.name}: {note}" for note in raw.notes]
    moved: list[str] = []
    gaussians, placement = fitted(gaussians, placement, moved)
    return ImportedSplats(gaussians, placement, notes + [f"{path.name}: {n}" for n in moved], up)


def _neighbour_log_scales(points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Returns the logarithm of the mean distance to the three nearest neighbours."""
    from scipy.spatial import KDTree

    if len(points) < 2:
        raise UsageError(f"expected two points or more, to measure distances, got {len(points)}.")
    if not points.isfinite().all():
        raise UsageError("expected finite points, got NaN or infinity among them.")
    array = points.detach().cpu().double().numpy()
    distances, _ = KDTree(array).query(array, k=min(4, len(array)))
    mean = distances[:, 1:].mean(axis=1)
    # Points that coincide have no distance; a Gaussian of no size could never grow again.
    floor = max(1e-3 * float(mean.mean()), 1e-6)
    log_scales = torch.from_numpy(np.log(np.maximum(mean, floor))).to(points)
    return log_scales[:, None].repeat(1, 3)


def _full_log_scales(means: Float[Tensor, "N 3"], scale: float) -> Float[Tensor, "N 3"]:
    if scale <= 0:
        raise UsageError(f"scale must be positive, got {scale}.")
    return torch.full_like(means, math.log(scale))


def _assemble(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    log_scales: Float[Tensor, "N 3"],
    opacity: float,
    colors: Float[Tensor, "N 3"],
) -> Gaussians:
    if not 0 < opacity < 1:
        raise UsageError(f"init.opacity must lie in (0, 1), got {opacity}.")
    return Gaussians(
        means=means,
        quats=quats,
        log_scales=log_scales,
        logit_opacities=torch.full_like(means[:, 0], math.log(opacity / (1 - opacity))),
        sh=((colors - 0.5) / SH_C0)[:, None],
    )
