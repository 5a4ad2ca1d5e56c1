"""The file of settings: read, and printed so that it may be read again."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from service.errors import SetupError
from service.settings import CONFIG, Settings, env_name, file_value, flag_name, nearest, setting_fields

__all__ = ["Effective"]


@dataclass(frozen=True, kw_only=True)
class Effective:
    """The settings, and where each came from."""

    settings: Settings
    sources: Mapping[str, str]
    """By name: a flag, a variable, a file's path in quotes, or `default`."""

    @classmethod
    def of(cls, environment: Mapping[str, str], flags: Mapping[str, object], config: str | None = None) -> "Effective":
        """A flag beats a variable, a variable the file, the file the default.

        Args:
            environment: usually `os.environ`.
            flags: by field name; None is as good as absent.
            config: the file, in TOML; what `ADVSENTRY_CONFIG` names when None.

        Raises:
            SetupError: the file cannot be read, or a setting is unknown, of the wrong type or out of range; says where.
        """
        path = config if config is not None else environment.get(CONFIG)
        file = read_config(path) if path else {}
        settings = Settings.build(environment, flags, file)

        def source(name: str) -> str:
            if flags.get(name) is not None:
                return flag_name(name)
            if env_name(name) in environment:
                return env_name(name)
            return _quoted(path or "") if name in file else "default"

        return cls(settings=settings, sources={name: source(name) for name in setting_fields()})

    def to_toml(self) -> str:
        """A file that gives these settings; each line says where its value came from."""
        lines = [f"{name} = {_toml(value)}  # {self.sources[name]}\n" for name, value in asdict(self.settings).items()]
        return "".join(lines)


def read_config(path: str) -> dict[str, object]:
    """The settings of a TOML file.

    Raises:
        SetupError: as Effective.of.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"{path}: the file of settings cannot be read: {error.strerror}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise SetupError(f"{path}: expected settings in TOML, such as port = 50051: {error}") from error
    known = setting_fields()
    for name in found:
        if name not in known:
            raise SetupError(f"{path}: {name}: unknown setting{nearest(name, known)}")
    return {name: file_value(name, value, f"{path}: {name}") for name, value in found.items()}


def _toml(value: object) -> str:
    return _quoted(str(value)) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
