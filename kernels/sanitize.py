"""Runs the rasteriser's tests over kernels built with AddressSanitizer and UBSan.

python kernels/sanitize.py [MODULE ARGUMENTS...]

As with python's -m; the campaign's malformed calls are `tests.campaign kernels=1000 inputs=0 ...`.

Needs the package's dev extra, and a GCC or Clang with the sanitizers' libraries. Builds in a
temporary folder; the installed package stays as it is.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nanobind

KERNELS = Path(__file__).resolve().parent
TESTS = [
    "test_rasterize.py",
    "test_rasterize_gradients.py",
    "test_gsplat_cpu_rasterization.py",
    "test_native_bounds.py",
]
ELSEWHERE = "not instruction_set and not missing_kernels"  # they start or load other kernels
PROGRAM = """
import importlib.util, runpy, sys

file, sys.argv = sys.argv[1], sys.argv[2:]

class Sanitized:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "splat_esd._kernels":
            return importlib.util.spec_from_file_location(name, file)

sys.meta_path.insert(0, Sanitized)
try:
    code = runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code
assert sys.modules["splat_esd._kernels"].__file__ == file, "other kernels were tested"
sys.exit(code)
"""


def build(folder: Path) -> Path:
    """Compiles the module with the sanitizers in it and returns where it lies."""
    configure = [
        "cmake", "-G", "Ninja", "-S", str(KERNELS), "-B", str(folder), "-DSPLAT_SANITIZE=ON",
        f"-DPython_EXECUTABLE={sys.executable}", f"-Dnanobind_DIR={nanobind.cmake_dir()}",
    ]  # fmt: skip
    beside_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = {
        "check": True,
        "stdout": subprocess.DEVNULL,
        "env": os.environ | {"PATH": beside_python},
    }
    subprocess.run(configure, **quiet)
    subprocess.run(["cmake", "--build", str(folder)], **quiet)
    (module,) = folder.glob("_kernels*.so")
    return module


def runtime() -> str:
    """Names the libraries that must be loaded before python: the sanitizer's and C++'s own."""
    compiler = os.environ.get("CXX", "c++")
    found = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    return ":".join(found)


def main(arguments: list[str]) -> int:
    tests = KERNELS.parent / "tests"
    named = [str(tests / name) for name in TESTS]
    wanted = arguments or ["pytest", "-q", "-p", "no:cacheprovider", "-k", ELSEWHERE, *named]
    with tempfile.TemporaryDirectory() as folder:
        module = build(Path(folder))
        environment = os.environ | {
            "LD_PRELOAD": runtime(),
            # Python leaks on purpose, and torch's own checks of threads are not ours to judge.
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        }
        command = [sys.executable, "-c", PROGRAM, str(module), *wanted]
        return subprocess.run(command, env=environment, cwd=KERNELS.parent).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
