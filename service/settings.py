"""What an operator may set: defaults, below a file, below `ADVSENTRY_*` variables, below flags."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from service.detection.verdict import RevealMode
from service.errors import SetupError

__all__ = ["CONFIG", "PREFIX", "Settings", "env_name", "file_value", "flag_name", "nearest", "setting_fields"]

PREFIX = "ADVSENTRY_"
LONGEST_S = 10**6
_LONGEST_TEXT = 20
"""Characters of a number in an error."""
CONFIG = "ADVSENTRY_CONFIG"
"""Names the file."""
FOREIGN = frozenset({"ADVSENTRY_DATA", CONFIG})
"""Variables of the training side, and the one that is no setting itself."""


def _setting(default: Any, text: str, *, least: float = -math.inf, most: float = math.inf) -> Any:
    return field(default=default, metadata={"help": text, "least": least, "most": most})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything about a server that is not in its bundle.

    Raises:
        SetupError: a value is out of range; names the variable, what was expected and what came.
    """

    bundle: str = _setting("digits", "a bundle's directory, or the name of a shipped one")
    host: str = _setting("127.0.0.1", "address that gRPC listens on")
    port: int = _setting(50051, "gRPC port; 0 takes a free one", least=0, most=65535)
    metrics_host: str = _setting("127.0.0.1", "address that /metrics listens on; keep it private")
    metrics_port: int = _setting(9464, "HTTP port of /metrics; 0 takes a free one", least=0, most=65535)
    metrics_names: str = _setting(
        "", "names by which /metrics may be asked for, beside addresses and localhost, with commas between; * for any"
    )
    admin: bool = _setting(
        False, "whether POST /-/reload on the metrics port reloads the bundle; from this machine only"
    )
    watch_s: float = _setting(
        0.0,
        "seconds between two looks at the bundle's files, to reload when they change; 0 never",
        least=0,
        most=LONGEST_S,
    )
    workers: int = _setting(
        0,
        "processes that share the gRPC port, under one that restarts them; 0 serves in this process",
        least=0,
        most=256,
    )
    start_s: float = _setting(
        600.0, "with --workers: seconds in which a process must serve; else it is ended", least=1, most=LONGEST_S
    )
    max_connection_age_s: float = _setting(
        300.0, "with --workers: seconds after which a client is asked to connect anew", least=1, most=LONGEST_S
    )
    connection_grace_s: float = _setting(
        600.0, "with --workers: seconds that its calls and streams get to end after that", least=1, most=LONGEST_S
    )
    health_host: str = _setting("127.0.0.1", "address that health alone listens on, see health_port")
    health_port: int = _setting(
        -1, "plaintext gRPC port for health alone, for probes without a certificate; -1 for none", least=-1, most=65535
    )
    tls_cert: str = _setting("", "PEM file of the server's certificate and those above it; without it no TLS")
    tls_key: str = _setting("", "PEM file of its key, without a password")
    tls_client_ca: str = _setting("", "PEM file of the roots of client certificates; every client must show one then")
    identities: str = _setting("", "TOML file of who may call; without it everybody, or whoever shows a certificate")
    allow_plaintext_tokens: bool = _setting(
        False, "whether tokens may come in plaintext over a network: only where something before the server does TLS"
    )
    rate_images_per_s: float = _setting(
        0.0,
        "images a second of one identity, or of one address where there are none, in each process; 0 for no limit",
        least=0,
        most=1e9,
    )
    fair_items: int = _setting(
        0,
        "images that one caller may have under way while others send, too, of calls an equal part, and 1 always; the "
        "rest waits; 0 takes 2 with device cpu, where images cost no less together, else max_batch",
        least=0,
        most=10**6,
    )
    device: Literal["cpu", "cuda", "auto"] = _setting("cpu", "what runs the graph")
    device_id: int = _setting(0, "number of the CUDA device", least=0, most=1023)
    gpu_mem_limit: int = _setting(
        0, "bytes of the CUDA device's memory at most, for one bundle; 0 for no limit", least=0, most=2**50
    )
    tensorrt: bool = _setting(False, "whether TensorRT runs what it can of the graph; with device cuda")
    cache_dir: str = _setting(
        "auto",
        "folder for graphs that onnxruntime takes long to optimise; auto is the user's own cache, empty for none",
    )
    threads: int = _setting(
        0, "threads of one graph run; 0 takes the processors of this process, or its share of them", least=0, most=1024
    )
    max_batch: int = _setting(64, "images in one run of the graph at most", least=1, most=4096)
    queue_items: int = _setting(
        1024, "images that may wait; a third more when one caller has filled it, for the others", least=1, most=10**6
    )
    queue_bytes: int = _setting(256 * 2**20, "bytes of the images that may wait; as queue_items", least=1, most=2**40)
    max_batch_items: int = _setting(256, "images in one BatchDetect", least=1, most=10**5)
    stream_window: int = _setting(
        256, "unanswered images of one stream before it is read no further", least=1, most=10**5
    )
    max_deadline_s: float = _setting(
        10.0, "seconds that one image may take, whatever the caller allows", least=0.001, most=LONGEST_S
    )
    stuck_s: float = _setting(30.0, "seconds after which a graph run is taken for stuck", least=0.01, most=LONGEST_S)
    lame_duck_s: float = _setting(
        1.0, "seconds to serve on after SIGTERM while health says NOT_SERVING", least=0, most=LONGEST_S
    )
    drain_s: float = _setting(25.0, "seconds that calls in flight get to end after that", least=0, most=LONGEST_S)
    canary_s: float = _setting(5.0, "seconds between two canaries", least=0.01, most=LONGEST_S)
    max_message_bytes: int = _setting(16 * 2**20, "largest message in either direction", least=1024, most=2**31 - 1)
    compression: bool = _setting(
        False, "whether messages may come in gzip or deflate; otherwise such a call is refused before it is inflated"
    )
    held_bytes: int = _setting(
        256 * 2**20, "bytes of the messages of all calls at once that are no streams", least=1024, most=2**40
    )
    max_image_bytes: int = _setting(8 * 2**20, "largest image, encoded or raw", least=1, most=2**31 - 1)
    max_image_pixels: int = _setting(
        25_000_000, "height times width, looked up before decoding", least=1, most=2**31 - 1
    )
    decode_bytes: int = _setting(64 * 2**20, "bytes of encoded images that may wait to be decoded", least=1, most=2**40)
    decode_threads: int = _setting(2, "threads that decode images", least=1, most=256)
    reveal: RevealMode = _setting(  # noqa: RUF009  # the check knows dataclasses.field only by its own name
        RevealMode.P_VALUES,
        "what callers see at most: decision, p_values, or scores, which takes a scope where there are identities",
    )
    history: Literal["auto", "off", "observe", "annotate", "reject", "silent"] = _setting(
        "auto",
        "what becomes of queries that look like a search for an adversarial image; auto is observe where the bundle "
        "has a calibration of the query history, else off",
    )
    history_level: float = _setting(0.005, "share of harmless queries that the history may flag", least=1e-6, most=0.5)
    history_window_s: float = _setting(3600.0, "seconds for which queries, and flags, count", least=10, most=LONGEST_S)
    history_entries: int = _setting(100_000, "queries that the history keeps at most", least=256, most=10**8)
    history_bytes: int = _setting(256 * 2**20, "bytes that the history takes at most", least=2**20, most=2**40)
    history_flags: int = _setting(
        5, "flags within the window with which a client, or a component of everyone's, has too many", least=1, most=100
    )
    history_action: Literal["refuse", "plain"] = _setting(
        "refuse", "with history reject: whether who has too many flags is refused, or gets label and verdict alone"
    )
    history_late_flags: int = _setting(
        0,
        "with history silent: how many flags more at most it takes to be refused, drawn for each client; 0 refuses "
        "nobody",
        least=0,
        most=100,
    )
    history_wait_s: float = _setting(
        0.1, "with history annotate or reject: seconds that an answer waits for it at most", least=0.001, most=10
    )
    history_url: str = _setting(
        "", "where several processes share one history, such as redis://127.0.0.1:6379; empty keeps it in the process"
    )
    history_secret: str = _setting(
        "",
        "file of 64 hexadecimal digits from which the history's keys follow, the same for all who share one; as "
        "openssl rand -hex 32 makes",
    )
    history_snapshot: str = _setting("", "file that keeps the history of one process over a restart; empty for none")
    reflection: bool = _setting(True, "whether gRPC reflection is on")
    log_format: Literal["plain", "json"] = _setting("plain", "form of the log lines on standard error")
    access_log: str = _setting("off", "a JSON line for each call: off, stderr, or a file to write to")
    access_log_sample: float = _setting(
        1.0, "share of the calls that end well of which there is a line; of others there always is", least=0, most=1
    )
    otel_endpoint: str = _setting(
        "", "where traces go by OTLP over gRPC, such as http://127.0.0.1:4317; empty for none; takes the extra otel"
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = _setting("info", "least level that is logged")

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            where = f"{flag_name(entry.name)} or {env_name(entry.name)}"
            _check_range(entry, getattr(self, entry.name), where)
            if entry.name.endswith("host"):
                _check_host(getattr(self, entry.name), where)

    @classmethod
    def build(
        cls, environment: Mapping[str, str], flags: Mapping[str, object], file: Mapping[str, object] | None = None
    ) -> "Settings":
        """Settings of this environment, these flags and this file.

        Args:
            environment: usually `os.environ`; other variables than `ADVSENTRY_*` are not looked at.
            flags: by field name; None is as good as absent.
            file: by field name, each of them from `file_value`.

        Raises:
            SetupError: an unknown `ADVSENTRY_*` variable, or a value of the wrong type or out of range.
        """
        values: dict[str, Any] = dict(file or {})
        hints = get_type_hints(cls)
        known = {env_name(name): name for name in hints}
        for variable in sorted(name for name in environment if name.startswith(PREFIX) and name not in FOREIGN):
            if variable not in known:
                raise SetupError(f"{variable}: unknown setting{nearest(variable, known)}")
            name = known[variable]
            values[name] = _parse(hints[name], environment[variable], variable)
        for name, value in flags.items():
            if value is not None:
                values[name] = _parse(hints[name], value, flag_name(name)) if type(value) is str else value
        return cls(**values)


def env_name(name: str) -> str:
    """The environment variable of a field.

    >>> env_name("max_batch")
    'ADVSENTRY_MAX_BATCH'
    """
    return PREFIX + name.upper()


def flag_name(name: str) -> str:
    """The flag of a field.

    >>> flag_name("max_batch")
    '--max-batch'
    """
    return "--" + name.replace("_", "-")


def setting_fields() -> dict[str, tuple[str, object]]:
    """Help text and default of each setting, by name."""
    return {entry.name: (entry.metadata["help"], entry.default) for entry in dataclasses.fields(Settings)}


def file_value(name: str, value: object, where: str) -> object:
    """The value of a setting as a file has it.

    Args:
        where: the file and the key, for errors.

    Raises:
        SetupError: it is of the wrong type or out of range.
    """
    hint = get_type_hints(Settings)[name]
    if type(value) is int and hint is float:
        value = float(value)
    if get_origin(hint) is Literal or (isinstance(hint, type) and issubclass(hint, str)):
        if not isinstance(value, str):
            raise SetupError(f"{where}: expected a text in quotes, got {value!r}")
        value = _parse(hint, value, where)
    elif type(value) is not hint:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}[hint]
        raise SetupError(f"{where}: expected {expected}, got {value!r}")
    _check_range(next(entry for entry in dataclasses.fields(Settings) if entry.name == name), value, where)
    return value


def nearest(name: str, known: Iterable[str]) -> str:
    """What a hint at the name that was meant adds to an error."""
    names = {one.removeprefix(PREFIX): one for one in known}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), names, n=1)
    return f"; did you mean {names[near[0]]}?" if near else f"; known are {', '.join(sorted(names.values()))}"


def _check_range(entry: "dataclasses.Field[Any]", value: object, where: str) -> None:
    least, most = entry.metadata["least"], entry.metadata["most"]
    # NaN fails the comparison too
    if isinstance(value, int | float) and not (least <= value <= most and value != math.inf):
        text = str(value)
        got = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
        raise SetupError(f"{where}: expected {_range(least, most)}, got {got}")


def _check_host(host: str, where: str) -> None:
    if not host or host.startswith("["):
        raise SetupError(f"{where}: expected an address or a name, such as 127.0.0.1 or ::1, got {host!r}")


def _range(least: float, most: float) -> str:
    if math.isinf(most):
        return f"a number of at least {_plain(least)}"
    return f"a number from {_plain(least)} to {_plain(most)}"


def _plain(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else f"{limit:g}"


def _parse(hint: Any, text: str, where: str) -> Any:  # the types are those of the fields above
    if get_origin(hint) is Literal or hint is RevealMode:
        choices = get_args(hint) or tuple(mode.value for mode in RevealMode)
        if text not in choices:
            raise SetupError(f"{where}: expected one of {', '.join(choices)}, got {text!r}")
        return text if hint is not RevealMode else RevealMode(text)
    if hint is bool:
        values = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
        if text.lower() not in values:
            raise SetupError(f"{where}: expected on or off, got {text!r}")
        return values[text.lower()]
    try:
        return hint(text)
    except ValueError:
        kind = "a whole number" if hint is int else "a number"
        raise SetupError(f"{where}: expected {kind}, got {text!r}") from None
