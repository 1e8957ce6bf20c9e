"""What `splat-esd refine` was asked for: a run that starts at somebody's splat, and its front."""

from collections.abc import Sequence
from dataclasses import dataclass

from splat_esd.config.load import Config, load_config
from splat_esd.config.schema import at_home
from splat_esd.errors import ConfigError

STRENGTH = "0.5"
SHARE = 0.3  # of a run's steps: the shape is there
# Short names, and the keys they stand for.
SHORT = {"strength": "guidance.t_max", "keep": "init.keep", "region": "init.region"}
_EXAMPLE = 'splat-esd refine corgi.ply prompt="a blue corgi"'


@dataclass(frozen=True)
class RefineJob:
    """A run, and whether its start's front is still to be found."""

    config: Config
    find_front: bool


def load_refine(arguments: Sequence[str]) -> RefineJob:
    """Returns the run that the command line asks for: one word, the splat to start from; strength,
    keep, region and front; and any setting of `splat-esd generate`.

    Raises:
        ConfigError: If there is no splat, or more than one, or a key or a value is wrong.
    """
    words = [a for a in arguments if "=" not in a and not a.startswith("-")]
    if len(words) != 1:
        raise ConfigError(f"refine takes one splat to start from, got {len(words)}: {_EXAMPLE}")
    pairs = [a.partition("=") for a in arguments if a not in words]
    given = {name: value for name, _, value in pairs}
    front = given.pop("front", "auto")
    asked = {"strength": STRENGTH, "keep": "shape", **given}
    strength = asked["strength"]
    settings = {SHORT.get(name, name): value for name, value in asked.items()}
    settings = {"guidance.t_max_end": strength, **settings}
    if front != "auto":
        settings["init.front"] = front
    path = str(at_home(words[0]).absolute())
    fixed = ["init=refine", f"init.path={path}", "density=none"]
    config = load_config(fixed + [f"{name}={value}" for name, value in settings.items()])
    if "steps" not in given:
        settings["steps"] = str(max(1, round(SHARE * config.steps)))
        config = load_config(fixed + [f"{name}={value}" for name, value in settings.items()])
    return RefineJob(config, find_front=front == "auto")
