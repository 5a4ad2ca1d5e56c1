"""Deep pursuit: networks whose activations are inferred as one sparse-coding problem over all layers."""

from training.models.pursuit.dictionary import ConvDictionary, DenseDictionary, Dictionary
from training.models.pursuit.inference import Stack, feed_forward, layered, objective, swept
from training.models.pursuit.network import PursuitNet, conv_layers, conv_skips, dense_layers, dense_skips

__all__ = [
    "ConvDictionary",
    "DenseDictionary",
    "Dictionary",
    "PursuitNet",
    "Stack",
    "conv_layers",
    "conv_skips",
    "dense_layers",
    "dense_skips",
    "feed_forward",
    "layered",
    "objective",
    "swept",
]
