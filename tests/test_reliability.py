"""Runs that are stopped, disturbed or damaged from outside lose nothing and say what happened."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_generate import arguments, command, small

from splat_esd.cli.main import main
from splat_esd.config.load import load_config
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.formats.read import open_splats
from splat_esd.runs.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from splat_esd.runs.folder import RunFolder, claim_run_folder
from splat_esd.runs.generate import generate
from splat_esd.runs.interrupt import BURST, Interrupted, listening
from splat_esd.runs.lock import EXPIRY, LOCK, hold, holder


def started(folder, prior, *more):
    """Starts a run in a process and returns it once it has taken a step."""
    given = arguments(folder, prior, "steps=100000", *more)
    process = subprocess.Popen(command(*given), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    wait_for(lambda: list(folder.rglob("step-*.pt")), process)
    return process


def wait_for(true, process, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


def only_run(folder):
    (path,) = (folder / "a-corgi").iterdir()
    return path


def stopped_at(step, monkeypatch, what=KeyboardInterrupt):
    from splat_esd.train import train_step

    def stopping(run, now):
        if now == step:
            raise what
        return train_step(run, now)

    monkeypatch.setattr("splat_esd.runs.processes.train_step", stopping)


def test_a_lock_is_one_process_at_a_time(tmp_path):
    with hold(tmp_path) as mine:
        assert mine and holder(tmp_path)["pid"] == os.getpid()
        with hold(tmp_path) as second:
            assert not second
        assert holder(tmp_path) is not None
    assert holder(tmp_path) is None and not list(tmp_path.iterdir())


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with hold(tmp_path):
        found = holder(tmp_path)
    for changes in ({"pid": dead.pid}, {"started": "1"}, {"pid": -1}, {"pid": "x"}):
        (tmp_path / LOCK).write_text(json.dumps(found | changes))
        with hold(tmp_path) as mine:
            assert mine
    (tmp_path / LOCK).write_text("[")
    with hold(tmp_path) as mine:
        assert mine


def test_the_lock_of_another_machine_expires_without_signs_of_life(tmp_path):
    (tmp_path / LOCK).write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with hold(tmp_path) as mine:
        assert not mine
    past = time.time() - EXPIRY - 1
    os.utime(tmp_path / LOCK, (past, past))
    with hold(tmp_path) as mine:
        assert mine


def test_of_many_that_want_a_dead_ones_lock_one_gets_it(tmp_path):
    (tmp_path / LOCK).write_text(json.dumps({"pid": 2**22 + 5, "host": os.uname().nodename}))
    program = (
        "import sys, time, pathlib; from splat_esd.runs.lock import hold\n"
        "with hold(pathlib.Path(sys.argv[1])) as mine: print(int(mine)); time.sleep(3)"
    )
    many = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    assert sorted(p.communicate()[0].strip() for p in many) == ["0", "0", "0", "1"]


def test_a_second_continuation_of_one_run_gets_a_folder_of_its_own(tmp_path, tiny_sd):
    config = small(tmp_path, tiny_sd)
    with claim_run_folder(config) as (first, _), hold(first.path) as mine:
        assert not mine
        with pytest.raises(UsageError, match="another process is still working"):
            refuse_own = config.model_copy(update={"resume": first.path})
            with claim_run_folder(refuse_own):
                pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_run_with_a_checkpoint_and_the_way_to_continue(tmp_path, tiny_sd, number):
    process = started(tmp_path, tiny_sd)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    folder = RunFolder(only_run(tmp_path))
    assert process.returncode == 128 + number and b"Traceback" not in said
    assert b"continue with:\n  splat-esd resume=" in said
    assert folder.run["status"] == "interrupted"
    assert load_checkpoint(checkpoints(folder.checkpoints)[0])["step"] == folder.run["steps"]
    assert not (folder.path / LOCK).exists() and len(open_splats(folder.splat))


def test_three_signals_at_once_are_one(tmp_path, tiny_sd):
    process = started(tmp_path, tiny_sd)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.03)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and b"Traceback" not in said
    assert RunFolder(only_run(tmp_path)).run["status"] == "interrupted"


def test_a_first_signal_waits_for_the_step_and_a_later_one_does_not():
    with listening() as stop:
        stop.wait()
        stop.heard(15)
        stop.heard(15)
        with pytest.raises(Interrupted) as caught:
            stop.now()
        assert caught.value.exit_code == 143
        stop.wait()
        stop._at = -10.0
        stop.heard(2)
        stop._at = -10.0
        with pytest.raises(Interrupted):
            stop.heard(2)
        with stop.shielded():
            stop._at = -10.0
            stop.heard(2)
        with pytest.raises(Interrupted):
            stop.check()


def test_signals_of_one_wish_are_one_also_after_the_block():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted), listening():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        time.sleep(BURST)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("change", [("seed: 0", "seed: 1"), ("steps: 10", "steps: 12")])
def test_settings_edited_after_the_start_are_refused(tmp_path, tiny_sd, monkeypatch, change):
    stopped_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        generate(small(tmp_path, tiny_sd))
    path = only_run(tmp_path) / "config.yaml"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(f"\n{change[0]}\n", f"\n{change[1]}\n", 1))
    with pytest.raises(UsageError, match="two runs would be mixed"):
        generate(load_config([f"resume={path.parent}"]))


WRONG_INSIDE = [
    lambda s: s.pop("gaussians"),
    lambda s: s.update(gaussians=None),
    lambda s: s["gaussians"].pop("sh"),
    lambda s: s["gaussians"].update(means=torch.zeros(3, 2)),
    lambda s: s["gaussians"].update(means=s["gaussians"]["means"] * float("nan")),
    lambda s: s["gaussians"].update(means="x"),
    lambda s: s.update(optimizers=[1]),
    lambda s: s["optimizers"].pop("means"),
    lambda s: s["optimizers"]["means"].update(state={0: 1}),
    lambda s: s["optimizers"]["means"]["state"][0].update(exp_avg=torch.zeros(1)),
    lambda s: s.update(density=None),
    lambda s: s.update(density={"count": torch.zeros(2)}),
    lambda s: s.update(phi={}),
    lambda s: s.update(phi_optimizer={}),
    lambda s: s.update(refused="x"),
]


@pytest.mark.parametrize("spoil", WRONG_INSIDE)
def test_a_checkpoint_of_another_inside_is_passed_over(tmp_path, tiny_sd, spoil, capsys):
    folder = generate(small(tmp_path, tiny_sd, "export.formats=[ply]"))
    newest = checkpoints(folder / "ckpt")[0]
    state = load_checkpoint(newest)
    spoil(state)
    save_checkpoint(newest.parent, state.pop("step"), state)
    whole = (folder / "splat.ply").read_bytes()
    assert main([f"resume={folder}"]) == 0
    said = capsys.readouterr().err
    assert "does not fit" in said and "continuing from step-000008.pt" in said
    assert (folder / "splat.ply").read_bytes() == whole


@pytest.mark.parametrize("gone", ["", "ckpt"])
def test_a_folder_that_vanishes_ends_the_run_and_keeps_the_splat(tmp_path, tiny_sd, gone):
    import shutil

    def remove(step, _):
        if step == 5:
            shutil.rmtree(only_run(tmp_path) / gone)

    with pytest.raises(EnvironmentProblem, match=r"was removed while .* the splat so far is"):
        generate(small(tmp_path, tiny_sd), on_step=remove)
    folder = only_run(tmp_path)
    assert folder.name.endswith("-kept") == (gone == "")
    assert len(open_splats(folder / "splat.ply"))
    if gone:
        assert RunFolder(folder).run["status"] == "failed"
        assert generate(load_config([f"resume={folder}"])) == folder
        assert RunFolder(folder).run["status"] == "finished"


def nan_between(monkeypatch, first, last):
    from splat_esd.guidance import SDS

    real, calls = SDS.gradient, []

    def gradient(self, *given):
        calls.append(0)
        score = real(self, *given)
        if first <= len(calls) <= last:
            score.grad[0] = torch.nan  # one view of the batch
        return score

    monkeypatch.setattr(SDS, "gradient", gradient)


def test_a_run_of_refused_steps_only_is_a_failure(tmp_path, tiny_sd, monkeypatch, capsys):
    nan_between(monkeypatch, 0, 10**6)
    given = arguments(tmp_path, tiny_sd, "guidance=sds", "export.formats=[ply]")
    assert main(given) == 3
    assert "all 10 steps gave gradients that are not finite" in capsys.readouterr().err
    assert RunFolder(only_run(tmp_path)).run["status"] == "failed"


def test_a_hundred_steps_of_nan_are_counted_and_the_run_goes_back_once(
    tmp_path, tiny_sd, monkeypatch, capsys
):
    nan_between(monkeypatch, 6, 105)
    more = ["guidance=sds", "export.formats=[ply]", "steps=130", "log.preview_every=1000"]
    folder = RunFolder(generate(small(tmp_path, tiny_sd, *more)))
    assert folder.run["status"] == "finished" and folder.run["refused"] == 100
    assert "Going back to step" in capsys.readouterr().err
    lines = folder.read_metrics()
    assert [line["step"] for line in lines] == list(range(1, 131))
    assert open_splats(folder.splat).means.isfinite().all()


def test_nan_without_end_gives_up_after_going_back_once(tmp_path, tiny_sd, monkeypatch):
    nan_between(monkeypatch, 6, 10**6)
    more = ["guidance=sds", "export.formats=[ply]", "steps=200", "log.preview_every=1000"]
    with pytest.raises(EnvironmentProblem, match="not finite in 100 steps"):
        generate(small(tmp_path, tiny_sd, *more))
    assert RunFolder(only_run(tmp_path)).run["status"] == "failed"


@pytest.fixture
def splat(tmp_path):
    from test_ply import some

    from splat_esd.formats.ply import write_ply

    return write_ply(some(), tmp_path / "in" / "a.ply")


def exported(splat, redirect):
    line = shlex.join(
        command("export", f"from={splat}", f"out={splat.parent}", "formats=[splat,spz]")
    )
    return subprocess.run(["sh", "-c", f"{line} {redirect}"], capture_output=True, text=True)


def test_a_reader_that_has_gone_is_141(splat):
    line = shlex.join(command("export", f"from={splat}", "formats=[splat,spz]"))
    script = f"({line}; echo $? >&2) | true"
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True).stderr
    assert said.endswith("\n141\n") and "Traceback" not in said and "error:" not in said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_streams_change_no_file_and_no_exit_code_but_stdouts(splat):
    assert exported(splat, "2>/dev/full").returncode == 0
    ran = exported(splat, ">/dev/full")
    assert ran.returncode == 3 and "standard output takes nothing more" in ran.stderr
    line = shlex.join(command("export", "from=nothing.ply"))
    ran = subprocess.run(["sh", "-c", f"{line} 2>/dev/full"], capture_output=True, text=True)
    assert ran.returncode == 2


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{n}: &{n} [{','.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "a bomb": (BOMB, "expands to more than"),
    "itself": ("a: &a [*a]\n", "refers to itself"),
    "deep": ("a: " + "[" * 3000 + "]" * 3000 + "\n", "not readable as YAML|nested more"),
    "long": ("a: " + "x" * 300_000, "longer than"),
    "no keys": ("[1, 2]", "holds no"),
    "tag": ("a: !!python/object/apply:os.system ['true']", "not readable as YAML"),
    "digits": ("a: " + "1" * 5000, "not readable as YAML|nested|unknown"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_yaml_file_is_one_line_at_once(tmp_path, capsys, kind):
    text, said = HOSTILE[kind]
    (tmp_path / "config.yaml").write_text(text)
    begun = time.monotonic()
    assert main([f"resume={tmp_path}"]) == 2
    assert main(["study", str(tmp_path / "config.yaml")]) == 2
    assert time.monotonic() - begun < 10
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and re.search(said, lines[0])


@pytest.mark.parametrize(
    "given",
    ["out=~nouser/x", "resume=~nouser/x", "guidance.grad_clamp=1e300", "optim.means=[1e38,1e38]",
     "guidance.lora.rank=100000", "a" + ".a" * 3000 + "=1", "optim.means=" + "[" * 3000,
     "export.formats=[" + ",".join(["ply"] * 20_000) + "]", "steps=" + "9" * 5000,
     "init.count=1000000000"],
    ids=lambda x: x[:24],
)  # fmt: skip
def test_a_hostile_setting_is_one_line_at_once(given, capsys):
    begun = time.monotonic()
    assert main(["prompt=a corgi", given]) == 2
    assert time.monotonic() - begun < 10
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "bug" not in said


def test_an_experiment_that_starts_from_itself_is_one_line(tmp_path, capsys):
    path = tmp_path / "loop.yaml"
    path.write_text("defaults: [loop, _self_]\nseeds: 1\n")
    assert main(["study", str(path)]) == 2
    assert "cannot be composed" in capsys.readouterr().err


def told_by_doctor(folder, capsys):
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    code = main(["doctor", str(folder)])
    assert sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*")) == before
    return code, capsys.readouterr().out


def test_doctor_says_of_a_run_whether_it_can_be_continued_and_why_not(
    tmp_path, tiny_sd, monkeypatch, capsys
):
    stopped_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        generate(small(tmp_path, tiny_sd, "export.formats=[ply]"))
    path = only_run(tmp_path)
    capsys.readouterr()
    code, said = told_by_doctor(path, capsys)
    assert code == 0 and "interrupted" in said and "from step 5 of 10: splat-esd resume=" in said
    RunFolder(path).write_run(status="running")
    assert "killed" in told_by_doctor(path, capsys)[1]
    with hold(path):
        assert "It is being worked on" in told_by_doctor(path, capsys)[1]
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("\nseed: 0\n", "\nseed: 1\n"))
    code, said = told_by_doctor(path, capsys)
    assert code == 3 and "another seed than config.yaml says" in said
    (path / "config.yaml").write_text("a: [")
    code, said = told_by_doctor(path, capsys)
    assert code == 3 and "It cannot be continued" in said
    assert main(["doctor", str(tmp_path / "nothing")]) == 2
