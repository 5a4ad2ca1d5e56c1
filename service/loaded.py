"""One bundle at work: its engine, its queue, and the thread that runs its graph."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

from service.batching import Batcher, QueueLimits
from service.canary import Canaries
from service.detection.engine import Engine
from service.detection.images import ImageLimits
from service.errors import BundleError
from service.metrics import Metrics
from service.rpc.pipeline import Pipeline, Policy
from service.settings import Settings
from service.watching.watch import HistoryWatch

__all__ = ["LoadedModel"]


class LoadedModel:
    """Everything that goes when another bundle is put in its place."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        metrics: Metrics,
        on_health: Callable[[bool], None],
        watch: HistoryWatch | None = None,
    ) -> None:
        """Makes an idle one. Needs a running event loop.

        Args:
            on_health: told False when the worker is stuck or lost, and True when a stuck one came back. It must not
                hold this object, which would keep the graph's memory.
            watch: its query history; ends with it.
        """
        self.engine = engine
        self.watch = watch
        self._settings = settings
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graph")
        limits = QueueLimits(
            max_batch=settings.max_batch,
            items=settings.queue_items,
            size_bytes=settings.queue_bytes,
            wait_s=settings.max_deadline_s / 4,  # the rest is for the way there
            stuck_s=settings.stuck_s,
        )
        self.batcher = Batcher(
            engine.measure,
            self._thread,
            limits=limits,
            metrics=metrics,
            on_health=on_health,
            keeps_images=watch is not None,
        )
        self.canaries = Canaries(engine, self.batcher)

    def pipeline(self, decoders: Executor) -> Pipeline:
        """A new way to it for calls; not kept here, so that its end shows that no call uses it any more."""
        return Pipeline(
            self.engine,
            self.batcher,
            decoders,
            policy=_policy(self._settings),
            metrics=self._metrics,
            watch=self.watch,
        )

    async def start(self) -> None:
        """Warms the graph and takes images."""
        loop = asyncio.get_running_loop()
        self.batcher.learn(await loop.run_in_executor(self._thread, self.engine.warm_up, self._settings.max_batch))
        self.batcher.start()

    async def check(self) -> None:
        """Asks the canaries by way of the queue.

        Raises:
            AdvsentryError: an answer is wrong, or there is none.
        """
        if not await self.canaries.are_right(self._settings.stuck_s):
            raise BundleError(
                f"{self.engine.bundle.path.name}: a canary's answer is wrong; the graph runs wrongly here"
            )

    async def close(self) -> None:
        """Finishes what waits, then lets the graph go."""
        await self.batcher.close()
        self._thread.shutdown()
        if self.watch is not None:
            self.watch.close()

    def tell_facts(self, before: "LoadedModel | None" = None) -> None:
        """Says in the metrics what is served now, in the place of what was."""
        facts = [
            (self._metrics.model_info, LoadedModel._model_labels),
            (self._metrics.provider_info, LoadedModel._provider_labels),
        ]
        for gauge, labels in facts:
            gauge.labels(*labels(self)).set(1)
            if before is not None and labels(before) != labels(self):
                gauge.remove(*labels(before))
        if self.watch is None:
            self._metrics.history.hide()
        else:
            self.watch.show()

    def _model_labels(self) -> tuple[str, ...]:
        bundle = self.engine.bundle
        return bundle.manifest.version, bundle.manifest.files["model.onnx"].sha256[:12], bundle.calibration_id

    def _provider_labels(self) -> tuple[str, ...]:
        return self._settings.device, self.engine.graph.provider


def _policy(settings: Settings) -> Policy:
    return Policy(
        reveal=settings.reveal,
        images=ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
        max_batch_items=settings.max_batch_items,
        stream_window=settings.stream_window,
        max_deadline_s=settings.max_deadline_s,
        decode_bytes=settings.decode_bytes,
    )
