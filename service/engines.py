"""Starts a bundle as the settings say."""

from service.detection.bundle import find_bundle
from service.detection.engine import Engine
from service.detection.graph_cache import GraphCache, cache_folder
from service.detection.providers import CudaOptions
from service.settings import Settings

__all__ = ["load_engine"]


def load_engine(settings: Settings) -> Engine:
    """Reads, checks and starts the bundle that the settings name.

    Raises:
        BundleError: there is none, or it cannot be used here.
        SetupError: the device does not come up.
    """
    folder = cache_folder(settings.cache_dir)
    return Engine.load(
        find_bundle(settings.bundle),
        device=settings.device,
        threads=settings.threads,
        cuda=CudaOptions(device_id=settings.device_id, memory_bytes=settings.gpu_mem_limit, tensorrt=settings.tensorrt),
        cache=None if folder is None else GraphCache(folder),
    )
