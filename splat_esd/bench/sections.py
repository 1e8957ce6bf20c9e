"""What is measured: the table of scenes, what options cost, growing scenes, a busy machine.

A section returns rows that are stored as they are; keys end in their unit.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import product

from splat_esd import console
from splat_esd.bench.machine import cores, spinning
from splat_esd.bench.memory import memory_growth
from splat_esd.bench.pairs import count_pairs
from splat_esd.bench.plans import Plan
from splat_esd.bench.scenes import OPACITIES, Scene, Stage
from splat_esd.bench.timing import Job, Timing, alternate
from splat_esd.rasterize import cpu

FLOPS = {"forward": 34, "forward_backward": 34 + 70}  # per pair
ACCOUNTING = (
    f"A blended pair counts as {FLOPS['forward']} floating-point operations forward and "
    f"{FLOPS['forward_backward'] - FLOPS['forward']} more backward, against what as many threads "
    "multiply and add at best, measured between the runs; projection, sorting and Python are time "
    "without operations."
)

Row = dict[str, object]


def measure_table(plan: Plan, threads: int) -> list[Row]:
    """Times every scene with every opacity, by the kernels and, if small, by the reference."""
    scenes = [Scene(*what, opacity) for what, opacity in product(plan.table, OPACITIES)]
    stages = {scene: scene.build() for scene in scenes}
    jobs: dict[object, Job] = {}
    for scene, stage in stages.items():
        jobs |= _keyed((scene, "cpu"), _jobs(stage, threads))
        if scene.count <= plan.reference_limit:
            twin = _jobs(stage, threads, backend="reference", every=plan.reference_every)
            jobs |= _keyed((scene, "reference"), twin)
    rates: list[float] = []
    jobs["bound"] = Job(lambda: rates.append(cpu.fma_rate(0.005)))
    took = alternate(jobs, plan.rounds)
    bound = threads * max(rates)
    rows = []
    with console.progress(len(scenes), unit="scene") as meter:
        for done, (scene, stage) in enumerate(stages.items(), 1):
            pairs = count_pairs(stage.gaussians, stage.cameras)
            rows.append(
                {"scene": asdict(scene), "pairs": pairs}
                | {name: _figures(took[scene, "cpu", name], pairs, bound, name) for name in FLOPS}
                | {"memory_growth_bytes": memory_growth(scene, threads=threads)}
                | {"bound_flops_per_second": bound, "reference": _reference(took, scene)}
            )
            meter.update(done)
    return rows


def measure_costs(plan: Plan, threads: int) -> list[Row]:
    """Times one scene with and without each option, alternating."""
    n, size = plan.cost
    stage = Scene(n, size).build()
    plain = _jobs(stage, threads)
    absgrad = Job(partial(stage.forward_backward, absgrad=True), threads, threads > 1)
    sides = {
        "SH degree 3 / degree 0": (_jobs(Scene(n, size, degree=3).build(), threads), plain),
        "absgrad / without": ({"forward_backward": absgrad}, plain),
        "4 cameras / 1 camera": (_jobs(Scene(n, size, cameras=4).build(), threads), plain),
    }
    if cores() >= 2:
        clocked = [_jobs(stage, count, wall=True) for count in (2, 1)]
        sides["2 threads / 1 thread, wall time"] = (clocked[0], clocked[1])
    jobs: dict[object, Job] = {}
    for what, (numerator, denominator) in sides.items():
        jobs |= _keyed((what, 0), numerator) | _keyed((what, 1), denominator)
    took = alternate(jobs, plan.rounds)
    rows: list[Row] = []
    for what, (numerator, _) in sides.items():
        row: Row = {"what": what, "scene": asdict(Scene(n, size))}
        for name in numerator:
            over, under = took[what, 0, name], took[what, 1, name]
            row[name] = {"ratio": over.median / under.median, "of": [over.in_ms(), under.in_ms()]}
        rows.append(row)
    return rows


def measure_curve(plan: Plan, threads: int) -> list[Row]:
    """Times scenes of growing numbers of Gaussians at one image size."""
    scenes = [Scene(count, plan.curve_size) for count in plan.curve]
    jobs: dict[object, Job] = {}
    for scene in scenes:
        jobs |= _keyed((scene,), _jobs(scene.build(), threads))
    took = alternate(jobs, plan.rounds)
    rows: list[Row] = []
    for scene in scenes:
        row: Row = {"scene": asdict(scene)}
        for name in FLOPS:
            timing = took[scene, name]
            per_10k = {"ms_per_10k": 1e3 * timing.median / scene.count * 10_000}
            row[name] = timing.in_ms() | per_10k
        rows.append(row)
    return rows


def measure_busy(plan: Plan, threads: int) -> list[Row]:
    """Times one scene by the wall clock alone and beside two busy processes per core.

    Whoever shares fairly is slowed by  max(1, (processes + own threads) / cores).
    """
    stage = Scene(*plan.cost).build()
    counts = sorted({1, min(2, cores()), threads})
    jobs = {count: _jobs(stage, count, wall=True)["forward_backward"] for count in counts}
    others = 2 * cores()
    quiet = alternate(jobs, plan.rounds)
    with spinning(others):
        busy = alternate(jobs, plan.rounds)
    return [
        {
            "scene": asdict(Scene(*plan.cost)),
            "threads": count,
            "processes": others,
            # Means, for a run is either left alone or waits for long, and both are to count.
            "quiet_ms": 1e3 * quiet[count].mean,
            "busy_ms": 1e3 * busy[count].mean,
            "slowdown": busy[count].mean / quiet[count].mean,
            "fair_slowdown": max(1.0, (others + count) / cores()),
        }
        for count in counts
    ]


SECTIONS: dict[str, Callable[[Plan, int], list[Row]]] = {
    "table": measure_table,
    "costs": measure_costs,
    "curve": measure_curve,
    "busy": measure_busy,
}


def _jobs(
    stage: Stage, threads: int, *, backend: str = "cpu", every: int = 1, wall: bool = False
) -> dict[str, Job]:
    calls = {"forward": stage.forward, "forward_backward": stage.forward_backward}
    return {
        name: Job(partial(call, backend=backend), threads, wall or threads > 1, every)
        for name, call in calls.items()
    }


def _keyed(prefix: tuple[object, ...], jobs: Mapping[str, Job]) -> dict[object, Job]:
    return {(*prefix, name): job for name, job in jobs.items()}


def _figures(timing: Timing, pairs: int, bound: float, name: str) -> Row:
    rate = pairs / timing.median
    return timing.in_ms() | {
        "pairs_per_second": rate,
        "fraction_of_bound": FLOPS[name] * rate / bound,
    }


def _reference(took: Mapping[object, Timing], scene: Scene) -> Row | None:
    """Returns the times of the PyTorch reference, and their ratio to the kernels' times."""
    if (scene, "reference", "forward") not in took:
        return None
    figures: Row = {}
    for name in FLOPS:
        ours, theirs = took[scene, "cpu", name], took[scene, "reference", name]
        figures[name] = theirs.in_ms() | {"ratio": theirs.median / ours.median}
    return figures
