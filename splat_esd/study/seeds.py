"""Several seeds of one prompt, ranked by the Janus metrics."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

from splat_esd import console
from splat_esd.config.load import Config
from splat_esd.errors import UsageError
from splat_esd.formats.atomic import write_text
from splat_esd.metrics.evaluate import evaluate_run
from splat_esd.runs.folder import finished_run
from splat_esd.runs.generate import generate

RULES = {
    "zoo": "free of Janus and not mirrored first, then most that is right, then IV - IQ, all by "
    "the zoo's judge",
    "other": "IV - IQ of the classifier + mean SSIM of neighbouring views",
}


def generate_seeds(config: Config) -> Path:
    """Makes `config.seeds` runs with the seeds from `config.seed` on and returns the folder of the
    best, or of the last if all are kept alike.

    Runs that are finished already are not made again. With `keep=best` the ranking, its rule and
    each run's scores are printed and written to ranking.json beside the runs; every run stays.

    Raises:
        UsageError: If a prior that is not the zoo's is to be ranked without a classifier.
    """
    ranked = config.keep == "best"
    if ranked and config.prior.name != "zoo" and config.classifier is None:
        raise UsageError(
            "keep=best ranks runs of this prior by an image classifier; name one in transformers' "
            "layout by classifier=FOLDER, or use prior=zoo."
        )
    first = random.SystemRandom().randrange(2**31) if config.seed is None else config.seed
    folders = [_made(config, first + k) for k in range(config.seeds)]
    return _rank(folders, config) if ranked else folders[-1]


def _made(config: Config, seed: int) -> Path:
    """Returns the folder of one run, generated unless it exists."""
    one = {"seed": seed, "seeds": 1, "keep": "all", "classifier": None}
    config = config.model_copy(update=one)
    folder = finished_run(config)
    if folder is None:
        return generate(config)
    console.note(f"seed {seed} is made already: {folder}")
    return folder


def _rank(folders: list[Path], config: Config) -> Path:
    rule = "zoo" if config.prior.name == "zoo" else "other"
    reports = {f: evaluate_run(f, classifier=config.classifier) for f in folders}
    order = sorted(folders, key=lambda folder: score(reports[folder]), reverse=True)
    ranking = {
        "rule": RULES[rule],
        "best": order[0].name,
        "runs": [_told(folder, reports[folder]) for folder in order],
    }
    write_text(folders[0].parent / "ranking.json", json.dumps(ranking, indent=2) + "\n")
    rows = [[f.name, *(f"{value:.3g}" for value in score(reports[f]))] for f in order]
    columns = ["one face in order", "right", "IV-IQ"] if rule == "zoo" else ["IV-IQ + SSIM"]
    console.table(f"Best first: {RULES[rule]}", ["run", *columns], rows)
    console.note(_praise(order[0], reports[order[0]], len(order)))
    return order[0]


def _praise(folder: Path, report: Mapping, of: int) -> str:
    """Names the best; where even that has not one face in order, says that none has."""
    janus = report["janus"]
    if janus is None or (janus["free"] and not janus["mirrored"]):
        return f"the best: {folder}"
    return (
        f"none of {of} has one face in order; the least wrong: {folder}. More seeds: seeds={2 * of}"
    )


def score(report: Mapping) -> list[float]:
    """Returns the ranking key of a run, most important first, higher is better: see RULES."""
    information = report["inception"]["information"]
    if report["janus"] is None:
        return [information + report["consistency"]]
    right = sum(report["right"].values()) / len(report["right"])
    janus = report["janus"]
    return [float(janus["free"] and not janus["mirrored"]), right, information]


def _told(folder: Path, report: Mapping) -> dict:
    names = ("seed", "janus", "right", "inception", "consistency")
    return {"run": folder.name, "score": score(report)} | {name: report[name] for name in names}
