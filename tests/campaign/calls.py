"""Malformed calls of every native binding and of gsplat's interface, each in a process of its own.

A call starts from one that is right; one or two of its arguments are then made wrong. It may
return, the same bits twice, or raise a ValueError that names what is wrong; anything else is a
failure: a crash, a hang, another exception, bits that differ.
"""

import os
import random
import resource
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splat_esd.gsplat_cpu import install, rasterization
from splat_esd.rasterize.autograd import kernels

SECONDS = 10
MEMORY = 8 << 30  # bytes of address space
ALLOWED = (ValueError, NotImplementedError, MemoryError)
N, C, W, H, D = 20, 2, 40, 30, 3


@dataclass(frozen=True)
class Outcome:
    """How one call ended; `failure` is None if it was survived."""

    name: str
    seed: int
    failure: str | None


def run_calls(count: int, seed: int, names: list[str] | None = None) -> list[Outcome]:
    """Tries `count` malformed calls, the i-th with seed + i."""
    torch.set_num_threads(1)
    names = names or sorted(CALLS)
    found = []
    for i in range(count):
        name = names[i % len(names)]
        found.append(Outcome(name, seed + i, in_child(lambda n=name, s=seed + i: try_call(n, s))))
    return found


def in_child(action: Callable[[], str | None]) -> str | None:
    """Returns what the action returned in a forked process, or how that process ended."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            if "ASAN_OPTIONS" not in os.environ:  # its shadow alone takes 16 TB of addresses
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            said = action() or ""
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"[:300]
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    said, status = _await(read, pid)
    if status is None:
        return f"hung for {SECONDS} s"
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    if os.WEXITSTATUS(status):
        return f"exit {os.WEXITSTATUS(status)}"
    return said or None


def _await(read: int, pid: int) -> tuple[str, int | None]:
    end, said = time.monotonic() + SECONDS, b""
    while time.monotonic() < end:
        if select.select([read], [], [], end - time.monotonic())[0]:
            chunk = os.read(read, 4096)
            said += chunk
            if not chunk:
                os.close(read)
                return said.decode(errors="replace"), os.waitpid(pid, 0)[1]
    os.close(read)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "", None


def try_call(name: str, seed: int) -> str | None:
    """Makes one malformed call twice; returns what is wrong with how it ended."""
    call, make = CALLS[name]
    results = []
    for _ in range(2):
        torch.manual_seed(seed)
        arguments = spoil(make(), random.Random(seed))
        try:
            results.append(_tensors(call(**arguments)))
        except ALLOWED as error:
            return None if str(error) and "bad_alloc" not in str(error) else "says nothing"
        except TypeError as error:
            # nanobind's own refusal of what is no array or no number at all
            return None if "incompatible" in str(error) else f"TypeError: {error}"
    if any(not _same(a, b) for a, b in zip(*results, strict=True)):
        return "two calls, two results"
    return None


def spoil(arguments: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Makes one or two of the arguments wrong."""
    count = min(len(arguments), draw.choice([1, 1, 1, 2]))
    for name in draw.sample(sorted(arguments), count):
        arguments[name] = _spoiled(arguments[name], draw)
    return arguments


def _spoiled(value: Any, draw: random.Random) -> Any:
    if isinstance(value, Tensor):
        return draw.choice(TENSOR_SPOILS)(value, draw)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return draw.choice([None, 0, "x", [], torch.zeros(2), -1])
    return draw.choice(
        [0, -1, -(2**31), 2**31 - 1, 2**31, 2**63, 70000, 1 << 20, None, "x", 0.5, float("nan"),
         float("inf"), [], torch.zeros(3)]
    )  # fmt: skip


def _cut(x: Tensor, draw: random.Random) -> Tensor:
    axis = draw.randrange(x.ndim) if x.ndim else None
    return x if axis is None else x.narrow(axis, 0, draw.randrange(x.shape[axis] + 1)).contiguous()


def _grown(x: Tensor, draw: random.Random) -> Tensor:
    axis = draw.randrange(x.ndim) if x.ndim else 0
    return torch.cat([x, x], axis) if x.ndim else x.expand(7)


def _numbers(x: Tensor, draw: random.Random) -> Tensor:
    wrong = [0, -1, -(2**31), 2**31 - 1, 999]
    x = x.clone()
    if x.numel() and x.dtype != torch.bool:
        if x.is_floating_point():
            wrong = [float("nan"), float("inf"), -1e38, 1e38, 0.0, -1.0]
        x.view(-1)[draw.randrange(x.numel())] = draw.choice(wrong)
    return x


TENSOR_SPOILS: list[Callable[[Tensor, random.Random], Any]] = [
    _cut,
    _cut,
    _grown,
    _numbers,
    _numbers,
    _numbers,
    lambda x, draw: x.flatten(),
    lambda x, draw: x[None],
    lambda x, draw: x.new_zeros(0),
    lambda x, draw: x.new_zeros(()),
    lambda x, draw: x.mT if x.ndim > 1 else x[::2],
    lambda x, draw: x.new_zeros(1).expand(x.shape),
    lambda x, draw: x.double(),
    lambda x, draw: x.to(torch.int64),
    lambda x, draw: x.to(torch.complex64),
    lambda x, draw: x.to("meta"),
    lambda x, draw: None,
    lambda x, draw: "x",
    lambda x, draw: x.tolist(),
    lambda x, draw: x.to_sparse() if x.ndim else x,
]


def _scene() -> dict[str, Tensor]:
    viewmats = torch.eye(4).repeat(C, 1, 1)
    viewmats[:, 2, 3] = 3
    focal = torch.tensor([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]])
    return {
        "means": torch.randn(N, 3),
        "quats": torch.randn(N, 4),
        "scales": torch.rand(N, 3) / 4,
        "opacities": torch.rand(N),
        "viewmats": viewmats,
        "Ks": focal.repeat(C, 1, 1),
    }


def _rasterization() -> dict[str, Any]:
    size = {"width": W, "height": H, "near_plane": 0.01, "far_plane": 1e10, "radius_clip": 0.0}
    more = {"eps2d": 0.3, "sh_degree": None, "packed": False, "tile_size": 16}
    colors = {"colors": torch.rand(N, D), "backgrounds": torch.rand(C, D)}
    return _scene() | colors | size | more | {"render_mode": "RGB", "absgrad": False}


def _rasterization_call(**arguments: Any) -> Any:
    leaves = [x for x in arguments.values() if isinstance(x, Tensor) and x.is_floating_point()]
    for leaf in leaves:
        if leaf.is_leaf:
            leaf.requires_grad_()
    images, alphas, meta = rasterization.rasterization(**arguments)
    if images.requires_grad:
        (images.sum() + alphas.sum()).backward()
    return images, alphas, meta["isect_offsets"], [x.grad for x in leaves]


def _flat() -> dict[str, Tensor]:
    return {
        "means2d": torch.rand(C, N, 2) * 40,
        "conics": torch.tensor([0.1, 0.0, 0.1]).repeat(C, N, 1),
        "colors": torch.rand(C, N, D),
        "opacities": torch.rand(C, N),
    }


def _pixels() -> dict[str, Any]:
    rows, columns = -(-H // 16), -(-W // 16)
    ids = torch.randint(C * N, (30,), dtype=torch.int32)
    offsets = torch.linspace(0, 30, C * rows * columns).int().view(C, rows, columns)
    more = {"backgrounds": torch.rand(C, D), "masks": torch.ones(C, rows, columns).bool()}
    size = {"width": W, "height": H, "tile_size": 16}
    return _flat() | more | size | {"offsets": offsets, "flatten_ids": ids}


def _pixels_back() -> dict[str, Any]:
    arguments = _pixels()
    image, alpha, last = install.rasterize_to_pixels_3dgs_fwd(**arguments)
    return arguments | {
        "render_alphas": alpha, "last_ids": last, "v_colors": torch.ones_like(image),
        "v_alphas": torch.ones_like(alpha), "absgrad": True,
    }  # fmt: skip


def _tiles() -> dict[str, Any]:
    flat = {"means2d": torch.rand(C, N, 2) * 40, "radii": torch.full((C, N, 2), 5).int()}
    size = {"n_images": C, "tile_size": 16, "tile_width": 3, "tile_height": 2}
    ids = {"depths": torch.rand(C, N), "image_ids": None, "gaussian_ids": None}
    return flat | size | ids | {"sort": True, "segmented": False}


def _offsets() -> dict[str, Any]:
    isect_ids = install.intersect_tile(**_tiles())[1]
    return {"isect_ids": isect_ids, "n_images": C, "tile_width": 3, "tile_height": 2}


def _projection() -> dict[str, Any]:
    planes = {"near_plane": 0.01, "far_plane": 1e10, "radius_clip": 0.0, "eps2d": 0.3}
    kind = {"covars": None, "calc_compensations": True, "camera_model": "pinhole"}
    return _scene() | {"width": W, "height": H} | planes | kind


def _projection_back() -> dict[str, Any]:
    arguments = {k: v for k, v in _projection().items() if k not in _ONLY_FORWARD}
    incoming = {"v_means2d": (2,), "v_depths": (), "v_conics": (3,), "v_compensations": ()}
    arguments |= {name: torch.rand(C, N, *shape) for name, shape in incoming.items()}
    more = {"radii": torch.ones(C, N, 2).int(), "conics": None, "compensations": None}
    return arguments | more | {"viewmats_requires_grad": True}


_ONLY_FORWARD = (
    "opacities", "near_plane", "far_plane", "radius_clip", "calc_compensations",
)  # fmt: skip


def _harmonics() -> dict[str, Any]:
    masks = torch.ones(N).bool()
    return {
        "degree": 2, "dirs": torch.randn(N, 3), "coeffs": torch.randn(N, 9, 3), "masks": masks
    }  # fmt: skip


def _harmonics_back() -> dict[str, Any]:
    more = {"num_bases": 9, "v_colors": torch.rand(N, 3), "compute_v_dirs": True}
    return _harmonics() | more


def _kernel_blend() -> dict[str, Any]:
    m = C * N
    return {
        "means2d": torch.rand(m, 2) * 40, "depths": torch.rand(m), "colors": torch.rand(m, D),
        "factors": torch.rand(m, 4), "radii": torch.full((m, 2), 5).int(),
        "first": torch.arange(C + 1) * N, "background": torch.rand(C, D),
        "picture": torch.zeros(C, H, W, D), "alpha": torch.zeros(C, H, W, 1),
        "depth": torch.zeros(C, H, W, 1), "threads": 1,
    }  # fmt: skip


def _blend_and_back(**given: Any) -> Any:
    plan = kernels.blend(*given.values())
    m = given["depths"].numel()
    shapes = [(m, 2), (m, 3), (m, given["colors"].shape[-1]), (m,)]
    v = [torch.zeros(*shape) for shape in shapes]
    images = given["picture"], given["alpha"], given["depth"]
    flat = torch.ones(m, 3), given["colors"], torch.ones(m)
    back = None if given["depth"] is None else torch.zeros(m)
    kernels.blend_backward(plan, *flat, *images, *images, *v, back, None, None, 1)
    return images, v


def _kernel_back() -> dict[str, Any]:
    given = _kernel_blend()
    plan, m = kernels.blend(*given.values()), C * N
    images = {name: given[name] for name in ("picture", "alpha", "depth")}
    flat = {"conics": torch.ones(m, 3), "colors": given["colors"], "opacities": torch.ones(m)}
    v = {f"v_{name}": image.clone() for name, image in images.items()}
    shapes = {"v_means2d": (m, 2), "v_conics": (m, 3), "v_colors": (m, D), "v_opacities": (m,)}
    shapes |= {"v_depths": (m,), "v_background": (C, D), "absolute": (m, 2)}
    rooms = {name: torch.zeros(*shape) for name, shape in shapes.items()}
    return {"plan": plan} | flat | images | v | rooms | {"threads": 1}


def _by_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """Calls a binding whose arguments have places only; what it wrote is its result."""

    def call(**given: Any) -> Any:
        returned = function(*given.values())
        return returned, [v for v in given.values() if isinstance(v, Tensor)]

    return call


def _kernel_harmonics() -> dict[str, Any]:
    given = _harmonics()
    return given | {"colors": torch.zeros(N, 3), "threads": 1}


def _kernel_view() -> dict[str, Any]:
    return {
        "width": W, "height": H, "near": 0.01, "far": 1e10, "eps": 0.3, "anti": False, "clip": 0.0
    }  # fmt: skip


def _kernel_empty(rows: Any, columns: Any) -> None:
    kernels.empty((rows, columns))


CALLS: dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    "rasterization": (_rasterization_call, _rasterization),
    "rasterize_to_pixels": (install.rasterize_to_pixels_3dgs_fwd, _pixels),
    "rasterize_to_pixels_bwd": (install.rasterize_to_pixels_3dgs_bwd, _pixels_back),
    "intersect_tile": (install.intersect_tile, _tiles),
    "intersect_offset": (install.intersect_offset, _offsets),
    "projection": (install.projection_ewa_3dgs_fused_fwd, _projection),
    "projection_packed": (
        lambda **given: install.projection_ewa_3dgs_packed_fwd(*given.values()),
        lambda: {name: _projection()[name] for name in _PROJECTION_ORDER},
    ),
    "projection_bwd": (install.projection_ewa_3dgs_fused_bwd, _projection_back),
    "spherical_harmonics": (install.spherical_harmonics_fwd, _harmonics),
    "spherical_harmonics_bwd": (install.spherical_harmonics_bwd, _harmonics_back),
    "kernels.blend": (_by_place(kernels.blend), _kernel_blend),
    "kernels.blend_backward": (_by_place(kernels.blend_backward), _kernel_back),
    "kernels.spherical_harmonics": (_by_place(kernels.spherical_harmonics), _kernel_harmonics),
    "kernels.View": (lambda **given: kernels.View(*given.values()) and None, _kernel_view),
    "kernels.empty": (_kernel_empty, lambda: {"rows": 2, "columns": 3}),
}
_PROJECTION_ORDER = (
    "means", "covars", "quats", "scales", "opacities", "viewmats", "Ks", "width", "height", "eps2d",
    "near_plane", "far_plane", "radius_clip", "calc_compensations", "camera_model",
)  # fmt: skip


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.detach().clone()]
    if isinstance(value, list | tuple):
        return [x for item in value for x in _tensors(item)]
    return []


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and (a.is_meta or torch.equal(*(_bits(x) for x in (a, b))))


def _bits(x: Tensor) -> Tensor:
    x = x.to_dense() if x.is_sparse else x
    return x.nan_to_num() if x.is_floating_point() or x.is_complex() else x
