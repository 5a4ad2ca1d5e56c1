import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from training.attacks.fmn import Fmn
from training.attacks.library import DDN, CarliniWagnerL2, DeepFool

ATTACKS = {
    "cw_l2": CarliniWagnerL2(steps=60, bisections=5, initial_constant=0.1),
    "deepfool_l2": DeepFool(norm="l2"),
    "deepfool_linf": DeepFool(norm="linf"),
    "ddn": DDN(steps=150),
    "fmn_linf": Fmn(steps=60),
    "fmn_l2": Fmn(norm="l2", steps=60),
}


class Linear(nn.Module):
    """Two classes whose boundary is a plane, so that the nearest fooling image is known; dropout as bait."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 16).reshape(1, 16))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        margin = self.dropout(images.flatten(1) - 0.5) @ self.weight.T  # (N, 1)
        return torch.cat([margin, -margin], dim=1)


@pytest.fixture
def setup() -> tuple[Linear, Tensor, Tensor]:
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    model = Linear().eval()
    return model, images, model(images).argmax(dim=1)


def distances(model: Linear, images: Tensor, norm: str) -> Tensor:
    margin = ((images.flatten(1) - 0.5) @ model.weight.T).abs().squeeze(1).detach()
    return margin / (model.weight.norm() if norm == "l2" else model.weight.abs().sum()).detach()


@pytest.mark.parametrize("name", ATTACKS)
def test_it_finds_an_image_near_the_boundary(name: str, setup: tuple[Linear, Tensor, Tensor]) -> None:
    model, images, labels = setup
    attacked = ATTACKS[name](model, images, labels, torch.Generator())
    assert (model(attacked).argmax(dim=1) != labels).all()
    assert ((attacked >= 0) & (attacked <= 1)).all()
    delta = (attacked - images).flatten(1)
    norm = "linf" if name.endswith("linf") else "l2"
    found = delta.norm(dim=1) if norm == "l2" else delta.abs().amax(dim=1)
    shortest = distances(model, images, norm)
    assert (found >= shortest * 0.999).all()
    assert (found <= shortest * 1.3 + 0.02).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_it_leaves_the_model_as_it_was(name: str, setup: tuple[Linear, Tensor, Tensor]) -> None:
    model, images, labels = setup
    model.train()
    before = images.clone()
    ATTACKS[name](model, images, labels, torch.Generator())
    assert model.training
    assert model.dropout.training
    assert model.weight.requires_grad
    assert model.weight.grad is None
    assert torch.equal(images, before)


def test_an_image_that_is_wrong_already_is_not_touched(setup: tuple[Linear, Tensor, Tensor]) -> None:
    model, images, labels = setup
    wrong = 1 - labels
    assert torch.equal(DeepFool()(model, images, wrong, torch.Generator()), images)


def test_foolbox_loads_where_there_is_no_git() -> None:
    code = "from training.attacks.library import _foolbox; _foolbox()"
    environment = {key: value for key, value in os.environ.items() if key != "GIT_PYTHON_REFRESH"}
    run = subprocess.run([sys.executable, "-c", code], env={**environment, "PATH": ""}, check=False)
    assert run.returncode == 0
