"""`splat-esd doctor`: what this machine can run, and for the rest, what is missing. No network."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from splat_esd import console
from splat_esd.config.load import Config, cached_mirror
from splat_esd.paths import ASSETS


@dataclass(frozen=True)
class Finding:
    """One thing looked at: fine or not, and what to say about it."""

    name: str
    fine: bool
    says: str


def examine() -> int:
    """Prints what was found and the command to start with.

    Returns:
        0 if at least one kind of run is possible, else 3.
    """
    found = {finding.name: finding for finding in _findings()}
    width = max(map(len, found))
    for finding in found.values():
        mark = "ok" if finding.fine else "--"
        console.result(f"{mark}  {finding.name:<{width}}  {finding.says}")
    runnable, advice = recommend({name: finding.fine for name, finding in found.items()})
    console.result(f"\n{advice}")
    return 0 if runnable else 3


def recommend(fine: dict[str, bool]) -> tuple[bool, str]:
    """Returns whether anything can run, and the first command, by what is fine."""
    if not fine["output folder"]:
        return False, "Nothing can be written here: go to another folder, or set out=FOLDER."
    on_gpu = fine["CUDA GPU"] and fine["gsplat"]
    if on_gpu and fine["prior sd21"]:
        return True, 'Start with:  splat-esd prompt="a corgi wearing a hat" prior=sd21'
    if on_gpu and fine["prior sd15"]:
        return True, 'Start with:  splat-esd prompt="a corgi wearing a hat" prior=sd15'
    if not fine["prior zoo"]:
        return False, "No prior is here: install the package again, or set prior.path=FOLDER."
    if on_gpu:
        more = "any other words: prior=sd21, which fetches 5 GB once"
        return True, f'Start with:  splat-esd prompt="a corgi" prior=zoo    ({more})'
    if fine["C++ kernels"]:
        return True, 'Start with:  splat-esd prompt="a corgi"'
    slow = 'splat-esd prompt="a corgi" rasterizer=reference export.formats=[ply,viewer]'
    return True, f"The C++ kernels are missing: install the package again. Slow, but works:  {slow}"


def _findings() -> Iterator[Finding]:
    for name, look in _CHECKS.items():
        try:
            fine, says = look()
        except Exception as error:  # a broken install is exactly what is looked for here
            fine, says = False, f"{type(error).__name__}: {_first_line(error)}"
        yield Finding(name, fine, says)


def _python() -> tuple[bool, str]:
    return sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.platform()}"


def _package() -> tuple[bool, str]:
    try:
        return True, version("splat-esd")
    except PackageNotFoundError:
        return False, "not installed; run `pip install -e .` in its folder"


def _torch() -> tuple[bool, str]:
    import torch

    return True, f"{torch.__version__}, {torch.get_num_threads()} of {os.cpu_count()} CPU threads"


def _memory() -> tuple[bool, str]:
    from splat_esd.distributed import memory

    try:
        size = memory()
    except (AttributeError, ValueError, OSError):
        return True, "size unknown on this system"
    return True, f"{size / 1e9:.0f} GB"


def _kernels() -> tuple[bool, str]:
    import torch

    from splat_esd.cameras import turntable
    from splat_esd.initialize import ball
    from splat_esd.rasterize import rasterize

    one = ball(4, radius=0.5, opacity=0.9, color=1.0, generator=torch.Generator().manual_seed(0))
    camera = turntable(1, elevation=0.0, distance=3.0, fovy=0.8, width=16, height=16)
    drawn = rasterize(one, camera, backend="cpu").alpha.max().item()
    return drawn > 0.1, "draw" if drawn > 0.1 else "run, but draw nothing"


def _cuda() -> tuple[bool, str]:
    import torch

    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        return True, f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    if torch.version.cuda is None:
        return False, "none; this torch is built for the CPU only"
    return False, "none that torch can use; see nvidia-smi for the driver"


def _gsplat() -> tuple[bool, str]:
    import torch

    installed, spec = version("gsplat"), find_spec("gsplat")
    if not torch.cuda.is_available():
        return False, f"{installed}, but it needs a CUDA GPU"
    if spec and spec.origin and list(Path(spec.origin).parent.glob("csrc*.so")):
        return True, f"{installed}, its CUDA kernels ready"
    from torch.utils.cpp_extension import CUDA_HOME

    if shutil.which("nvcc") or (CUDA_HOME and (Path(CUDA_HOME) / "bin" / "nvcc").is_file()):
        return True, f"{installed}; its CUDA kernels are built once, in minutes, at first use"
    return False, f"{installed}, without CUDA kernels and without nvcc to build them"


def _zoo() -> tuple[bool, str]:
    folder = ASSETS / "zoo"
    if (folder / "model_index.json").is_file():
        return True, f"in {folder}"
    return False, f"not in {folder}; install the package again, or run splat-esd zoo train"


def _hub(choice: str) -> Callable[[], tuple[bool, str]]:
    def look() -> tuple[bool, str]:
        mirror = cached_mirror(choice)
        if mirror is not None:
            return True, f"{mirror}, in the hub's cache"
        return (
            False,
            f"not on this machine; fetched the first time prior={choice} is asked for",
        )

    return look


def _ffmpeg() -> tuple[bool, str]:
    import imageio_ffmpeg

    return True, imageio_ffmpeg.get_ffmpeg_exe()


def _outputs() -> tuple[bool, str]:
    folder = Path(Config.model_fields["out"].default).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    with tempfile.TemporaryFile(dir=existing):
        pass
    free = shutil.disk_usage(existing).free
    return free > 1e9, f"{folder}, {free / 1e9:.0f} GB free"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


_CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "python": _python,
    "splat-esd": _package,
    "torch": _torch,
    "memory": _memory,
    "C++ kernels": _kernels,
    "CUDA GPU": _cuda,
    "gsplat": _gsplat,
    "prior zoo": _zoo,
    "prior sd21": _hub("sd21"),
    "prior sd15": _hub("sd15"),
    "ffmpeg": _ffmpeg,
    "output folder": _outputs,
}
