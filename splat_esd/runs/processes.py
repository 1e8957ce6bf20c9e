"""A run spread over processes: rank 0 leads, keeps the folder and speaks; the others follow.

On a CPU the leader starts the others itself; on GPUs, or on several machines, a launcher does:
`torchrun --nproc-per-node 4 -m splat_esd prompt=...`.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from splat_esd import distributed
from splat_esd.config.load import Config
from splat_esd.distributed import LostProcess
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.export.live_viewer import Controls
from splat_esd.runs.launcher import launched
from splat_esd.runs.live_controls import controls, set_controls
from splat_esd.runs.start import choose_device, open_prior
from splat_esd.train import NotFinite, Run, make_run, restore_run, run_state, train_step

WORTH_STEPS = 40  # of a run; in a shorter one the start of another process takes what it saves
MEMORY = 2 * 2**30  # that a process of the embedded prior may take, in bytes
COMPARED_EVERY = 100  # steps
FOLLOW = "from splat_esd.runs.processes import follow_on_this_machine as f; f()"


class Followers:
    """The other processes of a run: what the leader does to its run, they do to theirs.

    Arguments:
        started: Those that the leader started itself, with what each writes to stderr.
    """

    def __init__(self, started: list[tuple[subprocess.Popen, Any]]):
        self.started = started
        self.memory_mib = 0  # at their peaks, together; known after `end`
        self._following = False

    def meet(self, meeting: Path) -> None:
        """Waits until all of them stand ready, each with a run at step 0.

        Raises:
            LostProcess: If one has ended.
        """
        count = len(self.started) + 1
        while len(list(meeting.glob("ready-*"))) < len(self.started):
            if any(process.poll() is not None for process, _ in self.started):
                raise LostProcess(f"another process of this run did not start: {self.cause()}.")
            time.sleep(0.02)
        if count > 1:
            distributed.join(meeting / "store", 0, count)
        if distributed.world() > 1:
            distributed.collect("ready")
            self._following = True

    def step(self, run: Run, step: int) -> None:
        """Has them make the same step, under the leader's controls."""
        if self._following:
            distributed.broadcast(("step", step, controls(run)))

    def restore(self, run: Run) -> None:
        """Puts them where the leader's run is."""
        if self._following:
            distributed.broadcast(("restore", _on_cpu(run_state(run)), controls(run)))

    def end(self, folder: Path) -> None:
        """Lets them go, tells them the run's folder, and learns how much memory they took."""
        if self._following:
            self._following = False
            distributed.broadcast(("end", folder))
            self.memory_mib = sum(distributed.collect(0))

    def cause(self) -> str:
        """Returns why a process that the leader started has ended, as far as it is known."""
        time.sleep(0.2)  # its connection closes before it has ended
        for number, (process, errors) in enumerate(self.started, 1):
            code = process.poll()
            if code is None:
                continue
            if code == -signal.SIGKILL:
                return f"process {number} was killed, as happens when memory runs out"
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            return f"process {number} ended with code {code}" + (f", {said[-1]}" if said else "")
        return "its connection was closed"

    def dismiss(self) -> None:
        """Ends those that the leader started, wherever they are."""
        for process, errors in self.started:
            if not self.memory_mib:  # they were not let go
                process.kill()
            process.wait()
            errors.close()


@contextmanager
def following(config: Config, device: torch.device) -> Iterator[tuple[Followers, Path]]:
    """Yields the followers of a run of this configuration, and where to `meet` them.

    In the block each process has its share of the threads.
    """
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="splat-esd-") as folder:
        meeting = Path(folder)
        if launched():
            count = int(os.environ["WORLD_SIZE"])
            _check_views(count, config)
            distributed.join_launched()
            distributed.broadcast(config)
            started = []
        else:
            count = count_processes(config, device)
            torch.set_num_threads(max(1, threads // count))
            started = [_start(config, meeting, number, count) for number in range(1, count)]
        followers = Followers(started)
        try:
            yield followers, meeting
        except LostProcess as error:
            raise LostProcess(f"{str(error).rstrip('.')}: {followers.cause()}.") from error
        finally:
            followers.dismiss()
            distributed.leave()
            torch.set_num_threads(threads)


def count_processes(config: Config, device: torch.device) -> int:
    """Returns how many processes a run is spread over on this machine.

    Raises:
        UsageError: If more are asked for than a step has views, or several for one GPU.
    """
    threads = torch.get_num_threads()
    if config.processes != "auto":
        if device.type != "cpu" and config.processes > 1:
            raise UsageError(
                f"processes={config.processes} is for CPUs; on GPUs start one process each: "
                f"torchrun --nproc-per-node {config.processes} -m splat_esd prompt=..."
            )
        _check_views(config.processes, config)
        return config.processes
    if device.type != "cpu" or config.prior.name != "zoo" or config.steps < WORTH_STEPS:
        return 1  # a large prior fills a machine with its own threads
    room = distributed.memory() // MEMORY
    return max(1, min(threads, config.cameras.batch_size, room))


def _check_views(count: int, config: Config) -> None:
    views = config.cameras.batch_size
    if count > views:
        raise UsageError(
            f"processes: a step has {views} views (cameras.batch_size) and cannot be spread over "
            f"{count} processes; take at most {views}, or more views."
        )


def _start(config: Config, meeting: Path, number: int, count: int) -> tuple[subprocess.Popen, Any]:
    errors = tempfile.TemporaryFile()
    process = subprocess.Popen(
        [sys.executable, "-c", FOLLOW, str(meeting), str(number), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        start_new_session=True,  # Ctrl-C is for the leader
    )
    assert process.stdin is not None
    process.stdin.write(config.model_dump_json(by_alias=True).encode() + b"\n")
    process.stdin.flush()
    return process, errors


def follow_on_this_machine() -> None:
    """The program of a process that a leader has started: its arguments say where and as which."""
    meeting, number, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    config = Config.from_yaml(sys.stdin.readline())
    threading.Thread(target=_end_with_the_leader, daemon=True).start()
    try:
        run = _prepare(config)
        (meeting / f"ready-{number}").touch()
        distributed.join(meeting / "store", number, count)
        _follow(run)
    except LostProcess:
        distributed.exit_at_once(EnvironmentProblem.exit_code)
    distributed.exit_at_once()


def _end_with_the_leader() -> None:
    sys.stdin.read()  # to its end, which comes when the leader ends, in whatever way
    distributed.exit_at_once(EnvironmentProblem.exit_code)


def follow_launched() -> Path:
    """Follows as one of the processes that a launcher has started; returns the run's folder."""
    distributed.join_launched()
    config = distributed.broadcast()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the leader saves, and then lets all go
    return _follow(_prepare(config))


def _prepare(config: Config) -> Run:
    device, _ = choose_device(config)
    return make_run(config, open_prior(config, device))


def _follow(run: Run) -> Path:
    """Does what the leader says until it says that the run has ended; returns its folder."""
    distributed.collect("ready")
    while True:
        match distributed.broadcast():
            case ("step", step, wanted):
                _turn(run, wanted)
                try:
                    step_together(run, step)
                except NotFinite:
                    continue  # the leader met it too and says what to do
            case ("restore", state, wanted):
                restore_run(run, state)
                _turn(run, wanted)
            case ("end", folder):
                distributed.collect(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
                return folder


def _turn(run: Run, wanted: Controls) -> None:
    if wanted != controls(run):
        set_controls(run, wanted)


def step_together(run: Run, step: int) -> dict[str, float | int]:
    """Makes a step in all processes of a run; every `COMPARED_EVERY` steps compares their splats.

    Raises:
        LostProcess: If one is gone.
        EnvironmentProblem: If their splats are not the same, bit for bit.
    """
    stats = train_step(run, step)
    if distributed.world() > 1 and (step + 1) % COMPARED_EVERY == 0:
        mine = distributed.checksum(list(run.gaussians.parameters().values()))
        if len(set(distributed.collect(mine))) > 1:
            raise EnvironmentProblem(
                f"the processes of this run do not hold the same splats after step {step + 1}: "
                "do their processors or versions of PyTorch differ? processes=1 needs none."
            )
    return stats


def _on_cpu(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {name: _on_cpu(value) for name, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state
