import math
from dataclasses import replace

import pytest
import torch
from scenes import BACKENDS, Backend, astype, leaves, random_gaussians, screened, some_cameras

from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import rasterize

BACKGROUND = torch.tensor([[0.2, 0.5, 0.9], [1.0, 0.0, 0.3]])
LOSSES = {
    "rgb": lambda out: [out.rgb],
    "alpha": lambda out: [out.alpha],
    "everything": lambda out: [out.rgb, out.alpha, out.depth],
}
TOLERANCES = {
    "means": 2e-5,
    "quats": 2e-5,
    "log_scales": 2e-5,
    "logit_opacities": 1e-5,
    "sh": 1e-5,
    "background": 1e-5,
    "means2d": 1e-5,
    "conics": 1e-5,
}


@pytest.fixture(params=BACKENDS, ids=str)
def backend(request):
    return request.param


def cameras_32(count=2):
    return astype(some_cameras(count), torch.float32)


def weighted(images):
    """A loss in which every pixel counts, each otherwise."""
    generator = torch.Generator().manual_seed(0)
    return sum(
        (x * torch.randn(x.shape, generator=generator).to(x.device, x.dtype)).sum() for x in images
    )


def gradients(backend, gaussians, cameras, dtype, loss, **options):
    parameters = leaves(gaussians, dtype)
    background = BACKGROUND.to(dtype, copy=True).requires_grad_()
    out = backend.draw(parameters, astype(cameras, dtype), background=background, **options)
    for name in ("means2d", "conics"):
        out.info[name].retain_grad()
    weighted(loss(out)).backward()
    found = {name: value.grad for name, value in parameters.parameters().items()}
    found |= {name: out.info[name].grad for name in ("means2d", "conics")}
    found["background"] = torch.zeros(2, 3) if background.grad is None else background.grad
    return {name: value.cpu() for name, value in found.items()}


def assert_close(exact, found):
    for name, tolerance in TOLERANCES.items():
        error = (found[name] - exact[name]).norm()
        assert error <= tolerance * exact[name].norm(), f"{name}: {error / exact[name].norm():.1e}"


def test_the_reference_agrees_with_central_differences():
    cameras = some_cameras(2, width=11, height=9)

    def few(seed):
        gaussians = random_gaussians(6, degree=1, seed=seed)
        gaussians.means.mul_(0.5)
        gaussians.log_scales.add_(1.5)
        return gaussians

    gaussians = screened(few, cameras, antialiased=True)

    def draw(*parameters):
        out = rasterize(
            Gaussians(*parameters[:5]),
            cameras,
            backend="reference",
            background=parameters[5],
            antialiased=True,
        )
        return out.rgb, out.alpha, out.depth

    inputs = [v.requires_grad_() for v in gaussians.parameters().values()]
    assert torch.autograd.gradcheck(
        draw, [*inputs, BACKGROUND.double().requires_grad_()], eps=1e-7, atol=1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("degree", [0, 3])
def test_every_gradient_is_the_references(backend, degree, antialiased, loss):
    cameras = some_cameras()
    gaussians = screened(
        lambda seed: random_gaussians(300, degree=degree, seed=seed),
        cameras,
        antialiased=antialiased,
        seed=degree,
    )
    options = {"loss": loss, "antialiased": antialiased}
    exact = gradients(Backend("reference"), gaussians, cameras, torch.float64, **options)
    assert_close(exact, gradients(backend, gaussians, cameras, torch.float32, **options))


def test_gradients_of_splats_outside_the_frustum_are_the_references(backend):
    def wide(seed):
        gaussians = random_gaussians(200, degree=1, seed=seed)
        gaussians.means.mul_(2.5)
        gaussians.log_scales.add_(1.0)
        return gaussians

    cameras = some_cameras()
    gaussians = screened(wide, cameras)
    options = {"loss": LOSSES["everything"], "near_plane": 0.3}
    exact = gradients(Backend("reference"), gaussians, cameras, torch.float64, **options)
    assert_close(exact, gradients(backend, gaussians, cameras, torch.float32, **options))


def test_gradients_of_a_large_scene_survive_flipped_decisions(backend):
    gaussians = random_gaussians(4000, degree=1, seed=7)
    cameras = some_cameras(2, width=64, height=64)
    options = {"loss": LOSSES["everything"]}
    exact = gradients(Backend("reference"), gaussians, cameras, torch.float64, **options)
    found = gradients(backend, gaussians, cameras, torch.float32, **options)
    for name in TOLERANCES:
        assert (found[name] - exact[name]).norm() <= 3e-3 * exact[name].norm(), name


def test_a_saturated_splat_moves_its_colour_only(backend):
    gaussians = leaves(random_gaussians(1), torch.float32)
    with torch.no_grad():
        gaussians.means.zero_()
        gaussians.log_scales.fill_(math.log(200.0))
        gaussians.logit_opacities.fill_(30.0)
    backend.draw(gaussians, cameras_32()).rgb.sum().backward()
    assert not gaussians.means.grad.any()
    assert not gaussians.quats.grad.any()
    assert not gaussians.log_scales.grad.any()
    assert not gaussians.logit_opacities.grad.any()
    assert (gaussians.sh.grad > 0).all()


def test_means2d_carries_its_gradient_and_its_absolute_gradient(backend):
    cameras = some_cameras(1, width=8, height=8)
    gaussians = screened(lambda seed: random_gaussians(30, seed=seed), cameras)
    exact = rasterize(leaves(gaussians, torch.float64), cameras, backend="reference")
    means2d = exact.info["means2d"]
    weights = torch.randn(8, 8, 3, generator=torch.Generator().manual_seed(1)).double()
    per_pixel = torch.stack(
        [
            torch.autograd.grad(value, means2d, retain_graph=True)[0]
            for value in (exact.rgb[0] * weights).sum(-1).flatten()
        ]
    )
    out = backend.draw(
        leaves(gaussians, torch.float32), astype(cameras, torch.float32), absgrad=True
    )
    out.info["means2d"].retain_grad()
    (out.rgb[0] * weights.to(out.rgb)).sum().backward()
    found, absolute = out.info["means2d"].grad.cpu(), out.info["means2d"].absgrad.cpu()
    assert (found - per_pixel.sum(0)).norm() <= 1e-5 * per_pixel.sum(0).norm()
    assert (absolute - per_pixel.abs().sum(0)).norm() <= 1e-5 * per_pixel.abs().sum(0).norm()


def test_absgrad_is_not_left_behind_unasked(backend):
    out = backend.draw(leaves(random_gaussians(9), torch.float32), cameras_32())
    out.rgb.sum().backward()
    assert not hasattr(out.info["means2d"], "absgrad")


def test_backward_may_run_twice(backend):
    gaussians = leaves(random_gaussians(80, degree=1), torch.float32)
    out = backend.draw(gaussians, cameras_32())
    loss = weighted([out.rgb, out.depth])
    first = torch.autograd.grad(loss, list(gaussians.parameters().values()), retain_graph=True)
    second = torch.autograd.grad(loss, list(gaussians.parameters().values()))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_nothing_is_recorded_where_no_gradient_is_wanted(backend):
    gaussians = leaves(random_gaussians(9), torch.float32)
    with torch.no_grad():
        assert not backend.draw(gaussians, cameras_32()).rgb.requires_grad
    assert not backend.draw(gaussians.detach(), cameras_32()).rgb.requires_grad


@pytest.mark.parametrize("wanted", ["means", "quats", "log_scales", "logit_opacities", "sh"])
def test_one_parameter_alone_gets_the_gradient_it_gets_among_all(backend, wanted):
    everything = leaves(random_gaussians(80, degree=1), torch.float32)
    weighted([backend.draw(everything, cameras_32()).rgb]).backward()
    one = everything.detach()
    getattr(one, wanted).requires_grad_()
    weighted([backend.draw(one, cameras_32()).rgb]).backward()
    assert torch.equal(getattr(one, wanted).grad, getattr(everything, wanted).grad)
    assert sum(v.grad is not None for v in one.parameters().values()) == 1


def test_the_background_alone_gets_the_transmittance(backend):
    background = BACKGROUND.clone().requires_grad_()
    out = backend.draw(
        astype(random_gaussians(80), torch.float32), cameras_32(), background=background
    )
    out.rgb.sum().backward()
    expected = (1 - out.alpha).sum((1, 2)).cpu().expand(2, 3)
    assert torch.allclose(background.grad, expected, rtol=1e-5)


def test_cameras_add_up(backend):
    cameras = cameras_32(3)
    together = leaves(random_gaussians(80, degree=2), torch.float32)
    backend.draw(together, cameras).rgb.square().sum().backward()
    apart = leaves(random_gaussians(80, degree=2), torch.float32)
    for i in range(3):
        backend.draw(apart, cameras[i]).rgb.square().sum().backward()
    for name, value in together.parameters().items():
        other = getattr(apart, name).grad
        assert (value.grad - other).norm() <= 1e-5 * other.norm(), name


@pytest.mark.parametrize("count", [2000, 40_000])
def test_gradients_are_the_same_bits_on_any_number_of_threads(count):
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(
                gradients(
                    Backend("cpu"),
                    random_gaussians(count, degree=1),
                    some_cameras(),
                    torch.float32,
                    loss=LOSSES["everything"],
                )
            )
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for name, value in found[0].items():
            assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["means", "quats", "log_scales", "sh"])
def test_poison_does_not_spread_through_the_gradients(backend, field, value):
    clean = random_gaussians(40, degree=1, seed=3)
    others = torch.arange(40) != 7
    sick = replace(clean, **{field: getattr(clean, field).clone()})
    getattr(sick, field)[7] = value
    sick, rest = leaves(sick, torch.float32), leaves(clean.select(others), torch.float32)
    for gaussians in (sick, rest):
        weighted([backend.draw(gaussians, cameras_32()).rgb]).backward()
    for name, found in sick.parameters().items():
        expected = getattr(rest, name).grad
        assert (found.grad[others] - expected).norm() <= 1e-5 * expected.norm(), name


def test_what_is_not_seen_gets_no_gradient(backend):
    gaussians = leaves(random_gaussians(30), torch.float32)
    with torch.no_grad():
        gaussians.means[:, 2] += 100
    out = backend.draw(gaussians, cameras_32())
    (out.rgb.sum() + out.alpha.sum() + out.depth.sum()).backward()
    for value in gaussians.parameters().values():
        assert not value.grad.any()


def test_no_gaussians_get_no_gradients(backend):
    gaussians = leaves(random_gaussians(0), torch.float32)
    backend.draw(gaussians, cameras_32()).rgb.sum().backward()
    assert gaussians.means.grad.shape == (0, 3)
