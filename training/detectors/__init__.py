"""Detectors. A new one: one file, one line in DETECTORS, one row in its test table."""

from collections.abc import Mapping

from training.detectors.adversarial_sensor import AdversarialSensor
from training.detectors.centroid_margin import CentroidMargin
from training.detectors.companion import Companion
from training.detectors.detector import CleanViews, Detector, Lessons
from training.detectors.energy import Energy
from training.detectors.feature_spectrum import FeatureSpectrum
from training.detectors.gaussian import ClassGaussian
from training.detectors.high_frequency import HighFrequency
from training.detectors.knn import NearestNeighbours
from training.detectors.learned import Learned
from training.detectors.low_pass import LowPassAgreement
from training.detectors.mixture import GaussianMixture
from training.detectors.perturbation_sensor import PerturbationSensor
from training.detectors.residual import Residual
from training.detectors.softmax import Softmax
from training.detectors.spectrum import RadialSpectrum

__all__ = ["DETECTORS", "CleanViews", "Detector", "Learned", "Lessons"]

DETECTORS: Mapping[str, type[Detector]] = {
    "gaussian": ClassGaussian,
    "mixture": GaussianMixture,
    "spectrum": RadialSpectrum,
    "centroid_margin": CentroidMargin,
    "knn": NearestNeighbours,
    "softmax": Softmax,
    "energy": Energy,
    "high_frequency": HighFrequency,
    "residual": Residual,
    "low_pass": LowPassAgreement,
    "feature_spectrum": FeatureSpectrum,
    "companion": Companion,
    "perturbation_sensor": PerturbationSensor,
    "adversarial_sensor": AdversarialSensor,
}
