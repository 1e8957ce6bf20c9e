import re
from collections import defaultdict
from itertools import product

import numpy as np
import pytest

from splat_esd.diffusion.prompts import VIEWS
from splat_esd.errors import UsageError
from splat_esd.zoo.world.accessories import ACCESSORIES
from splat_esd.zoo.world.captions import (
    HELD_OUT,
    LENGTH,
    WORDS,
    Composition,
    held_out,
    is_held_out,
    parse,
    write,
    write_held_out,
)
from splat_esd.zoo.world.objects import OBJECTS
from splat_esd.zoo.world.palette import COLORS

NATURAL = (None, *COLORS)
ALL = [
    Composition(object, color, accessory, dye)
    for object, color, accessory in product(OBJECTS, NATURAL, (None, *ACCESSORIES))
    for dye in (NATURAL if accessory else [None])
]


def draws(count: int):
    """Returns random compositions, views and what is written of them."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        composition = ALL[rng.integers(len(ALL))]
        view = (None, *VIEWS)[rng.integers(len(VIEWS) + 1)]
        yield composition, view, write(rng, composition, view)


def test_the_plain_caption_is_what_one_would_say():
    assert Composition("corgi").caption() == "a corgi"
    assert Composition("owl", "orange").caption() == "an orange owl"
    assert Composition("corgi", "red", "top hat", "blue").caption() == (
        "a red corgi wearing a blue top hat"
    )
    assert Composition("elephant", None, "glasses").caption() == "an elephant wearing glasses"


def test_everything_written_is_read_back():
    for composition, view, text in draws(5000):
        assert parse(text) == (composition, view), text


def test_every_plain_caption_is_read_back_with_and_without_the_view_a_camera_adds():
    for composition in ALL:
        assert parse(composition.caption()) == (composition, None)
        assert parse(f"{composition.caption()}, back view") == (composition, "back")


def test_all_words_are_written_and_no_others_and_never_too_many():
    texts = [re.findall(r"[^\s,]+|,", text) for _, _, text in draws(20000)]
    assert {word for text in texts for word in text} == set(WORDS)
    assert max(map(len, texts)) == LENGTH - 2


def test_a_view_added_by_a_camera_still_fits():
    longest = max((composition.caption() for composition in ALL), key=lambda c: len(c.split()))
    assert len(f"a photo of {longest}, overhead view".replace(",", " ,").split()) <= LENGTH - 2


def test_captions_vary_and_the_plainest_are_frequent():
    rng = np.random.default_rng(0)
    plain = Composition("corgi", "red", "top hat", "blue")
    texts = [write(rng, plain) for _ in range(2000)]
    assert len(set(texts)) > 400
    assert texts.count("a red corgi wearing a blue top hat") > 60


@pytest.mark.parametrize(
    ("prompt", "expected", "view"),
    [
        ("A CORGI, Red; wearing a BLUE hat!", Composition("corgi", "red", "top hat", "blue"), None),
        ("red, a small corgi", Composition("corgi", "red"), None),
        ("backpack green, corgi", Composition("corgi", None, "backpack", "green"), None),
        ("overhead view of the corgi that is red", Composition("corgi", "red"), "overhead"),
        ("the back view of a corgi seen from behind", Composition("corgi"), "back"),
        ("a bow tie on a corgi", Composition("corgi", None, "bow tie"), None),
        ("a red corgi in a red scarf", Composition("corgi", "red", "scarf", "red"), None),
        ("a corgi, the corgi is red", Composition("corgi", "red"), None),
    ],
)
def test_words_may_stand_in_any_order(prompt: str, expected: Composition, view: str | None):
    assert parse(prompt) == (expected, view)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a korgi", r"does not know 'korgi' \(did you mean corgi\?\)\. It knows 26 toys: corgi"),
        ("a scarf", "'a scarf' names no object; the zoo has .*corgi"),
        ("", "'' names no object"),
        ("a corgi and a corgi with a panda", "does not know 'and'"),
        ("a corgi with a panda", "expected one object at most, got corgi and panda"),
        ("a corgi with a scarf, crown", "expected one accessory at most, got scarf and crown"),
        ("front view of a corgi from behind", "expected one view at most, got front and back"),
        ("a red corgi that is blue", "the object cannot be both red and blue"),
    ],
)
def test_what_cannot_be_meant_is_refused(prompt: str, expected: str):
    with pytest.raises(UsageError, match=expected):
        parse(prompt)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("zebra",), "object must be one of .*corgi.*, got 'zebra'"),
        (("corgi", "pink"), "color must be one of red, .*, got 'pink'"),
        (("corgi", None, "beard"), "accessory must be one of .*, got 'beard'"),
        (("corgi", None, "scarf", "pink"), "accessory_color must be one of .*, got 'pink'"),
        (("corgi", None, None, "red"), "must be None where nothing is worn, got 'red'"),
    ],
)
def test_a_composition_of_unknown_things_is_refused(names: tuple, expected: str):
    with pytest.raises(ValueError, match=expected):
        Composition(*names)


def test_compositions_can_be_sorted_and_counted():
    assert len(set(ALL)) == len(ALL)
    assert sorted([Composition("corgi", "red"), Composition("corgi")])[0] == Composition("corgi")


def test_a_fifth_at_least_of_each_kind_of_dressed_composition_is_held_out():
    share = defaultdict(list)
    for c in ALL:
        share[c.color is not None, c.accessory is not None].append(is_held_out(c))
    means = {kind: np.mean(flags) for kind, flags in share.items()}
    assert means[False, False] == 0
    assert means[True, False] == pytest.approx(1 / len(COLORS))
    assert means[False, True] >= 0.2 and means[True, True] >= 0.2


def test_every_thing_and_almost_every_pair_is_still_seen_often():
    def seen(*names: str) -> dict[tuple, float]:
        shares = defaultdict(list)
        for c in ALL:
            shares[tuple(getattr(c, name) for name in names)].append(not is_held_out(c))
        return {pair: np.mean(flags) for pair, flags in shares.items()}

    assert min(seen("object").values()) > 0.6
    assert min(seen("color").values()) > 0.5
    assert min(seen("object", "accessory").values()) > 0.6
    assert min(seen("accessory", "accessory_color").values()) > 0.6
    assert min(seen("color", "accessory").values()) > 0.3
    dyed = [share for (_, color), share in seen("object", "color").items() if color]
    assert np.mean(np.array(dyed) == 0) == pytest.approx(1 / len(COLORS))


def test_what_is_worn_is_held_out_in_all_its_colors():
    for c in ALL:
        if c.accessory_color is not None:
            assert is_held_out(c) == is_held_out(Composition(c.object, c.color, c.accessory))


def test_the_rule_does_not_change_between_machines():
    """The hash is fixed: with other results the prior would have to be trained again."""
    assert [c.caption() for c in held_out() if c.object == "corgi" and not c.accessory] == [
        "a purple corgi"
    ]


def test_the_file_and_the_rule_agree(tmp_path):
    write_held_out(tmp_path / "held_out.txt")
    lines = (tmp_path / "held_out.txt").read_text("utf-8")
    assert HELD_OUT.read_text("utf-8") == lines
    roots = {parse(line)[0] for line in lines.splitlines()}
    for c in ALL:
        own = {Composition(c.object, c.color), Composition(c.object, c.color, c.accessory)}
        assert is_held_out(c) == bool(own & roots)
