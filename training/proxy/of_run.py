"""The generated images of a run: labelled when it begins, with the same labels when it goes on."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from service.errors import SetupError
from training.config import Recipe
from training.data import DataSet
from training.processes import Processes
from training.proxy.labelling import pseudo_labels
from training.proxy.loading import Proxy, load_proxy

__all__ = ["keep_labels", "proxy_of_run"]

LABELS = "proxy_labels.npy"
"""In the run directory: another processor might round to other labels."""


def proxy_of_run(
    recipe: Recipe,
    dataset: DataSet,
    data_root: Path | None,
    run: Path,
    *,
    is_begun: bool,
    device: torch.device,
    processes: Processes,
) -> Proxy | None:
    """What load_proxy() gives; where labels have to be guessed, one process does it for all.

    Raises:
        SetupError: as for load_proxy and pseudo_labels, or a begun run has lost its labels.
    """

    def label(images: NDArray[np.uint8]) -> NDArray[np.int64]:
        if is_begun:
            return _kept(run / LABELS, len(images))
        return pseudo_labels(images, recipe, dataset.class_names, device)

    return load_proxy(recipe, dataset, data_root, lambda images: processes.decided(lambda: label(images)))


def keep_labels(proxy: Proxy | None, run: Path) -> None:
    """Writes the labeller's answers into the run directory, where there are any."""
    if proxy is not None and proxy.given is not None:
        np.save(run / LABELS, proxy.given)


def _kept(path: Path, count: int) -> NDArray[np.int64]:
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SetupError(
            f"{path}: expected the labels of the generated images, got: {error}; put the file back, or begin anew with "
            "another --out"
        ) from error
    if labels.shape != (count,) or labels.dtype != np.int64:
        raise SetupError(f"{path}: expected {count} labels, got {labels.dtype} {labels.shape}; put the right file back")
    return np.asarray(labels)
