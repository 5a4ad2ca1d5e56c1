"""The training loop: one object that holds all that a run changes, stepped from outside."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.attacks import Attack, build_attack
from training.config import Recipe
from training.data.batches import ImageSource, epoch_order, shifted
from training.data.splits import Parts
from training.losses import TrainingStep, build_terms
from training.measure import measure, measuring_attack
from training.models import Classifier, build_model
from training.optimiser import build_optimiser
from training.precision import autocast, uses_bf16
from training.schedule import learning_rate

__all__ = ["EpochRecord", "Loop", "embed_together"]

EpochRecord = dict[str, float | int | str]
MEASURED_TRAINING_IMAGES = 512
GENERATORS = ("augmentation", "attack", "loss")


class Loop:
    """A run at some step. Between steps, state() holds all that load_state() needs to go on exactly.

    Attributes:
        epoch: epochs completed.
        batch: steps completed inside the epoch under way.
        log: one record a completed epoch.
        best: epoch, accuracies and weights of the best epoch by attacked accuracy; None without selection.
    """

    def __init__(self, recipe: Recipe, parts: Parts, classes: int, device: torch.device) -> None:
        _, height, width, channels = parts.train.images.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.train.seed)
            model = build_model(recipe.model, channels, height, width, classes)
        self.recipe = recipe
        self.device = device
        self.model = model.to(device).train()
        self.optimiser = build_optimiser(recipe.train, self.model)
        self.attack = build_attack(recipe.attack)
        self.terms = build_terms(recipe)
        self.bf16 = uses_bf16(recipe.train.precision, device)
        self.source = ImageSource(parts.train, device)
        self.selection = ImageSource(parts.selection, device) if len(parts.selection) else None
        self.batch_size = min(recipe.train.batch_size, len(self.source))
        self.steps_an_epoch = len(self.source) // self.batch_size  # the rest waits for another epoch's order
        self.epoch = self.batch = 0
        self.log: list[EpochRecord] = []
        self.best: dict[str, Any] | None = None
        self._generators = {
            name: torch.Generator().manual_seed(recipe.train.seed * len(GENERATORS) + number)
            for number, name in enumerate(GENERATORS)
        }
        self._sums = {"loss": 0.0, "correct": 0.0, "seconds": 0.0}
        self._order = epoch_order(len(self.source), recipe.train.seed, 0)
        self._order_epoch = 0

    @property
    def steps_done(self) -> int:
        """Steps since the run began."""
        return self.epoch * self.steps_an_epoch + self.batch

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.train.epochs * self.steps_an_epoch

    @property
    def is_finished(self) -> bool:
        """All epochs are done, or the time is used up."""
        limit = self.recipe.train.max_minutes * 60
        return self.epoch >= self.recipe.train.epochs or (0 < limit <= self.seconds)

    @property
    def seconds(self) -> float:
        """Time spent in completed epochs, measuring included."""
        return sum(float(record["seconds"]) for record in self.log)

    def running(self) -> dict[str, float]:
        """loss, attacked_accuracy (in train mode) and images_per_second of the epoch under way."""
        seen = max(1, self.batch) * self.batch_size
        return {
            "loss": self._sums["loss"] / max(1, self.batch),
            "attacked_accuracy": self._sums["correct"] / seen,
            "images_per_second": seen / max(1e-9, self._sums["seconds"]),
        }

    def step(self) -> None:
        """One batch: attack it, descend, count."""
        started = time.monotonic()
        self._set_learning_rate()
        positions = self._positions()
        labels = self.source.labels[positions.to(self.device)]
        clean = shifted(self.source.take(positions), self.recipe.train.shift, self._generators["augmentation"])
        with autocast(self.device, bf16=self.bf16):
            loss, logits = self._loss(clean, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.batch += 1
        self._sums["loss"] += float(loss.detach())
        self._sums["correct"] += int((logits.detach().argmax(dim=1) == labels).sum())
        self._sums["seconds"] += time.monotonic() - started

    def _positions(self) -> Tensor:
        if self._order_epoch != self.epoch:
            self._order = epoch_order(len(self.source), self.recipe.train.seed, self.epoch)
            self._order_epoch = self.epoch
        return self._order[self.batch * self.batch_size :][: self.batch_size]

    def _set_learning_rate(self) -> None:
        config = self.recipe.train
        rate = learning_rate(config.schedule, config.learning_rate, self.steps_done, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _attack(self) -> Attack | None:
        """The training attack, in the first epochs with a share of its budget."""
        config = self.recipe.attack
        warmup_steps = config.warmup_epochs * self.steps_an_epoch
        if self.steps_done >= warmup_steps:
            return self.attack
        share = (self.steps_done + 1) / warmup_steps
        return build_attack(replace(config, eps=share * config.eps, step=share * config.step))

    def _loss(self, clean: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        attacked = clean
        attack = self._attack()
        if attack is not None:
            attacked = attack(self.model, clean, labels, self._generators["attack"])
        step = TrainingStep(
            model=self.model,
            clean=clean,
            attacked=attacked,
            labels=labels,
            source=self.source,
            generator=self._generators["loss"],
        )
        wanted = [term.images(step) for term in self.terms]
        embeddings = embed_together(self.model, [attacked, *(images for several in wanted for images in several)])
        anchors = next(embeddings)
        logits = self.model.head(anchors).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.train.label_smoothing)
        for term, several in zip(self.terms, wanted, strict=True):
            loss = loss + term(step, anchors.float(), [next(embeddings).float() for _ in several])
        return loss, logits

    @property
    def epoch_is_over(self) -> bool:
        """All batches of the epoch under way are done and close_epoch is due."""
        return self.batch >= self.steps_an_epoch

    def close_epoch(self) -> EpochRecord:
        """Measures, keeps the best weights, and goes on to the next epoch; gives the line for the log."""
        started = time.monotonic()
        source = self.selection or self.source
        positions = torch.arange(len(source))
        if self.selection is None:
            positions = positions[:: math.ceil(len(source) / MEASURED_TRAINING_IMAGES)]
        attack = measuring_attack(self.recipe.attack)
        measured = measure(self.model, source, positions, attack, self.recipe.train.seed)
        running = self.running()
        self.epoch += 1
        record: EpochRecord = {
            "epoch": self.epoch,
            "loss": running["loss"],
            "measured_on": "selection" if self.selection else "train",
            "clean_accuracy": measured.clean,
            "attacked_accuracy": measured.attacked,
            "training_attacked_accuracy": running["attacked_accuracy"],
            "images_per_second": running["images_per_second"],
            "seconds": self._sums["seconds"] + time.monotonic() - started,
        }
        self.log.append(record)
        if self.selection is not None:
            self._keep_best(record)
        self.batch = 0
        self._sums = dict.fromkeys(self._sums, 0.0)
        return record

    def _keep_best(self, record: EpochRecord) -> None:
        key = [record["attacked_accuracy"], record["clean_accuracy"]]
        if self.best is None or key > [self.best["attacked_accuracy"], self.best["clean_accuracy"]]:
            weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            kept = {name: record[name] for name in ("epoch", "attacked_accuracy", "clean_accuracy")}
            self.best = {**kept, "model": weights}

    def state(self) -> dict[str, Any]:
        """Everything that changes during a run, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generators": {name: generator.get_state() for name, generator in self._generators.items()},
            "sums": dict(self._sums),
            "log": list(self.log),
            "best": self.best,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to where state() was taken, on this device."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, generator in self._generators.items():
            generator.set_state(state["generators"][name])
        self._sums, self.log, self.best = dict(state["sums"]), list(state["log"]), state["best"]


def embed_together(model: Classifier, several: Sequence[Tensor]) -> Iterator[Tensor]:
    """Embeddings (M, D) of each batch of images (M, C, H, W), from one pass, so with one set of batch statistics."""
    embeddings = model.embed(torch.cat(list(several)))
    return iter(torch.split(embeddings, [len(images) for images in several]))
