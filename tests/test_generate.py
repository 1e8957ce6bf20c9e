"""The whole program on a tiny random prior: files, resume, Ctrl-C, refusals."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from splat_esd import train
from splat_esd.config.load import load_config
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.formats.read import open_splats
from splat_esd.runs.checkpoint import latest_checkpoint
from splat_esd.runs.generate import generate, open_prior
from splat_esd.train import make_run, run_state, train_step

SMALL = (
    "steps=10 cameras.batch_size=2 init.count=200 export.frames=4 export.size=32 "
    "density.start=0 density.every=3 mesh.faces=500 mesh.texture=64 "
    "log.every=1 log.preview_every=5 log.checkpoint_every=4"
).split()


def arguments(folder, prior, *more):
    return ["prompt=a corgi", "prior=sd15", f"prior.path={prior}", f"out={folder}", *SMALL, *more]


def small(folder, prior, *more):
    return load_config(arguments(folder, prior, *more))


def fresh_run(tmp_path, tiny_sd, *more):
    config = small(tmp_path, tiny_sd, *more)
    return make_run(config, open_prior(config, torch.device("cpu")))


def command(*given):
    program = "import sys; from splat_esd.cli.main import run; run()"
    return [sys.executable, "-W", "ignore", "-c", program, *given]


def test_a_run_leaves_every_file_it_promises_and_nothing_elsewhere(tmp_path, tiny_sd):
    folder = generate(small(tmp_path, tiny_sd))
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names == {
        "splat.ply",
        "turntable.mp4",
        "turntable.webp",
        "sheet.png",
        "viewer.html",
        "mesh.glb",
        "mesh.json",
        "metrics.jsonl",
        "config.yaml",
        "run.json",
        "ckpt/step-000008.pt",
        "ckpt/step-000010.pt",
        "previews/000005.png",
        "previews/000010.png",
        "timeline/000000.spz",
        "timeline/000005.spz",
        "timeline/000010.spz",
    }
    assert [p for p in tmp_path.rglob("*") if p.is_file() and folder not in p.parents] == []
    run = json.loads((folder / "run.json").read_text())
    assert (
        run["status"] == "finished"
        and run["steps"] == 10
        and run["prior"]["source"] == str(tiny_sd)
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))
    evaluations = [lines[0][f"unet_{part}"] for part in ("prior", "phi", "phi_training")]
    assert evaluations == [2, 1, 1]


@pytest.mark.parametrize(
    "choice",
    [["guidance=sds"], ["guidance=csd"], ["guidance=sdi"], ["guidance=vsd"],
     ["guidance.lambda=0"], ["guidance.lambda=1"],
     ["density=mcmc"], ["guidance.perp_neg.enabled=true", "guidance.grad_clamp=1.0"]],
    ids=" ".join,
)  # fmt: skip
def test_every_method_runs_and_moves_the_gaussians(tmp_path, tiny_sd, choice):
    run = fresh_run(tmp_path, tiny_sd, *choice)
    before = run.gaussians.means.detach().clone()
    for step in range(3):
        stats = train_step(run, step)
        assert "refused" not in stats
    moved = (run.gaussians.means[: len(before)] - before[: len(run.gaussians.means)]).abs().max()
    assert moved > 0
    assert all(p.isfinite().all() for p in run.gaussians.parameters().values())


@pytest.mark.parametrize("kind", ["tiny_sd_v", "tiny_pixels"])
def test_v_prediction_and_pixel_priors_run_too(tmp_path, kind, request):
    run = fresh_run(tmp_path, request.getfixturevalue(kind))
    assert train_step(run, 0)["score_norm"] > 0


def test_lambda_zero_is_vsd_bit_for_bit_over_a_run(tmp_path, tiny_sd):
    runs = [
        fresh_run(tmp_path, tiny_sd, choice) for choice in ("guidance=vsd", "guidance.lambda=0")
    ]
    for run in runs:
        for step in range(4):
            train_step(run, step)
    assert_same_state(*(run_state(run) for run in runs))


def test_the_first_gradient_of_theta_points_down_the_score(tmp_path, tiny_sd):
    """A descent: a small step along -grad lowers <grad_z, z>; the paper's printed sign would
    raise it.
    """
    run = fresh_run(tmp_path, tiny_sd, "density=none", "prior.dtype=fp32")
    g = train.step_generator(0, 0, run.device)
    cameras = run.cameras.sample(g)
    background = run.background.sample(len(cameras), g)
    z = run.prior.encode_images(train.render(run, cameras, background).rgb)
    grad = run.guidance.gradient(z.detach(), cameras, 0, g).grad
    (grad * z).sum().backward()
    with torch.no_grad():
        sh = run.gaussians.sh
        sh -= 1e-3 * sh.grad / sh.grad.norm()
        after = run.prior.encode_images(train.render(run, cameras, background).rgb)
    assert (grad * after).sum() < (grad * z).sum()


def test_five_steps_a_stop_and_five_more_equal_ten(tmp_path, tiny_sd, monkeypatch):
    whole = generate(small(tmp_path / "whole", tiny_sd))
    real = train_step

    def stopped(run, step):
        if step == 5:
            raise KeyboardInterrupt
        return real(run, step)

    monkeypatch.setattr("splat_esd.runs.processes.train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        generate(small(tmp_path / "halves", tiny_sd))
    (halves,) = (tmp_path / "halves" / "a-corgi").iterdir()
    before = json.loads((halves / "run.json").read_text())
    assert before["status"] == "interrupted" and before["steps"] == 5
    assert not (halves / "sheet.png").exists()  # the prompt is back soon: only the splats
    assert open_splats(halves / "splat.ply").means.isfinite().all()
    monkeypatch.setattr("splat_esd.runs.processes.train_step", real)
    assert generate(small(tmp_path / "halves", tiny_sd)) == halves
    assert (halves / "splat.ply").read_bytes() == (whole / "splat.ply").read_bytes()
    steps = [json.loads(x)["step"] for x in (halves / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 11))
    after = json.loads((halves / "run.json").read_text())
    assert after["seconds_training"] > before["seconds_training"] > 0


def test_a_run_killed_without_warning_continues_to_the_same_bits(tmp_path, tiny_sd):
    quiet = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    given = arguments(tmp_path / "whole", tiny_sd, "steps=30")
    subprocess.run(command(*given), check=True, **quiet)
    (whole,) = (tmp_path / "whole" / "a-corgi").iterdir()
    given = arguments(tmp_path / "killed", tiny_sd, "steps=30")
    process = subprocess.Popen(command(*given), **quiet)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob("step-*.pt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed,) = (tmp_path / "killed" / "a-corgi").iterdir()
    assert not (killed / "splat.ply").exists()
    subprocess.run(command(*given), check=True, **quiet)
    assert (killed / "splat.ply").read_bytes() == (whole / "splat.ply").read_bytes()
    assert list((tmp_path / "killed" / "a-corgi").iterdir()) == [killed]


def test_the_time_of_all_sessions_is_added_up(tmp_path, tiny_sd, monkeypatch):
    real, now = train_step, [0.0]
    monkeypatch.setattr("splat_esd.runs.generate.time.monotonic", lambda: now[0])

    def a_minute_each(run, step):
        now[0] += 60
        if step == 5 and not again:
            raise KeyboardInterrupt
        return real(run, step)

    again = []
    monkeypatch.setattr("splat_esd.runs.processes.train_step", a_minute_each)
    with pytest.raises(KeyboardInterrupt):
        generate(small(tmp_path, tiny_sd))
    again.append(True)
    now[0] = 10_000.0
    folder = generate(small(tmp_path, tiny_sd))
    assert json.loads((folder / "run.json").read_text())["seconds_training"] == 11 * 60
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["seconds"] == 11 * 60


def test_a_second_interruption_leaves_the_status_and_the_hint(
    tmp_path, tiny_sd, monkeypatch, capsys
):
    def interrupted(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("splat_esd.runs.processes.train_step", interrupted)
    monkeypatch.setattr("splat_esd.runs.generate.write_files", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(small(tmp_path, tiny_sd))
    (folder,) = (tmp_path / "a-corgi").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert f'splat-esd resume="{folder}"' in capsys.readouterr().err


def test_unknown_words_of_the_negative_prompt_are_a_warning_under_its_name(
    tmp_path, tiny_sd, capsys
):
    prior = shutil.copytree(tiny_sd, tmp_path / "prior")
    (prior / "vocabulary.txt").write_text("a\ncorgi\nfog\n")
    generate(small(tmp_path, prior, "steps=1", "negative_prompt=fog, blurry"))
    said = capsys.readouterr().err
    assert "warning: negative_prompt: this prior does not know 'blurry'; left out." in said


def test_stable_diffusion_without_a_gpu_warns_before_it_fetches(tmp_path, monkeypatch, capsys):
    def fetched(*given, **options):
        raise EnvironmentProblem("no network")

    monkeypatch.setattr("splat_esd.runs.start.load_prior", fetched)
    config = load_config(["prompt=x", "prior=sd21", "device=cpu", f"out={tmp_path}"])
    with pytest.raises(EnvironmentProblem):
        generate(config)
    assert "prior=sd21 without a CUDA GPU takes minutes a step" in capsys.readouterr().err


def test_resume_names_a_folder_instead_of_the_same_command(tmp_path, tiny_sd, monkeypatch):
    real = train_step
    monkeypatch.setattr(
        "splat_esd.runs.processes.train_step",
        lambda run, step: real(run, step) if step < 5 else (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        generate(small(tmp_path, tiny_sd))
    monkeypatch.setattr("splat_esd.runs.processes.train_step", real)
    (folder,) = (tmp_path / "a-corgi").iterdir()
    assert generate(load_config([f"resume={folder}"])) == folder
    assert json.loads((folder / "run.json").read_text())["steps"] == 10


def test_a_step_without_a_finite_gradient_changes_nothing_and_is_said(tmp_path, tiny_sd, capsys):
    run = fresh_run(tmp_path, tiny_sd)
    train_step(run, 0)
    before = copy_state(run)
    good, run.guidance.weight = (
        run.guidance.weight,
        lambda t: torch.full((len(t), 1, 1, 1), torch.nan),
    )
    assert train_step(run, 1)["refused"] == 1
    assert_same_state(run_state(run) | {"refused": 0, "refused_in_all": 0}, before)
    run.guidance.weight = good
    assert "refused" not in train_step(run, 2)
    assert run.refused == 0


def test_phi_without_a_finite_gradient_stops_the_gaussians_too(tmp_path, tiny_sd):
    run = fresh_run(tmp_path, tiny_sd)
    before = copy_state(run)
    real = run.guidance.phi.eps_and_losses
    run.guidance.phi.eps_and_losses = lambda *given: (real(*given)[0], real(*given)[1] * torch.inf)
    assert train_step(run, 0)["refused"] == 1
    assert_same_state(run_state(run) | {"refused": 0, "refused_in_all": 0}, before)


def test_phis_second_update_without_a_finite_gradient_takes_the_first_one_back(tmp_path, tiny_sd):
    run = fresh_run(tmp_path, tiny_sd, "guidance.lora.steps=2")
    assert train_step(run, 0)["unet_phi_training"] == 2
    before = copy_state(run)
    real, calls = run.guidance.phi.eps_and_losses, []

    def second_is_nan(*given):
        calls.append(given)
        eps, losses = real(*given)
        return eps, losses * (torch.nan if len(calls) == 2 else 1.0)

    run.guidance.phi.eps_and_losses = second_is_nan
    assert train_step(run, 1)["refused"] == 1
    assert len(calls) == 2
    assert_same_state(run_state(run) | {"refused": 0, "refused_in_all": 0}, before)


def test_a_run_that_stays_without_gradients_gives_up_with_advice(tmp_path, tiny_sd):
    run = fresh_run(tmp_path, tiny_sd, "guidance=sds")
    run.guidance.weight = lambda t: torch.full((len(t), 1, 1, 1), torch.nan)
    with pytest.raises(EnvironmentProblem, match=r"not finite in 20 steps.*prior.dtype=fp32"):
        for step in range(30):
            train_step(run, step)
    assert step == 19


def test_a_damaged_checkpoint_is_passed_over_and_set_aside(tmp_path, tiny_sd, capsys):
    folder = generate(small(tmp_path, tiny_sd))
    whole = (folder / "splat.ply").read_bytes()
    path = latest_checkpoint(folder / "ckpt")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert generate(load_config([f"resume={folder}"])) == folder
    said = capsys.readouterr().err
    assert "step-000010.pt is damaged" in said and "continuing from step-000008.pt" in said
    assert (folder / "splat.ply").read_bytes() == whole
    assert {p.name for p in (folder / "ckpt").iterdir()} == {
        "step-000008.pt", "step-000010.pt", "step-000010.pt.damaged"
    }  # fmt: skip


def test_without_a_usable_checkpoint_nothing_is_touched(tmp_path, tiny_sd):
    folder = generate(small(tmp_path, tiny_sd))
    for path in (folder / "ckpt").iterdir():
        path.write_bytes(b"x")
    before = sorted(p.name for p in folder.rglob("*"))
    with pytest.raises(UsageError, match=r"none of the checkpoints .* can be used; delete"):
        generate(load_config([f"resume={folder}"]))
    assert sorted(p.name for p in folder.rglob("*")) == before


def test_a_full_disk_is_one_message_and_the_last_checkpoint_stays(tmp_path, tiny_sd, monkeypatch):
    def full(folder, step, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("splat_esd.runs.restore.save_checkpoint", full)
    with pytest.raises(
        EnvironmentProblem, match=r"No space left.*continue with: splat-esd resume="
    ):
        generate(small(tmp_path, tiny_sd))


def test_a_splat_too_thin_for_a_mesh_leaves_all_other_files_and_a_finished_run(tmp_path, tiny_sd):
    formats = "export.formats=[glb,ply,sheet]"
    with pytest.raises(UsageError, match="nothing to make a mesh of"):
        generate(
            small(tmp_path, tiny_sd, formats, "steps=1", "density=none", "init.opacity=0.0001")
        )
    (folder,) = (tmp_path / "a-corgi").iterdir()
    assert {"splat.ply", "sheet.png"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "mesh.glb").exists()
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_a_seed_of_null_is_drawn_and_written_down(tmp_path, tiny_sd):
    folder = generate(small(tmp_path, tiny_sd, "seed=null", "steps=1"))
    seed = json.loads((folder / "run.json").read_text())["seed"]
    assert (
        folder.name.endswith(f"-s{seed}")
        and f"seed: {seed}" in (folder / "config.yaml").read_text()
    )


def test_cuda_without_a_gpu_is_refused(tmp_path, tiny_sd):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EnvironmentProblem, match=r"device=cuda: PyTorch sees no CUDA GPU"):
        generate(small(tmp_path, tiny_sd, "device=cuda"))


def copy_state(run):
    return torch.utils._pytree.tree_map(
        lambda x: x.clone() if isinstance(x, torch.Tensor) else x, run_state(run)
    )


def assert_same_state(a, b):
    flat_a, spec_a = torch.utils._pytree.tree_flatten(a)
    flat_b, spec_b = torch.utils._pytree.tree_flatten(b)
    assert spec_a == spec_b
    for x, y in zip(flat_a, flat_b, strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
