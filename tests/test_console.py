"""What is said: plain lines in a log, one bar on a terminal, text never taken for markup."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from splat_esd import console

ESCAPE = "\x1b"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal, 80 columns wide, that remembers what was written."""
    screen = io.StringIO()
    monkeypatch.setattr(
        console, "_talk", Console(file=screen, force_terminal=True, width=80, highlight=False)
    )
    return screen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until its only entry is changed."""
    now = [100.0]
    monkeypatch.setattr("splat_esd.console.time.monotonic", lambda: now[0])
    return now


def test_a_log_has_no_colours_and_keeps_lines_whole(capsys: pytest.CaptureFixture[str]):
    console.header({"prompt": "word " * 40, "seed": "0"})
    console.warn("w " * 100)
    out, err = capsys.readouterr()
    assert out == ""
    assert ESCAPE not in err
    assert err.splitlines()[0] == f"prompt  {'word ' * 40}"
    assert err.splitlines()[1] == "seed    0"
    assert len(err.splitlines()) == 3


@pytest.mark.parametrize("say", [console.note, console.warn, console.error, console.result])
def test_brackets_and_colons_are_no_markup(say, capsys: pytest.CaptureFixture[str]):
    say("a [red]corgi[/red] :smile: [x")
    out, err = capsys.readouterr()
    assert (out + err).endswith("a [red]corgi[/red] :smile: [x\n")


def test_a_prompt_cannot_move_the_cursor(terminal: io.StringIO):
    console.header({"prompt": "a\x1b[2Jcorgi\r\x07"})
    console.note("\x1b]0;title\x07")
    assert "\\x1b[2Jcorgi\\r\\x07" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()
    assert "\x1b]0" not in terminal.getvalue()


def test_a_terminal_gets_a_panel(terminal: io.StringIO):
    console.header({"prompt": "a corgi", "seed": "0"})
    assert "splat-esd" in terminal.getvalue()
    assert "╭" in terminal.getvalue()


def test_warnings_and_errors_say_what_they_are(capsys: pytest.CaptureFixture[str]):
    console.warn("slow.")
    console.error("wrong.")
    assert capsys.readouterr().err == "warning: slow.\nerror: wrong.\n"


def test_progress_in_a_log_is_a_line_now_and_then(
    clock: list[float], capsys: pytest.CaptureFixture[str]
):
    with console.progress(100) as meter:
        for step in range(1, 101):
            clock[0] += 0.5
            meter.update(step, score=0.12345, gaussians=4000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "step 1/100  2 steps/s  ETA 0:50  score 0.123  gaussians 4000"
    assert lines[1].startswith("step 21/100  2 steps/s  ETA 0:40")
    assert lines[-1].startswith("step 100/100  2 steps/s  ETA 0:00")
    assert len(lines) == 6


def test_progress_of_a_resumed_run_counts_only_its_own_speed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
):
    with console.progress(1000, start=900, unit="view") as meter:
        clock[0] += 1
        meter.update(901)
    assert capsys.readouterr().err == "view 901/1000  1 views/s  ETA 1:39\n"


def test_steps_that_a_run_lost_do_not_count_as_negative_speed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
):
    with console.progress(1000) as meter:
        for step in 140, 0, 20:
            clock[0] += 10
            meter.update(step)
    told = capsys.readouterr().err.splitlines()
    assert "step 0/1000  0 steps/s  ETA ?" in told[1]
    assert "step 20/1000  2 steps/s  ETA 8:10" in told[2]


def test_speed_is_that_of_the_last_steps(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with console.progress(1000) as meter:
        for step in range(1, 101):
            clock[0] += 100 if step == 1 else 1
            meter.update(step)
    assert "  1 steps/s  ETA 15:" in capsys.readouterr().err.splitlines()[-1]


def test_a_clock_that_stands_still_divides_by_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str]
):
    with console.progress(10) as meter:
        meter.update(0)
    assert "ETA ?" in capsys.readouterr().err


def test_progress_on_a_terminal_is_a_bar(terminal: io.StringIO):
    with console.progress(4) as meter:
        for step in range(1, 5):
            meter.update(step, score=0.5)
        console.note("a note above the bar")
    shown = terminal.getvalue()
    assert "step 4/4" in shown
    assert "score 0.5" in shown
    assert "a note above the bar" in shown


def test_progress_lets_an_interruption_through(terminal: io.StringIO):
    with pytest.raises(KeyboardInterrupt), console.progress(4) as meter:
        meter.update(1)
        raise KeyboardInterrupt


def test_the_files_come_with_sizes_and_what_opens_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    small, large, folder = tmp_path / "a b.ply", tmp_path / "film.mp4", tmp_path / "ckpt"
    small.write_bytes(b"x" * 12)
    large.write_bytes(b"x" * 2_345_678)
    folder.mkdir()
    (folder / "one").write_bytes(b"x" * 1500)
    console.files_table([(small, "a viewer"), (large, "a player"), (folder, "")])
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        f"{tmp_path}:",
        "  12 B  a b.ply   a viewer",
        "2.3 MB  film.mp4  a player",
        "1.5 kB  ckpt",
    ]
    console.files_table([(small, "a viewer")])
    assert capsys.readouterr().out == f"{tmp_path}:\n12 B  a b.ply  a viewer\n"


def test_a_message_on_a_terminal_is_wrapped_between_words(terminal: io.StringIO):
    console.note("corgi " * 40)
    lines = terminal.getvalue().splitlines()
    assert [set(line.split()) for line in lines] == [{"corgi"}] * 4
    assert max(map(len, lines)) <= 80


def test_a_command_is_never_wrapped(terminal: io.StringIO):
    console.command("splat-esd resume=" + "x" * 200)
    assert terminal.getvalue() == "  splat-esd resume=" + "x" * 200 + "\n"


def test_what_takes_long_is_named(capsys: pytest.CaptureFixture[str]):
    with console.busy("loading"):
        pass
    assert capsys.readouterr().err == "loading ...\n"


def test_what_takes_long_is_named_on_a_terminal_with_a_clock(terminal: io.StringIO):
    with console.busy("loading [x"):
        pass
    assert "loading [x" in terminal.getvalue()
    assert "0:00:00" in terminal.getvalue()


def test_a_file_that_is_not_there_is_no_result(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        console.files_table([(tmp_path / "nothing.ply", "")])


def test_a_table_is_markdown_and_never_wrapped(capsys: pytest.CaptureFixture[str]):
    console.table("Speeds", ["scene", "ms"], [["10k, 64", "1.5"], ["w" * 300, "12"]])
    out, err = capsys.readouterr()
    title, blank, *lines = out.strip("\n").splitlines()
    assert (title, blank, err) == ("Speeds", "", "")
    assert lines[0] == f"| {'scene':<300} |  ms |"
    assert lines[1] == f"| {'-' * 300} | --: |"
    assert lines[2] == f"| {'10k, 64':<300} | 1.5 |"
    assert lines[3] == f"| {'w' * 300} |  12 |"
