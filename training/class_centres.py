"""The linear head of an embedding that was trained without one: the centres of the classes.

    W_c = s m_c / ||m_c||        m_c = mean of the embeddings of unit length of class c, no bias

The logits s ||h|| cos(h, m_c) choose the class whose centre stands at the smallest angle. Of s, on which no choice but
every probability depends, we take the power of two of least cross-entropy on the same images.

Source: nearest class means as of Mensink et al. 2013 (IEEE TPAMI 35(11)); angles and the scale are ours.
"""

import torch
import torch.nn.functional as F

from training.data.batches import ImageSource
from training.models import Classifier, unit_length

__all__ = ["set_class_centres"]

BATCH = 512
SCALES = tuple(2.0**power for power in range(-8, 11))


@torch.no_grad()
def set_class_centres(model: Classifier, source: ImageSource) -> None:
    """Sets the head of a model, in eval mode, to the centres of these clean images; its mode comes back."""
    was_training = model.training
    model.eval()
    positions = torch.arange(len(source))
    features = torch.cat([model.embed(source.take(places)).float() for places in torch.split(positions, BATCH)])
    model.train(was_training)
    centres = torch.zeros_like(model.head.weight).index_add(0, source.labels, unit_length(features))
    logits = features @ unit_length(centres).T
    losses = torch.stack([F.cross_entropy(scale * logits, source.labels) for scale in SCALES])
    model.head.weight.copy_(SCALES[int(losses.argmin())] * unit_length(centres))
    model.head.bias.zero_()
