"""A slice of the campaign, as `python -m tests.campaign` runs it whole."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_slice_of_the_campaign_is_survived():
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.campaign",
            "kernels=45",
            "inputs=4",
            "kills=2",
            "teams=0",
            "tmpfs=0",
            "network=0",
            "pages=3",
            "disks=1",
            "memory=0",
            "cells=0",
        ],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    (tried, survived) = re.findall(r"^\| all \| (\d+) \| (\d+) \|$", ran.stdout, re.MULTILINE)[0]
    assert int(tried) == int(survived) >= 45 + 4 + 2 + 3 + 1
