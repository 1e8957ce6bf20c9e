import json
import os
import re
import subprocess
import sys
import time

import pytest

from splat_esd.config.load import load_config
from splat_esd.errors import UsageError
from splat_esd.runs.folder import RunFolder, claim_run_folder, open_run_folder, slug


def config(tmp_path, *overrides, prompt="a corgi"):
    return load_config([f"prompt={prompt}", "prior=zoo", f"out={tmp_path}", *overrides])


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a corgi", "a-corgi"),
        ("A Corgi, wearing (a) hat!", "a-corgi-wearing-a-hat"),
        ("ein Löwe", "ein-löwe"),
        ("../../etc", "etc"),
        ("...", "prompt"),
        ("x" * 200, "x" * 60),
    ],
)
def test_a_prompt_becomes_a_harmless_folder_name(prompt, name):
    assert slug(prompt) == name


def test_a_new_run_gets_a_folder_with_its_time_seed_and_configuration(tmp_path):
    wanted = config(tmp_path, "seed=3")
    folder, continued = open_run_folder(wanted)
    assert not continued
    assert (
        re.fullmatch(r"\d{8}-\d{6}-s3", folder.path.name) and folder.path.parent.name == "a-corgi"
    )
    assert folder.settings.read_text(encoding="utf-8") == wanted.to_yaml()
    assert folder.config == wanted


def test_the_same_command_continues_an_unfinished_run(tmp_path):
    folder, _ = open_run_folder(config(tmp_path))
    folder.write_run(status="interrupted")
    assert open_run_folder(config(tmp_path)) == (folder, True)


def test_a_finished_run_or_another_setting_starts_afresh(tmp_path):
    folder, _ = open_run_folder(config(tmp_path))
    other, continued = open_run_folder(config(tmp_path, "guidance.lambda=0.25"))
    assert not continued and other != folder
    folder.write_run(status="finished")
    third, continued = open_run_folder(config(tmp_path))
    assert not continued and third not in (folder, other)


def test_a_run_that_another_process_works_on_is_left_alone(tmp_path):
    folder, _ = open_run_folder(config(tmp_path))
    program = (
        "import sys, time, pathlib; from splat_esd.runs.lock import hold\n"
        "with hold(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    sleeper = subprocess.Popen(
        [sys.executable, "-c", program, str(folder.path)], stdout=subprocess.PIPE
    )
    try:
        assert sleeper.stdout.readline() == b"held\n"
        assert open_run_folder(config(tmp_path))[0] != folder
        with pytest.raises(UsageError, match="another process is still working"):
            open_run_folder(config(tmp_path).model_copy(update={"resume": folder.path}))
    finally:
        sleeper.kill()
        sleeper.wait()
        sleeper.stdout.close()
    assert open_run_folder(config(tmp_path).model_copy(update={"resume": folder.path})) == (
        folder,
        True,
    )


def test_run_json_gathers_facts_and_the_process_that_runs(tmp_path):
    RunFolder(tmp_path).write_run(status="running", seed=1)
    RunFolder(tmp_path).write_run(steps=5)
    assert RunFolder(tmp_path).run == {
        "status": "running",
        "pid": os.getpid(),
        "seed": 1,
        "steps": 5,
    }


def test_metrics_after_the_checkpoint_and_a_torn_line_are_dropped(tmp_path):
    for step in (1, 2, 3):
        RunFolder(tmp_path).append_metrics(step, {"x": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "x"')
    RunFolder(tmp_path).trim_metrics(2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_run_of_an_earlier_version_is_found_again_although_its_file_lacks_a_key(tmp_path):
    folder, _ = open_run_folder(config(tmp_path))
    text = folder.settings.read_text(encoding="utf-8")
    folder.settings.write_text(text.replace("  noise: 0.0\n", ""), encoding="utf-8")
    assert open_run_folder(config(tmp_path)) == (folder, True)


@pytest.mark.parametrize("damage", [b"a: [", b"\xff\xfe", b"prompt: 3"])
def test_a_folder_with_a_damaged_configuration_is_no_run_to_continue(tmp_path, damage):
    folder, _ = open_run_folder(config(tmp_path))
    folder.settings.write_bytes(damage)
    with pytest.raises(UsageError, match=r"config\.yaml"):
        _ = folder.config
    assert open_run_folder(config(tmp_path))[0] != folder


def test_what_a_killed_process_left_half_written_goes_when_its_run_goes_on(tmp_path):
    wanted = config(tmp_path)
    with claim_run_folder(wanted) as (first, _):
        pass
    left = [first.path / ".config-0123abcd.yaml", first.path / "ckpt" / ".step-000020-72009d3e.pt"]
    theirs = [first.path / ".hidden", first.path / "notes-0123abcd.txt"]
    (first.path / "ckpt").mkdir()
    for path in (*left, *theirs):
        path.write_text("x")
    with claim_run_folder(wanted) as (again, continued):
        assert continued and again == first
    assert not any(path.exists() for path in left) and all(path.exists() for path in theirs)


def test_a_folder_whose_process_was_killed_as_it_began_is_no_second_run(tmp_path):
    wanted = config(tmp_path)
    parent = tmp_path / slug(wanted.prompt)
    old, young, used = (parent / name for name in ("old", "young", "used"))
    for path in (old, young, used):
        path.mkdir(parents=True)
        (path / ".config-0123abcd.yaml").write_text("x")
    (used / "mine.txt").write_text("x")
    for path in (old, used):
        os.utime(path, (time.time() - 60, time.time() - 60))
    with claim_run_folder(wanted) as (folder, continued):
        assert not continued and not old.exists() and young.exists() and used.exists()
        assert folder.path not in (old, young, used)
