import json
import math

import pytest
import torch
from PIL import Image

from splat_esd.config.commands import ZooExamArguments, ZooTrainArguments, read_arguments
from splat_esd.paths import ASSETS
from splat_esd.zoo.judge import evaluate_prior
from splat_esd.zoo.judge.evaluate_prior import (
    FROM_THE_FRONT,
    SECTORS,
    STRENGTHS,
    choose,
    grade,
    main,
    obeyed,
    photograph,
    sectors,
)
from splat_esd.zoo.judge.network import BINS, CLASSES, Judge, Verdict
from splat_esd.zoo.prior import train
from splat_esd.zoo.world.captions import Composition, is_held_out

RED_CORGI = Composition("corgi", "red", "scarf", "blue")


def verdict(*compositions: Composition, azimuth: float = 0.0) -> Verdict:
    """What a judge says who sees exactly these."""
    heads = {
        head: torch.stack(
            [torch.eye(len(names))[names.index(getattr(c, head))] for c in compositions]
        )
        for head, names in CLASSES.items()
    }
    count = len(compositions)
    heads["turn"] = torch.full((count, BINS), 1 / BINS)
    return Verdict(**heads, azimuth=torch.full((count,), azimuth), sharpness=torch.ones(count))


def test_a_sample_is_right_when_object_color_and_accessory_are():
    seen = verdict(RED_CORGI, Composition("corgi", "red"), Composition("cat", "red", "scarf"))
    marks = grade([RED_CORGI], [seen])
    assert marks["object"] == marks["accessory"] == 0.6667
    assert marks["color"] == 1.0 and marks["accessory_color"] == marks["all"] == 0.3333
    assert marks["failed"] == [RED_CORGI.caption()]


def test_the_color_of_what_is_worn_counts_only_where_it_has_a_name():
    plain = Composition("corgi", None, "scarf")
    marks = grade([plain, RED_CORGI], [verdict(RED_CORGI), verdict(RED_CORGI)])
    assert marks["accessory_color"] == 1.0 and marks["color"] == 0.5


def test_captions_of_the_exam_differ_and_are_of_their_kind():
    for held_out in (True, False):
        chosen = choose(40, held_out=held_out, seed=3)
        assert len(set(chosen)) == 40
        assert all(is_held_out(c) == held_out for c in chosen)


def test_the_first_sector_is_centred_on_the_front():
    degrees = torch.tensor([-14.0, 0.0, 14.0, 16.0, 180.0, -179.0, -91.0, 90.0])
    shares = sectors(torch.deg2rad(degrees))
    assert len(shares) == SECTORS and math.isclose(sum(shares), 1.0, abs_tol=1e-3)
    assert shares[0] == 0.375 and shares[1] == 0.125
    assert shares[6] == 0.25 and shares[9] == shares[3] == 0.125


def test_a_view_is_obeyed_where_the_judge_sees_it():
    asked = []

    def draw(caption):
        asked.append(caption)
        return torch.zeros(1, 8, 8, 3)

    def judge(_images):
        return verdict(RED_CORGI, azimuth=math.pi)

    views = ["front", "side", "back", "left side", "right side"]
    assert obeyed(draw, judge, 2) == {view: float(view == "back") for view in views}
    assert [a.split(", ")[-1] for a in asked[::2]] == [f"{view} view" for view in views]


@pytest.mark.parametrize(("degrees", "side"), [(90, "left side"), (-90, "right side")])
def test_a_side_is_obeyed_on_its_own_hand_only(degrees, side):
    seen = lambda _images: verdict(RED_CORGI, azimuth=math.radians(degrees))  # noqa: E731
    shares = obeyed(lambda caption: torch.zeros(1, 8, 8, 3), seen, 1)
    assert {view for view, share in shares.items() if share == 1.0} == {"side", side}


def test_true_photos_are_of_what_was_asked_and_tell_the_most_that_can_be_reached():
    asked = [Composition("corgi", "red", "top hat", "blue"), Composition("duck")]
    pictures, judge = photograph(asked, 8, FROM_THE_FRONT), Judge.load()
    assert [p.shape for p in pictures] == [(8, 128, 128, 3)] * 2
    assert all(0.0 <= p.min() and p.max() <= 1.0 for p in pictures)
    verdicts = [judge(p) for p in pictures]
    assert grade(asked, verdicts)["all"] > 0.8
    assert all(v.azimuth.abs().max() < math.radians(60) for v in verdicts)


def test_the_shipped_prior_can_be_examined_with_a_bias_beside_it(tmp_path, capsys, monkeypatch):
    lora = tmp_path / "bias.safetensors"
    given = [f"out={tmp_path}", f"start={ASSETS / 'zoo'}", "photos=4", "batch=2", "threads=1"]
    given += [f"lora={lora}", "rank=4", "front=1", "unet_minutes=0.02"]
    train.main(read_arguments(ZooTrainArguments, given, command="zoo train"))
    monkeypatch.setattr(evaluate_prior, "DIAL", str(lora.with_suffix("")))
    main(ZooExamArguments(out=tmp_path, captions=2, samples=2, steps=2, threads=1))
    report = json.loads((tmp_path / "exam.json").read_text())
    bias = report.pop(evaluate_prior.DIAL)
    assert set(report) == {"settings", "seen", "held_out", "azimuth", "views"}
    assert list(bias) == [str(strength) for strength in STRENGTHS]
    assert all(len(found["azimuth"]) == SECTORS for found in bias.values())
    assert all(set(found["views"]) == set(report["views"]) for found in bias.values())
    assert all(0.0 <= found["all"] <= 1.0 for found in bias.values())
    assert 0.0 <= report["seen"]["all"] <= min(report["seen"][k] for k in ("object", "color"))
    for kind in ("seen", "held_out"):
        shares = [report[kind]["all_from_the_front"], *report[kind]["all_in_true_photos"].values()]
        assert len(shares) == 3 and all(0.0 <= share <= 1.0 for share in shares)
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.width > sheet.height > 0
