"""A network whose embedding torch.compile has compiled, for the training step and its attack.

The attack in eval mode and the step in train mode are two graphs of one function, each made when it is first needed,
for batches of one size. The network itself, its state dict and its copies know nothing of it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from service.errors import SetupError
from training.models import Classifier

__all__ = ["Compiled", "check_compiler"]


class Compiled(Classifier):
    """The same network, with the same parameters, embedding by compiled code."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network
        self.head = network.head
        self._embed: Callable[[Tensor], Tensor] = torch.compile(network.embed, dynamic=False)

    def embed(self, images: Tensor) -> Tensor:
        """See Classifier."""
        return self._embed(images)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Classifier; not compiled, since no training asks for them."""
        return self.network.feature_maps(images)


def check_compiler(device: torch.device) -> None:
    """Compiles a trifle, so that a machine that cannot compile says so before training begins.

    Raises:
        SetupError: it cannot.
    """
    compiled = torch.compile(_trifle, dynamic=False)
    try:
        compiled(torch.ones(2, device=device))
    except RuntimeError as error:  # what torch makes of every failure to compile
        needed = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
        reason = " ".join(str(error).split("\n\n")[0].split())  # torch's advice on debugging it stands below
        raise SetupError(
            f"train.compile: expected {needed} for torch.compile on {device.type}, got: {reason}; "
            "install it (CXX names another), or set train.compile=false"
        ) from error


def _trifle(values: Tensor) -> Tensor:
    return values.sin() + 1
