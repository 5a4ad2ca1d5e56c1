"""Starts a bundle as the settings say."""

from pathlib import Path

from service.detection.engine import Engine
from service.detection.graph_cache import GraphCache, cache_folder
from service.detection.providers import CudaOptions
from service.settings import Settings

__all__ = ["load_engine"]


def load_engine(path: Path, settings: Settings) -> Engine:
    """Reads, checks and starts the bundle in a folder.

    Raises:
        BundleError: as for Engine.
        SetupError: as for Engine.
    """
    folder = cache_folder(settings.cache_dir)
    return Engine.load(
        path,
        device=settings.device,
        threads=settings.threads,
        cuda=CudaOptions(device_id=settings.device_id, memory_bytes=settings.gpu_mem_limit, tensorrt=settings.tensorrt),
        cache=None if folder is None else GraphCache(folder),
    )
