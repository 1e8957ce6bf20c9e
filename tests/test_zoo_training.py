import json
import math
from pathlib import Path

import pytest
import torch

from splat_esd import distributed
from splat_esd.config.commands import ZooJudgeArguments, read_arguments
from splat_esd.errors import UsageError
from splat_esd.zoo.prior import loop as training
from splat_esd.zoo.prior import train
from splat_esd.zoo.prior.loop import Clock, average_gradients, descend, load, log, save


def test_settings_are_read_in_their_types():
    asked = read_arguments(ZooJudgeArguments, ["minutes=1", "out=a=b"], command="zoo judge")
    assert asked == ZooJudgeArguments(minutes=1.0, out=Path("a=b"))


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("epochs=3", "unknown key epochs; the keys stand in splat-esd zoo --help"),
        ("photos", "'photos' is no setting; zoo judge takes out=, minutes=, photos="),
        ("photos=many", "photos must be an integer, got 'many'"),
        ("photos=0", r"photos must lie in \[1, inf\), got 0"),
    ],
)
def test_a_wrong_setting_is_refused(argument: str, expected: str):
    with pytest.raises(UsageError, match=expected):
        read_arguments(ZooJudgeArguments, [argument], command="zoo judge")


def test_the_clock_goes_on_where_it_stood_and_the_rate_falls_to_a_fiftieth():
    assert Clock(1.0, 61.0).running is False
    assert Clock(1.0).running is True
    assert Clock(1.0).rate(1e-3, 0) == pytest.approx(1e-3 / 200)
    assert Clock(1.0).rate(1e-3, 1000) == pytest.approx(1e-3, rel=1e-3)
    assert Clock(1.0, 30.0).rate(1e-3, 1000) == pytest.approx(0.51e-3, rel=1e-2)
    assert Clock(1.0, 90.0).rate(1e-3, 1000) == pytest.approx(0.02e-3)


def test_a_pause_of_the_process_does_not_count(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    clock = Clock(1.0)
    now[0] += 15.0
    assert clock.spent == 15.0 and clock.spent == 15.0
    now[0] += 3600.0
    assert clock.spent == 15.0 + training.PAUSE and clock.running


def test_a_checkpoint_restores_model_and_optimizer(tmp_path):
    def made():
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        return model, torch.optim.AdamW(model.parameters())

    (model, optimizer), path = made(), tmp_path / "x.pt"
    assert load(path, model=model, optimizer=optimizer) == (0, 0.0)
    descend(model(torch.ones(1, 2)).sum(), model, optimizer, 0.1)
    save(path, step=1, spent=2.5, model=model, optimizer=optimizer)
    other, other_optimizer = made()
    assert not torch.equal(other.weight, model.weight)
    assert load(path, model=other, optimizer=other_optimizer) == (1, 2.5)
    assert torch.equal(other.weight, model.weight) and other_optimizer.state_dict()["state"]
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


def test_a_loss_that_is_not_finite_stops_the_training():
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(FloatingPointError, match="not finite"):
        descend(math.nan * model(torch.ones(1, 1)).sum(), model, optimizer, 0.1)


def test_the_log_has_a_line_of_json_each_time(tmp_path):
    log(tmp_path / "log.jsonl", step=1, loss=0.1234567)
    log(tmp_path / "log.jsonl", step=2, loss=0.1)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.12346},
        {"step": 2, "loss": 0.1},
    ]


def learn_apart(folder: Path) -> None:
    """Two processes with other data and clocks: what each has learnt, and when it thinks it is."""
    torch.manual_seed(0)
    model, x = torch.nn.Linear(2, 1), torch.tensor([1.0, 2.0]) * (1 + distributed.rank())
    optimizer = torch.optim.SGD(model.parameters())
    for _ in range(3):
        descend(model(x).square().sum(), model, optimizer, 0.01, average_gradients)
    found = {"spent": distributed.broadcast(10.0 + distributed.rank()), **model.state_dict()}
    torch.save(found, folder / f"{distributed.rank()}.pt")


def test_two_processes_learn_as_one_of_both_their_data_and_go_by_one_clock(tmp_path):
    distributed.spawn(learn_apart, 2, tmp_path / "meeting", tmp_path)
    torch.manual_seed(0)
    model, optimizer = (m := torch.nn.Linear(2, 1)), torch.optim.SGD(m.parameters())
    x = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
    for _ in range(3):
        descend(model(x).square().mean(), model, optimizer, 0.01)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.pop("spent") == 10.0
        torch.testing.assert_close(found, dict(model.state_dict()))


def test_layer_norms_learn_in_float32_what_bf16_would_blur():
    torch.manual_seed(0)
    norm = torch.nn.Sequential(torch.nn.LayerNorm(96))
    x, cotangent = torch.randn(6000, 96).bfloat16(), 0.5 + torch.randn(6000, 96)

    def gradients(bf16):
        norm.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = norm(x if bf16 else x.float())
        assert y.dtype is (torch.bfloat16 if bf16 else torch.float32)
        (y.float() * cotangent).sum().backward()
        return torch.cat([p.grad for p in norm.parameters()])

    exact = gradients(False)
    train.teachable_norms(norm)
    assert (gradients(True) - exact).norm() < 0.01 * exact.norm()
    assert (gradients(False) - exact).norm() < 1e-6 * exact.norm()
