"""A server that runs, asked through its own client; an account is a token."""

from collections.abc import Sequence

import numpy as np

from deploy.redteam.backend import Call, Told
from deploy.redteam.search import Answer
from service.client import Client, Options
from service.detection.types import Detection, FlagReason, Verdict
from service.errors import AdvsentryError, PermissionRefused, SetupError

__all__ = ["Remote"]

CLOSED = Answer(is_refused=True, is_cut_off=True)


class Remote:
    """See Backend. What the history thinks is known only as far as an answer shows it.

    The server's clock is the real one, and calls go as fast as they are answered.
    """

    def __init__(self, clients: Sequence[Client], *, classes: int) -> None:
        """Takes one client for each account; attackers take accounts one after the other.

        Args:
            clients: with a token each.
            classes: of the model.
        """
        self._clients = clients
        self._classes = classes
        self._taken: dict[tuple[int, str], Client] = {}

    def ask(self, calls: Sequence[Call]) -> list[list[Told]]:
        """See Backend.

        Raises:
            SetupError: there are more accounts than tokens.
            AdvsentryError: the server refuses something else than an account.
        """
        return [self._told(call) for call in calls]

    def _told(self, call: Call) -> list[Told]:
        client = self._client(call)
        try:
            found = client.detect_batch(list(call.images), Options())
        except PermissionRefused:
            return [Told(answer=CLOSED, is_flagged=False)] * len(call.images)
        answers = [self._answer(one) for one in found]
        return [Told(answer=answer, is_flagged=answer.is_flagged) for answer in answers]

    def _answer(self, found: Detection | AdvsentryError) -> Answer:
        if isinstance(found, PermissionRefused):
            return CLOSED
        if isinstance(found, AdvsentryError):
            raise found
        probabilities = None
        shown = [one.probability for one in found.classes]
        if len(shown) == self._classes and None not in shown:
            probabilities = np.zeros(self._classes)
            probabilities[[one.index for one in found.classes]] = shown
        return Answer(
            is_flagged=any(flag.reason is FlagReason.NEAR_DUPLICATE_QUERIES for flag in found.flags),
            label=found.top.index,
            is_accepted=found.verdict is Verdict.CLEAN,
            probabilities=probabilities,
            p_value=found.p_value,
            alpha=found.alpha,
        )

    def _client(self, call: Call) -> Client:
        key = call.attacker, call.account
        if key not in self._taken:
            if len(self._taken) == len(self._clients):
                raise SetupError(
                    f"expected a token for each account of each attacked image, got {len(self._clients)} tokens; make "
                    "more with `advsentry token new`, or attack fewer images"
                )
            self._taken[key] = self._clients[len(self._taken)]
        return self._taken[key]
