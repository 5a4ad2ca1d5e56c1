"""Triton's own client against a server of ours; run as a program, since it is a process of its own.

    python tests/service/tritonclient_calls.py TARGET IMAGES.npy

Prints what came as JSON, for the test that knows what should have come.
"""

import asyncio
import json
import queue
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import tritonclient.grpc as sync
import tritonclient.grpc.aio as aio
from tritonclient.utils import InferenceServerException

MODEL = "advsentry"
OUTPUTS = ("label", "probabilities", "adversarial", "combined_p_value", "p_values", "reasons")


def pixels(images: np.ndarray) -> Any:
    made = sync.InferInput("images", list(images.shape), "UINT8")
    made.set_data_from_numpy(images)
    return [made]


def files(images: list[bytes]) -> Any:
    made = sync.InferInput("images", [len(images)], "BYTES")
    made.set_data_from_numpy(np.array(images, object))
    return [made]


def facts(result: Any, names: tuple[str, ...] = OUTPUTS) -> dict[str, Any]:
    """Every output, floats as they are in the memory."""
    found = {}
    for name in names:
        array = result.as_numpy(name)
        if array.dtype == object:
            found[name] = [value.decode() for value in array.ravel()]
        elif array.dtype.kind == "f":
            found[name] = [float(value).hex() for value in array.ravel()]
        else:
            found[name] = array.ravel().tolist()
        found[f"{name} shape"] = list(array.shape)
    return found


def error_of(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    return ["OK", ""]


def sync_calls(client: sync.InferenceServerClient, images: np.ndarray) -> dict[str, Any]:
    metadata = client.get_model_metadata(MODEL, as_json=True)
    one, all_of_them = pixels(images[:1]), pixels(images)
    done: queue.Queue[Any] = queue.Queue()
    client.async_infer(MODEL, all_of_them, lambda result, error: done.put((result, error)), client_timeout=20)
    asynchronous, error = done.get(timeout=20)
    assert error is None, error
    wanted = [sync.InferRequestedOutput("p_values"), sync.InferRequestedOutput("label")]
    some = client.infer(MODEL, one, outputs=wanted, request_id="7")
    return {
        "live": [client.is_server_live(), client.is_server_ready(), client.is_model_ready(MODEL)],
        "not here": client.is_model_ready("resnet"),
        "server": client.get_server_metadata(as_json=True),
        "metadata": metadata,
        "config": client.get_model_config(MODEL, as_json=True)["config"],
        "statistics": client.get_inference_statistics(MODEL, as_json=True)["model_stats"][0],
        "infer": facts(client.infer(MODEL, all_of_them)),
        "async_infer": facts(asynchronous),
        "gzip": facts(client.infer(MODEL, all_of_them, compression_algorithm="gzip")),
        "some": facts(some, ("p_values", "label")),
        "some id": some.get_response().id,
        "some names": [output.name for output in some.get_response().outputs],
        "priority": facts(
            client.infer(
                MODEL, all_of_them, priority=2, timeout=20_000_000, client_timeout=20, parameters={"target_fpr": 0.01}
            )
        ),
        "errors": {
            "not a file": error_of(lambda: client.infer(MODEL, files([b"x"]))),
            "model": error_of(lambda: client.infer("resnet", one)),
            "version": error_of(lambda: client.infer(MODEL, one, model_version="9")),
            "output": error_of(lambda: client.infer(MODEL, one, outputs=[sync.InferRequestedOutput("x")])),
            "classes": error_of(lambda: client.infer(MODEL, one, outputs=[sync.InferRequestedOutput("label", 2)])),
            "rate": error_of(lambda: client.infer(MODEL, one, parameters={"target_fpr": 7})),
            "timeout": error_of(lambda: client.infer(MODEL, one, timeout=1)),
            "client timeout": error_of(lambda: client.infer(MODEL, one, client_timeout=1e-6)),
            "repository": error_of(client.get_model_repository_index),
            "shared memory": error_of(client.get_system_shared_memory_status),
        },
    }


def streamed(client: sync.InferenceServerClient, images: np.ndarray) -> dict[str, Any]:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number, image in enumerate(images):
        client.async_stream_infer(MODEL, pixels(image[None]), request_id=str(number), enable_empty_final_response=True)
    client.async_stream_infer(MODEL, files([b"x"]), request_id="bad")
    client.async_stream_infer(MODEL, pixels(images), request_id="all")
    came = [answers.get(timeout=20) for _ in range(len(images) + 2)]
    client.stop_stream()
    *ones, (_, failure), (whole, _) = came

    client.start_stream(lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"})
    client.async_stream_infer("resnet", pixels(images), request_id="x")
    _, status = answers.get(timeout=20)
    client.stop_stream()
    return {
        "ids": [result.get_response().id for result, _ in ones],
        "final": all(result.get_response().parameters["triton_final_response"].bool_param for result, _ in ones),
        "ones": [facts(result) for result, _ in ones],
        "failure": str(failure.message()),
        "all": facts(whole),
        "status": [str(status.status()), str(status.message())],
    }


async def aio_calls(target: str, images: np.ndarray) -> dict[str, Any]:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            model = "resnet" if number == 1 else MODEL
            yield {"model_name": model, "inputs": pixels(images), "request_id": str(number)}

    async with aio.InferenceServerClient(target) as client:
        stream = [(result, error) async for result, error in client.stream_infer(requests(), stream_timeout=20)]
        many = await asyncio.gather(*(client.infer(MODEL, pixels(image[None])) for image in images))
        return {
            "ready": await client.is_model_ready(MODEL),
            "metadata": await client.get_model_metadata(MODEL, as_json=True),
            "infer": facts(await client.infer(MODEL, pixels(images))),
            "many": [facts(result) for result in many],
            "stream": [facts(result) if error is None else str(error.message()) for result, error in stream],
        }


def main() -> None:
    target, path = sys.argv[1:]
    images = np.load(path)
    with sync.InferenceServerClient(target) as client:
        found = {"sync": sync_calls(client, images), "stream": streamed(client, images)}
    found["aio"] = asyncio.run(aio_calls(target, images))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
