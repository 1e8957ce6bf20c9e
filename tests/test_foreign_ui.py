"""The page of `splat-esd ui` as a browser shows it: at three sizes, by keyboard, light and dark."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from foreign_programs import mascot, need_node, shoot
from PIL import Image
from ui_runs import free_port, made, serving, stand_in, until

from splat_esd.export.page import Frame, Result, with_final, write_page
from splat_esd.formats.spz import pack_spz
from splat_esd.ui.interface import Desk
from splat_esd.ui.queue import Queue
from splat_esd.ui.server import PageServer

pytestmark = pytest.mark.foreign

SIZES = [(1280, 800, False), (1920, 1080, False), (390, 844, True)]
LATER = "new Promise((done) => setTimeout(done, 1500))"
ACROSS = "document.documentElement.scrollWidth - innerWidth"
OPEN = "document.querySelector('.card[data-run^=\"a-corgi\"]').click()"
TYPE = """(() => {
  const prompt = document.getElementById("prompt");
  prompt.value = %s;
  prompt.dispatchEvent(new Event("input", { bubbles: true }));
})()"""
# The least contrast of any text with what lies behind it, and where.
CONTRAST = """(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = parse(color).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor, [, , , alpha = 1] = parse(color);
      if (alpha === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility() && !e.disabled)
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || e.value)
    .map((e) => {
      const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)];
    });
  return found.sort(([a], [b]) => a - b)[0];
})()"""
UNNAMED = """[...document.querySelectorAll("input, select, textarea, button, iframe, progress, a")]
  .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.title))
  .map((e) => e.outerHTML)"""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    need_node()
    desk = Desk(tmp_path / "outputs", Queue(stand_in))
    folder = made(desk.out, "a corgi", "20260101-000000-s0", "finished")
    early = Frame("step 0", pack_spz(mascot(0, count=300)), 0)
    about = Result("a corgi", frames=[early], curves={"score norm": [(0, 1.0), (50, 0.5)]})
    write_page([with_final(about, mascot(0))], folder / "viewer.html", title="a corgi")
    Image.new("RGB", (64, 64), (200, 80, 20)).save(folder / "turntable.webp")
    (folder / "splat.ply").write_bytes(b"ply" * 1000)
    made(desk.out, "a green frog", "20260101-000001-s0", "failed", why="the disk is full.")
    made(desk.out, "a blue owl", "20260101-000002-s0", "interrupted")
    yield desk
    desk.queue.close()


@pytest.fixture
def server(desk: Desk) -> Iterator[PageServer]:
    with serving(desk) as server:
        yield server


def seen(server: PageServer, *actions: str, out: Path | None = None, **job) -> dict:
    """Opens the page; it may ask its own server alone, and no error may be logged."""
    job = {"width": 1280, "height": 800, "allowed": [f"{server.url}/"]} | job
    told = shoot(f"{server.url}/", out, actions=list(actions), **job)
    assert told["asked"] == [], "the page wanted something from elsewhere"
    return told


def grow(folder: Path, step: int) -> None:
    """What a run leaves on its way: numbers and a preview, orange in front."""
    lines = [json.dumps({"step": s, "seconds": s / 2.0}) for s in range(5, step + 1, 5)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "previews").mkdir(exist_ok=True)
    picture = np.zeros((300, 768, 3), np.uint8)
    picture[:128, :128] = (250, 140, 20)
    Image.fromarray(picture).save(folder / "previews" / f"{step:06d}.png")


@pytest.mark.parametrize(("width", "height", "phone"), SIZES)
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_lies_aside_and_all_can_be_read(tmp_path, server, width, height, phone, dark):
    wrong = TYPE % json.dumps("a zebra wearing a " + "very" * 40)
    actions = [OPEN, wrong, LATER, ACROSS, CONTRAST, UNNAMED]
    job = {"width": width, "height": height, "phone": phone, "dark": dark}
    told = seen(server, *actions, out=tmp_path / "shot.png", **job)["returned"]
    across, (contrast, where), unnamed = told[3:]
    assert across <= 0
    assert contrast >= 4.5, where
    assert unnamed == []
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("L"))
    assert (np.median(shot[:, 2]) < 100) == dark, "the edge of the page"


def test_an_unknown_word_is_answered_while_it_is_typed(server):
    said = "[document.getElementById('problem').textContent, document.getElementById('prompt')"
    said += ".getAttribute('aria-invalid')]"
    told = seen(server, TYPE % '"a corgy"', LATER, said, TYPE % '"a corgi"', LATER, said)
    wrong, right = told["returned"][2], told["returned"][5]
    assert "does not know 'corgy' (did you mean corgi?)" in wrong[0]
    assert wrong[1] == "true" and right == ["", "false"]


def test_words_are_put_into_the_prompt_by_pressing_them(server):
    press = """(() => {
      const prompt = document.getElementById("prompt"), seen = [];
      for (const word of %s) {
        [...document.querySelectorAll("#words button")].find((b) => b.textContent === word).click();
        seen.push(prompt.value);
      }
      return seen;
    })()"""
    words = ["cat", "orange", "top hat", "owl", "blue", "crown", "crown", "blue"]
    (found,) = seen(server, press % json.dumps(words))["returned"]
    assert found == [
        "a cat",
        "an orange cat",
        "an orange cat wearing a top hat",
        "an orange owl wearing a top hat",
        "a blue owl wearing a top hat",
        "a blue owl wearing a crown",
        "a blue owl",
        "an owl",
    ]


def test_the_keyboard_reaches_the_form_in_order(server):
    told = seen(server, "document.body.focus()", keys=["Tab"] * 9)
    form = ["prompt", "quality", "seed", "another", "lambda", "cfg", "prior", "Make it"]
    assert told["focused"][:8] == form
    assert "words" in told["focused"][8]


def test_a_run_is_asked_for_by_return_watched_stopped_and_continued(tmp_path, server, desk):
    press = (
        "[...document.querySelectorAll('%s button')].find((b) => b.textContent === '%s').click()"
    )
    ends = (
        "(async () => { while (!(%s)) await new Promise((d) => setTimeout(d, 50)); return %s; })()"
    )
    enter = """document.getElementById("prompt").dispatchEvent(
      new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true }))"""
    step = "document.querySelector('.step')?.textContent"
    color = """(() => {
      const pen = document.querySelector("#running canvas").getContext("2d");
      return [...pen.getImageData(9, 9, 1, 1).data];
    })()"""
    status = "document.querySelector('.card .status').textContent"
    first = "document.querySelector('.card').click()"

    def work() -> None:
        until(lambda: desk.queue.running is not None, 60)
        grow(desk.out / desk.queue.running, 20)

    threading.Thread(target=work, daemon=True).start()
    told = seen(
        server,
        TYPE % '"a red fox"',
        enter,
        ends % (f"{step}?.startsWith('step 20 ')", step),
        ends % (f"{color}[3] > 0", color),
        press % ("#queue", "Stop and save"),
        ends % (f"{status} === 'interrupted'", status),
        first,
        press % ("#take", "Continue"),
        ends % (f"{status} === 'running'", status),
        out=tmp_path / "shot.png",
    )["returned"]
    assert told[2] == "step 20 of 500 \u00b7 4:00 left"
    red, green, blue, alpha = told[3]
    assert (red > 200, green < 200, blue < 100, alpha) == (True, True, True, 255)
    (folder,) = desk.out.glob("a-red-fox/*")
    assert (folder / "signals").read_text() == "x"


def test_what_has_just_been_made_is_shown(server, desk):
    def work() -> None:
        until(lambda: desk.queue.running is not None, 60)
        (desk.queue.running / "viewer.html").write_text("made")
        time.sleep(2.5)  # long enough to be seen at work
        (desk.queue.running / "end").touch()

    threading.Thread(target=work, daemon=True).start()
    ends = """(async () => {
      while (!document.querySelector("iframe")) await new Promise((done) => setTimeout(done, 50));
      return document.getElementById("shown-title").textContent;
    })()"""
    submit = "document.getElementById('form').requestSubmit()"
    (_, _, title) = seen(server, TYPE % '"a red fox"', submit, ends)["returned"]
    assert title.startswith("a red fox \u00b7 seed 0")


def test_a_page_whose_program_has_gone_says_so(tmp_path):
    command = [sys.executable, "-m", "splat_esd", "ui", f"out={tmp_path}", f"port={free_port()}"]
    page = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert page.stderr is not None
    with page.stderr:
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+", page.stderr.readline())
        threading.Timer(8, page.terminate).start()
        lost = """new Promise((done) => {
          const lost = document.getElementById("lost");
          setInterval(() => lost.hidden || done(lost.textContent), 50);
          setTimeout(() => done("still there"), 60000);
        })"""
        forgiven = {"forgiven": "ERR_", "allowed": [f"{url}/"]}
        told = shoot(f"{url}/", actions=[lost], **forgiven)
        assert "start it again by splat-esd ui" in told["returned"][0]
        assert page.wait(20) == 0


def test_a_finished_run_offers_its_files_and_its_viewer(server):
    ask = """(async () => {
      const links = [...document.querySelectorAll("#take a")];
      const sizes = await Promise.all(links.map(async (link) => {
        const answer = await fetch(link.href);
        return [link.textContent.split(" ")[0], answer.status, (await answer.text()).length > 0];
      }));
      const frame = document.querySelector("iframe");
      return [sizes, frame.getAttribute("src"), frame.contentDocument];
    })()"""
    (_, _, (links, frame, inside)) = seen(server, OPEN, LATER, ask)["returned"]
    assert {"splat.ply", "viewer.html", "config.yaml", "Open"} <= {name for name, _, _ in links}
    assert all(status == 200 and there for _, status, there in links)
    assert frame == "/runs/a-corgi/20260101-000000-s0/viewer.html#inside"
    assert inside is None, "a page of a run is kept apart from this one"


def test_each_quality_says_how_long_it_took_here(server, desk):
    for i, seconds in enumerate((130.0, 200.0, 800.0)):
        took = {"seconds_training": seconds, "seconds_export": 20.0}
        made(desk.out, "a corgi", f"20260101-0001{i:02d}-s0", "finished", **took)
    ask = "[...document.querySelectorAll('#quality option')].map((o) => [o.value, o.textContent])"
    asked = seen(server, LATER, ask)["returned"][-1]
    assert ["normal", "normal, 4 min"] in asked, "the middle one of three"
    assert ["draft", "draft"] in asked, "nothing is known of it yet"


def test_a_viewer_inside_turns_slowly_until_it_is_touched(tmp_path, server):
    address = f"{server.url}/runs/a-corgi/20260101-000000-s0/viewer.html"
    turned = """(async () => {
      const at = () => page.camera.azimuth, later = () => new Promise((d) => setTimeout(d, 700));
      const canvas = document.querySelector("canvas"), seen = [at()];
      canvas.setPointerCapture = () => {};
      await later(); seen.push(at());
      canvas.dispatchEvent(new PointerEvent("pointerdown", { pointerId: 1, clientX: 9 }));
      seen.push(at()); await later(); seen.push(at());
      return [seen, canvas.getBoundingClientRect().height / innerHeight, origin];
    })()"""
    for ending, is_inside in (("#inside", True), ("", False)):
        job = {"width": 700, "height": 500, "allowed": [address]}
        told = shoot(address + ending, tmp_path / "shot.png", actions=[turned], **job)
        assert told["asked"] == []
        ((before, after, touched, later), share, origin) = told["returned"][0]
        assert (after > before) == is_inside and later == touched
        assert (share > 0.8) == is_inside
        assert origin == "null"
