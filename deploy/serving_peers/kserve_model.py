"""KServe's Python model server around the bundle's graph: `kserve_model.py GRAPH --grpc_port N --http_port N`."""

import asyncio
import sys

import uvloop
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from onnx_graph import OnnxGraph


class GraphModel(Model):
    """One session."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._graph = OnnxGraph(path)
        self.ready = True

    def predict(self, payload: InferRequest, headers: object = None, response_headers: object = None) -> InferResponse:
        """Scores the images of one call."""
        outputs = []
        for name, values in self._graph.run(payload.inputs[0].as_numpy()).items():
            output = InferOutput(name, list(values.shape), "FP32")
            output.set_data_from_numpy(values)  # raw bytes, which costs less than numbers one by one
            outputs.append(output)
        return InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=outputs)


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # as MLServer and we have it
    asyncio.set_event_loop(asyncio.new_event_loop())  # it asks for one before it runs its own
    ModelServer().start([GraphModel("advsentry", sys.argv[1])])
