"""What a user is told when something is wrong: one message, one exit code."""

from collections.abc import Iterable
from difflib import get_close_matches


class SplatError(Exception):
    """A problem with a message meant for the user; `exit_code` is what the program returns."""

    exit_code = 1


class UsageError(SplatError):
    """What was asked for is wrong or impossible: a bad key, value, prompt or file."""

    exit_code = 2


class EnvironmentProblem(SplatError):
    """What was asked for is right, but this machine cannot do it now: disk, network, GPU, build."""

    exit_code = 3


class ConfigError(UsageError):
    """A key, a value or a prompt is wrong."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Returns the known word most like this one, if one is alike."""
    return next(iter(get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Returns `; did you mean X?` for the nearest known word, or nothing."""
    near = nearest(word, known)
    return f"; did you mean {prefix}{near}?" if near else ""
