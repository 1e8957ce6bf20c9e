"""Algorithm 1 of the paper: theta, the Gaussians, and phi, the LoRA, in turn.

    repeat
        c ~ p(c),  x = g(theta, c),  z = E(x)
        theta <- theta - eta E_{t, eps} [ (dz/dtheta)^T grad_z ]          guidance.py
        phi   <- phi - eta' grad_phi |eps_phi(z_t, t, y, c or nothing) - eps|^2

with one draw of (z_t, t, eps) for both: the pass of phi that theta needs is the one that teaches
it. Several processes each take some rows of the batch; their gradients are summed.

Randomness is a function of (seed, step), so a run that is stopped and continued gives the same
bits.
"""

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from splat_esd import console
from splat_esd.cameras import BackgroundDistribution, CameraDistribution, Cameras
from splat_esd.config.load import Config
from splat_esd.densify import Density
from splat_esd.diffusion.chunks import halved
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.prompts import PromptBook
from splat_esd.distillation import make_guidance
from splat_esd.distributed import Rows, mean_of, rows_of, sum_in_place, world
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.formats.frame import UNIT_BALL
from splat_esd.formats.read import ImportedSplats
from splat_esd.gaussians import Gaussians
from splat_esd.guidance import ESD, SDS, DenoisingLosses
from splat_esd.initialize import ball, from_file
from splat_esd.leash import Leash, make_leash
from splat_esd.optim import make_optimizers, set_learning_rates, set_phi_rate
from splat_esd.rasterize import RenderOutput, rasterize
from splat_esd.regularize import regularize

REFUSED_LIMIT = 20  # steps in a row without a finite gradient before the run is put back
GIVE_UP_LIMIT = 100  # the same, in a run that was put back once


@dataclass
class Run:
    """All that changes during a run, and what it is made with."""

    config: Config
    seed: int
    device: torch.device
    prior: Prior
    guidance: SDS
    gaussians: Gaussians
    optimizers: dict[str, torch.optim.Optimizer]
    phi_optimizer: torch.optim.Adam | None
    density: Density
    cameras: CameraDistribution
    background: BackgroundDistribution
    start: ImportedSplats  # as it was read: its placement, and what is to be said of it
    leash: Leash  # what of the start is kept
    refused: int = 0  # steps in a row
    refused_in_all: int = 0
    rate_factor: float = 1.0  # of all learning rates; halved when the run is put back


class NotFinite(EnvironmentProblem):
    """The gradients stay without finite values."""


def make_run(config: Config, prior: Prior) -> Run:
    """Builds a run at step 0.

    Raises:
        UsageError: If the prompt has words the prior does not know, or the initial file is
            unreadable.
        ValueError: If the seed is still to be drawn.
    """
    if config.seed is None:
        raise ValueError("config.seed: expected a number, got None; `generate` draws one.")
    if prior.together > 1 and world() > 1:
        raise UsageError("this prior draws its views together, in one process: set processes=1.")
    if config.cameras.batch_size % prior.together:
        raise UsageError(
            f"cameras.batch_size: {prior.source} draws {prior.together} views together; "
            f"expected a multiple of {prior.together}, got {config.cameras.batch_size}."
        )
    device = prior.device
    book = PromptBook(
        prior,
        config.prompt,
        config.negative_prompt,
        by_view=config.prior.view_prompts,
        front=math.radians(config.init.front),
    )
    start = initial_splats(config, config.seed)
    gaussians = start.gaussians.to(device)
    optimizers = make_optimizers(gaussians)
    guidance = make_guidance(
        prior,
        book,
        config.guidance,
        cfg_scale=config.guidance.cfg_scale,
        perp_neg=config.guidance.perp_neg.enabled,
        steps=config.steps,
        rank=config.guidance.lora.rank,
        seed=config.seed,
    )
    phi_optimizer = None
    if guidance.phi is not None:
        phi_optimizer = torch.optim.Adam(guidance.phi.groups())
    views = config.cameras
    return Run(
        config=config,
        start=start,
        leash=make_leash(start, config.init),
        seed=config.seed,
        device=device,
        prior=prior,
        guidance=guidance,
        gaussians=gaussians,
        optimizers=optimizers,
        phi_optimizer=phi_optimizer,
        density=Density(config.density, config.steps, gaussians, optimizers),
        cameras=CameraDistribution(
            batch_size=views.batch_size,
            elevation=_radians(views.elevation),
            distance=views.distance,
            fovy=_radians(views.fovy),
            width=prior.image_size,
            height=prior.image_size,
            progressive_until=views.progressive_until,
            front=math.radians(config.init.front),
            together=prior.together,
            growth=tuple((u, prior.side_at(share)) for u, share in config.prior.growth),
        ),
        background=BackgroundDistribution(
            views.background.color, views.background.random_probability
        ),
    )


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Returns the source of all randomness of one step; step -1 is the initialisation."""
    state = np.random.SeedSequence([seed, step + 1]).generate_state(1)[0]
    return torch.Generator(device).manual_seed(int(state))


def render(run: Run, cameras: Cameras, background: torch.Tensor | None) -> RenderOutput:
    """Renders the run's Gaussians:  x = g(theta, c)."""
    settings = run.config.rasterizer
    return rasterize(
        run.gaussians,
        cameras,
        background=background,
        backend=settings.backend,
        near_plane=settings.near_plane,
        eps2d=settings.eps2d,
        antialiased=settings.antialiased,
    )


def train_step(run: Run, step: int) -> dict[str, float | int]:
    """Updates theta by the score's gradient, then phi by score matching; returns what to log.

    A step with a gradient that is not finite changes nothing at all and says so (`refused`).

    Raises:
        NotFinite: After `REFUSED_LIMIT` such steps in a row, or `GIVE_UP_LIMIT` with rates that
            are halved already.
    References:
        ESD (Wang et al., 2024), Algorithm 1.
    """
    views = run.config.cameras.batch_size
    while True:
        try:
            return _train_step(run, step)
        except torch.OutOfMemoryError:  # nothing has changed, or it was put back
            fewer = halved(run.prior.rows, views)
            if run.config.prior.memory != "auto" or fewer is None or world() > 1:
                raise
        run.prior.rows = fewer
        for optimizer in _optimizers(run):
            optimizer.zero_grad()
        torch.cuda.empty_cache()
        console.warn(
            f"step {step + 1} ran out of memory; from here on {fewer} of {views} views pass "
            "through the networks at once (prior.memory)."
        )


def _train_step(run: Run, step: int) -> dict[str, float | int]:
    config = run.config
    rows = rows_of(config.cameras.batch_size)  # of the batch, which every process draws whole
    generator = step_generator(run.seed, step, run.device)
    cameras = rows.of(run.cameras.sample(generator, step / config.steps))  # c ~ p(c)
    background = rows.of(_background(run, rows.count, generator))
    out = render(run, cameras, background)  # x = g(theta, c)
    z = run.prior.encode_images(out.rgb)  # z = E(x)

    # E[ (dz/dtheta)^T grad_z ]  and  grad_phi |phi(z_t, t, c or null) - eps|^2, of one draw
    others = _further_views(run, step, background, generator)
    score = run.guidance.gradient(z.detach(), cameras, step, generator, rows, others)
    loss = run.prior.surrogate(out.rgb, z, score.grad)  # d loss / d z = grad_z / B
    loss = loss + regularize(out, run.gaussians, **config.regularize.at(step / config.steps))
    run.density.before_backward(out)
    (rows.share * loss).backward()
    phi_stats = _phi_gradient(run, score.phi, rows)
    screen = run.density.screen_gradients(out, step, rows.count)
    evidence = [] if score.evidence is None else score.evidence.tensors()
    sum_in_place(_gradients(run) + list(screen.values()) + evidence)  # before anything has changed
    run.leash.hold(run.gaussians, screen)
    finite = _finite(run)

    stats: dict[str, float] = {"refused": 1}
    if finite:
        more = isinstance(run.guidance, ESD) and config.guidance.lora.steps > 1
        before = _copy_of_state(run) if more else None
        set_learning_rates(run.optimizers, config.learning_rates, step / config.steps)
        _slow_down(run)
        for optimizer in run.optimizers.values():  # theta <- theta - eta ...
            optimizer.step()
        run.leash.pull(run.gaussians, run.optimizers)
        if run.phi_optimizer is not None:  # phi <- phi - eta' ...
            run.phi_optimizer.step()
        if before is not None:
            try:
                finite, phi_stats = _teach_phi_on(run, z.detach(), cameras, step, generator, rows)
            except torch.OutOfMemoryError:
                _put_back(run, before)
                raise
            if not finite:
                _put_back(run, before)
    if finite:
        stats = run.density.after_step(screen, step, generator)
        if run.guidance.rectifier is not None and score.evidence is not None:
            run.guidance.rectifier.learn(score.evidence)
    run.refused = 0 if finite else run.refused + 1
    run.refused_in_all += not finite
    for optimizer in run.optimizers.values():
        optimizer.zero_grad()
    if run.refused >= (REFUSED_LIMIT if run.rate_factor == 1.0 else GIVE_UP_LIMIT):
        raise NotFinite(
            f"the gradients were not finite in {run.refused} steps in a row (at step {step}); "
            "nothing was changed by them. Try prior.dtype=fp32, or a lower guidance.cfg_scale."
        )
    return mean_of(score.stats | phi_stats, rows.share) | stats


def _background(run: Run, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draws a colour for each view, or one for all where views are held against each other."""
    if not run.guidance.others:
        return run.background.sample(count, generator)
    return run.background.sample(1, generator).expand(count, -1)


@torch.no_grad()
def _further_views(
    run: Run, step: int, background: torch.Tensor, generator: torch.Generator
) -> torch.Tensor | None:
    """Returns latents of as many views from p(c) as the guidance needs, or None if it needs
    none.
    """
    count = run.guidance.others
    if not count:
        return None
    around = replace(run.cameras, batch_size=count, together=1)
    cameras = around.sample(generator, step / run.config.steps)
    out = render(run, cameras, background[:1].expand(count, -1))
    return run.prior.encode_images(out.rgb)


def _gradients(run: Run) -> list[torch.Tensor]:
    return [p.grad for o in _optimizers(run) for p in _parameters(o) if p.grad is not None]


def _phi_gradient(run: Run, losses: DenoisingLosses | None, rows: Rows) -> dict[str, float | int]:
    if losses is None or run.phi_optimizer is None:
        return {"unet_phi_training": 0}
    run.phi_optimizer.zero_grad()
    (rows.share * losses.values.mean()).backward()
    return losses.stats() | {"unet_phi_training": 1}


def _teach_phi_on(
    run: Run,
    z: torch.Tensor,
    cameras: Cameras,
    step: int,
    generator: torch.Generator,
    rows: Rows,
) -> tuple[bool, dict[str, float | int]]:
    """Makes the updates of phi beyond the first, each with a (z_t, t, eps) of its own; returns
    whether all gradients were finite, and what to log.
    """
    guidance = run.guidance
    stats: dict[str, float | int] = {}
    if not isinstance(guidance, ESD) or run.phi_optimizer is None:
        return True, stats
    for done in range(1, run.config.guidance.lora.steps):
        losses = guidance.losses(z, cameras, step, generator, rows)
        stats = _phi_gradient(run, losses, rows) | {"unet_phi_training": done + 1}
        sum_in_place([p.grad for p in _parameters(run.phi_optimizer) if p.grad is not None])
        if not _finite(run):
            return False, stats
        run.phi_optimizer.step()
    return True, stats


def _slow_down(run: Run) -> None:
    for optimizer in run.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] *= run.rate_factor
    if run.phi_optimizer is not None:
        set_phi_rate(run.phi_optimizer, run.config.guidance.lora.learning_rate * run.rate_factor)


def _optimizers(run: Run) -> list[torch.optim.Optimizer]:
    phi = [] if run.phi_optimizer is None else [run.phi_optimizer]
    return [*run.optimizers.values(), *phi]


def _copy_of_state(run: Run) -> list[tuple[list[torch.Tensor], dict]]:
    """Copies what a step changes before its last gradient is known: parameters and moments."""
    return [
        ([p.detach().clone() for p in _parameters(o)], deepcopy(o.state_dict()))
        for o in _optimizers(run)
    ]


@torch.no_grad()
def _put_back(run: Run, before: list[tuple[list[torch.Tensor], dict]]) -> None:
    for optimizer, (values, state) in zip(_optimizers(run), before, strict=True):
        torch._foreach_copy_(_parameters(optimizer), values)
        optimizer.load_state_dict(state)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _finite(run: Run) -> bool:
    return all(
        p.grad is None or bool(p.grad.isfinite().all())
        for optimizer in _optimizers(run)
        for p in _parameters(optimizer)
    )


def run_state(run: Run) -> dict[str, Any]:
    """Returns everything that a continued run needs, as tensors and plain values."""
    state: dict[str, Any] = {
        "gaussians": {k: v.detach() for k, v in run.gaussians.parameters().items()},
        "optimizers": {k: o.state_dict() for k, o in run.optimizers.items()},
        "density": run.density.state_dict(),
        "refused": run.refused,
        "refused_in_all": run.refused_in_all,
        "rate_factor": run.rate_factor,
    }
    if run.guidance.phi is not None and run.phi_optimizer is not None:
        state["phi"] = {k: p.detach() for k, p in run.guidance.phi.trainable().items()}
        state["phi_optimizer"] = run.phi_optimizer.state_dict()
    if run.guidance.rectifier is not None:
        state["rectifier"] = run.guidance.rectifier.state_dict()
    return state


def restore_run(run: Run, state: dict[str, Any]) -> None:
    """Puts a run where `run_state` was taken."""
    for name, value in state["gaussians"].items():
        parameter = torch.nn.Parameter(value.to(run.device))
        setattr(run.gaussians, name, parameter)
        run.optimizers[name].param_groups[0]["params"] = [parameter]
        run.optimizers[name].load_state_dict(state["optimizers"][name])
    run.density.load_state_dict(state["density"])
    run.refused = state["refused"]
    run.refused_in_all = state.get("refused_in_all", 0)
    run.rate_factor = state.get("rate_factor", 1.0)
    if run.guidance.phi is not None and run.phi_optimizer is not None:
        with torch.no_grad():
            for name, parameter in run.guidance.phi.trainable().items():
                parameter.copy_(state["phi"][name])
        run.phi_optimizer.load_state_dict(state["phi_optimizer"])
    if run.guidance.rectifier is not None:
        run.guidance.rectifier.load_state_dict(state["rectifier"])


def initial_splats(config: Config, seed: int) -> ImportedSplats:
    """Returns the splats of step 0: a ball's, or those that a file gives."""
    init = config.init
    if init.kind == "ball" or init.path is None:
        generator = step_generator(seed, -1, torch.device("cpu"))
        splats = ball(
            init.count,
            radius=init.radius,
            opacity=init.opacity,
            color=init.color,
            generator=generator,
        )
        return ImportedSplats(splats, UNIT_BALL, ())
    return from_file(
        init.path,
        opacity=init.opacity,
        count=init.count,
        imported=config.imported,
        points_only=init.kind == "points",
    )


def _radians(degrees: tuple[float, float]) -> tuple[float, float]:
    return math.radians(degrees[0]), math.radians(degrees[1])
