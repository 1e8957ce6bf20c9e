"""Where the splats start: a grey ball, a cloud of points, or a PLY of earlier splats."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from splat_esd.errors import UsageError
from splat_esd.formats.ply import has_splats, read_ply, read_ply_points
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
    """Puts a round Gaussian on every point, as wide as its neighbours are far.

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


def from_ply(path: Path | str, *, opacity: float = 0.1) -> Gaussians:
    """Reads the splats of a PLY, or starts splats at its points when it holds a point cloud.

    Arguments:
        path: A splat PLY of ours or of other programs, or a PLY of x y z and maybe red green blue.
        opacity: Of the Gaussians that start at points.
    Raises:
        UsageError: If the file cannot be read as either.
    """
    if has_splats(path):
        return read_ply(path)
    return from_points(*read_points(path), opacity=opacity)


def read_points(
    path: Path | str,
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"] | None]:
    """Reads a cloud of points, and colours in [0, 1] where the file has them.

    Arguments:
        path: .ply with x y z and maybe red green blue; .npy or text (.xyz, .txt) of N rows with
            3 columns (x y z) or 6 (x y z r g b, r g b in [0, 1] or in 0..255).
    Raises:
        UsageError: If the file cannot be read as points.
    """
    path = Path(path)
    if path.suffix == ".ply":
        return read_ply_points(path)
    if path.suffix not in (".npy", ".xyz", ".txt"):
        raise UsageError(f"{path}: expected points as .ply, .npy, .xyz or .txt.")
    try:
        table = np.load(path) if path.suffix == ".npy" else np.loadtxt(path, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as points: {error}") from error
    if table.ndim != 2 or table.shape[1] not in (3, 6):
        raise UsageError(f"{path}: expected points [N, 3] or [N, 6], got {list(table.shape)}.")
    values = torch.from_numpy(table.astype(np.float32))
    points, colors = values[:, :3], values[:, 3:]
    if not len(colors.T):
        return points, None
    return points, colors / 255 if colors.max() > 1 else colors


def _neighbour_log_scales(points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Measures the mean distance to the three nearest neighbours."""
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
