"""Where data lies, and what to say when it does not."""

from pathlib import Path

from service.errors import SetupError

__all__ = ["need_file", "need_root"]

REMEDY = "name its folder with --data or ADVSENTRY_DATA"


def need_root(name: str, root: Path | None) -> Path:
    """The data folder (or file) that the user named.

    Raises:
        SetupError: he named none, or it is not there.
    """
    if root is None:
        raise SetupError(f"data set {name}: expected a data folder, got none; {REMEDY}")
    if not root.exists():
        raise SetupError(f"data set {name}: expected data at {root}, found nothing there; {REMEDY}")
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
    raise SetupError(f"data set {name}: expected the file {places}, found none; {REMEDY}")
