"""A live view of splats in the browser, on this machine only."""

import io
import math
import queue
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from splat_esd.errors import UsageError
from splat_esd.formats.ply import read_ply, splat_file
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import quat_to_rotmat

_LOCAL = "127.0.0.1"  # viser's own default is every network this machine is on.


class LiveViewer:
    """A web page on this machine that shows the splats as they are, updated by `show`.

    Colours are those of degree 0: viser knows no spherical harmonics.

    Arguments:
        port: The first port to try; the next free one is taken. 0 takes any.
    Raises:
        ValueError: If there is no such port.
    """

    def __init__(self, *, port: int = 8080) -> None:
        import viser

        if not 0 <= port < 65536:
            raise ValueError(f"port must lie in [0, 65535], got {port}.")
        with _quiet():
            self._server = viser.ViserServer(host=_LOCAL, port=port, label="splat-esd")
        self._server.scene.set_up_direction("+z")
        camera = self._server.initial_camera
        camera.position = (2.5, 0.0, 0.7)  # before the front, a little above
        camera.look_at = (0.0, 0.0, 0.0)
        camera.fov = math.radians(45)

    @property
    def url(self) -> str:
        return f"http://{_LOCAL}:{self._server.get_port()}"

    def show(self, gaussians: Gaussians) -> None:
        """Replaces what the page shows.

        Raises:
            UsageError: If there are no splats.
        """
        if not len(gaussians):
            raise UsageError("there are no splats to show.")
        gaussians = gaussians.detach().to("cpu")
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
class Dials:
    """What may be turned while a run goes on; `lam` is None where there is no lambda."""

    lam: float | None
    cfg_scale: float


class TrainingView(LiveViewer):
    """The live view of a run: pause, single steps, sliders for the guidance, a button to export.

    The run asks for the next wish between its steps; the page only remembers what was pressed.

    Arguments:
        dials: Where the sliders stand at first.
    """

    def __init__(self, dials: Dials, *, port: int = 8080) -> None:
        super().__init__(port=port)
        self.paused = False
        self._wishes: queue.Queue[str] = queue.Queue()
        gui = self._server.gui
        self._status = gui.add_markdown("starting")
        self._pause = gui.add_button("Pause")
        self._pause.on_click(lambda _: self._toggle())
        gui.add_button("One step", hint="then pause").on_click(lambda _: self._one_step())
        self._lam = None
        if dials.lam is not None:
            self._lam = gui.add_slider("lambda", 0.0, 1.0, 0.05, dials.lam)
        top = max(20.0, 2 * dials.cfg_scale)
        self._cfg_scale = gui.add_slider("CFG scale", 0.0, top, 0.5, dials.cfg_scale)
        export = gui.add_button("Export", hint="write the files of export.formats now")
        export.on_click(lambda _: self._wishes.put("export"))

    @property
    def dials(self) -> Dials:
        lam = None if self._lam is None else float(self._lam.value)
        return Dials(lam, float(self._cfg_scale.value))

    def next_wish(self) -> str:
        """Returns "step" or "export"; while the run is paused, waits until one is asked for."""
        while True:
            try:
                # In slices, so that Ctrl-C and the pause button are heard while nothing comes.
                return self._wishes.get(block=self.paused, timeout=0.1)
            except queue.Empty:
                if not self.paused:
                    return "step"

    def tell(self, text: str) -> None:
        """Says on the page how the run stands."""
        self._status.content = text

    def _toggle(self) -> None:
        self.paused = not self.paused
        self._pause.label = "Go on" if self.paused else "Pause"

    def _one_step(self) -> None:
        if not self.paused:
            self._toggle()
        self._wishes.put("step")


def view(path: Path | str, *, port: int = 8080) -> LiveViewer:
    """Shows a PLY, or the splat.ply of a run's folder, in the browser.

    The caller prints the `url`, waits, and calls `stop`.

    Arguments:
        port: The first port to try.
    Raises:
        UsageError: If there is no such file or it holds no splats.
    """
    gaussians = read_ply(splat_file(path))
    viewer = LiveViewer(port=port)
    viewer.show(gaussians)
    return viewer


def _quiet() -> redirect_stdout:
    # viser prints a banner and a farewell, asked or not; the caller decides what is printed.
    return redirect_stdout(io.StringIO())
