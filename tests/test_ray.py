"""A study as tasks of a real Ray cluster of this machine; `pip install --target build/ray ray`."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_study import splats, study, written  # noqa: F401

from splat_esd.config.experiment import read_study
from splat_esd.errors import UsageError
from splat_esd.study.run import main

RAY = Path(__file__).parent.parent / "build" / "ray"
needs_ray = pytest.mark.skipif(
    not (RAY / "ray").is_dir() and os.environ.get("FOREIGN") != "required", reason="no build/ray"
)


def command(arguments, *more):
    """Returns the process of a study on Ray, in an environment that has Ray behind all else."""
    asked = [*arguments, "launcher=ray", "processes=2", *more]
    code = f"import sys; sys.path.append({str(RAY)!r}); from splat_esd.cli.main import run; run()"
    # Ray's own processes import what they need by this path; what is installed comes first.
    path = os.pathsep.join([*filter(None, sys.path), str(RAY)])
    return subprocess.Popen(
        [sys.executable, "-c", code, "study", *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"},
        start_new_session=True,
    )


def states(out):
    return [cell["status"] for cell in json.loads((out / "results.json").read_text())["cells"]]


def tasks() -> list[int]:
    """Returns the processes that are at a run: Ray names them so."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if re.match(rb"ray::splat-esd", line.read_bytes()):
                found.append(int(line.parent.name))
        except OSError:
            pass
    return found


@needs_ray
def test_the_same_runs_come_out_of_a_ray_cluster_though_a_process_is_killed(
    study,  # noqa: F811
    tmp_path,
    tiny_sd,
):
    arguments, out = study
    process = command(arguments, "steps=150")
    deadline = time.monotonic() + 300
    while not (list(out.rglob("metrics.jsonl")) and tasks()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(tasks()[0], signal.SIGKILL)
    said = process.communicate(timeout=400)[0].decode()
    assert process.returncode == 0, said
    assert states(out) == ["done"] * 4
    assert len(splats(out)) == 4


@needs_ray
def test_ray_hears_of_a_wrong_setting(study):  # noqa: F811
    process = command(study[0], "ray.num_cpsu=2")
    said = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 2 and "error: ray: Invalid option keyword num_cpsu" in said


def test_without_ray_the_way_to_it_is_told(study, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="launcher=ray needs Ray: pip install ray"):
        main(read_study([*study[0], "launcher=ray"]))
