"""Holds our `rasterization` to gsplat's own, whose unmodified Python runs over `gsplat_oracle`."""

import inspect

import gsplat_oracle
import pytest
import torch
from gsplat_outcomes import SIZE, colored, compare, outcome, random, scene, with_harmonics
from scenes import random_gaussians, some_cameras

from splat_esd.geometry import quat_to_rotmat
from splat_esd.gsplat_cpu.rasterization import rasterization


@pytest.fixture(autouse=True)
def gsplat_on_cpu(monkeypatch):
    gsplat_oracle.install(monkeypatch)


@pytest.fixture(params=[False, True], ids=["unpacked", "packed"])
def packed(request):
    return request.param


def compare_with_gsplat(tensors, **options):
    return compare(rasterization, gsplat_oracle, tensors, **options)


@pytest.mark.parametrize("mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
def test_every_render_mode_and_its_gradients_are_gsplats(mode, packed):
    compare_with_gsplat(colored(scene()), packed=packed, render_mode=mode)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_and_the_cameras_gradients_through_them_are_gsplats(degree, packed):
    compare_with_gsplat(with_harmonics(scene(degree=degree)), packed=packed, sh_degree=degree)


def test_a_low_degree_leaves_the_higher_coefficients_alone():
    _, found = compare_with_gsplat(with_harmonics(scene(degree=2)), sh_degree=1)
    assert not found[3]["colors"][:, 4:].any()


@pytest.mark.parametrize("channels", [1, 2, 4, 7, 33])
@pytest.mark.parametrize("mode", ["RGB", "RGB+ED"])
def test_any_number_of_channels_is_drawn(channels, mode, packed):
    tensors = colored(scene()) | {"colors": random(200, channels)}
    compare_with_gsplat(tensors, packed=packed, render_mode=mode)


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (3, "RGB+ED"), (5, "RGB+D"), (1, "D")])
def test_backgrounds_show_through_and_learn(channels, mode, packed):
    tensors = colored(scene())
    tensors |= {"colors": random(200, channels), "backgrounds": random(3, channels, seed=4)}
    if mode == "D":
        del tensors["backgrounds"]
    # gsplat 1.5.3 itself refuses backgrounds in the packed layout.
    compare_with_gsplat(tensors, packed=packed, oracle_packed=False, render_mode=mode)


def test_backgrounds_leave_the_depth_alone():
    tensors = colored(scene()) | {"backgrounds": random(3, 3)}
    tensors = {k: v.float() for k, v in tensors.items()}
    for mode in ("D", "ED"):
        plain = rasterization(
            **{k: v for k, v in tensors.items() if k != "backgrounds"}, **SIZE, render_mode=mode
        )
        assert torch.equal(rasterization(**tensors, **SIZE, render_mode=mode)[0], plain[0])


@pytest.mark.parametrize("colors", ["plain", "harmonics"])
def test_each_camera_may_have_colors_of_its_own(colors, packed):
    if colors == "plain":
        compare_with_gsplat(colored(scene()) | {"colors": random(3, 200, 3)}, packed=packed)
    else:
        own = random(3, 200, 9, 3) - 0.5
        compare_with_gsplat(colored(scene()) | {"colors": own}, packed=packed, sh_degree=2)


@pytest.mark.parametrize("mode", ["RGB", "RGB+D", "RGB+ED"])
def test_absgrad_is_gsplats(mode, packed):
    compare_with_gsplat(colored(scene()), packed=packed, absgrad=True, render_mode=mode)


def test_antialiased_splats_are_gsplats(packed):
    compare_with_gsplat(
        colored(scene(antialiased=True)), packed=packed, rasterize_mode="antialiased"
    )


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_covariances_draw_and_learn_as_the_axes_they_come_from(mode):
    tensors = colored(scene(antialiased=mode == "antialiased"))
    from gsplat import rasterization as theirs

    def by_covars(quats, scales, **rest):
        axes = quat_to_rotmat(quats) * scales[:, None, :]
        covars = axes @ axes.mT
        return rasterization(quats=None, scales=None, covars=covars, **rest)

    options = {"packed": False, "rasterize_mode": mode}
    exact = outcome(theirs, tensors, torch.float64, **options)
    found = outcome(by_covars, tensors, torch.float32, **options)
    assert (found[0] - exact[0]).abs().max() <= 2e-5
    for name in ("means", "quats", "scales", "viewmats"):
        error = (found[3][name] - exact[3][name]).norm() / exact[3][name].norm()
        # Float32 covariances have lost half the digits of a thin axis.
        assert error <= 2e-4, f"{name}: {error:.1e}"


def test_a_flat_covariance_is_drawn_and_its_gradient_is_finite():
    tensors = {k: v.float() for k, v in colored(scene()).items()}
    flat = torch.diag(torch.tensor([0.01, 0.02, 0.0])).expand(200, 3, 3).clone().requires_grad_()
    tensors |= {"quats": None, "scales": None}
    images, _, _ = rasterization(**tensors, **SIZE, covars=flat)
    assert images.std() > 0.01
    images.square().sum().backward()
    assert torch.isfinite(flat.grad).all() and flat.grad.norm() > 0


def test_small_splats_are_clipped_by_their_radius():
    tensors = colored(scene())
    exact, found = compare_with_gsplat(tensors, radius_clip=2.0)
    assert torch.equal(found[2]["radii"], exact[2]["radii"])
    kept = (found[2]["radii"] > 0).all(-1).float().mean()
    assert 0.05 < kept < 0.9


def test_meta_is_gsplats(packed):
    tensors = {k: v.detach() for k, v in colored(scene()).items()}
    exact, found = compare_with_gsplat(tensors, packed=packed)
    expected, got = exact[2], found[2]
    visible = (expected["radii"] > 0).all(-1)
    for name in ("means2d", "depths", "conics", "opacities"):
        assert got[name].shape == expected[name].shape
        assert torch.allclose(got[name][visible], expected[name][visible].float(), atol=1e-4), name
    for name in ("radii", "batch_ids", "camera_ids", "gaussian_ids", "tiles_per_gauss",
                 "isect_offsets", "flatten_ids", "isect_ids"):  # fmt: skip
        if expected[name] is None:
            assert got[name] is None, name
            continue
        assert got[name].dtype == expected[name].dtype, name
        if name == "isect_ids":  # the depth's bits may differ in the last
            assert torch.equal(got[name] >> 32, expected[name] >> 32)
        else:
            assert torch.equal(got[name], expected[name]), name
    for name in ("tile_width", "tile_height", "tile_size", "width", "height", "n_batches",
                 "n_cameras"):  # fmt: skip
        assert got[name] == expected[name], name
    with pytest.raises(KeyError):
        got["no such thing"]


def test_meta_counts_tiles_of_any_size():
    tensors = colored(scene())
    exact, found = compare_with_gsplat(tensors, tile_size=8)
    for name in ("isect_offsets", "flatten_ids", "tiles_per_gauss"):
        assert torch.equal(found[2][name], exact[2][name]), name


def test_both_layouts_are_the_same_picture_bit_for_bit():
    tensors = {k: v.float() for k, v in colored(scene()).items()}
    loose = outcome(rasterization, tensors, torch.float32, packed=False, absgrad=True)
    tight = outcome(rasterization, tensors, torch.float32, packed=True, absgrad=True)
    assert torch.equal(loose[0], tight[0]) and torch.equal(loose[1], tight[1])
    for name in ("means", "quats", "scales", "opacities", "colors", "viewmats"):
        assert torch.equal(loose[3][name], tight[3][name]), name
    ids = tight[2]["camera_ids"], tight[2]["gaussian_ids"]
    assert torch.equal(loose[2]["means2d"].absgrad[ids], tight[2]["means2d"].absgrad)


def test_nothing_visible_is_background_in_both_layouts(packed):
    tensors = {k: v.float() for k, v in colored(scene()).items()}
    tensors["means"] = tensors["means"] + 1e4
    tensors["backgrounds"] = random(3, 3).float()
    images, alphas, meta = rasterization(**tensors, **SIZE, packed=packed)
    assert torch.equal(images, tensors["backgrounds"][:, None, None].expand_as(images))
    assert not alphas.any() and len(meta["isect_ids"]) == 0
    if packed:
        assert len(meta["gaussian_ids"]) == 0


def test_the_arguments_are_gsplats_in_gsplats_order():
    from gsplat import rasterization as theirs

    ours = inspect.signature(rasterization).parameters
    names = [n for n in ours if n != "others"]
    assert names == list(inspect.signature(theirs).parameters)[: len(names)]
    defaults = {n: p.default for n, p in inspect.signature(theirs).parameters.items()}
    for name in names:
        assert ours[name].default == defaults[name], name


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"distributed": True}, "distributed"),
        ({"with_ut": True}, "with_ut"),
        ({"with_eval3d": True}, "with_eval3d"),
        ({"sparse_grad": True}, "sparse_grad"),
        ({"camera_model": "fisheye"}, "fisheye"),
        ({"camera_model": "ortho"}, "ortho"),
        ({"radial_coeffs": torch.zeros(3, 6)}, "radial_coeffs"),
        ({"rolling_shutter": 1}, "rolling_shutter"),
        ({"sh_degree": 4}, "sh_degree"),
        ({"absgrad": True, "colors": torch.rand(200, 5)}, "absgrad"),
    ],
)
def test_what_only_gsplat_has_is_refused_by_name(options, named):
    tensors = {k: v.float() for k, v in colored(scene(cameras=1)).items()}
    with pytest.raises(NotImplementedError, match=named):
        rasterization(**(tensors | SIZE | options))


def test_batch_dimensions_are_refused_by_name():
    tensors = {k: v.float()[None] for k, v in colored(scene(cameras=1)).items()}
    with pytest.raises(NotImplementedError, match="batch dimensions"):
        rasterization(**tensors, **SIZE)


def test_options_of_gsplat_that_ask_for_nothing_special_are_taken():
    from gsplat.cuda._wrapper import RollingShutterType

    tensors = {k: v.float() for k, v in colored(scene(cameras=1)).items()}
    rasterization(
        **tensors, **SIZE, with_ut=False, viewmats_rs=None, segmented=True, channel_chunk=2,
        rolling_shutter=RollingShutterType.GLOBAL,
    )  # fmt: skip


def test_wrong_arguments_are_told():
    tensors = {k: v.float() for k, v in colored(scene(cameras=1)).items()}
    with pytest.raises(TypeError, match="colour"):
        rasterization(**tensors, **SIZE, colour=1)
    with pytest.raises(ValueError, match="render_mode"):
        rasterization(**tensors, **SIZE, render_mode="RGBD")
    with pytest.raises(ValueError, match="rasterize_mode"):
        rasterization(**tensors, **SIZE, rasterize_mode="smooth")
    with pytest.raises(ValueError, match=r"opacities: expected shape \[200\], got \[100\]"):
        rasterization(**(tensors | SIZE | {"opacities": torch.ones(100)}))
    with pytest.raises(ValueError, match="float32"):
        rasterization(**{k: v.double() for k, v in tensors.items()}, **SIZE)


def trainable(count):
    """Splats as gsplat's examples hold them, with an Adam for each parameter."""
    splats = random_gaussians(count, seed=5)
    values = {
        "means": splats.means,
        "quats": splats.quats,
        "scales": splats.log_scales,
        "opacities": splats.logit_opacities,
        "colors": random(count, 3),
    }
    params = torch.nn.ParameterDict(
        {k: torch.nn.Parameter(v.float().clone()) for k, v in values.items()}
    )
    return params, {k: torch.optim.Adam([v], lr=1e-2) for k, v in params.items()}


def draw(params, cameras, **options):
    return rasterization(
        params["means"],
        params["quats"],
        params["scales"].exp(),
        params["opacities"].sigmoid(),
        params["colors"].sigmoid(),
        cameras.viewmats.float(),
        cameras.Ks.float(),
        **SIZE,
        **options,
    )


@pytest.mark.parametrize("absgrad", [False, True])
def test_gsplats_default_strategy_grows_and_prunes_unmodified(packed, absgrad):
    from gsplat.strategy import DefaultStrategy

    params, optimizers = trainable(300)
    strategy = DefaultStrategy(
        refine_start_iter=2, refine_every=5, reset_every=10_000, grow_grad2d=1e-7, absgrad=absgrad
    )
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state(scene_scale=1.0)
    cameras, target = some_cameras(3, **SIZE), random(3, 20, 35, 3).float()
    for step in range(12):
        images, _, meta = draw(params, cameras, packed=packed, absgrad=absgrad)
        strategy.step_pre_backward(params, optimizers, state, step, meta)
        (images - target).square().mean().backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        strategy.step_post_backward(params, optimizers, state, step, meta, packed=packed)
    assert len(params["means"]) > 320
    assert all(torch.isfinite(v).all() for v in params.values())


def test_gsplats_mcmc_strategy_adds_splats_unmodified(packed):
    from gsplat.strategy import MCMCStrategy

    params, optimizers = trainable(300)
    strategy = MCMCStrategy(cap_max=400, refine_start_iter=2, refine_every=4, min_opacity=0.05)
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state()
    cameras, target = some_cameras(3, **SIZE), random(3, 20, 35, 3).float()
    for step in range(12):
        images, _, meta = draw(params, cameras, packed=packed)
        (images - target).square().mean().backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        strategy.step_post_backward(params, optimizers, state, step, meta, lr=1e-3)
    assert len(params["means"]) > 310
    assert all(torch.isfinite(v).all() for v in params.values())
