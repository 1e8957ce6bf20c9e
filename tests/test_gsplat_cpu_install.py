"""gsplat's unmodified Python over our kernels, held to the same over `gsplat_oracle`."""

import math
import subprocess
import sys
import textwrap

import gsplat
import gsplat_oracle
import pytest
import torch
from gsplat.cuda import _torch_impl as formulas
from gsplat_outcomes import (
    SIZE,
    colored,
    compare,
    computing_with,
    random,
    scene,
    with_harmonics,
)

from splat_esd.gsplat_cpu import install as our_csrc


@pytest.fixture(params=[False, True], ids=["unpacked", "packed"])
def packed(request):
    return request.param


@pytest.fixture
def our_kernels():
    with computing_with(our_csrc):
        yield


def compare_with_oracle(tensors, **options):
    return compare(gsplat.rasterization, our_csrc, tensors, **options)


@pytest.mark.parametrize("mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
def test_every_render_mode_and_its_gradients_are_right(mode, packed):
    compare_with_oracle(colored(scene()), packed=packed, render_mode=mode)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_and_the_cameras_gradients_through_them_are_right(degree, packed):
    compare_with_oracle(with_harmonics(scene(degree=degree)), packed=packed, sh_degree=degree)


@pytest.mark.parametrize("channels", [1, 4, 7, 33])
def test_any_number_of_channels_is_drawn(channels, packed):
    tensors = colored(scene()) | {"colors": random(200, channels)}
    compare_with_oracle(tensors, packed=packed)


def test_channels_in_chunks_are_the_same():
    compare_with_oracle(colored(scene()) | {"colors": random(200, 7)}, channel_chunk=3)


def test_backgrounds_show_through_and_learn():
    tensors = colored(scene()) | {"backgrounds": random(3, 3)}
    compare_with_oracle(tensors, packed=False)


def test_absgrad_is_right(packed):
    compare_with_oracle(colored(scene()), packed=packed, absgrad=True, render_mode="RGB+ED")


def test_antialiased_splats_are_right(packed):
    compare_with_oracle(
        colored(scene(antialiased=True)), packed=packed, rasterize_mode="antialiased"
    )


def test_small_splats_are_clipped_by_their_radius(packed):
    compare_with_oracle(colored(scene()), packed=packed, radius_clip=2.0)


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_batches_of_scenes_draw_as_the_scenes_do_one_by_one(mode, packed, our_kernels):
    tensors = {k: v.float() for k, v in with_harmonics(scene(degree=1)).items()}
    turned = tensors | {"means": -tensors["means"], "Ks": 1.5 * tensors["Ks"]}
    options = {**SIZE, "sh_degree": 1, "rasterize_mode": mode, "packed": packed}

    def draw(given):
        leaves = {k: v.clone().requires_grad_(k != "Ks") for k, v in given.items()}
        image, alpha, _ = gsplat.rasterization(**leaves, **options)
        image.square().sum().backward()
        return image, alpha, *(v.grad for k, v in leaves.items() if k != "Ks")

    both = draw({k: torch.stack([v, turned[k]])[:, None] for k, v in tensors.items()})
    for found, *expected in zip(both, draw(tensors), draw(turned), strict=True):
        expected = torch.stack(expected)[:, None]
        assert found.shape == expected.shape
        assert (found - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("cameras", [1, 3])
def test_sparse_gradients_add_up_to_the_dense_ones(cameras):
    tensors = colored(scene(cameras=cameras))
    with computing_with(our_csrc):
        leaves = {k: v.float().requires_grad_(k == "means") for k, v in tensors.items()}
        dense = gsplat.rasterization(**leaves, **SIZE, packed=True)[0].square().sum()
        (expected,) = torch.autograd.grad(dense, leaves["means"])
        sparse = gsplat.rasterization(**leaves, **SIZE, packed=True, sparse_grad=True)[0]
        (found,) = torch.autograd.grad(sparse.square().sum(), leaves["means"])
    assert found.is_sparse
    assert (found.to_dense() - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_covariances_draw_and_learn_as_the_axes_they_come_from(mode, packed, our_kernels):
    tensors = {k: v.float() for k, v in colored(scene(antialiased=mode != "classic")).items()}
    options = {**SIZE, "packed": packed, "rasterize_mode": mode}

    def draw(shape):
        leaves = {
            k: v.clone().requires_grad_(k not in ("Ks", "colors")) for k, v in tensors.items()
        }
        given = leaves | shape(leaves["quats"], leaves["scales"])
        image, _, _ = gsplat.rasterization(**given, **options)
        learners = [v for v in leaves.values() if v.requires_grad]
        return image, *torch.autograd.grad(image.square().sum(), learners)

    def as_covariances(quats, scales):
        covars, _ = gsplat.quat_scale_to_covar_preci(quats, scales, compute_preci=False)
        return {"quats": None, "scales": None, "covars": covars}

    expected = draw(lambda quats, scales: {})
    for a, b in zip(draw(as_covariances), expected, strict=True):
        assert (a - b).norm() <= 2e-5 * b.norm()


@pytest.mark.parametrize("triu", [False, True])
def test_covariances_and_precisions_are_gsplats_formulas(triu, our_kernels):
    quats, scales = random(50, 4) - 0.5, random(50, 3) + 0.1
    expected = formulas._quat_scale_to_covar_preci(
        torch.nn.functional.normalize(quats, dim=-1), scales, triu=triu
    )
    leaves = [x.float().requires_grad_() for x in (quats, scales)]
    found = gsplat.quat_scale_to_covar_preci(*leaves, triu=triu)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 1e-6 * b.norm()
    exact = [x.clone().requires_grad_() for x in (quats, scales)]
    normal = torch.nn.functional.normalize(exact[0], dim=-1)
    outputs = formulas._quat_scale_to_covar_preci(normal, exact[1], triu=triu)
    cotangents = [random(*x.shape, seed=7 + i) - 0.5 for i, x in enumerate(outputs)]
    wanted = torch.autograd.grad(outputs, exact, cotangents)
    got = torch.autograd.grad(found, leaves, [c.float() for c in cotangents])
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_operator_for_harmonics_is_gsplats_formula(degree, our_kernels):
    dirs, coeffs = random(40, 3) - 0.5, random(40, 16, 3) - 0.5
    masks = torch.rand(40, generator=torch.Generator().manual_seed(0)) < 0.7
    exact = [x.clone().requires_grad_() for x in (dirs, coeffs)]
    leaves = [x.float().requires_grad_() for x in (dirs, coeffs)]
    expected = formulas._spherical_harmonics(degree, *exact)
    found = gsplat.spherical_harmonics(degree, *leaves, masks=masks)
    assert (found - expected)[masks].abs().max() <= 1e-6
    cotangent = (random(40, 3, seed=9) - 0.5) * masks[:, None]
    wanted = torch.autograd.grad(expected, exact, cotangent, materialize_grads=True)
    got = torch.autograd.grad(found, leaves, cotangent.float(), materialize_grads=True)
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm().clamp_min(1e-6)


@pytest.mark.parametrize("antialiased", [False, True])
def test_the_operator_for_projection_is_gsplats_formula(antialiased, packed, our_kernels):
    tensors = colored(scene())
    names = ("means", "quats", "scales", "viewmats")
    exact = {k: tensors[k].clone().requires_grad_() for k in names}
    normal = torch.nn.functional.normalize(exact["quats"], dim=-1)
    covars, _ = formulas._quat_scale_to_covar_preci(normal, exact["scales"], compute_preci=False)
    expected = list(
        formulas._fully_fused_projection(
            exact["means"], covars, exact["viewmats"], tensors["Ks"], **SIZE,
            calc_compensations=antialiased,
        )
    )  # fmt: skip
    leaves = {k: tensors[k].float().requires_grad_() for k in names}
    found = gsplat.fully_fused_projection(
        leaves["means"], None, leaves["quats"], leaves["scales"], leaves["viewmats"],
        tensors["Ks"].float(), **SIZE, packed=packed, calc_compensations=antialiased,
    )  # fmt: skip
    seen = (expected[0] > 0).all(-1)
    if packed:
        ids, found = found[:3], found[3:]
        assert torch.equal(torch.stack(ids[1:]), torch.stack(seen.nonzero(as_tuple=True)))
        assert not ids[0].any()
        expected = [None if x is None else x[seen] for x in expected]
    else:
        assert torch.equal((found[0] > 0).all(-1), seen)
        expected[1:] = [
            None if x is None else torch.where(seen.view(*seen.shape, *[1] * (x.ndim - 2)), x, 0)
            for x in expected[1:]
        ]
    assert (found[0] - expected[0]).abs().max() <= 1  # a radius is rounded up
    pairs = [(a, b) for a, b in zip(found[1:], expected[1:], strict=True) if b is not None]
    assert len(pairs) == 3 + antialiased
    for a, b in pairs:
        assert (a - b).norm() <= 1e-6 * b.norm()
    cotangents = [random(*b.shape, seed=5 + i) - 0.5 for i, (_, b) in enumerate(pairs)]
    wanted = torch.autograd.grad([b for _, b in pairs], list(exact.values()), cotangents)
    got = torch.autograd.grad(
        [a for a, _ in pairs], list(leaves.values()), [c.float() for c in cotangents]
    )
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).norm() <= 2e-5 * b.norm()


@pytest.mark.parametrize("tile_size", [8, 16, 32])
def test_intersections_are_the_oracles(tile_size, packed):
    generator = torch.Generator().manual_seed(0)
    means2d = 60 * torch.rand(2, 90, 2, generator=generator) - 5
    radii = torch.randint(0, 12, (2, 90, 2), generator=generator, dtype=torch.int32)
    depths = torch.rand(2, 90, generator=generator) + 0.5
    # gsplat culls both radii or none; packed lists hold visible splats only.
    radii = radii * (radii > 0).all(-1, keepdim=True)
    values, ids = (means2d, radii, depths), {}
    if packed:
        seen = (radii > 0).all(-1)
        images, gaussians = seen.nonzero(as_tuple=True)
        values = tuple(v[seen] for v in values)
        ids = {"packed": True, "n_images": 2, "image_ids": images, "gaussian_ids": gaussians}
    grid = (-(-50 // tile_size), -(-40 // tile_size))
    answers = []
    for kernels in (gsplat_oracle, our_csrc):
        with computing_with(kernels):
            lists = gsplat.isect_tiles(*values, tile_size, *grid, **ids)
            answers.append([*lists, gsplat.isect_offset_encode(lists[1], 2, *grid)])
    for a, b in zip(*answers, strict=True):
        assert torch.equal(a, b)


def test_packed_intersections_want_images_in_order(our_kernels):
    ids = {"packed": True, "n_images": 2, "gaussian_ids": torch.zeros(2, dtype=torch.long)}
    splats = torch.rand(2, 2), torch.ones(2, 2, dtype=torch.int32), torch.rand(2)
    with pytest.raises(NotImplementedError, match="image_ids"):
        gsplat.isect_tiles(*splats, 16, 2, 2, image_ids=torch.tensor([1, 0]), **ids)


def test_tiles_that_are_masked_out_show_the_background_and_teach_nothing(our_kernels):
    tensors = {k: v.float() for k, v in colored(scene(cameras=1)).items()}
    _, _, meta = gsplat.rasterization(**tensors, **SIZE, packed=False)
    masks = torch.ones_like(meta["isect_offsets"], dtype=torch.bool)
    masks[:, :, 1:] = False
    ground = torch.tensor([[0.1, 0.2, 0.3]])
    splats = (meta["means2d"], meta["conics"], tensors["colors"][None], meta["opacities"])
    lists = (35, 20, 16, meta["isect_offsets"], meta["flatten_ids"])

    def draw(masks, columns):
        leaves = [x.clone().requires_grad_() for x in splats]
        options = {"backgrounds": ground, "masks": masks, "packed": False}
        image, alpha = gsplat.rasterize_to_pixels(*leaves, *lists, **options)
        loss = image[:, :, columns].square().sum() + alpha[:, :, columns].sum()
        return image, alpha, torch.autograd.grad(loss, leaves)

    image, alpha, found = draw(masks, slice(None))
    assert torch.equal(image[:, :, 16:], ground.expand_as(image[:, :, 16:]))
    assert not alpha[:, :, 16:].any() and alpha[:, :, :16].mean() > 0.1
    _, _, expected = draw(None, slice(16))
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 1e-6 * b.norm()


def test_gradients_survive_copies_of_what_was_saved_for_them(our_kernels):
    tensors = {k: v.float() for k, v in colored(scene(cameras=1)).items()}
    means = tensors.pop("means").requires_grad_()

    def gradient():
        image, alpha, _ = gsplat.rasterization(means, **tensors, **SIZE)
        return torch.autograd.grad(image.square().sum() + alpha.sum(), means)[0]

    expected = gradient()
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
        assert torch.equal(gradient(), expected)


def fit(steps, *, strategy=None, count=400):
    """Fits splats to pictures of other splats by gsplat's public API alone; returns the PSNRs."""
    target = {k: v.float() for k, v in colored(scene(cameras=4)).items()}
    views = {k: target.pop(k) for k in ("viewmats", "Ks")} | SIZE
    with torch.no_grad():
        pictures = gsplat.rasterization(**target, **views)[0]
    generator = torch.Generator().manual_seed(0)
    params = torch.nn.ParameterDict(
        {
            "means": torch.randn(count, 3, generator=generator) * 0.4,
            "quats": torch.randn(count, 4, generator=generator),
            "scales": torch.full((count, 3), -2.7),
            "opacities": torch.zeros(count),
            "colors": torch.zeros(count, 3),
        }
    )
    rates = {"means": 1e-2, "quats": 1e-2, "scales": 2e-2, "opacities": 5e-2, "colors": 5e-2}
    optimizers = {k: torch.optim.Adam([params[k]], lr=rate) for k, rate in rates.items()}
    state = strategy.initialize_state() if strategy else None
    psnrs = []
    for step in range(steps):
        images, _, meta = gsplat.rasterization(
            params["means"],
            params["quats"],
            params["scales"].exp(),
            params["opacities"].sigmoid(),
            params["colors"].sigmoid(),
            **views,
            packed=False,
        )
        if strategy and hasattr(strategy, "step_pre_backward"):
            strategy.step_pre_backward(params, optimizers, state, step, meta)
        loss = (images - pictures).square().mean()
        loss.backward()
        psnrs.append(-10 * loss.detach().log10().item())
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        if isinstance(strategy, gsplat.MCMCStrategy):
            strategy.step_post_backward(params, optimizers, state, step, meta, lr=1e-3)
        elif strategy:
            strategy.step_post_backward(params, optimizers, state, step, meta)
    return psnrs, params


def test_gsplats_public_api_fits_pictures_on_a_cpu(our_kernels):
    psnrs, _ = fit(150)
    assert psnrs[-1] > psnrs[0] + 8
    assert psnrs[-1] > 24


@pytest.mark.parametrize("name", ["default", "mcmc"])
def test_gsplats_strategies_run_unmodified(name, our_kernels):
    strategy = (
        gsplat.DefaultStrategy(refine_start_iter=5, refine_every=10, grow_grad2d=1e-6)
        if name == "default"
        else gsplat.MCMCStrategy(cap_max=600, refine_start_iter=5, refine_every=10)
    )
    psnrs, params = fit(40, strategy=strategy)
    assert len(params["means"]) > 410
    assert psnrs[-1] > psnrs[0] + 3
    assert all(torch.isfinite(v).all() for v in params.values())


def test_relocation_is_the_oracles():
    opacities, scales = 0.98 * random(30) + 0.01, random(30, 3) + 0.1
    ratios = torch.arange(30) % 9 + 1
    binoms = torch.tensor([[math.comb(n, k) for k in range(51)] for n in range(51)]).double()
    answers = []
    for kernels, dtype in ((gsplat_oracle, torch.float64), (our_csrc, torch.float32)):
        with computing_with(kernels):
            given = [x.to(dtype) for x in (opacities, scales)]
            answers.append(
                gsplat.relocation.compute_relocation(*given, ratios.clone(), binoms.to(dtype))
            )
    for a, b in zip(answers[1], answers[0], strict=True):
        assert (a - b).norm() <= 1e-6 * b.norm()


def test_selective_adam_steps_visible_rows_only(our_kernels):
    value = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = gsplat.SelectiveAdam([value], eps=1e-15, betas=(0.9, 0.999))
    value.grad = torch.ones(4, 3)
    optimizer.step(torch.tensor([True, False, True, False]))
    # The first moment is 0.1 of the gradient, the second 0.001 of its square: sqrt(10) the rate.
    moved = 1 - optimizer.param_groups[0]["lr"] * 0.1 / 0.001**0.5
    assert torch.allclose(value[::2], torch.full((2, 3), moved), atol=1e-6)
    assert torch.equal(value[1::2], torch.ones(2, 3))


def test_adam_without_a_mask_steps_every_row():
    value, gradient = torch.ones(4, 3), torch.ones(4, 3)
    moments = torch.zeros(4, 3), torch.zeros(4, 3)
    our_csrc.adam(value, gradient, *moments, None, 0.1, 0.0, 0.0, 0.0)
    assert (value == 0.9).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"camera_model": "ortho"}, "ortho"),
        ({"camera_model": "fisheye"}, "fisheye"),
        ({"with_ut": True, "packed": False}, "UnscentedTransform"),
        ({"tile_size": 8}, "tile_size"),
        ({"sh_degree": 4, "colors": torch.rand(200, 25, 3)}, "degree 4"),
    ],
)
def test_what_only_a_gpu_has_is_refused_by_name(options, named, our_kernels):
    tensors = {k: v.float() for k, v in colored(scene(cameras=1)).items()}
    with pytest.raises(NotImplementedError, match=named):
        gsplat.rasterization(**(tensors | SIZE | options))


@pytest.mark.parametrize("name", ["means", "quats", "opacities", "viewmats", "colors"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types_than_float32_are_refused_by_name(name, dtype, our_kernels):
    tensors = {k: v.float() for k, v in colored(scene(cameras=1)).items()}
    tensors[name] = tensors[name].to(dtype)
    with pytest.raises(ValueError, match=f"{name}: .* wants float32 on the cpu, got {dtype}"):
        gsplat.rasterization(**tensors, **SIZE)


def test_absgrad_of_many_channels_is_refused(our_kernels):
    tensors = {k: v.float() for k, v in colored(scene(cameras=1)).items()}
    tensors |= {"colors": torch.rand(200, 8), "means": tensors["means"].requires_grad_()}
    with pytest.raises(NotImplementedError, match="at most 4 channels"):
        gsplat.rasterization(**tensors, **SIZE, absgrad=True)[0].sum().backward()


def run(program):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )


DRAW = """
    one = torch.ones(1)
    image, _, _ = gsplat.rasterization(
        torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        0.1 * torch.ones(1, 3), one, torch.ones(1, 3), torch.eye(4)[None],
        torch.tensor([[[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]]), 16, 16)
    assert 0.7 < image.max() < 0.9
"""


@pytest.mark.parametrize("first", ["install", "gsplat"])
def test_install_works_before_and_after_gsplat_is_imported_and_twice(first):
    imports = ["from splat_esd.gsplat_cpu.install import install; install()", "import gsplat"]
    if first == "gsplat":
        imports = ["import gsplat, gsplat.cuda._wrapper", imports[0]]
    program = "import torch\n" + "\n".join(imports) + "\ninstall()" + textwrap.dedent(DRAW)
    done = run(program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("gpu", [True, False])
def test_install_replaces_the_kernels_of_a_gpu_only_where_there_is_none(gpu):
    done = run(
        f"""
        import sys, types
        import torch
        torch.cuda.is_available = lambda: {gpu}
        sys.modules["gsplat.csrc"] = types.ModuleType("gsplat.csrc")
        from splat_esd.gsplat_cpu import install as our_csrc
        our_csrc.install()
        assert sys.modules["gsplat.csrc"] is our_csrc
        """
    )
    refused = "EnvironmentProblem: gsplat has kernels of its own here" in done.stderr
    assert (refused, done.returncode) == ((True, 1) if gpu else (False, 0))


@pytest.mark.parametrize("version", ["1.5.2", "1.6.0", "1.50.3"])
def test_install_refuses_another_gsplat(version):
    done = run(
        f"""
        import gsplat.version
        gsplat.version.__version__ = "{version}"
        from splat_esd.gsplat_cpu.install import install
        install()
        """
    )
    assert "EnvironmentProblem" in done.stderr and f"{version} is installed" in done.stderr
