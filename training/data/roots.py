"""Where data lies, and what to say when it does not."""

from pathlib import Path

from service.errors import SetupError
from training.data.sources import SOURCES

__all__ = ["need_file", "need_root"]

REMEDY = "name its folder with --data or ADVSENTRY_DATA"


def need_root(name: str, root: Path | None) -> Path:
    """The data folder (or file) that the user named.

    Raises:
        SetupError: he named none, or it is not there.
    """
    if root is None:
        raise SetupError(f"data set {name}: expected a data folder, got none; {_remedy(name)}")
    if not root.exists():
        raise SetupError(f"data set {name}: expected data at {root}, found nothing there; {_remedy(name)}")
    return root


def need_file(name: str, *candidates: Path) -> Path:
    """The first of the candidates that is a file.

    Raises:
        SetupError: none is.
    """
    for path in candidates:
        if path.is_file():
            return path
    places = " or ".join(str(path) for path in candidates)
    raise SetupError(f"data set {name}: expected the file {places}, found none; {_remedy(name)}")


def _remedy(name: str) -> str:
    if name not in SOURCES:
        return REMEDY
    first, *others = SOURCES[name]
    what = f"{len(others)} more beside {first.url}" if others else f"{first.url} (SHA-256 {first.sha256})"
    return f"{REMEDY}; `advsentry-train fit --download` fetches {what}"
