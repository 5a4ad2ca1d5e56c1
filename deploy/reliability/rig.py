"""What checks work with: how a server is started, with which bundle, and how much is done."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np

from deploy.reliability.process import Serving, serving
from protos import detection_pb2 as pb
from service.detection.bundle import SHIPPED
from service.detection.manifest import InputShape, Manifest
from service.detection.types import Bytes8
from service.rpc.read_answers import image_message

__all__ = ["BARE", "Rig", "Size", "images_of", "messages_of", "shape_of"]

SEED = 0
BARE = (sys.executable, "-m", "deploy.reliability.bare")
"""A server without the service, as a control of what gRPC does by itself."""


class Size(StrEnum):
    """How much is done."""

    TEST = "test"
    """Seconds; proves that a check works, not that the server stands."""
    QUICK = "quick"
    """The whole sheet in ten minutes on 2 cores."""
    FULL = "full"
    """As the sheet says: hours."""


@dataclass(frozen=True, kw_only=True)
class Rig:
    """The place of a run of the sheet."""

    size: Size = Size.QUICK
    bundle: Path = SHIPPED / "digits"
    """Whose images must have its own size."""
    resizing: Path = SHIPPED / "gtsrb"
    """Whose images may have any size."""
    heavy: Path | None = None
    """A bundle whose graph costs milliseconds an image, so that the graph is what an overload meets; `bundle` when
    None."""
    command: tuple[str, ...] = (sys.executable, "-m", "service")
    """What comes before `serve`; another one puts another server in."""
    cores: frozenset[int] | None = None
    """That servers run on; all when None."""
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="advsentry-reliability-")))
    """For logs and what checks write."""
    base: str = "HEAD~1"
    """The revision that R-25 measures against."""

    def scaled(self, *, test: int, quick: int, full: int) -> int:
        """The number for this size."""
        return {Size.TEST: test, Size.QUICK: quick, Size.FULL: full}[self.size]

    @contextlib.contextmanager
    def server(
        self,
        bundle: Path | None = None,
        *,
        command: tuple[str, ...] | None = None,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        tree: Path | None = None,
        **flags: object,
    ) -> Iterator[Serving]:
        """A server of `bundle` with these settings; canaries are asked at its start only, so that counters are exact.

        Args:
            bundle: the rig's when None.
            command: the rig's when None.
            environment: beside that of this process.
            log: a file for standard error.
            tree: the work tree whose code runs; this one's when None.
            flags: settings by field name.

        Raises:
            SetupError: it did not start.
        """
        merged = {"bundle": bundle or self.bundle, "canary_s": 10**6, "lame_duck_s": 0.2, **flags}
        with serving(
            command or self.command,
            {name.replace("_", "-"): value for name, value in merged.items()},
            self.folder,
            environment=environment,
            cores=self.cores,
            log=log,
            tree=tree,
        ) as running:
            yield running

    @property
    def slow(self) -> Path:
        """The bundle for overloads."""
        return self.heavy or self.bundle


def shape_of(bundle: Path) -> InputShape:
    """What a bundle's model takes."""
    return Manifest.from_json((bundle / "manifest.json").read_text(encoding="utf-8")).input


def images_of(bundle: Path, count: int, *, seed: int = SEED) -> Bytes8:
    """Noise of the model's shape, (count, H, W, C)."""
    shape = shape_of(bundle)
    size = (count, shape.height, shape.width, shape.channels)
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def messages_of(images: Bytes8) -> list[bytes]:
    """A serialised DetectRequest of each image."""
    return [pb.DetectRequest(image=image_message(image)).SerializeToString() for image in images]
