"""One pass through the network for all images that a step needs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.losses.protocol import Views
from training.models import Classifier

__all__ = ["see_together"]


def see_together(model: Classifier, several: Sequence[Tensor]) -> list[Views]:
    """What the network makes of each batch of images (M, C, H, W), from one pass, so with one set of batch statistics.

    A tensor that comes twice is passed once.
    """
    different = list({id(images): images for images in several}.values())
    embeddings = model.embed(torch.cat(different))
    logits = model.head(embeddings).float()
    embeddings = embeddings.float()
    sizes = [len(images) for images in different]
    views = zip(torch.split(embeddings, sizes), torch.split(logits, sizes), strict=True)
    seen = {
        id(images): Views(embeddings=embedding, logits=logit)
        for images, (embedding, logit) in zip(different, views, strict=True)
    }
    return [seen[id(images)] for images in several]
