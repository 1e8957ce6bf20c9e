"""A run spread over processes: rows, sums, and whole runs as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from splat_esd import distributed
from splat_esd.config.load import load_config
from splat_esd.distributed import Rows, checksum
from splat_esd.errors import UsageError
from splat_esd.formats.read import open_splats
from splat_esd.runs.processes import count_processes

CPU = torch.device("cpu")


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_rows_of_all_ranks_are_the_batch_and_their_shares_make_its_mean(world):
    batch = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ranks = [Rows(4, rank, world) for rank in range(world)]
    taken = torch.cat([rows.of(batch) for rows in ranks])
    assert sorted(taken.tolist()) == sorted(batch.tolist())
    means = sum(rows.share * rows.of(batch).mean(0) for rows in ranks)
    torch.testing.assert_close(means, batch.mean(0))


def test_a_checksum_tells_a_changed_bit_and_swapped_values():
    a, b = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    flipped = a.clone()
    flipped.view(torch.int32)[3] ^= 1
    assert checksum([a, b]) == checksum([a.clone(), b.clone()])
    assert len({checksum(x) for x in ([a, b], [flipped, b], [b, a], [a.flip(0), b])}) == 4


def sum_and_average(folder: Path) -> None:
    """What each of two processes gets back of what both bring."""
    mine = [torch.full((2,), 1.0 + distributed.rank()), torch.eye(2) * distributed.rank()]
    distributed.sum_in_place(mine)
    stats = {"both": float(distributed.rank()), f"only_{distributed.rank()}": 5.0}
    means = distributed.mean_of(stats, weight=[0.75, 0.25][distributed.rank()])
    torch.save((mine, means), folder / f"{distributed.rank()}.pt")


def test_sums_and_weighted_means_are_the_same_in_every_process(tmp_path):
    distributed.spawn(sum_and_average, 2, tmp_path / "meeting", tmp_path)
    for rank in range(2):
        (ones, eye), means = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert ones.tolist() == [3.0, 3.0] and torch.equal(eye, torch.eye(2))
        assert means == {"both": 0.25, "only_0": 5.0, "only_1": 5.0}


@pytest.mark.parametrize(
    ("limit", "room"),
    [("3221225472\n", 3 * 2**30), ("max\n", None), ("9" * 19, None), (None, None)],
)
def test_memory_is_the_containers_where_it_has_less_than_the_machine(
    limit, room, tmp_path, monkeypatch
):
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(distributed, "LIMITS", (tmp_path / "memory.max", tmp_path / "none"))
    assert distributed.memory() == (room or machine)


def test_a_run_is_spread_over_no_more_processes_than_memory_holds(monkeypatch):
    config = load_config(["prompt=a corgi"])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for gib, count in (64, 4), (5, 2), (1, 1):
        monkeypatch.setattr(distributed, "memory", lambda gib=gib: gib * 2**30)
        assert count_processes(config, torch.device("cpu")) == count


def test_a_short_run_or_a_large_prior_is_not_spread_and_no_process_is_without_a_view():
    base = ["prompt=a corgi", "steps=500"]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        assert 2 <= count_processes(load_config(base), CPU) <= 4
        for more in ("steps=10", "prior=sd21", "processes=1", "cameras.batch_size=1"):
            assert count_processes(load_config([*base, more]), CPU) == 1
        with pytest.raises(UsageError, match=r"4 views.*at most 4"):
            count_processes(load_config([*base, "processes=5"]), CPU)
        with pytest.raises(UsageError, match="torchrun"):
            count_processes(load_config([*base, "processes=2"]), torch.device("cuda"))
    finally:
        torch.set_num_threads(threads)


def command(prior, out, *more, launcher=()):
    return [
        sys.executable, *launcher, "-m", "splat_esd", "prompt=a corgi", "prior=sd15",
        f"prior.path={prior}", "prior.dtype=fp32", f"out={out}", "steps=110",
        "init.count=300", "density.cap=400", "export.formats=[ply]", "log.every=5",
        "log.checkpoint_every=20", *more,
    ]  # fmt: skip


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


def run_folder(out):
    (folder,) = out.glob("a-corgi/*")
    return folder


@pytest.fixture(scope="module")
def spread(tiny_sd, tmp_path_factory):
    """A run of two processes, whose splats are compared after step 100."""
    out = tmp_path_factory.mktemp("spread")
    subprocess.run(command(tiny_sd, out, "processes=2"), env=environment(), check=True)
    return run_folder(out)


def test_two_processes_make_what_one_makes_but_for_the_order_of_sums(spread, tiny_sd, tmp_path):
    more = ("processes=1", "density.strategy=none", "steps=50")
    subprocess.run(command(tiny_sd, tmp_path / "1", *more), env=environment(), check=True)
    more = ("processes=2", *more[1:])
    subprocess.run(command(tiny_sd, tmp_path / "2", *more), env=environment(), check=True)
    one, two = (open_splats(run_folder(tmp_path / n) / "splat.ply") for n in "12")
    assert (one.means - two.means).abs().max() < 2e-3  # of the unit ball
    for name, value in one.parameters().items():
        torch.testing.assert_close(two.parameters()[name], value, atol=2e-2, rtol=1e-2, msg=name)
    told = json.loads((spread / "run.json").read_text())
    assert (told["processes"], told["threads"], told["status"]) == (2, 1, "finished")
    assert told["peak_memory_mib"] > 300  # of both


def test_torchrun_makes_the_same_bits_as_processes_on_one_machine(spread, tiny_sd, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    done = subprocess.run(
        command(tiny_sd, tmp_path, launcher=launcher), env=environment(), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode().count("folder ") == 1  # only the first one speaks
    assert (run_folder(tmp_path) / "splat.ply").read_bytes() == (spread / "splat.ply").read_bytes()


def followers_of(pid):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = path.read_text().split(" (", 1)
        except OSError:
            continue
        if int(rest.rsplit(")", 1)[1].split()[1]) == pid:
            found.append(int(number))
    return found


def started(arguments, out, lines):
    """A run that has written so many lines of metrics."""
    process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE)
    for _ in range(600):
        time.sleep(0.1)
        files = list(out.glob("a-corgi/*/metrics.jsonl"))
        if files and files[0].read_text().count("\n") >= lines:
            return process
    process.kill()
    raise AssertionError("the run did not start")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_follower_ends_the_run_in_one_line_and_it_goes_on_with_another_number(
    tiny_sd, tmp_path
):
    process = started(command(tiny_sd, tmp_path, "processes=2", "steps=4000"), tmp_path, 3)
    (follower,) = followers_of(process.pid)
    os.kill(follower, signal.SIGKILL)
    said = process.communicate(timeout=60)[1].decode()
    folder = run_folder(tmp_path)
    assert process.returncode == 3, said
    assert "process 1 was killed, as happens when memory runs out" in said
    assert f'splat-esd resume="{folder}"' in said and "Traceback" not in said
    saved = sorted((folder / "ckpt").iterdir())
    assert saved and json.loads((folder / "run.json").read_text())["status"] == "failed"
    process = subprocess.Popen(
        [sys.executable, "-m", "splat_esd", f"resume={folder}", "processes=1"],
        env=environment(),
        stderr=subprocess.PIPE,
    )
    for _ in range(1200):
        if json.loads((folder / "run.json").read_text())["status"] == "running":
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1].decode()
    assert "continuing from" in said and process.returncode == 143, said


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_follower_outlives_its_leader(tiny_sd, tmp_path, number):
    process = started(command(tiny_sd, tmp_path, "processes=2", "steps=4000"), tmp_path, 1)
    (follower,) = followers_of(process.pid)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1].decode()
    for _ in range(100):
        if not Path(f"/proc/{follower}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{follower}").exists()
    if number == signal.SIGINT:
        assert process.returncode == 130 and "continue with" in said and "Traceback" not in said
