"""What a run's folder tells about its splat: prompt, settings, the way it grew, how good it is."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from splat_esd.config.schema import ImportConfig
from splat_esd.config.yaml_file import read_yaml_file
from splat_esd.export.page import (
    FRAMES_MAX,
    Frame,
    Result,
    thinned,
    with_final,
)
from splat_esd.formats.find import splat_file
from splat_esd.formats.read import open_splats
from splat_esd.runs.folder import RunFolder

_POINTS_MAX = 200  # of a curve
_CURVES = {
    "score_norm": "score norm",
    "phi_loss": "loss of phi",
    "gaussians": "splats",
}


def describe(splat: Path) -> Result:
    """Returns a splat file's metadata: prompt, settings and history if it lies in a run's folder,
    else its name.

    Raises:
        UsageError: If the run's config.yaml cannot be read.
    """
    folder = RunFolder(splat.parent)
    config = _settings(folder.settings) if splat == folder.splat else {}
    if not config:
        return Result(splat.name)
    metrics = folder.read_metrics()
    return Result(
        title=f"{config.get('prompt')} ({_method(config)}, seed {config.get('seed')})",
        facts=_facts(config, folder.run, metrics),
        settings=folder.settings.read_text(encoding="utf-8"),
        frames=_timeline(folder.timeline),
        curves=_curves(metrics),
        scores=_scores(folder.evaluation),
    )


def read_result(path: Path, imported: ImportConfig | None = None) -> Result:
    """Reads a run's folder, or a splat file, with its pictures where there are some.

    Raises:
        UsageError: If there are no splats in it.
    """
    splat = splat_file(path)
    gaussians = open_splats(splat, imported)
    names = {"turntable": "turntable.webp", "sheet": "sheet.png"} if path.is_dir() else {}
    pictures = {name: path / file for name, file in names.items() if (path / file).is_file()}
    return replace(with_final(describe(splat), gaussians), pictures=pictures)


def _settings(path: Path) -> dict:
    # Not the strict loader: a page of an older run must not fail for a key that is new.
    try:
        data = read_yaml_file(path)
    except FileNotFoundError:
        return {}
    return data if isinstance(data, dict) else {}


def _method(config: Mapping) -> str:
    guidance = config.get("guidance") or {}
    lam = guidance.get("lambda")
    return f"{guidance.get('name')}" + ("" if lam is None else f", lambda {lam:g}")


def _facts(config: Mapping, run: Mapping, metrics: list[dict]) -> dict[str, str]:
    prior, versions = run.get("prior") or {}, run.get("versions") or {}
    quality = config.get("quality") or {}
    done = metrics[-1] if metrics else {}
    facts = {
        "prompt": config.get("prompt"),
        "negative prompt": config.get("negative_prompt"),
        "guidance": _method(config),
        "CFG scale": (config.get("guidance") or {}).get("cfg_scale"),
        "seed": config.get("seed"),
        "steps": done.get("step"),
        "quality": quality.get("name"),
        "prior": prior.get("name"),
        "prior's revision": prior.get("revision"),
        "views a step": (config.get("cameras") or {}).get("batch_size"),
        "density": (config.get("density") or {}).get("strategy"),
        "training": f"{done['seconds']:.0f} s on {run.get('device')}"
        if "seconds" in done
        else None,
        "turned live": "; ".join(map(_turn, run.get("turned", []))),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _turn(turned: Mapping) -> str:
    lam = "" if turned["lambda"] is None else f"lambda {turned['lambda']:g}, "
    return f"from step {turned['step']}: {lam}CFG {turned['cfg_scale']:g}"


def _timeline(folder: Path) -> list[Frame]:
    files = sorted(folder.glob("[0-9]*.spz"))
    return [
        Frame(f"step {int(file.stem)}", file.read_bytes(), int(file.stem))
        for file in thinned(files, FRAMES_MAX)
    ]


def _curves(metrics: list[dict]) -> dict[str, list[tuple[int, float]]]:
    curves = {}
    for key, name in _CURVES.items():
        points = [(line["step"], line[key]) for line in metrics if key in line]
        if len(points) > 1:
            curves[name] = thinned(points, _POINTS_MAX)
    return curves


def _scores(path: Path) -> dict[str, str]:
    """Returns the numbers of `splat-esd evaluate`, flat."""
    if not path.is_file():
        return {}
    report = json.loads(path.read_text(encoding="utf-8"))
    flat = {}
    for name, value in report.items():
        inner = value if isinstance(value, dict) else {"": value}
        flat |= {f"{name} {key}".strip(): number for key, number in inner.items()}
    return {
        name: str(value).lower() if isinstance(value, bool) else f"{value:.4g}"
        for name, value in flat.items()
        if isinstance(value, int | float) and name not in ("seed", "janus front")
    }
