"""Command line of the training side: `advsentry-train`.

Exit status: 0 done, 1 a failure that the message explains (an interrupt too), 2 wrong usage.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from service.errors import AdvsentryError
from training.cli import add_commands
from training.launch import is_first

OPTION = re.compile(r"--?[^\W\d]")
"""How an option begins, and no negative number."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status."""
    arguments = _parsed(argv)
    if getattr(arguments, "data", None) is None and "ADVSENTRY_DATA" in os.environ:
        arguments.data = Path(os.environ["ADVSENTRY_DATA"])
    try:
        return int(arguments.command(arguments))
    except AdvsentryError as error:
        return _failed(str(error))
    except OSError as error:  # a folder that cannot be written, a full disk
        if error.strerror is None:  # raised by code, not by the system: a defect, whose traceback is wanted
            raise
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    except KeyboardInterrupt:  # fit defers it while it trains
        return _failed("interrupted")


def _failed(message: str) -> int:
    if is_first():  # of the processes that torchrun started; they fail alike
        print(f"advsentry-train: error: {message}", file=sys.stderr)
    return 1


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse hands over only those key=value that stand before the first option.
    overrides = [text for text in rest if "=" in text and not text.startswith("-")]
    if "overrides" not in arguments or len(overrides) < len(rest):
        if rest and "overrides" in arguments and not any(OPTION.match(text) for text in rest):
            arguments.parser.error(
                f"expected key=value in one word, nothing around the =, such as train.epochs=5; got: {' '.join(rest)}"
            )
        if rest:
            unknown = [text for text in rest if "overrides" not in arguments or text not in overrides]
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return arguments
    arguments.overrides = [*arguments.overrides, *overrides]
    return arguments


class _Parser(argparse.ArgumentParser):
    """Takes flags by their whole names only, also below its commands: a part may come to mean another flag."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="advsentry-train", description="Train, export, evaluate and analyse robust classifiers."
    )
    parser.add_argument("--version", action="version", version=f"advsentry {version('advsentry')}")
    add_commands(parser.add_subparsers(metavar="COMMAND", required=True))
    return parser


if __name__ == "__main__":
    sys.exit(main())
