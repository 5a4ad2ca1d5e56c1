"""The table of settings in docs/settings.md, from the settings themselves: `make docs`."""

import re
import sys
from pathlib import Path

from service.setting_words import shown
from service.settings import env_name, flag_name, setting_fields

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
TABLE = re.compile(r"(\| flag \| variable \| default \| what \|\n\|[-|]+\|\n)(?:\|.*\n)+")


def page(text: str) -> str:
    """The page with its table made anew."""
    rows = [
        f"| `{flag_name(name)}` | `{env_name(name)}` | {shown(default)} | {meaning} |\n"
        for name, (meaning, default) in setting_fields().items()
    ]
    return TABLE.sub(lambda found: found[1] + "".join(rows), text, count=1)


def main() -> int:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    print(PAGE, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
