"""Where cells run: in processes of this machine (joblib), or on a cluster (submitit, ray)."""

from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from splat_esd import distributed
from splat_esd.bench.machine import cores
from splat_esd.config.experiment import LAUNCHER_KEYS, Experiment
from splat_esd.errors import UsageError
from splat_esd.study.experiment import Cell
from splat_esd.study.job import Worker, is_done
from splat_esd.study.on_ray import run_on_ray

MEMORY = 3 * 2**30  # that a run of the embedded prior and its evaluation may take, in bytes
KILLED = "its process was killed, as happens when memory runs out; log.txt may say more."
Ended = tuple[Cell, str | None]  # a cell, and why it failed


def launch(cells: Sequence[Cell], experiment: Experiment) -> Iterator[Ended]:
    """Runs cells and yields each one when it ends; a failure stops no other.

    Raises:
        UsageError: If submitit or ray is not there or does not take its settings.
        KeyboardInterrupt: After Ctrl-C; what was computed is kept.
    """
    if experiment.launcher == "submitit":
        return _submit(cells, experiment)
    if experiment.launcher == "ray":
        return run_on_ray(cells, experiment)
    return _start(cells, experiment)


def processes(experiment: Experiment, count: int) -> int:
    """Returns how many of `count` cells to run at once on this machine."""
    import torch

    if experiment.processes is not None:
        return max(1, min(experiment.processes, count))
    if torch.cuda.is_available():
        return 1  # one run fills a GPU
    room = distributed.memory() // MEMORY
    return max(1, min(cores(), room, count))


def _start(cells: Sequence[Cell], experiment: Experiment) -> Iterator[Ended]:
    """Runs cells in processes of this machine, which keep the prior loaded; one alone runs in this
    process.
    """
    count = processes(experiment, len(cells))
    worker = Worker(max(1, cores() // count), experiment.classifier, experiment.clip)
    if count == 1:
        yield from ((cell, worker(cell)) for cell in cells)
        return
    left = list(cells)
    while left:
        try:
            for cell, error in _pool(left, worker, count):
                left = [other for other in left if other.name != cell.name]
                yield cell, error
        except BrokenProcessPool:
            # One process died and took the others along. It was one of the first: each of those
            # gets a process of its own now, so that only the culprit fails.
            suspects, left = left[:count], left[count:]
            for cell in suspects:
                yield _alone(cell, worker)


def _pool(cells: Sequence[Cell], worker: Worker, count: int) -> Iterator[Ended]:
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=worker.threads):
        # Exactly `count` are under way at any time: those that crash with a process are known.
        one_at_a_time: dict[str, Any] = {"pre_dispatch": count, "batch_size": 1}
        pool: Any = Parallel(n_jobs=max(2, count), return_as="generator_unordered", **one_at_a_time)
        yield from pool(delayed(_run)(worker, cell) for cell in cells)


def _run(worker: Worker, cell: Cell) -> Ended:
    return cell, worker(cell)


def _alone(cell: Cell, worker: Worker) -> Ended:
    try:
        ((_, error),) = _pool([cell], worker, 1)
    except BrokenProcessPool:
        return cell, KILLED
    return cell, error


@dataclass(frozen=True)
class Share:
    """The cells of one cluster job, run one after the other."""

    worker: Worker
    cells: tuple[Cell, ...]

    def __call__(self) -> list[str | None]:
        return [self.worker(cell) for cell in self.cells]

    def checkpoint(self) -> Any:
        """Has submitit requeue the job at its time limit; its runs resume."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _submit(cells: Sequence[Cell], experiment: Experiment) -> Iterator[Ended]:
    """Submits the cells as an array of jobs and waits for them."""
    from submitit.helpers import as_completed

    given = dict(experiment.submitit)
    count = experiment.processes or len(cells)
    threads = int(given.get("cpus_per_task") or max(1, cores() // count))
    worker = Worker(threads, experiment.classifier, experiment.clip)
    shares = [Share(worker, tuple(cells[i::count])) for i in range(min(count, len(cells)))]
    executor = _executor(experiment)
    jobs = dict(zip(executor.submit_array(shares), shares, strict=True))
    try:
        for ended in as_completed(list(jobs), poll_frequency=1):
            yield from _collect(ended, jobs[ended])
    except BaseException:
        for waiting in jobs:
            waiting.cancel(check=False)
        raise


def _executor(experiment: Experiment) -> Any:
    try:
        import submitit
    except ImportError:
        raise UsageError(
            "launcher=submitit needs submitit: pip install submitit, or launcher=joblib."
        ) from None
    given = {k: v for k, v in experiment.submitit.items() if k not in LAUNCHER_KEYS}
    cluster = str(experiment.submitit.get("cluster") or "slurm")
    try:
        executor = submitit.AutoExecutor(experiment.out / "submitit", cluster=cluster)
        executor.update_parameters(**({"name": "splat-esd", "timeout_min": 240} | given))
    except (RuntimeError, NameError, AssertionError, TypeError, ValueError) as error:
        raise UsageError(f"submitit: {' '.join(str(error).split())}") from None
    return executor


def _collect(job: Any, share: Share) -> Iterator[Ended]:
    """Yields a job's cells; of a lost job, those that it had finished count as done."""
    error = job.exception()
    if error is None:
        yield from zip(share.cells, job.result(), strict=True)
        return
    said = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    for cell in share.cells:
        yield cell, None if is_done(cell) else f"its job {job.job_id} was lost: {said[0]}"
