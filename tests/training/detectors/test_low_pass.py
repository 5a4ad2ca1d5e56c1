"""Agreement of the classifier with itself after a low-pass filter."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from tests import reference
from tests.training.detectors.made_up import views
from training.detectors import CleanViews, low_pass
from training.detectors.low_pass import DEVIATIONS, LowPassAgreement, gaussian_blur
from training.models import Classifier


class Detail(Classifier):
    """Logits are the mean of the image and how far a chequered pattern is in it; reads nothing else."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.diag(torch.tensor([1.0, weight]))

    def embed(self, images: Tensor) -> Tensor:
        places = torch.arange(images.shape[-1])
        pattern = (-1.0) ** (places[:, None] + places)
        return torch.stack([images.mean(dim=(1, 2, 3)), (images * pattern).mean(dim=(1, 2, 3))], dim=1)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return ()


def seen_by(classifier: Classifier, clean: CleanViews) -> CleanViews:
    with torch.no_grad():
        return dataclasses.replace(clean, classifier=classifier, logits=classifier(clean.images))


def test_it_is_the_divergence_of_the_answer_to_the_blurred_image() -> None:
    clean = views(8)
    clean = seen_by(clean.classifier, clean)
    blur = gaussian_blur(8, 0.8)
    slow_images = [reference.blurred(image, 0.8) for image in clean.images[:, 0].double().numpy()]
    with torch.no_grad():
        fast = LowPassAgreement(clean.classifier, blur, blur)(clean.images, clean.logits, clean.embedding)
        after = clean.classifier(torch.from_numpy(np.stack(slow_images)).float()[:, None])
    slow = [reference.divergence(a, b) for a, b in zip(clean.logits.tolist(), after.tolist(), strict=True)]
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-3, atol=1e-6)


def test_an_answer_that_hangs_on_fine_detail_scores_higher() -> None:
    clean = views(40)
    detector = LowPassAgreement(Detail(50.0), gaussian_blur(8, 1.0), gaussian_blur(8, 1.0))
    chequered = clean.images + 0.1 * (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))
    scores = [
        detector(images, detector.filtered_logits(images) * 0 + Detail(50.0)(images), clean.embedding)
        for images in (clean.images, chequered)
    ]
    assert (scores[1] > scores[0]).all()


def test_a_constant_image_stays_as_it_is() -> None:
    detector = LowPassAgreement(Detail(50.0), gaussian_blur(8, 2.0), gaussian_blur(6, 2.0))
    images = torch.full((2, 1, 8, 6), 0.3)
    torch.testing.assert_close(detector.rows @ images @ detector.columns.T, images)


def test_the_strongest_filter_is_chosen_that_leaves_the_labels() -> None:
    coarse = views()
    blind = LowPassAgreement.fit(seen_by(Detail(0.0), coarse))
    torch.testing.assert_close(blind.rows, gaussian_blur(8, DEVIATIONS[-1]).float())


def test_the_mildest_filter_is_chosen_where_all_change_the_labels() -> None:
    clean = views()
    other = dataclasses.replace(seen_by(Detail(0.0), clean), logits=torch.tensor([[0.0, 1.0]]).expand(240, 2))
    torch.testing.assert_close(LowPassAgreement.fit(other).rows, gaussian_blur(8, DEVIATIONS[0]).float())


def test_the_next_stronger_filter_would_change_too_many_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = views()
    clean = seen_by(Detail(60.0), dataclasses.replace(clean, images=clean.images * 0.3))
    kept = []
    for deviation in DEVIATIONS[:3]:
        blur = gaussian_blur(8, deviation)
        after = LowPassAgreement(clean.classifier, blur, blur).filtered_logits(clean.images)
        kept.append((after.argmax(dim=1) == clean.logits.argmax(dim=1)).double().mean().item())
    assert kept[1] > kept[2]
    monkeypatch.setattr(low_pass, "AGREEMENT", kept[1])
    torch.testing.assert_close(LowPassAgreement.fit(clean).rows, gaussian_blur(8, DEVIATIONS[1]).float())


def test_no_images_are_an_error() -> None:
    with pytest.raises(SetupError, match="low_pass: expected clean images to choose the filter on, got none"):
        LowPassAgreement.fit(views(0))
