"""MLServer's custom runtime around the bundle's graph; MLServer imports it in its own environment."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_graph import OnnxGraph

__all__ = ["GraphModel"]


class GraphModel(MLModel):
    """Named in model-settings.json, with the graph's path as its uri."""

    async def load(self) -> bool:
        """Makes the session."""
        self._graph = OnnxGraph(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Scores the images of one call, or of those that the adaptive batching put together."""
        found = self._graph.run(NumpyCodec.decode_input(payload.inputs[0]))
        outputs = [NumpyCodec.encode_output(name, values) for name, values in found.items()]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
