import pytest
import torch

from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.runs.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint

STATE = {"a": torch.arange(5.0), "nested": {"b": torch.ones(2, 2), "n": 3}}


def test_what_is_saved_is_read_back_with_its_step(tmp_path):
    state = load_checkpoint(save_checkpoint(tmp_path, 7, STATE))
    assert state["step"] == 7 and state["nested"]["n"] == 3
    assert torch.equal(state["a"], STATE["a"]) and torch.equal(
        state["nested"]["b"], STATE["nested"]["b"]
    )


def test_the_last_two_are_kept_and_the_newest_is_found(tmp_path):
    for step in (5, 10, 100):
        save_checkpoint(tmp_path, step, STATE)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-000010.pt", "step-000100.pt"]
    assert latest_checkpoint(tmp_path).name == "step-000100.pt"


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_refused_with_a_way_out(tmp_path, damage):
    path = save_checkpoint(tmp_path, 7, STATE)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes({"truncated": data[:200], "flipped": data, "empty": b""}[damage])
    with pytest.raises(UsageError, match=r"damaged .*delete it to continue"):
        load_checkpoint(path)


def test_a_failed_write_leaves_the_old_checkpoint_and_no_rubbish(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, STATE)
    monkeypatch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(EnvironmentProblem, match="No space"):
        save_checkpoint(tmp_path, 2, STATE)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001.pt"]
    assert load_checkpoint(latest_checkpoint(tmp_path))["step"] == 1
