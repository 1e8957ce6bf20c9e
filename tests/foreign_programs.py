"""What the tests in foreign programs share: a splat that cannot be mistaken, and who draws it."""

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splat_esd.cameras import orbit_cameras
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import SH_C0, quat_to_rotmat
from splat_esd.metrics.fidelity import ssim
from splat_esd.rasterize import rasterize

HERE = Path(__file__).parent / "foreign"
SIZE = 256
CAMERA = {"azimuth": 0.6, "elevation": 0.3, "distance": 2.6, "fovy": 45.0}  # fovy in degrees


def need_node() -> None:
    """Skips where node or its packages are missing; under FOREIGN=required that is a failure."""
    reason = None
    if shutil.which("node") is None:
        reason = "node is missing; install Node 20 or newer to run what it reads"
    elif not (HERE / "node_modules").is_dir():
        reason = f"node's packages are missing; install them by npm ci --prefix {HERE}"
    if reason and os.environ.get("FOREIGN") == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def mascot(degree: int = 3, *, count: int = 1500) -> Gaussians:
    """A grey egg with a red nose in front, a green ear to its left, a blue hat, and needles askew.

    No two of its sides are alike, so that a wrong axis, a mirror or a wrong turn shows; its
    splats are long and thin, so that a misread quaternion does.
    """
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    parts = [
        _part(directions * torch.tensor([0.5, 0.4, 0.6]), 0.03, (0.6, 0.55, 0.5)),
        _part(directions[:200] * 0.15 + torch.tensor([0.55, 0.0, 0.1]), 0.02, (0.85, 0.1, 0.1)),
        _part(directions[:200] * 0.15 + torch.tensor([0.0, 0.5, 0.3]), 0.02, (0.1, 0.6, 0.2)),
        _part(directions[:300] * 0.22 + torch.tensor([0.0, 0.0, 0.65]), 0.03, (0.1, 0.2, 0.8)),
        _part(torch.tensor([[0.0, -0.5, 0.0], [0.3, -0.45, -0.3]]), 0.12, (0.9, 0.7, 0.1)),
    ]
    splats = Gaussians.cat(parts)
    splats.quats = torch.randn(len(splats), 4, generator=generator)
    harmonics = 0.12 * torch.randn(len(splats), (degree + 1) ** 2, 3, generator=generator)
    harmonics[:, 0] = splats.sh[:, 0]
    splats.sh = harmonics
    return splats


def _part(means: torch.Tensor, size: float, color: tuple[float, float, float]) -> Gaussians:
    count = len(means)
    flat = torch.tensor([2.5, 0.7, 0.3]) * size
    return Gaussians(
        means=means,
        quats=torch.ones(count, 4),
        log_scales=flat.log().repeat(count, 1),
        logit_opacities=torch.full((count,), 2.0),
        sh=((torch.tensor(color) - 0.5) / SH_C0).repeat(count, 1, 1),
    )


def own_picture(splats: Gaussians, *, antialiased: bool = False, **moved: float) -> torch.Tensor:
    """Draws the splat by our own rasteriser, over white [1, H, W, 3]."""
    told = CAMERA | moved
    fovy = math.radians(told.pop("fovy"))
    one = {name: torch.tensor([value]) for name, value in told.items()}
    cameras = orbit_cameras(**one, fovy=torch.tensor([fovy]), width=SIZE, height=SIZE)
    white = torch.ones(1, 3)
    return rasterize(splats, cameras, background=white, antialiased=antialiased).rgb.clamp(0, 1)


def covariances(splats: Gaussians) -> torch.Tensor:
    """Returns shape and direction in one; the quaternions of a shape are several."""
    axes = quat_to_rotmat(splats.quats) * splats.scales[:, None]
    return axes @ axes.mT


def shoot(page: str, out: Path | None = None, *, forgiven: str | None = None, **job) -> dict:
    """Opens a page in Chromium; returns what it asked for elsewhere, and what was returned.

    Arguments:
        forgiven: Part of an error message that a program is known for.
    """
    need_node()
    job = {"page": page, "width": SIZE, "height": SIZE, **job}
    if out is not None:
        job["out"] = str(out)
    told = json.loads(node("shoot.mjs", json.dumps(job)))
    errors = [error for error in told["errors"] if forgiven is None or forgiven not in error]
    assert not errors, errors
    return told


def picture(path: Path) -> torch.Tensor:
    """Reads a picture in [0, 1] as [1, H, W, 3]."""
    with Image.open(path) as image:
        return torch.tensor(np.asarray(image.convert("RGB")))[None].float() / 255


def node(program: str, *arguments: Path | str) -> str:
    """Runs a program of tests/foreign and returns what it prints."""
    need_node()
    ran = subprocess.run(
        ["node", program, *map(str, arguments)],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def assert_alike(shot: torch.Tensor, own: torch.Tensor, *, least: float) -> None:
    """Wants the same picture, by structure and by colour, and not of another side or a mirror."""
    assert (shot - own).abs().mean() < 0.015
    assert likeness(shot, own) >= least
    for wrong in (own.flip(2), own.flip(1), own.transpose(1, 2)):
        assert likeness(shot, wrong) < least - 0.2, "this picture could not tell sides apart"


def likeness(a: torch.Tensor, b: torch.Tensor) -> float:
    """SSIM of what is not background: white agrees with white whatever is wrong."""
    rows, columns = ((a < 0.98) | (b < 0.98)).any(-1)[0].nonzero().T
    box = (slice(None), slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    return ssim(a[box], b[box]).item()
