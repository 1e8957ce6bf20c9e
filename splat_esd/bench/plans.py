"""The two sizes of the benchmark: full, and a quick one that only shows that it runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The scenes that are rendered, and the number of runs.

    Arguments:
        table: Gaussians and pixels of the scenes, each drawn with every opacity.
        reference_limit: Gaussians up to which the PyTorch reference draws them too.
        cost: Gaussians and pixels of the scene on which options and a busy machine are tried.
        curve: Gaussians of growing scenes, `curve_size` pixels wide.
        rounds: Runs of each; the reference runs in one of `reference_every`.
    """

    table: tuple[tuple[int, int], ...]
    reference_limit: int
    cost: tuple[int, int]
    curve: tuple[int, ...]
    curve_size: int
    rounds: int
    reference_every: int


FULL = Plan(
    table=((2000, 64), (10_000, 128), (10_000, 256), (50_000, 256), (50_000, 512), (200_000, 512)),
    reference_limit=10_000,  # beyond, one run takes many seconds and gigabytes
    cost=(50_000, 512),
    curve=(10_000, 30_000, 100_000, 300_000, 1_000_000),
    curve_size=512,
    rounds=31,
    reference_every=5,
)
QUICK = Plan(
    table=((500, 32),),
    reference_limit=500,
    cost=(1000, 64),
    curve=(1000, 3000),
    curve_size=64,
    rounds=3,
    reference_every=3,
)
