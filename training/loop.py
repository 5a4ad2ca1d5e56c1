"""The training loop: one object that holds all that a run changes, stepped from outside."""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from service.errors import SetupError
from training.attack_memory import AttackMemory
from training.attack_schedule import AttackSchedule
from training.attacks import Pgd
from training.averaging import Averager
from training.awp import perturbed_weights
from training.class_centres import set_class_centres
from training.collapse import checked_spread
from training.compiling import Compiled, check_compiler
from training.config import Recipe
from training.data.augment import augmented, drawn_moves, moved
from training.data.batches import ImageSource, epoch_order
from training.data.splits import Parts
from training.guard import Guard
from training.losses import TrainingStep, build_terms, load_term_states, see_together, term_states
from training.measure import Accuracies, measure, measuring_attack
from training.models import Classifier, build_model
from training.optimiser import build_optimiser
from training.precision import autocast, uses_bf16
from training.processes import ALONE, Processes, check_shareable
from training.schedule import learning_rate
from training.selection import better
from training.shard import ShardGenerator
from training.synchronised import synchronise

__all__ = ["EpochRecord", "Loop"]

EpochRecord = dict[str, float | int | str]
MEASURED_TRAINING_IMAGES = 512
GENERATORS = ("augmentation", "attack", "loss")


class Loop:
    """A run at some step. Between steps, state() holds all that load_state() needs to go on exactly.

    Attributes:
        epoch: epochs completed.
        batch: steps completed inside the epoch under way.
        log: one record a completed epoch.
        best: epoch, accuracies and weights of the best epoch (training.selection); None without selection.
        best_averaged: the same of the averaged weights; None without averaging.
        values: of each loss term in the last step, scalars, weights included.
    """

    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        classes: int,
        device: torch.device,
        *,
        start: Classifier | None = None,
        processes: Processes = ALONE,
    ) -> None:
        """Takes the network whose weights training starts from; None for random ones.

        Every one of several processes makes its own, and calls step() and close_epoch() as often as the others.

        Raises:
            SetupError: several processes cannot share the recipe's batch, or nothing can be compiled here.
        """
        _, height, width, channels = parts.train.images.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.train.seed)
            model = build_model(recipe.model, channels, height, width, classes)
        if start is not None:
            model.load_state_dict(start.state_dict())
        self.recipe = recipe
        self.device = device
        self.processes = processes
        self.model = model.to(device).train()
        self.averager: Averager | None = None
        config = recipe.averaging
        if config.kind != "none":
            self.averager = Averager(config.kind, config.decay, self.model, statistics=config.statistics)
        if processes.are_several:  # the averaged network is of each process alone
            synchronise(self.model, processes.shard)
        self._network = self.model
        if recipe.train.compile:
            check_compiler(device)
            self._network = Compiled(self.model)
        self.optimiser = build_optimiser(recipe.train, self.model)
        self.terms = build_terms(recipe)
        self.bf16 = uses_bf16(recipe.train.precision, device)
        self.source = ImageSource(parts.train, device)
        self.selection = ImageSource(parts.selection, device) if len(parts.selection) else None
        self.batch_size = min(recipe.train.batch_size, len(self.source))
        check_shareable(recipe, self.batch_size, processes)
        self.steps_an_epoch = len(self.source) // self.batch_size  # the rest waits for another epoch's order
        self.attacks = AttackSchedule(recipe.attack, self.steps_an_epoch, self.steps)
        self.memory: AttackMemory | None = None
        if recipe.attack.renew_epochs:
            self.memory = AttackMemory(self.source, recipe.attack.renew_epochs)
        self.guard: Guard | None = None
        if recipe.attack.guard:
            if self.selection is None:
                raise SetupError("data.selection: expected images for attack.guard to watch, got 0")
            self.guard = Guard(recipe.attack, self.selection, recipe.train.seed, processes)
        self.epoch = self.batch = 0
        self.log: list[EpochRecord] = []
        self.best: dict[str, Any] | None = None
        self.best_averaged: dict[str, Any] | None = None
        self.values: dict[str, Tensor] = {}
        self._generators = {name: ShardGenerator() for name in GENERATORS}
        for number, generator in enumerate(self._generators.values()):
            generator.shard = processes.shard
            generator.manual_seed(recipe.train.seed * len(GENERATORS) + number)
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
        with autocast(self.device, bf16=self.bf16):
            step = self._attacked_batch()
            wanted = {name: list(term.images(step)) for name, term in self.terms.items()}
        self.optimiser.zero_grad(set_to_none=True)
        if self._perturbs_weights:
            gamma = self.recipe.awp.weight
            with perturbed_weights(self.model, lambda: self._loss(step, wanted)[0], gamma, self.processes):
                loss, logits = self._descend(step, wanted)
        else:
            loss, logits = self._descend(step, wanted)
        self.optimiser.step()
        self.batch += 1
        self._average_step()
        self._count(loss.detach(), logits.detach(), step.labels)
        self._watch()
        self._sums["seconds"] += time.monotonic() - started

    def _count(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        # One tensor, so that the processor waits for the device once a step.
        figures = torch.stack([loss.double(), (logits.argmax(dim=1) == labels).sum().double()])
        summed, correct = self.processes.summed(figures).tolist()
        self._sums["loss"] += summed / self.processes.shard.world
        self._sums["correct"] += correct

    @property
    def _perturbs_weights(self) -> bool:
        return self.recipe.awp.weight > 0 and self.epoch >= self.recipe.awp.start_epoch

    def _attacked_batch(self) -> TrainingStep:
        positions = self._positions()
        labels = self.source.labels[positions.to(self.device)]
        config, augmentation = self.recipe.train, self._generators["augmentation"]
        moves = drawn_moves(len(positions), config.shift, augmentation)
        clean = augmented(moved(self.source.take(positions), moves), config, augmentation)
        attacked = self._attacked(clean, labels, positions, moves)
        return TrainingStep(
            model=self.model,
            clean=clean,
            attacked=attacked,
            labels=labels,
            positions=positions,
            source=self.source,
            epoch=self.epoch,
            generator=self._generators["loss"],
        )

    def _attacked(self, clean: Tensor, labels: Tensor, positions: Tensor, moves: Tensor | None) -> Tensor:
        attack = self.attacks.at(self.steps_done, fell_back=self.has_fallen_back)
        if attack is None:
            return clean
        generator = self._generators["attack"]
        if self.memory is None or not isinstance(attack, Pgd):
            return attack(self._network, clean, labels, generator)
        start = self.memory.start(positions, self.epoch)
        start = None if start is None else moved(start, moves)
        attacked = attack.begun_at(start, self._network, clean, labels, generator)
        self.memory.keep(positions, moved(attacked, None if moves is None else -moves), self.epoch)
        return attacked

    def _descend(self, step: TrainingStep, wanted: Mapping[str, Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        """Adds the gradients of the whole batch's loss; gives the own rows' loss and logits of the attacked images."""
        loss, logits = self._loss(step, wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.average([weight.grad for weight in self.model.parameters() if weight.grad is not None])
        return loss, logits

    def _loss(self, step: TrainingStep, wanted: Mapping[str, Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        with autocast(self.device, bf16=self.bf16):
            every = [images for several in wanted.values() for images in several]
            attacked, *others = see_together(self._network, [step.attacked, *every])
            self.values = {}
            for name, term in self.terms.items():
                own = [others.pop(0) for _ in wanted[name]]
                self.values[name] = term(step, attacked, own)
        first, *rest = self.values.values()
        loss = sum(rest, start=first)
        self.values = {name: value.detach() for name, value in self.values.items()}
        return loss, attacked.logits

    def _positions(self) -> Tensor:
        if self._order_epoch != self.epoch:
            self._order = epoch_order(len(self.source), self.recipe.train.seed, self.epoch)
            self._order_epoch = self.epoch
        return self.processes.shard.rows(self._order[self.batch * self.batch_size :][: self.batch_size])

    def _set_learning_rate(self) -> None:
        config = self.recipe.train
        rate = learning_rate(config.schedule, config.learning_rate, self.steps_done, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _average_step(self) -> None:
        """Takes the weights into the average: at each step (ema), or in the last step of an epoch (swa)."""
        if self.averager is None or self.epoch < self.recipe.averaging.start_epoch:
            return
        if self.averager.kind == "ema" or self.epoch_is_over:
            self.averager.add(self.model)

    @property
    def has_fallen_back(self) -> bool:
        """Whether the guard has given up the recipe's attack."""
        return self.guard is not None and self.guard.tripped_at is not None

    def _watch(self) -> None:
        """Asks the guard, and goes back to the last good weights when it says so; the schedule goes on."""
        if self.guard is None or self.has_fallen_back or not self.guard.is_due(self.batch, self.steps_an_epoch):
            return
        state = self.guard.look(self.model, self.steps_done)
        if state == "collapsed":
            self._restore_weights(self.guard.good)
        elif state == "good":
            self.guard.keep(copy.deepcopy(self._weights()))

    def _weights(self) -> dict[str, Any]:
        """What training has learned so far: network, optimiser and average."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "averager": self.averager.state() if self.averager is not None else None,
        }

    def _restore_weights(self, weights: dict[str, Any]) -> None:
        # load_state_dict keeps the very tensors that it is given: they must not be changed by the steps to come.
        weights = copy.deepcopy(weights)
        self.model.load_state_dict(weights["model"])
        self.optimiser.load_state_dict(weights["optimiser"])
        if self.averager is not None:
            self.averager.load_state(weights["averager"])

    @property
    def epoch_is_over(self) -> bool:
        """All batches of the epoch under way are done and close_epoch is due."""
        return self.batch >= self.steps_an_epoch

    def close_epoch(self) -> EpochRecord:
        """Measures, keeps the best weights, and goes on to the next epoch; gives the line for the log."""
        started = time.monotonic()
        measured = self._measured(self.model)
        running = self.running()
        averaged = self._measured_average()
        self.epoch += 1
        record: EpochRecord = {
            "epoch": self.epoch,
            "loss": running["loss"],
            "measured_on": "selection" if self.selection else "train",
            "clean_accuracy": measured.clean,
            "attacked_accuracy": measured.attacked,
            "training_attacked_accuracy": running["attacked_accuracy"],
            "images_per_second": running["images_per_second"],
        }
        if averaged is not None:
            record |= {"averaged_clean_accuracy": averaged.clean, "averaged_attacked_accuracy": averaged.attacked}
        if self.guard is not None and self.guard.tripped_at is not None:
            record["guard_tripped_at_step"] = self.guard.tripped_at
        if self.recipe.metric.weight:
            record |= checked_spread(self.model, self.source, self.recipe.metric.least_distance, self.epoch)
        seconds = self._sums["seconds"] + time.monotonic() - started
        record["seconds"] = self.processes.decided(lambda: seconds)  # a limit ends all processes at one epoch
        self.log.append(record)
        if self.selection is not None:
            self.best = better(self.best, self.epoch, measured, self.model, len(self.selection))
        if averaged is not None and self.averager is not None:
            # Without a selection part the latest average is the best known.
            before = self.best_averaged if self.selection is not None else None
            images = len(self.selection or self.source)
            self.best_averaged = better(before, self.epoch, averaged, self.averager.model, images)
        self.batch = 0
        self._sums = dict.fromkeys(self._sums, 0.0)
        return record

    def _measured(self, model: Classifier) -> Accuracies:
        if self.recipe.metric.is_alone:
            set_class_centres(model, self.source)
        source = self.selection or self.source
        positions = torch.arange(len(source))
        if self.selection is None:
            positions = positions[:: math.ceil(len(source) / MEASURED_TRAINING_IMAGES)]
        attack, seed = measuring_attack(self.recipe.attack), self.recipe.train.seed
        return self.processes.decided(lambda: measure(model, source, positions, attack, seed))

    def _measured_average(self) -> Accuracies | None:
        if self.averager is None or self.averager.count == 0:
            return None
        self.averager.estimate(self.source)
        return self._measured(self.averager.model)

    def state(self) -> dict[str, Any]:
        """Everything that changes during a run, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            **self._weights(),
            "memory": self.memory.state() if self.memory is not None else None,
            "guard": self.guard.state() if self.guard is not None else None,
            "terms": term_states(self.terms),
            "generators": {name: generator.get_state() for name, generator in self._generators.items()},
            "sums": dict(self._sums),
            "log": list(self.log),
            "best": self.best,
            "best_averaged": self.best_averaged,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to where state() was taken, on this device."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self._restore_weights(state)
        if self.memory is not None:
            self.memory.load_state(state["memory"])
        if self.guard is not None:
            self.guard.load_state(state["guard"])
        load_term_states(self.terms, state.get("terms", {}))  # checkpoints of before have none
        for name, generator in self._generators.items():
            generator.set_state(state["generators"][name])
        self._sums, self.log = dict(state["sums"]), list(state["log"])
        self.best, self.best_averaged = state["best"], state["best_averaged"]
