"""A server in this process: its engine, its history and its rules, under a clock that is told."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from deploy.redteam.backend import Call, Told
from deploy.redteam.search import Answer
from service.detection.engine import Engine
from service.detection.types import Measurements
from service.detection.verdict import judge
from service.errors import SetupError
from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.fingerprints import KEY_BYTES
from service.history.history import History
from service.history.types import NOBODY, Query
from service.watching.ledger import CLIENT, Ledger, search_of, step_of
from service.watching.types import Mode, Rules

__all__ = ["InProcess", "secret_of"]

CLOSED = Answer(is_refused=True, is_cut_off=True)
REFUSED = Answer(is_refused=True)
"""Of a step of a search that other accounts have flags for. The wire says the same of it as of a closed account; an
attacker may find out by asking something else, so he is told."""


class InProcess:
    """See Backend; as the server treats calls that come one after the other, without its threads and its wire.

    Every attacker has a history of his own, so that one does not raise the evidence against another. It holds what he
    sent, and nothing else.

    A caller is trusted with flags, probabilities and raw scores; for these he is told the verdict's statistic, which he
    could find by them. The untrusted callers of a silent server get label and verdict alone.
    """

    def __init__(
        self,
        engine: Engine,
        calibration: Calibration | None,
        rules: Rules | None,
        *,
        bounds: Bounds | None = None,
        has_raw_scores: bool = True,
        seed: int = 0,
    ) -> None:
        """Starts with nothing kept.

        Args:
            engine: of the bundle.
            calibration: of the history; None where there is none.
            rules: of the server; None for no history.
            bounds: of a history; None for the default.
            has_raw_scores: whether trusted callers get them.
            seed: of the histories' secrets, and of what is drawn.

        Raises:
            SetupError: there is none for the rules, or it does not support the level.
        """
        if rules is not None:
            if calibration is None:
                raise SetupError(f"history {rules.mode}: expected a calibration of the history, got none")
            calibration.check_level(rules.level)
        self._engine = engine
        self._calibration = calibration
        self._rules = rules
        self._bounds = bounds
        self._has_raw_scores = has_raw_scores
        self._seed = seed
        self._served: dict[int, tuple[History, Ledger]] = {}

    def ask(self, calls: Sequence[Call]) -> list[list[Told]]:
        """See Backend; the images of all calls go through the graph together."""
        measured = self._engine.measure(np.concatenate([call.images for call in calls]))
        answers = self._answers(measured)
        told, start = [], 0
        for call in calls:
            rows = slice(start, start + len(call.images))
            told.append(self._told(call, measured.take(range(len(measured))[rows]), answers[rows]))
            start = rows.stop
        return told

    def _answers(self, measured: Measurements) -> list[Answer]:
        alpha = self._engine.resolve_alpha(None)
        accepted = ~judge(measured, self._engine.bundle, alpha).is_adversarial
        answers = [
            Answer(label=label, is_accepted=is_accepted, alpha=alpha)
            for label, is_accepted in zip(measured.labels.tolist(), accepted.tolist(), strict=True)
        ]
        if self._rules is not None and self._rules.mode is Mode.SILENT:
            return answers
        excess = self._excess(measured, alpha) if self._has_raw_scores else [None] * len(answers)
        return [
            replace(answer, probabilities=probabilities, p_value=p_value, excess=above)
            for answer, probabilities, p_value, above in zip(
                answers, measured.probabilities, measured.fused_p_value.tolist(), excess, strict=True
            )
        ]

    def _excess(self, measured: Measurements, alpha: float) -> Sequence[float | None]:
        """(N,) of what is above the verdict's threshold; None where it has none."""
        calibration = self._engine.bundle.calibration
        threshold = calibration.fused_threshold(alpha)
        if threshold is None:
            return [None] * len(measured)
        found: list[float] = (calibration.suspicion(measured.outputs.scores, measured.labels) - threshold).tolist()
        return found

    def _told(self, call: Call, measured: Measurements, answers: Sequence[Answer]) -> list[Told]:
        rules = self._rules
        if rules is None:
            return [Told(answer=answer, is_flagged=False) for answer in answers]
        history, ledger = self._own(call.attacker, rules, measured.outputs.embedding.shape[1])
        queries = _queries(call, measured)
        flagged, who, is_step = list[bool](), (call.account, CLIENT), False
        for query, seen in zip(queries, history.observe_all(queries), strict=True):
            ledger.follow(seen)
            flagged.append(seen.p_value <= rules.level)
            if flagged[-1]:
                ledger.note(who, seen, query.now)
                if (search := search_of(seen)) is not None:
                    ledger.note(search, seen, query.now, by=call.account)
            step = step_of(seen)
            is_step |= step is not None and ledger.has_enough(step, query.now)
        if rules.cuts_off(call.account) and ledger.has_enough(who, queries[-1].now):
            answers = [CLOSED] * len(answers)
        elif rules.cuts_off(NOBODY) and is_step:
            answers = [replace(REFUSED, is_flagged=is_flagged) for is_flagged in flagged]
        elif rules.mode is not Mode.SILENT:
            answers = [
                replace(answer, is_flagged=is_flagged) for answer, is_flagged in zip(answers, flagged, strict=True)
            ]
        return [Told(answer=answer, is_flagged=is_flagged) for answer, is_flagged in zip(answers, flagged, strict=True)]

    def _own(self, attacker: int, rules: Rules, dimensions: int) -> tuple[History, Ledger]:
        if attacker not in self._served:
            secret = secret_of(self._seed, attacker)
            assert self._calibration is not None
            history = History(self._calibration, dimensions=dimensions, bounds=self._bounds, secret=secret)
            draw = partial(_below, np.random.default_rng((self._seed, attacker, 1)))
            ledger = Ledger(flags=rules.flags, late_flags=rules.late_flags, window_s=rules.window_s, draw=draw)
            self._served[attacker] = history, ledger
        return self._served[attacker]


def secret_of(seed: int, attacker: int) -> bytes:
    """Of an attacker's history."""
    return np.random.default_rng((seed, attacker)).bytes(KEY_BYTES)


def _below(generator: np.random.Generator, bound: int) -> int:
    return int(generator.integers(bound))


def _queries(call: Call, measured: Measurements) -> list[Query]:
    """What the history is told of the images of a call."""
    labels, margins, p_values = measured.labels, measured.margins, measured.fused_p_value
    return [
        Query(
            client=call.account,
            image=image,
            embedding=measured.outputs.embedding[row],
            label=int(labels[row]),
            margin=float(margins[row]),
            p_value=float(p_values[row]),
            now=call.now + row * call.every_s,
        )
        for row, image in enumerate(call.images)
    ]
