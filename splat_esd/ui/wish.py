"""What the page's form may ask for, and how it becomes the settings of a run."""

import random
import threading
from pathlib import Path
from typing import Any, get_args

from splat_esd.config.commands import Seed
from splat_esd.config.load import Config, choose_prior, load_config
from splat_esd.config.reference import written
from splat_esd.config.schema import (
    FrozenSection,
    PriorConfig,
    QualityConfig,
    Unit,
    Weight,
    key,
)
from splat_esd.config.validation import validate
from splat_esd.diffusion.vocabulary import check_prompt, read_vocabulary
from splat_esd.paths import ASSETS

_ONE_AT_A_TIME = threading.Lock()  # hydra keeps its state in globals


class Wish(FrozenSection):
    """The fields of the form; one that is not sent is left to its default."""

    prompt: str = key("", "What to make.")
    quality: str = key("normal", "How long it is worked on.")
    seed: Seed | None = key(0, "Start of all randomness; null: pick one.")
    prior: str = key("auto", "Which prior.")
    lam: Unit = key(0.5, "0 is VSD, more keeps views apart.", alias="guidance.lambda")
    cfg_scale: Weight = key(
        1.5, "Classifier-free guidance; not sent: the prior's.", alias="guidance.cfg_scale"
    )


def read_wish(data: dict[str, Any], out: Path) -> Config:
    """Returns the settings of the run that the form asks for, as the command line would read them.

    Raises:
        UsageError: If a field is wrong, or the prior does not know a word of the prompt.
    """
    wish = validate(Wish, data, command="ui")
    given = wish.model_dump(by_alias=True, exclude_unset=True)
    with _ONE_AT_A_TIME:
        config = load_config([f"out={out}", *(f"{k}={written(v)}" for k, v in given.items())])
    check_prompt(config)
    return config


def with_seed(config: Config) -> Config:
    """Returns the settings with a seed picked, where none was asked for."""
    if config.seed is not None:
        return config
    return config.model_copy(update={"seed": random.SystemRandom().randrange(2**32)})


def choices() -> dict[str, Any]:
    """Returns what the form offers: known words by group, priors with their CFG, qualities."""
    known = read_vocabulary(ASSETS / "zoo")
    made = {
        name: load_config(["prompt=a corgi", f"prior={name}"])
        for name in get_args(PriorConfig.model_fields["name"].annotation)
        if name != "auto"
    }
    return {
        "words": {} if known is None else dict(known.groups),
        "prior": choose_prior(),
        "priors": {name: config.guidance.cfg_scale for name, config in made.items()},
        "qualities": list(get_args(QualityConfig.model_fields["name"].annotation)),
        "lambda": made["zoo"].guidance.lam,
    }
