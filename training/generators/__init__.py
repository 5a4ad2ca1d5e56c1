"""Generators of images, class by class. A new one: one file, one line in GENERATORS, one row in its test table."""

from collections.abc import Callable, Mapping

from training.data import ImageSet
from training.generators.diffusion import Diffusion
from training.generators.gaussian import PcaGaussian, PixelGaussian
from training.generators.protocol import Generator, Learning

__all__ = ["GENERATORS", "Generator", "Learning"]

GENERATORS: Mapping[str, Callable[[ImageSet, int, Learning], Generator]] = {
    "diffusion": Diffusion,
    "pca-gaussian": PcaGaussian,
    "pixel-gaussian": PixelGaussian,
}
"""By name: what learns from images (and knows the number of classes) and then draws."""
