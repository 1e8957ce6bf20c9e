"""`splat-esd ui`: the page is served until Ctrl-C, which saves the run that is worked on."""

from collections.abc import Callable

from splat_esd import console
from splat_esd.browser import open_in_browser
from splat_esd.config.commands import UiArguments
from splat_esd.runs.interrupt import listening
from splat_esd.ui.gallery import status_of
from splat_esd.ui.interface import Desk
from splat_esd.ui.queue import Queue
from splat_esd.ui.server import PageServer, open_server


def main(asked: UiArguments, *, opened: Callable[[str], bool] = open_in_browser) -> None:
    """Serves the page until a signal ends it; a run that is worked on is saved first.

    Raises:
        EnvironmentProblem: If no port is free.
    """
    with listening() as stop:
        desk = Desk(asked.out)
        server = open_server(desk, asked.port)
        try:
            _introduce(server, asked, opened(server.url))
            server.serve_forever(poll_interval=0.3)
        except KeyboardInterrupt:
            pass
        finally:
            with stop.shielded():
                server.server_close()
                console.note(_farewell(desk.queue))


def _introduce(server: PageServer, asked: UiArguments, is_open: bool) -> None:
    taken = "" if server.server_port == asked.port else f"port {asked.port} is taken; "
    where = "is open in your browser" if is_open else "waits for a browser"
    console.note(
        f"{taken}the page of {asked.out} {where}: {server.url} (this machine only); Ctrl-C stops."
    )


def _farewell(queue: Queue) -> str:
    """Ends the queue and says what became of its run."""
    if queue.running is None and queue.close() is None:
        return "stopped; no run was going on."
    with console.busy(f"saving the run in {queue.running}"):
        ended = queue.close()
    if ended is None:
        return "stopped; no run was going on."
    folder, is_saved = ended
    if not is_saved:
        return f"stopped; the run in {folder} is still being saved, by a process of its own."
    status, why = status_of(folder)
    became = {
        "finished": "is finished.",
        "new": "had not begun.",
        "failed": f"failed: {why}",
    }.get(status, f'is saved. Continue it on the page, or: splat-esd resume="{folder}"')
    return f"stopped; the run in {folder} {became}"
