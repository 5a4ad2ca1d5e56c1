"""One file of docs/results, as docs/architecture.md has it."""

import json
from collections.abc import Mapping
from typing import Any

from training.checkpoint import Run
from training.config import recipe_to_dict

__all__ = ["result_text"]


def result_text(
    name: str,
    run: Run,
    *,
    command: str,
    seed: int,
    commit: str,
    machine: str,
    seconds: float,
    data: Mapping[str, Any],
    metrics: Mapping[str, float],
    recipe: Mapping[str, Any] | None = None,
) -> str:
    """Its content.

    Args:
        name: of the file, without its ending.
        run: whose figures these are; what its training took is put before them.
        seconds: that the measuring took.
        data: set, split and how many images.
        metrics: flat names to finite numbers.
        recipe: what several runs share; None for the run's own.
    """
    value = {
        "name": name,
        "command": command,
        "recipe": recipe_to_dict(run.recipe) if recipe is None else dict(recipe),
        "seed": seed,
        "commit": commit,
        "machine": machine,
        "seconds": seconds,
        "data": dict(data),
        "metrics": {"training_seconds": round(run.seconds, 1), **metrics},
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
