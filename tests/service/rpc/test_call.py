"""service/rpc/call.py: each call has its own notes, which the tasks that it starts share."""

import asyncio

import pytest

from service.detection.engine import Engine
from service.detection.verdict import RevealMode, Wish
from service.errors import PermissionRefused
from service.rpc.call import ANONYMOUS, Caller, Scope, begin_call, current_call
from service.rpc.convert import Asked
from service.rpc.pipeline import Policy
from tests.service.rpc.test_other_sizes import pipeline


def test_calls_of_two_tasks_do_not_meet_and_a_task_within_shares_its_own() -> None:
    async def one(name: str) -> str:
        begin_call(ANONYMOUS).takes(items=1, size_bytes=2, request_id=name)
        await asyncio.create_task(within())
        return f"{current_call().request_id} {current_call().items}"

    async def within() -> None:
        await asyncio.sleep(0)
        current_call().takes(items=2, size_bytes=2, request_id="later")

    async def both() -> list[str]:
        return list(await asyncio.gather(one("a"), one("b")))

    assert asyncio.run(both()) == ["a 3", "b 3"]


def test_exact_scores_take_their_scope(engine: Engine) -> None:
    made = pipeline(engine)
    made.policy = Policy(reveal=RevealMode.SCORES)
    wish = Asked(wish=Wish(raw_scores=True))
    begin_call(ANONYMOUS)
    assert made.apply(wish).reveal is RevealMode.SCORES
    begin_call(Caller(name="guest", scopes=frozenset({Scope.DETECT})))
    assert made.apply(Asked()).reveal is RevealMode.P_VALUES
    with pytest.raises(PermissionRefused):
        made.apply(wish)
    assert made.alpha_steps(RevealMode.P_VALUES)
    assert not made.alpha_steps(RevealMode.SCORES)
