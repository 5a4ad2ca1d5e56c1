"""One file of docs/results, as docs/architecture.md has it."""

import json
from collections.abc import Mapping
from typing import Any

from training.checkpoint import Run
from training.config import recipe_to_dict

__all__ = ["result_text"]


def result_text(
    name: str,
    run: Run | None,
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
        run: whose figures these are; what its training took is put before them. None: those of a bundle alone.
        seconds: that the measuring took.
        data: set, split and how many images.
        metrics: flat names to finite numbers.
        recipe: what several runs share, or a bundle's; None for the run's own.
    """
    own = {} if run is None else recipe_to_dict(run.recipe)
    took = {} if run is None else {"training_seconds": round(run.seconds, 1)}
    value = {
        "name": name,
        "command": command,
        "recipe": own if recipe is None else dict(recipe),
        "seed": seed,
        "commit": commit,
        "machine": machine,
        "seconds": seconds,
        "data": dict(data),
        "metrics": {**took, **metrics},
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
