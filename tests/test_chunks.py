"""Fewer views at a time give the same step, and a full memory is no end."""

import pytest
import torch

from splat_esd.config.load import load_config
from splat_esd.diffusion.chunks import by_rows, halved
from splat_esd.runs.start import open_prior
from splat_esd.train import make_run, train_step


def config(folder, *more):
    asked = ["prompt=a cat", "prior=sd15", f"prior.path={folder}", "device=cpu", "steps=4"]
    few = ["init.count=40", "density=none", "prior.dtype=fp32", "seed=3"]
    return load_config([*asked, *few, *more])


def run_of(folder, *more):
    settings = config(folder, *more)
    return make_run(settings, open_prior(settings, torch.device("cpu")))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, None])
def test_a_function_of_rows_and_its_gradient_do_not_depend_on_the_parts(rows):
    x = torch.randn(5, 3, requires_grad=True)
    w = torch.randn(3, requires_grad=True)
    cotangent = torch.randn(5)
    whole = (x @ w).tanh()
    parts = by_rows(lambda r: (x[r] @ w).tanh(), 5, rows)
    torch.testing.assert_close(parts, whole)
    for a, b in zip(
        torch.autograd.grad(parts, (x, w), cotangent),
        torch.autograd.grad(whole, (x, w), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("pullback", ["encoder", "decoder"])
@pytest.mark.parametrize("prior", ["tiny_sd", "tiny_sd3"])
def test_a_step_with_little_memory_is_the_same_step(prior, pullback, request):
    folder = request.getfixturevalue(prior)
    kind = ["prior=sd35", "prior.size=16"] if prior == "tiny_sd3" else []
    more = [*kind, f"prior.pullback={pullback}"]
    full = run_of(folder, *more, "prior.memory=full")
    low = run_of(folder, *more, "prior.memory=low")
    assert low.prior.rows == 1
    for step in range(2):
        a, b = train_step(full, step), train_step(low, step)
        assert a["score_norm"] == pytest.approx(b["score_norm"], rel=1e-4)
        assert a["phi_loss"] == pytest.approx(b["phi_loss"], rel=1e-4)
    assert full.guidance.phi is not None and low.guidance.phi is not None
    mine, theirs = full.guidance.phi.trainable(), low.guidance.phi.trainable()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-3)


def test_a_full_memory_halves_the_views_and_says_so(tiny_sd, monkeypatch, capsys):
    run = run_of(tiny_sd)
    denoise = run.prior.denoise

    def with_room_for_one(z_t, t, text):
        if len(z_t) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return denoise(z_t, t, text)

    monkeypatch.setattr(run.prior, "denoise", with_room_for_one)
    stats = train_step(run, 0)
    assert run.prior.rows == 1 and stats["score_norm"] > 0
    said = " ".join(capsys.readouterr().err.split())
    assert "2 of 4 views" in said and "1 of 4 views" in said


def test_a_step_that_fails_in_phis_second_update_is_made_once(tiny_sd, monkeypatch):
    more = "guidance.lora.steps=2"
    run, whole = run_of(tiny_sd, more), run_of(tiny_sd, more)
    losses, failed = run.guidance.losses, []

    def once(*arguments):
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses(*arguments)

    monkeypatch.setattr(run.guidance, "losses", once)
    train_step(run, 0)
    train_step(whole, 0)
    assert failed and run.prior.rows == 2
    for name, value in whole.gaussians.parameters().items():
        torch.testing.assert_close(run.gaussians.parameters()[name], value, atol=1e-4, rtol=1e-3)


def test_a_memory_that_cannot_hold_one_view_is_the_end(tiny_sd, monkeypatch):
    run = run_of(tiny_sd)

    def no_room(z_t, t, text):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(run.prior, "denoise", no_room)
    with pytest.raises(torch.OutOfMemoryError):
        train_step(run, 0)


def test_halves_end_at_one():
    assert [halved(None, 4), halved(2, 4), halved(1, 4), halved(3, 4)] == [2, 1, None, 1]
