"""Checkpoints in one file: written once as a folder in diffusers' layout, and read as every other.

Such a file holds tensors and no settings; those, and the tokenizer, are the model's that it was
trained from.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from splat_esd import console
from splat_esd.errors import EnvironmentProblem, UsageError

_TRUNK = "model.diffusion_model."
# What diffusers tells from a file's tensors: the prior to name, and its pipeline.
_KINDS = {
    "v1": ("sd15", "StableDiffusionPipeline"),
    "v2": ("sd21", "StableDiffusionPipeline"),
    "xl_base": ("sdxl", "StableDiffusionXLPipeline"),
    "sd3": ("sd35", "StableDiffusion3Pipeline"),
    "sd35_medium": ("sd35", "StableDiffusion3Pipeline"),
    "sd35_large": ("sd35", "StableDiffusion3Pipeline"),
}


def unpack(
    path: Path, mirrors: tuple[str, ...], configuration: Callable[[str], Path | None]
) -> Path:
    """Returns the folder that a checkpoint in one file was, or is now, written as.

    Arguments:
        mirrors: Hub ids of the model that it was trained from.
        configuration: Finds the folder of a hub id's configuration and tokenizer.
    Raises:
        UsageError: If it is of no family that is known here, or does not fit the prior that was
            named.
        EnvironmentProblem: If that model's configuration is not to be had.
    """
    folder = _cache() / f"{path.stem}-{_fingerprint(path)}"
    if (folder / "model_index.json").is_file():
        return folder
    name, pipeline = _kind(path)
    settings = next(filter(None, map(configuration, mirrors)), None)
    if settings is None:
        wanted = mirrors[0] if mirrors else f"that of prior={name}"
        raise EnvironmentProblem(
            f"prior.path: {path.name} is a checkpoint in one file; its configuration and tokenizer "
            f"(2 MB) are those of {wanted}, which is not on this machine, and the hub cannot be "
            f"reached. Say prior={name}, or run `hf download {wanted} --include '*.json' '*.txt'`."
        )
    index = json.loads((settings / "model_index.json").read_text(encoding="utf-8"))
    if index.get("_class_name") != pipeline:
        raise UsageError(f"prior.path: {path.name} is a checkpoint of {name}; say prior={name}.")
    with console.busy(f"writing {path.name} as a folder, once"):
        _write(path, settings, pipeline, folder)
    console.note(f"{path.name} is read from {folder} from now on.")
    return folder


def _kind(path: Path) -> tuple[str, str]:
    from diffusers.loaders.single_file_utils import (
        infer_diffusers_model_type,
        load_single_file_checkpoint,
    )

    tensors = load_single_file_checkpoint(str(path))
    kind = infer_diffusers_model_type(tensors)
    if kind not in _KINDS or not any(key.startswith(_TRUNK) for key in tensors):
        known = ", ".join(sorted({f"prior={name}" for name, _ in _KINDS.values()}))
        raise UsageError(
            f"prior.path: {path.name} is no whole text-to-image model of a family known in one "
            f"file ({known}), but {kind!r}; use a folder in diffusers' layout."
        )
    return _KINDS[kind]


def _write(path: Path, settings: Path, pipeline: str, folder: Path) -> None:
    import diffusers

    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings that this program does not use
            made: Any = getattr(diffusers, pipeline).from_single_file(
                str(path), config=str(settings), local_files_only=True, torch_dtype=_precision(path)
            )
            made.save_pretrained(unfinished)
        unfinished.rename(folder)
    except OSError as error:
        raise EnvironmentProblem(f"{folder} cannot be written: {error}") from error
    except Exception as error:  # whatever a strange file makes of the library
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"prior.path: {path.name} does not fit the configuration of the prior that was named: "
            f"{said}"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _precision(path: Path) -> torch.dtype:
    """Returns that of the denoiser in the file, so that a half one does not double its size."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        name = next(key for key in file.keys() if key.startswith(_TRUNK))
        half = file.get_slice(name).get_dtype() in ("F16", "BF16")
    return torch.float16 if half else torch.float32


def _fingerprint(path: Path) -> str:
    found = path.resolve().stat()
    text = f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    (base / "splat-esd").mkdir(parents=True, exist_ok=True)
    return base / "splat-esd"
