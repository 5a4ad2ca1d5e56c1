"""The `proxy arc` command: ranks sets of generated images."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from service.errors import SetupError
from training.checkpoint import load_parts, write_atomically
from training.checks import at_least, require
from training.config import Recipe, load_recipe, recipe_to_dict
from training.data import ImageSet
from training.data.generated import read_generated
from training.evaluation.provenance import commit, machine
from training.folders import make_folder
from training.precision import deterministic
from training.proxy.arc import Curve, curve
from training.proxy.discriminator import Discriminating
from training.proxy.loading import check_generated
from training.proxy.wasserstein import conditional_distance

__all__ = ["Ranked", "rank", "run_command"]

REAL = "real"
"""The name under which one half of the real images is held against the other."""
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """What is known of a set."""

    curve: Curve
    distance: float | None
    """See conditional_distance; None for a set without labels."""

    def figures(self) -> dict[str, float]:
        """By name."""
        accuracies = zip(self.curve.eps, self.curve.accuracies, strict=True)
        return {
            "arc": self.curve.arc,
            **({} if self.distance is None else {"wasserstein": self.distance}),
            **{f"accuracy_at_{size:.4g}": accuracy for size, accuracy in accuracies},
        }


def rank(
    recipe: Recipe,
    data_root: Path | None,
    sets: Sequence[Path],
    *,
    eps: Sequence[float],
    images: int,
    settings: Discriminating,
) -> dict[str, Ranked]:
    """What is found of each set, by its file's name without ending, and of real images against real ones.

    Args:
        recipe: see trained_discriminator; the real images are its training part.
        data_root: folder of the data.
        sets: .npz files.
        eps: sizes of attacks, rising from 0.
        images: of each kind, at most.
        settings: see Discriminating.

    Raises:
        SetupError: sets that are missing, damaged, of other images than the real ones or called alike, too few images,
            or sizes that do not rise from 0.
    """
    at_least(1, "--images", images)
    names = [path.stem for path in sets]
    if len({*names, REAL}) <= len(names):
        raise SetupError(f"expected sets whose files have different names, none called {REAL}, got {', '.join(names)}")
    dataset, parts = load_parts(recipe, data_root)
    real = _some(parts.train, images, settings.seed)
    left, right = (real.take(np.arange(start, len(real), 2)) for start in (0, 1))
    pairs: dict[str, tuple[ImageSet, ImageSet, bool]] = {REAL: (left, right, True)}
    for path, name in zip(sets, names, strict=True):
        made = read_generated(path)
        check_generated(path, made, recipe, dataset)
        labels = np.zeros(len(made), dtype=np.int64) if made.labels is None else made.labels
        some = _some(ImageSet(images=made.images, labels=labels), images, settings.seed)
        pairs[name] = real, some, made.labels is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {}
    with deterministic(recipe.train.threads):
        for name, (one, other, is_labelled) in pairs.items():
            found[name] = Ranked(
                curve=curve(one.images, other.images, eps, recipe, settings, device),
                # From equally many real images: the distance of samples falls with their number.
                distance=conditional_distance(left, other) if is_labelled else None,
            )
            sys.stderr.write(f"{name}: ARC {found[name].curve.arc:.4g}\n")
    return found


def _some(images: ImageSet, count: int, seed: int) -> ImageSet:
    """At most so many of them, in random order."""
    return images.take(np.random.default_rng(np.random.SeedSequence([seed, 2])).permutation(len(images))[:count])


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `proxy arc`; gives its exit status."""
    began, code = time.monotonic(), commit()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    eps = arguments.eps or tuple(share * recipe.attack.eps for share in QUARTERS)
    out: Path | None = arguments.out
    if out is not None:
        require(out.suffix == ".json" and not out.is_dir(), "--out", "a file NAME.json", str(out))
        make_folder(out.parent, "--out")
    settings = Discriminating(epochs=arguments.epochs, steps=arguments.pgd_steps, seed=arguments.seed)
    ranked = rank(recipe, arguments.data, arguments.sets, eps=eps, images=arguments.images, settings=settings)
    # RUN/FIGURE, of which the page of results makes a table.
    metrics = {f"{name}/{figure}": value for name, one in ranked.items() for figure, value in one.figures().items()}
    if out is not None:
        content = {
            "name": out.stem,
            "command": _command(arguments),
            "recipe": recipe_to_dict(recipe),
            "seed": arguments.seed,
            "commit": code,
            "machine": machine(),
            "seconds": round(time.monotonic() - began, 1),
            "data": {"set": recipe.data.set, "split": "train", "images": arguments.images},
            "metrics": metrics,
        }
        write_atomically(out, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if arguments.json:
        sys.stdout.write(json.dumps(metrics) + "\n")
    else:
        for name, one in sorted(ranked.items(), key=lambda item: item[1].curve.arc):
            sys.stdout.write(f"{one.curve.arc:.4f} {name}\n")
    return 0


def _command(arguments: argparse.Namespace) -> str:
    words = ["advsentry-train", "proxy", "arc", arguments.recipe, *(str(path) for path in arguments.sets)]
    words += [] if arguments.data is None else ["--data", "DATA"]  # where it lies is this machine's affair
    words += ["--eps", ",".join(f"{size:g}" for size in arguments.eps)] if arguments.eps else []
    for name in ("images", "epochs", "pgd_steps", "seed"):
        words += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    return shlex.join([*words, "--out", str(arguments.out), *arguments.overrides])
