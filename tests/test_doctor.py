"""The doctor: looks at everything, survives every broken part, ends with a command to type."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from splat_esd.cli import doctor
from splat_esd.config.load import load_config

ALL = dict.fromkeys(doctor._CHECKS, True)


def examine(monkeypatch: pytest.MonkeyPatch, **checks) -> int:
    healthy = {name: lambda: (True, "fine") for name in doctor._CHECKS}
    monkeypatch.setattr(doctor, "_CHECKS", healthy | checks)
    return doctor.examine()


def test_every_part_is_looked_at_and_the_network_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def refuse(*args, **kwargs):
        raise AssertionError("the doctor used the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.chdir(tmp_path)
    assert doctor.examine() in (0, 3)
    out, err = capsys.readouterr()
    assert err == ""
    assert "AssertionError" not in out
    for name in doctor._CHECKS:
        assert f"  {name} " in out
    assert list(tmp_path.iterdir()) == []


def test_a_broken_part_is_a_finding_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken():
        raise ImportError("libcudart.so.13: cannot open shared object file\nsecond line")

    assert examine(monkeypatch, gsplat=broken) == 0
    out = capsys.readouterr().out
    assert "ImportError: libcudart.so.13: cannot open shared object file\n" in out
    assert "second line" not in out


def test_a_folder_that_cannot_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def read_only(**options):
        raise PermissionError(13, "Permission denied", options["dir"])

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert examine(monkeypatch, **{"output folder": doctor._outputs}) == 3
    assert "Permission denied" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("missing", "runnable", "says"),
    [
        ([], True, "prior=sd21"),
        (["prior sd21"], True, "prior=sd15"),
        (["prior sd21", "prior sd15"], True, "which fetches 5 GB once"),
        (["CUDA GPU", "gsplat"], True, 'splat-esd prompt="a corgi"'),
        (["CUDA GPU", "gsplat", "C++ kernels"], True, "rasterizer=reference"),
        (["gsplat", "prior zoo"], False, "No prior is here"),
        (["output folder"], False, "Nothing can be written here"),
    ],
)
def test_the_advice_follows_from_what_is_there(missing: list[str], runnable: bool, says: str):
    possible, advice = doctor.recommend(ALL | dict.fromkeys(missing, False))
    assert possible is runnable
    assert says in advice


@pytest.mark.parametrize("missing", [[], ["prior sd21"], ["CUDA GPU"], ["CUDA GPU", "C++ kernels"]])
def test_the_recommended_command_is_valid(missing: list[str]):
    _, advice = doctor.recommend(ALL | dict.fromkeys(missing, False))
    words = shlex.split(advice.partition("splat-esd ")[2])
    settings = [word for word in words if "=" in word]
    assert "corgi" in load_config(["prior=zoo", *settings]).prompt


def test_gsplat_needs_its_kernels_or_a_compiler(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert doctor._gsplat() == (False, f"{doctor.version('gsplat')}, but it needs a CUDA GPU")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", None)
    monkeypatch.setattr("pathlib.Path.glob", lambda folder, pattern: iter(()))
    for compiler, usable in ("/usr/bin/nvcc", True), (None, False):
        monkeypatch.setattr("shutil.which", lambda name, found=compiler: found)
        assert doctor._gsplat()[0] is usable


@pytest.mark.parametrize(("value", "fine"), [(0.9, True), (0.0, False)])
def test_the_kernels_are_fine_when_they_draw(
    value: float, fine: bool, monkeypatch: pytest.MonkeyPatch
):
    drawn = SimpleNamespace(alpha=torch.full((1, 16, 16, 1), value))
    monkeypatch.setattr("splat_esd.rasterize.rasterize", lambda *args, **options: drawn)
    assert doctor._kernels()[0] is fine


def test_the_zoo_is_looked_for_where_assets_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(doctor, "ASSETS", tmp_path)
    assert not doctor._zoo()[0]
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "model_index.json").touch()
    assert doctor._zoo()[0]
