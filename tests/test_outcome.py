"""What a person is told around a run."""

import webbrowser
from pathlib import Path

import pytest

from splat_esd.browser import open_in_browser
from splat_esd.cli.outcome import already_made, verdict
from splat_esd.config.load import Config
from splat_esd.runs.folder import RunFolder, open_run_folder


def report(
    faces: int = 1, *, free: bool = True, mirrored: bool = False, **right: bool
) -> dict[str, dict]:
    found = {"faces": faces, "free": free, "arc": 200.0, "mirrored": mirrored}
    return {"janus": found, "right": {"object": True, "color": True} | right}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (report(), "the judge sees: one face; as asked."),
        (report(2, free=False), "the judge sees: 2 faces; as asked."),
        (report(1, free=False), "the judge sees: one face, but over 200 degrees; as asked."),
        (report(0), "the judge sees: alike from all sides; as asked."),
        (report(0, free=False), "the judge sees: 0 faces; as asked."),
        (report(color=False, accessory=False), "; not as asked: colour, what it wears."),
        (report(mirrored=True), "one face, mirrored (the body stands backwards); as asked."),
    ],
)
def test_the_verdict_is_a_sentence(found: dict, said: str):
    assert said in verdict(found)


def test_a_run_of_the_same_settings_is_not_made_again_and_the_way_to_another_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = Config(prompt="a corgi", out=tmp_path)
    assert not already_made(config)
    folder, _ = open_run_folder(config)
    assert not already_made(config)
    RunFolder(folder.path).write_run(status="finished")
    (folder.path / "viewer.html").write_text("")
    assert already_made(config)
    said = capsys.readouterr().err
    assert "seed=null" in said and str(folder.path / "viewer.html") in said
    assert not already_made(config.model_copy(update={"seed": None}))
    assert not already_made(config.model_copy(update={"seed": 1}))


def test_no_browser_is_claimed_without_a_desktop(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: asked.append(url) or True)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not open_in_browser("http://127.0.0.1:1")
    assert asked == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert open_in_browser("http://127.0.0.1:1")
    assert asked == ["http://127.0.0.1:1"]
