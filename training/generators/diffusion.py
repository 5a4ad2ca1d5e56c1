"""A class-conditional diffusion model small enough for two cores; its noise and its steps are in schedule.py.

A model of our own instead of one from the library diffusers, which is no dependency here. Weights are averaged
exponentially, and the average draws.
"""

import math
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from service.detection.types import Bytes8, Integers
from service.errors import SetupError
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.checkpoint import read_tensors, write_tensors
from training.data import ImageSet
from training.differences import differences
from training.generators.protocol import Learning
from training.generators.schedule import TIMES, drawn, noised
from training.generators.unet import UNet
from training.precision import autocast, computes_in_bf16
from training.schedule import learning_rate

__all__ = ["Diffusion"]

DECAY = 0.998
SAVE_EVERY_S = 60.0
TELL_EVERY = 500
BATCH = 500
CLIP = 1.0
"""The longest gradient: a few first steps would else throw the weights far out."""


class Diffusion:
    """Learns when it is made, or goes on where its file stopped."""

    def __init__(self, images: ImageSet, classes: int, learning: Learning) -> None:
        """Takes the images to learn from.

        Raises:
            SetupError: the file of weights is damaged, or of another model.
        """
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.learning = learning
        self._images, self._shape = images, images.images.shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(learning.seed)
            self.network = UNet(channels=self._shape[2], classes=classes, width=learning.width).to(self.device)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self._optimiser = torch.optim.AdamW(self.network.parameters(), lr=learning.learning_rate, weight_decay=0.0)
        self._generator = torch.Generator().manual_seed(learning.seed)
        # On a CPU, casts and normalisation cost more than so narrow convolutions gain.
        self._bf16 = self.device.type == "cuda" and computes_in_bf16(self.device)
        self.step = 0
        if learning.weights is not None and learning.weights.exists():
            self._load(read_tensors(learning.weights))
        self._learn()
        self.network.load_state_dict(self.average)
        self.network.eval()

    def sample(self, labels: Integers, random: np.random.Generator) -> Bytes8:
        """See Generator."""
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        found, height, width, channels = [], *self._shape
        for part in torch.split(torch.from_numpy(labels), BATCH):
            start = torch.randn(len(part), channels, height, width, generator=generator).to(self.device)
            known = part.to(self.device)

            def predict(images: Tensor, times: Tensor, known: Tensor = known) -> Tensor:
                with autocast(self.device, bf16=self._bf16):
                    return self.network(images, times, known).float()  # type: ignore[no-any-return]

            eta = 1.0 if self.learning.sampler == "ddpm" else 0.0
            images = drawn(predict, start, steps=self.learning.sampling_steps, eta=eta, generator=generator)
            found.append(nearest_8_bit((images + 1) / 2).cpu().numpy())
        return np.ascontiguousarray(np.concatenate(found))

    def _learn(self) -> None:
        learning, saved, losses = self.learning, time.monotonic(), 0.0
        self.network.train()
        while self.step < learning.steps:
            losses += self._stepped()
            if self.step % TELL_EVERY == 0 or self.step == learning.steps:
                sys.stderr.write(f"diffusion: step {self.step} of {learning.steps}, loss {losses / TELL_EVERY:.4f}\n")
                losses = 0.0
            if time.monotonic() - saved > SAVE_EVERY_S or self.step == learning.steps:
                self._save()
                saved = time.monotonic()

    def _stepped(self) -> float:
        learning = self.learning
        chosen = torch.randint(len(self._images), (learning.batch_size,), generator=self._generator)
        images = 2 * from_8_bit(self._images.images[chosen.numpy()]).to(self.device) - 1
        labels = torch.from_numpy(self._images.labels)[chosen].to(self.device)
        # Evenly spread times instead of independent ones: the loss of a small batch scatters less.
        shift = torch.rand(1, generator=self._generator)
        times = ((torch.arange(len(chosen)) / len(chosen) + shift) % 1 * TIMES).to(self.device)
        noise = torch.randn(images.shape, generator=self._generator).to(self.device)
        seen, v = noised(images, times, noise)
        with autocast(self.device, bf16=self._bf16):
            found = self.network(seen, times, labels)
        loss = F.mse_loss(found.float(), v)
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate("one-cycle", learning.learning_rate, self.step, learning.steps)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self._optimiser.step()
        self.step += 1
        share = 1 - min(DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, share)
        value = loss.item()
        if not math.isfinite(value):
            raise SetupError(
                f"diffusion: expected a finite loss at step {self.step}, got {value}; lower --learning-rate"
            )
        return value

    def _told(self) -> dict[str, Any]:
        """What a file of weights must agree in."""
        kept = replace(self.learning, weights=None, sampler="ddim", sampling_steps=1)
        own = {
            name: value for name, value in vars(kept).items() if name not in ("weights", "sampler", "sampling_steps")
        }
        return {**own, "images": len(self._images), "shape": list(self._shape)}

    def _save(self) -> None:
        if self.learning.weights is None:
            return
        content = {
            "told": self._told(),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
        }
        write_tensors(self.learning.weights, content)

    def _load(self, content: dict[str, Any]) -> None:
        path = self.learning.weights
        try:
            if different := differences(self._told(), content["told"]):
                raise SetupError(
                    f"{path}: expected the weights of this model, got others with {different}; name another file"
                )
            self.step, self.average = content["step"], {n: v.to(self.device) for n, v in content["average"].items()}
            self.network.load_state_dict(content["network"])
            self._optimiser.load_state_dict(content["optimiser"])
            self._generator.set_state(content["generator"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise SetupError(
                f"{path}: expected weights of a diffusion model, got: {error}; name another file"
            ) from error
