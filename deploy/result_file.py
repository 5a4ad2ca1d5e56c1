"""One file of docs/results, as every benchmark writes it."""

import json
import shlex
import sys
from collections.abc import Mapping
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
) -> None:
    """Writes the figures of this call of `python -m module`, with the code and the machine that made them."""
    from training.evaluation.provenance import commit, machine  # torch comes with it: seconds, and only wanted here

    value = {
        "name": name,
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "recipe": recipe,
        "seed": seed,
        "commit": commit(),
        "machine": machine(),
        "seconds": seconds,
        "data": data,
        "metrics": metrics,
    }
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
