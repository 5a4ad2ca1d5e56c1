"""Where and in which arithmetic a run computes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

__all__ = ["autocast", "computes_in_bf16", "deterministic", "uses_bf16"]


def uses_bf16(precision: Literal["auto", "bf16", "float32"], device: torch.device) -> bool:
    """Whether a run of this precision autocasts to bf16 on this device."""
    if precision == "auto":
        return computes_in_bf16(device)
    return precision == "bf16"


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 arithmetic: AVX512-BF16 or AMX, or CUDA with bf16.

    A processor without it emulates bf16, several times slower than float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # torch offers no public question for the processor's bf16 instructions.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Deterministic algorithms and this many threads (0: torch's choice); settings of before come back."""
    memory: Any = torch.utils.deterministic  # its attribute is set at import in a way that mypy does not see
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    fills = memory.fill_uninitialized_memory
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # on by default, and no float32: convolutions would have 10 bits
    # CUDA's matrix products are deterministic only with this, and it is read when the first of them runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling costs time and guards only against reads of uninitialised memory, of which there are none here.
    memory.fill_uninitialized_memory = False
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])
        memory.fill_uninitialized_memory = fills
        torch.backends.cudnn.allow_tf32 = tf32


def autocast(device: torch.device, *, bf16: bool) -> torch.autocast:
    """A context in which convolutions and linear layers compute in bf16, or in which nothing changes."""
    # The cache would hand weights that a pass without gradient has cast to a later pass with gradient,
    # which then gives the weights no gradient.
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False)
