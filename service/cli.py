"""The commands of `advsentry`: arguments in, exit status out."""

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from service.app import Ports, run
from service.errors import AdvsentryError
from service.logs import start_logging
from service.settings import Settings, env_name, setting_fields

__all__ = ["run_command"]


def run_command(arguments: Sequence[str] | None) -> int:
    """Parses and runs one command.

    Returns:
        0 when done, 1 after a failure that was explained, 2 (by way of SystemExit) for wrong usage.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except AdvsentryError as error:
        print(f"advsentry: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `advsentry detect ... | head` is no failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="advsentry", description="Classifies images and says which of them are adversarial."
    )
    version = importlib.metadata.version("advsentry")
    parser.add_argument("--version", action="version", version=f"advsentry {version}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="run the gRPC service"))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = "Runs the gRPC service. Each flag may also be set in the environment."
    for name, (text, default) in setting_fields().items():
        text = f"{text} ({default}; {env_name(name)})".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="X", help=text)
    parser.set_defaults(command=_serve)


def _serve(options: argparse.Namespace) -> int:
    settings = Settings.build(os.environ, {name: getattr(options, name) for name in setting_fields()})
    start_logging(settings.log_format, settings.log_level)
    return run(settings, _announce)


def _announce(ports: Ports) -> None:
    print(f"serving {ports}", flush=True)
