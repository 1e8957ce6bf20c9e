"""Cells as tasks of a Ray cluster: each goes to a process that is free, which keeps the prior."""

from collections.abc import Iterator, Sequence
from typing import Any

from splat_esd.config.experiment import Experiment
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.study.experiment import Cell
from splat_esd.study.job import Worker

TRIES = 3  # of a run whose process or machine is lost; each goes on where the last one stopped


def run_on_ray(cells: Sequence[Cell], experiment: Experiment) -> Iterator[tuple[Cell, str | None]]:
    """Runs cells on the cluster that ray.address names, or on one that it starts here, and yields
    each with why it failed, or None.

    Raises:
        UsageError: If Ray is not there or does not take its settings.
        EnvironmentProblem: If no cluster answers.
    """
    ray, given = _joined(experiment)
    threads = max(1, int(given.get("num_cpus") or 1))
    worker = Worker(threads, experiment.classifier, experiment.clip)
    try:
        task = ray.remote(_work).options(
            **{"num_cpus": 1, "max_retries": TRIES, "name": "splat-esd"} | given
        )
        waiting = {task.remote(worker, cell): cell for cell in cells}
    except (TypeError, ValueError) as error:
        raise UsageError(f"ray: {' '.join(str(error).split())}") from None
    try:
        while waiting:
            ended = ray.wait(list(waiting), num_returns=1)[0][0]
            yield waiting.pop(ended), _reason(ray, ended)
    finally:
        for left in waiting:
            ray.cancel(left)
        ray.shutdown()


def _work(worker: Worker, cell: Cell) -> str | None:
    return worker(cell)


def _joined(experiment: Experiment) -> tuple[Any, dict[str, Any]]:
    """Joins or starts the cluster; returns the library, and the settings of each task."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError("launcher=ray needs Ray: pip install ray, or launcher=joblib.") from None
    given = dict(experiment.ray)
    address = given.pop("address", None)
    start = {"num_cpus": experiment.processes, "include_dashboard": False} if not address else {}
    try:
        ray.init(address=address, log_to_driver=False, **start)
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = str(error).strip().splitlines()[0]
        raise EnvironmentProblem(
            f"ray.address={address}: no cluster answers ({said}); `ray start --head` starts one, "
            "without ray.address one of this machine is made."
        ) from None
    return ray, given


def _reason(ray: Any, ended: Any) -> str | None:
    try:
        return ray.get(ended)
    except ray.exceptions.RayError as error:
        return f"lost {TRIES + 1} times: {str(error).strip().splitlines()[0]}"
