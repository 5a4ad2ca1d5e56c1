"""Writes the dashboards' files: `make docs`."""

import sys
from pathlib import Path

from deploy.boards.attacks import ATTACKS
from deploy.boards.oncall import ONCALL

BOARDS = (ONCALL, ATTACKS)
FOLDER = Path(__file__).parent.parent / "grafana" / "dashboards"


def main() -> int:
    """Writes each of them."""
    for board in BOARDS:
        path = FOLDER / f"{board.uid}.json"
        path.write_text(board.text(), encoding="utf-8")
        print(path, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
