"""Which execution providers a device stands for, with their options; onnxruntime itself is not needed here."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from service.errors import SetupError

__all__ = ["CPU", "CUDA", "TENSORRT", "CudaOptions", "Device", "Provider", "bucket", "buckets", "providers"]

Device = Literal["cpu", "cuda", "auto"]
Provider: TypeAlias = tuple[str, dict[str, str]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


@dataclass(frozen=True, kw_only=True)
class CudaOptions:
    """How a CUDA device is used; without effect on the processor."""

    device_id: int = 0
    memory_bytes: int = 0
    """Of the device, for one session at most; 0 for no limit."""
    tensorrt: bool = False
    """Whether TensorRT runs what it can of the graph."""


def providers(device: Device, cuda: CudaOptions) -> list[Provider]:
    """Providers of a device with their options, the wanted one first.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html

    Raises:
        SetupError: TensorRT without the device cuda.
    """
    if cuda.tensorrt and device != "cuda":
        raise SetupError(f"--tensorrt: expected --device cuda beside it, got --device {device}")
    if device == "cpu":
        return [(CPU, {})]
    wanted = [(TENSORRT, {"device_id": str(cuda.device_id)})] if cuda.tensorrt else []
    return [*wanted, (CUDA, _cuda_options(cuda)), (CPU, {})]


def _cuda_options(cuda: CudaOptions) -> dict[str, str]:
    options = {
        "device_id": str(cuda.device_id),
        # The default tries every algorithm at each new shape, which takes up to a second and more each time.
        "cudnn_conv_algo_search": "HEURISTIC",
        # TF32 keeps 10 bits of a factor's fraction; the calibration was computed with 23.
        "use_tf32": "0",
        # Doubling is for shapes that keep growing; padded batches have a few fixed ones.
        "arena_extend_strategy": "kSameAsRequested",
    }
    return options | ({"gpu_mem_limit": str(cuda.memory_bytes)} if cuda.memory_bytes else {})


def bucket(count: int) -> int:
    """The power of two that a batch of so many images is padded to.

    >>> [bucket(count) for count in (1, 2, 3, 8, 48)]
    [1, 2, 4, 8, 64]
    """
    return 1 << (count - 1).bit_length()


def buckets(most: int) -> tuple[int, ...]:
    """All sizes of padded batches of at most so many images.

    >>> buckets(48)
    (1, 2, 4, 8, 16, 32, 64)
    """
    return tuple(1 << power for power in range(bucket(most).bit_length()))
