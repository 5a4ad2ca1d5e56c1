"""`analysis.json`: every number of the page, as JSON without NaN."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.analysis.analyse import PGD_STEPS, RunAnalysis, Settings
from training.analysis.headline import headline
from training.evaluation.results import Provenance

__all__ = ["Analysis"]

FORMAT = 1
_DIGITS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """Several runs, the images that they saw, and how it was done."""

    data_name: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    """H, W, C."""
    labels: np.ndarray
    """(N,) of the analysed test images."""
    settings: Settings
    runs: tuple[RunAnalysis, ...]
    provenance: Provenance

    def to_json(self) -> str:
        """All numbers, to six significant digits; pictures and embeddings are left to the page."""
        content = {
            "format": FORMAT,
            "data": {
                "name": self.data_name,
                "images": len(self.labels),
                "input_shape": list(self.input_shape),
                "class_names": list(self.class_names),
            },
            "settings": {**_plain(self.settings), "attack": f"pgd-{PGD_STEPS}, step eps/4, rounded to 8 bits"},
            "runs": [_plain(run) for run in self.runs],
            "provenance": _plain(self.provenance),
        }
        return json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1) + "\n"

    def to_result(self, name: str) -> str:
        """The small file for docs/results: each run's recipe, and its headline as metrics called RUN/FIGURE."""
        made = self.provenance
        content = {
            "name": name,
            "command": made.command,
            "recipe": _plain(self.settings),
            "seed": made.seed,
            "commit": made.commit,
            "machine": made.machine,
            "seconds": made.seconds,
            "data": {"set": self.data_name, "split": "test", "images": len(self.labels)},
            "runs": {run.name: _plain(run.recipe_values) for run in self.runs},
            "metrics": {
                f"{run.name}/{figure}": _plain(value) for run in self.runs for figure, value in headline(run).items()
            },
        }
        return json.dumps(content, allow_nan=False, ensure_ascii=False, indent=2) + "\n"


def _plain(value: object) -> Any:
    """Dataclasses, arrays and mappings as what JSON knows."""
    if dataclasses.is_dataclass(value):
        fields = [field for field in dataclasses.fields(value) if not field.metadata.get("picture")]
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if value == 0 or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
    return value
