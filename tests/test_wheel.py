"""The package as a stranger gets it: a wheel, installed elsewhere, run from any folder."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Builds the wheel, unpacks it into an empty folder and returns how to call it from a third
    one.
    """
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "-w", str(folder)], check=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    away = folder / "away"
    away.mkdir()
    # The interpreter outside the environment reads no .pth file, so the checkout is not in sight.
    path = os.pathsep.join([str(site), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": path, "SPLAT_ESD_TRACEBACK": "1"}

    def call(*arguments):
        return subprocess.run(
            [sys._base_executable, *arguments],
            cwd=away,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call, site, away


def test_the_wheel_carries_kernels_settings_and_the_prior(elsewhere):
    call, site, _ = elsewhere
    where = call(
        "-c",
        "import splat_esd._kernels as k, splat_esd.paths as p; print(k.__file__, p.CONF, p.ASSETS)",
    )
    assert where.returncode == 0, where.stderr
    assert all(name.startswith(str(site)) for name in where.stdout.split())
    assert (site / "splat_esd" / "conf" / "generate.yaml").is_file()
    assert (site / "splat_esd" / "assets" / "zoo" / "model_index.json").is_file()


def test_the_installed_program_makes_a_splat_from_any_folder(elsewhere):
    call, _, away = elsewhere
    small = "steps=2 cameras.batch_size=1 init.count=200 export.frames=2 export.size=64".split()
    small.append("mesh.faces=500")
    made = call("-W", "ignore", "-m", "splat_esd", "prompt=a corgi", "prior=zoo", *small)
    assert made.returncode == 0, made.stderr
    (splat,) = away.glob("outputs/a-corgi/*/splat.ply")
    assert splat.stat().st_size > 200 * 17 * 4


def test_without_a_compiler_the_build_says_what_is_missing(tmp_path):
    broken = {**os.environ, "CXX": str(tmp_path / "no-such-compiler")}
    build = subprocess.run(
        # A folder of its own: a build that once found a compiler remembers it.
        [
            *(sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-w", str(tmp_path)),
            f"--config-settings=build-dir={tmp_path / 'build'}",
        ],
        env=broken,
        capture_output=True,
        text=True,
    )
    assert build.returncode != 0
    said = " ".join((build.stdout + build.stderr).split())  # CMake wraps what it says
    assert "no C++ compiler was found here. Install one and run the same pip command" in said
