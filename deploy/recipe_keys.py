"""The table of recipe keys in docs/training.md, from the fields and their docstrings: `make docs`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TRAINING = ROOT / "training"
SOURCES = (TRAINING / "sections.py", TRAINING / "methods.py", *sorted(TRAINING.glob("methods_*.py")))
PAGE = ROOT / "docs" / "training.md"
BEGIN, END = "<!-- made by `make docs` -->", "<!-- end -->"


def keys(source: str) -> Iterator[tuple[str, str, str]]:
    """Each `section.key`, its default and its meaning, in the order of the source."""
    for section in (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        name = ""
        for field, following in zip(section.body, section.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if field.target.id == "SECTION":
                name = ast.literal_eval(field.value) if field.value else ""
                continue
            default = ast.unparse(field.value) if field.value else "must be set"
            yield f"{name}.{field.target.id}", default, _text(following)


def _text(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split()).replace("|", "\\|")
    return ""


def page(text: str) -> str:
    """The page with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    found = [row for source in SOURCES for row in keys(source.read_text("utf-8"))]
    rows = [f"| `{key}` | `{default}` | {meaning} |" for key, default, meaning in found]
    table = "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main() -> int:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    print(PAGE, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
