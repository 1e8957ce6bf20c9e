"""One call of gsplat's rasterization, in float64 over `gsplat_oracle` and in float32 over what is
tested: pictures, meta and gradients side by side.
"""

import sys
from contextlib import contextmanager

import gsplat_oracle
import torch
from scenes import random_gaussians, screened, some_cameras

SIZE = {"width": 35, "height": 20}
TOLERANCES = {
    "means": 2e-5,
    "quats": 2e-5,
    "scales": 2e-5,
    "covars": 2e-5,
    "viewmats": 2e-5,
    "opacities": 1e-5,
    "colors": 1e-5,
    "backgrounds": 1e-5,
    "means2d": 1e-5,
    "absgrad": 1e-5,
}


@contextmanager
def computing_with(kernels):
    """Makes gsplat find this module as its compiled kernels, for as long as it lasts."""
    names = ("gsplat.csrc", "gsplat.cuda._backend")  # the second remembers what it found
    before = {name: sys.modules.pop(name, None) for name in names}
    sys.modules["gsplat.csrc"] = kernels
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def scene(*, degree=0, antialiased=False, cameras=3, count=200):
    """Named tensors in float64 that gsplat takes, free of decisions that rounding could change."""
    views = some_cameras(cameras, **SIZE)
    splats = screened(
        lambda seed: random_gaussians(count, degree=degree, seed=seed),
        views,
        antialiased=antialiased,
    )
    return {
        "means": splats.means,
        "quats": splats.quats,
        "scales": splats.scales,
        "opacities": splats.opacities,
        "colors": random(count, 3, seed=1),
        "sh": splats.sh,
        "viewmats": views.viewmats,
        "Ks": views.Ks,
    }


def colored(tensors):
    return {k: v for k, v in tensors.items() if k != "sh"}


def with_harmonics(tensors):
    return colored(tensors) | {"colors": tensors["sh"]}


def random(*shape, seed=2):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outcome(render, tensors, dtype, **options):
    """Draws, and sends random cotangents back to every tensor that can have a gradient."""
    leaves = {
        k: v.detach().to(dtype, copy=True).requires_grad_(k != "Ks") for k, v in tensors.items()
    }
    images, alphas, meta = render(**leaves, **SIZE, **options)
    meta["means2d"].retain_grad()
    generator = torch.Generator().manual_seed(3)
    loss = sum(
        (x * torch.randn(x.shape, generator=generator).to(x.dtype)).sum() for x in (images, alphas)
    )
    loss.backward()
    found = {k: v.grad for k, v in leaves.items() if k != "Ks"}
    found["means2d"] = meta["means2d"].grad
    if options.get("absgrad"):
        found["absgrad"] = meta["means2d"].absgrad
    return images, alphas, meta, found


def compare(render, kernels, tensors, *, packed=False, oracle_packed=None, **options):
    """Holds `render`, which may call gsplat with these kernels, to gsplat over the oracle."""
    from gsplat import rasterization

    oracle_packed = packed if oracle_packed is None else oracle_packed
    with computing_with(gsplat_oracle):
        exact = outcome(rasterization, tensors, torch.float64, packed=oracle_packed, **options)
    with computing_with(kernels):
        found = outcome(render, tensors, torch.float32, packed=packed, **options)
    assert found[0].shape == exact[0].shape
    scale = exact[0].abs().max().clamp_min(1.0)
    assert (found[0] - exact[0]).abs().max() <= 1e-5 * scale
    assert (found[1] - exact[1]).abs().max() <= 1e-5
    for name, expected in exact[3].items():
        if name in ("means2d", "absgrad") and packed != oracle_packed:
            continue
        if expected is None:  # nothing of it was drawn
            assert found[3][name] is None, name
            continue
        got = found[3][name].to_dense() if found[3][name].is_sparse else found[3][name]
        assert torch.isfinite(got).all(), name
        error = (got - expected).norm() / expected.norm().clamp_min(1e-9)
        assert error <= TOLERANCES[name], f"{name}: {error:.1e}"
    return exact, found
