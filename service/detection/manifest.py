"""`manifest.json` as typed records, and their check."""

import dataclasses
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from service.detection.types import FlagReason, Verdict
from service.errors import BundleError

__all__ = [
    "FORMAT_VERSION",
    "Canary",
    "DetectorEntry",
    "FileEntry",
    "InputShape",
    "Manifest",
    "Quantised",
    "ThreatModel",
]

FORMAT_VERSION = 1

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class InputShape:
    """The image that the graph takes: 8 bits, (height, width, channels)."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class DetectorEntry:
    """One column of the graph's scores; larger is always more suspicious."""

    name: str
    """Unique in the bundle; what callers see."""
    kind: str
    """The detector's name in the training package."""
    meaning: str
    """A clause that ends before "than in ... of clean images", such as "the embedding lies farther out"."""
    reason: FlagReason


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """What the bundle was trained and tested for."""

    norm: str
    eps: float
    """In units of the [0, 1] image."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file of the bundle as its manifest knows it."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A synthetic image whose answer is known; a server that gives another is broken."""

    png: str
    """The image, PNG in base64."""
    label: int
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """How the graph was made of one in float32, and how far it is from that one on clean images."""

    precision: str
    """Of the layers that have less than float32: `int8` or `float16`."""
    run: str
    """Name of the run directory."""
    float_graph: str
    """SHA-256 of the graph in float32, by which the float bundle is known."""
    convolutions: int
    quantised_convolutions: int
    """Of these, in that precision."""
    calibration_images: int
    """Clean images that the ranges of activations were taken from."""
    reduced_range: bool
    """Of int8: whether weights have 7 bits, for processors whose 8-bit sums saturate."""
    compared_images: int
    label_agreement: float
    """Share of them with the float network's class."""
    score_shifts: Mapping[str, float]
    """Of each detector: root mean square change of its score, in standard deviations of that score."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a bundle that is not an array."""

    format_version: int
    name: str
    version: str
    input: InputShape
    class_names: tuple[str, ...]
    embedding_dim: int
    detectors: tuple[DetectorEntry, ...]
    default_alpha: float
    threat_model: ThreatModel
    files: Mapping[str, FileEntry]
    """Every file of the bundle but the manifest itself."""
    canaries: tuple[Canary, ...]
    training: Mapping[str, Any]
    """The effective recipe."""
    code_version: str
    metrics: Mapping[str, float]
    """Headline figures of report.json; empty until the bundle has been evaluated."""
    metrics_command: str
    """What made the metrics."""
    quantised: Quantised | None = None
    """None: the whole graph is in float32; then the file does not have the field."""

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Reads the text of `manifest.json`.

        Raises:
            BundleError: no JSON, another format version, a field missing, unknown or of the wrong type.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"manifest.json: no JSON: {error}") from error
        if not isinstance(value, dict):
            raise BundleError(f"manifest.json: expected an object, got {type(value).__name__}")
        version = value.get("format_version")
        if version != FORMAT_VERSION:
            raise BundleError(
                f"manifest.json: expected format version {FORMAT_VERSION}, got {version!r}; "
                "export the bundle again with this version of advsentry"
            )
        return _record(cls, value, "manifest.json")


def _record(kind: type[Record], value: object, where: str) -> Record:
    """Builds a dataclass from parsed JSON, refusing what does not fit."""
    if not isinstance(value, dict):
        raise BundleError(f"{where}: expected an object, got {type(value).__name__}")
    hints = get_type_hints(kind)
    optional = {field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}  # type: ignore[arg-type]  # a dataclass, as all kinds are
    for name in hints.keys() - value.keys() - optional:
        raise BundleError(f"{where}: {name} is missing")
    for name in value.keys() - hints.keys():
        raise BundleError(f"{where}: unknown field {name}")
    return kind(**{name: _value(hints[name], value[name], f"{where}: {name}") for name in value})


def _value(hint: Any, value: Any, where: str) -> Any:  # the shape of JSON is only known at run time
    origin = get_origin(hint)
    if origin is tuple:
        _expect(isinstance(value, list), "a list", value, where)
        return tuple(_value(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (Union, types.UnionType):  # X | None: a field that may be absent, but is never null
        return _value(get_args(hint)[0], value, where)
    if origin is not None:  # Mapping[str, X]
        _expect(isinstance(value, dict), "an object", value, where)
        return {key: _value(get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return _record(hint, value, where)  # type: ignore[arg-type]  # a class, as the hints hold no instances
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if issubclass(hint, (FlagReason, Verdict)):
        _expect(value in set(hint), f"one of {', '.join(hint)}", value, where)
        return hint(value)
    if hint is float:
        _expect(isinstance(value, int | float) and not isinstance(value, bool), "a number", value, where)
        return float(value)
    _expect(type(value) is hint, hint.__name__, value, where)
    return value


def _expect(holds: bool, wanted: str, value: object, where: str) -> None:
    if not holds:
        raise BundleError(f"{where}: expected {wanted}, got {value!r}"[:400])
