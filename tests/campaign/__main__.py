"""The campaign as a program, by command; CI's tests run a slice of it.

python -m tests.campaign [kills=100] [teams=20] [disks=30] [tmpfs=20] [inputs=1000] [pages=30]
                         [network=6] [kernels=1000] [memory=1] [cells=1000] [seed=0]
"""

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # what follows forks
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

from .calls import Outcome, run_calls
from .cells import run_cells
from .inputs import run_inputs
from .kills import run_disks, run_kills, run_teams
from .memory import run_memory
from .surroundings import run_network, run_pages, run_tmpfs

PARTS = {
    "inputs": run_inputs,
    "pages": run_pages,
    "kills": run_kills,
    "teams": run_teams,
    "disks": run_disks,
    "tmpfs": run_tmpfs,
    "network": run_network,
    "memory": run_memory,
    "cells": run_cells,
}
DEFAULTS = {
    "kills": 100, "teams": 20, "disks": 30, "tmpfs": 20, "inputs": 1000, "pages": 30, "network": 6,
    "kernels": 1000, "memory": 1, "cells": 1000, "seed": 0,
}  # fmt: skip


def table(outcomes: list[Outcome]) -> str:
    """Returns what was tried, what survived, and each failure with the seed that repeats it."""
    tried, survived = Counter(x.name for x in outcomes), Counter(
        x.name for x in outcomes if x.failure is None
    )  # fmt: skip
    lines = ["| kind | tried | survived |", "|---|---:|---:|"]
    lines += [f"| {name} | {count} | {survived[name]} |" for name, count in sorted(tried.items())]
    lines.append(f"| all | {len(outcomes)} | {sum(survived.values())} |")
    lines += [f"- {x.name}, seed {x.seed}: {x.failure}" for x in outcomes if x.failure]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Runs the campaign, prints its table, and returns 1 if anything failed."""
    asked = DEFAULTS | {
        name: int(value) for name, _, value in (argument.partition("=") for argument in arguments)
    }
    unknown = asked.keys() - DEFAULTS.keys()
    if unknown:
        sys.stderr.write(f"no such key: {', '.join(sorted(unknown))}\n")
        return 2
    seed = asked["seed"]
    outcomes = run_calls(asked["kernels"], seed)
    with tempfile.TemporaryDirectory() as folder:
        for name, part in PARTS.items():
            if asked[name]:
                box = Path(folder) / name
                box.mkdir()
                outcomes += part(asked[name], seed, box)
    sys.stdout.write(table(outcomes) + "\n")
    return int(any(x.failure for x in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
