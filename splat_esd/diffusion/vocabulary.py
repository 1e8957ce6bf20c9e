"""Checks a prompt against a prior's vocabulary, without loading torch."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from splat_esd.config.load import Config
from splat_esd.errors import UsageError, nearest
from splat_esd.paths import ASSETS

FILE = "vocabulary.txt"
WAY_OUT = "For any other word use prior=sd21 (on a GPU)."


@dataclass(frozen=True)
class Vocabulary:
    """The only words a prior knows.

    Arguments:
        words: All of them.
        groups: Those worth naming, by what they are: {"toys": ("corgi", ...), ...}.
    """

    words: frozenset[str]
    groups: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        if not self.groups:
            return ", ".join(sorted(word for word in self.words if word.isalnum()))
        return "; ".join(
            f"{len(names)} {group}: {', '.join(names)}" for group, names in self.groups.items()
        )


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """Reads vocabulary.txt in a prior's folder: a name a line, groups under `# group`.

    Returns:
        None if there is none: the prior takes any word.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    first: list[str] = []
    names, groups = first, {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("# "):
            names = groups.setdefault(line.removeprefix("# "), [])
        else:
            names.append(line)
    words = " ".join([*first, *(name for inner in groups.values() for name in inner)]).split()
    return Vocabulary(frozenset(words), {name: tuple(inner) for name, inner in groups.items()})


def write_vocabulary(
    folder: Path, words: Collection[str], groups: Mapping[str, Collection[str]]
) -> Path:
    """Writes vocabulary.txt: first the words that no group has, then each group."""
    grouped = {word for names in groups.values() for name in names for word in name.split()}
    lines = [word for word in words if word not in grouped]
    for group, names in groups.items():
        lines += [f"# {group}", *names]
    path = folder / FILE
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def words_of(prompt: str) -> list[str]:
    """Splits a prompt into words in lower case, without punctuation."""
    return re.findall(r"[^\s,.;:!?\"'()]+", prompt.lower())


def unknown_words(prompt: str, known: Collection[str]) -> list[str]:
    """Returns each word of a prompt that is not among the known ones, once."""
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in known]


def check_words(prompt: str, vocabulary: Vocabulary) -> None:
    """Refuses a prompt with a word that is not in the vocabulary.

    Raises:
        UsageError: Naming each unknown word, the known one most like it, and what is known.
    """
    unknown = unknown_words(prompt, vocabulary.words)
    if unknown:
        named = {word for names in vocabulary.groups.values() for word in " ".join(names).split()}
        # Not "in" for "pink": who mistypes means what can be seen.
        names = sorted(named or (word for word in vocabulary.words if word.isalnum()))
        said = ", ".join(_with_nearest(word, names) for word in unknown)
        raise UsageError(
            f"prompt: this prior does not know {said}. It knows {vocabulary}. {WAY_OUT}"
        )


def check_prompt(config: Config) -> None:
    """Refuses a run whose prompt has a word that its prior, if it is on disk, does not know.

    Raises:
        UsageError: As `check_words`.
    """
    settings = config.prior
    embedded = ASSETS / "zoo" if settings.name == "zoo" else None
    folder = embedded if settings.path is None else Path(settings.path)
    vocabulary = None if folder is None else read_vocabulary(folder)
    if vocabulary is not None:
        check_words(config.prompt, vocabulary)


def _with_nearest(word: str, names: list[str]) -> str:
    near = nearest(word, names)
    return f"{word!r} (did you mean {near}?)" if near else repr(word)
