"""Minimum-norm attacks of foolbox behind our attack protocol: they look for the nearest image that fools.

foolbox is imported on the first call, so that training needs it neither installed nor loaded.
"""

import functools
import os
import types
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks.protocol import undisturbed

__all__ = ["DDN", "CarliniWagnerL2", "DeepFool"]


@dataclass(frozen=True, kw_only=True)
class CarliniWagnerL2:
    """Least squared distance plus a constant times the logit margin, the constant found by bisection.

    Source: Carlini and Wagner 2017 (arXiv 1608.04644), untargeted.
    """

    confidence: float = 0.0
    """Kappa: how far the wrong logit must lead. More than the model's logits can give makes every attempt fail."""
    steps: int = 1_000
    """Of each bisection step."""
    bisections: int = 9
    step: float = 0.01
    initial_constant: float = 1e-3

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1]; `generator` seeds what foolbox draws."""
        attack = _foolbox().attacks.L2CarliniWagnerAttack(
            binary_search_steps=self.bisections,
            steps=self.steps,
            stepsize=self.step,
            confidence=self.confidence,
            initial_const=self.initial_constant,
        )
        return _nearest_fooling(attack, model, images, labels, generator)


@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """Steps to the nearest class boundary of the linearised model until it is crossed.

    Source: Moosavi-Dezfooli et al. 2016 (arXiv 1511.04599).
    """

    norm: Literal["l2", "linf"] = "l2"
    steps: int = 50
    candidates: int = 10
    """Likeliest classes whose boundaries are looked at."""
    overshoot: float = 0.02

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1]; `generator` seeds what foolbox draws."""
        attacks = _foolbox().attacks
        kind = attacks.L2DeepFoolAttack if self.norm == "l2" else attacks.LinfDeepFoolAttack
        attack = kind(steps=self.steps, candidates=self.candidates, overshoot=self.overshoot)
        return _nearest_fooling(attack, model, images, labels, generator)


@dataclass(frozen=True, kw_only=True)
class DDN:
    """Gradient steps on a sphere whose radius shrinks while the image fools and grows while it does not.

    Source: Rony et al. 2019 (arXiv 1811.09600).
    """

    steps: int = 200
    init_eps: float = 1.0
    gamma: float = 0.05
    """Share by which the radius changes in a step."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1]; `generator` seeds what foolbox draws."""
        attack = _foolbox().attacks.DDNAttack(init_epsilon=self.init_eps, steps=self.steps, gamma=self.gamma)
        return _nearest_fooling(attack, model, images, labels, generator)


def _nearest_fooling(
    attack: Any, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """Runs a foolbox attack; an image on which it finds nothing comes back as the attack left it.

    Images that the model gets wrong already come back as they are: their nearest fooling image is themselves.
    foolbox calls `backward`; `undisturbed` keeps that from adding to the weights' gradients. It draws torch's global
    random numbers (DDN does), whose state is put back.
    """
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    devices = [images.device] if images.is_cuda else []
    with undisturbed(model), warnings.catch_warnings(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        warnings.simplefilter("ignore")  # of foolbox and eagerpy, none of them about the result
        with torch.no_grad():
            right = model(images).argmax(dim=1) == labels
        attacked = images.clone()
        if right.any():
            wrapped = _foolbox().PyTorchModel(model, bounds=(0, 1), device=images.device)
            found, _, _ = attack(wrapped, images[right].clone(), labels[right], epsilons=None)
            attacked[right] = found.detach().clamp(0, 1)
    return attacked


@functools.cache
def _foolbox() -> types.ModuleType:
    """The library, without its need for a git executable.

    Raises:
        SetupError: it is not installed.
    """
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # its GitPython refuses to load where git is missing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import foolbox
    except ImportError as error:
        raise SetupError(f"this attack needs foolbox: pip install 'advsentry[evaluation]' ({error})") from error
    return foolbox
