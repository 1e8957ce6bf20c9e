"""Splats in the browser: a page that needs no server, and a live view on this machine only."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.export import replacing
from splat_esd.export.ply import read_ply
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import quat_to_rotmat

if TYPE_CHECKING:
    from viser import ViserServer

_LOCAL = "127.0.0.1"  # viser's own default is every network this machine is on.


def write_viewer(gaussians: Gaussians, path: Path | str) -> Path:
    """Writes one HTML page with the splats inside; it opens from disk and asks no network.

    Colours are those of degree 0: viser knows no spherical harmonics.

    Raises:
        ValueError: If there are no splats.
        EnvironmentProblem: If no local port is free or the disk does not take the file.
    """
    server = _serve(port=8080)
    try:
        _show(server, gaussians)
        page = server.scene.as_html()
    finally:
        server.stop()
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")
    return Path(path)


class LiveViewer:
    """A web page on this machine that shows the splats as they are, updated by `show`.

    Arguments:
        port: The first port to try; the next free one is taken.
    Raises:
        EnvironmentProblem: If no local port is free.
    """

    def __init__(self, *, port: int = 8080) -> None:
        self._server = _serve(port=port)

    @property
    def url(self) -> str:
        return f"http://{_LOCAL}:{self._server.get_port()}"

    def show(self, gaussians: Gaussians) -> None:
        """Replaces what the page shows."""
        _show(self._server, gaussians)

    def stop(self) -> None:
        """Closes the page's server; browsers keep what they last saw."""
        self._server.stop()


def view(path: Path | str, *, port: int = 8080) -> LiveViewer:
    """Shows a PLY, or the splat.ply of a run's folder, in the browser.

    The caller prints the `url`, waits, and calls `stop`.

    Raises:
        UsageError: If there is no such file or it holds no splats.
        EnvironmentProblem: If no local port is free.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "splat.ply").is_file():
            raise UsageError(f"{path} holds no splat.ply; expected a PLY file or a run's folder.")
        path = path / "splat.ply"
    gaussians = read_ply(path)
    viewer = LiveViewer(port=port)
    viewer.show(gaussians)
    return viewer


def _serve(*, port: int) -> "ViserServer":
    import viser

    try:
        server = viser.ViserServer(host=_LOCAL, port=port, label="splat-esd", verbose=False)
    except (OSError, RuntimeError) as error:
        raise EnvironmentProblem(f"no viewer on {_LOCAL} from port {port}: {error}") from error
    server.scene.set_up_direction("+z")
    elevation, distance = math.radians(15), 2.6
    server.initial_camera.position = (
        distance * math.cos(elevation),
        0.0,
        distance * math.sin(elevation),
    )
    server.initial_camera.look_at = (0.0, 0.0, 0.0)
    server.initial_camera.fov = math.radians(45)
    return server


def _show(server: "ViserServer", gaussians: Gaussians) -> None:
    if not len(gaussians):
        raise ValueError("there are no splats to show.")
    gaussians = gaussians.detach().to("cpu")
    axes = quat_to_rotmat(gaussians.quats) * gaussians.scales[:, None, :]
    server.scene.add_gaussian_splats(
        "/splats",
        centers=gaussians.means.numpy(),
        covariances=(axes @ axes.mT).numpy(),
        rgbs=gaussians.colors.clamp_max(1).numpy(),
        opacities=gaussians.opacities[:, None].numpy(),
    )
