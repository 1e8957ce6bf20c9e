"""Whether what a checkpoint holds is the state of a run, before anything of it is believed."""

from typing import Any

import torch

from splat_esd.train import Run, run_state


def check_state(run: Run, state: dict[str, Any]) -> None:
    """Compares a state with what this run would save: names, kinds, and shapes but for the count.

    Raises:
        ValueError: If it is not the state of such a run; it says where.
    """
    mine = run_state(run)
    count = len(state["gaussians"]["means"]) if _has(state, "gaussians", "means") else -1
    for part in ("gaussians", "phi"):
        for name, parameter in dict(mine.get(part, {})).items():
            value = state[part].get(name) if isinstance(state.get(part), dict) else None
            shape = tuple(parameter.shape)
            _check_tensor(f"{part} {name}", value, (count, *shape[1:]) if part != "phi" else shape)
    for name, optimizer in {**run.optimizers, "phi": run.phi_optimizer}.items():
        if optimizer is not None:
            groups = optimizer.param_groups
            shapes = [tuple(p.shape) for group in groups for p in group["params"]]
            known, found = state.get("phi_optimizer"), state.get("optimizers")
            if name != "phi":
                known = found.get(name) if isinstance(found, dict) else None
                shapes = [(count, *shape[1:]) for shape in shapes]
            _check_moments(name, known, optimizer.state_dict(), shapes)
    density = state.get("density")
    if not isinstance(density, dict):
        raise ValueError("density is missing")
    for name, value in density.items():
        _check_tensor(f"density {name}", value, (count,))
    for name in ("refused", "refused_in_all", "rate_factor"):
        if type(state.get(name, 0)) not in (int, float):
            raise ValueError(f"{name} is no number")


def _check_moments(name: str, known: object, mine: dict, shapes: list[tuple[int, ...]]) -> None:
    given = known if isinstance(known, dict) else {}
    groups: Any = given.get("param_groups")
    wanted = [(group.keys(), len(group["params"])) for group in mine["param_groups"]]
    try:
        fits = [(group.keys(), len(group["params"])) for group in groups] == wanted
        states = {} if not fits else {int(i): dict(s) for i, s in given["state"].items()}
    except (TypeError, KeyError, AttributeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"optimizer {name} is another")
    for i, moments in states.items():
        if not 0 <= i < len(shapes) or moments.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"optimizer {name} is another")
        _check_tensor(f"optimizer {name}", moments["step"], ())
        for moment in ("exp_avg", "exp_avg_sq"):
            _check_tensor(f"optimizer {name}", moments[moment], shapes[i])


def _check_tensor(name: str, value: object, shape: tuple[int, ...]) -> None:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        raise ValueError(f"{name} is missing")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} has shape {list(value.shape)}, not {list(shape)}")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} is not finite")


def _has(state: dict[str, Any], part: str, name: str) -> bool:
    section = state.get(part)
    value = section.get(name) if isinstance(section, dict) else None
    return isinstance(value, torch.Tensor) and value.ndim > 0
