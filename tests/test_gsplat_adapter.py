"""Holds the adapter to the reference on a CPU: gsplat's own Python over `gsplat_oracle`."""

import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import gsplat_oracle
import pytest
import torch
from scenes import astype, leaves, random_gaussians, screened, some_cameras

from splat_esd.errors import EnvironmentProblem
from splat_esd.gaussians import Gaussians
from splat_esd.rasterize import RenderOutput, cuda, rasterize

BACKGROUND = torch.tensor([[0.2, 0.5, 0.9], [1.0, 0.0, 0.3], [0.0, 0.1, 0.0]]).double()
OPTIONS = {"near_plane": 0.01, "far_plane": 1e10, "eps2d": 0.3}
PARAMETERS = {
    "means": "means",
    "quats": "quats",
    "scales": "log_scales",
    "opacities": "logit_opacities",
    "sh": "sh",
}


@pytest.fixture(autouse=True)
def gsplat_on_cpu(monkeypatch, request):
    if not request.node.get_closest_marker("gpu"):
        gsplat_oracle.install(monkeypatch)


@pytest.fixture(params=[False, True], ids=["unpacked", "packed"])
def packed(request):
    return request.param


def draw(gaussians, cameras, *, packed=False, antialiased=False, background=None, **options):
    return cuda._draw(
        gaussians,
        cameras,
        background=background,
        antialiased=antialiased,
        packed=packed,
        **{"absgrad": False} | OPTIONS | options,
    )


def by_reference(gaussians, cameras, **options):
    return rasterize(gaussians, cameras, backend="reference", **options)


def by_kernels(gaussians, cameras, **options):
    return rasterize(gaussians, cameras, backend="cpu", **options)


def weighted(out):
    """A loss in which every pixel of every picture counts, each otherwise."""
    generator = torch.Generator().manual_seed(0)
    pictures = (out.rgb, out.alpha, out.depth)
    return sum((x * torch.randn(x.shape, generator=generator).to(x.dtype)).sum() for x in pictures)


def gradients(render, gaussians, cameras, **options):
    parameters = leaves(gaussians, gaussians.means.dtype)
    background = options.pop("background").clone().requires_grad_()
    weighted(render(parameters, cameras, background=background, **options)).backward()
    found = {name: value.grad for name, value in parameters.parameters().items()}
    return found | {"background": background.grad}


def assert_same_picture(expected, found):
    """In float64; gsplat itself rounds alpha to float32."""
    assert (found.rgb - expected.rgb).abs().max() < 2e-7
    assert (found.alpha - expected.alpha).abs().max() < 1e-7
    assert (found.depth - expected.depth).abs().max() < 1e-6


def assert_same_gradients(expected, found, tolerance):
    for name, exact in expected.items():
        error = (found[name] - exact).norm()
        assert error <= tolerance * exact.norm(), f"{name}: {error / exact.norm():.1e}"


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_gsplat_draws_the_reference_picture_and_its_gradients(degree, antialiased, packed):
    cameras = some_cameras(3, width=35, height=20)
    scene = screened(
        lambda seed: random_gaussians(250, degree=degree, seed=seed),
        cameras,
        antialiased=antialiased,
        seed=degree,
    )
    options = {"background": BACKGROUND, "antialiased": antialiased}
    expected = by_reference(scene, cameras, **options)
    assert expected.alpha.mean() > 0.1
    assert_same_picture(expected, draw(scene, cameras, packed=packed, **options))
    assert_same_gradients(
        gradients(by_reference, scene, cameras, **options),
        gradients(draw, scene, cameras, packed=packed, **options),
        2e-6,
    )


@pytest.mark.parametrize("antialiased", [False, True])
def test_the_kernels_draw_what_gsplat_draws(antialiased):
    cameras = some_cameras(3)
    scene = screened(
        lambda seed: random_gaussians(300, degree=1, seed=seed), cameras, antialiased=antialiased
    )
    single = astype(scene, torch.float32), astype(cameras, torch.float32)
    options = {"antialiased": antialiased}
    expected = draw(scene, cameras, background=BACKGROUND, **options)
    found = by_kernels(*single, background=BACKGROUND.float(), **options)
    for name, tolerance in {"rgb": 1e-5, "alpha": 1e-5, "depth": 2e-5}.items():
        assert (getattr(found, name) - getattr(expected, name)).abs().max() <= tolerance, name
    assert_same_gradients(
        gradients(draw, scene, cameras, background=BACKGROUND, **options),
        gradients(by_kernels, *single, background=BACKGROUND.float(), **options),
        2e-5,
    )


def test_splats_outside_the_frustum_are_the_references(packed):
    def wide(seed):
        gaussians = random_gaussians(150, degree=1, seed=seed)
        gaussians.means.mul_(2.5)
        gaussians.log_scales.add_(1.0)
        return gaussians

    cameras = some_cameras(3)
    scene = screened(wide, cameras)
    options = {"background": BACKGROUND, "near_plane": 0.3, "far_plane": 4.5, "eps2d": 0.1}
    expected = by_reference(scene, cameras, **options)
    visible = (expected.info["radii"] > 0).all(-1).double().mean()
    assert 0.1 < visible < 0.9
    assert_same_picture(expected, draw(scene, cameras, packed=packed, **options))
    assert_same_gradients(
        gradients(by_reference, scene, cameras, **options),
        gradients(draw, scene, cameras, packed=packed, **options),
        2e-6,
    )


def test_info_is_the_references_where_splats_are_visible():
    cameras, scene = some_cameras(3), random_gaussians(60)
    scene.means[:20, 2] += 3  # some are above the picture
    expected, found = by_reference(scene, cameras).info, draw(scene, cameras).info
    assert torch.equal(found["radii"], expected["radii"])
    assert found["radii"].dtype == torch.int32
    visible = (found["radii"] > 0).all(-1)
    assert visible.any() and not visible.all()
    for name in ("means2d", "depths", "conics", "opacities"):
        assert found[name].shape == expected[name].shape
        assert torch.allclose(found[name][visible], expected[name][visible]), name
    for name in ("width", "height", "n_cameras", "gaussian_ids"):
        assert found[name] == expected[name]


def test_packed_info_lists_what_is_visible():
    cameras, scene = some_cameras(3), random_gaussians(60)
    scene.means[:20, 2] += 3
    sparse, full = draw(scene, cameras, packed=True).info, draw(scene, cameras).info
    visible = (full["radii"] > 0).all(-1)
    assert torch.equal(sparse["gaussian_ids"], visible.nonzero()[:, 1])
    assert torch.equal(sparse["camera_ids"], visible.nonzero()[:, 0])
    for name in ("radii", "means2d", "depths", "conics"):
        assert torch.equal(sparse[name], full[name][visible])


def test_absgrad_lands_on_means2d_and_is_the_kernels(packed):
    cameras = some_cameras(3)
    scene = screened(lambda seed: random_gaussians(200, seed=seed), cameras)
    out = draw(leaves(scene, torch.float64), cameras, packed=packed, absgrad=True)
    kernels = by_kernels(leaves(scene, torch.float32), astype(cameras, torch.float32), absgrad=True)
    for o in (out, kernels):
        o.info["means2d"].retain_grad()
        weighted(o).backward()
    expected = kernels.info["means2d"]
    if packed:
        rows = (out.info["camera_ids"], out.info["gaussian_ids"])
        expected = SimpleNamespace(grad=expected.grad[rows], absgrad=expected.absgrad[rows])
    found = out.info["means2d"]
    assert (found.absgrad >= found.grad.abs() * (1 - 1e-5)).all()
    for kind in ("grad", "absgrad"):
        a, b = getattr(found, kind), getattr(expected, kind)
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_no_gaussians_show_the_background_and_get_no_gradients(packed):
    cameras, scene = some_cameras(3), leaves(random_gaussians(0), torch.float64)
    out = draw(scene, cameras, packed=packed, background=BACKGROUND)
    assert torch.equal(out.rgb, BACKGROUND[:, None, None].expand_as(out.rgb))
    assert not out.alpha.any()
    assert not out.depth.any()
    weighted(out).backward()
    assert scene.means.grad.shape == (0, 3)


def test_what_is_not_seen_leaves_no_trace(packed):
    """The kernels do not even fill in what belongs to culled splats; here that is NaN."""
    scene = leaves(random_gaussians(30, degree=1), torch.float64)
    with torch.no_grad():
        scene.means[:, 2] += 100
    out = draw(scene, some_cameras(3), packed=packed, antialiased=True, background=BACKGROUND)
    assert torch.equal(out.rgb, BACKGROUND[:, None, None].expand_as(out.rgb))
    assert not out.depth.any()
    weighted(out).backward()
    for name, value in scene.parameters().items():
        assert torch.equal(value.grad, torch.zeros_like(value)), name


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["means", "quats", "log_scales", "logit_opacities", "sh"])
def test_poison_stays_with_the_gaussian_that_has_it(field, value, packed):
    scene, cameras = random_gaussians(40, degree=1, seed=3), some_cameras(1)
    getattr(scene, field)[7] = value
    expected = by_reference(scene, cameras)
    out = draw(scene, cameras, packed=packed)
    assert out.rgb.isfinite().all()
    assert_same_picture(expected, out)
    others = leaves(scene, torch.float64)
    weighted(draw(others, cameras, packed=packed)).backward()
    for parameter in others.parameters().values():
        assert parameter.grad[torch.arange(40) != 7].isfinite().all()


def test_a_zero_quaternion_turns_nothing():
    scene, cameras = random_gaussians(10), some_cameras(1)
    upright = replace(scene, quats=torch.tensor([[2.0, 0, 0, 0]]).double().repeat(10, 1))
    zero = replace(scene, quats=torch.zeros(10, 4).double())
    assert torch.equal(draw(upright, cameras).rgb, draw(zero, cameras).rgb)


def test_tensors_of_any_layout_are_drawn():
    scene, cameras = random_gaussians(50, degree=1), some_cameras(2)
    strided = Gaussians(
        *(
            torch.stack([v, v], dim=-1)[..., 0] if v.ndim < 2 else v.mT.contiguous().mT
            for v in scene.parameters().values()
        )
    )
    assert not strided.sh.is_contiguous()
    assert_same_picture(draw(scene, cameras), draw(strided, cameras))


def test_without_a_gpu_the_backend_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentProblem, match="PyTorch sees none here; use rasterizer=cpu"):
        rasterize(random_gaussians(3), some_cameras(1), backend="cuda")


def test_tensors_elsewhere_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"wants float32 on a CUDA GPU, got torch\.float64 on cpu"):
        rasterize(random_gaussians(3), some_cameras(1), backend="cuda")


def test_kernels_that_are_there_are_loaded():
    cuda._load_kernels()
    assert sys.modules["gsplat.cuda._backend"]._C is gsplat_oracle


def test_missing_kernels_are_one_line_with_a_way_out(monkeypatch):
    found_nothing = SimpleNamespace(_C=None)
    for backend, reason in ((found_nothing, "no CUDA toolkit"), (None, "gsplat.cuda._backend")):
        monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", backend)
        with pytest.raises(EnvironmentProblem, match=reason) as caught:
            cuda._load_kernels()
        assert "\n" not in str(caught.value)
        assert "device=cpu" in str(caught.value)


def gsplats_view(gaussians):
    """Parameters and optimisers as gsplat's strategies know them."""
    params = {name: getattr(gaussians, field) for name, field in PARAMETERS.items()}
    params = {name: torch.nn.Parameter(value.detach()) for name, value in params.items()}
    return params, {name: torch.optim.Adam([p], lr=1e-3) for name, p in params.items()}


def train_like_gsplat(strategy, render, *, steps=6, **options):
    """The loop of gsplat's documentation, over its parameters' names."""
    scene = screened(lambda seed: random_gaussians(120, seed=seed), some_cameras(2))
    params, optimizers = gsplats_view(astype(scene, torch.float32))
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state()
    cameras = astype(some_cameras(2), torch.float32)
    torch.manual_seed(0)
    for step in range(steps):
        fields = {field: params[name] for name, field in PARAMETERS.items()}
        out = render(replace(scene, **fields), cameras)
        if hasattr(strategy, "step_pre_backward"):
            strategy.step_pre_backward(params, optimizers, state, step, out.info)
        weighted(out).backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        strategy.step_post_backward(params, optimizers, state, step, out.info, **options)
    return params, state


def test_gsplats_default_strategy_grows_alike_on_both():
    from gsplat import DefaultStrategy

    def run(render, **options):
        strategy = DefaultStrategy(
            grow_grad2d=30.0, grow_scale3d=0.05, prune_opa=0.1, refine_start_iter=0, refine_every=4
        )
        return train_like_gsplat(strategy, render, **options)

    params, state = run(draw)
    ours, our_state = run(by_kernels)
    assert len(params["means"]) not in (120, 0)
    packed_params, _ = run(lambda g, c: draw(g, c, packed=True), packed=True)
    for name, value in params.items():
        assert torch.allclose(value, ours[name], atol=1e-3), name
        assert torch.allclose(value, packed_params[name], atol=1e-3), name
    assert torch.equal(state["count"], our_state["count"])
    assert torch.allclose(state["grad2d"], our_state["grad2d"], rtol=1e-2)


def test_gsplats_mcmc_strategy_grows_alike_on_both():
    from gsplat import MCMCStrategy

    def run(render):
        strategy = MCMCStrategy(
            cap_max=125, refine_start_iter=0, refine_every=4, min_opacity=0.1, noise_lr=1e3
        )
        return train_like_gsplat(strategy, render, lr=1e-3)

    (params, _), (ours, _) = run(draw), run(by_kernels)
    assert len(params["means"]) == 125
    for name, value in params.items():
        assert torch.allclose(value, ours[name], atol=1e-3), name


def by_gpu(gaussians, cameras, *, background=None, **options):
    out = rasterize(
        gaussians.to("cuda"),
        cameras.to("cuda"),
        backend="cuda",
        background=None if background is None else background.to("cuda"),
        **options,
    )
    pictures = (picture.cpu() for picture in (out.rgb, out.alpha, out.depth))
    return RenderOutput(*pictures, out.info)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("antialiased", [False, True])
def test_a_gpu_draws_what_the_kernels_draw(antialiased):
    """gsplat is compiled with fast mathematics, hence the tolerances of a scene with flips."""
    cameras = some_cameras(3)
    scene = screened(
        lambda seed: random_gaussians(300, degree=3, seed=seed), cameras, antialiased=antialiased
    )
    scene, cameras = astype(scene, torch.float32), astype(cameras, torch.float32)
    options = {"background": BACKGROUND.float(), "antialiased": antialiased, "absgrad": True}
    expected, found = by_kernels(scene, cameras, **options), by_gpu(scene, cameras, **options)
    for name, tolerance in {"rgb": 1e-5, "alpha": 1e-5, "depth": 1e-4}.items():
        difference = (getattr(found, name) - getattr(expected, name)).abs()
        assert (difference > tolerance).double().mean() <= 1e-3, name
        assert difference.max() < 1e-2, name
    assert_same_gradients(
        gradients(by_kernels, scene, cameras, **options),
        gradients(by_gpu, scene, cameras, **options),
        3e-3,
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_stands_emptiness_and_poison():
    cameras = astype(some_cameras(3), torch.float32)
    nothing = leaves(random_gaussians(0), torch.float32)
    out = by_gpu(nothing, cameras, background=BACKGROUND.float())
    assert torch.equal(out.rgb, BACKGROUND.float()[:, None, None].expand_as(out.rgb))
    weighted(out).backward()
    assert nothing.means.grad.shape == (0, 3)
    sick = leaves(random_gaussians(40, degree=1), torch.float32)
    with torch.no_grad():
        sick.means[3], sick.quats[4], sick.sh[5], sick.quats[6] = math.nan, math.inf, math.nan, 0
    out = by_gpu(sick, cameras, antialiased=True)
    assert out.rgb.isfinite().all()
    weighted(out).backward()
    for parameter in sick.parameters().values():
        assert parameter.grad.isfinite().all()
