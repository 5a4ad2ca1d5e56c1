"""Inner layers of our classifiers, for the peers that look at several."""

from torch import Tensor, nn

from training.models import Classifier

__all__ = ["Layers"]


class Layers(nn.Module):
    """What a classifier computes on the way: maps after each activation or residual block, and what its head reads."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self._watched = _activations(model)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) images in [0, 1] to maps (N, c, h, w), the first layer first, then the features (N, D)."""
        caught: list[Tensor] = []
        handles = [
            module.register_forward_hook(lambda _, __, output: caught.append(output)) for module in self._watched
        ]
        try:
            features = self.model.embed(images)
        finally:
            for handle in handles:
                handle.remove()
        return [*(maps for maps in caught if maps.ndim == 4), features]


def _activations(module: nn.Module) -> list[nn.Module]:
    """ReLUs and blocks in the order of the pass; of a chain, those of its links."""
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.Sequential):
            found += _activations(child)
        elif isinstance(child, nn.ReLU) or next(child.children(), None) is not None:
            found.append(child)
    return found
