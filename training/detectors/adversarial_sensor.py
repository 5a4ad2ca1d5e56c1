"""A perturbation sensor that was trained against attacks on the classifier and on itself."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from training.attacks.objectives import margin
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.attacks.threat import Linf
from training.detectors.detector import CleanViews
from training.detectors.learned import learn
from training.detectors.perturbation_sensor import PerturbationSensor, told_apart
from training.forging import forge

__all__ = ["AdversarialSensor"]

EPOCHS = 8.0
STEPS = 5
KAPPA = 0.5
"""In logits: how far the label must be crossed before an attack turns to the sensor."""


class AdversarialSensor(PerturbationSensor):
    """The network of PerturbationSensor, trained by adversarial training: a game with an attacker who knows it.

    A third of the perturbed images is forged as for PerturbationSensor, the others are made anew in every step by
    selective PGD: it lowers the classifier's margin and, once that is crossed, this sensor's odds.

    It is attack-aware: it was trained on the attack `adaptive_selective` of the evaluation, in few steps. What it finds
    of that one proves little, so judge it by the others. It is never among the default detectors.

    Source: detectors trained against attacks on themselves, as in Metzen et al. 2017 (arXiv 1702.04267, section 3.3);
        selective steps are those of Bryniarski et al. 2021 (arXiv 2106.15023).
    """

    kind: ClassVar[str] = "adversarial_sensor"
    is_attack_aware: ClassVar[bool] = True

    def train_on(self, clean: CleanViews) -> None:
        """See Learned."""
        lessons, classifier = clean.lessons, clean.classifier

        def loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            third = len(images) // 3
            forged = forge(images[:third], generator, eps=lessons.eps)
            network.eval()  # or its running statistics would follow the search
            attacked = _attacked(classifier, network, images[third:], labels[third:], generator, eps=lessons.eps)
            network.train()
            return told_apart(network, torch.cat([forged, attacked]), images, generator, eps=lessons.eps)

        learn(self.network, lessons, loss, epochs=EPOCHS, name=self.kind)


def _attacked(
    classifier: nn.Module, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, *, eps: float
) -> Tensor:
    """A few steps of selective PGD from a random start within eps."""
    places = (images + Linf().random_start(images, eps, generator)).clamp(0, 1)
    for _ in range(STEPS):
        places.requires_grad_()
        with torch.enable_grad():
            lead = -margin(classifier(places).float(), labels)
            odds = network(places).float()
            (gradient,) = torch.autograd.grad(torch.where(lead < -KAPPA, odds, lead).sum(), places)
        moved = places.detach() - 2.5 * eps / STEPS * gradient.sign()
        places = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    return from_8_bit(nearest_8_bit(places)).to(images)  # or the sensor would learn to see what lies between levels
