"""What pip installs into an image, one requirement a line: `python requirements.py cpu|gpu [EXTRA,EXTRA]`.

It runs while an image is built, with nothing but the standard library, beside pyproject.toml and constraints.txt. Of
onnxruntime there is one package a target, both of the version that constraints.txt has: the project itself asks for the
one with CUDA, which would make an image for processors more than twice as large.
"""

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

__all__ = ["PACKAGES", "requirements"]

PACKAGES = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu[cuda,cudnn]"}
"""Of onnxruntime, by target."""
PIN = re.compile(r"^onnxruntime-gpu==(\S+)$", re.MULTILINE)


def requirements(target: str, extras: Sequence[str], *, project: str, constraints: str) -> list[str]:
    """The lines.

    Args:
        target: `cpu` or `gpu`.
        extras: of pyproject.toml.
        project: the text of pyproject.toml.
        constraints: the text of constraints.txt.

    Raises:
        ValueError: there is no such target or extra, or no version of onnxruntime.
    """
    table = tomllib.loads(project)["project"]
    known = table["optional-dependencies"]
    if target not in PACKAGES:
        raise ValueError(f"expected a target of {', '.join(PACKAGES)}, got {target!r}")
    if unknown := [extra for extra in extras if extra not in known]:
        raise ValueError(f"expected extras of {', '.join(known)}, got {', '.join(unknown)}")
    pin = PIN.search(constraints)
    if pin is None:
        raise ValueError("constraints.txt: expected a line onnxruntime-gpu==VERSION")
    wanted = [line for line in table["dependencies"] if not line.startswith("onnxruntime")]
    wanted += [line for extra in extras for line in known[extra]]
    return [f"{PACKAGES[target]}=={pin[1]}", *wanted]


def main(arguments: Sequence[str]) -> int:
    """Prints them; gives the exit status."""
    if len(arguments) not in (1, 2):
        print("expected TARGET [EXTRA,EXTRA]", file=sys.stderr)
        return 2
    extras = [word for word in "".join(arguments[1:]).split(",") if word]
    texts = {name: Path(name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt")}
    try:
        lines = requirements(
            arguments[0], extras, project=texts["pyproject.toml"], constraints=texts["constraints.txt"]
        )
    except ValueError as error:
        print(f"requirements: error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
