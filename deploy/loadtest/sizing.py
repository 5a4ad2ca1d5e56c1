"""What a fleet needs, from measured figures and a simulated queue."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploy.loadtest.queueing import Process, by_call, by_connection, highest_share, zipf
from service.errors import SetupError

__all__ = ["CLIENTS", "SEED", "Assumed", "fleet"]

DAY_S = 86_400
SEED = 0
WAYS = ("detect", "batch", "stream")
GPU_LOADS = {"detect": "detect_32", "batch": "batch", "stream": "stream_4"}
"""The ways as `deploy.load` has them: as many under way as keep a GPU busy."""
MOST_SIMULATED = 128
"""Processes whose balancing is simulated."""
SIMULATED_S = 20.0
CLIENTS = (32, 256, 2048)
SCRAPE_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What is not measured: it is a matter of one's own traffic."""

    images_per_day: float
    peak: float
    """Largest rate of a day to its mean."""
    zones: int
    """The fleet bears its peak without one of them."""
    objective_ms: float
    deadline_s: float
    cores_per_pod: int
    skew: float
    """Of the clients' loads: the n-th largest has 1 / n^skew of the largest's."""
    history_s: float
    """How long queries are remembered."""


def fleet(bundle: str, assumed: Assumed, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Flat names to figures.

    Args:
        bundle: whose figures `results` has.
        results: metrics by the name of their file.

    Raises:
        SetupError: nothing was measured of the bundle.
    """
    serving = _of(results, "serving", bundle)
    image_us = {way: serving[f"{way}_server_us"] for way in WAYS}
    process = Process(
        image_s=image_us["detect"] / 1e6, max_batch=int(serving["max_batch"]), deadline_s=assumed.deadline_s
    )
    simulated = highest_share(process, assumed.objective_ms / 1000, processes=4, seconds=SIMULATED_S, seed=SEED)
    if not simulated:
        raise SetupError(f"an image of {bundle} takes longer than {assumed.objective_ms:g} ms: allow more time")
    measured = serving["detect_rate"] * process.image_s  # the queue is not all that delays a call
    share = min(simulated, measured)
    found = {"share_simulated": simulated, "share_measured": measured}
    found |= _cores(assumed, image_us, share) | _drivers(serving, image_us)
    pods = math.ceil(found["cores_detect"] / assumed.cores_per_pod)
    found |= _balancing(process, min(MOST_SIMULATED, pods * assumed.cores_per_pod), assumed.skew, share)
    found |= {
        "pods": pods,
        "memory_gb": pods * assumed.cores_per_pod * serving["resident_mb"] / 1000,
        "lost_pod_share": 1 / pods,
    }
    found |= _gpus(results.get("gpu", {}), bundle, found, share, assumed)
    found |= _watched(pods, results.get("reliability", {})) | _history(assumed, results.get("history", {}))
    return found | _model(process, results.get("loadtest", {}))


def _of(results: Mapping[str, Mapping[str, float]], name: str, bundle: str) -> dict[str, float]:
    """A bundle's figures of one file, without its name."""
    start = f"{bundle}_"
    found = {key.removeprefix(start): value for key, value in results[name].items() if key.startswith(start)}
    if not found:
        raise SetupError(f"{name}.json has no figures of {bundle}: measure it first, or name another bundle")
    return found


def _cores(assumed: Assumed, image_us: Mapping[str, float], share: float) -> dict[str, float]:
    """Cores by way of calling. Single calls must keep the objective at the peak, without a zone; bulk fills the day."""
    mean = assumed.images_per_day / DAY_S
    peak = mean * assumed.peak
    spare = assumed.zones / (assumed.zones - 1)
    busy = {way: cost / 1e6 for way, cost in image_us.items()}
    return {
        "mean_images_per_s": mean,
        "peak_images_per_s": peak,
        "cores_detect": peak * busy["detect"] / share * spare,
        "cores_batch_all_day": mean * busy["batch"] * spare,
        "cores_stream_all_day": mean * busy["stream"] * spare,
    }


def _gpus(
    gpu: Mapping[str, float], bundle: str, cores: Mapping[str, float], share: float, assumed: Assumed
) -> dict[str, float]:
    """GPUs in the place of cores, one process each; nothing where none was measured with the bundle."""
    if f"{bundle}_stream_images_per_s" not in gpu:
        return {}
    rates = {way: gpu[f"{bundle}_{name}_images_per_s"] for way, name in GPU_LOADS.items()}
    spare = assumed.zones / (assumed.zones - 1)
    return {
        **{f"gpu_{way}_images_per_s": rate for way, rate in rates.items()},
        "gpus_detect": cores["peak_images_per_s"] / rates["detect"] / share * spare,
        "gpus_batch_all_day": cores["mean_images_per_s"] / rates["batch"] * spare,
        "gpus_stream_all_day": cores["mean_images_per_s"] / rates["stream"] * spare,
    }


def _drivers(serving: Mapping[str, float], image_us: Mapping[str, float]) -> dict[str, float]:
    """Processor time of an image, and core hours of a million."""
    return {
        "graph_us": serving["session_us"],
        **{f"{way}_us": cost for way, cost in image_us.items()},
        **{f"{way}_beside_graph_us": cost - serving["session_us"] for way, cost in image_us.items()},
        **{f"{way}_core_hours_per_million": cost / 3600 for way, cost in image_us.items()},
    }


def _balancing(process: Process, processes: int, skew: float, share: float) -> dict[str, float]:
    """The same load spread by calls, and by connections of clients that are not alike."""
    spread = by_call(process, processes, share, seconds=SIMULATED_S, generator=np.random.default_rng(SEED))
    found = {"balanced_processes": processes, "by_call_p99_ms": 1000 * spread.p99_s, "by_call_refused": spread.refused}
    for clients in CLIENTS:
        pinned = by_connection(
            process,
            processes,
            share,
            zipf(clients, skew),
            seconds=SIMULATED_S,
            generator=np.random.default_rng(SEED),
        )
        found |= {
            f"by_connection_{clients}_p99_ms": 1000 * pinned.p99_s,
            f"by_connection_{clients}_refused": pinned.refused,
            f"by_connection_{clients}_hottest": pinned.hottest,
        }
    return found


def _watched(pods: int, reliability: Mapping[str, float]) -> dict[str, float]:
    """What Prometheus keeps of so many pods."""
    if "R-19_series" not in reliability:
        return {}
    series = pods * reliability["R-19_series"]
    return {"series": series, "samples_per_s": series / SCRAPE_S}


def _history(assumed: Assumed, history: Mapping[str, float]) -> dict[str, float]:
    """What a history of queries, which every process must see, has to take; by 100 bytes where none was measured."""
    peak = assumed.images_per_day / DAY_S * assumed.peak
    entries = peak * assumed.history_s
    found = {"history_entries": entries, "history_lookups_per_s": peak}
    kept = [int(name.removeprefix("most_bytes_at_")) for name in history if name.startswith("most_bytes_at_")]
    if not kept:
        return {**found, "history_gb_for_each_100_bytes": entries * 100 / 1e9}
    most = max(kept)
    return {
        **found,
        "history_kept_when_measured": most,
        "history_bytes": history[f"most_bytes_at_{most}"],
        "history_gb": entries * history[f"most_bytes_at_{most}"] / 1e9,
        "history_us": 1000 * history[f"ms_in_32_at_{most}"],
        "history_cores": peak * history[f"ms_in_32_at_{most}"] / 1000,
    }


def _model(process: Process, loadtest: Mapping[str, float]) -> dict[str, float]:
    """The simulated queue beside what a load test measured at 0.7 of a process's capacity."""
    if "constant_0.7_p99_ms" not in loadtest:
        return {}
    own = Process(image_s=1 / loadtest["capacity_per_s"], max_batch=process.max_batch, deadline_s=process.deadline_s)
    simulated = by_call(own, 4, 0.7, seconds=SIMULATED_S, generator=np.random.default_rng(SEED))
    return {
        "model_p50_ms": 1000 * simulated.p50_s,
        "measured_p50_ms": loadtest["constant_0.7_p50_ms"],
        "model_p99_ms": 1000 * simulated.p99_s,
        "measured_p99_ms": loadtest["constant_0.7_p99_ms"],
    }
