"""`advsentry token`: makes tokens, and their entries in the file of identities."""

import argparse
import sys
from pathlib import Path

from service.rpc.call import Scope
from service.tokens import add_entry, new_token

__all__ = ["add_token_commands"]


def add_token_commands(parser: argparse.ArgumentParser) -> None:
    """The commands below `token`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="make a token for a caller")
    new.description = (
        "Makes a token. Prints it on standard output, this once: give it to the caller. The entry for the file of "
        "identities, which holds only its SHA-256, goes to standard error or to --identities."
    )
    new.add_argument("name", metavar="NAME", help="who it is, for the log")
    new.add_argument(
        "--scope",
        action="append",
        choices=[scope.value for scope in Scope],
        metavar="SCOPE",
        help=f"what may be done with it, one of {', '.join(Scope)}; may stand more than once (detect)",
    )
    new.add_argument("--images-per-s", type=float, metavar="X", help="its own rate (the server's)")
    new.add_argument("--days", type=int, metavar="N", help="days for which it is good (for ever)")
    new.add_argument("--identities", type=Path, metavar="FILE", help="add the entry to this file")
    new.set_defaults(command=_new)


def _new(options: argparse.Namespace) -> int:
    made = new_token(
        options.name,
        [Scope(scope) for scope in options.scope or [Scope.DETECT]],
        images_per_s=options.images_per_s,
        days=options.days,
    )
    if options.identities is None:
        sys.stderr.write(made.entry)
    else:
        add_entry(options.identities, made.entry)
    sys.stdout.write(made.token + "\n")
    return 0
