"""The live view of a run as a browser sees it."""

import pytest
from foreign_programs import mascot, picture, shoot

from splat_esd.export.live_viewer import Controls, TrainingView

pytestmark = pytest.mark.foreign

BUTTONS = """
  const press = (name) => [...document.querySelectorAll("button")]
    .find((button) => button.textContent.trim() === name).click();
  const later = (ms) => new Promise((done) => setTimeout(done, ms));
"""
THERE = "document.body.innerText.includes('Pause') && Boolean(document.querySelector('canvas'))"


def test_the_buttons_and_sliders_reach_the_run(tmp_path):
    view = TrainingView(Controls(0.5, 3.0), port=0)
    try:
        view.show(mascot(0))
        view.tell("step 7 of 10")
        job = {
            "forgiven": "computeBoundingSphere",
            "ready": THERE,
            "allowed": [view.url, view.url.replace("http", "ws")],
        }
        slide = """(async () => {
          const slider = document.querySelectorAll("[role=slider]")[0];
          slider.focus();
          slider.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
          await new Promise((done) => setTimeout(done, 500));
        })()"""
        press = f"(async () => {{ {BUTTONS} press('%s'); await later(500); }})()"
        text = "document.body.innerText"
        actions = [
            text,
            press % "Export",
            press % "Pause",
            text,
            slide,
            "new Promise((d) => setTimeout(d, 2500))",
        ]
        told = shoot(view.url, tmp_path / "shot.png", actions=actions, width=900, height=600, **job)
        assert told["asked"] == []
        assert "step 7 of 10" in told["returned"][0]
        assert "Go on" in told["returned"][3], "the button says what it does next"
        assert view.paused
        assert view.next_wish() == "export"
        assert view.controls == Controls(1.0, 3.0), "the first slider is at its end"
        colored = picture(tmp_path / "shot.png").amax(-1) - picture(tmp_path / "shot.png").amin(-1)
        assert (colored > 0.4).float().mean() > 0.01, "the splats are there, in colour"
    finally:
        view.stop()
