"""Whether the classifier's answer survives a low-pass filter."""

from typing import ClassVar, Self

import torch
from torch import Tensor

from service.detection.types import FlagReason
from service.errors import SetupError
from training.detectors.detector import CleanViews, Detector
from training.models import Classifier

__all__ = ["LowPassAgreement", "gaussian_blur"]

DEVIATIONS = (0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.6, 2.0)
"""Of the Gaussian filter, in pixels, from mild to strong."""
AGREEMENT = 0.95
"""Share of clean images whose label the filter must leave as it is."""
TRIED = 2000
"""Images that the filter is chosen on, at most: each deviation costs one pass over them."""


class LowPassAgreement(Detector):
    """Kullback-Leibler divergence, in nats, of the answer to the filtered image from the answer to the image.

    The filter is the strongest Gaussian under which the classifier keeps its label for 95 % of clean images. It costs a
    second pass through the classifier.

    Source: Xu et al. 2018 (arXiv 1704.01155) compare the answers before and after a filter by the L1 distance of the
        probabilities, which is 2 for every image whose answer flips surely; the divergence goes on rising.
    """

    kind: ClassVar[str] = "low_pass"
    meaning: ClassVar[str] = "the classifier's answer depends more on fine detail"
    reason: ClassVar[FlagReason] = FlagReason.TRANSFORM_INSTABILITY

    rows: Tensor
    columns: Tensor

    def __init__(self, classifier: Classifier, rows: Tensor, columns: Tensor) -> None:
        """Takes the classifier, and the filter as (H, H) and (W, W) matrices."""
        super().__init__()
        # In a tuple, which torch does not look into: the weights belong to the graph that holds both.
        self._classifier = (classifier,)
        self.register_buffer("rows", rows.float())
        self.register_buffer("columns", columns.float())

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """Chooses the filter, from mild to strong; the mildest one where even that changes too many labels.

        Raises:
            SetupError: there are no images.
        """
        some = clean.at_most(TRIED)
        count, _, height, width = some.images.shape
        if not count:
            raise SetupError("low_pass: expected clean images to choose the filter on, got none; enlarge data.fit")
        labels = some.logits.argmax(dim=1)
        mild, *stronger = (
            cls(clean.classifier, gaussian_blur(height, deviation), gaussian_blur(width, deviation))
            for deviation in DEVIATIONS
        )
        chosen = mild
        for detector in stronger:
            kept = some.described(detector.filtered_logits).argmax(dim=1) == labels
            if kept.double().mean() < AGREEMENT:
                break
            chosen = detector
        return chosen

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """See Detector."""
        before, after = torch.log_softmax(logits, dim=1), torch.log_softmax(self.filtered_logits(images), dim=1)
        return (before.exp() * (before - after)).sum(dim=1)

    def filtered_logits(self, images: Tensor) -> Tensor:
        """(N, L) logits of filtered (N, C, H, W) images."""
        (classifier,) = self._classifier
        logits: Tensor = classifier(self.rows @ images @ self.columns.T)
        return logits


def gaussian_blur(size: int, deviation: float) -> Tensor:
    """(size, size) float64: a Gaussian around each pixel, cut off at the border; each row sums to 1.

    A weighted mean stays in [0, 1] and rings nowhere, unlike the ideal low-pass filter.
    """
    places = torch.arange(size, dtype=torch.float64)
    weights = (-(places[:, None] - places).square() / (2 * deviation**2)).exp()
    return weights / weights.sum(dim=1, keepdim=True)
