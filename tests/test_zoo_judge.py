import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from splat_esd.config.commands import ZooJudgeArguments
from splat_esd.errors import UsageError
from splat_esd.paths import ASSETS
from splat_esd.zoo.judge import train as judge_train
from splat_esd.zoo.judge.augment import disturb
from splat_esd.zoo.judge.network import BINS, CLASSES, Judge, build_network, circular_mean, labels
from splat_esd.zoo.judge.train import AS_GENERATED, soft_bins
from splat_esd.zoo.prior.dataset import take_photos
from splat_esd.zoo.world.captions import Composition
from splat_esd.zoo.world.objects import OBJECTS


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


@pytest.fixture(scope="module")
def photos():
    return take_photos(200, 128, seed=4321, bias=AS_GENERATED)


def before_grey(rgba: np.ndarray) -> torch.Tensor:
    pixels = torch.from_numpy(rgba).float() / 255
    return pixels[..., :3] + 0.8 * (1 - pixels[..., 3:])


@pytest.fixture(scope="module")
def images(photos):
    return before_grey(photos.rgba)


def test_the_judge_names_fresh_photos(judge, photos, images):
    verdict, known = judge(images), labels(photos.shots.compositions)
    right = {
        head: (getattr(verdict, head).argmax(-1) == known[:, i]).float().mean().item()
        for i, head in enumerate(CLASSES)
    }
    assert right["object"] >= 0.97
    assert right["color"] >= 0.9 and right["accessory"] >= 0.8


def test_the_judge_sees_from_where_a_photo_was_taken(judge, photos, images):
    verdict = judge(images)
    error = verdict.azimuth - torch.tensor(photos.shots.azimuth).float()
    error = (torch.remainder(error + math.pi, 2 * math.pi) - math.pi).abs().rad2deg()
    assert error.median() <= 10
    cakes = replace(photos.shots[:30], compositions=[Composition("cake")] * 30)
    assert judge(before_grey(cakes.render(96))).sharpness.mean() < 0.5
    assert verdict.sharpness.median() > 0.8


def test_small_and_large_pictures_are_judged_alike(judge, images):
    small = torch.nn.functional.interpolate(
        images.permute(0, 3, 1, 2), (64, 64), mode="area"
    ).permute(0, 2, 3, 1)
    large = images.repeat_interleave(2, 1).repeat_interleave(2, 2)
    names = [judge(x).object.argmax(-1) for x in (small, images, large)]
    assert (names[0] == names[1]).float().mean() > 0.95
    assert (names[2] == names[1]).float().mean() > 0.95


def test_probabilities_are_in_the_order_of_the_classes_and_add_up_to_one(judge, images):
    verdict = judge(images[:3])
    for head, names in CLASSES.items():
        assert getattr(verdict, head).shape == (3, len(names))
        torch.testing.assert_close(getattr(verdict, head).sum(-1), torch.ones(3))
    assert (verdict.sharpness <= 1 + 1e-6).all() and (verdict.azimuth.abs() <= math.pi).all()


def test_pictures_that_are_not_square_are_refused(judge):
    with pytest.raises(ValueError, match=r"expected \[B, S, S, 3\], got \[1, 8, 9, 3\]"):
        judge(torch.zeros(1, 8, 9, 3))


def test_the_card_tells_what_the_judge_was_asked_and_it_is_small():
    card = json.loads((ASSETS / "judge" / "judge.json").read_text("utf-8"))
    assert card["exam"]["clean"]["object"] >= 0.97
    assert card["exam"]["clean"]["azimuth_degrees"] <= 10
    assert (ASSETS / "judge" / "judge.safetensors").stat().st_size <= 5e6


def test_a_folder_without_a_judge_or_with_one_of_another_zoo_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no judge in .*; train it: splat-esd zoo judge out="):
        Judge.load(tmp_path)
    (tmp_path / "judge.safetensors").touch()
    (tmp_path / "judge.json").write_text('{"classes": {"object": ["zebra"]}}')
    with pytest.raises(UsageError, match="knows another zoo; train it again"):
        Judge.load(tmp_path)


def test_labels_are_places_in_the_classes():
    plain, dressed = Composition("corgi"), Composition("corgi", "red", "crown", "blue")
    object = list(OBJECTS).index("corgi")
    assert labels([plain]).tolist() == [[object, 0, 0, 0]]
    assert [names[i] for names, i in zip(CLASSES.values(), labels([dressed])[0], strict=True)] == [
        "corgi",
        "red",
        "crown",
        "blue",
    ]


def test_an_angle_shared_between_two_bins_comes_back():
    azimuth = torch.linspace(-3.1, 3.1, 40)
    angle, sharpness = circular_mean(soft_bins(azimuth))
    assert (angle - azimuth).abs().max() < 1e-2 and sharpness.min() > 0.99
    assert circular_mean(torch.full((1, BINS), 1 / BINS))[1] < 1e-5


def test_undyed_accessories_do_not_count_for_their_color():
    logits = torch.randn(1, sum(map(len, CLASSES.values())) + BINS)
    natural, dyed, bare = (
        labels([Composition("corgi", *names)])
        for names in ((None, "crown"), (None, "crown", "red"), ())
    )
    losses = [
        judge_train.cross_entropies(logits, known, torch.zeros(1))[3]
        for known in (natural, dyed, bare)
    ]
    assert losses[0] == 0 and losses[1] > 0 and losses[2] > 0


def test_spoilt_photos_are_pictures_and_a_function_of_the_generator():
    rgba = torch.zeros(20, 4, 96, 96)
    rgba[:, :, 30:60, 30:60] = 1.0
    first, second = (disturb(rgba, torch.Generator().manual_seed(0)) for _ in range(2))
    assert first.shape == (20, 3, 96, 96) and torch.equal(first, second)
    assert first.min() >= 0 and first.max() <= 1
    assert not torch.equal(first, disturb(rgba, torch.Generator().manual_seed(1)))
    middle, corner = first[:, :, 44:52, 44:52], first[:, :, :8, :8]
    assert (middle.mean((1, 2, 3)) - corner.mean((1, 2, 3))).mean() > 0.1


def test_training_the_judge_stops_on_time_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_train, "EXAM", 8)
    given = ZooJudgeArguments(out=tmp_path, photos=12, batch=4)
    judge_train.main(given.model_copy(update={"minutes": 0.01}))
    before = json.loads((tmp_path / "judge.json").read_text())["steps"]
    judge_train.main(given.model_copy(update={"minutes": 0.03}))
    assert json.loads((tmp_path / "judge.json").read_text())["steps"] > before > 0
    network = build_network()
    assert sum(p.numel() for p in network.parameters()) < 2e6
    assert Judge.load(tmp_path)(torch.rand(1, 96, 96, 3)).object.shape == (1, len(OBJECTS))
