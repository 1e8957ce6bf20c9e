"""The page of `splat-esd ui`, asked as a browser, a foreign page and a thief would."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ui_runs import free_port, made, serving, stand_in, until

from splat_esd.config.commands import UiArguments, read_arguments
from splat_esd.config.load import Config, load_config
from splat_esd.diffusion.vocabulary import check_prompt
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.runs.folder import RunFolder
from splat_esd.runs.lock import hold
from splat_esd.ui import main as ui
from splat_esd.ui import server as ui_server
from splat_esd.ui.gallery import progress_of, status_of
from splat_esd.ui.interface import Desk
from splat_esd.ui.queue import LOG, Queue, run_command
from splat_esd.ui.server import PageServer, open_server


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "outputs", Queue(stand_in))
    yield desk
    desk.queue.close()


@pytest.fixture
def server(desk: Desk) -> Iterator[PageServer]:
    with serving(desk) as server:
        yield server


def asked(server: PageServer, path: str, body: object = None, **headers: str):
    """Asks and returns status, headers and body; the path goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        headers = {"Content-Type": "application/json"} | headers
    connection.request("GET" if data is None else "POST", path, data, headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def wished(server: PageServer, what: str, **wish: object) -> dict:
    return json.loads(asked(server, f"/api/{what}", wish)[2])


def state(server: PageServer) -> dict:
    return json.loads(asked(server, "/api/state")[2])


def statuses(server: PageServer) -> dict[str, str]:
    return {run["run"].split("/")[0]: run["status"] for run in state(server)["runs"]}


def test_the_page_and_its_parts_are_served_to_this_machine(server):
    assert server.server_address[0] == "127.0.0.1"
    host = server.url.removeprefix("http://")
    for path in (
        "/",
        "/page.css",
        "/page.js",
        "/parts.js",
        "/words.js",
        "/api/about",
        "/api/state",
    ):
        assert asked(server, path)[0] == 200, path
        assert asked(server, path, Host=host.replace("127.0.0.1", "localhost"))[0] == 200
        assert asked(server, path, Origin=server.url)[0] == 200
    assert asked(server, "/page.html")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::1]", ""])
@pytest.mark.parametrize("path", ["/", "/api/state", "/runs/a/b/splat.ply"])
def test_a_foreign_host_is_refused(server, path, host):
    assert asked(server, path, Host=host)[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https"])
def test_a_foreign_origin_is_refused_and_starts_nothing(server, desk, origin):
    wish = {"prompt": "a corgi"}
    assert asked(server, "/api/make", wish, Origin=origin)[0] == 403
    assert not desk.out.exists()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_form_of_another_page_starts_nothing(server, desk, kind):
    status, _, said = asked(server, "/api/make", {"prompt": "a corgi"}, **{"Content-Type": kind})
    assert status == 400 and b"as application/json" in said
    assert not desk.out.exists()


def test_a_wish_without_end_is_refused(server):
    status, _, said = asked(server, "/api/make", {"prompt": "x" * 70000})
    assert status == 400 and b"at most 65536 bytes" in said


@pytest.mark.parametrize(
    "address",
    [
        "../secret.txt",
        "a-corgi/../../secret.txt",
        "a-corgi/r/../../../secret.txt",
        "a-corgi/r/%2e%2e/%2e%2e/%2e%2e/secret.txt",
        "a-corgi/r/..%2f..%2f..%2fsecret.txt",
        "a-corgi/r/..%5c..%5csecret.txt",
        "%2fetc/hosts/x.txt",
        "/etc/hosts.txt",
        "a-corgi/r/link.txt",
        "a-corgi/r/.lock",
        "a-corgi/r/.hidden.txt",
        "a-corgi/r/ckpt/000200.pt",
        "a-corgi/r/x%00.png",
        "a-corgi/r/previews",
        "a-corgi/r/",
        "a-corgi/notes.txt",
        "a-corgi/no-run/splat.ply",
        "a-corgi/r/missing.ply",
    ],
)
def test_nothing_but_the_files_of_runs_is_handed_out(server, desk, address):
    folder = made(desk.out, "a corgi", "r")
    secret = desk.out.parent / "secret.txt"
    hidden = ("a-corgi/r/.lock", "a-corgi/r/.hidden.txt", "a-corgi/r/ckpt/000200.pt")
    for path in (*hidden, "a-corgi/notes.txt", "a-corgi/no-run/splat.ply", "a-corgi/r/previews/x"):
        (desk.out / path).parent.mkdir(exist_ok=True)
        (desk.out / path).write_text("secret")
    secret.write_text("secret")
    (folder / "link.txt").symlink_to(secret)
    status, _, said = asked(server, f"/runs/{address}")
    assert status == 404
    assert b"secret" not in said


def test_the_files_of_a_run_are_handed_out_to_be_kept(server, desk):
    folder = made(desk.out, "a corgi", "r", "finished")
    (folder / "splat.ply").write_bytes(b"ply")
    (folder / "mesh.glb").write_bytes(b"glTF")
    (folder / "viewer.html").write_text("<p>")
    (run,) = state(server)["runs"]
    assert [file["name"] for file in run["files"]][:3] == ["splat.ply", "mesh.glb", "viewer.html"]
    for file in run["files"]:
        status, headers, body = asked(server, run["address"] + file["address"])
        assert status == 200 and len(body) == file["bytes"]
        is_page = file["name"].endswith(".html")
        assert is_page or headers["Content-Disposition"] == "attachment"
        assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, _ = asked(server, run["address"] + "viewer.html")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts") and "allow-same-origin" not in policy
    mark = headers["ETag"]
    assert asked(server, run["address"] + "viewer.html", **{"If-None-Match": mark})[0] == 304


def test_an_unknown_word_is_answered_with_the_programs_own_message(server):
    with pytest.raises(UsageError) as refused:
        check_prompt(load_config(["prompt=a corgy", "prior=zoo"]))
    assert "did you mean corgi?" in str(refused.value)
    assert wished(server, "check", prompt="a corgy", prior="zoo") == {"problem": str(refused.value)}
    assert wished(server, "check", prompt="a corgi", prior="zoo") == {}
    assert wished(server, "make", prompt="a corgy", prior="zoo") == {"problem": str(refused.value)}


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, "no prompt: say what to make"),
        ({"prompt": "a cat", "quality": "drafty"}, "did you mean quality=draft?"),
        ({"prompt": "a cat", "seed": -1}, "seed must lie in [0, 4294967295], got -1."),
        ({"prompt": "a cat", "seed": "${oc.env:HOME}"}, "seed must be an integer"),
        ({"prompt": "a cat", "guidance.lambda": 2}, "guidance.lambda must lie in [0, 1], got 2"),
        ({"prompt": "a cat", "guidance.cfg_scale": -1}, "guidance.cfg_scale must lie in"),
        ({"prompt": "a cat", "prior": "sd22"}, "did you mean prior=sd21?"),
        ({"prompt": "a cat", "prior": "@/etc/passwd"}, "prior must be a section of keys"),
        ({"prompt": "a cat", "out": "/tmp"}, "unknown key out"),
        ({"prompt": "a cat\ud800"}, "prompt"),
    ],
)
def test_a_wrong_field_is_named(server, desk, wish, said):
    assert said in wished(server, "make", **wish)["problem"]
    assert not desk.out.exists()


def test_a_wish_becomes_the_run_that_the_command_line_would_make(server, desk):
    chosen = {"quality": "draft", "seed": 7, "guidance.lambda": 0.25, "guidance.cfg_scale": 2}
    run = wished(server, "make", prompt="a cat", prior="zoo", **chosen)["run"]
    words = [f"{name}={value}" for name, value in chosen.items()]
    typed = load_config([f"out={desk.out}", "prompt=a cat", "prior=zoo", *words])
    assert RunFolder(desk.out / run).config == typed


def test_without_a_seed_one_is_picked(server, desk):
    run = wished(server, "make", prompt="a cat", prior="zoo", seed=None)["run"]
    assert isinstance(RunFolder(desk.out / run).config.seed, int)


def test_runs_are_made_one_at_a_time_and_in_order(server, desk):
    runs = [
        wished(server, "make", prompt=f"a {toy}", prior="zoo")["run"]
        for toy in ("cat", "owl", "pig")
    ]
    until(lambda: state(server)["now"])
    found = state(server)
    assert [run["run"] for run in found["now"]] == runs[:1]
    assert found["waiting"] == runs[1:]
    (desk.out / runs[0] / "end").touch()
    until(lambda: [run["run"] for run in state(server)["now"]] == runs[1:2])
    assert statuses(server) == {"a-cat": "finished", "a-owl": "running", "a-pig": "waiting"}


def test_a_stopped_run_saves_itself_hears_one_signal_and_goes_on(server, desk):
    run = wished(server, "make", prompt="a cat", prior="zoo")["run"]
    until(lambda: (desk.out / run / "run.json").exists())
    for _ in range(3):
        assert wished(server, "stop", run=run) == {}
        time.sleep(0.1)  # two signals at once are one to the process
    assert state(server)["now"][0]["stopping"]
    until(lambda: statuses(server)["a-cat"] == "interrupted")
    assert (desk.out / run / "signals").read_text() == "x"
    assert wished(server, "go-on", run=run) == {}
    until(lambda: statuses(server)["a-cat"] == "running")


def test_a_run_that_waits_can_be_taken_out_and_leaves_nothing(server, desk):
    wished(server, "make", prompt="a cat", prior="zoo")
    run = wished(server, "make", prompt="an owl", prior="zoo")["run"]
    assert wished(server, "stop", run=run) == {}
    assert not (desk.out / run).exists()
    assert wished(server, "stop", run=run)["problem"].startswith("there is no run")


def test_a_killed_run_loses_nothing_and_the_next_one_starts(server, desk):
    first = wished(server, "make", prompt="a cat", prior="zoo")["run"]
    wished(server, "make", prompt="an owl", prior="zoo")
    until(lambda: (desk.out / first / "run.json").exists())
    desk.queue._running[1].kill()
    until(lambda: statuses(server) == {"a-cat": "interrupted", "an-owl": "running"})


def test_what_waited_is_there_when_the_page_is_started_again(server, desk):
    wished(server, "make", prompt="a cat", prior="zoo")
    run = wished(server, "make", prompt="an owl", prior="zoo")["run"]
    again = Desk(desk.out, Queue(stand_in))
    server.desk = again
    assert statuses(server)["an-owl"] == "new"
    assert wished(server, "go-on", run=run) == {}
    again.queue.close()


def test_a_page_that_is_still_open_starts_nothing_while_the_program_ends(server, desk):
    assert desk.queue.close() is None
    answer = wished(server, "make", prompt="a cat", prior="zoo")
    assert answer == {"problem": "the program is being stopped; ask again when it is back."}
    assert desk.queue.running is None and desk.queue.waiting == []


def test_a_run_that_was_made_before_is_named_and_not_made_again(server, desk):
    folder = made(desk.out, "a corgi", "r", "finished")
    answer = wished(server, "make", prompt="a corgi", prior="zoo")
    assert answer["run"] == "a-corgi/r"
    assert "made before, bit for bit" in answer["said"]
    assert "is finished" in wished(server, "go-on", run="a-corgi/r")["problem"]
    assert [path for path in desk.out.glob("*/*")] == [folder]


def test_what_is_being_made_is_not_queued_once_more(server, desk):
    run = wished(server, "make", prompt="a corgi", prior="zoo")["run"]
    until(lambda: (desk.out / run / "run.json").exists())
    with hold(desk.out / run):  # as a run does
        again = wished(server, "make", prompt="a corgi", prior="zoo")
    assert again["problem"].endswith("is being made just now.")
    assert [path.name for path in desk.out.glob("*/*")] == [run.split("/")[1]]


def test_a_run_of_another_process_is_shown_and_left_alone(server, desk):
    folder = made(desk.out, "a corgi", "r", "running")
    hold = "import sys, time; from pathlib import Path; from splat_esd.runs.lock import hold\n"
    hold += "with hold(Path(sys.argv[1])):\n    time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", hold, str(folder)])
    try:
        until(lambda: statuses(server) == {"a-corgi": "running"})
        assert not state(server)["now"][0]["mine"]
        refused = wished(server, "stop", run="a-corgi/r")["problem"]
        assert f"kill -INT {other.pid}" in refused
        assert "another process" in wished(server, "go-on", run="a-corgi/r")["problem"]
    finally:
        other.kill()
        other.wait()
    assert statuses(server) == {"a-corgi": "interrupted"}


def test_a_spoilt_run_fails_with_its_reason_and_holds_nothing_up(server, desk):
    desk.queue._command = run_command
    folder = made(desk.out, "a corgi", "r", "interrupted")
    (folder / "config.yaml").write_text("seed: many")
    (folder / "run.json").unlink()
    assert wished(server, "go-on", run="a-corgi/r") == {}
    (run,) = state(server)["runs"]
    assert run["status"] == "failed"
    assert "config.yaml: prompt is missing." in run["why"]


def test_a_run_that_is_removed_meanwhile_is_left_out(server, desk, monkeypatch):
    folder = made(desk.out, "a corgi", "r", "finished")
    gone = desk.out / "a-cat" / "r"
    monkeypatch.setattr("splat_esd.ui.interface.find_runs", lambda out: [gone, folder])
    assert statuses(server) == {"a-corgi": "finished"}


@pytest.mark.parametrize(
    ("facts", "log", "expected"),
    [
        (None, "", ("new", "")),
        (None, "$ splat-esd\nloading PyTorch ...\ninterrupted.", ("new", "")),
        (None, "$ splat-esd\nerror: no GPU here.", ("failed", "no GPU here.")),
        (None, "error: no GPU here.\n$ splat-esd\nloading PyTorch ...", ("new", "")),
        ({"status": "running"}, "", ("interrupted", "")),
        ({"status": "finished"}, "error: old", ("finished", "")),
        ({"status": "failed", "why": "the disk is full"}, "", ("failed", "the disk is full")),
    ],
)
def test_a_runs_status_is_what_its_folder_says(tmp_path, facts, log, expected):
    folder = made(tmp_path, "a corgi", "r")
    (folder / LOG).write_text(log)
    if facts is not None:
        (folder / "run.json").write_text(json.dumps(facts))
    assert status_of(folder) == expected


def test_progress_tells_step_time_left_work_and_the_newest_preview(tmp_path):
    folder = made(tmp_path, "a corgi", "r")
    assert progress_of(folder)["step"] == 0 and progress_of(folder)["left"] is None
    lines = [{"step": step, "seconds": step / 2} for step in (10, 20, 30)]
    (folder / "metrics.jsonl").write_text("\n".join([*map(json.dumps, lines), '{"step": 4']))
    (folder / LOG).write_text("$ splat-esd\nwriting glb ...\n")
    (folder / "previews").mkdir()
    for step in (9, 20):
        (folder / "previews" / f"{step:06d}.png").touch()
    found = progress_of(folder)
    assert (found["step"], found["steps"]) == (30, 500)
    assert found["left"] == "3:55", "470 steps of half a second"
    assert found["said"] == "writing glb ..."
    assert found["preview"] == "previews/000020.png"


def test_a_run_is_continued_from_its_folder_with_a_dozen_previews(tmp_path):
    folder = made(tmp_path, "a corgi", "r")
    command = run_command(folder)
    assert command[1:4] == ["-m", "splat_esd", f"resume={folder}"]
    config: Config = load_config(command[3:])
    assert config.log.preview_every == 41 and config.resume == folder


def serve_and_stop(monkeypatch, desk: Desk, port: int) -> None:
    """Runs the command until it is asked to stop, once its page is there."""
    monkeypatch.setattr(ui, "Desk", lambda out: desk)
    pid = os.getpid()

    def opened(url: str) -> bool:
        threading.Timer(0.5, lambda: os.kill(pid, signal.SIGINT)).start()
        return False

    ui.main(UiArguments(out=desk.out, port=port), opened=opened)


def test_a_taken_port_is_said_and_the_next_free_one_used(monkeypatch, desk, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        serve_and_stop(monkeypatch, desk, port)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"port {port} is taken; the page of {desk.out} waits for a browser: ")
    assert f"http://127.0.0.1:{port}" not in first
    assert last == "stopped; no run was going on."


def test_without_a_free_port_the_way_out_is_named(monkeypatch, desk):
    monkeypatch.setattr(ui_server, "_TRIES", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EnvironmentProblem, match="choose another by port=NUMBER"):
            open_server(desk, taken.getsockname()[1])


def test_ctrl_c_on_the_page_saves_the_run_and_says_so(monkeypatch, desk, capsys):
    folder = made(desk.out, "a corgi", "r")
    desk.queue.add(folder)
    until(lambda: (folder / "run.json").exists())
    serve_and_stop(monkeypatch, desk, free_port())
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"stopped; the run in {folder} is saved.")
    assert f'splat-esd resume="{folder}"' in last
    assert RunFolder(folder).run["status"] == "interrupted"


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_cannot_be_is_refused(port):
    with pytest.raises(UsageError, match="port must"):
        read_arguments(UiArguments, [f"port={port}"], command="ui")


def test_the_page_is_served_without_loading_torch():
    code = "import sys, splat_esd.ui.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_a_real_run_is_watched_stopped_by_ctrl_c_and_continued(tmp_path):
    out, port = tmp_path / "outputs", free_port()
    small = "steps=4000 cameras.batch_size=1 init.count=200 processes=1 export.formats=[ply]"
    config = load_config([f"out={out}", "prompt=a corgi", "prior=zoo", *small.split()])
    folder = out / "a-corgi" / "r"
    folder.mkdir(parents=True)
    RunFolder(folder).write_config(config)
    command = [sys.executable, "-m", "splat_esd", "ui", f"out={out}", f"port={port}"]
    page = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert page.stderr is not None
    said = page.stderr.readline()
    assert f"http://127.0.0.1:{port}" in said
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    go_on = json.dumps({"run": "a-corgi/r"})
    connection.request("POST", "/api/go-on", go_on, {"Content-Type": "application/json"})
    assert json.loads(connection.getresponse().read()) == {}
    connection.close()
    until(lambda: progress_of(folder)["step"] >= 5, 120)
    page.send_signal(signal.SIGINT)
    with page.stderr:
        rest = page.stderr.read()
    assert page.wait(60) == 0
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith(f"stopped; the run in {folder} is saved.")
    run = RunFolder(folder).run
    assert run["status"] == "interrupted" and run["steps"] >= 5
    assert list((folder / "ckpt").iterdir())
    assert status_of(folder) == ("interrupted", "")
