"""The command line as data: which file of each group, and which value of each key.

Text and paths are taken letter by letter, so that no prompt needs quoting beyond the shell's:
hydra's grammar, which gives a meaning to `,` `(` `'` `=` `$` and more, never sees them. All other
values are read by it, and it puts the files of `conf/` together.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from splat_esd.config.yaml_file import read_yaml_file
from splat_esd.errors import ConfigError, did_you_mean
from splat_esd.paths import CONF

TEXT_KEYS = ("prompt", "negative_prompt")
EXPERIMENTS = CONF / "experiment"  # what `splat-esd study` runs; no choice of a run
VALUE_MAX, BRACKETS_MAX = 10_000, 100
PATH_KEYS = ("out", "resume", "init.path", "prior.path", "from", "classifier", "clip")
LISTED_KEYS = ("prior.lora",)  # of paths, which their own field takes apart


def split_overrides(
    overrides: Sequence[str],
    *,
    paths: Sequence[str] = PATH_KEYS,
    groups: Sequence[str] | None = None,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Returns the choices of groups and the values of keys, in the order given.

    Text, paths and `@FILE` are the rest of the argument, letter by letter; all else has hydra's
    grammar.

    Arguments:
        paths: Keys that hold a path.
        groups: Keys that choose a file; None: the folders of `conf/`.
    Raises:
        ConfigError: If an argument is no `key=value`, or names a choice that does not exist.
    """
    known = _groups() if groups is None else groups
    choices: dict[str, str] = {}
    values: dict[str, Any] = {}
    for argument in overrides:
        key, equals, text = argument.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+){0,9}", key):
            raise ConfigError(_no_setting(argument))
        if key in TEXT_KEYS:
            values[key] = _text(key, text)
        elif key in paths:
            values[key] = None if text == "null" else _path(key, text)
        elif key in LISTED_KEYS:
            values[key] = None if text == "null" else text
        elif text.startswith("@"):
            values[key] = _path(key, text)
        elif key in known:
            choices[key] = _choice(key, text)
        else:
            values[key] = _value(key, text)
    return choices, values


def compose(groups: dict[str, str]) -> dict[str, Any]:
    """Returns the values of `conf/` under the given choices of groups, unchecked and fresh."""
    from omegaconf import OmegaConf

    tree = _tree(tuple(f"{group}={choice}" for group, choice in groups.items()))
    return cast(dict[str, Any], OmegaConf.to_container(tree, resolve=True))


def compose_file(path: Path) -> dict[str, Any]:
    """Returns the values of a file of its own, put together by hydra: `defaults:` may name files
    beside it to start from.

    Raises:
        ConfigError: If it is not readable as YAML, or names what is not there.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    if not isinstance(read_yaml_file(path), dict):
        raise ConfigError(f"{path} holds no experiment: expected keys and values.")
    try:
        with initialize_config_dir(str(path.parent.absolute()), **_version_base()):
            data = OmegaConf.to_container(compose(path.name), resolve=True)
    except Exception as error:  # hydra's, omegaconf's, yaml's, and what they stumble over
        said = " ".join(str(error).split())[:500] or type(error).__name__
        raise ConfigError(f"{path} cannot be composed: {said}") from None
    return cast(dict[str, Any], data)


def _version_base() -> dict[str, str]:
    """Returns the option that hydra 1.3 warns without, and 1.4 warns with."""
    import hydra

    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


@cache
def _tree(choices: tuple[str, ...]) -> Any:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), **_version_base()):
        return compose("generate", list(choices))


def assign(data: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key in nested sections, in place; a section is merged into.

    Raises:
        ConfigError: If the key leads through something that is no section.
    """
    *sections, name = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f"unknown key {key}: {section} holds one value, no keys.")
    if isinstance(value, dict) and isinstance(data.get(name), dict):
        for inner, item in value.items():
            assign(data[name], str(inner), item)
    else:
        data[name] = value


def _groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path != EXPERIMENTS)


def _choice(group: str, text: str) -> str:
    choices = sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))
    if text in choices:
        return text
    way_out = did_you_mean(text, choices, prefix=f"{group}=")
    if group == "prior" and ("/" in text or Path(text).exists()):
        way_out = f"; for a folder or hub id add prior=sd21 prior.path={text}"
    raise ConfigError(f"{group} has no choice {text!r}, only {', '.join(choices)}{way_out}")


def _text(key: str, text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{key} is not valid UTF-8: {text!r}.") from None
    return text


def _path(key: str, text: str) -> str:
    if not text:
        raise ConfigError(f"{key} must name a path, got nothing.")
    return _text(key, text)


def _value(key: str, text: str) -> Any:
    """Returns what hydra's grammar reads: 0.5, true, null, [1, 2], {a: 1}, word."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    if key.endswith(".name"):
        raise ConfigError(f"{key} cannot be set by itself; write {key[: -len('.name')]}={text}")
    if len(text) > VALUE_MAX or sum(map(text.count, "[{(")) > BRACKETS_MAX:
        raise ConfigError(
            f"{key} is too long to be read from a command line: at most {VALUE_MAX} characters and "
            f"{BRACKETS_MAX} brackets; put it in a file."
        )
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
        is_sweep = override.is_sweep_override()
        holder = None if is_sweep else OmegaConf.create({"value": override.value()})
        holder = OmegaConf.to_container(holder) if holder is not None else {}
    except Exception:  # hydra's, antlr's and omegaconf's
        raise ConfigError(
            f"cannot read {key}={text}; quote text, and close every bracket."
        ) from None
    if is_sweep:
        raise ConfigError(f"{key} takes one value, got {text}; start a run for each.")
    return cast(dict[str, Any], holder)["value"]


def _no_setting(argument: str) -> str:
    if argument.startswith(("+", "~")):
        return f"{argument!r}: keys are neither added nor removed here; write key=value."
    if argument.startswith("-"):
        return f"unknown option {argument}; settings are written key=value, see splat-esd --help."
    if "=" in argument:
        return f"{argument.partition('=')[0]!r} is no key; settings are written key=value."
    return f'{argument!r} is no setting; did you mean prompt="{argument}"?'
