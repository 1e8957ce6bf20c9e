"""`splat-esd bench phi`: what phi learns of the camera, alone, on splats that stand still.

Two losses are measured on views that it was not taught on, at several times: |phi(z_t, t, c) - .|^2
and |phi(z_t, t) - .|^2, in the prior's prediction. With one object the first could be 0, and the
second no less than what the noise hides of the view, so their ratio says how much phi knows.
"""

import json
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat_esd import console
from splat_esd.bench import machine
from splat_esd.cameras import Cameras
from splat_esd.config.commands import BenchPhiArguments, command_line
from splat_esd.diffusion.lora import Phi, camera_vector
from splat_esd.entropy import null_minus_camera
from splat_esd.errors import UsageError
from splat_esd.formats.read import open_splats
from splat_esd.optim import set_phi_rate
from splat_esd.runs import start
from splat_esd.runs.folder import RunFolder
from splat_esd.train import Run, make_run, render

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of the schedule at which losses are measured
VIEWS = 8  # of a batch
BATCHES = 6  # of each time
AROUND = 64  # views that stand for all, where it is asked what the noise hides
COLUMNS = ("t", "with the camera", "without", "ratio", "hidden by the noise")


def main(asked: BenchPhiArguments) -> None:
    """Teaches phi on each run's splats and prints its losses; all figures go to `out`.

    Raises:
        UsageError: If no run is named, or one has no phi.
    """
    if not asked.runs:
        raise UsageError('bench phi needs a run: splat-esd bench phi "outputs/a-corgi/..."')
    found = []
    for path in asked.runs:
        begun = time.monotonic()
        rows = learn(path, asked.steps)
        row: dict[str, Any] = {"run": path.name, "steps": asked.steps, "times": rows}
        means = [sum(r[name] for r in rows) / len(rows) for name in ("with", "without")]
        row |= {"ratio": means[0] / means[1], "seconds": round(time.monotonic() - begun)}
        found.append(row)
        console.table(f"phi on {path.name}, {asked.steps} steps", COLUMNS, lines(rows))
    if asked.out is not None:
        told = {
            "command": command_line("bench phi", asked),
            "version": version("splat-esd"),
            "machine": machine.describe(),
            "runs": found,
        }
        asked.out.write_text(json.dumps(told, indent=1) + "\n")
        console.note(f"all figures are in {asked.out}.")


def lines(rows: list[dict[str, float]]) -> list[list[str]]:
    """Returns the lines of the table."""
    return [
        [f"{r['t']:.0f}"]
        + [f"{value:.4f}" for value in (r["with"], r["without"])]
        + [f"{r['with'] / r['without']:.2f}", f"{r['hidden']:.4f}"]
        for r in rows
    ]


def learn(path: Path, steps: int) -> list[dict[str, float]]:
    """Teaches a new phi on the splats of a run, both branches by every sample, and measures it.

    Raises:
        UsageError: If the run has no phi.
    """
    folder = RunFolder(path)
    config = folder.config
    run = make_run(config, start.open_prior(config, torch.device("cpu")))
    if run.guidance.phi is None or run.phi_optimizer is None:
        raise UsageError(f"{path}: {config.guidance.name} has no phi; name a run of vsd or esd.")
    run.gaussians = open_splats(folder.splat)
    run.cameras = replace(run.cameras, batch_size=VIEWS, together=1)
    generator = torch.Generator().manual_seed(config.seed or 0)
    for step in range(steps):
        t = torch.randint(len(run.prior.schedule), (VIEWS,), generator=generator)
        losses = losses_of(run, run.guidance.phi, *_views(run, VIEWS, generator), t, generator)
        losses.mean().backward()
        falling = 1.0 - 0.9 * step / steps
        set_phi_rate(run.phi_optimizer, falling * config.guidance.lora.learning_rate)
        run.phi_optimizer.step()
        run.phi_optimizer.zero_grad()
    return [measure(run, run.guidance.phi, share) for share in TIMES]


def losses_of(
    run: Run, phi: Phi, cameras: Cameras, z: Tensor, t: Tensor, generator: torch.Generator
) -> Tensor:
    """Returns phi's losses with the camera and without, of the same noise: [2, B]."""
    eps = torch.randn(z.shape, generator=generator)
    z_t = run.prior.schedule.add_noise(z, eps, t)
    told = camera_vector(cameras)
    dropped = torch.zeros(len(z), dtype=torch.bool)
    both = [phi.eps_and_losses(z, z_t, t, eps, told, drop)[1] for drop in (dropped, ~dropped)]
    return torch.stack(both)


@torch.no_grad()
def measure(run: Run, phi: Phi, share: float) -> dict[str, float]:
    """Returns the mean losses at one time, and what the noise hides there: the least that the
    second can be, in the prediction v = alpha eps - sigma z.
    """
    generator = torch.Generator().manual_seed(
        10_000 + round(1000 * share)
    )  # not those it learnt on
    schedule = run.prior.schedule
    t = torch.full((VIEWS,), round(share * (len(schedule) - 1)))
    _, others = _views(run, AROUND, generator)
    found = torch.zeros(3)
    for _ in range(BATCHES):
        cameras, z = _views(run, VIEWS, generator)
        found[:2] += losses_of(run, phi, cameras, z, t, generator).mean(1) / BATCHES
        z_t = schedule.add_noise(z, torch.randn(z.shape, generator=generator), t)
        hidden = null_minus_camera(z, z_t, t, others, schedule) / schedule.alpha(t)
        found[2] += hidden.square().mean() / BATCHES
    names = ("with", "without", "hidden")
    return {"t": float(t[0])} | dict(zip(names, map(float, found), strict=True))


@torch.no_grad()
def _views(run: Run, count: int, generator: torch.Generator) -> tuple[Cameras, Tensor]:
    """Draws cameras from p(c) and the latents of their renders, all before one grey."""
    cameras = replace(run.cameras, batch_size=count).sample(generator, 1.0)
    out = render(run, cameras, torch.full((count, 3), 0.5))
    return cameras, run.prior.encode_images(out.rgb)
