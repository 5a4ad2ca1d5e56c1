"""Trains a recipe into a run directory, resumably; the `fit` command."""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import torch
from rich.console import Console

from service.errors import SetupError
from training.attacks import build_attack
from training.checkpoint import (
    CHECKPOINT,
    code_version,
    data_digest,
    load_parts,
    read_checkpoint,
    starting_model,
    write_atomically,
    write_checkpoint,
)
from training.checks import one_of
from training.config import (
    Recipe,
    load_recipe,
    recipe_from_dict,
    recipe_to_dict,
    recipe_to_toml,
    recipe_values,
)
from training.data import DATASETS
from training.data.sources import download
from training.differences import differences
from training.export import check_detectors, check_exportable
from training.interrupts import Interrupts, deferred_interrupts
from training.launch import is_first
from training.loop import Loop
from training.lost import to_lower, told_terms
from training.masks import read_masks
from training.models import check_model
from training.precision import deterministic
from training.processes import Processes, connected
from training.progress import Reporter, reporting
from training.proxy.of_run import keep_labels, proxy_of_run

__all__ = ["Outcome", "fit", "run_command"]

SAVE_EVERY_S = 60.0


class Outcome(Enum):
    """How a call of fit ended."""

    FINISHED = "finished"
    ALREADY_FINISHED = "already finished"
    INTERRUPTED = "interrupted"


def fit(
    recipe: Recipe,
    data_root: Path | None,
    out: Path,
    *,
    device: torch.device | None = None,
    on_step: Callable[[Loop], None] | None = None,
) -> Outcome:
    """Trains a recipe, or goes on where the run in this directory stopped.

    An interrupted and resumed run ends in the very weights of an uninterrupted one (on one kind of CPU, with
    one number of threads). The directory gets recipe.toml, checkpoint.pt and log.jsonl. Under torchrun every process
    calls it, and they train together; the first one writes.

    Args:
        recipe: what to train.
        data_root: folder of the data sets, for sets that need one.
        out: the run directory, made where it is missing.
        device: default CUDA where there is one, else the CPU.
        on_step: called after every step, for tests and notebooks.

    Raises:
        SetupError: wrong data, a directory that holds something else or a run of another recipe, a loss that is no
            longer finite, or a disk that is full.
    """
    _check_values(recipe)
    with connected(device) as (own_device, processes), deterministic(recipe.train.threads):
        is_begun, is_finished = processes.decided(lambda: _progress(out, recipe))
        if is_finished:
            return Outcome.ALREADY_FINISHED
        session = _Session(recipe, data_root, out, own_device, processes, is_begun=is_begun)
        session.resume() if is_begun else session.begin()
        console = None if processes.is_first else Console(quiet=True)
        with deferred_interrupts() as interrupts, reporting(session.loop, console) as reporter:
            return session.run(interrupts, reporter, on_step)


def _check_values(recipe: Recipe) -> None:
    """Refuses wrong values, for which no data are needed, before they are held against those of a run.

    Raises:
        SetupError: an unknown name, or values that do not go together.
    """
    one_of(DATASETS, "data.set", recipe.data.set)
    check_model(recipe.model)
    build_attack(recipe.attack)
    check_detectors(recipe)


def _progress(out: Path, recipe: Recipe) -> tuple[bool, bool]:
    """Whether the recipe's run is begun, and whether it is finished."""
    is_begun = _is_begun(out, recipe)
    return is_begun, is_begun and read_checkpoint(out)["is_finished"]


def _is_begun(out: Path, recipe: Recipe) -> bool:
    """Whether the directory holds a checkpoint of this recipe's run.

    Raises:
        SetupError: it is no run directory, or one of another recipe.
    """
    stored = out / "recipe.toml"
    # A run killed at its very beginning leaves half of recipe.toml, under another name.
    if not out.exists() or (out.is_dir() and not any(path.suffix != ".new" for path in out.iterdir())):
        return False
    if not stored.is_file():
        raise SetupError(f"{out}: expected a run directory or an empty one, got something else; choose another --out")
    try:
        own = load_recipe(stored.resolve())
    except SetupError as error:
        raise SetupError(
            f"{stored}: expected the recipe that this run stored, got a broken one ({error}); "
            "put a good copy back, or choose another --out"
        ) from error
    different = differences(recipe_values(recipe), recipe_values(own))
    if different:
        raise SetupError(
            f"{out}: expected a run of this recipe, got one with {different}; "
            f"choose another --out, or go on with that run by the recipe {stored}"
        )
    return (out / CHECKPOINT).exists()


class _Session:
    """One process's share of a run: the loop and where it is written to."""

    def __init__(
        self,
        recipe: Recipe,
        data_root: Path | None,
        out: Path,
        device: torch.device,
        processes: Processes,
        *,
        is_begun: bool,
    ) -> None:
        dataset, parts = load_parts(recipe, data_root)
        check_exportable(recipe, parts, len(dataset.class_names))
        start = None
        if recipe.train.start_from and not is_begun:  # a resumed run has its own weights
            start = starting_model(recipe, tuple(dataset.class_names), parts.train.images.shape[1:])
        section = recipe.localized
        stored = read_masks(Path(section.file), dataset) if section.is_on and section.mask == "file" else None
        self._proxy = proxy = proxy_of_run(
            recipe, dataset, data_root, out, is_begun=is_begun, device=device, processes=processes
        )
        self.loop = Loop(
            recipe,
            parts,
            len(dataset.class_names),
            device,
            start=start,
            processes=processes,
            masks=stored,
            proxy=None if proxy is None else proxy.images,
        )
        self._processes = processes
        self._out = out
        self._fixed = {
            "code_version": code_version(),
            "recipe": recipe_to_dict(recipe),
            "class_names": list(dataset.class_names),
            "input_shape": list(parts.train.images.shape[1:]),
            "data_digest": data_digest(parts),
            "proxy_digest": "" if proxy is None else proxy.digest,
        }
        self._saved = time.monotonic()

    def begin(self) -> None:
        """Makes the directory; only now, so that wrong data leave nothing behind."""
        if not self._processes.is_first:
            return
        self._out.mkdir(parents=True, exist_ok=True)
        write_atomically(self._out / "recipe.toml", recipe_to_toml(self.loop.recipe))
        keep_labels(self._proxy, self._out)

    def resume(self) -> None:
        """Loads the checkpoint.

        Raises:
            SetupError: it was made from other data, or by another recipe.
        """
        content = read_checkpoint(self._out)
        different = differences(recipe_values(self.loop.recipe), recipe_values(recipe_from_dict(content["recipe"])))
        if different:
            raise SetupError(
                f"{self._out / CHECKPOINT}: expected the checkpoint of this run, got one with {different}; "
                "put the right one back or choose another --out"
            )
        if content["data_digest"] != self._fixed["data_digest"]:
            raise SetupError(f"{self._out}: expected the data that the run began with, got others")
        if content.get("proxy_digest", "") != self._fixed["proxy_digest"]:  # older runs have none
            raise SetupError(f"{self._out}: expected the generated images that the run began with, got others")
        try:
            self.loop.load_state(content["loop"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            network = self.loop.recipe.model.name
            raise SetupError(
                f"{self._out / CHECKPOINT}: expected weights of this run's {network}, got others; "
                "put the right file back or choose another --out"
            ) from error

    def run(self, interrupts: Interrupts, reporter: Reporter, on_step: Callable[[Loop], None] | None) -> Outcome:
        """Steps until the end or an interrupt."""
        while not self.loop.is_finished:
            self.loop.step()
            self._check_loss()
            reporter.step(self.loop)
            if on_step is not None:
                on_step(self.loop)
            is_due = time.monotonic() - self._saved > SAVE_EVERY_S
            # All processes stop, and save, at one step.
            stops, is_due = self._processes.any([interrupts.requested, is_due], self.loop.device)
            ends_epoch = self.loop.epoch_is_over
            saves = ends_epoch or stops or is_due
            if saves:
                self._check_weights()
            if ends_epoch:
                reporter.epoch(self.loop, self.loop.close_epoch())
            if saves:
                self._save()
            if stops and not self.loop.is_finished:
                return Outcome.INTERRUPTED
        return Outcome.FINISHED

    def _check_loss(self) -> None:
        """Refuses to go on, and to save, once the weights are lost."""
        loss = self.loop.running()["loss"]
        if not math.isfinite(loss):
            raise self._lost(f"a finite loss, got {loss}")

    def _check_weights(self) -> None:
        """The same before saving: a step whose loss was finite may have ruined the weights."""
        finite = [value.isfinite().all() for value in self.loop.model.state_dict().values()]
        if not bool(torch.stack(finite).all()):  # one wait for the device, not one a tensor
            raise self._lost("finite weights, got others")

    def _lost(self, what: str) -> SetupError:
        recipe, values = self.loop.recipe, {name: float(value) for name, value in self.loop.values.items()}
        is_saved = (self._out / CHECKPOINT).exists()
        kept = f"{CHECKPOINT} there keeps a good earlier step" if is_saved else "nothing was saved"
        return SetupError(
            f"{self._out}: expected {what} in epoch {self.loop.epoch + 1}, batch {self.loop.batch}; "
            f"{told_terms(recipe, values)}; {kept}; lower {to_lower(recipe, values)} and choose another --out"
        )

    def _save(self) -> None:
        """Writes the checkpoint by the first process; a failure is every process's."""
        self._processes.decided(self._write)
        self._saved = time.monotonic()

    def _write(self) -> None:
        lines = (json.dumps(record) for record in self.loop.log)
        # Written whole from the checkpoint's own log: a crash between the two files repeats no line.
        write_atomically(self._out / "log.jsonl", "".join(f"{line}\n" for line in lines))
        loop = self.loop.state()
        write_checkpoint(self._out, {**self._fixed, "is_finished": self.loop.is_finished, "loop": loop})


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `fit`; gives its exit status."""
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if arguments.download and is_first():  # the others wait for it at the connection
        download(recipe.data.set, arguments.data)
    outcome = fit(recipe, arguments.data, arguments.out)
    if is_first():
        sys.stderr.write(f"{_message(outcome, arguments.out)}\n")
    return 1 if outcome is Outcome.INTERRUPTED else 0


def _message(outcome: Outcome, out: Path) -> str:
    if outcome is Outcome.INTERRUPTED:
        return f"interrupted, saved in {out}; run the same command again to resume"
    if outcome is Outcome.ALREADY_FINISHED:
        return f"{out} is already finished; nothing to do"
    return f"finished: {out}"
