"""What is said of the toys: compositions, their captions, and the ones kept out of training."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from splat_esd.diffusion.prompts import SIDE
from splat_esd.diffusion.vocabulary import Vocabulary, check_words
from splat_esd.errors import UsageError
from splat_esd.paths import ASSETS
from splat_esd.zoo.world.accessories import ACCESSORIES
from splat_esd.zoo.world.objects import OBJECTS
from splat_esd.zoo.world.palette import COLORS

LENGTH = 20  # tokens in a caption, with the two that begin and end it
HELD_OUT = ASSETS / "zoo" / "held_out.txt"

# How often each is said, relative to its neighbours.
_ARTICLES = {"a": 6, "the": 2, "": 2}
_ADJECTIVES = {"": 14, "small": 2, "little": 2, "cute": 1, "toy": 3}
_DYED_TOY = {"{color} {noun}": 16, "{noun}, {color}": 1, "{noun} that is {color}": 1}
_DYED_WORN = {"{color} {noun}": 16, "{noun} in {color}": 1}
_WORN = {"{toy} wearing {worn}": 5, "{toy} with {worn}": 4, "{worn} on {toy}": 1}
_FRAMES = {"{}": 6, "a photo of {}": 2, "a picture of {}": 1, "an image of {}": 1}
_FRAMES |= {"a render of {}": 1}
_SEEN = {"{toy}, {view} view": 5, "{view} view of {toy}": 2, "{toy}, {view}": 1, "{toy} {place}": 3}
_PLACES = {"front": {"from the front": 1}, SIDE: {"from the side": 3, "seen from the side": 1}}
_PLACES |= {"left side": {"from the left": 3, "seen from the left": 1}}
_PLACES |= {"right side": {"from the right": 3, "seen from the right": 1}}
_PLACES |= {"back": {"from the back": 2, "from behind": 1, "seen from behind": 1}}
_PLACES |= {"overhead": {"from above": 2, "seen from above": 1}}

_PLURAL = "glasses"


@dataclass(frozen=True)
class Composition:
    """What stands in a photo: an object, its colour, what it wears, and the colour of that.

    A colour or accessory of None was not asked for: natural colours, nothing worn.

    Raises:
        ValueError: If a name is not the zoo's, or nothing is worn that could have a colour.
    """

    object: str
    color: str | None = None
    accessory: str | None = None
    accessory_color: str | None = None

    def __post_init__(self):
        _check("object", self.object, OBJECTS)
        for name, known in (
            ("color", COLORS),
            ("accessory", ACCESSORIES),
            ("accessory_color", COLORS),
        ):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), known)
        if self.accessory_color is not None and self.accessory is None:
            color = self.accessory_color
            raise ValueError(f"accessory_color must be None where nothing is worn, got {color!r}.")

    def __lt__(self, other: "Composition") -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[str, ...]:
        values = (self.object, self.color, self.accessory, self.accessory_color)
        return tuple(value or "" for value in values)

    def caption(self) -> str:
        """Says it in the plainest way: a red corgi wearing a blue top hat."""
        toy = _with_article("a", f"{self.color or ''} {self.object}")
        if self.accessory is None:
            return toy
        worn = _with_article("a", f"{self.accessory_color or ''} {self.accessory}")
        return f"{toy} wearing {worn}"


def _check(name: str, value: str, known: Mapping) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")


def _with_article(article: str, words: str) -> str:
    """Puts an article before words, if they take it: an owl, the owl, glasses."""
    words = " ".join(words.split())
    if article == "a" and _PLURAL in words:
        return words
    if article == "a" and words[0] in "aeiou":
        article = "an"
    return f"{article} {words}".strip()


def write(rng: np.random.Generator, composition: Composition, view: str | None = None) -> str:
    """Says what a photo shows, and from where if a view is given, in one of many ways.

    The plainest ways are the most frequent; `LENGTH` tokens are never passed.
    """
    while True:
        text = _sentence(rng, composition, view)
        if len(re.findall(r"[^\s,]+|,", text)) + 2 <= LENGTH:
            return text


def _sentence(rng: np.random.Generator, composition: Composition, view: str | None) -> str:
    c = composition
    toy = _dyed(rng, _DYED_TOY, c.color, f"{_pick(rng, _ADJECTIVES)} {c.object}")
    toy = _with_article(_pick(rng, _ARTICLES), toy)
    if c.accessory is not None:
        name = c.accessory if rng.random() < 0.8 else c.accessory.split()[-1]
        worn = _dyed(rng, _DYED_WORN, c.accessory_color, name)
        worn = _with_article(_pick(rng, {"a": 8, "the": 1, "": 1}), worn)
        toy = _pick(rng, _WORN).format(toy=toy, worn=worn)
    if view is None:
        return _pick(rng, _FRAMES).format(toy)
    seen, place = _pick(rng, _SEEN), _pick(rng, _PLACES[view])
    if not seen.startswith("{view}"):
        toy = _pick(rng, _FRAMES).format(toy)
    return seen.format(toy=toy, view=view, place=place)


def _dyed(rng: np.random.Generator, ways: Mapping[str, int], color: str | None, noun: str) -> str:
    return noun if color is None else _pick(rng, ways).format(color=color, noun=noun)


def _pick(rng: np.random.Generator, weights: Mapping[str, int]) -> str:
    """Draws a key with the probability of its weight."""
    mark = rng.random() * sum(weights.values())
    for key, weight in weights.items():
        mark -= weight
        if mark < 0:
            return key
    return key


def _meanings() -> dict[str, tuple[str, str]]:
    """Tells of each word or pair of words what it says: (kind, name)."""
    meanings = {word: ("adjective", word) for word in _ADJECTIVES if word}
    meanings |= {"behind": ("view", "back"), "above": ("view", "overhead")}
    for kind, names in (
        ("view", ("front", SIDE, "back", "overhead")),
        ("color", COLORS),
        ("accessory", ACCESSORIES),
        ("object", OBJECTS),
    ):
        for name in names:
            meanings |= {word: (kind, name) for word in (*name.split(), name)}
    # Last, since the order is that of the tokens: priors of before have not these two.
    for side in ("left", "right"):
        meanings |= {word: ("view", f"{side} {SIDE}") for word in (side, f"{side} {SIDE}")}
    return meanings


_MEANINGS = _meanings()
# All that can be said, each word one token of the prior: what its vocabulary file is written from.
WORDS = tuple(
    dict.fromkeys(
        "a an the of on in with wearing that is from seen view photo picture image render ,".split()
        + [word for phrase in _MEANINGS for word in phrase.split()]
    )
)
# What of it is worth naming to somebody who looks for words.
GROUPS = {"toys": tuple(OBJECTS), "colours": tuple(COLORS), "things to wear": tuple(ACCESSORIES)}


def parse(prompt: str) -> tuple[Composition, str | None]:
    """Reads a prompt: what it asks for, and the view it names or None.

    Words may stand in any order; a colour belongs to the noun right after it, else to the last one
    before it. "hat" alone is the top hat.

    Raises:
        UsageError: If a word is unknown, no object is named, or two of a kind are.
    """
    check_words(prompt, Vocabulary(frozenset(WORDS), GROUPS))
    items = _items(re.findall(r"[^\s,.;:!?\"'()]+|,", prompt.lower()))
    found, worn, view = (_only(items, kind) for kind in ("object", "accessory", "view"))
    if found is None:
        raise UsageError(f"prompt: {prompt!r} names no object; the zoo has {', '.join(OBJECTS)}.")
    colors: dict[str, str] = {}
    for i, (kind, color) in enumerate(items):
        if kind == "color":
            noun = _colored(items, i)
            if colors.setdefault(noun, color) != color:
                raise UsageError(f"prompt: the {noun} cannot be both {colors[noun]} and {color}.")
    return Composition(found, colors.get("object"), worn, colors.get("accessory")), view


def _items(tokens: list[str]) -> list[tuple[str, str]]:
    """Merges tokens into (kind, name); what says nothing keeps its place as (word, word)."""
    items, i = [], 0
    while i < len(tokens):
        width = 2 if " ".join(tokens[i : i + 2]) in _MEANINGS and i + 1 < len(tokens) else 1
        phrase = " ".join(tokens[i : i + width])
        items.append(_MEANINGS.get(phrase, ("word", phrase)))
        i += width
    return items


def _only(items: list[tuple[str, str]], kind: str) -> str | None:
    names = list(dict.fromkeys(name for k, name in items if k == kind))
    if len(names) > 1:
        raise UsageError(f"prompt: expected one {kind} at most, got {' and '.join(names)}.")
    return names[0] if names else None


def _colored(items: list[tuple[str, str]], i: int) -> str:
    """Tells whose colour item i is: "object" or "accessory"."""
    after = [kind for kind, _ in items[i + 1 :] if kind != "adjective"]
    if after and after[0] in ("object", "accessory"):
        return after[0]
    before = [kind for kind, _ in items[:i] if kind in ("object", "accessory")]
    return before[-1] if before else next(k for k in after if k in ("object", "accessory"))


def is_held_out(composition: Composition) -> bool:
    """Tells whether a composition is kept out of training, whatever the accessory's colour.

    Of each object one colour is held out, and of each object with each accessory two of the
    colours, natural ones counted: those whose SHA-256 with the names comes first. So 28 % of
    all compositions are never seen, and every pair of object and accessory in most colours.
    """
    c = composition
    return c.color in _unseen(c.object, None) or c.color in _unseen(c.object, c.accessory)


@cache
def _unseen(object: str, accessory: str | None) -> frozenset[str | None]:
    def order(color: str | None) -> str:
        return hashlib.sha256(f"{object}, {accessory}, {color}".encode()).hexdigest()

    if accessory is None:
        return frozenset([min(COLORS, key=order)])
    return frozenset(sorted([None, *COLORS], key=order)[:2])


def held_out() -> list[Composition]:
    """Lists what is kept out of training; each stands for itself and all colours of what is worn,
    and a coloured object without accessory for itself and everything it could wear.
    """
    return sorted(
        Composition(object, color, accessory)
        for object in OBJECTS
        for accessory in (None, *ACCESSORIES)
        for color in _unseen(object, accessory)
    )


def write_held_out(path: Path = HELD_OUT) -> None:
    """Writes the captions of `held_out`, one a line."""
    lines = [composition.caption() for composition in held_out()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
