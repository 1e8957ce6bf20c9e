import hashlib
import io

import pytest
import torch

from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.runs.checkpoint import (
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)

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
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    path = save_checkpoint(tmp_path, 7, STATE)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes({"truncated": data[:200], "flipped": data, "empty": b""}[damage])
    with pytest.raises(UsageError, match=r"step-000007\.pt is damaged: its checksum"):
        load_checkpoint(path)


def test_a_failed_write_leaves_the_old_checkpoint_and_no_rubbish(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, STATE)
    monkeypatch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(EnvironmentProblem, match="No space"):
        save_checkpoint(tmp_path, 2, STATE)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001.pt"]
    assert load_checkpoint(latest_checkpoint(tmp_path))["step"] == 1


@pytest.mark.parametrize("inside", [b"", b"not a zip", [1, 2], {"step": "x"}, {"step": -1}, {1: 2}])
def test_a_right_checksum_over_something_else_is_one_line(tmp_path, inside):
    path = tmp_path / "step-000007.pt"
    payload = inside
    if not isinstance(inside, bytes):
        buffer = io.BytesIO()
        torch.save(inside, buffer)
        payload = buffer.getvalue()
    path.write_bytes(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    with pytest.raises(UsageError, match="holds no state of a run") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_other_files_among_the_checkpoints_are_passed_over(tmp_path):
    save_checkpoint(tmp_path, 5, STATE)
    for stray in ("step-abc.pt", "step-000009.pt.unfinished", "notes.txt", ".step-000010-ab.pt"):
        (tmp_path / stray).write_text("x")
    (tmp_path / "step-000099.pt").mkdir()
    assert latest_checkpoint(tmp_path).name == "step-000005.pt"
    for step in (6, 7):
        save_checkpoint(tmp_path, step, STATE)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-000007.pt", "step-000006.pt"]
    assert (tmp_path / "step-abc.pt").exists()
