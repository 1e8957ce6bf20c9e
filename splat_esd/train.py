"""Algorithm 1 of the paper: theta, the Gaussians, and phi, the LoRA, in turn.

    repeat
        c ~ p(c),  x = g(theta, c),  z = E(x)
        theta <- theta - eta E_{t, eps} [ (dz/dtheta)^T grad_z ]          guidance.py
        phi   <- phi - eta' grad_phi |eps_phi(z_t, t, y, c or nothing) - eps|^2

Randomness is a function of (seed, step), so a run that is stopped and continued gives the same
bits.
"""

import math
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from splat_esd.cameras import BackgroundDistribution, CameraDistribution, Cameras
from splat_esd.config.load import Config
from splat_esd.densify import Density
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.prompts import PromptBook
from splat_esd.errors import EnvironmentProblem
from splat_esd.gaussians import Gaussians
from splat_esd.guidance import SDS, make_guidance
from splat_esd.initialize import ball, from_ply, from_points, read_points
from splat_esd.optim import make_optimizers, set_learning_rates
from splat_esd.rasterize import RenderOutput, rasterize
from splat_esd.regularize import regularize

REFUSED_LIMIT = 20  # steps in a row without a finite gradient before the run gives up


@dataclass
class Run:
    """All that changes during a run, and what it is made with."""

    config: Config
    device: torch.device
    prior: Prior
    guidance: SDS
    gaussians: Gaussians
    optimizers: dict[str, torch.optim.Adam]
    phi_optimizer: torch.optim.Adam | None
    density: Density
    cameras: CameraDistribution
    background: BackgroundDistribution
    refused: int = 0  # steps in a row


def make_run(config: Config, prior: Prior) -> Run:
    """Builds a run at step 0.

    Raises:
        UsageError: If the prompt has words the prior does not know, or the initial file is
            unreadable.
    """
    device = prior.device
    book = PromptBook(
        prior, config.prompt, config.negative_prompt, by_view=config.prior.view_prompts
    )
    gaussians = _initial_gaussians(config).to(device)
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
        phi = guidance.phi.trainable().values()
        phi_optimizer = torch.optim.Adam(phi, lr=config.guidance.lora.learning_rate)
    views = config.cameras
    return Run(
        config=config,
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
        EnvironmentProblem: After `REFUSED_LIMIT` such steps in a row.
    References:
        ESD (Wang et al., 2024), Algorithm 1.
    """
    config = run.config
    generator = step_generator(config.seed, step, run.device)
    cameras = run.cameras.sample(generator, step / config.steps)  # c ~ p(c)
    out = render(run, cameras, run.background.sample(len(cameras), generator))  # x = g(theta, c)
    z = run.prior.encode_images(out.rgb)  # z = E(x)
    before = _copy_of_state(run)

    # theta <- theta - eta E[ (dz/dtheta)^T grad_z ]
    score = run.guidance.gradient(z.detach(), cameras, step, generator)
    loss = run.prior.surrogate(out.rgb, z, score.grad)  # d loss / d z = grad_z / B
    loss = loss + regularize(out, run.gaussians, **config.regularize.model_dump())
    run.density.before_backward(out)
    loss.backward()
    finite = _finite(run.gaussians.parameters().values())
    if finite:
        set_learning_rates(run.optimizers, config.learning_rates, step / config.steps)
        for optimizer in run.optimizers.values():
            optimizer.step()

    # phi <- phi - eta grad E |phi(z_t, t, c or null) - eps|^2
    phi_stats: dict[str, float] = {"unet_phi_training": 0}
    for _ in range(config.guidance.lora.steps if run.phi_optimizer is not None else 0):
        if not finite:
            break
        run.phi_optimizer.zero_grad()
        phi_stats |= run.guidance.fit(z, cameras, generator)
        phi_stats["unet_phi_training"] += 1
        finite = _finite(run.guidance.phi.trainable().values())
        if finite:
            run.phi_optimizer.step()

    if finite:
        stats = run.density.after_step(out, step, generator)
    else:
        _put_back(run, before)
        stats = {"refused": 1}
    run.refused = 0 if finite else run.refused + 1
    for optimizer in run.optimizers.values():
        optimizer.zero_grad()
    if run.refused >= REFUSED_LIMIT:
        raise EnvironmentProblem(
            f"the gradients were not finite in {run.refused} steps in a row (at step {step}); "
            "nothing was changed by them. Try prior.dtype=fp32, or a lower guidance.cfg_scale."
        )
    return score.stats | phi_stats | stats


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


def _finite(parameters: Iterable[torch.Tensor]) -> bool:
    return all(p.grad is None or bool(p.grad.isfinite().all()) for p in parameters)


def run_state(run: Run) -> dict[str, object]:
    """Returns everything that a continued run needs, as tensors and plain values."""
    state = {
        "gaussians": {k: v.detach() for k, v in run.gaussians.parameters().items()},
        "optimizers": {k: o.state_dict() for k, o in run.optimizers.items()},
        "density": run.density.state_dict(),
        "refused": run.refused,
    }
    if run.phi_optimizer is not None:
        state["phi"] = {k: p.detach() for k, p in run.guidance.phi.trainable().items()}
        state["phi_optimizer"] = run.phi_optimizer.state_dict()
    return state


def restore_run(run: Run, state: dict[str, object]) -> None:
    """Puts a run where `run_state` was taken."""
    for name, value in state["gaussians"].items():
        parameter = torch.nn.Parameter(value.to(run.device))
        setattr(run.gaussians, name, parameter)
        run.optimizers[name].param_groups[0]["params"] = [parameter]
        run.optimizers[name].load_state_dict(state["optimizers"][name])
    run.density.load_state_dict(state["density"])
    run.refused = state["refused"]
    if run.phi_optimizer is not None:
        with torch.no_grad():
            for name, parameter in run.guidance.phi.trainable().items():
                parameter.copy_(state["phi"][name])
        run.phi_optimizer.load_state_dict(state["phi_optimizer"])


def _initial_gaussians(config: Config) -> Gaussians:
    init = config.init
    if init.kind == "ball":
        generator = step_generator(config.seed, -1, torch.device("cpu"))
        return ball(
            init.count,
            radius=init.radius,
            opacity=init.opacity,
            color=init.color,
            generator=generator,
        )
    if init.kind == "points":
        return from_points(*read_points(init.path), opacity=init.opacity)
    return from_ply(init.path, opacity=init.opacity)


def _radians(degrees: tuple[float, float]) -> tuple[float, float]:
    return math.radians(degrees[0]), math.radians(degrees[1])
