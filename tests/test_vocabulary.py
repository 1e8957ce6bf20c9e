import pytest

from splat_esd.diffusion.vocabulary import check_words, words_of
from splat_esd.errors import UsageError


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
    check_words("A corgi, red.", {"a", "corgi", "red", ","}, who="the zoo")
    check_words("", {"a"}, who="the zoo")


def test_each_unknown_word_is_named_once_with_the_nearest_and_all_known_ones():
    with pytest.raises(UsageError) as caught:
        check_words("korgi xyz korgi", {"corgi", "a", ","}, who="the zoo", way_out="Use sd21.")
    assert str(caught.value) == (
        "prompt: the zoo does not know 'korgi' (did you mean corgi?), 'xyz'. "
        "It knows: a, corgi. Use sd21."
    )
