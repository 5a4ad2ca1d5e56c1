"""Whether a run and a bundle belong together."""

import dataclasses
import math
from typing import Any

from service.detection.bundle import Bundle
from service.errors import SetupError
from training.checkpoint import Run
from training.config import Recipe, recipe_from_dict, recipe_to_dict

__all__ = ["as_exported", "check_pair"]


def check_pair(run: Run, bundle: Bundle) -> None:
    """Refuses a run that the bundle was not exported from, as far as shapes, names, threat model and recipe show it.

    Raises:
        SetupError: names what differs.
    """
    manifest = bundle.manifest
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    if tuple(run.input_shape) != shape:
        raise SetupError(f"{run.path}: images of {run.input_shape}, but the bundle {manifest.name} takes {shape}")
    if run.class_names != manifest.class_names:
        raise SetupError(
            f"{run.path}: {len(run.class_names)} classes {_first(run.class_names)}, but the bundle {manifest.name} has "
            f"{len(manifest.class_names)} {_first(manifest.class_names)}"
        )
    attack, threat = run.recipe.attack, manifest.threat_model
    if attack.norm != threat.norm or not math.isclose(attack.eps, threat.eps, rel_tol=1e-6):
        raise SetupError(
            f"{run.path}: trained for {attack.norm} {attack.eps:g}, but the bundle {manifest.name} for {threat.norm} "
            f"{threat.eps:g}"
        )
    if manifest.training and _trained(recipe_from_dict(manifest.training)) != _trained(run.recipe):
        # Attacks by the gradients of another network are mere transfer attacks, and flatter the bundle.
        raise SetupError(
            f"{run.path}: its recipe is not the one that the bundle {manifest.name} was made by; name the run that it "
            "was exported from"
        )


def as_exported(run: Run, bundle: Bundle) -> Run:
    """The run with the bundle's section `export` in its recipe: it may have been exported with other detectors."""
    if not bundle.manifest.training:
        return run
    exported = recipe_from_dict(bundle.manifest.training).export
    return dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, export=exported))


def _trained(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What the weights come from: everything but how the run was exported."""
    return {section: values for section, values in recipe_to_dict(recipe).items() if section != "export"}


def _first(names: tuple[str, ...]) -> str:
    return f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
