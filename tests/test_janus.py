import math

import pytest
import torch

from splat_esd.metrics.janus import AROUND, count_faces

TRUE = torch.arange(AROUND) * (2 * math.pi / AROUND)
SHARP = torch.ones(AROUND)


def test_a_true_turntable_has_one_face():
    found = count_faces(TRUE, SHARP)
    assert found.free and found.count == 1
    assert found.arc == 7 * 15.0  # -45 to 45 degrees: 60 is not within 60
    assert found.front == 0 and found.judged[2] == 30.0


@pytest.mark.parametrize("turn", range(0, AROUND, 5))
def test_an_asset_may_face_anywhere(turn):
    found = count_faces(TRUE.roll(turn), SHARP)
    assert found.free and found.arc == 105.0 and found.front == turn


def test_a_second_face_at_the_back_is_janus():
    folded = torch.where(TRUE.cos() < 0, math.pi - TRUE, TRUE)
    found = count_faces(folded, SHARP)
    assert not found.free and found.count == 2


def test_a_face_on_every_side_is_janus():
    found = count_faces(torch.zeros(AROUND), SHARP)
    assert not found.free and found.count == 1 and found.arc == 360.0


def test_a_face_over_more_than_half_the_circle_is_janus():
    wide = torch.where((TRUE < 1.7) | (TRUE > 2 * math.pi - 1.7), 0.0, math.pi)
    assert not count_faces(wide, SHARP).free
    assert count_faces(wide, SHARP).arc == 195.0


def test_no_face_at_all_is_not_free_of_janus():
    found = count_faces(torch.full((AROUND,), math.pi), SHARP)
    assert not found.free and found.count == 0 and found.arc == 0.0


def test_fog_has_no_face():
    found = count_faces(TRUE, 0.4 * SHARP)
    assert not found.free and found.count == 0 and found.judged == [None] * AROUND


def test_what_has_no_front_cannot_be_janus():
    assert count_faces(torch.zeros(AROUND), SHARP, has_front=False).free


@pytest.mark.parametrize("turn", range(0, AROUND, 5))
def test_sides_in_the_wrong_order_are_mirrored_wherever_the_asset_faces(turn):
    assert count_faces(-TRUE.roll(turn), SHARP).mirrored
    assert not count_faces(TRUE.roll(turn), SHARP).mirrored
    assert not count_faces(-TRUE, SHARP, has_front=False).mirrored


def test_views_the_judge_is_unsure_of_do_not_say_which_way_the_body_stands():
    sure = torch.where(torch.arange(AROUND) < 8, 1.0, 0.1)
    assert not count_faces(torch.where(sure > 0.5, TRUE, -TRUE), sure).mirrored


def test_one_doubtful_view_neither_splits_a_face_nor_makes_one():
    doubt, stray = SHARP.clone(), TRUE.clone()
    doubt[1] = 0.1
    assert count_faces(TRUE, doubt).count == 1
    stray[12] = 0.0
    assert count_faces(stray, SHARP).free
