"""What lies around a run: small and read-only disks, pages with hostile prompts, the network.

Disks need the right to mount a tmpfs; without it they are not tried, and the table has no line.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from test_ply import some

from splat_esd.cli.main import main
from splat_esd.config.load import Config
from splat_esd.formats.ply import write_ply

from .calls import Outcome, in_child
from .kills import finished, judge, make_whole, start

PAYLOADS = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--", "]]>",
    '" onload="alert(1)', "' autofocus onfocus='alert(1)", "</title><svg onload=alert(1)>",
    "<iframe srcdoc='<script>1</script>'>", "javascript:alert(1)", "\u2028\u2029", "</style><b>",
    "{% raw %}{{ 7 * 7 }}", "\u202egnp.exe", "</textarea></pre><form action=//x>", "{{results}}",
    "&lt;b&gt;",
]  # fmt: skip


def run_tmpfs(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Starts `count` runs on disks that are too small or turn read-only, then makes room."""
    disk = folder / "disk"
    disk.mkdir()
    if not _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)):
        return []
    _unmount(disk)
    prior, took, whole = make_whole(folder)
    found = []
    for i in range(count):
        name = ("small disk", "read-only disk")[i % 2]
        found.append(Outcome(name, seed + i, _on_disk(disk, prior, seed + i, took, whole, i % 2)))
    return found


def _on_disk(
    disk: Path, prior: Path, seed: int, took: float, whole: bytes, read_only: int
) -> str | None:
    draw = random.Random(seed)
    size = "200m" if read_only else f"{int(10 ** draw.uniform(1, 3.3))}k"
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk))
    try:
        pid = start(disk / "out", prior)
        if read_only:
            time.sleep(draw.uniform(0.1, took))
            _mount("-o", "remount,ro", str(disk))  # refused while a file is open for writing
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code not in (0, 3):
            return f"exit {code} on a disk of {size}"
        _mount("-o", "remount,rw,size=200m", str(disk))
        if not finished(disk / "out"):
            code = os.waitstatus_to_exitcode(os.waitpid(start(disk / "out", prior), 0)[1])
            if code:
                return f"continuing ended with {code} after a disk of {size}"
        return judge(disk / "out", whole)
    finally:
        _unmount(disk)


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


def _unmount(disk: Path) -> None:
    subprocess.run(["umount", str(disk)], capture_output=True)


def run_pages(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Makes `count` pages whose prompt is hostile; their tags must be those of a harmless one."""
    found, tags = [], {}
    for i in range(count):
        kind = ("viewer.html", "compare.html", "report.html")[i % 3]
        if kind not in tags:
            tags[kind] = _tags(_page(folder / f"harmless-{kind}", kind, "a corgi"))
        draw = random.Random(seed + i)
        prompt = " ".join(["a corgi", *draw.sample(PAYLOADS, k=draw.randint(1, 3))])
        page = _page(folder / f"page-{i}", kind, prompt)
        same = isinstance(page, Path) and _tags(page) == tags[kind]
        failure = None if same else f"{page}: tags of its own for {prompt!r}"
        found.append(Outcome(kind, seed + i, failure))
    return found


def _page(folder: Path, kind: str, prompt: str) -> Path | str:
    run = folder / "run"
    run.mkdir(parents=True)
    write_ply(some(), run / "splat.ply")
    (run / "config.yaml").write_text(Config(prompt=prompt).to_yaml(), encoding="utf-8")
    study = folder / "study.yaml"
    study.write_text(f"prompts: [{json.dumps(prompt)}]\nmethods: {{esd: []}}\nseeds: 1\n")
    command = {
        "viewer.html": ["export", f"from={run}", f"out={folder}", "formats=[viewer]"],
        "compare.html": ["compare", str(run), str(run), f"out={folder / kind}"],
        "report.html": ["study", str(study), "report", f"out={folder}"],
    }[kind]
    said = in_child(lambda: None if main(command) == 0 else "failed")
    return said or folder / kind


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[(tag, *sorted(name for name, _ in attrs))] += 1


def _tags(page: Path | str) -> Counter[tuple]:
    parser = _Tags()
    parser.feed(Path(page).read_text(encoding="utf-8"))
    return parser.found


WATCHED = """
import sys
def hook(event, args):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo"):
        with open(sys.argv[1], "a") as log:
            log.write(f"{event} {args[1] if event != 'socket.getaddrinfo' else args[0]}\\n")
sys.addaudithook(hook)
from splat_esd.cli.main import main
sys.exit(main(sys.argv[2:]))
"""
LOCAL = ("127.0.0.1", "::1", "localhost", "/", "''")


def run_network(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Watches commands for connections: none may leave this machine, none may be taken from it."""
    prior, _, _ = make_whole(folder)
    write_ply(some(), folder / "a.ply")
    quick = "steps=2 init.count=50 export.formats=[ply,viewer,sheet] cameras.batch_size=2".split()
    run = ["prompt=a", "prior=sd15", f"prior.path={prior}", f"out={folder / 'out'}", *quick]
    commands = {
        "generate": run,
        "generate, live": [*run, "viewer=true", "seed=1"],
        "generate, two processes": [*run, "processes=2", "seed=2"],
        "export": ["export", f"from={folder / 'a.ply'}", f"out={folder / 'files'}"],
        "view": ["view", str(folder / "a.ply")],
        "doctor": ["doctor"],
    }
    return [
        Outcome(f"network: {name}", seed, _watched(folder / f"net-{i}.log", command))
        for i, (name, command) in enumerate(list(commands.items())[:count])
    ]


def _watched(log: Path, command: list[str]) -> str | None:
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(log), *command],
        env=environment | {"BROWSER": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(20 if command[0] == "view" else 120)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    lines = log.read_text().splitlines() if log.exists() else []
    foreign = [line for line in lines if not any(word in line for word in LOCAL)]
    return f"{foreign[:3]}" if foreign else None
