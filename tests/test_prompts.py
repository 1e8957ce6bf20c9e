import dataclasses
import math

import pytest
import torch

from splat_esd.cameras import orbit_cameras
from splat_esd.diffusion.loading import load_prior
from splat_esd.diffusion.prompts import VIEWS, PromptBook, named_views, view_index, view_weights
from splat_esd.diffusion.vocabulary import Vocabulary


def at(degrees, elevation=10.0):
    azimuth = torch.tensor(degrees, dtype=torch.float32).deg2rad()
    one = torch.ones_like(azimuth)
    return orbit_cameras(
        azimuth, math.radians(elevation) * one, 2.4 * one, 0.75 * one, width=16, height=16
    )


@pytest.mark.parametrize(
    ("degrees", "view"),
    [(0, "front"), (44, "front"), (-44, "front"), (316, "front"), (46, "left side"),
     (134, "left side"), (-90, "right side"), (-46, "right side"), (226, "right side"),
     (136, "back"), (180, "back"), (-136, "back"), (224, "back"), (404, "front")],
)  # fmt: skip
def test_the_view_is_named_by_its_azimuth_whatever_the_turns(degrees, view):
    assert VIEWS[view_index(at([float(degrees)])).item()] == view


def test_a_view_from_high_above_is_overhead_from_every_side():
    assert {VIEWS[i] for i in view_index(at([0.0, 90.0, 180.0], elevation=70.0))} == {"overhead"}


@pytest.mark.parametrize(
    ("degrees", "front", "left", "back", "right"),
    [(0, 1, 0, 0, 0), (45, 0.5, 0.5, 0, 0), (-30, 2 / 3, 0, 0, 1 / 3), (90, 0, 1, 0, 0),
     (-135, 0, 0, 0.5, 0.5), (200, 0, 0, 7 / 9, 2 / 9), (180, 0, 0, 1, 0), (360, 1, 0, 0, 0)],
)  # fmt: skip
def test_a_camera_is_shared_out_between_the_two_views_beside_it(degrees, front, left, back, right):
    expected = torch.tensor([[front, left, back, right, 0.0]])
    torch.testing.assert_close(view_weights(at([float(degrees)])), expected, atol=1e-6, rtol=0)


def test_from_high_above_nothing_but_overhead_is_heard():
    weights = view_weights(at([0.0, 70.0, 180.0], elevation=70.0))
    torch.testing.assert_close(weights, torch.tensor([0.0, 0, 0, 0, 1]).expand(3, -1))


def test_halfway_to_the_side_the_prior_hears_both_views(tiny_sd):
    prior = load_prior(str(tiny_sd), device="cpu", dtype="fp32")
    book = PromptBook(prior, "a corgi", "", by_view=True)
    both = prior.encode_text(["a corgi, front view", "a corgi, side view"]).embeds.mean(0)[None]
    torch.testing.assert_close(book.embed(at([45.0])).embeds, both)


def test_the_prior_hears_the_view_and_phi_the_plain_prompt(tiny_sd):
    prior = load_prior(str(tiny_sd), device="cpu", dtype="fp32")
    book = PromptBook(prior, "a corgi", "fog", by_view=True)
    expected = prior.encode_text(["a corgi, front view", "a corgi, back view"])
    torch.testing.assert_close(book.embed(at([0.0, 180.0])).embeds, expected.embeds)
    torch.testing.assert_close(book.plain.embeds, prior.encode_text(["a corgi"]).embeds)
    torch.testing.assert_close(book.negative.embeds, prior.encode_text(["fog"]).embeds)


def test_without_view_prompts_every_camera_hears_the_same(tiny_sd):
    prior = load_prior(str(tiny_sd), device="cpu", dtype="fp32")
    book = PromptBook(prior, "a corgi", "", by_view=False)
    embedded = book.embed(at([0.0, 90.0, 180.0])).embeds
    torch.testing.assert_close(embedded, book.plain.expand(3).embeds)


def test_perp_neg_opposes_each_view_to_two_others(tiny_sd):
    prior = load_prior(str(tiny_sd), device="cpu", dtype="fp32")
    book = PromptBook(prior, "a corgi", "", by_view=True)
    opposed = book.opposed(at([0.0, 90.0, 180.0]))
    views, heard = named_views(prior), book.views.embeds
    names = [
        [
            next(name for name, view in zip(views, heard, strict=True) if view.equal(row))
            for row in text.embeds
        ]
        for text in opposed
    ]
    assert names == [["side", "front", "side"], ["back", "back", "front"]]


def test_a_prompt_too_long_for_the_tokenizer_keeps_the_words_of_the_view(tiny_sd, capsys):
    prior = load_prior(str(tiny_sd), device="cpu", dtype="fp32")
    # The tiny tokenizer spells: 32 tokens, of which two are marks and 13 ", overhead view".
    book = PromptBook(prior, "a corgi that wears a red hat", "", by_view=True)
    views = named_views(prior)
    expected = prior.encode_text([f"a corgi that wears a, {view} view" for view in views])
    torch.testing.assert_close(book.views.embeds, expected.embeds)
    assert "left out: 'red hat'" in "".join(capsys.readouterr())


def test_a_pooled_embedding_is_blended_as_the_tokens_are(tiny_sdxl):
    prior = load_prior(str(tiny_sdxl), device="cpu", dtype="fp32")
    book = PromptBook(prior, "a", "b", by_view=True)
    front, side = book.views.pooled[0], book.views.pooled[1]
    torch.testing.assert_close(book.embed(at([45.0])).pooled[0], (front + side) / 2)


def test_left_and_right_are_told_apart_where_the_prior_has_the_words(tiny_sd):
    prior = load_prior(str(tiny_sd), device="cpu", dtype="fp32")
    assert named_views(prior) == ["front", "side", "back", "side", "overhead"]
    words = frozenset("a corgi front left right side back overhead view ,".split())
    prior = dataclasses.replace(prior, vocabulary=Vocabulary(words, {}))
    assert named_views(prior) == list(VIEWS)
    book = PromptBook(prior, "a corgi", "", by_view=True)
    expected = prior.encode_text(["a corgi, left side view", "a corgi, right side view"])
    torch.testing.assert_close(book.embed(at([90.0, -90.0])).embeds, expected.embeds)
