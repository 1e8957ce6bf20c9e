import subprocess
import sys
import time

import pytest

from splat_esd.cli import main as cli
from splat_esd.config.load import Config
from splat_esd.config.schema import PriorConfig
from splat_esd.diffusion.vocabulary import (
    Vocabulary,
    check_prompt,
    check_words,
    read_vocabulary,
    words_of,
    write_vocabulary,
)
from splat_esd.errors import UsageError
from splat_esd.paths import ASSETS
from splat_esd.zoo.world.captions import GROUPS, WORDS

FEW = Vocabulary(frozenset({"a", "corgi", "red", ","}), {})


def test_a_prompt_is_split_into_words_without_case_or_punctuation():
    assert words_of('A "Red" corgi, (small); back view!') == [
        "a",
        "red",
        "corgi",
        "small",
        "back",
        "view",
    ]


def test_known_words_pass_and_an_empty_prompt_too():
    check_words("A corgi, red.", FEW)
    check_words("", FEW)


def test_each_unknown_word_is_named_once_with_the_nearest_and_all_known_ones():
    with pytest.raises(UsageError) as caught:
        check_words("korgi xyz korgi", FEW)
    assert str(caught.value) == (
        "prompt: this prior does not know 'korgi' (did you mean corgi?), 'xyz'. "
        "It knows a, corgi, red. For any other word use prior=sd21 (on a GPU)."
    )


def test_words_in_groups_are_named_group_by_group_in_their_order(tmp_path):
    write_vocabulary(tmp_path, ["a", "top", "hat", "cat"], {"toys": ["cat"], "worn": ["top hat"]})
    known = read_vocabulary(tmp_path)
    assert known.words == {"a", "top", "hat", "cat"}
    assert str(known) == "1 toys: cat; 1 worn: top hat"
    with pytest.raises(UsageError, match=r"'catt' \(did you mean cat\?\), 'ax'\."):
        check_words("catt ax", known)


def test_a_folder_without_a_vocabulary_knows_every_word(tmp_path):
    assert read_vocabulary(tmp_path) is None
    check_prompt(
        Config(prompt="ein Zebra", prior=PriorConfig(name="sd15", path=str(tmp_path)), seed=0)
    )


def test_the_embedded_prior_says_the_words_it_was_trained_on():
    known = read_vocabulary(ASSETS / "zoo")
    # The shipped weights are from before captions told left from right.
    assert known.words == set(WORDS) - {"left", "right"}
    assert known.groups == GROUPS
    assert [len(names) for names in known.groups.values()] == [26, 8, 6]


def test_an_unknown_word_is_answered_at_once_without_torch_or_a_path():
    script = (
        "import sys; from splat_esd.cli.main import main; code = main(['prompt=a dragon']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    begun = time.process_time()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert time.process_time() - begun < 1.5
    assert done.returncode == 2, done.stderr
    toys, colors, worn = (done.stderr.index(f"{group}:") for group in GROUPS)
    assert toys < colors < worn
    assert "/" not in done.stderr


def test_toys_lists_every_word_worth_saying(capsys):
    assert cli.main(["toys"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for names in GROUPS.values() for name in names)
