"""viewer.html and the comparison as a browser sees them, opened from disk."""

import json
from pathlib import Path

import pytest
from foreign_programs import CAMERA, SIZE, assert_alike, mascot, own_picture, picture, shoot

from splat_esd.export.page import Frame, Result, with_final, write_page
from splat_esd.formats.spz import pack_spz
from splat_esd.gaussians import Gaussians

pytestmark = pytest.mark.foreign

LOOK = f"page.look({json.dumps({name: CAMERA[name] for name in CAMERA if name != 'fovy'})})"
# The canvases alone, of a known size, side by side, and a moment to draw them.
BARE = f"""
  document.body.replaceChildren(...document.querySelectorAll("canvas"));
  document.body.style.display = "flex";
  for (const canvas of document.body.children)
    canvas.style.cssText = "width: {SIZE}px; height: {SIZE}px; border: 0; border-radius: 0";
  new Promise((done) => setTimeout(done, 500))
"""


def open_page(path: Path, shot: Path, *actions: str, width: int = SIZE) -> list:
    told = shoot(path.as_uri(), shot, actions=list(actions), width=width)
    assert told["asked"] == [], "the page wanted something from elsewhere"
    return told["returned"]


def dyed(splats: Gaussians) -> Gaussians:
    """The same splats with red and blue exchanged."""
    return Gaussians(**splats.parameters() | {"sh": splats.sh.flip(2)})


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_page_shows_what_we_see(tmp_path, degree):
    splats = mascot(degree)
    path = write_page([with_final(Result("x"), splats)], tmp_path / "viewer.html", title="x")
    open_page(path, tmp_path / "shot.png", LOOK, BARE)
    assert_alike(picture(tmp_path / "shot.png"), own_picture(splats), least=0.99)


def test_two_results_are_seen_by_one_camera(tmp_path):
    splats = mascot(0)
    results = [with_final(Result("a"), splats), with_final(Result("b"), dyed(splats))]
    path = write_page(results, tmp_path / "compare.html", title="a and b")
    open_page(path, tmp_path / "shot.png", LOOK, BARE, width=2 * SIZE)
    shot = picture(tmp_path / "shot.png")
    assert_alike(shot[:, :, :SIZE], own_picture(splats), least=0.99)
    assert_alike(shot[:, :, SIZE:], own_picture(dyed(splats)), least=0.99)


def test_the_timeline_shows_the_splats_of_its_steps(tmp_path):
    first, last = mascot(3, count=300), mascot(0)
    about = Result("x", frames=[Frame("step 0", pack_spz(first), 0)])
    about = Result("x", frames=about.frames, curves={"score norm": [(0, 1.0), (50, 0.5)]})
    path = write_page([with_final(about, last)], tmp_path / "viewer.html", title="x")
    said = "document.querySelector('.label').textContent"
    slide = "const s = document.querySelector('input'); s.value = 0; s.oninput()"
    labels = open_page(path, tmp_path / "shot.png", said, slide, LOOK, said, BARE)
    assert labels[0] == f"step 50 · {len(last):,} splats"
    assert labels[3] == f"step 0 · {len(first):,} splats"
    assert_alike(picture(tmp_path / "shot.png"), own_picture(first), least=0.98)


def test_the_mouse_turns_the_splat(tmp_path):
    splats = mascot(0)
    path = write_page([with_final(Result("x"), splats)], tmp_path / "viewer.html", title="x")
    drag = """
      const canvas = document.querySelector("canvas");
      canvas.setPointerCapture = () => {};
      const at = (type, clientX, clientY) =>
        canvas.dispatchEvent(new PointerEvent(type, {pointerId: 1, clientX, clientY}));
      at("pointerdown", 100, 100); at("pointermove", 10, 100); at("pointerup", 10, 100)
    """
    tilt = "page.look({elevation: 0.3, distance: 2.6})"
    open_page(path, tmp_path / "shot.png", tilt, drag, BARE)
    # Pulled to the left by 90 pixels: seen from 90 / 150 farther to its left, our right.
    assert_alike(picture(tmp_path / "shot.png"), own_picture(splats, azimuth=0.6), least=0.98)


def test_everything_that_is_told_is_on_the_page(tmp_path):
    facts = {"prompt": "<b>a corgi</b> & friends", "seed": "3"}
    result = Result("t", facts=facts, scores={"janus faces": "1"}, settings="seed: <b>3</b>")
    final = with_final(result, mascot(0))
    path = write_page([final], tmp_path / "viewer.html", title="<i>a title</i>")
    texts = "[...document.querySelectorAll('h1, th, td, pre')].map((x) => x.textContent)"
    (shown,) = open_page(path, tmp_path / "shot.png", texts)
    said = [text for item in facts.items() for text in item]
    assert shown == ["<i>a title</i>", "janus faces", "1", *said, "seed: <b>3</b>"]
