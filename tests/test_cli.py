"""The command line: help at once, one line for each failure, the exit code a script can trust."""

import errno
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splat_esd.cli import main as cli
from splat_esd.config.load import Config, load_config
from splat_esd.errors import EnvironmentProblem, UsageError

HEAVY = ("torch", "hydra", "omegaconf", "rich", "diffusers", "gsplat", "numpy")


def program(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "splat_esd", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Stands in for the training: collects the configurations it is asked for."""
    asked: list[Config] = []
    stand_in = SimpleNamespace(generate=asked.append)
    monkeypatch.setitem(sys.modules, "splat_esd.runs.generate", stand_in)
    monkeypatch.setattr("splat_esd.cli.outcome.tell_outcome", lambda folder, config: None)
    return asked


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def generate(config: Config) -> None:
        raise error

    stand_in = SimpleNamespace(generate=generate)
    monkeypatch.setitem(sys.modules, "splat_esd.runs.generate", stand_in)
    return cli.main(["prompt=a corgi", "prior=zoo"])


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_answers_within_a_second_and_a_half(word: str):
    begun = time.monotonic()
    done = program(word)
    assert time.monotonic() - begun < 1.5
    assert done.returncode == 0
    assert done.stderr == ""
    assert 'splat-esd prompt="a corgi"' in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["export", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]):
    script = (
        "import sys; from splat_esd.cli.main import main; "
        f"main({arguments!r}); sys.exit(' '.join(set({HEAVY!r}) & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("command", sorted(cli.HELP))
def test_help_answers_within_a_second_and_a_half_of_processor_time(command: str):
    before = os.times()
    assert program(command, "--help").returncode == 0
    after = os.times()
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 1.5


def test_help_is_as_wide_as_a_terminal_and_names_a_folder_that_is_there(
    capsys: pytest.CaptureFixture[str],
):
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 100
    assert (Path(lines[-1].strip()) / "generate.yaml").is_file()


@pytest.mark.parametrize("command", ["generate", "export", "view", "doctor", "zoo"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main([command, "--help"]) == 0
    first = capsys.readouterr().out
    assert "splat-esd" in first
    assert cli.main(["help", command]) == 0
    assert capsys.readouterr().out == first


def test_every_group_and_every_key_of_the_help_is_real(made: list[Config]):
    config = load_config(["prompt=x", "prior=zoo"]).model_dump(by_alias=True)
    for line in cli.HELP["generate"].splitlines():
        key = line.strip().partition("=")[0]
        if re.fullmatch(r"  [a-z][\w.]*=.*", line):
            section = config
            for part in key.split("."):
                assert part in section, line
                section = section[part]


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("splat-esd ")


def test_generate_may_be_left_out(made: list[Config]):
    settings = ["prompt=a corgi, (blue) = cat's", "prior=sd21", "seed=3"]
    assert cli.main(settings) == 0
    assert cli.main(["generate", *settings]) == 0
    assert made[0] == made[1]
    assert made[0].prompt == "a corgi, (blue) = cat's"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no prompt: say what to make"),
        (["generate"], "no prompt: say what to make"),
        (["exprot", "from=x"], "no command 'exprot'; did you mean export?"),
        (["red", "car"], """no command 'red'; did you mean splat-esd prompt="red car"?"""),
        (["a red car"], """'a red car' is no setting; did you mean prompt="a red car"?"""),
        (["--fast"], "unknown option --fast; settings are written key=value"),
        (["-m", "prompt=a,b"], "unknown option -m"),
        (["prompt=x", "guidance.lamda=1"], "unknown key guidance.lamda; did you mean"),
        (["view"], "view takes one run folder or splat file, got 0 arguments."),
        (["view", "no/such.ply"], "there is no file or folder no/such.ply."),
        (["export"], "nothing to export"),
        (["export", "from=no/such"], "there is no file or folder no/such."),
        (
            ["doctor", "now"],
            "now is no folder; doctor looks at the folder of a run.",
        ),
        (["zoo"], "zoo needs to know what to do: zoo train | zoo judge | zoo exam; see"),
        (["zoo", "feed"], "zoo needs to know what to do: zoo train | zoo judge | zoo exam; see"),
    ],
)
def test_a_mistake_is_one_line_and_returns_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {expected}")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_run_without_a_splat_says_how_to_finish_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["view", str(tmp_path)]) == 2
    assert f"resume={tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (UsageError("the prior does not know 'zebra'."), 2, "the prior does not know 'zebra'."),
        (EnvironmentProblem("no GPU here."), 3, "no GPU here."),
        (OSError(errno.ENOSPC, "No space left on device", "o/s.ply"), 3, "o/s.ply: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "o"), 3, "o: Permission denied."),
        (OSError("broken"), 3, "broken."),
        (MemoryError(), 3, "out of memory; try cameras.batch_size=1"),
    ],
)
def test_a_failed_run_says_why_and_returns_its_code(
    error: BaseException,
    code: int,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.delenv("SPLAT_ESD_TRACEBACK", raising=False)
    assert fail_with(monkeypatch, error) == code
    said = capsys.readouterr().err
    assert said.startswith(f"loading PyTorch ...\nerror: {expected}")
    assert said.count("\n") == 2


def test_a_run_that_was_stopped_on_purpose_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("SPLAT_ESD_TRACEBACK", raising=False)
    assert fail_with(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "loading PyTorch ...\ninterrupted.\n"


def test_a_full_gpu_is_no_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    import torch

    assert fail_with(monkeypatch, torch.OutOfMemoryError("CUDA out of memory.")) == 3
    assert "out of memory; try" in capsys.readouterr().err


@pytest.mark.parametrize("error", [AssertionError("not so"), ValueError("not so")], ids=repr)
def test_a_bug_shows_where_it_is(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert fail_with(monkeypatch, error) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "not so" in said
    assert said.endswith(f"error: {cli.BUG}\n")


def test_a_value_error_in_the_mesh_code_is_a_bug_and_no_mistake_of_the_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    import torch

    from splat_esd.formats.ply import write_ply
    from splat_esd.initialize import ball

    def broken(*_given: object, **_options: object) -> None:
        raise ValueError("could not broadcast")

    generator = torch.Generator().manual_seed(0)
    splats = ball(200, radius=0.5, opacity=0.9, color=0.5, generator=generator)
    path = write_ply(splats, tmp_path / "a.ply")
    monkeypatch.setattr("splat_esd.mesh.surface.clean", broken)
    assert cli.main(["export", f"from={path}", f"out={tmp_path / 'out'}", "formats=[glb]"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "could not broadcast" in said
    assert said.endswith(f"error: {cli.BUG}\n")


def test_the_traceback_of_a_mistake_is_there_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("SPLAT_ESD_TRACEBACK", "1")
    assert fail_with(monkeypatch, UsageError("bad shape.")) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_failure_worth_words():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "splat_esd", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""


def test_a_mistake_in_a_shell_has_no_colour_and_no_traceback():
    done = program("prompt=x", "guidance.lambda=3")
    assert done.returncode == 2
    assert done.stderr.startswith("error: guidance.lambda must lie in [0, 1], got 3.0; above 1 ")
    assert done.stderr.endswith("\n") and done.stderr.count("\n") == 1


def test_an_old_terminal_still_gets_the_message():
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = program("prompt=x", "柯基=3", env=env)
    assert done.returncode == 2
    assert "\\u67ef" in done.stderr


@pytest.mark.parametrize(("model", "module"), [("train", "prior.train"), ("judge", "judge.train")])
def test_each_training_gets_its_own_arguments(
    model: str, module: str, monkeypatch: pytest.MonkeyPatch
):
    given: list[Any] = []
    fake = SimpleNamespace(main=given.append)
    monkeypatch.setitem(sys.modules, f"splat_esd.zoo.{module}", fake)
    assert cli.main(["zoo", model, "out=a, b", "seed=1"]) == 0
    assert [(asked.out, asked.seed) for asked in given] == [(Path("a, b"), 1)]


def test_view_ends_with_ctrl_c_and_closes_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    closed: list[bool] = []
    page = SimpleNamespace(url="http://127.0.0.1:1", stop=lambda: closed.append(True))
    stand_in = SimpleNamespace(view=lambda path, imported: page)
    monkeypatch.setitem(sys.modules, "splat_esd.export.live_viewer", stand_in)

    def interrupted(event: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("threading.Event.wait", interrupted)
    (tmp_path / "splat.ply").touch()
    assert cli.main(["view", str(tmp_path)]) == 0
    assert closed == [True]
    assert "http://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_a_step_frees_is_kept_for_the_next_one():
    work = """
import resource
{}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        bytearray(50_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    bare = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    prepared = "from splat_esd.cli.environment import prepare; prepare()"
    told = bare | {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    given_back, kept, by_the_parent = (
        int(subprocess.check_output([sys.executable, "-c", work.format(first)], env=env))
        for first, env in (("", bare), (prepared, bare), ("", told))
    )
    assert given_back > 1000, "or there is nothing to keep here"
    assert kept < 100 and by_the_parent < 100
