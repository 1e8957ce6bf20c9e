"""Reads the splats of a training checkpoint (.pt, .ckpt): gsplat's, Nerfstudio's and their kin.

Only tensors and plain containers are unpickled: a checkpoint cannot run code.
"""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from splat_esd.errors import UsageError
from splat_esd.formats.raw import RawSplats, cut

_NAMES = {
    "means": ("means", "xyz", "_xyz", "means3d"),
    "quats": ("quats", "_rotation", "rotations", "rotation"),
    "scales": ("scales", "_scaling", "scaling", "log_scales"),
    "opacities": ("opacities", "_opacity", "opacity", "logit_opacities"),
    "sh0": ("sh0", "features_dc", "_features_dc", "sh_dc"),
    "shN": ("shn", "features_rest", "_features_rest", "sh_rest"),
}
_PLAIN = {alias: name for name, aliases in _NAMES.items() for alias in aliases}


def read_checkpoint(path: Path) -> RawSplats:
    """Reads means, quats, scales, opacities, sh0 and shN from wherever in the file they are.

    Raises:
        UsageError: If the file is damaged, wants to run code, or holds no splats.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=None)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds more than tensors and is not opened, because it could run code; "
            "export its splats as .ply in the program that wrote it."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is cut short or damaged: {reason}.") from error
    found: dict[str, torch.Tensor] = {}
    for key, value in _tensors(state):
        name = _PLAIN.get(key.rsplit(".", 1)[-1].lower())
        if name is not None and name not in found:
            found[name] = value.detach()
    missing = [n for n in ("means", "quats", "scales", "opacities", "sh0") if n not in found]
    if missing:
        raise UsageError(f"{path} is a checkpoint without splats: it lacks {', '.join(missing)}.")
    return _raw(found, path)


def _raw(found: dict[str, torch.Tensor], path: Path) -> RawSplats:
    count = len(found["means"])
    notes: list[str] = []
    arrays = {name: value.float().numpy() for name, value in found.items()}
    try:
        sh = arrays["sh0"].reshape(count, 1, 3)
        if "shN" in arrays and arrays["shN"].size:
            sh = np.concatenate([sh, arrays["shN"].reshape(count, -1, 3)], axis=1)
        return RawSplats(
            means=arrays["means"].reshape(count, 3),
            quats=arrays["quats"].reshape(count, 4),
            log_scales=arrays["scales"].reshape(count, 3),
            logit_opacities=arrays["opacities"].reshape(count),
            sh=cut(sh, notes),
            notes=notes,
        )
    except ValueError as error:
        raise UsageError(f"{path}: its tensors do not fit together: {error}.") from error


def _tensors(state: object, depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(state, Mapping) and depth < 6:
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                yield str(key), value
            else:
                yield from _tensors(value, depth + 1)
