"""A training step in float64, alone or by the processes of torchrun: `python -m tests.training.shared_step DIR`."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoint import load_parts
from training.config import Recipe, recipe_from_dict
from training.loop import Loop
from training.processes import ALONE, Processes, connected

CPU = torch.device("cpu")
TLA_SAR = {"tla": {"weight": 0.5, "pool": 16}, "sar": {"weight": 0.06}}
METHODS: dict[str, dict[str, Any]] = {
    "tla-sar": TLA_SAR,
    "tla-rn": {"tla": {"weight": 0.5, "pool": 16, "mine_by": "random"}},
    "trades": {"trades": {"weight": 6.0}, "attack": {"loss": "kl", "norm": "l2", "eps": 0.5}},
    "awp": {"awp": {"weight": 0.01}},
    "localized": {"localized": {"region": "background"}},
    "port": {**TLA_SAR, "proxy": {"set": "the fit part stands for it", "gamma": 0.4}},
}


def recipe(**sections: dict[str, Any]) -> Recipe:
    table: dict[str, dict[str, Any]] = {
        "data": {"set": "digits", "train": 200, "selection": 30, "fit": 20, "calibration": 20, "fusion": 20},
        "export": {"default_alpha": 0.1},
        "model": {"width": 4, "embedding_dim": 8},
        "train": {"epochs": 1, "batch_size": 40, "shift": 1, "flip": True, "threads": 1, "precision": "float32"},
        "attack": {"eps": 0.1, "steps": 1},
        **{name: dict(section) for name, section in TLA_SAR.items()},
    }
    for name, section in sections.items():
        table[name] = {**table.get(name, {}), **section}
    return recipe_from_dict(table)


def gradients(method: str, processes: Processes = ALONE) -> dict[str, Tensor]:
    """Of each parameter after one step, and the statistics of normalisation that it left."""
    changes = {"tla": {"weight": 0.0}, "sar": {"weight": 0.0}, **METHODS[method]}
    given = recipe(**changes)
    _, parts = load_parts(given, None)
    loop = Loop(given, parts, 10, CPU, processes=processes, proxy=parts.fit if given.proxy.is_on else None)
    embed = loop.model.double().embed  # rounding then hides little: images and losses alone stay float32
    loop.model.embed = lambda images: embed(images.double())  # type: ignore[method-assign]
    loop.step()
    found = {name: weight.grad for name, weight in loop.model.named_parameters() if weight.grad is not None}
    return {**found, **dict(loop.model.named_buffers())}


def main() -> None:
    with connected(CPU) as (_, processes):
        for method in METHODS:
            path = Path(sys.argv[1]) / f"{method}-{processes.shard.rank}.pt"
            torch.save(gradients(method, processes), path)


if __name__ == "__main__":
    main()
