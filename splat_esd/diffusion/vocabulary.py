"""Checks a prompt against a prior's vocabulary."""

import re
from collections.abc import Collection

from splat_esd.errors import UsageError, nearest


def words_of(prompt: str) -> list[str]:
    """Splits a prompt into words in lower case, without punctuation."""
    return re.findall(r"[^\s,.;:!?\"'()]+", prompt.lower())


def check_words(prompt: str, known: Collection[str], *, who: str, way_out: str = "") -> None:
    """Refuses a prompt with a word that is not among the known ones.

    Arguments:
        who: Who does not know it, as in "the prior zoo".
        way_out: A sentence that ends the message.
    Raises:
        UsageError: Naming each unknown word, the known one most like it, and all known ones.
    """
    unknown = [word for word in dict.fromkeys(words_of(prompt)) if word not in known]
    if not unknown:
        return
    names = sorted(word for word in known if word.isalnum())
    said = ", ".join(_with_nearest(word, names) for word in unknown)
    message = f"prompt: {who} does not know {said}. It knows: {', '.join(names)}. {way_out}"
    raise UsageError(message.rstrip())


def _with_nearest(word: str, names: list[str]) -> str:
    near = nearest(word, names)
    return f"{word!r} (did you mean {near}?)" if near else repr(word)
