"""What is for operators only: `GET /metrics`, and commands by POST, on a private address or a Unix socket."""

import ipaddress
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from service.errors import AdvsentryError, SetupError, Unavailable
from service.hosts import may_ask
from service.settings import Settings

__all__ = ["FORGIVE", "HISTORY", "RELOAD", "Command", "PrivateHttp", "Scrape", "metrics_names"]

log = logging.getLogger(__name__)

RELOAD = "/-/reload"
HISTORY = "/-/history"
"""Who is watched."""
FORGIVE = "/-/history/forgive"
MOST_BYTES = 4096
"""Of what comes with a command."""

POLL_S = 0.05
"""After which `close` is noticed, at most."""

Scrape = Callable[[str], tuple[bytes, str]]
"""Takes the Accept header; gives the metrics and their content type."""
Command = Callable[[str], str]
"""Takes what comes with a POST; its text is the answer, an AdvsentryError the refusal. Called in a thread."""


def metrics_names(settings: Settings) -> frozenset[str]:
    """The names by which the metrics may be asked for: those that are set, and the one that they listen on."""
    return frozenset({settings.metrics_host, *filter(None, map(str.strip, settings.metrics_names.split(",")))})


class PrivateHttp:
    """An HTTP server in threads of its own, so that it answers whatever the event loop is at."""

    def __init__(
        self,
        address: tuple[str, int] | Path,
        *,
        scrape: Scrape,
        commands: Mapping[str, Command] | None = None,
        names: Collection[str] = (),
    ) -> None:
        """Listens, and answers from now on.

        Args:
            address: host and port, or a path for a Unix socket.
            commands: what a POST does, by path; None for nothing. By TCP only this machine may ask for it, and no page
                of a browser.
            names: by which it may be asked, beside addresses and localhost; `*` for any. A page of a browser can have
                its own name lead here, and would then read what comes.

        Raises:
            SetupError: the address cannot be had.
        """
        try:
            self._server = _server(address)
        except OSError as error:
            raise SetupError(
                f"metrics cannot listen on {_text(address)}: {error.strerror}; choose another with --metrics-port or "
                "--metrics-host"
            ) from error
        self._server.scrape = scrape
        self._server.commands = commands or {}
        self._server.names = names
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens; 0 for a Unix socket."""
        return 0 if self._server.address_family == socket.AF_UNIX else int(self._server.server_address[1])

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    """Of the plain kind: `http.server`'s own asks the DNS for its name before it listens."""

    daemon_threads = True
    allow_reuse_address = True
    scrape: Scrape
    commands: Mapping[str, Command]
    names: Collection[str]


class _Server6(_Server):
    address_family = socket.AF_INET6


class _UnixServer(_Server):
    address_family = socket.AF_UNIX
    allow_reuse_address = False


_SERVERS: dict[socket.AddressFamily, type[_Server]] = {
    socket.AF_INET: _Server,
    socket.AF_INET6: _Server6,
    socket.AF_UNIX: _UnixServer,
}


def _server(address: tuple[str, int] | Path) -> _Server:
    if isinstance(address, Path):
        family: socket.AddressFamily = socket.AF_UNIX
        place: Any = str(address)  # the type of an address depends on its family
    else:
        family, _, _, _, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        place = found
    return _SERVERS[family](place, _Handler)


def _text(address: tuple[str, int] | Path) -> str:
    if isinstance(address, Path):
        return str(address)
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0  # of a client that sends or reads nothing, in seconds
    server_version = "advsentry"
    sys_version = ""

    def do_GET(self) -> None:  # http.server's name
        """The metrics, at any path but those below /-/ as Prometheus' own client has it."""
        if not self._is_asked_rightly():
            return
        if self.path.startswith("/-/"):
            self._answer(HTTPStatus.NOT_FOUND, "expected GET /metrics\n")
            return
        body, content_type = self.server.scrape(self.headers.get("Accept", ""))
        self._send(HTTPStatus.OK, body, content_type)

    def do_POST(self) -> None:  # http.server's name
        """A command, where they are on."""
        if not self._is_asked_rightly():
            return
        command = self.server.commands.get(self.path)
        if command is None:
            self._answer(
                HTTPStatus.NOT_FOUND, f"expected POST {RELOAD}, {HISTORY} or {FORGIVE}, and a server with --admin on\n"
            )
        elif not self._is_near() or "Origin" in self.headers:
            self._answer(HTTPStatus.FORBIDDEN, "only a command on the server's own machine may ask for that\n")
        elif (content := self._content()) is None:
            self._answer(HTTPStatus.BAD_REQUEST, f"expected at most {MOST_BYTES} bytes of UTF-8\n")
        else:
            try:
                self._answer(HTTPStatus.OK, command(content) + "\n")
            except Unavailable as error:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
            except AdvsentryError as error:
                self._answer(HTTPStatus.CONFLICT, f"{error}\n")

    def _content(self) -> str | None:
        """What came with a POST; None when it is no text or too much."""
        size = self.headers.get("Content-Length", "0")
        if not size.isascii() or not size.isdigit() or len(size) > len(str(MOST_BYTES)) or int(size) > MOST_BYTES:
            return None
        try:
            return self.rfile.read(int(size)).decode()
        except UnicodeDecodeError:
            return None

    def _is_asked_rightly(self) -> bool:
        """Whether by a name that is ours; if not, says so."""
        name = self.headers.get("Host", "")
        if not name or may_ask(name, self.server.names):  # no browser leaves it out
            return True
        self._answer(
            HTTPStatus.MISDIRECTED_REQUEST, "expected an address, localhost or one of --metrics-names as Host\n"
        )
        return False

    def _is_near(self) -> bool:
        if self.server.address_family == socket.AF_UNIX:
            return True
        address = ipaddress.ip_address(self.client_address[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return bool((mapped or address).is_loopback)

    def _answer(self, status: HTTPStatus, text: str) -> None:
        self._send(status, text.encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # http.server's name
        """Says nothing of what anybody asks."""
