"""viewer.html and the comparison as a browser sees them, opened from disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from foreign_programs import CAMERA, SIZE, assert_alike, mascot, own_picture, picture, shoot
from PIL import Image

from splat_esd.export.page import Frame, Result, with_final, write_page
from splat_esd.formats.frame import UNIT_BALL
from splat_esd.formats.spz import pack_spz
from splat_esd.gaussians import Gaussians

pytestmark = pytest.mark.foreign

LOOK = f"page.look({json.dumps({name: CAMERA[name] for name in CAMERA if name != 'fovy'})})"
# The canvases alone, of a known size, side by side, and a moment to draw them.
BARE = f"""
  document.body.replaceChildren(...document.querySelectorAll("canvas"));
  document.body.className = "";
  document.body.style.cssText = "display: flex; background: #fff";
  for (const canvas of document.body.children)
    canvas.style.cssText = "width: {SIZE}px; height: {SIZE}px; border-radius: 0; background: #fff";
  new Promise((done) => setTimeout(done, 500))
"""


def plain(about: Result, splats: Gaussians) -> Result:
    """A result whose camera looks at the middle of the world, as `own_picture` does."""
    return replace(with_final(about, splats), ball=UNIT_BALL)


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
    path = write_page([plain(Result("x"), splats)], tmp_path / "viewer.html", title="x")
    open_page(path, tmp_path / "shot.png", LOOK, BARE)
    assert_alike(picture(tmp_path / "shot.png"), own_picture(splats), least=0.99)


def test_two_results_are_seen_by_one_camera(tmp_path):
    splats = mascot(0)
    results = [plain(Result("a"), splats), plain(Result("b"), dyed(splats))]
    path = write_page(results, tmp_path / "compare.html", title="a and b")
    open_page(path, tmp_path / "shot.png", LOOK, BARE, width=2 * SIZE)
    shot = picture(tmp_path / "shot.png")
    assert_alike(shot[:, :, :SIZE], own_picture(splats), least=0.99)
    assert_alike(shot[:, :, SIZE:], own_picture(dyed(splats)), least=0.99)


def test_the_timeline_shows_the_splats_of_its_steps(tmp_path):
    first, last = mascot(3, count=300), mascot(0)
    about = Result("x", frames=[Frame("step 0", pack_spz(first), 0)])
    about = Result("x", frames=about.frames, curves={"score norm": [(0, 1.0), (50, 0.5)]})
    path = write_page([plain(about, last)], tmp_path / "viewer.html", title="x")
    said = "document.querySelector('.label').textContent"
    slide = f"""(async () => {{
      const slider = document.querySelector("input"), before = {said};
      slider.value = 0; slider.oninput();
      while ({said} === before) await new Promise((done) => setTimeout(done, 20));
    }})()"""
    labels = open_page(path, tmp_path / "shot.png", said, slide, LOOK, said, BARE)
    assert labels[0] == f"step 50 · {len(last):,} splats"
    assert labels[3] == f"step 0 · {len(first):,} splats"
    assert_alike(picture(tmp_path / "shot.png"), own_picture(first), least=0.98)


def test_the_mouse_turns_the_splat(tmp_path):
    splats = mascot(0)
    path = write_page([plain(Result("x"), splats)], tmp_path / "viewer.html", title="x")
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


SIZES = [(1280, 800, False), (1920, 1080, False), (390, 844, True)]
MEASURES = """(() => {
  const { width, height } = document.querySelector("canvas").getBoundingClientRect();
  const { scrollWidth, scrollHeight } = document.documentElement;
  return { canvas: Math.min(width, height), window: Math.min(innerWidth, innerHeight),
           across: scrollWidth - innerWidth, down: scrollHeight - innerHeight };
})()"""


def trained(title: str, splats: Gaussians) -> Result:
    """A result with a timeline, curves, facts and files."""
    early = Frame("step 0", pack_spz(mascot(0, count=300)), 0)
    about = Result(
        title,
        facts={"prompt": title, "versions": "splat-esd 0.2, torch 2.13, " * 4},
        settings="prompt: x\n" * 60,
        frames=[early],
        curves={"score norm": [(0, 1.0), (50, 0.5)]},
        scores={"janus faces": "1"},
        files=["splat.ply", "mesh.glb", "turntable.mp4"],
    )
    return with_final(about, splats)


@pytest.mark.parametrize(("width", "height", "phone"), SIZES)
@pytest.mark.parametrize("count", [1, 2])
def test_the_canvas_fills_the_window_and_nothing_lies_aside(tmp_path, width, height, phone, count):
    results = [trained(name, mascot(0)) for name in "ab"[:count]]
    path = write_page(results, tmp_path / "viewer.html", title="a mascot with a long title")
    job = {"actions": [MEASURES], "width": width, "height": height, "phone": phone}
    (found,) = shoot(path.as_uri(), tmp_path / "shot.png", **job)["returned"]
    assert found["canvas"] >= 0.7 * found["window"]
    assert found["across"] <= 0
    assert (found["down"] > 0) == (phone or count > 1), "on a phone the page scrolls"


def test_depth_alpha_and_centres_can_be_seen_instead(tmp_path):
    splats = mascot(0)
    path = write_page([plain(Result("x"), splats)], tmp_path / "viewer.html", title="x")
    pictures = {}
    for mode in ("colour", "depth", "alpha", "centres"):
        choose = f"""
          const list = document.querySelector("select");
          list.value = "{mode}"; list.onchange()
        """
        open_page(path, tmp_path / "shot.png", LOOK, choose, BARE)
        pictures[mode] = picture(tmp_path / "shot.png")
    grey = pictures["alpha"]
    assert (grey.amax(-1) - grey.amin(-1)).max() < 0.02  # white over white ground
    shade = pictures["depth"][0]
    assert (shade.amax(-1) - shade.amin(-1)).max() < 0.02
    assert shade.min() < 0.75 and shade.max() > 0.95
    assert (pictures["centres"] - pictures["colour"]).abs().mean() > 0.02


@pytest.mark.parametrize("came_alone", [False, True])
def test_a_page_that_came_alone_offers_only_what_is_inside(tmp_path, came_alone):
    about = replace(trained("x", mascot(0)), files=["splat.ply", "turntable.webp"])
    path = write_page([about], tmp_path / "viewer.html", title="x")
    if not came_alone:
        Image.new("RGB", (2, 2)).save(tmp_path / "turntable.webp")
    offers = """(async () => {
      const box = document.querySelector(".files").parentElement, image = new Image();
      image.src = "turntable.webp";  // asked for after the page has asked for the same
      await new Promise((done) => { image.onload = image.onerror = () => setTimeout(done, 200); });
      return [[...box.querySelectorAll("a, button")].map((x) => x.textContent), box.innerText];
    })()"""
    told = shoot(path.as_uri(), tmp_path / "shot.png", actions=[offers], forgiven="ERR_FILE")
    ((offered, said),) = told["returned"]
    assert offered == ["splat.spz"] + ([] if came_alone else ["splat.ply", "turntable.webp"])
    assert ("splat.ply, turntable.webp stayed where it was made" in said) == came_alone


def test_the_keyboard_turns_zooms_and_comes_home(tmp_path):
    path = write_page([plain(Result("x"), mascot(0))], tmp_path / "viewer.html", title="x")
    press = """(() => {
      const canvas = document.querySelector("canvas"), seen = [];
      canvas.focus();
      for (const key of ["ArrowRight", "ArrowUp", "+", "Home"]) {
        const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
        canvas.dispatchEvent(event);
        seen.push([page.camera.azimuth, page.camera.elevation, page.camera.distance]);
      }
      return [document.activeElement === canvas, seen];
    })()"""
    ((focused, seen),) = open_page(path, tmp_path / "shot.png", press)
    assert focused
    right, up, near, home = seen
    assert right[0] > home[0] and up[1] > home[1] and near[2] < home[2]


def test_two_fingers_pinch_and_one_turns_and_turning_stops_when_touched(tmp_path):
    path = write_page([plain(Result("x"), mascot(0))], tmp_path / "viewer.html", title="x")
    touch = """(() => {
      const canvas = document.querySelector("canvas"), spin = document.querySelector("nav button");
      canvas.setPointerCapture = () => {};
      const at = (type, pointerId, clientX, clientY) =>
        canvas.dispatchEvent(new PointerEvent(type, {pointerId, clientX, clientY}));
      spin.click();
      const spun = spin.getAttribute("aria-pressed"), before = page.camera.distance;
      at("pointerdown", 1, 100, 100); at("pointerdown", 2, 140, 100);
      at("pointermove", 2, 220, 100); at("pointerup", 1, 100, 100); at("pointerup", 2, 220, 100);
      return [spun, spin.getAttribute("aria-pressed"), page.camera.distance / before];
    })()"""
    ((spun, stopped, nearer),) = open_page(path, tmp_path / "shot.png", touch)
    assert (spun, stopped) == ("true", "false")
    assert nearer == pytest.approx(1 / 3)


def test_a_picture_and_the_splat_can_be_saved(tmp_path):
    path = write_page([trained("x", mascot(0))], tmp_path / "viewer.html", title="x")
    ask = """(async () => {
      const names = [], click = HTMLAnchorElement.prototype.click;
      HTMLAnchorElement.prototype.click = function () { names.push([this.download, this.href]); };
      for (const button of document.querySelectorAll("button"))
        if (["Save PNG", "splat.spz"].includes(button.textContent)) await button.onclick();
      await new Promise((done) => setTimeout(done, 500));
      const sizes = await Promise.all(names.map(async ([name, url]) => {
        const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
        return [name, bytes.length, bytes[0], bytes[1]];
      }));
      const links = [...document.querySelectorAll("a.file")];
      const beside = links.map((link) => link.getAttribute("href"));
      return [sizes, beside];
    })()"""
    ((sizes, beside),) = open_page(path, tmp_path / "shot.png", ask, width=900)
    saved = {name: (size, first, second) for name, size, first, second in sizes}
    assert saved["splat.png"][1:] == (0x89, 0x50) and saved["splat.png"][0] > 1000
    assert saved["splat.spz"][0] == len(pack_spz(mascot(0))) and saved["splat.spz"][1] == 0x1F
    assert beside == ["splat.ply", "mesh.glb", "turntable.mp4"]
