"""Triton's client, which we did not write, against a server of ours; a process of its own.

`python -m deploy.reliability.triton_calls TARGET IMAGES.npy` prints the combined p-values that came, as JSON, by way of
calling.
"""

import asyncio
import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as sync
import tritonclient.grpc.aio as aio

from service.rpc.convert_inference import MODEL
from service.rpc.inference_inputs import INPUT

__all__ = ["main"]

P_VALUE = "combined_p_value"
TIMEOUT_S = 60


def _input(images: np.ndarray) -> list[Any]:
    made = sync.InferInput(INPUT, list(images.shape), "UINT8")
    made.set_data_from_numpy(images)
    return [made]


def _p_values(result: Any) -> list[float]:
    return [float(value) for value in result.as_numpy(P_VALUE).ravel()]


def _streamed(client: sync.InferenceServerClient, images: np.ndarray) -> list[float]:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number, image in enumerate(images):
        client.async_stream_infer(MODEL, _input(image[None]), request_id=str(number))
    came = [answers.get(timeout=TIMEOUT_S) for _ in images]
    client.stop_stream()
    found = {int(result.get_response().id): _p_values(result)[0] for result, error in came if error is None}
    return [found.get(number, float("nan")) for number in range(len(images))]


async def _by_aio(target: str, images: np.ndarray) -> list[float]:
    async with aio.InferenceServerClient(target) as client:
        results = await asyncio.gather(*(client.infer(MODEL, _input(image[None])) for image in images))
        return [_p_values(result)[0] for result in results]


def main() -> None:
    """Calls in every way."""
    target, images = sys.argv[1], np.load(sys.argv[2])
    with sync.InferenceServerClient(target) as client:
        found = {
            "ready": [float(client.is_server_ready() and client.is_model_ready(MODEL))],
            "sync": _p_values(client.infer(MODEL, _input(images))),
            "stream": _streamed(client, images),
        }
    found["aio"] = asyncio.run(_by_aio(target, images))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
