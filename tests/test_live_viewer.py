import base64
import re
import socket
import threading
import time
import urllib.request

import msgspec
import numpy as np
import pytest
import torch
import zstandard

from splat_esd.errors import UsageError
from splat_esd.export.live_viewer import Controls, LiveViewer, TrainingView, view
from splat_esd.formats.ply import write_ply
from splat_esd.gaussians import Gaussians


def some(n: int = 30) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.randn(n, 3, generator=generator),
        quats=torch.randn(n, 4, generator=generator),
        log_scales=torch.randn(n, 3, generator=generator) - 3,
        logit_opacities=torch.randn(n, generator=generator),
        sh=torch.randn(n, 4, 3, generator=generator),
    )


@pytest.fixture
def viewer():
    viewer = LiveViewer(port=0)
    yield viewer
    viewer.stop()


def unpack(viewer: LiveViewer) -> tuple[dict[str, dict], np.ndarray]:
    """Reads back what is shown: viser's messages by type, and the splats [N, 8] as uint32."""
    page = viewer._server.scene.as_html()
    packed = base64.b64decode(re.search(r'__VISER_EMBED_DATA__="([^"]+)"', page)[1])
    inner = zstandard.ZstdDecompressor().decompress(
        packed[8:], max_output_size=int.from_bytes(packed[:8], "little")
    )
    length = int.from_bytes(inner[:8], "little")
    record = msgspec.msgpack.decode(inner[8 : 8 + length])
    messages = {message["type"]: message for _, message in record["messages"]}
    (size,) = record["binaryBufferLengths"]
    start = (8 + length + 7) // 8 * 8
    return messages, np.frombuffer(inner[start : start + size], np.uint32).reshape(-1, 8)


def test_the_view_holds_the_splats(viewer):
    splats = some()
    viewer.show(splats)
    messages, rows = unpack(viewer)
    assert "GaussianSplatsMessage" in messages
    np.testing.assert_array_equal(rows[:, :3].copy().view(np.float32), splats.means)
    rgba = rows[:, 7:].copy().view(np.uint8) / 255
    np.testing.assert_allclose(rgba[:, :3], splats.colors.clamp(0, 1), atol=1 / 255)
    np.testing.assert_allclose(rgba[:, 3], splats.opacities, atol=1 / 255)
    variances = rows[:, 4:7].copy().view(np.float16)[:, [0, 3, 5]].sum(1)
    np.testing.assert_allclose(variances, splats.scales.square().sum(1), rtol=5e-3, atol=1e-6)


def test_the_view_opens_before_the_front_with_z_up(viewer):
    viewer.show(some())
    messages, _ = unpack(viewer)
    x, y, z = messages["SetCameraPositionMessage"]["position"]
    assert x > 2 and y == 0 and 0 < z < x
    assert tuple(messages["SetCameraLookAtMessage"]["look_at"]) == (0, 0, 0)


def test_nothing_is_printed(capfd):
    LiveViewer(port=0).stop()
    assert capfd.readouterr() == ("", "")


def test_no_splats_are_refused(viewer):
    with pytest.raises(UsageError, match="there are no splats to show"):
        viewer.show(some(0))


def test_the_live_view_answers_on_this_machine_alone(tmp_path):
    write_ply(some(), tmp_path / "splat.ply")
    viewer = view(tmp_path, port=0)
    try:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", viewer.url)
        with urllib.request.urlopen(viewer.url) as answer:
            assert answer.status == 200
        _, rows = unpack(viewer)
        assert len(rows) == 30
    finally:
        viewer.stop()


def test_a_live_view_shows_the_latest_splats(viewer):
    viewer.show(some(10))
    viewer.show(some(20))
    _, rows = unpack(viewer)
    assert len(rows) == 20


def test_a_folder_without_splats_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"holds no splat.ply .* go on with resume="):
        view(tmp_path)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_refused(port):
    with pytest.raises(ValueError, match=r"port must lie in \[0, 65535\]"):
        LiveViewer(port=port)


def test_a_run_that_is_not_paused_goes_on_step_by_step():
    view = TrainingView(Controls(0.5, 3.0), port=0)
    try:
        assert [view.next_wish() for _ in range(3)] == ["step"] * 3
        assert view.controls == Controls(0.5, 3.0)
    finally:
        view.stop()


def test_a_paused_run_waits_for_a_step_and_stays_paused():
    view = TrainingView(Controls(None, 100.0), port=0)
    try:
        view._toggle()
        threading.Timer(0.3, view._one_step).start()
        begun = time.monotonic()
        assert view.next_wish() == "step"
        assert time.monotonic() - begun > 0.25
        assert view.paused and view.controls == Controls(None, 100.0)
        threading.Timer(0.3, view._toggle).start()
        assert view.next_wish() == "step", "going on is a step too"
        assert not view.paused
    finally:
        view.stop()


def test_a_paused_run_that_everybody_left_goes_on(monkeypatch):
    monkeypatch.setattr("splat_esd.export.live_viewer._GRACE", 0.3)
    view = TrainingView(Controls(None, 1.0), port=0)
    try:
        view._toggle()
        monkeypatch.setattr(view._server, "get_clients", lambda: {0: "somebody"})
        timer = threading.Timer(
            0.8, lambda: monkeypatch.setattr(view._server, "get_clients", lambda: {})
        )
        timer.start()
        begun = time.monotonic()
        assert view.next_wish() == "step"
        assert time.monotonic() - begun > 1.0
        assert not view.paused
    finally:
        view.stop()


def test_a_view_that_has_ended_says_so():
    view = TrainingView(Controls(None, 1.0), port=0)
    view.tell("step 3 of 10")
    view.stop()
    assert view._status.content == "step 3 of 10\n\n**stopped**"


def asked(viewer, **headers):
    """The first line of the answer to a request with these headers."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    port = int(viewer.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall("\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode())
        return connection.recv(100).split(b"\r\n")[0].decode()


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_the_view_answers_its_own_page_and_no_other(viewer):
    host = viewer.url.removeprefix("http://")
    local = host.replace("127.0.0.1", "localhost")
    assert "200" in asked(viewer, Host=host)
    assert "200" in asked(viewer, Host=local)
    assert "403" in asked(viewer, Host="evil.example")
    assert "403" in asked(viewer, Host="127.0.0.1.evil.example")
    socket_of = {"Host": host} | UPGRADE
    assert "101" in asked(viewer, **socket_of, Origin=viewer.url)
    assert "101" in asked(viewer, **socket_of)
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://" + host):
        assert "403" in asked(viewer, **socket_of, Origin=origin)
