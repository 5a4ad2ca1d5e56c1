"""One file of docs/results, as every benchmark writes it."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["write_result"]


def write_result(
    path: Path,
    *,
    name: str,
    module: str,
    recipe: Mapping[str, object],
    seed: int,
    seconds: float,
    data: Mapping[str, object],
    metrics: Mapping[str, float],
    arguments: Sequence[str] | None = None,
    further: Mapping[str, object] | None = None,
) -> None:
    """Writes the figures of this call of `python -m module`, with the code and the machine that made them.

    Args:
        path: of the file.
        name: of the figures, without the file's ending.
        module: that was called.
        recipe: what was set.
        seed: of the random numbers.
        seconds: that it took.
        data: what it was measured on.
        metrics: flat names to finite numbers.
        arguments: that give the same figures; None for those of this process.
        further: fields of this kind of result alone.
    """
    from training.evaluation.provenance import commit, machine  # torch comes with it: seconds, and only wanted here

    value = {
        "name": name,
        "command": shlex.join(["python", "-m", module, *_anywhere(sys.argv[1:] if arguments is None else arguments)]),
        "recipe": recipe,
        "seed": seed,
        "commit": commit(),
        "machine": machine(),
        "seconds": seconds,
        "data": data,
        "metrics": metrics,
        **(further or {}),
    }
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _anywhere(arguments: Sequence[str]) -> list[str]:
    """The arguments with DATA for the folder of the data, which lies elsewhere on each machine.

    >>> _anywhere(["--data", "/home/me/sets", "--images", "20"]), _anywhere(["--data=/home/me/sets"])
    (['--data', 'DATA', '--images', '20'], ['--data=DATA'])
    """
    found = ["--data=DATA" if word.startswith("--data=") else word for word in arguments]
    return ["DATA" if before == "--data" else word for before, word in zip(["", *found], found, strict=False)]
