"""A grpc.aio server that does nothing: the most single calls that any server on it can answer.

`python -m deploy.serving_peers.echo BYTES` answers every Detect call with so many bytes, and says where it serves as
`advsentry serve` does.
"""

import asyncio
import sys

import grpc

from deploy.reliability.callers import run_loop
from service.memory import settle
from service.rpc.convert import SERVICE


async def _serve(size: int) -> None:
    answer = bytes(size)

    async def detect(_: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        return answer

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Detect": grpc.unary_unary_rpc_method_handler(detect)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    settle()
    await server.start()
    print(f"serving grpc=127.0.0.1:{port} metrics=none", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run_loop(_serve(int(sys.argv[1])))
