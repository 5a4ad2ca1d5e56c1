"""The only module that names onnxruntime: sessions on the device that was asked for, or a clear refusal."""

import contextlib
import ctypes
import hashlib
import io
import logging
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnxruntime as ort

from service.detection.graph_cache import GraphCache
from service.detection.processors import cpu_quota, processor_kind
from service.detection.providers import CPU, CUDA, CudaOptions, Device, Provider, providers
from service.errors import BundleError, SetupError

__all__ = ["first_line", "open_on_device", "open_session"]

log = logging.getLogger(__name__)

SILENT, DEFAULT_SEVERITY = 4, 2


class _NoSession(Exception):
    """Onnxruntime makes no session; its text is the first line of why."""


def open_session(
    file: str, model: bytes, *, threads: int, keeps_memory: bool = True, cache: GraphCache | None = None
) -> ort.InferenceSession:
    """A session on the processor.

    Args:
        file: the graph's name in messages.
        threads: of one run; 0 takes the processors that the process may use.
        keeps_memory: whether memory stays for the next run, which pays when its shapes are like this one's.
        cache: where the graph is kept if onnxruntime takes long to optimise it, and looked up; None for neither.

    Raises:
        BundleError: the bytes are no graph.
    """
    if cache is not None and not cache.is_empty:
        kept = _kept_session(model, threads, cache)
        if kept is not None:
            return kept
    options = _options(threads)
    options.enable_cpu_mem_arena = keeps_memory
    options.enable_mem_pattern = keeps_memory
    began_s = time.thread_time()  # other work on the machine must not make a graph look slow
    try:
        session = _session(model, options, [(CPU, {})])
    except _NoSession as error:
        raise BundleError(f"{file}: onnxruntime cannot load it: {error}") from error
    if cache is not None and time.thread_time() - began_s >= cache.pays_s:
        _keep(model, cache)
    return session


def open_on_device(
    file: str, model: bytes, *, device: Device, threads: int, cuda: CudaOptions, cache: GraphCache | None
) -> ort.InferenceSession:
    """A session on a device. `auto` takes the processor where CUDA does not come up, and says so in the log.

    Raises:
        BundleError: the bytes are no graph.
        SetupError: CUDA or TensorRT was asked for and does not come up.
    """
    wanted = providers(device, cuda)
    if wanted[0][0] == CPU:
        return open_session(file, model, threads=threads, cache=cache)
    try:
        with _quiet():
            ort.preload_dlls(directory="")  # those of the packages of the extra `cuda`
            session = _session(model, _options(threads), wanted)
        if session.get_providers()[0] == wanted[0][0]:
            return session
        said = "onnxruntime does not say why"
    except (_NoSession, RuntimeError) as error:
        said = first_line(error)
    reason = _missing(wanted[0][0]) or _cuda_failure(said)
    # A graph that does not load at all is the bundle's fault, whatever the device.
    on_processor = open_session(file, model, threads=threads, cache=cache)
    if device == "cuda":
        raise SetupError(
            f"--device cuda: {wanted[0][0]} does not come up: {reason}; install "
            + (
                "TensorRT, or leave --tensorrt out"
                if cuda.tensorrt
                else "advsentry[cuda] and a driver, or use --device cpu"
            )
        )
    log.warning("device auto: the graph runs on the processor: %s does not come up: %s", wanted[0][0], reason)
    return on_processor


def first_line(error: Exception) -> str:
    """What onnxruntime says, without the pages that may follow."""
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or cpu_quota()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _session(model: bytes, options: ort.SessionOptions, wanted: list[Provider]) -> ort.InferenceSession:
    try:
        # Its own fall-back would print, and go on with the processor.
        return ort.InferenceSession(model, options, providers=wanted, enable_fallback=0)
    except Exception as error:  # their kinds have no base of their own
        raise _NoSession(first_line(error)) from error


def _kept_session(model: bytes, threads: int, cache: GraphCache) -> ort.InferenceSession | None:
    """A session of the graph that an earlier start kept; None when there is none that may be used."""
    key = _key(model)
    kept = cache.read(key)
    if kept is None:
        return None
    options = _options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return _session(kept, options, [(CPU, {})])
    except _NoSession as error:
        log.warning("optimised graph %s: onnxruntime cannot load it: %s", key, error)
        return None


def _keep(model: bytes, cache: GraphCache) -> None:
    """Makes the session once more, this time writing the optimised graph: later starts are spared the work."""
    options = _options(threads=1)
    try:
        with cache.writing(_key(model)) as place:
            if place is not None:
                options.optimized_model_filepath = str(place)
                _session(model, options, [(CPU, {})])
    except _NoSession as error:  # such as a full disk
        log.warning("optimised graph: cannot be kept: %s", error)


def _key(model: bytes) -> str:
    """Of all that an optimised graph depends on. The number of threads is not among it."""
    facts = [hashlib.sha256(model).hexdigest(), ort.__version__, CPU, processor_kind()]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps onnxruntime from printing what we say in one line of our own."""
    ort.set_default_logger_severity(SILENT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        ort.set_default_logger_severity(DEFAULT_SEVERITY)


def _missing(provider: str) -> str | None:
    """What a provider lacks on this machine; None when its libraries are all there."""
    if provider not in ort.get_available_providers():
        return "this onnxruntime has no such provider, the package onnxruntime-gpu has"
    library = "libonnxruntime_providers_" + ("cuda.so" if provider == CUDA else "tensorrt.so")
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / library))
    except OSError as error:
        return first_line(error)
    return None


def _cuda_failure(said: str) -> str:
    """The driver's own words, which onnxruntime puts between the names of its source files."""
    found = re.search(r"CUDA failure \d+: [^;]+", said)
    return found[0].strip() if found else said
