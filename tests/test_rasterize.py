import importlib
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from scenes import (
    BACKENDS,
    astype,
    random_gaussians,
    screened,
    some_cameras,
)

from splat_esd.cameras import orbit_cameras
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import SH_C0
from splat_esd.rasterize import autograd, rasterize

BACKGROUND = torch.tensor([[0.2, 0.5, 0.9], [1.0, 1.0, 1.0]])


@pytest.fixture(params=BACKENDS, ids=str)
def backend(request):
    return request.param


def gaussians_at(*means, scale=0.1, opacity=0.8, colors=None):
    n = len(means)
    colors = torch.full((n, 3), 0.5) if colors is None else torch.tensor(colors)
    return Gaussians(
        means=torch.tensor(means, dtype=torch.float32).reshape(n, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        log_scales=torch.full((n, 3), math.log(scale)),
        logit_opacities=torch.full((n,), opacity).logit(),
        sh=((colors - 0.5) / SH_C0).reshape(n, 1, 3),
    )


def front_camera(size=33, distance=3.0):
    zero = torch.zeros(1)
    return orbit_cameras(zero, zero, zero + distance, zero + 0.8, width=size, height=size)


def both(gaussians, cameras, backend, *, background=None, **options):
    exact = rasterize(
        astype(gaussians, torch.float64),
        astype(cameras, torch.float64),
        backend="reference",
        background=None if background is None else background.double(),
        **options,
    )
    drawn = backend.draw(
        astype(gaussians, torch.float32),
        astype(cameras, torch.float32),
        background=background,
        **options,
    )
    return exact, drawn


def assert_same_picture(exact, drawn):
    assert (drawn.rgb.cpu() - exact.rgb).abs().max() <= 1e-5
    assert (drawn.alpha.cpu() - exact.alpha).abs().max() <= 1e-5
    assert (drawn.depth.cpu() - exact.depth).abs().max() <= 2e-5
    assert torch.equal(drawn.info["radii"].cpu(), exact.info["radii"])
    assert drawn.info["radii"].dtype == torch.int32


def test_one_gaussian_on_the_axis_is_the_closed_form():
    cameras = astype(front_camera(), torch.float64)
    gaussians = astype(gaussians_at((0.0, 0, 0), colors=[[0.9, 0.3, 0.6]]), torch.float64)
    out = rasterize(gaussians, cameras, backend="reference", background=torch.ones(1, 3).double())
    offset = torch.arange(33.0).double() - 16  # the middle pixel's centre lies on the axis
    variance = (cameras.Ks[0, 0, 0] * 0.1 / 3) ** 2 + 0.3
    squared = offset[:, None] ** 2 + offset**2
    alpha = gaussians.opacities * torch.exp(-squared / (2 * variance))
    alpha[alpha < 1 / 255] = 0
    color = torch.tensor([0.9, 0.3, 0.6])
    assert torch.allclose(out.alpha[0, ..., 0], alpha, atol=1e-7)
    expected = alpha[..., None] * color + (1 - alpha[..., None])
    assert torch.allclose(out.rgb[0], expected, atol=1e-7)
    assert torch.allclose(out.depth[0, ..., 0], torch.where(alpha > 0, 3.0, 0.0).double())
    extent = math.sqrt(2 * math.log(255 * 0.8))
    assert out.info["radii"].unique().item() == math.ceil(extent * math.sqrt(variance))


def test_the_nearer_gaussian_hides_the_farther_one(backend):
    red_in_front = gaussians_at((0, 0, 0), (1, 0, 0), opacity=0.6, colors=[[0.0, 0, 1], [1, 0, 0]])
    out = backend.draw(red_in_front, front_camera())
    red, _, blue = out.rgb[0, 16, 16].tolist()
    assert red == pytest.approx(0.6, abs=1e-5)
    assert blue == pytest.approx(0.4 * 0.6, abs=1e-5)
    assert out.depth[0, 16, 16].item() == pytest.approx((0.6 * 2 + 0.24 * 3) / 0.84, abs=1e-5)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_picture_is_the_reference(backend, degree, antialiased):
    cameras = some_cameras()
    gaussians = screened(
        lambda seed: random_gaussians(300, degree=degree, seed=seed),
        cameras,
        antialiased=antialiased,
        seed=degree,
    )
    exact, drawn = both(gaussians, cameras, backend, background=BACKGROUND, antialiased=antialiased)
    assert exact.alpha.mean() > 0.1
    assert_same_picture(exact, drawn)
    for name in ("means2d", "depths", "conics", "opacities"):
        a, b = exact.info[name], drawn.info[name].cpu()
        assert a.shape == b.shape
        assert torch.allclose(a.float(), b, rtol=1e-5, atol=1e-5), name


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (17, 5), (64, 31)])
def test_any_image_size_is_drawn(backend, width, height):
    cameras = some_cameras(1, width=width, height=height)
    gaussians = screened(lambda seed: random_gaussians(100, seed=seed), cameras, seed=width)
    assert_same_picture(*both(gaussians, cameras, backend))


def test_a_large_scene_differs_only_where_a_decision_flips(backend):
    gaussians = random_gaussians(4000, degree=1, seed=7)
    cameras = some_cameras(1, width=96, height=80)
    exact, drawn = both(gaussians, cameras, backend)
    error = (drawn.rgb.cpu() - exact.rgb).abs().amax(-1)
    assert (error <= 1e-5).double().mean() >= 0.999
    assert (error > 2e-5).double().mean() <= 1e-4
    assert (exact.alpha > 1 - 2e-4).double().mean() > 0.05  # many pixels are finished early


def test_hundreds_of_splats_behind_one_another_end_where_the_reference_ends(backend):
    def pile(seed):
        gaussians = random_gaussians(900, seed=seed)
        gaussians.means.mul_(torch.tensor([1.0, 0.05, 0.05]))
        gaussians.logit_opacities.sub_(4 if seed % 2 else 1)
        return gaussians

    cameras = some_cameras(1, width=20, height=20)
    for seed in (0, 1):
        assert_same_picture(*both(screened(pile, cameras, seed=seed), cameras, backend))


def test_near_and_far_planes_cut(backend):
    row = gaussians_at((2, 0, 0), (0, 0, 0), (-2, 0, 0))
    out = backend.draw(row, front_camera(), near_plane=1.5, far_plane=4.0)
    assert (out.info["radii"][0, :, 0] > 0).tolist() == [False, True, False]


def test_eps2d_widens_the_splats(backend):
    gaussians = gaussians_at((0, 0, 0), scale=0.01)
    narrow, wide = (
        backend.draw(gaussians, front_camera(), eps2d=eps2d).alpha.sum() for eps2d in (0.1, 1.0)
    )
    assert wide > 2 * narrow


def test_no_gaussians_show_the_background(backend):
    out = backend.draw(gaussians_at(), some_cameras_32(), background=BACKGROUND)
    assert torch.equal(out.rgb.cpu(), BACKGROUND[:, None, None].expand(2, 37, 50, 3))
    assert not out.alpha.any()
    assert not out.depth.any()
    assert out.info["means2d"].shape == (2, 0, 2)


def some_cameras_32(count=2):
    return astype(some_cameras(count), torch.float32)


def test_what_is_behind_the_camera_is_not_drawn(backend):
    out = backend.draw(gaussians_at((4, 0, 0), (3, 0, 0), (9, 1, 1)), front_camera())
    assert not out.alpha.any()
    assert not out.info["radii"].any()


def test_opacities_from_zero_to_one_are_drawn(backend):
    gaussians = gaussians_at((0, -0.6, 0), (0, 0, 0), (0, 0.6, 0), scale=0.05)
    gaussians.logit_opacities.copy_(torch.tensor([-math.inf, 40.0, 6.95]))
    exact, drawn = both(gaussians, front_camera(65), backend)
    assert_same_picture(exact, drawn)
    assert drawn.info["radii"][0, :, 0].bool().tolist() == [False, True, True]
    assert drawn.alpha.max().item() == pytest.approx(0.999)


def test_equal_depths_keep_the_order_of_the_gaussians(backend):
    twins = gaussians_at((0, 0, 0), (0, 0, 0), colors=[[1.0, 0, 0], [0, 1, 0]])
    red, green, _ = backend.draw(twins, front_camera()).rgb[0, 16, 16].tolist()
    assert red == pytest.approx(0.8, abs=1e-5)
    assert green == pytest.approx(0.16, abs=1e-5)


def test_one_gaussian_may_cover_everything(backend):
    exact, drawn = both(gaussians_at((0, 0, 0), scale=50.0), front_camera(), backend)
    assert_same_picture(exact, drawn)
    assert drawn.alpha.min() > 0.5


def test_a_gaussian_without_size_is_a_point(backend):
    exact, drawn = both(gaussians_at((0, 0, 0), scale=1e-8), front_camera(), backend)
    assert_same_picture(exact, drawn)
    assert drawn.alpha.max().item() == pytest.approx(0.8, abs=1e-5)
    faded = backend.draw(gaussians_at((0, 0, 0), scale=1e-8), front_camera(), antialiased=True)
    assert not faded.alpha.any()


def test_only_the_direction_of_a_quaternion_counts(backend):
    cameras = some_cameras()
    gaussians = screened(lambda seed: random_gaussians(60, seed=seed), cameras)
    exact, _ = both(gaussians, cameras, backend)
    short = replace(gaussians, quats=gaussians.quats * 1e-3)
    assert_same_picture(exact, both(short, cameras, backend)[1])


def test_a_zero_quaternion_turns_nothing(backend):
    gaussians = gaussians_at((0, 0, 0))
    gaussians.log_scales[0] = torch.tensor([-1.0, -2.0, -4.0])
    upright = backend.draw(gaussians, front_camera())
    zero = backend.draw(replace(gaussians, quats=torch.zeros(1, 4)), front_camera())
    assert torch.equal(upright.rgb, zero.rgb)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["means", "quats", "log_scales", "logit_opacities", "sh"])
def test_poison_stays_with_the_gaussian_that_has_it(backend, field, value):
    gaussians = astype(random_gaussians(40, degree=1, seed=3), torch.float32)
    cameras = some_cameras_32()
    getattr(gaussians, field)[7] = value
    if (field, value) in (("logit_opacities", math.inf), ("log_scales", -math.inf)):
        expected = both(gaussians, cameras, backend)[0].rgb.float()  # 1 and 0 are fine numbers
    else:
        rest = gaussians.select(torch.arange(40) != 7)
        expected = backend.draw(rest, cameras).rgb.cpu()
    out = backend.draw(gaussians, cameras)
    assert out.rgb.isfinite().all()
    assert torch.allclose(out.rgb.cpu(), expected, atol=2e-5)
    for name in ("means2d", "conics", "depths", "opacities"):
        assert out.info[name].isfinite().all()


def test_tensors_of_any_layout_are_drawn(backend):
    gaussians = astype(random_gaussians(50, degree=1), torch.float32)
    cameras = some_cameras_32()
    strided = Gaussians(
        *(
            torch.stack([v, v], dim=-1)[..., 0] if v.ndim < 2 else v.mT.contiguous().mT
            for v in gaussians.parameters().values()
        )
    )
    assert not strided.means.is_contiguous()
    turned = replace(cameras, viewmats=cameras.viewmats.mT.contiguous().mT)
    a, b = backend.draw(gaussians, cameras), backend.draw(strided, turned)
    # On a processor without AVX-512 torch's sigmoid of a strided tensor is one unit in the last
    # place off; everything behind it must be equal.
    exact = torch.equal(gaussians.opacities, strided.opacities)
    assert torch.allclose(a.rgb, b.rgb, rtol=0, atol=0 if exact else 1e-6)


def test_a_camera_alone_sees_what_it_sees_among_others(backend):
    gaussians = astype(random_gaussians(50, degree=2), torch.float32)
    cameras = astype(some_cameras(3), torch.float32)
    together = backend.draw(gaussians, cameras)
    for i in range(3):
        assert torch.equal(backend.draw(gaussians, cameras[i]).rgb[0], together.rgb[i])


@pytest.mark.parametrize(("count", "cameras"), [(2000, 2), (40_000, 1), (40_000, 3)])
def test_the_number_of_threads_changes_nothing(count, cameras):
    gaussians = astype(random_gaussians(count, degree=1), torch.float32)
    cameras = some_cameras_32(cameras)
    before = torch.get_num_threads()
    pictures = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            pictures.append(rasterize(gaussians, cameras, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    for other in pictures[1:]:
        assert torch.equal(pictures[0].rgb, other.rgb)
        assert torch.equal(pictures[0].depth, other.depth)


PROGRAM = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from scenes import astype, leaves, random_gaussians, some_cameras
from splat_esd.rasterize import cpu, rasterize
gaussians = leaves(random_gaussians(500, degree=3), torch.float32)
out = rasterize(gaussians, astype(some_cameras(), torch.float32), backend="cpu", absgrad=True)
loss = (out.rgb * torch.linspace(-1, 1, 50)[:, None]).sum() + out.depth.mean() + out.alpha.sum()
loss.backward()
gradients = [p.grad for p in gaussians.parameters().values()] + [out.info["means2d"].absgrad]
torch.save((cpu.instruction_set(), out.rgb.detach(), gradients), sys.argv[2])
"""


def draw_with(isa, path):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, os.path.dirname(__file__), str(path)],
        env=os.environ | {"SPLAT_ESD_ISA": isa, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_all_instruction_sets_draw_the_same(tmp_path):
    assert draw_with("portable", tmp_path / "portable").returncode == 0
    name, picture, gradients = torch.load(tmp_path / "portable")
    assert name == "portable"
    for isa in ("avx2", "avx512"):
        run = draw_with(isa, tmp_path / isa)
        if "this machine can run" in run.stderr:
            continue
        assert run.returncode == 0, run.stderr
        name, other, other_gradients = torch.load(tmp_path / isa)
        assert name == isa
        assert ((picture - other).abs() > 1e-5).double().mean() < 1e-4
        for a, b in zip(gradients, other_gradients, strict=True):
            assert (a - b).norm() <= 1e-4 * a.norm()


def test_an_unknown_instruction_set_is_refused(tmp_path):
    run = draw_with("mmx", tmp_path / "mmx")
    assert "SPLAT_ESD_ISA: this machine can run" in run.stderr
    assert "EnvironmentProblem" in run.stderr


def test_missing_kernels_name_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "splat_esd._kernels", None)
    monkeypatch.delattr("splat_esd._kernels", raising=False)
    try:
        with pytest.raises(EnvironmentProblem, match="rasterizer=reference"):
            importlib.reload(autograd)
    finally:
        monkeypatch.undo()
        importlib.reload(autograd)


def test_auto_draws_on_the_cpu_with_the_kernels():
    gaussians, cameras = astype(random_gaussians(20), torch.float32), some_cameras_32()
    assert torch.equal(
        rasterize(gaussians, cameras).rgb, rasterize(gaussians, cameras, backend="cpu").rgb
    )


def test_wrong_input_is_refused_by_name():
    gaussians, cameras = astype(random_gaussians(20), torch.float32), some_cameras_32()
    with pytest.raises(UsageError, match="backend must be one of auto, reference, cpu, cuda"):
        rasterize(gaussians, cameras, backend="opengl")
    with pytest.raises(ValueError, match="the cpu rasteriser wants float32"):
        rasterize(random_gaussians(20), some_cameras(), backend="cpu")
    with pytest.raises(ValueError, match=r"viewmats: expected torch\.float32"):
        rasterize(gaussians, some_cameras(), backend="cpu")
    with pytest.raises(ValueError, match=r"background: expected shape \[B, 3\] with B = 2"):
        rasterize(gaussians, cameras, background=torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"Ks: expected shape \[B, 3, 3\] with B = 2"):
        broken = replace(cameras)
        object.__setattr__(broken, "Ks", cameras.Ks[:1])
        rasterize(gaussians, broken)
    with pytest.raises(ValueError, match=r"opacities: expected shape \[N\] with N = 20"):
        gaussians.logit_opacities = gaussians.logit_opacities[:-1]
        rasterize(gaussians, cameras)
    gaussians = astype(random_gaussians(20), torch.float32)
    with pytest.raises(ValueError, match="near_plane"):
        rasterize(gaussians, cameras, near_plane=0.0)
    with pytest.raises(UsageError, match="absgrad"):
        rasterize(gaussians, cameras, backend="reference", absgrad=True)
