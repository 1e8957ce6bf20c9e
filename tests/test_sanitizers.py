"""The kernels under AddressSanitizer and UBSan, as `python kernels/sanitize.py` runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).parent.parent / "kernels"


@pytest.mark.slow
def test_the_kernels_touch_no_memory_that_is_not_theirs():
    run = subprocess.run(
        [sys.executable, str(KERNELS / "sanitize.py")], capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    assert " passed" in run.stdout
