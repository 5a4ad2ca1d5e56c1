"""A defence that is known to be weak must break: a natural network behind a regression on attacked spectra."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from tests.training.attacks.adaptive.toys import Digits, generator
from training.attacks import Pgd
from training.attacks.adaptive import AdaptivePgd, Lagrangian, Loop, Orthogonal, Selective, joined
from training.attacks.rounding import from_8_bit, to_8_bit
from training.data import load_data

EPS, ALPHA = 0.3, 0.05


def spectrum(images: Tensor) -> Tensor:
    return torch.fft.fft2(images).abs().flatten(1)


class SpectralDefence(nn.Module):
    """SpectralDefense in its simplest form (Harder et al. 2021, arXiv 2103.03000)."""

    def __init__(self, model: nn.Module, clean: Tensor, attacked: Tensor) -> None:
        super().__init__()
        self.model = model
        rows = torch.cat([spectrum(clean), spectrum(attacked)]).numpy()
        fitted = LogisticRegression(max_iter=500, C=0.1).fit(rows, np.repeat([0, 1], [len(clean), len(attacked)]))
        self.register_buffer("weights", torch.from_numpy(fitted.coef_[0]).float())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model(images), spectrum(images) @ self.get_buffer("weights")


def test_its_detection_is_high_and_falls_to_attackers_who_know_it(digits: Digits) -> None:
    every = load_data("digits", None).train
    model = digits.target.graph.model
    images, labels = from_8_bit(every.images), torch.from_numpy(every.labels)

    def attacked(part: slice) -> Tensor:
        made = Pgd(eps=EPS, steps=20)(model, images[part], labels[part], generator())
        return from_8_bit(to_8_bit(made, images[part], "linf", EPS))

    fit, calibration, test = slice(0, 400), slice(800, 1000), slice(1000, 1060)
    defence = SpectralDefence(model, images[fit], attacked(fit)).eval()
    with torch.no_grad():
        clean, found = defence(images[calibration])[1], defence(attacked(test))[1]
        fooled = defence(attacked(test))[0].argmax(dim=1) != labels[test]
    assert fooled.double().mean() > 0.9
    assert roc_auc_score(np.repeat([0, 1], [len(clean), len(found)]), torch.cat([clean, found]).numpy()) > 0.9

    loop = Loop(eps=EPS, steps=100, restarts=2)
    rules = (Selective(), Orthogonal(), Lagrangian(weight=0.1), Lagrangian(weight=1.0))
    attacks = [AdaptivePgd(loop=loop, rule=rule) for rule in rules]
    result = joined([attack(defence, images[test], labels[test], generator()) for attack in attacks])
    threshold = clean.quantile(1 - ALPHA)
    assert (result.found & (result.scores <= threshold)).double().mean() >= 0.9
