"""A grpc.aio server without any code of the service: what gRPC itself does to memory under the same calls.

`python -m deploy.reliability.bare ...` has the service's methods, waits about as long as an image does, and answers
with nothing. It heeds no flags, says where it serves as `advsentry serve` does, and at SIGTERM stops as gRPC does; see
`control_mb_per_100k_calls` of R-9 and `control_cancelled_by_grpc` of R-11.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc

from deploy.reliability.callers import run_loop
from service.memory import limit_arenas
from service.rpc.convert import SERVICE

__all__ = ["main"]

ANSWER_S = 0.01
"""So that calls are cancelled and end too late while the handler waits, as those of the service are."""
DRAIN_S = 10.0
"""For calls in flight."""


async def _answer(_: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
    await context.read()
    await asyncio.sleep(ANSWER_S)
    return b""


async def _answers(
    requests: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
) -> AsyncIterator[bytes]:
    async for _ in requests:
        await asyncio.sleep(ANSWER_S)
        yield b""


async def _serve() -> None:
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Detect": grpc.stream_unary_rpc_method_handler(_answer),
        "BatchDetect": grpc.stream_unary_rpc_method_handler(_answer),
        "StreamDetect": grpc.stream_stream_rpc_method_handler(_answers),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print(f"serving grpc=127.0.0.1:{port} metrics=none", flush=True)
    await ended.wait()
    await server.stop(DRAIN_S)


def main() -> None:
    """Serves until SIGTERM."""
    limit_arenas()  # as the service has it
    run_loop(_serve())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
