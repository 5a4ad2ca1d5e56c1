"""The table of docs/redteam.md, from docs/results/redteam-*.json: `make docs`."""

import json
import sys
from pathlib import Path

from deploy.loadtest.page import page
from deploy.redteam.figures import table

__all__ = ["current_page"]

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "redteam.md"
RESULTS = ROOT / "docs" / "results"


def current_page() -> str:
    """The page that the committed results give; as it is where there is none."""
    made = []
    for path in sorted(RESULTS.glob("redteam-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        data = ", ".join(f"{key} {value}" for key, value in result["data"].items())
        source = f"* {data}; seed {result['seed']}; commit {result['commit']}; `{result['command']}`"
        made.append(f"{table(result['cells'])}\n\n{source}")
    text = PAGE.read_text(encoding="utf-8")
    return page(text, {"redteam": "\n\n".join(made)}, name=PAGE.name) if made else text


def main() -> int:
    """Writes the page."""
    PAGE.write_text(current_page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
