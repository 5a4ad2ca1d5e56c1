"""A bundle at work: images in, measurements out, verdicts at any alpha."""

import base64
import time
from pathlib import Path

import numpy as np

from service.detection.bundle import Bundle, load_bundle
from service.detection.graph import Graph, Resizer
from service.detection.graph_cache import GraphCache
from service.detection.images import ImageLimits, decode_image
from service.detection.manifest import Canary
from service.detection.providers import CudaOptions, Device
from service.detection.types import Bytes8, Detection, Measurements, Outputs
from service.detection.verdict import judge
from service.errors import BundleError, InvalidRequest

__all__ = ["MAX_ALPHA", "Engine", "is_right", "softmax"]

MAX_ALPHA = 0.1
"""The largest false-positive rate that a caller may ask for."""
COLD_S = 0.1
"""A first run that is shorter says little of the next one, since memory is had and pages are read in it."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of (N, L) logits, in float64 so that each row sums to 1."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


class Engine:
    """The graphs and the calibration of one bundle; safe to call from several threads.

    Attributes:
        resizer: for images of another size; None when the bundle refuses them.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "cpu",
        threads: int = 0,
        cuda: CudaOptions | None = None,
        cache: GraphCache | None = None,
    ) -> None:
        """Makes the session and checks the bundle's canaries.

        Args:
            threads: for one batch; 0 takes the processors that the process may use.
            cuda: how a CUDA device is used.
            cache: where a graph is kept that onnxruntime takes long to optimise; None keeps nothing.

        Raises:
            BundleError: a graph does not load, is not what the manifest says, or answers a canary wrongly; or the
                calibration does not support the default alpha.
            SetupError: the device does not come up.
        """
        self.bundle = bundle
        self.graph = Graph(bundle.graph, bundle.graph_shape, device=device, threads=threads, cuda=cuda, cache=cache)
        self.resizer = None if bundle.resize is None else Resizer(bundle.resize, bundle.manifest.input)
        self._check_default_alpha()
        self.check_canaries()

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: Device = "cpu",
        threads: int = 0,
        cuda: CudaOptions | None = None,
        cache: GraphCache | None = None,
    ) -> "Engine":
        """Reads, checks and starts a bundle."""
        return cls(load_bundle(path), device=device, threads=threads, cuda=cuda, cache=cache)

    def warm_up(self, max_batch: int) -> dict[int, float]:
        """Runs blank images in every size of a batch that would cost the first request time.

        Returns:
            The seconds that a run takes by then, by its images.
        """
        shape, took_s = self.bundle.manifest.input, {}
        for size in self.warm_sizes(max_batch):
            images = np.zeros((size, shape.height, shape.width, shape.channels), np.uint8)
            took_s[size] = self._timed(images)
            if took_s[size] < COLD_S:
                took_s[size] = self._timed(images)
        return took_s

    def _timed(self, images: Bytes8) -> float:
        start = time.perf_counter()
        self.measure(images)
        return time.perf_counter() - start

    def warm_sizes(self, max_batch: int) -> tuple[int, ...]:
        """Sizes of batches to run once before the first request."""
        return self.graph.warm_sizes(max_batch)

    def measure(self, images: Bytes8) -> Measurements:
        """Everything that needs no alpha.

        Args:
            images: (N, H, W, C), N >= 1.
        """
        return self.calibrate(self.graph.run(images))

    def calibrate(self, outputs: Outputs) -> Measurements:
        """Turns the graph's outputs into probabilities and p-values."""
        calibration = self.bundle.calibration
        probabilities = softmax(outputs.logits)
        return Measurements(
            outputs=outputs,
            probabilities=probabilities,
            p_values=calibration.p_values(outputs.scores),
            fused_p_value=calibration.fused_p_values(outputs.scores, probabilities.argmax(axis=1)),
        )

    def detect(self, images: Bytes8, *, alpha: float | None = None) -> list[Detection]:
        """Detections of N images with nothing hidden.

        Args:
            images: (N, H, W, C), N >= 1.
            alpha: the bundle's default when None.

        Raises:
            InvalidRequest: the calibration does not support alpha.
        """
        alpha = self.resolve_alpha(alpha)
        return judge(self.measure(images), self.bundle, alpha).detections()

    def resolve_alpha(self, alpha: float | None) -> float:
        """The bundle's default for None, else alpha itself, checked."""
        if alpha is None:
            return self.bundle.manifest.default_alpha
        self.bundle.calibration.check_alpha(alpha, largest=MAX_ALPHA)
        return alpha

    def _check_default_alpha(self) -> None:
        """A default below 1 / (n + 1) would call every image clean."""
        try:
            self.bundle.calibration.check_alpha(self.bundle.manifest.default_alpha, largest=MAX_ALPHA)
        except InvalidRequest as error:
            raise BundleError(f"{self.bundle.path.name}/manifest.json: default_alpha: {error}") from error

    def check_canaries(self) -> None:
        """Asks the graph about the bundle's synthetic images.

        Raises:
            BundleError: an answer is not the one that was written down at export.
        """
        for number, (canary, image) in enumerate(self.canaries()):
            found = self.detect(image[None])[0]
            if not is_right(canary, found):
                raise BundleError(
                    f"{self.bundle.path.name}: canary {number} should be class {canary.label} and {canary.verdict}, "
                    f"got class {found.top.index} and {found.verdict}; this machine runs the graph wrongly"
                )

    def canaries(self) -> list[tuple[Canary, Bytes8]]:
        """The bundle's synthetic images, decoded, with their known answers.

        Raises:
            BundleError: one is no such image.
        """
        shape, limits = self.bundle.manifest.input, ImageLimits()
        found = []
        for number, canary in enumerate(self.bundle.manifest.canaries):
            try:
                png = base64.b64decode(canary.png, validate=True)
                found.append((canary, decode_image(png, shape, limits, mime_type="image/png")))
            except (ValueError, InvalidRequest) as error:
                raise BundleError(
                    f"{self.bundle.path.name}/manifest.json: canaries[{number}].png: no image: {error}; copy or export "
                    "the bundle again"
                ) from error
        return found


def is_right(canary: Canary, found: Detection) -> bool:
    """Whether a canary got the answer that was written down at export."""
    return (found.top.index, found.verdict) == (canary.label, canary.verdict)
