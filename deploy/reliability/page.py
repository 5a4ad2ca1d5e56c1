"""The tables of docs/reliability.md and of the README, from docs/results/reliability.json: `make docs`."""

import json
import sys
from pathlib import Path

from deploy.reliability.front import front_table
from deploy.reliability.result import table

__all__ = ["current_page", "current_readme", "page"]

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
README = ROOT / "README.md"
RESULT = ROOT / "docs" / "results" / "reliability.json"
BEGIN, END = "<!-- made by `make docs` from results/reliability.json -->", "<!-- end -->"
README_BEGIN = BEGIN.replace("results/", "docs/results/")


def page(text: str, made: str, begin: str = BEGIN) -> str:
    """The page with its table made anew.

    Raises:
        ValueError: the marks of the table are missing.
    """
    before, found, rest = text.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"expected {begin} and {END} around the table of the sheet")
    return f"{before}{begin}\n\n{made}\n\n{END}{after}"


def current_page() -> str:
    """The page that the committed result gives; as it is where there is none."""
    text = PAGE.read_text(encoding="utf-8")
    return page(text, table(json.loads(RESULT.read_text(encoding="utf-8")))) if RESULT.exists() else text


def current_readme() -> str:
    """The README with what the committed result gives; as it is where there is none."""
    text = README.read_text(encoding="utf-8")
    if not RESULT.exists():
        return text
    return page(text, front_table(json.loads(RESULT.read_text(encoding="utf-8"))), README_BEGIN)


def main() -> int:
    """Writes both."""
    for path, text in ((PAGE, current_page()), (README, current_readme())):
        path.write_text(text, encoding="utf-8")
        print(path, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
