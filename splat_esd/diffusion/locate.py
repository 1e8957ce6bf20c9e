"""Where a prior's files are: a folder, the hub's local cache, or the hub; and which are whole."""

import json
import re
from pathlib import Path
from typing import Any

from splat_esd.diffusion.single_file import unpack
from splat_esd.errors import EnvironmentProblem, UsageError

FP16 = "fp16"  # the variant that some repositories hold instead of the plain weights
_FILES = ["model_index.json", "*/config.json", "*/scheduler_config.json", "tokenizer*/*"]
_STEMS = ("model", "diffusion_pytorch_model", "pytorch_model")
_ENDINGS = ("safetensors", "safetensors.index.json", "bin", "bin.index.json")
_PARTS_WITH_WEIGHTS = ("unet", "transformer", "vae", "text_encoder")


def locate(source: str, mirrors: tuple[str, ...], revision: str | None) -> tuple[Path, str, str]:
    """Finds the folder of a prior: a local folder, the hub's cache, then the hub itself; a copy
    that lacks a part does not count. A checkpoint in one file is made a folder of first.

    Arguments:
        mirrors: Hub ids to look for after `source`; if that is a file, those of the model whose
            configuration it needs.
    Returns:
        The folder, the name under which it was found, and the hub's commit ("" for a folder).
    Raises:
        UsageError: If what is named is no prior.
        EnvironmentProblem: If no copy is whole, and none can be fetched.
    """
    path = Path(source)
    lone = path if path.is_file() else _lone_file(path)
    if lone is not None:
        _check_file(lone)
        return unpack(lone, mirrors, _configuration), source, ""
    if path.is_dir():
        _check_folder(path)
        return path, source, ""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise UsageError(f"prior.path: {source} is neither a folder nor a hub id like owner/name.")
    names = [source, *mirrors]
    for online in (False, True):
        for name in names if not online or _hub_answers() else []:
            folder = _snapshot(name, revision, online)
            if folder is not None:
                return folder, name, folder.name
    raise EnvironmentProblem(
        f"prior {source!r} is not on this machine, or not whole, and the hub cannot be reached or "
        f"no longer has it (tried {', '.join(names)}); run `hf download {source}` where there is "
        "a network, set prior.path=<folder>, or use prior=zoo."
    )


def _snapshot(name: str, revision: str | None, online: bool) -> Path | None:
    """Returns a whole copy of a repository, the plain weights or else those in half precision."""
    from huggingface_hub import snapshot_download

    for variant in (None, FP16):
        endings = [f"*/{stem}{_dotted(variant)}*" for stem in _STEMS]
        weights = [f"{pattern}.{ending}" for pattern in endings for ending in _ENDINGS[:2]]
        try:
            folder = Path(
                snapshot_download(
                    name,
                    revision=revision,
                    local_files_only=not online,
                    allow_patterns=_FILES + weights,
                    ignore_patterns=[] if variant else [f"*.{FP16}*", "*.non_ema*"],
                )
            )
        except (OSError, ValueError):
            return None  # this copy is not there; the next may be
        if not missing_parts(folder):
            return folder
    return None


def missing_parts(folder: Path) -> list[str]:
    """Names the parts of model_index.json whose configuration or weights are not in the folder."""
    try:
        index: Any = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ["model_index.json"]
    named = [name for name, value in index.items() if isinstance(value, list) and value[0]]
    missing = []
    for name in named:
        if name.startswith(_PARTS_WITH_WEIGHTS) and not _has_weights(folder / name):
            missing.append(name)
        elif name.startswith(("tokenizer", "scheduler")) and not (folder / name).is_dir():
            missing.append(name)
    return missing


def _has_weights(part: Path) -> bool:
    return (part / "config.json").is_file() and variant_of(part) is not False


def variant_of(part: Path) -> str | bool | None:
    """Returns which weights a part's folder holds: None for the plain ones, else "fp16"; False if
    neither, or if a file that the index of a sharded one names is not there.
    """
    for variant in (None, FP16):
        for stem in _STEMS:
            for ending in _ENDINGS:
                file = part / f"{stem}{_dotted(variant)}.{ending}"
                if ending.endswith("index.json") and variant:
                    file = part / f"{stem}.{ending.replace('.index', f'.index.{variant}')}"
                if file.is_file() and _whole(file):
                    return variant
    return False


def _whole(file: Path) -> bool:
    if not file.name.endswith(".json"):
        return True
    shards: Any = json.loads(file.read_text(encoding="utf-8")).get("weight_map", {})
    return all((file.parent / shard).is_file() for shard in set(shards.values()))


def _dotted(variant: str | None) -> str:
    return "" if variant is None else f".{variant}"


def _check_folder(folder: Path) -> None:
    if (folder / "model_index.json").is_file():
        if missing := missing_parts(folder):
            raise UsageError(
                f"prior.path: {folder} lacks {', '.join(missing)}, which its model_index.json "
                "names; copy or download these too."
            )
        return
    raise UsageError(
        f"prior.path: {folder} has no model_index.json; expected a folder in diffusers' layout "
        "(unet, text_encoder, tokenizer, scheduler and, for latent priors, vae)."
    )


def _lone_file(folder: Path) -> Path | None:
    """Returns the only .safetensors of a folder that is no pipeline."""
    files = sorted(folder.glob("*.safetensors"))
    there = (folder / "model_index.json").is_file()
    return files[0] if len(files) == 1 and not there else None


def _check_file(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    if path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        raise UsageError(
            f"prior.path: {path} is a checkpoint that can run code when it is read; take its "
            ".safetensors."
        )
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError):
        raise UsageError(
            f"prior.path: {path} is no model; expected a folder in diffusers' layout, or a "
            "checkpoint in one .safetensors."
        ) from None
    if any("lora" in name for name in names):
        raise UsageError(
            f"prior.path: {path} is a LoRA and no model; prior.lora={path} beside the prior that "
            "it was made for."
        )


def _configuration(name: str) -> Path | None:
    """Returns a folder with a repository's configuration and tokenizer, without its weights."""
    from huggingface_hub import snapshot_download

    for online in (False, True):
        if online and not _hub_answers():
            continue
        try:
            local = {"local_files_only": not online, "allow_patterns": _FILES}
            folder = Path(snapshot_download(name, **local))
        except (OSError, ValueError):
            continue
        if (folder / "model_index.json").is_file():
            return folder
    return None


def _hub_answers() -> bool:
    """Tells within five seconds whether the hub can be reached, instead of a minute of retries."""
    import socket
    from urllib.parse import urlparse

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    url = urlparse(constants.ENDPOINT)
    try:
        socket.create_connection((url.hostname, url.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
