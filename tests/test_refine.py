"""`splat-esd refine`: somebody's splat, changed by words."""

import math
from pathlib import Path
from typing import Literal

import pytest
import torch

from splat_esd.bench.reference_shapes import as_splat
from splat_esd.cameras import turntable
from splat_esd.cli.main import main
from splat_esd.config.refine import load_refine
from splat_esd.config.schema import InitConfig
from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.prompts import PromptBook, view_index, view_weights
from splat_esd.errors import ConfigError
from splat_esd.facing import find_front
from splat_esd.formats.frame import UNIT_BALL, Frame
from splat_esd.formats.ply import write_ply
from splat_esd.formats.read import ImportedSplats, open_splats
from splat_esd.gaussians import Gaussians
from splat_esd.leash import LENGTHS, make_leash
from splat_esd.optim import make_optimizers
from splat_esd.paths import ASSETS
from splat_esd.runs.folder import RunFolder

QUICK = ["cameras.batch_size=1", "export.formats=[ply]", "processes=1", "front=0"]


@pytest.fixture(scope="module")
def corgi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "corgi.ply"
    write_ply(as_splat("corgi", 2000), path)
    return path


def splats(count: int = 6) -> Gaussians:
    generator = torch.Generator().manual_seed(count)
    return Gaussians(
        means=torch.rand(count, 3, generator=generator) - 0.5,
        quats=torch.randn(count, 4, generator=generator),
        log_scales=torch.randn(count, 3, generator=generator) - 3,
        logit_opacities=torch.randn(count, generator=generator),
        sh=torch.randn(count, 1, 3, generator=generator),
    )


def test_the_short_names_stand_for_settings_of_a_run(corgi: Path):
    asked = ["prompt=a blue corgi", "strength=0.4", "keep=colour", "region=[0,0,0,1]", "front=90"]
    job = load_refine([str(corgi), *asked])
    config = job.config
    assert (config.guidance.t_max, config.guidance.t_max_end) == (0.4, 0.4)
    assert (config.init.kind, config.init.path) == ("ply", corgi)
    assert (config.init.keep, config.init.region) == ("colour", (0.0, 0.0, 0.0, 1.0))
    assert (config.init.front, job.find_front) == (90.0, False)
    assert config.density.strategy == "none" and config.steps == 150


def test_by_default_the_shape_is_kept_and_the_front_is_sought(corgi: Path):
    job = load_refine([str(corgi), "prompt=a blue corgi", "quality=draft"])
    assert job.find_front and job.config.init.keep == "shape"
    assert job.config.steps == 66


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["a.ply", "b.ply"], "one splat"),
        ([], "one splat"),
        (["a.ply", "strength=1.5"], "guidance.t_max"),
        (["a.ply", "keep=legs"], "init.keep"),
        (["a.ply", "density=default"], "density=none or init.keep=none"),
        (["a.ply", "region=[0,0]"], "init.region"),
        (["a.ply", "front=north"], "init.front"),
    ],
)
def test_a_mistake_is_named(more: list[str], expected: str):
    with pytest.raises(ConfigError, match=expected.replace(".", r"\.")):
        load_refine(["prompt=a corgi", *more])


@pytest.mark.parametrize("keep", ["shape", "colour"])
def test_a_steady_pull_is_balanced_at_the_leashs_length(keep: Literal["shape", "colour"]):
    start, gaussians = splats(), splats()
    optimizers = make_optimizers(gaussians)
    leash = make_leash(
        ImportedSplats(start, UNIT_BALL, ()), InitConfig(kind="ply", path=Path("x"), keep=keep)
    )
    rate = 0.004
    for _ in range(2000):
        for name, parameter in gaussians.parameters().items():
            optimizers[name].param_groups[0]["lr"] = rate
            parameter.data += rate  # Adam's step under a gradient that never changes
        leash.pull(gaussians, optimizers)
    for name, moved in gaussians.parameters().items():
        length = LENGTHS[keep].get(name)
        # The pull comes after the step: the balance lies one step short of the length.
        expected = 2000 * rate if length is None else length - rate
        there = getattr(start, name)
        torch.testing.assert_close(
            moved - there, torch.full_like(moved, expected), atol=1e-3, rtol=1e-3
        )


def test_a_region_is_meant_in_the_files_own_axes():
    placement = Frame(torch.tensor([10.0, 0.0, 0.0]).double().numpy(), 4.0)
    start = ImportedSplats(splats(50), placement, (), "-y")
    # Our z is up, such a file's y is down.
    world = 4.0 * start.gaussians.means + torch.tensor([10.0, 0.0, 0.0])
    back = start.in_file(start.gaussians.means)
    torch.testing.assert_close(torch.from_numpy(back).norm(dim=1), world.double().norm(dim=1))
    torch.testing.assert_close(torch.from_numpy(back[:, 1]), -world[:, 2].double())


def test_what_lies_outside_the_region_gets_no_gradient():
    gaussians = splats(40)
    make_optimizers(gaussians)
    for parameter in gaussians.parameters().values():
        parameter.grad = torch.ones_like(parameter)
    screen = {"grad2d": torch.ones(40)}
    init = InitConfig(kind="ply", path=Path("x"), region=(0.0, 0.0, 0.0, 0.4))
    make_leash(ImportedSplats(splats(40), UNIT_BALL, ()), init).hold(gaussians, screen)
    inside = (gaussians.means.norm(dim=1) <= 0.4).float()
    assert 0 < inside.sum() < 40
    for gradient in [p.grad for p in gaussians.parameters().values()] + [screen["grad2d"]]:
        assert gradient is not None
        expected = inside.view(-1, *[1] * (gradient.ndim - 1)).expand_as(gradient)
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("front", [0.0, 90.0, 200.0])
def test_views_are_named_from_the_front_of_the_start(front: float):
    cameras = turntable(24, elevation=0.2, distance=2.4, fovy=0.8, width=8, height=8)
    turned = turntable(24, elevation=0.2, distance=2.4, fovy=0.8, width=8, height=8)
    turned.azimuth.add_(math.radians(front))
    turn = math.radians(front)
    torch.testing.assert_close(view_weights(turned, turn), view_weights(cameras), atol=1e-5, rtol=0)
    assert view_index(turned, turn + 0.01).tolist() == view_index(cameras, 0.01).tolist()


@pytest.mark.parametrize("degrees", [0.0, 90.0, 230.0])
def test_the_prior_finds_the_front_wherever_it_is(degrees: float):
    """Though the prompt asks for another colour than it has."""
    prior = load_prior(
        str(ASSETS / "zoo"), device=torch.device("cpu"), dtype="auto", pullback="decoder"
    )
    book = PromptBook(prior, "a blue corgi", "", by_view=True)
    turn = math.radians(degrees)
    about_z = [
        [math.cos(turn), -math.sin(turn), 0.0],
        [math.sin(turn), math.cos(turn), 0.0],
        [0.0, 0.0, 1.0],
    ]
    start = as_splat("corgi", 5000).rotate(torch.tensor(about_z))
    found = find_front(prior, book, start, seed=0)
    assert abs((found - degrees + 180) % 360 - 180) <= 30


def refine(corgi: Path, out: Path, *more: str) -> Path:
    prompt = "prompt=a blue corgi"
    assert main(["refine", str(corgi), prompt, f"out={out}", *QUICK, *more]) == 0
    return next((out / "a-blue-corgi").iterdir())


def test_only_the_region_changes(corgi: Path, tmp_path: Path):
    run = refine(corgi, tmp_path, "steps=3", "region=[0,-0.5,0,0.45]")
    before, after = open_splats(corgi), open_splats(RunFolder(run).splat)
    inside = (before.means - torch.tensor([0.0, 0.0, 0.5])).norm(dim=1) <= 0.45
    changed = (before.sh - after.sh).abs().amax((1, 2)) > 1e-4
    assert changed[inside].float().mean() > 0.3
    assert not changed[~inside].any()
    torch.testing.assert_close(after.means[~inside], before.means[~inside])


def test_before_and_after_stand_on_one_page(corgi: Path, tmp_path: Path, capsys):
    run = refine(corgi, tmp_path, "steps=2")
    page = (run / "before-after.html").read_text(encoding="utf-8")
    assert "corgi.ply" in page and "a blue corgi" in page
    assert "before-after.html" in capsys.readouterr().err.replace("\n", "")


def test_an_interrupted_refinement_continues_bit_for_bit(corgi: Path, tmp_path: Path):
    from splat_esd.runs.generate import generate

    def stop(step: int, _):
        if step == 2:
            raise KeyboardInterrupt

    def job(out: str):
        arguments = [str(corgi), "prompt=a blue corgi", f"out={tmp_path / out}", "steps=4", *QUICK]
        return load_refine(arguments).config

    whole = open_splats(RunFolder(generate(job("a"))).splat)
    with pytest.raises(KeyboardInterrupt):
        generate(job("b"), on_step=stop)
    continued = open_splats(RunFolder(generate(job("b"))).splat)
    for name, values in whole.parameters().items():
        assert torch.equal(values, getattr(continued, name)), name
