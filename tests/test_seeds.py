import json

import pytest

from splat_esd.config.load import load_config
from splat_esd.errors import UsageError
from splat_esd.study.seeds import _praise, generate_seeds, score

QUICK = ["prompt=a corgi", "prior=zoo", "steps=2", "init.count=200", "cameras.batch_size=1",
         "export.frames=2", "export.formats=[ply]"]  # fmt: skip


def report(*, free=True, mirrored=False, right=3, information=1.0):
    names = ["object", "color", "accessory"]
    return {
        "janus": {"free": free, "mirrored": mirrored},
        "right": {name: i < right for i, name in enumerate(names)},
        "inception": {"information": information},
        "consistency": 0.8,
    }


def test_one_face_and_sides_in_order_come_before_what_is_right_and_that_before_variety():
    order = [
        report(),
        report(information=0.5),
        report(right=2, information=3.0),
        report(mirrored=True, information=3.2),
        report(free=False, information=3.1),
    ]
    assert sorted(order, key=score, reverse=True) == order


def test_without_a_judge_variety_and_consistency_are_added():
    other = report(information=1.5) | {"janus": None, "right": None}
    assert score(other) == [pytest.approx(2.3)]


def test_several_seeds_are_made_ranked_and_kept(tmp_path, capsys):
    config = load_config([*QUICK, "seeds=2", "seed=7", "keep=best", f"out={tmp_path}"])
    best = generate_seeds(config)
    runs = sorted(path for path in (tmp_path / "a-corgi").iterdir() if path.is_dir())
    assert [path.name[-3:] for path in runs] == ["-s7", "-s8"] and best in runs
    ranking = json.loads((tmp_path / "a-corgi" / "ranking.json").read_text())
    assert ranking["best"] == best.name and "Janus" in ranking["rule"]
    assert ranking["runs"][0]["seed"] == int(best.name[-1])
    assert ranking["runs"][0]["score"] >= ranking["runs"][1]["score"]
    capsys.readouterr()
    assert generate_seeds(config) == best  # nothing is made twice
    assert "seed 7 is made already" in capsys.readouterr().err
    assert len([path for path in (tmp_path / "a-corgi").iterdir() if path.is_dir()]) == 2


def test_the_best_of_none_with_one_face_in_order_is_not_praised(tmp_path):
    good, bad = report(), report(free=False)
    assert _praise(tmp_path, good, 4) == f"the best: {tmp_path}"
    assert _praise(tmp_path, bad, 4).startswith("none of 4 has one face in order; the least wrong")
    assert _praise(tmp_path, report(mirrored=True), 4).startswith("none of 4")
    assert _praise(tmp_path, good | {"janus": None}, 4).startswith("the best")


def test_another_prior_cannot_be_ranked_without_a_classifier(tmp_path):
    config = load_config([*QUICK, "prior=sd21", "seeds=2", "keep=best", f"out={tmp_path}"])
    with pytest.raises(UsageError, match="classifier=FOLDER"):
        generate_seeds(config)
    assert not any(tmp_path.iterdir())
