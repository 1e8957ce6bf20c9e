import json
import math

import numpy as np
import pytest
import torch

from splat_esd.cli.main import main
from splat_esd.errors import UsageError
from splat_esd.formats.ply import write_ply
from splat_esd.gaussians import Gaussians
from splat_esd.initialize import from_points
from splat_esd.metrics.evaluate import around, evaluate, evaluate_run
from splat_esd.metrics.fidelity import true_views
from splat_esd.metrics.inception import inception_scores
from splat_esd.metrics.judged import faces, judge_views, variety
from splat_esd.zoo.judge.network import Judge
from splat_esd.zoo.world.captions import Composition
from splat_esd.zoo.world.compose import build
from splat_esd.zoo.world.objects import OBJECTS
from splat_esd.zoo.world.surface import surface


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


def splat_of(composition: Composition, *, two_faced: bool = False) -> Gaussians:
    """The surface as splats; two-faced, its front half again as its back."""
    points, _, colors = surface(build(composition), 12000, np.random.default_rng(0))
    if two_faced:
        front = points[:, 0] > 0
        points = np.concatenate([points[front], points[front] * (-1, 1, 1)])
        colors = np.concatenate([colors[front], colors[front]])
    return from_points(torch.tensor(points).float(), torch.tensor(colors).float(), opacity=0.95)


def run_of(folder, gaussians, prompt, prior="zoo"):
    folder.mkdir(parents=True)
    write_ply(gaussians, folder / "splat.ply")
    facts = {"prompt": prompt, "seed": 0, "status": "finished", "prior": {"name": prior}}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.parametrize("name", OBJECTS)
def test_no_true_object_raises_a_false_alarm(name, judge):
    composition = Composition(name)
    views = true_views(composition, around())
    verdict = judge(views)
    found = faces(judge, verdict, composition)
    assert found.free and not found.mirrored, found
    assert found.count == (0 if name in judge.frontless else 1)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_seen_the_wrong_way_round_is_called_mirrored(name, judge):
    composition = Composition(name)
    backwards = true_views(composition, around()).flip(0).roll(1, dims=0)
    found = faces(judge, judge(backwards), composition)
    assert found.mirrored == (name not in judge.frontless), found


@pytest.mark.parametrize("name", OBJECTS)
def test_every_two_faced_object_is_found_out(name, judge):
    if name in judge.frontless:
        return  # alike from all sides, it has no face to have twice
    report = evaluate(splat_of(Composition(name), two_faced=True), Composition(name))
    assert not report["janus"]["free"], report["janus"]


def test_most_objects_have_a_front(judge):
    assert len(judge.frontless) <= len(OBJECTS) // 3
    assert not judge.frontless & {"corgi", "cat", "panda", "house", "car"}


def test_the_real_thing_is_judged_right_and_like_itself():
    wanted = Composition("panda", "red", "top hat", "blue")
    report = evaluate(splat_of(wanted), wanted)
    assert all(report["right"].values()) and report["janus"]["free"]
    assert report["fidelity"]["turn"] == 0.0
    other = evaluate(splat_of(Composition("duck")), wanted)
    assert report["fidelity"]["psnr"] > other["fidelity"]["psnr"] + 1
    assert report["fidelity"]["ssim"] > other["fidelity"]["ssim"]
    assert not other["right"]["object"] and not other["right"]["accessory"]


def test_equal_views_tell_nothing_and_fog_tells_less_than_a_clear_asset(judge):
    views = true_views(Composition("corgi"), around())
    solid = torch.ones_like(views[..., :1])
    clear = variety(judge_views(judge, views, solid))
    same = variety(judge_views(judge, views[:1].expand_as(views), solid))
    fog = variety(judge_views(judge, 0.15 * views + 0.85 * views.mean((0, 1, 2)), solid))
    assert clear["quality"] <= clear["variety"] and clear["information"] > 1.5
    assert abs(same["information"]) < 1e-5
    assert fog["information"] < 0.7 * clear["information"]


def test_quality_never_exceeds_variety():
    p = torch.rand(50, 24, 9, generator=torch.Generator().manual_seed(0)).pow(4)
    for views in p / p.sum(-1, keepdim=True):
        scores = inception_scores(views)
        assert scores["quality"] <= scores["variety"]


def test_a_run_is_evaluated_by_command(tmp_path, capsys):
    folder = run_of(tmp_path / "run", splat_of(Composition("cat")), "a cat")
    assert main(["evaluate", str(folder)]) == 0
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["janus"]["free"] and report["right"] == {
        "object": True, "color": True, "accessory": True,
    }  # fmt: skip
    assert report["inception"]["classifier"] == "zoo judge" and report["clip"] is None
    shown = capsys.readouterr()
    assert "yes" in shown.out and "clip=FOLDER" in shown.err


def test_another_prior_is_not_judged_by_the_zoos_judge(tmp_path):
    folder = run_of(tmp_path / "run", splat_of(Composition("cat")), "a cat", prior="sd21")
    report = evaluate_run(folder)
    assert report["janus"] is report["right"] is report["inception"] is None
    assert len(report["missing"]) == 2


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"run\.json and splat\.ply"):
        evaluate_run(tmp_path)
    assert main(["evaluate"]) == 2


def tiny_clip(folder):
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 9, "max_position_embeddings": 12,
            "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 32, "patch_size": 16}  # fmt: skip
    letters = ["<|startoftext|>", "<|endoftext|>", "a", "c", "t", "a</w>", "c</w>", "t</w>", "b"]
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    vocab = {letter: i for i, letter in enumerate(letters)}
    CLIPTokenizer(vocab=vocab, merges=[], model_max_length=12).save_pretrained(folder)
    return folder


def tiny_classifier(folder):
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_labels=5,
                       num_attention_heads=2, image_size=32, patch_size=16)  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    return folder


def test_local_networks_score_what_they_are_given(tmp_path):
    folder = run_of(tmp_path / "run", splat_of(Composition("cat")), "a cat", prior="sd21")
    clip, classifier = tiny_clip(tmp_path / "clip"), tiny_classifier(tmp_path / "vit")
    report = evaluate_run(folder, clip=clip, classifier=classifier)
    assert report["missing"] == [] and report["inception"]["classifier"] == "vit"
    assert 0 <= report["inception"]["quality"] <= report["inception"]["variety"] <= math.log(5)
    assert -100 <= report["clip"] <= 100


def test_a_folder_without_a_network_is_refused(tmp_path):
    folder = run_of(tmp_path / "run", splat_of(Composition("cat")), "a cat", prior="sd21")
    for key in ("clip", "classifier"):
        with pytest.raises(UsageError, match=f"{key}: .* cannot be read"):
            evaluate_run(folder, **{key: tmp_path})
