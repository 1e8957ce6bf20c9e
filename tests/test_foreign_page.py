"""viewer.html as a browser sees it, opened from disk."""

import pytest
from foreign_programs import CAMERA, SIZE, assert_alike, mascot, own_picture, picture, shoot

from splat_esd.export.page import Result, final_frame, write_page

pytestmark = pytest.mark.foreign

LOOK = (
    "page.look({azimuth: %(azimuth)s, elevation: %(elevation)s, distance: %(distance)s})" % CAMERA
)
ALONE = (
    "document.body.innerHTML = ''; for (const {panel} of panels) document.body.append(panel.canvas);"
    f"for (const canvas of document.querySelectorAll('canvas')) canvas.style = 'border: 0; border-radius: 0; width: {SIZE}px; display: inline-block';"
    "redraw(); new Promise((done) => setTimeout(done, 300))"
)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_page_shows_what_we_see(tmp_path, degree):
    splats = mascot(degree)
    result = Result("a mascot", frames=[final_frame(splats)])
    path = write_page([result], tmp_path / "viewer.html", title="a mascot")
    told = shoot(path.as_uri(), tmp_path / "shot.png", actions=[LOOK, ALONE])
    assert told["asked"] == []

    print(
        degree,
        likeness(picture(tmp_path / "shot.png"), own_picture(splats)),
        (picture(tmp_path / "shot.png") - own_picture(splats)).abs().mean(),
    )
    assert_alike(picture(tmp_path / "shot.png"), own_picture(splats), least=0.98)
