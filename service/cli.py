"""The commands of `advsentry`: arguments in, exit status out."""

import argparse
import errno
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from service.admin import DEFAULT_ADMIN, ask_reload
from service.app import Ports
from service.client import DEFAULT_TARGET, Client, find_images
from service.client.credentials import read_token
from service.config import Effective
from service.detection.bundle import find_bundle, load_bundle
from service.detection.verdict import RevealMode
from service.errors import AdvsentryError, SetupError
from service.history_command import add_history_commands
from service.logs import start_logging
from service.report import HEADER, describe, detection_json, info_json, row, table
from service.scan import Result, scan_here, scan_remote
from service.score_command import add_score_arguments, score
from service.serve import run, serve
from service.setting_words import placeholder, shown
from service.settings import CONFIG, Settings, env_name, flag_name, setting_fields
from service.supervisor import supervise
from service.token_command import add_token_commands
from service.tune_command import add_tune_arguments, tune_text
from service.worker import WORKER, run_worker

__all__ = ["run_command"]

DEFAULT_BUNDLE = Settings().bundle


def run_command(arguments: Sequence[str] | None) -> int:
    """Parses and runs one command.

    Returns:
        0 when done, 1 after a failure that was explained, 2 (by way of SystemExit) for wrong usage.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if words == [WORKER]:
            status = run_worker()
        else:
            options = _parser().parse_args(words)
            status = int(options.command(options))
        sys.stdout.flush()  # here, where a full disk can be told
        return status
    except AdvsentryError as error:
        print(f"advsentry: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `advsentry detect ... | head` is no failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"advsentry: error: standard output cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1


class _Parser(argparse.ArgumentParser):
    """Takes flags by their whole names only, also below its commands: a part may come to mean another flag."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="advsentry", description="Classifies images and says which of them are adversarial.")
    version = importlib.metadata.version("advsentry")
    parser.add_argument("--version", action="version", version=f"advsentry {version}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="run the gRPC service"))
    _add_detect(commands.add_parser("detect", help="say of images what they show, and whether they are adversarial"))
    _add_score(commands.add_parser("score", help="score images by the million, into Parquet files"))
    _add_info(commands.add_parser("info", help="describe a bundle"))
    add_token_commands(commands.add_parser("token", help="make a token for a caller"))
    _add_health(commands.add_parser("health", help="ask a server whether it serves; exit status 0 when it does"))
    _add_tune(commands.add_parser("tune", help="measure this machine, and say which settings serve the most images"))
    _add_reload(commands.add_parser("reload", help="have a server load its bundle anew, without losing a call"))
    add_history_commands(commands.add_parser("history", help="say whom a server's query history watches, and why"))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs the gRPC service. A flag beats its variable, that the same setting in the file of --config, that the "
        "default."
    )
    parser.add_argument("--config", metavar="FILE", help=f"settings in TOML, such as port = 50051 ({CONFIG})")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings and where each came from, and end"
    )
    parser.usage = "advsentry serve [-h] [--config FILE] [--print-config] [--SETTING VALUE ...]"
    for name, (text, default) in setting_fields().items():
        text = f"{text} ({shown(default) or 'none'}; {env_name(name)})".replace("%", "%%")
        parser.add_argument(flag_name(name), dest=name, metavar=placeholder(name), help=text)
    parser.set_defaults(command=_serve)


def _add_detect(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Prints one line an image: its class, and whether it is adversarial. Asks the server at --target; without it, "
        "runs the bundle in this process."
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="IMAGE|DIR", help="PNG, JPEG or WebP, or folders of them"
    )
    parser.add_argument("--target", metavar="HOST:PORT", help=f"a server, such as {DEFAULT_TARGET}")
    _add_access(parser)
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help=f"without --target: the bundle ({DEFAULT_BUNDLE})")
    parser.add_argument("--alpha", type=float, metavar="A", help="share of clean images that may be called adversarial")
    parser.add_argument(
        "--reveal",
        choices=[mode.value for mode in RevealMode],
        metavar="MODE",
        help=f"without --target: what is shown, one of {', '.join(RevealMode)} (p_values)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(command=_detect)


def _add_score(parser: argparse.ArgumentParser) -> None:
    add_score_arguments(parser)
    parser.set_defaults(command=_score)


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.description = "Checks a bundle and says what it is."
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's directory, or the name of a shipped one")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(command=_info)


def _add_health(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Prints SERVING or NOT_SERVING; exit status 0 for the first, 1 for the second, also when there is no answer, "
        "with the reason."
    )
    parser.add_argument("--target", default=DEFAULT_TARGET, metavar="HOST:PORT", help=f"the server ({DEFAULT_TARGET})")
    _add_access(parser)
    parser.add_argument("--service", default="ready", help="ready, live, or the name of a gRPC service (ready)")
    parser.set_defaults(command=_health)


def _add_tune(parser: argparse.ArgumentParser) -> None:
    add_tune_arguments(parser)
    parser.set_defaults(command=_tune)


def _add_reload(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Has the server on this machine load its bundle anew, and says what it serves now; the server takes --admin on "
        "for that. Exit status 1 when it goes on with what it served before, with the reason. SIGHUP does the same "
        "without an answer."
    )
    parser.add_argument("--admin", default=DEFAULT_ADMIN, metavar="URL", help=f"its metrics address ({DEFAULT_ADMIN})")
    parser.set_defaults(command=_reload)


def _add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tls", action="store_true", help="use TLS; the server is known by gRPC's own roots")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="use TLS; PEM file of the roots it is known by")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="PEM file of your certificate, for mutual TLS")
    parser.add_argument("--key", type=Path, metavar="FILE", help="PEM file of its key")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file that holds your token")


def _client(options: argparse.Namespace, timeout_s: float) -> Client:
    return Client(
        options.target,
        timeout_s=timeout_s,
        tls=options.tls,
        ca=options.ca,
        cert=options.cert,
        key=options.key,
        token=read_token(options.token_file),
    )


def _serve(options: argparse.Namespace) -> int:
    flags = {name: getattr(options, name) for name in setting_fields()}
    effective = Effective.of(os.environ, flags, options.config)
    if options.print_config:
        print(effective.to_toml(), end="")
        return 0
    settings = effective.settings
    start_logging(settings.log_format, settings.log_level)
    return run(lambda: (supervise if settings.workers else serve)(settings, _announce))


def _announce(ports: Ports) -> None:
    print(f"serving {ports}", flush=True)


def _detect(options: argparse.Namespace) -> int:
    paths = find_images(options.paths)
    failed = False
    rows: list[tuple[str, ...]] = [HEADER]
    for path, result in _results(options, paths):
        failed |= isinstance(result, AdvsentryError)
        if options.json:
            print(json.dumps(detection_json(str(path), result), ensure_ascii=False), flush=True)
        else:
            rows.append(row(str(path), result))
    if not options.json:
        print(table(rows))
    return 1 if failed else 0


def _results(options: argparse.Namespace, paths: list[Path]) -> Iterator[Result]:
    if options.target is None:
        yield from scan_here(options.bundle, paths, options.alpha, RevealMode(options.reveal or RevealMode.P_VALUES))
        return
    if options.reveal:
        raise SetupError("--reveal goes without --target: what a server shows is set where it is started")
    with _client(options, timeout_s=30.0) as client:
        yield from scan_remote(client, paths, options.alpha)


def _score(options: argparse.Namespace) -> int:
    text, is_whole = score(options)
    print(text)
    return 0 if is_whole else 1


def _info(options: argparse.Namespace) -> int:
    bundle = load_bundle(find_bundle(options.bundle))
    print(json.dumps(info_json(bundle), ensure_ascii=False) if options.json else describe(bundle))
    return 0


def _health(options: argparse.Namespace) -> int:
    with _client(options, timeout_s=5.0) as client:
        try:
            is_serving = client.health(options.service)
        except AdvsentryError:
            print("NOT_SERVING")
            raise
    print("SERVING" if is_serving else "NOT_SERVING")
    return 0 if is_serving else 1


def _tune(options: argparse.Namespace) -> int:
    print(tune_text(options))
    return 0


def _reload(options: argparse.Namespace) -> int:
    print(ask_reload(options.admin))
    return 0
