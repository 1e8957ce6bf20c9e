"""Hostile files, settings and command lines: each ends in one line, soon, and leaves nothing.

Each is tried by the program's own `main` in a forked process with a limit of memory and of time.
"""

import json
import os
import random
import resource
import shutil
import signal
import string
import time
from collections.abc import Callable
from pathlib import Path

import torch
from conftest import save_tiny_prior
from test_ply import some

from splat_esd.cli.main import main
from splat_esd.config.load import load_config
from splat_esd.formats.compressed_ply import write_compressed
from splat_esd.formats.gltf import write_gltf
from splat_esd.formats.ply import write_ply
from splat_esd.formats.splat import write_splat
from splat_esd.formats.spz import write_spz
from splat_esd.gaussians import Gaussians

from .calls import Outcome

SECONDS = 10
MEMORY = 2 << 30  # bytes above what the process has before
QUICK = "steps=1 init.count=50 density=none export.formats=[ply] cameras.batch_size=1".split()
WORDS = [
    "", "null", "~nouser/x", "-1", "1e300", "nan", "[", "[[[[", "{a: 1}", "9" * 400, "\u202e",
    "<script>alert(1)</script>", "x" * 5000, "../../x", "!!python/object:os.system", "${seed}",
    "&a [*a]", "*a", "a: b: c", "\t", "true", "0x10", "1_000", ".inf",
]  # fmt: skip


def run_inputs(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Tries `count` hostile inputs, the i-th with seed + i."""
    torch.set_num_threads(1)
    prior = save_tiny_prior(folder / "prior")
    found = []
    names = sorted(KINDS)
    for i in range(count):
        name, box = names[i % len(names)], folder / f"box-{i}"
        box.mkdir()
        arguments = KINDS[name](box, prior, random.Random(seed + i))
        found.append(Outcome(name, seed + i, _try(arguments, box)))
        shutil.rmtree(box)
    return found


def _try(arguments: list[str], box: Path) -> str | None:
    said = box.parent / "said.txt"
    before = {p for p in box.parent.rglob("*") if "prior" not in p.parts}
    pid = os.fork()
    if pid == 0:
        _child(arguments, box, said)
    status, begun = None, time.monotonic()
    while status is None and time.monotonic() - begun < SECONDS:
        done, ended = os.waitpid(pid, os.WNOHANG)
        status = ended if done else None
        time.sleep(0.01)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return f"hung for {SECONDS} s: {arguments}"[:300]
    text, code = said.read_text(errors="replace"), os.waitstatus_to_exitcode(status)
    if code not in (0, 2, 3) or "Traceback" in text or "this is a bug" in text:
        return f"exit {code}: {text.strip()[-160:]} {arguments}"[:400]
    now = {p for p in box.parent.rglob("*") if "prior" not in p.parts} - {said}
    outside = [str(p) for p in now - before if box / "out" not in (p, *p.parents)]
    outside = [p for p in outside if Path(p).name not in ("ckpt",) and str(box / "run") not in p]
    partial = [p.name for p in box.rglob(".*")]
    return f"left behind: {outside + partial}"[:300] if outside or partial else None


def _child(arguments: list[str], box: Path, said: Path) -> None:
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(box)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    code = 70
    try:
        code = main(arguments)
    except BaseException as error:
        os.write(2, f"Traceback: {type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def _mutated(data: bytes, draw: random.Random) -> bytes:
    """Flips, cuts, repeats or replaces some bytes."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = data[at : at + draw.randrange(64)] * draw.choice([1, 2, 100])
        elif kind == 3:
            data[at : at + draw.randrange(8)] = draw.choice(WORDS).encode()
        else:
            data[at:at] = draw.randbytes(draw.randrange(16))
    return bytes(data)


def _config(box: Path, prior: Path, draw: random.Random) -> list[str]:
    run = box / "run"
    run.mkdir()
    given = ["prompt=a", "prior=sd15", f"prior.path={prior}", f"out={box / 'out'}", *QUICK]
    lines = load_config(given).to_yaml().splitlines()
    for _ in range(draw.choice([1, 1, 3])):
        at = draw.randrange(len(lines))
        lines[at] = lines[at].partition(":")[0] + ": " + draw.choice(WORDS)
    text = "\n".join(lines).encode()
    (run / "config.yaml").write_bytes(_mutated(text, draw) if draw.random() < 0.5 else text)
    return [f"resume={run}", "device=cpu", "export.formats=[ply]"]


def _command_line(box: Path, prior: Path, draw: random.Random) -> list[str]:
    keys = ["seed", "guidance.lambda", "optim.means", "density.cap", "export.formats", "mesh.faces",
            "guidance.lora.rank", "guidance", "quality", "init.color", "cameras.distance", "a.b",
            "guidance.t_min", "classifier", "init.path", "device", "log", "prior.name"]  # fmt: skip
    wrong = [f"{draw.choice(keys)}={draw.choice(WORDS)}" for _ in range(draw.choice([1, 2]))]
    junk = "".join(draw.choices(string.printable.strip(), k=draw.randrange(1, 30)))
    command = draw.choice([[], [], [], ["export"], ["view"], ["compare"], ["study"], ["doctor"]])
    more = draw.choice([[], [], [junk]])
    given = ["prompt=a", "prior=sd15", f"prior.path={prior}", *QUICK] if not command else command
    return [*given, f"out={box / 'out'}", *wrong, *more]


def _reader(write: Callable[..., Path], name: str) -> Callable[..., list[str]]:
    def make(box: Path, prior: Path, draw: random.Random) -> list[str]:
        path = write(some(), box / name)
        path.write_bytes(_mutated(path.read_bytes(), draw))
        start = ["prompt=a", "prior=sd15", f"prior.path={prior}", "init=ply", f"init.path={path}"]
        out = f"out={box / 'out'}"
        export = ["export", f"from={path}", out, "formats=[splat]"]
        return draw.choice([export, export, [*start, out, *QUICK[:1], *QUICK[2:]]])

    return make


def _write_pt(gaussians: Gaussians, path: Path) -> Path:
    """As gsplat's trainer saves its splats."""
    fields = {**gaussians.parameters()}
    splats = {
        "means": fields["means"], "quats": fields["quats"], "scales": fields["log_scales"],
        "opacities": fields["logit_opacities"], "sh0": fields["sh"][:, :1],
        "shN": fields["sh"][:, 1:],
    }  # fmt: skip
    torch.save({"step": 1, "splats": splats}, path)
    return path


def _points(box: Path, prior: Path, draw: random.Random) -> list[str]:
    import numpy as np

    np.save(box / "points.npy", np.random.default_rng(0).random((30, 3), dtype=np.float32))
    path = box / "points.npy"
    path.write_bytes(_mutated(path.read_bytes(), draw))
    start = ["prompt=a", "prior=sd15", f"prior.path={prior}", "init=points", f"init.path={path}"]
    return [*start, f"out={box / 'out'}", *QUICK[:1], *QUICK[2:]]


def _prior(box: Path, prior: Path, draw: random.Random) -> list[str]:
    copy = box / "copy"
    shutil.copytree(prior, copy)
    files = sorted(p for p in copy.rglob("*") if p.is_file())
    path = draw.choice(files)
    if path.suffix == ".json" and draw.random() < 0.5:
        path.write_text(json.dumps(draw.choice([None, [], 1, "x", {}, {"a": [1]}])))
    else:
        path.write_bytes(_mutated(path.read_bytes(), draw))
    return ["prompt=a", "prior=sd15", f"prior.path={copy}", f"out={box / 'out'}", *QUICK]


def _study(box: Path, prior: Path, draw: random.Random) -> list[str]:
    text = "prompts: [a corgi]\nmethods: {esd: [guidance=esd]}\nseeds: 1\n"
    path = box / "study.yaml"
    path.write_bytes(_mutated(text.encode(), draw))
    return ["study", str(path), "report", f"out={box / 'out'}"]


KINDS: dict[str, Callable[[Path, Path, random.Random], list[str]]] = {
    "config.yaml": _config,
    "command line": _command_line,
    "ply": _reader(write_ply, "a.ply"),
    "spz": _reader(write_spz, "a.spz"),
    "splat": _reader(write_splat, "a.splat"),
    "gltf": _reader(write_gltf, "a.glb"),
    "compressed ply": _reader(write_compressed, "a.compressed.ply"),
    "pt": _reader(_write_pt, "a.pt"),
    "points": _points,
    "prior": _prior,
    "study": _study,
}
