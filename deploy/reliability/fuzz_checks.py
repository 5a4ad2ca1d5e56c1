"""R-7: mutated messages, in process and over the wire."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from deploy.fuzz.campaign import Found, fuzz, is_installed
from deploy.fuzz.seeds import seeds
from deploy.fuzz.targets import TARGETS
from deploy.reliability.callers import channel, run_loop
from deploy.reliability.check import Check, Figures, NotRun
from deploy.reliability.rig import Rig, Size
from service.client import Client
from service.rpc import convert, convert_inference

__all__ = ["CHECKS"]

METHODS = {
    "detect": (f"/{convert.SERVICE}/Detect", False),
    "batch": (f"/{convert.SERVICE}/BatchDetect", False),
    "stream": (f"/{convert.SERVICE}/StreamDetect", True),
    "infer": (f"/{convert_inference.SERVICE}/ModelInfer", False),
    "facts": (f"/{convert.SERVICE}/GetModelInfo", False),
}
"""Target of the fuzzer to the method that reads such messages, and whether it streams."""
ALLOWED = frozenset({"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "NOT_FOUND", "PERMISSION_DENIED"})
"""The last two for a mutated model version or option, which is no defect of the message."""
CALLERS = 16
INPUTS = 1_000_000
"""Of a target in process, where there is time for so many."""


def mutated(target: str, count: int) -> Iterator[bytes]:
    """Seeds with bytes changed, cut, moved and put in."""
    generator, known = random.Random(target), seeds()[target]
    for _ in range(count):
        data = bytearray(generator.choice(known))
        for _ in range(generator.randint(1, 6)):
            place, other = generator.randrange(len(data) + 1), generator.randrange(len(data) + 1)
            kind = generator.randrange(4)
            if kind == 0:
                data[place : place + 1] = generator.randbytes(1)
            elif kind == 1:
                data[place:place] = generator.randbytes(generator.randint(1, 8))
            elif kind == 2:
                del data[place : place + generator.randint(1, 8)]
            else:
                data[place:place] = data[other : other + generator.randint(1, 32)]
        yield bytes(data)


async def _call(made: grpc.aio.Channel, method: str, streams: bool, messages: Iterator[bytes]) -> Counter[str]:
    """How calls of one method end."""
    codes: Counter[str] = Counter()
    unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = made.unary_unary(method)
    stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = made.stream_stream(method)
    for message in messages:
        try:
            if streams:
                async for _ in stream(iter([message]), timeout=30):
                    pass
            else:
                await unary(message, timeout=30)
            codes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            codes[error.code().name] += 1
    return codes


async def _over_the_wire(target: str, count: int) -> Counter[str]:
    """How calls of every method with mutated messages end."""
    codes: Counter[str] = Counter()
    async with channel(target) as made:
        for name, (method, streams) in METHODS.items():
            messages = mutated(name, count)  # which the callers share
            for found in await asyncio.gather(*(_call(made, method, streams, messages) for _ in range(CALLERS))):
                codes += found
    return codes


def _in_process(rig: Rig) -> list[Found]:
    """Every target for its own time, as many at once as there are cores: no server runs meanwhile."""
    cores = os.sched_getaffinity(0) | (rig.cores or frozenset())
    seconds = rig.scaled(test=1, quick=5, full=1800)
    with ThreadPoolExecutor(len(cores), initializer=os.sched_setaffinity, initargs=(0, cores)) as pool:
        return list(pool.map(lambda name: fuzz(name, rig.folder / "fuzz", seconds, INPUTS), TARGETS))


def fuzzed(rig: Rig) -> Figures:
    """R-7."""
    with rig.server() as running, Client(running.target) as client:
        codes = run_loop(_over_the_wire(running.target, rig.scaled(test=300, quick=2500, full=100_000)))
        logged, unwell = running.errors_logged(), not client.is_serving()
    figures = {
        "calls_over_the_wire": codes.total(),
        "accepted": codes["OK"],
        "statuses_not_allowed": sum(count for code, count in codes.items() if code not in ALLOWED),
        "errors_logged": logged,
        "not_serving_afterwards": float(unwell),
    }
    if rig.size is Size.TEST:  # tests/fuzz has its own
        return figures | {"in_process_defects": 0}
    if not is_installed():
        raise NotRun("atheris is not installed")
    found = _in_process(rig)
    return figures | {
        "in_process_inputs": sum(one.inputs for one in found),
        "in_process_least_inputs": min(one.inputs for one in found),
        "in_process_defects": sum(len(one.crashes) for one in found),
    }


CHECKS = (
    Check(
        number="R-7",
        text="mutated messages to every method over the wire; readers and decoders in process under atheris",
        asked={
            "statuses_not_allowed": "= 0",
            "errors_logged": "= 0",
            "not_serving_afterwards": "= 0",
            "in_process_defects": "= 0",
        },
        run=fuzzed,
        is_quick=True,
    ),
)
