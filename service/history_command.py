"""`advsentry history`: whom a server watches, and forgiving."""

import argparse
import json
import sys
import time

from service.admin import DEFAULT_ADMIN, ask_forgive, ask_history
from service.errors import SetupError
from service.history.types import NOBODY
from service.watching.report import as_text

__all__ = ["add_history_commands"]


def add_history_commands(parser: argparse.ArgumentParser) -> None:
    """`history` itself, and the command below it."""
    parser.description = (
        "Lists the clients whose queries the server on this machine takes for a search, and why; the server takes "
        "--admin on for that. Of queries without an identity, it lists components of near queries."
    )
    _add_admin(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(command=_list)
    forgive = parser.add_subparsers(metavar="COMMAND").add_parser("forgive", help="forget what speaks against a client")
    forgive.description = (
        "Forgets a client's flags and what speaks against its queries, which stay kept. Who is cut off is served again."
    )
    who = forgive.add_mutually_exclusive_group(required=True)
    who.add_argument("client", nargs="?", metavar="CLIENT", help="its name, as the list has it")
    who.add_argument("--nobody", action="store_true", help="all queries without an identity")
    _add_admin(forgive, default=argparse.SUPPRESS)  # else it would overrule the one before `forgive`
    forgive.set_defaults(command=_forgive)


def _add_admin(parser: argparse.ArgumentParser, *, default: str = DEFAULT_ADMIN) -> None:
    parser.add_argument("--admin", default=default, metavar="URL", help=f"its metrics address ({DEFAULT_ADMIN})")


def _list(options: argparse.Namespace) -> int:
    found = ask_history(options.admin)
    sys.stdout.write((json.dumps(found) if options.json else as_text(found, time.time())) + "\n")
    return 0


def _forgive(options: argparse.Namespace) -> int:
    if not options.nobody and not options.client:  # such as "$UNSET"
        raise SetupError("expected a client's name, or --nobody, got ''")
    flags = ask_forgive(options.admin, NOBODY if options.nobody else options.client)
    sys.stdout.write(f"{flags} flags are forgiven\n")
    return 0
