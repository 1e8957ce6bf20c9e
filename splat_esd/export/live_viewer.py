"""A live view of splats in the browser, on this machine only."""

import io
import math
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splat_esd.browser import LOCAL, is_local
from splat_esd.config.schema import ImportConfig
from splat_esd.errors import UsageError
from splat_esd.formats.frame import UNIT_BALL, Frame, viewing_frame
from splat_esd.formats.read import open_splats
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import quat_to_rotmat

_GRACE = 5.0  # seconds: a page that is loaded again is back by then


class LiveViewer:
    """A web page on this machine that shows the splats as they are, updated by `show`.

    Colours are those of degree 0: viser knows no spherical harmonics.

    Arguments:
        port: The first port to try; the next free one is taken. 0 takes any.
        frame: The ball that the camera looks at; splats are shown as they lie in it.
    Raises:
        ValueError: If there is no such port.
    """

    def __init__(self, *, port: int = 8080, frame: Frame = UNIT_BALL) -> None:
        import viser

        if not 0 <= port < 65536:
            raise ValueError(f"port must lie in [0, 65535], got {port}.")
        self._frame = frame
        with _quiet(), _for_this_machine_only():
            self._server = viser.ViserServer(
                host=LOCAL, port=port, label="splat-esd", verbose=False
            )
        self._server.scene.set_up_direction("+z")
        camera = self._server.initial_camera
        camera.position = (2.5, 0.0, 0.7)  # before the front, a little above
        camera.look_at = (0.0, 0.0, 0.0)
        camera.fov = math.radians(45)

    @property
    def url(self) -> str:
        return f"http://{LOCAL}:{self._server.get_port()}"

    def show(self, gaussians: Gaussians) -> None:
        """Replaces what the page shows.

        Raises:
            UsageError: If there are no splats.
        """
        if not len(gaussians):
            raise UsageError("there are no splats to show.")
        gaussians = self._frame.place(gaussians.detach().to("cpu"))
        axes = quat_to_rotmat(gaussians.quats) * gaussians.scales[:, None, :]
        self._server.scene.add_gaussian_splats(
            "/splats",
            centers=gaussians.means.numpy(),
            covariances=(axes @ axes.mT).numpy(),
            rgbs=gaussians.colors.clamp_max(1).numpy(),
            opacities=gaussians.opacities[:, None].numpy(),
        )

    def stop(self) -> None:
        """Closes the page's server; browsers keep what they last saw."""
        with _quiet():
            self._server.stop()


@dataclass(frozen=True)
class Controls:
    """What may be turned while a run goes on; `lam` is None where there is no lambda."""

    lam: float | None
    cfg_scale: float


class TrainingView(LiveViewer):
    """The live view of a run: pause, single steps, sliders for the guidance, a button to export.

    The run asks for the next wish between its steps; the page only remembers what was pressed.

    Arguments:
        controls: Where the sliders stand at first.
    """

    def __init__(self, controls: Controls, *, port: int = 8080) -> None:
        super().__init__(port=port)
        self.paused = False
        self._alone_since: float | None = None
        self._wishes: queue.Queue[str] = queue.Queue()
        gui = self._server.gui
        self._status = gui.add_markdown("starting")
        self._pause = gui.add_button("Pause")
        self._pause.on_click(lambda _: self._toggle())
        gui.add_button("One step", hint="then pause").on_click(lambda _: self._one_step())
        self._lam = None
        if controls.lam is not None:
            self._lam = gui.add_slider("lambda", 0.0, max(1.0, controls.lam), 0.05, controls.lam)
        top = max(20.0, 2 * controls.cfg_scale)
        self._cfg_scale = gui.add_slider("CFG scale", 0.0, top, 0.5, controls.cfg_scale)
        export = gui.add_button("Export", hint="write the files of export.formats now")
        export.on_click(lambda _: self._wishes.put("export"))

    @property
    def controls(self) -> Controls:
        lam = None if self._lam is None else float(self._lam.value)
        return Controls(lam, float(self._cfg_scale.value))

    def next_wish(self) -> str:
        """Returns "step" or "export"; while the run is paused, waits until one is asked for, or
        until nobody has been connected for `_GRACE` seconds: a closed page cannot go on.
        """
        while True:
            try:
                # In slices, so that Ctrl-C and the pause button are heard while nothing comes.
                return self._wishes.get(block=self.paused, timeout=0.1)
            except queue.Empty:
                if not self.paused:
                    return "step"
                if self._is_left():
                    self._toggle()

    def _is_left(self) -> bool:
        now = time.monotonic()
        if self._server.get_clients():
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        return self._alone_since is not None and now - self._alone_since > _GRACE

    def tell(self, text: str) -> None:
        """Says on the page how the run stands."""
        self._status.content = text

    def stop(self) -> None:
        """Says on the page that the run has stopped, and closes its server."""
        self._status.content += "\n\n**stopped**"
        self._server.flush()
        super().stop()

    def _toggle(self) -> None:
        self.paused = not self.paused
        self._alone_since = None
        self._pause.label = "Go on" if self.paused else "Pause"

    def _one_step(self) -> None:
        if not self.paused:
            self._toggle()
        self._wishes.put("step")


def view(path: Path | str, imported: ImportConfig | None = None, *, port: int = 8080) -> LiveViewer:
    """Shows a splat file, or the splat.ply of a run's folder, in the browser.

    The caller prints the `url`, waits, and calls `stop`.

    Arguments:
        imported: How the file is read.
        port: The first port to try.
    Raises:
        UsageError: If there is no such file or it holds no splats.
    """
    gaussians = open_splats(path, imported)
    viewer = LiveViewer(port=port, frame=viewing_frame(gaussians))
    viewer.show(gaussians)
    return viewer


@contextmanager
def _for_this_machine_only() -> Iterator[None]:
    """Makes the server that viser starts within the block refuse other names and other pages.

    It listens on 127.0.0.1, but a page of any site in the same browser could name it: under a
    foreign name that leads here (Host), or by a WebSocket from that page (Origin).
    """
    from viser.infra import _infra

    server = _infra.websockets.asyncio.server
    serve = server.serve

    def guarded(*args: Any, process_request: Callable[..., Any], **options: Any) -> Any:
        def check(connection: Any, request: Any) -> Any:
            if not is_local(request.headers.get_all("Host"), request.headers.get_all("Origin")):
                return connection.respond(403, "This view is for pages of this machine only.\n")
            return process_request(connection, request)

        return serve(*args, process_request=check, **options)

    server.serve = guarded
    try:
        yield
    finally:
        server.serve = serve


def _quiet() -> redirect_stdout:
    # viser prints a banner and a farewell, asked or not; the caller decides what is printed.
    return redirect_stdout(io.StringIO())
