"""What every RPC does with an image: have it decoded, queue, judge, reveal; without a word of protobuf."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Protocol

from service.detection.engine import MAX_ALPHA, Engine
from service.detection.images import ImageLimits
from service.detection.types import Bytes8, Measurements, Scored, Verdict, Waiter, gather
from service.detection.verdict import (
    Judged,
    RevealMode,
    Shown,
    Wish,
    alpha_steps,
    check_step,
    check_wish,
    judge,
    reveal,
    round_up,
)
from service.errors import AdvsentryError, DeadlinePassed, InvalidRequest, PermissionRefused, UnknownModel
from service.metrics import Metrics
from service.rpc.call import Caller, Scope, current_call
from service.rpc.convert import Asked
from service.rpc.decoding import Decoder
from service.rpc.status import item_reason
from service.rpc.together import Together
from service.rpc.watch import Noticed, Watch

__all__ = ["REFUSED", "Applied", "Pipeline", "Policy", "Queue", "Served"]

BULK_PRIORITY = 2
"""From here on a call's images are bulk; 0, the default, and 1 are interactive."""
REFUSED = "REFUSED"
"""Of an image whose caller gets no more answers, in metrics and logs; no reason of the wire, since the call ends."""


class Queue(Protocol):
    """Where images wait for the graph."""

    def is_busy(self, *, is_bulk: bool = False, key: str = "") -> bool:
        """Whether so much waits that one who can wait should."""

    async def room(self, *, is_bulk: bool = False, key: str = "") -> None:
        """Waits until it is not."""

    def admit(self, count: int, deadline: float, *, is_bulk: bool = False, key: str = "") -> None:
        """Judges the images of one call together; raises Overloaded, DeadlinePassed or Unavailable."""

    def submit(
        self, image: Bytes8, deadline: float, *, is_bulk: bool = False, is_admitted: bool = False, key: str = ""
    ) -> "asyncio.Future[Scored]":
        """Puts an image in; raises as `admit`, which is not asked again when it has judged."""

    def put(
        self,
        image: Bytes8,
        deadline: float,
        waiter: Waiter,
        *,
        is_bulk: bool = False,
        is_admitted: bool = False,
        key: str = "",
    ) -> None:
        """The same, for a waiter that is called back."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What callers may send and see."""

    reveal: RevealMode = RevealMode.P_VALUES
    """The ceiling for every caller; `scores` also takes the scope of that name."""
    images: ImageLimits = field(default_factory=ImageLimits)
    max_batch_items: int = 256
    stream_window: int = 256
    max_deadline_s: float = 10.0
    decode_bytes: int = 64 * 2**20
    """Encoded images that may wait for a thread to decode them, in bytes."""


@dataclass(frozen=True, slots=True)
class Applied:
    """Options after their check."""

    alpha: float
    wish: Wish
    reveal: RevealMode
    is_bulk: bool = False
    """Whether interactive images go first."""


class Served:
    """What is served now. A reload puts another pipeline in, so take `current` once for each call or item."""

    def __init__(self, current: "Pipeline") -> None:
        self.current = current
        self.is_draining = False
        self.to_wake: set[asyncio.Event] = set()

    def replace(self, by: "Pipeline") -> None:
        """Serves another from now on; streams let go of what was served before as soon as nothing of it is open."""
        self.current = by
        self._wake()

    def drain(self) -> None:
        """Has each stream end as soon as nothing of it is open."""
        self.is_draining = True
        self._wake()

    def _wake(self) -> None:
        for event in self.to_wake:
            event.set()


class Pipeline:
    """One bundle behind its queue; used from one event loop."""

    def __init__(
        self,
        engine: Engine,
        queue: Queue,
        decoders: Executor,
        *,
        policy: Policy,
        metrics: Metrics,
        watch: Watch | None = None,
    ) -> None:
        """Puts the parts together.

        Args:
            decoders: a small pool; decoding lets the interpreter's lock go.
            watch: looks at each answered image; the queue gives images with their rows then.
        """
        self.engine = engine
        self.loaded_at_s = time.time()
        self.queue = queue
        self.policy = policy
        self.metrics = metrics
        self.decoder = Decoder(engine, decoders, limits=policy.images, most_bytes=policy.decode_bytes, metrics=metrics)
        self._alpha_steps = alpha_steps(engine.bundle.calibration, engine.bundle.manifest.default_alpha, MAX_ALPHA)
        self._default_alpha = engine.resolve_alpha(None)
        self._watch = watch
        self._last_measured: Measurements | None = None
        self._last_shown: dict[Applied, tuple[Judged, Shown]] = {}

    def reveal_to(self, caller: Caller) -> RevealMode:
        """What a caller may see at most."""
        mode = self.policy.reveal
        if mode is RevealMode.SCORES and Scope.SCORES not in caller.scopes:
            mode = RevealMode.P_VALUES
        return mode if self._watch is None else self._watch.ceiling(caller, mode)

    def names_detectors(self, caller: Caller) -> bool:
        """Whether a caller may learn what detectors there are."""
        return self._watch is None or self._watch.names_detectors(caller)

    def alpha_steps(self, reveal: RevealMode) -> tuple[float, ...]:
        """The only rates that are taken from those who see so much; empty when any in the range will do."""
        return () if reveal is RevealMode.SCORES else self._alpha_steps

    def apply(self, asked: Asked) -> Applied:
        """Checks the options of the current call.

        Raises:
            InvalidRequest, PermissionRefused, UnknownModel: an option is wrong, too much, or names another version.
        """
        manifest = self.engine.bundle.manifest
        if asked.model_version not in ("", manifest.version):
            raise UnknownModel(
                f"model_version: this server has {manifest.version!r} of {manifest.name}, not "
                f"{asked.model_version[:64]!r}"
            )
        call = current_call()
        call.model_version = manifest.version
        seen = self.reveal_to(call.caller)
        check_wish(asked.wish, self.engine.bundle, seen, names_detectors=self.names_detectors(call.caller))
        alpha = self._default_alpha if asked.alpha is None else self._alpha(asked.alpha, self.alpha_steps(seen))
        return Applied(alpha, asked.wish, seen, asked.priority >= BULK_PRIORITY)

    def _alpha(self, asked: float, allowed: tuple[float, ...]) -> float:
        try:
            alpha = self.engine.resolve_alpha(asked)
        except InvalidRequest as error:
            if not allowed:
                raise
            steps = ", ".join(f"{step:g}" for step in allowed)
            raise InvalidRequest(f"{error}; this server takes {steps}", field=error.field) from error
        check_step(alpha, allowed)
        return alpha

    def deadline(self, left_s: float | None, *, images: int = 1) -> float:
        """The monotonic time at which a caller with so many seconds left, or the server, gives up.

        Args:
            images: of the call; counted as dropped when it is too late for them.

        Raises:
            DeadlinePassed: none are left.
        """
        most = self.policy.max_deadline_s
        if left_s is not None and left_s <= 0:
            self.metrics.dropped["deadline"].inc(images)
            raise DeadlinePassed("the deadline had passed before the call was read")
        return time.monotonic() + (most if left_s is None else min(left_s, most))

    async def answer(self, scored: Sequence[Scored], applied: Applied) -> Shown:
        """What the caller sees of images, one or more; counts what he may not see, too.

        Raises:
            PermissionRefused: the watch has it that this caller gets no more answers; the images are counted as failed.
        """
        if self._watch is None:
            return self._shown(scored, applied)
        noticed = await self._noticed(self._watch, scored)
        if noticed.is_plain:
            applied = replace(applied, reveal=RevealMode.DECISION, wish=Wish())
        shown = self._shown(scored, applied)
        if noticed.p_values is None:
            return shown
        exact = applied.reveal is RevealMode.SCORES
        told = [p if exact or p is None else round_up(p) for p in noticed.p_values]
        return replace(shown, history=told)

    async def _noticed(self, watch: Watch, scored: Sequence[Scored]) -> Noticed:
        try:
            return await watch.look(scored, current_call().caller)
        except PermissionRefused:
            self.metrics.images_failed.inc(len(scored))
            self.metrics.work.failed += len(scored)
            self.metrics.image_error(REFUSED).inc(len(scored))
            for _ in scored:
                current_call().failed(REFUSED)
            raise

    def _shown(self, scored: Sequence[Scored], applied: Applied) -> Shown:
        started = time.perf_counter()
        if len(scored) == 1:
            row = scored[0].row
            judged, whole = self._of_batch(scored[0].measured, applied)
            self._count(judged, slice(row, row + 1))
            shown = whole.only(row)
        else:
            judged = judge(gather(scored), self.engine.bundle, applied.alpha)
            self._count(judged, slice(None))
            shown = reveal(judged, applied.reveal, applied.wish)
        self._note(scored)
        each_s = (time.perf_counter() - started) / len(scored)
        current_call().verdict_s = max(current_call().verdict_s, each_s)
        self.metrics.stage["postprocess"].observe_same(each_s, len(scored))
        return shown

    def _note(self, scored: Sequence[Scored]) -> None:
        """Counts the times of images, and leaves the longest in the notes of the call."""
        queued = [one.queue_s for one in scored]
        inferred = [one.inference_s for one in scored]
        self.metrics.stage["queue"].observe_all(queued)
        self.metrics.stage["inference"].observe_all(inferred)
        call = current_call()
        call.queue_s = max(call.queue_s, *queued)
        call.inference_s = max(call.inference_s, *inferred)
        call.batch_size = scored[-1].batch_size

    def _of_batch(self, measured: Measurements, applied: Applied) -> tuple[Judged, Shown]:
        """Verdicts of a whole batch, worked out once for all calls that sent one of its images.

        They are answered one after the other, so the last batch is the one that is asked for. For one image numpy takes
        as long as for 16.
        """
        if self._last_measured is not measured:
            self._last_measured = measured
            self._last_shown.clear()
        found = self._last_shown.get(applied)
        if found is None:
            judged = judge(measured, self.engine.bundle, applied.alpha)
            found = self._last_shown[applied] = judged, reveal(judged, applied.reveal, applied.wish)
        return found

    def _count(self, judged: Judged, rows: slice) -> None:
        metrics, measured = self.metrics, judged.measured
        adversarial: list[bool] = judged.is_adversarial[rows].tolist()
        images, found = len(adversarial), sum(adversarial)
        call = current_call()
        call.adversarial += found
        call.clean += images - found
        metrics.images_detected.inc(images)
        metrics.judged.images += images
        metrics.judged.adversarial += found
        metrics.judged.expected += judged.alpha * images
        for verdict, count in ((Verdict.ADVERSARIAL, found), (Verdict.CLEAN, images - found)):
            if count:
                metrics.verdict(verdict).inc(count)
        metrics.p_value("fused").observe_all(measured.fused_p_value[rows].tolist())
        p_values, flagged = measured.p_values[rows].T.tolist(), judged.is_flagged[rows].T.tolist()  # (K, rows)
        for k, entry in enumerate(self.engine.bundle.manifest.detectors):
            metrics.p_value(entry.name).observe_all(p_values[k])
            if count := sum(flagged[k]):
                metrics.flag(entry.reason).inc(count)

    def count_failed(self, error: AdvsentryError) -> None:
        """Counts an image that got no detection."""
        reason = item_reason(error)[0]
        self.metrics.images_failed.inc()
        self.metrics.work.failed += 1
        self.metrics.image_error(reason).inc()
        current_call().failed(reason)

    async def score(self, image: Bytes8, deadline: float, *, is_bulk: bool = False) -> Scored:
        """The row of one image.

        Raises:
            Overloaded, Unavailable, DeadlinePassed: there is none.
        """
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self.queue.submit(image, deadline, is_bulk=is_bulk, key=current_call().key)
        except TimeoutError:
            raise DeadlinePassed("the deadline passed before the image was scored") from None

    async def score_all(
        self, images: Sequence[Bytes8], deadline: float, *, is_bulk: bool = False
    ) -> list[Scored | AdvsentryError]:
        """The rows of many images, in order; waits for room where it must.

        Raises:
            Overloaded, Unavailable: nothing can be taken now, or not so many in time.
            DeadlinePassed: some row came too late, or must.
        """
        key = current_call().key
        if images:
            self.queue.admit(len(images), deadline, is_bulk=is_bulk, key=key)
        together = Together(len(images))
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                for number, place in enumerate(together.places):
                    if number and self.queue.is_busy(is_bulk=is_bulk, key=key):
                        await self.queue.room(is_bulk=is_bulk, key=key)
                    self.queue.put(images[number], deadline, place, is_bulk=is_bulk, is_admitted=True, key=key)
                outcomes = await together.outcomes()
        except TimeoutError:
            raise DeadlinePassed(f"the deadline passed before all {len(images)} images were scored") from None
        finally:
            together.leave()
        for outcome in outcomes:
            if isinstance(outcome, DeadlinePassed):
                raise outcome
        return outcomes
