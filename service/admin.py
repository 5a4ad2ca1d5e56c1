"""Asks a running server to do something, by its private HTTP port."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from service.errors import AdvsentryError, SetupError, Unavailable
from service.private_http import FORGIVE, HISTORY, RELOAD
from service.settings import Settings

__all__ = ["DEFAULT_ADMIN", "ask_forgive", "ask_history", "ask_reload", "post"]

DEFAULT_ADMIN = f"http://{Settings().metrics_host}:{Settings().metrics_port}"
TIMEOUT_S = 120.0
"""A large bundle takes its time to load."""


def ask_reload(url: str) -> str:
    """Has a server load its bundle anew.

    Args:
        url: such as `http://127.0.0.1:9464`.

    Returns:
        What it serves now, and what it served before.

    Raises:
        SetupError: the address is none.
        Unavailable: nobody answers there.
        AdvsentryError: the server refuses, and says why.
    """
    return post(_connection(url), url, RELOAD)


def ask_history(url: str) -> dict[str, Any]:
    """Who is watched, as `service.watching.report.told` has it; raises as `ask_reload`."""
    found: dict[str, Any] = json.loads(post(_connection(url), url, HISTORY))
    return found


def ask_forgive(url: str, client: str) -> int:
    """Forgives a client, or with an empty name all whom nobody vouches for; raises as `ask_reload`.

    Returns:
        How many flags there were.
    """
    return int(post(_connection(url), url, FORGIVE, client))


def _connection(url: str) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme == "http" and parts.hostname is not None and parts.path in ("", "/")
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        is_one = False
    if not is_one:
        raise SetupError(f"--admin: expected an address such as http://127.0.0.1:9464, got {url!r}")
    return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)


def post(connection: http.client.HTTPConnection, where: str, path: str, content: str = "") -> str:
    """Has a server do something, by a connection that is not open yet; closes it.

    Raises:
        Unavailable: nobody answers there.
        AdvsentryError: the server refuses, and says why.
    """
    try:
        connection.request("POST", path, content.encode())
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace").strip()
    except http.client.HTTPException as error:  # its text is what came, be it bytes
        raise Unavailable(f"{where}: what answers there is no HTTP; is it the server's metrics address?") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise Unavailable(f"{where}: no answer: {reason}; is it the server's metrics address?") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise AdvsentryError(text[:1000] or f"{where}: answered {answer.status}")
    return text
