"""The page's server: static files, a small JSON interface, and the files of the runs.

It listens on 127.0.0.1, and refuses what a page of another site could send there: a foreign Host
(a name that leads here), a foreign Origin, and a wish that is not JSON (a form of that page).
"""

import errno
import json
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from splat_esd.browser import LOCAL, is_local
from splat_esd.errors import EnvironmentProblem, SplatError, UsageError
from splat_esd.ui.gallery import TYPES, file_of
from splat_esd.ui.interface import GET, POST, Desk

RUNS = "/runs/"
_PAGE = {"/": "page.html"} | {f"/{n}": n for n in ("page.css", "page.js", "parts.js", "words.js")}
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# A page in a run's folder may be anybody's: it runs apart from this one and reaches no network.
_APART = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; frame-ancestors 'self'"
)
_WISH_MAX = 64 << 10  # bytes
_TRIES = 100  # ports


class PageServer(ThreadingHTTPServer):
    """Serves the page of one folder of runs, and keeps its queue going."""

    daemon_threads = True

    def __init__(self, desk: Desk, port: int):
        self.desk = desk
        super().__init__((LOCAL, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{LOCAL}:{self.server_port}"

    def service_actions(self) -> None:
        self.desk.queue.advance()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser that goes away is no error.
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def open_server(desk: Desk, port: int) -> PageServer:
    """Returns a server at this port or the next free one.

    Raises:
        EnvironmentProblem: If a hundred ports are taken.
    """
    for number in range(port, min(port + _TRIES, 65536)):
        try:
            return PageServer(desk, number)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise EnvironmentProblem(
        f"the ports from {port} on are taken, {_TRIES} of them; choose another by port=NUMBER."
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: PageServer

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal is for what a person should know."""

    def _answer(self, serve: Callable[[str], None]) -> None:
        hosts, origins = (self.headers.get_all(name, []) for name in ("Host", "Origin"))
        if not is_local(hosts, origins):
            self.close_connection = True  # what it still sends is not read
            self._text(403, "This page is for browsers of this machine only.")
            return
        try:
            serve(urlsplit(self.path).path)
        except SplatError as error:
            self._json(400, {"problem": str(error)})
        except ConnectionError:
            raise
        except OSError as error:
            self._json(500, {"problem": f"{error.filename or 'a file'}: {error.strerror}."})

    def _get(self, path: str) -> None:
        if path in _PAGE:
            file = Path(__file__).parent / "page" / _PAGE[path]
            self._send(200, file.read_bytes(), f"{_KINDS[file.suffix]}; charset=utf-8", _POLICY)
        elif path in GET:
            self._json(200, GET[path](self.server.desk))
        elif path.startswith(RUNS):
            self._file(unquote(path.removeprefix(RUNS)))
        else:
            self._text(404, "There is nothing here.")

    def _post(self, path: str) -> None:
        wish = self._wish()
        if path not in POST:
            self._text(404, "There is nothing here.")
            return
        try:
            told = POST[path](self.server.desk, wish)
        except SplatError as error:
            # A wish that cannot be granted is answered, and no failure of the page.
            told = {"problem": str(error)}
        self._json(200, told)

    def _wish(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _WISH_MAX:
            self.close_connection = True
            raise UsageError(f"a wish has at most {_WISH_MAX} bytes and says how many.")
        body = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            raise UsageError("a wish is JSON, as application/json.")
        try:
            wish = json.loads(body)
        except (ValueError, RecursionError):
            raise UsageError("a wish is JSON, and this is not.") from None
        if not isinstance(wish, dict):
            raise UsageError("a wish is an object in JSON.")
        return wish

    def _file(self, address: str) -> None:
        path = file_of(self.server.desk.out, address)
        if path is None:
            self._text(404, "There is no such file of a run.")
            return
        stat = path.stat()
        mark = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        if self.headers.get("If-None-Match") == mark:
            self._send(304, b"", TYPES[path.suffix][0], mark=mark)
            return
        policy = _APART if path.suffix == ".html" else "default-src 'none'"
        # Pictures on the page are shown nevertheless.
        kept = {} if path.suffix == ".html" else {"Content-Disposition": "attachment"}
        self._send(200, path.read_bytes(), TYPES[path.suffix][0], policy, mark, **kept)

    def _text(self, status: int, text: str) -> None:
        self._send(status, f"{text}\n".encode(), "text/plain; charset=utf-8")

    def _json(self, status: int, told: dict[str, Any]) -> None:
        self._send(status, json.dumps(told).encode(), "application/json")

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str,
        policy: str = "default-src 'none'",
        mark: str | None = None,
        **headers: str,
    ) -> None:
        self.send_response(status)
        headers |= {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store" if mark is None else "no-cache",
        }
        if mark is not None:
            headers["ETag"] = mark
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
