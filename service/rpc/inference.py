"""The servicer of `inference.GRPCInferenceService`, the Open Inference Protocol."""

import importlib.metadata
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from service.errors import UnknownModel
from service.rpc import convert_inference as convert
from service.rpc import inference_facts as facts
from service.rpc.call import current_call
from service.rpc.convert import Asked
from service.rpc.detector import tell
from service.rpc.health import Health
from service.rpc.inference_call import infer
from service.rpc.inference_facts import AskedModel
from service.rpc.inference_stream import InferenceStream
from service.rpc.pipeline import Applied, Pipeline, Served

__all__ = ["InferenceServicer"]

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class InferenceServicer:
    """Takes and gives bytes, as the native one."""

    def __init__(self, served: Served, health: Health) -> None:
        self._served = served
        self._health = health
        self._version = importlib.metadata.version("advsentry")

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[bytes, bytes]]":
        """What a server is given, by method."""
        return {
            "ServerLive": grpc.unary_unary_rpc_method_handler(self.server_live),
            "ServerReady": grpc.unary_unary_rpc_method_handler(self.server_ready),
            "ModelReady": grpc.unary_unary_rpc_method_handler(self.model_ready),
            "ServerMetadata": grpc.unary_unary_rpc_method_handler(self.server_metadata),
            "ModelMetadata": grpc.unary_unary_rpc_method_handler(self.model_metadata),
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.model_infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self.model_stream_infer),
            "ModelConfig": grpc.unary_unary_rpc_method_handler(self.model_config),
            "ModelStatistics": grpc.unary_unary_rpc_method_handler(self.model_statistics),
        }

    async def server_live(self, data: bytes, context: Context) -> bytes:
        """Whether the loop and the worker work."""
        facts.check_empty("ServerLive", data)
        return facts.live_answer(self._health.is_live)

    async def server_ready(self, data: bytes, context: Context) -> bytes:
        """Whether new calls are served."""
        facts.check_empty("ServerReady", data)
        return facts.ready_answer(self._health.is_ready)

    async def model_ready(self, data: bytes, context: Context) -> bytes:
        """Whether new calls are served with this model; a model that is not here is not ready, as Triton has it."""
        asked, pipeline = facts.model_request(data), self._served.current
        try:
            _applied(pipeline, asked)
        except UnknownModel:
            return facts.model_ready_answer(False)
        return facts.model_ready_answer(self._health.is_ready)

    async def server_metadata(self, data: bytes, context: Context) -> bytes:
        """What server this is."""
        facts.check_empty("ServerMetadata", data)
        return facts.server_metadata(self._version)

    async def model_metadata(self, data: bytes, context: Context) -> bytes:
        """The tensors that the caller may send and get."""
        asked, pipeline = facts.model_request(data), self._served.current
        reveal, named = _applied(pipeline, asked).reveal, pipeline.names_detectors(current_call().caller)
        return facts.model_metadata(asked.name, pipeline.engine.bundle, reveal, names_detectors=named)

    async def model_config(self, data: bytes, context: Context) -> bytes:
        """How the model is run."""
        asked, pipeline = facts.model_request(data), self._served.current
        reveal, most = _applied(pipeline, asked).reveal, pipeline.policy.max_batch_items
        return facts.model_config(asked.name, pipeline.engine.bundle, reveal, most)

    async def model_statistics(self, data: bytes, context: Context) -> bytes:
        """What this process has done since it started."""
        asked, pipeline = facts.model_request(data), self._served.current
        if not asked.name:
            asked = AskedModel(convert.MODEL, asked.version)
        _applied(pipeline, asked)
        return facts.model_statistics(asked.name, pipeline.engine.bundle.manifest.version, pipeline.metrics)

    async def model_infer(self, data: bytes, context: Context) -> bytes:
        """One answer for all images of a request."""
        pipeline = self._served.current
        most = pipeline.policy.max_batch_items
        request = convert.infer_request(convert.received(data, most), pipeline.engine.bundle.manifest, most)
        current_call().takes(items=request.images.count, size_bytes=len(data), request_id=request.request_id)
        answer, timings = await infer(pipeline, request, context.time_remaining(), in_stream=False)
        tell(context, timings)
        return convert.infer_answer(answer)

    async def model_stream_infer(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """One answer for each request, in their order."""
        await InferenceStream(self._served).serve(requests, context)


def _applied(pipeline: Pipeline, asked: AskedModel) -> Applied:
    """What the caller may see of a model.

    Raises:
        UnknownModel: it, or its version, is not here.
    """
    convert.check_model(asked.name, pipeline.engine.bundle.manifest)
    return pipeline.apply(Asked(model_version=asked.version))
