"""The table of docs/reliability.md, from docs/results/reliability.json: `make docs`."""

import json
import sys
from pathlib import Path

from deploy.reliability.result import table

__all__ = ["current_page", "page"]

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
RESULT = ROOT / "docs" / "results" / "reliability.json"
BEGIN, END = "<!-- made by `make docs` from results/reliability.json -->", "<!-- end -->"


def page(text: str, made: str) -> str:
    """The page with its table made anew.

    Raises:
        ValueError: the marks of the table are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"reliability.md: expected {BEGIN} and {END} around the table")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def current_page() -> str:
    """The page that the committed result gives; as it is where there is none."""
    text = PAGE.read_text(encoding="utf-8")
    return page(text, table(json.loads(RESULT.read_text(encoding="utf-8")))) if RESULT.exists() else text


def main() -> int:
    """Writes the page."""
    PAGE.write_text(current_page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
