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
HINT = "is it the server's metrics address?"


def ask_reload(url: str) -> str:
    """Has a server load its bundle anew.

    Args:
        url: such as `http://127.0.0.1:9464`.

    Returns:
        What it serves now, and what it served before.

    Raises:
        SetupError: the address is none.
        Unavailable: nobody answers there, or the server cannot now.
        AdvsentryError: the server refuses, and says why.
    """
    return post(_connection(url), url, RELOAD, hint=HINT)


def ask_history(url: str) -> dict[str, Any]:
    """Who is watched, as `service.watching.report.told` has it; raises as `ask_reload`."""
    found: dict[str, Any] = json.loads(post(_connection(url), url, HISTORY, hint=HINT))
    return found


def ask_forgive(url: str, client: str) -> int:
    """Forgives a client, or with an empty name all whom nobody vouches for; raises as `ask_reload`.

    Returns:
        How many flags there were.
    """
    return int(post(_connection(url), url, FORGIVE, client, hint=HINT))


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


def post(connection: http.client.HTTPConnection, where: str, path: str, content: str = "", *, hint: str = "") -> str:
    """Has a server do something, by a connection that is not open yet; closes it.

    Args:
        hint: what to look at when there is no answer.

    Raises:
        Unavailable: nobody answers there, or the server cannot now.
        AdvsentryError: the server refuses, and says why.
    """
    try:
        connection.request("POST", path, content.encode())
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace").strip()
    except OSError as error:  # before the next: an end without an answer is both
        raise Unavailable("; ".join(filter(None, (f"{where}: no answer: {error.strerror or error}", hint)))) from error
    except http.client.HTTPException as error:  # its text is what came, be it bytes
        raise Unavailable("; ".join(filter(None, (f"{where}: what answers there is no HTTP", hint)))) from error
    finally:
        connection.close()
    if answer.status == http.client.SERVICE_UNAVAILABLE:
        raise Unavailable(text[:1000] or f"{where}: answered {answer.status}")
    if answer.status != http.client.OK:
        raise AdvsentryError(text[:1000] or f"{where}: answered {answer.status}")
    return text
