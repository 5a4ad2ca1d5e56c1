"""A history that flags what it is told to, and every way to ask a server about images."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from service.client import Client
from service.detection.types import Detection, FlagReason
from service.errors import AdvsentryError
from service.history.calibration import Calibration
from service.history.evidence import Edges, Rates
from service.history.types import Component, Listener, Observation, Query
from service.rpc.call import Scope
from service.tokens import new_token
from service.watching.opening import OpenWatch, open_watch
from tests import tiny
from tests.service import oip
from tests.service.running import Running

GUEST, FRIEND = (
    new_token(name, [Scope.DETECT, Scope.INFO, *more]) for name, more in (("guest", []), ("friend", [Scope.SCORES]))
)
CALIBRATION = Calibration.ranked(
    Edges(matches=8, radius=0.05, entries=1000, dimension=4.0, margin=0.05, p_value=0.02, alpha=0.01, beside=0.1),
    Rates(joins=999, matches=(), label_flips=(), verdict_flips=(), near=0, ranks=(), sizes=(), allowance=1.0),
    [[0.0]] * 999,
)
P_VALUE = 0.0013
"""Of what is flagged."""
STEP = 255
"""Of the third pixel."""
WAIT_S = 20.0


def fact(number: int = 3, statistic: float = 9.0, *, added: float = -1.0) -> Component:
    return Component(
        size=7,
        per_s=2.0,
        pixel_links=1,
        label_flips=4,
        verdict_flips=2,
        near_boundary=3,
        clients=1,
        statistic=statistic,
        added=added,
        number=number,
    )


def seen(p_value: float, *, number: int = 3, is_own: bool = True, added: float = -1.0) -> Observation:
    """Args: added is by the query to what everyone's queries say."""
    is_flagged = p_value < 1
    return Observation(
        is_repeat=False,
        repeats=0,
        is_low_entropy=False,
        own=fact() if is_flagged and is_own else None,
        everyone=fact(number, added=added) if is_flagged else None,
        statistic=9.0 if is_flagged else 0.0,
        p_value=p_value,
    )


class Scripted:
    """Flags images whose first pixel is white; the second is the number of their component, the third is `STEP`
    of those that are steps of a search."""

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.forgiven: list[str] = []
        self.calls = 0
        self.error: Exception | None = None
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.is_shared = self.is_degraded = False
        self.degraded_reason = ""
        self.nbytes = 4096
        self.room = 64
        self.is_closed = False

    def __len__(self) -> int:
        return len(self.queries)

    def observe_all(self, queries: Sequence[Query]) -> list[Observation]:
        self.calls += 1
        self.goes_on.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        self.queries += queries
        return [
            seen(
                P_VALUE if query.image[0, 0, 0] == 255 else 1.0,
                number=int(query.image[0, 1, 0]),
                is_own=bool(query.client),
                added=1.0 if query.image[0, 2, 0] == STEP else -1.0,
            )
            for query in queries
        ]

    def number(self, client: str) -> int:
        return int.from_bytes(client.encode(), "big")

    def listen(self, listener: Listener) -> None:
        self.listener = listener

    def close(self) -> None:
        self.is_closed = True

    def forgive_number(self, number: int) -> set[int]:
        names = {self.number(query.client): query.client for query in self.queries}
        self.forgiven.append(names.get(number, f"{number:x}" if number else ""))
        return {int(query.image[0, 1, 0]) for query in self.queries if self.number(query.client) == number}

    def watch(self) -> OpenWatch:
        """Opens watches of this history."""
        return partial(open_watch, calibration_of=lambda _: CALIBRATION, open_history=lambda *_, **__: self)


def images(flagged: Sequence[bool], *, component: int = 3, third: int = 7) -> np.ndarray:
    """Images to be flagged, or not."""
    made = tiny.images(len(flagged), seed=5)
    made[:, 0, 0, 0] = np.where(flagged, 255, 7)
    made[:, 0, 1, 0] = component
    made[:, 0, 2, 0] = third
    return made


Way = Callable[[Running, np.ndarray, str], list[bool]]
"""Asks about images with a token, and says of each whether the answer tells of the history's flag."""


def _tells(rows: Sequence[Detection | AdvsentryError]) -> list[bool]:
    found = []
    for row in rows:
        if isinstance(row, AdvsentryError):
            raise row
        found.append(FlagReason.NEAR_DUPLICATE_QUERIES in [flag.reason for flag in row.flags])
    return found


def _detect(server: Running, asked: np.ndarray, token: str) -> list[bool]:
    with Client(server.ports.grpc, token=token) as client:
        return _tells([client.detect(image) for image in asked])


def _batch(server: Running, asked: np.ndarray, token: str) -> list[bool]:
    with Client(server.ports.grpc, token=token) as client:
        return _tells(client.detect_batch(list(asked)))


def _stream(server: Running, asked: np.ndarray, token: str) -> list[bool]:
    with Client(server.ports.grpc, token=token) as client:
        return _tells(list(client.detect_stream(list(asked))))


def metadata(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")] if token else []


def _reasons(response: object) -> list[bool]:
    told = oip.tensors(response).get("reasons")  # type: ignore[arg-type]
    if told is None:
        return [False] * len(oip.tensors(response)["label"])  # type: ignore[arg-type]
    return [b"NEAR_DUPLICATE_QUERIES" in reasons.split(b",") for reasons in told]


def _infer(server: Running, asked: np.ndarray, token: str) -> list[bool]:
    return _reasons(oip.infer(server.channel, oip.pixels(asked), metadata=metadata(token)))


def _infer_stream(server: Running, asked: np.ndarray, token: str) -> list[bool]:
    answers = oip.stream(server.channel, iter([oip.pixels(image[None]) for image in asked]), metadata=metadata(token))
    found = []
    for answer in answers:  # type: ignore[attr-defined]
        if answer.error_message:
            raise AdvsentryError(answer.error_message)
        found += _reasons(answer.infer_response)
    return found


WAYS: dict[str, Way] = {
    "Detect": _detect,
    "BatchDetect": _batch,
    "StreamDetect": _stream,
    "ModelInfer": _infer,
    "ModelStreamInfer": _infer_stream,
}
