"""docs/security.md says what the code does."""

import re
from pathlib import Path

from service import cli
from service.rpc import intake, rates, server
from service.rpc.access import SCOPE_OF
from service.rpc.call import Scope
from service.settings import Settings, flag_name, setting_fields

TEXT = (Path(__file__).parent.parent.parent / "docs" / "security.md").read_text("utf-8")
OF_COMMANDS = {"--scope", "--images-per-s", "--days", "--identities", "--target", "--ca", "--token-file", "--version"}


def test_every_flag_is_there() -> None:
    known = {flag_name(name) for name in setting_fields()} | OF_COMMANDS
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) <= known


def test_the_commands_of_the_page_can_be_parsed() -> None:
    commands = re.findall(r"^    advsentry (.+?)(?: > .*)?$", TEXT, flags=re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert cli._parser().parse_args(command.split()).command


def test_every_scope_and_what_takes_it_is_there() -> None:
    rows = dict(re.findall(r"^\| `?([a-z. ,]+?)`?(?:, and no identity)? \| (.+) \|$", TEXT, flags=re.MULTILINE))
    assert {scope.value for scope in Scope} < rows.keys()
    for method, scope in SCOPE_OF.items():
        name = method.rpartition("/")[2]
        if "reflection" in method or "health" in method or name in ("ServerMetadata", "ModelMetadata"):
            continue
        if name not in ("ModelConfig", "ModelStatistics"):  # "config and statistics"
            assert name in rows[scope.value if scope else "none"], name


def test_the_figures_are_those_of_the_code() -> None:
    limits = server.LIMITS
    for figure in (
        f"ended after {intake.ARRIVE_S:g} s; when {intake.MOST_ARRIVING} are arriving",
        f"older than {intake.SLOW_S:g} s",
        f"{limits['grpc.max_concurrent_streams']} on a connection, {server.MAX_CALLS:,} in all",
        f"once {server.MAX_CALLS // 2:,} are open, no caller may have more than {server.MAX_CALLS // 4}",
        f"{limits['grpc.max_allowed_incoming_connections']:,}; without a handshake closed after "
        f"{limits['grpc.server_handshake_timeout_ms'] // 1000} s",
        f"idle after {limits['grpc.max_connection_idle_ms'] // 60_000} min",
        f"{(limits['grpc.keepalive_time_ms'] + limits['grpc.http2.ping_timeout_ms']) // 1000} s |",
        f"{limits['grpc.max_metadata_size'] // 1024} KiB",
        f"{rates.MOST_BUCKETS:,} have a rate of their own",
    ):
        assert figure in TEXT, figure
    assert Settings().metrics_host == Settings().health_host == "127.0.0.1"
