import base64
import json
import re

import pytest
import torch
from test_ply import some

from splat_esd.errors import UsageError
from splat_esd.export.images import portrait_frame
from splat_esd.export.page import (
    FRAMES_MAX,
    RESULTS_MAX,
    Frame,
    Result,
    with_final,
    write_page,
)
from splat_esd.formats.frame import viewing_frame
from splat_esd.formats.spz import pack_spz


def told(path) -> dict:
    """Reads back what the page is told."""
    page = path.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="results">(.*?)</script>', page, re.S)
    return json.loads(data)


def test_the_page_holds_the_splats_as_spz(tmp_path):
    splats = some()
    result = with_final(Result("a corgi"), splats)
    path = write_page([result], tmp_path / "viewer.html", title="a corgi")
    data = told(path)
    ((frame,),) = (result["frames"] for result in data["results"])
    assert base64.b64decode(frame["spz"]) == pack_spz(viewing_frame(splats).place(splats))
    assert list(tmp_path.iterdir()) == [path]


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    page = write_page([with_final(Result("x"), some())], tmp_path / "a.html", title="x").read_text()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?!data:)[^\"]+", page)
    assert not re.findall(r"\b(?:fetch|XMLHttpRequest|import)\(", page)
    assert "{{" not in page


def test_a_prompt_is_no_html(tmp_path):
    nasty = "</script><img src=x onerror=alert(1)><!-- {{results}} &amp; \u2028 a corgi"
    result = with_final(Result(nasty, facts={nasty: nasty}), some())
    path = write_page([result], tmp_path / "viewer.html", title=nasty)
    (read,) = told(path)["results"]
    assert read["title"] == nasty and read["facts"] == {nasty: nasty}
    assert "<img" not in path.read_text(encoding="utf-8")


def test_the_timeline_ends_with_the_result_and_forgets_what_came_after_a_resume(tmp_path):
    frames = [Frame(f"step {step}", b"", step) for step in (0, 10, 20, 30)]
    result = with_final(Result("x", frames=frames, curves={"score": [(1, 2.0), (20, 1.0)]}), some())
    assert [frame.step for frame in result.frames] == [0, 10, 20]
    assert result.frames[-1].spz == pack_spz(some())


def test_a_long_timeline_is_thinned(tmp_path):
    frames = [Frame(f"step {step}", b"", step) for step in range(500)]
    steps = [frame.step for frame in with_final(Result("x", frames=frames), some()).frames]
    assert len(steps) == FRAMES_MAX + 1
    assert steps[0] == 0 and steps[-2] == 499


def test_the_camera_looks_at_the_object_in_the_axes_of_the_page(tmp_path):
    splats = some()
    splats.means += torch.tensor([1.0, 2.0, 3.0])
    trained = with_final(Result("x", frames=[Frame("step 0", b"", 0)]), splats)
    center, radius = trained.ball.center, trained.ball.radius
    assert radius == portrait_frame(splats).radius
    data = told(write_page([trained], tmp_path / "a.html", title="x"))
    (read,) = data["results"]
    assert read["frame"] == {"center": [center[1], center[2], center[0]], "radius": radius}
    assert data["distance"] == 2.8


@pytest.mark.parametrize("count", [0, RESULTS_MAX + 1])
def test_no_more_results_than_a_browser_draws(tmp_path, count):
    with pytest.raises(ValueError, match=f"shows 1 to {RESULTS_MAX} results, got {count}"):
        write_page([Result("x")] * count, tmp_path / "viewer.html", title="x")


def test_no_splats_make_no_page():
    with pytest.raises(UsageError, match="there are no splats"):
        with_final(Result("x"), some().select(torch.zeros(20, dtype=torch.bool)))
