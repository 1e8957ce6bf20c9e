import math
import re
from collections import Counter

import numpy as np
import pytest
import torch

from splat_esd.cameras import orbit_cameras
from splat_esd.diffusion.prompts import SIDE, VIEWS, view_index
from splat_esd.errors import UsageError
from splat_esd.zoo.prior import dataset
from splat_esd.zoo.prior.dataset import (
    ALL_AROUND,
    KINDS,
    NAMED,
    Bias,
    Photos,
    Shots,
    backgrounds,
    compose,
    plan,
    take_photos,
)
from splat_esd.zoo.world.captions import Composition, is_held_out, parse
from splat_esd.zoo.world.objects import OBJECTS
from splat_esd.zoo.world.render import SUN

EVEN = Bias(overhead=0.0)
FROM_THE_FRONT = Bias(front=0.7, sides=0.2)


@pytest.fixture(scope="module")
def shots():
    return plan(6000)


@pytest.fixture(scope="module")
def unseen(shots):
    """Photos whose pictures nobody looks at."""
    return Photos(np.zeros((len(shots), 1, 1, 4), np.uint8), shots)


def test_photos_are_taken_from_the_front_as_often_as_the_bias_says():
    degrees = np.abs(np.rad2deg(plan(6000, bias=FROM_THE_FRONT).azimuth))
    near = math.erf(20 / FROM_THE_FRONT.spread / math.sqrt(2))
    assert (degrees < 20).mean() == pytest.approx(0.7 * near + 0.1 * 20 / 180, abs=0.02)
    assert (np.abs(degrees - 90) < 20).mean() == pytest.approx(
        0.2 * near + 0.1 * 40 / 180, abs=0.02
    )
    assert (degrees > 135).mean() == pytest.approx(0.1 / 4, abs=0.01)
    assert degrees.max() <= 180


def test_without_bias_all_sides_are_photographed_alike():
    azimuth = plan(4000, bias=EVEN).azimuth
    assert np.histogram(azimuth, 8, (-math.pi, math.pi))[0] / 4000 == pytest.approx(
        np.full(8, 0.125), abs=0.015
    )


def test_cameras_keep_within_their_limits(shots):
    elevation = np.rad2deg(shots.elevation)
    above = elevation > 60
    assert above.mean() == pytest.approx(ALL_AROUND.overhead, abs=0.01)
    assert elevation[~above].min() >= -10 and elevation[~above].max() <= 45
    assert shots.distance.min() >= 2.3 and shots.distance.max() <= 2.6
    assert np.rad2deg(shots.fovy).min() >= 40 and np.rad2deg(shots.fovy).max() <= 46


def test_what_is_held_out_is_never_photographed_unless_asked_for(shots):
    assert not any(map(is_held_out, shots.compositions))
    judged = plan(1000, bias=Bias(held_out=True)).compositions
    assert np.mean([is_held_out(c) for c in judged]) == pytest.approx(0.15, abs=0.06)


def test_plain_colored_and_dressed_toys_come_in_their_shares(shots):
    kinds = Counter((c.color is not None, c.accessory is not None) for c in shots.compositions)
    for kind, share in KINDS.items():
        assert kinds[kind] / len(shots) == pytest.approx(share, abs=0.02)
    objects = Counter(c.object for c in shots.compositions)
    assert set(objects) == set(OBJECTS)
    assert min(objects.values()) > 0.7 * len(shots) / len(OBJECTS)
    dressed = [c for c in shots.compositions if c.accessory is not None]
    assert np.mean([c.accessory_color is not None for c in dressed]) == pytest.approx(0.8, abs=0.03)


def test_a_shot_depends_on_the_seed_and_its_number_only(shots):
    few, others = plan(5), plan(5, seed=1)
    assert few.compositions == shots.compositions[:5]
    assert np.array_equal(few.sun, shots.sun[:5]) and not np.array_equal(few.sun, others.sun)


def test_a_caption_says_what_is_there_and_the_view_as_often_as_it_should(unseen):
    rng, named = np.random.default_rng(0), {view: [] for view in VIEWS}
    for i, composition in enumerate(unseen.shots.compositions):
        said, view = parse(unseen.caption(rng, i))
        seen = unseen.views[i]
        assert said == composition and view in (None, seen, SIDE if SIDE in seen else None)
        named[seen].append(view)
    for view, said in named.items():
        assert np.mean([word is not None for word in said]) == pytest.approx(NAMED, abs=0.12), view
        which = 0.25 if SIDE in view else 0.5
        assert np.mean([word == view for word in said]) == pytest.approx(which, abs=0.12), view
    assert min(map(len, named.values())) > 60


def test_views_are_named_as_prompts_name_them(shots, unseen):
    cameras = orbit_cameras(
        *(torch.tensor(v).float() for v in (shots.azimuth, shots.elevation)),
        torch.full((len(shots),), 2.5),
        torch.full((len(shots),), 0.7),
        width=8,
        height=8,
    )
    assert unseen.views == [VIEWS[i] for i in view_index(cameras)]


def test_pictures_are_a_function_of_the_seed():
    a, b, c = (take_photos(4, 32, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(a.rgba, b.rgba) and not np.array_equal(a.rgba, c.rgba)
    assert (a.rgba[..., :3] <= a.rgba[..., 3:]).mean() > 0.99
    assert a.rgba[..., 3].max((1, 2)).min() == 255


def test_photos_on_disk_are_those_in_memory_and_are_taken_once(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD", 2)
    here, there = take_photos(5, 16), take_photos(5, 16, folder=tmp_path / "photos", processes=2)
    assert np.array_equal(here.rgba, there.rgba) and there.shots.compositions
    monkeypatch.setattr(dataset, "ProcessPoolExecutor", None)
    assert np.array_equal(take_photos(5, 16, folder=tmp_path / "photos").rgba, here.rgba)


def test_an_interrupted_photographer_goes_on_with_the_shards_that_are_missing(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(dataset, "SHARD", 2)
    whole = np.array(take_photos(5, 16, folder=tmp_path).rgba)
    pictures = np.load(tmp_path / "rgba.npy", mmap_mode="r+")
    pictures[:] = 7
    pictures.flush()
    (tmp_path / "done.txt").write_text("0\n4\n")
    again = take_photos(5, 16, folder=tmp_path).rgba
    assert np.array_equal(again[2:4], whole[2:4])
    assert (again[:2] == 7).all() and (again[4:] == 7).all()
    assert sorted((tmp_path / "done.txt").read_text().split()) == ["0", "2", "4"]


def test_a_folder_with_other_photos_is_refused(tmp_path):
    take_photos(2, 16, folder=tmp_path)
    with pytest.raises(UsageError, match=r"holds other photos; name another folder"):
        take_photos(2, 16, seed=1, folder=tmp_path)
    with pytest.raises(UsageError, match=r"holds other photos"):
        take_photos(2, 16, bias=EVEN, folder=tmp_path)


def test_the_world_has_a_fingerprint():
    assert re.fullmatch("[0-9a-f]{12}", dataset.world())


def test_a_composed_photo_shows_the_background_where_nothing_stands():
    photos, g = take_photos(6, 32), torch.Generator().manual_seed(3)
    images = compose(photos, torch.arange(6), g)
    corner = images[:, :, 0, 0]
    assert images.shape == (6, 3, 32, 32) and images.abs().max() <= 1
    assert torch.equal(corner, images[:, :, 0, -1])
    assert backgrounds(100, g).min() >= 0 and backgrounds(100, g).max() <= 1


def test_a_toy_seen_from_its_left_looks_to_the_left():
    rgba = Shots(
        [Composition("duck")], *(np.array([v]) for v in (math.pi / 2, 0.1, 2.5, 0.75)),
        *(np.array([v]) for v in (SUN, 1.0, [1.0, 1.0, 1.0])),
    ).render(64)[0].astype(float)  # fmt: skip
    beak = (rgba[..., 0] > 150) & (rgba[..., 1] < 0.65 * rgba[..., 0]) & (rgba[..., 2] < 40)
    assert beak[:40].any(), "no beak to be seen"
    assert np.nonzero(beak[:40])[1].mean() < 24
    assert VIEWS[view_index(orbit_cameras(*torch.tensor([[math.pi / 2], [0.1], [2.5], [0.75]]),
                                          width=8, height=8))] == "left side"  # fmt: skip
