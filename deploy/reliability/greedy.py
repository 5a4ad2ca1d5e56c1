"""A caller who sends as much as the server takes; a program of its own, so that others can be timed beside it.

`python -m deploy.reliability.greedy unary|stream TARGET TOKEN BUNDLE SECONDS` prints a line when it begins,
and at the end how many images it sent.
"""

import asyncio
import itertools
import os
import sys
import time
from pathlib import Path

import grpc

from deploy.reliability.callers import channel, run_loop
from deploy.reliability.rig import images_of
from protos import detection_pb2 as pb
from service.rpc.convert import SERVICE
from service.rpc.read_answers import image_message

__all__ = ["main"]

CALLS = 32
"""Calls in flight, always; one that is refused comes again at once, whatever the server says."""
STREAMS = 4
UNANSWERED = 512
"""Messages of a stream that wait for their answers: twice what the server takes of one at once."""
NICE = 10
"""It shares the clients' core with those who are timed: they are not to wait for that core."""


async def _calls(target: str, bundle: Path, metadata: tuple[tuple[str, str], ...], ends: float) -> int:
    """Sends Detect calls; gives how many."""
    messages = [pb.DetectRequest(image=image_message(image)).SerializeToString() for image in images_of(bundle, CALLS)]
    sent = 0
    async with channel(target) as made:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = made.unary_unary(f"/{SERVICE}/Detect")

        async def caller(message: bytes) -> None:
            nonlocal sent
            while time.monotonic() < ends:
                sent += 1
                try:
                    await method(message, metadata=metadata, timeout=30)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise

        await asyncio.gather(*map(caller, messages))
    return sent


async def _streams(target: str, bundle: Path, metadata: tuple[tuple[str, str], ...], ends: float) -> int:
    """Keeps StreamDetect calls full; gives how many images were answered until `ends`.

    The client's gRPC would take any number of messages, and writing them the clients' core, on which others are timed.
    """
    messages = [
        pb.StreamDetectRequest(item_id=str(i), image=image_message(image)).SerializeToString()
        for i, image in enumerate(images_of(bundle, 64))
    ]

    async def one(made: grpc.aio.Channel) -> int:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = made.stream_stream(f"/{SERVICE}/StreamDetect")
        call = method(metadata=metadata)

        room = asyncio.Semaphore(UNANSWERED)

        async def write() -> None:
            for message in itertools.cycle(messages):
                await room.acquire()
                await call.write(message)

        writer = asyncio.create_task(write())
        answers = 0
        async for _ in call:
            answers += 1
            room.release()
            if time.monotonic() >= ends:
                break
        call.cancel()
        writer.cancel()
        await asyncio.wait({writer})
        return answers

    async with channel(target) as made:
        return sum(await asyncio.gather(*(one(made) for _ in range(STREAMS))))


def main() -> None:
    """Sends for a time."""
    kind, target, token, bundle, seconds = sys.argv[1:]
    os.nice(NICE)
    send = {"unary": _calls, "stream": _streams}[kind]
    metadata = (("authorization", f"Bearer {token}"),)
    print("begins", flush=True)
    print(run_loop(send(target, Path(bundle), metadata, time.monotonic() + float(seconds))))


if __name__ == "__main__":
    main()
