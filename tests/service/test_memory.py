"""Memory that glibc keeps is given back, between images only."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from service import memory
from service.detection.engine import Engine
from tests.service.running import running

pytestmark = pytest.mark.skipif(memory._glibc("malloc_trim") is None, reason="needs glibc")

GROW_AND_TRIM = """
import sys
from service import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

blocks = [bytes(50_000) for _ in range(2_000)]  # too small for pages of their own
pin = [bytes(50_000)]  # at the end of the heap, so that free() cannot shorten it
grown = resident()
del blocks
before = resident()
assert memory.trim()
print(grown, before, resident())
"""


def test_trim_gives_back_what_glibc_keeps() -> None:
    done = subprocess.run([sys.executable, "-c", GROW_AND_TRIM], capture_output=True, text=True, check=True)
    grown, before, after = map(int, done.stdout.split())
    assert before > grown - 10e6  # kept, although freed
    assert after < grown - 80e6


@pytest.mark.parametrize(("environment", "done"), [({}, "True"), ({"MALLOC_ARENA_MAX": "7"}, "False")])
def test_the_operators_own_limit_stands(environment: dict[str, str], done: str) -> None:
    code = "from service import memory; print(memory.limit_arenas())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.strip() == done


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr(memory.ctypes, "CDLL", none)
    assert not memory.trim()
    assert not memory.limit_arenas()


def run(is_idle: Callable[[], bool], trimmed: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "trim", trimmed)

    async def until_done() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await memory.keep_trimmed(is_idle, every_s=0, busy_s=0)

    asyncio.run(asyncio.wait_for(until_done(), 20))


def test_what_lives_when_serving_begins_is_never_looked_through_again() -> None:
    code = "import gc; from service import memory; memory.settle(); print(gc.get_freeze_count(), len(gc.get_objects()))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    frozen, looked_at = map(int, told)
    assert frozen > 1000 > looked_at


def test_a_busy_server_is_left_alone_until_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def is_idle() -> bool:
        asked.append(len(asked) >= 3)
        return asked[-1]

    def trimmed() -> bool:
        assert asked == [False, False, False, True]
        raise asyncio.CancelledError

    run(is_idle, trimmed, monkeypatch)


def test_it_trims_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []

    def trimmed() -> bool:
        times.append(1)
        if len(times) == 3:
            raise asyncio.CancelledError
        return True

    run(lambda: True, trimmed, monkeypatch)
    assert len(times) == 3


def test_a_server_trims_while_it_runs(engine: Engine) -> None:
    with running(engine) as server:
        assert "memory" in {task.get_name() for task in asyncio.all_tasks(server.loop)}
