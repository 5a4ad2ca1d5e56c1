"""Cases that were measured already, so that a stopped measurement goes on where it was."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.detection.bundle import Bundle
from service.history.calibration import Calibration
from training.checkpoint import write_atomically

__all__ = ["Kept", "digest_of"]

ROOT = Path(__file__).parent.parent.parent
CODE = ("deploy/redteam", "service/detection", "service/history", "service/watching")


def digest_of(bundle: Bundle, calibration: Calibration | None, settings: Mapping[str, object]) -> str:
    """Of all that figures depend on: the bundle, what the history knows, the settings, and the code."""
    found = hashlib.blake2b(digest_size=8)
    found.update(bundle.calibration_id.encode())
    found.update(b"" if calibration is None else calibration.to_bytes())
    found.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for folder in CODE:
        for path in sorted((ROOT / folder).glob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Files of cases in a folder, named by the case and a digest of all that it depends on."""

    folder: Path
    digest: str

    def find(self, name: str) -> tuple[Sequence[Mapping[str, Any]], float] | None:
        """Rows of a case, and the seconds that they took; None where there are none."""
        path = self._path(name)
        if not path.exists():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["rows"], content["seconds"]

    def keep(self, name: str, rows: Sequence[Mapping[str, Any]], seconds: float) -> None:
        """Writes the rows of a case."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(name), json.dumps({"rows": rows, "seconds": seconds}))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}-{self.digest}.json"
