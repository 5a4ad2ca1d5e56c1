"""Scored columns as Arrow tables, and these as Parquet files that are whole or not there."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.detection.manifest import Manifest
from service.detection.types import Verdict
from service.errors import SetupError
from service.scoring.decoding import Columns

__all__ = ["TableMaker", "write_shard"]


class TableMaker:
    """The table of a bundle: one row an image; what is hidden or was not found is null."""

    def __init__(self, manifest: Manifest, *, about: Mapping[str, object], with_probabilities: bool) -> None:
        """Makes its schema.

        Args:
            about: what the run was told, kept in every file under the key `advsentry`.
        """
        self._classes = pa.array(manifest.class_names)
        self._detectors = [entry.name for entry in manifest.detectors]
        self._with_probabilities = with_probabilities
        fields = [("path", pa.string()), ("label", pa.int32()), ("class_name", pa.string())]
        fields += [("probability", pa.float64())]
        fields += [("probabilities", pa.list_(pa.float64()))] if with_probabilities else []
        fields += [("p_value", pa.float64()), *((f"p_value_{name}", pa.float64()) for name in self._detectors)]
        fields += [("verdict", pa.string()), ("flags", pa.list_(pa.string()))]
        fields += [("error", pa.string()), ("reason", pa.string())]
        self.schema = pa.schema(fields, metadata={"advsentry": json.dumps(about, ensure_ascii=False)})

    def __call__(self, columns: Columns) -> pa.Table:
        """The table of scored columns, without rows that are no images."""
        missing = columns["label"] < 0
        label = pa.array(columns["label"], pa.int32(), mask=missing)
        verdict = np.where(columns["is_adversarial"], Verdict.ADVERSARIAL.value, Verdict.CLEAN.value).astype(object)
        p_values = [pa.array(values, from_pandas=True) for values in columns["p_values"].T]  # NaN is null
        arrays = [pa.array(columns["path"], pa.string()), label, self._classes.take(label)]
        arrays += [pa.array(columns["probability"], from_pandas=True)]
        arrays += [self._probabilities(columns)] if self._with_probabilities else []
        arrays += [pa.array(columns["p_value"], from_pandas=True), *p_values]
        arrays += [pa.array(verdict, pa.string(), mask=missing), self._flags(columns)]
        arrays += [_texts(columns["error"]), _texts(columns["reason"])]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _probabilities(self, columns: Columns) -> pa.Array:
        values = columns["probabilities"]
        return _lists(pa.array(values.ravel()), np.full(len(values), values.shape[1]), np.isnan(columns["probability"]))

    def _flags(self, columns: Columns) -> pa.Array:
        flagged = columns["is_flagged"]
        names = pa.array(self._detectors, pa.string()).take(pa.array(flagged.nonzero()[1]))
        return _lists(names, flagged.sum(axis=1), np.isnan(columns["p_value"]))


def _lists(values: pa.Array, lengths: "np.ndarray[Any, Any]", missing: "np.ndarray[Any, Any]") -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(missing))


def _texts(values: "np.ndarray[Any, Any]") -> pa.Array:
    return pa.array(values, pa.string(), mask=values == "")


def write_shard(path: Path, table: pa.Table) -> int:
    """Writes under another name, then renames, so that no reader ever sees half a file.

    Returns:
        Its bytes.

    Raises:
        SetupError: the folder cannot be written.
    """
    made = path.with_name(f".{path.name}.tmp")
    try:
        with made.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        made.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name, too, outlasts a loss of power
        finally:
            os.close(folder)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise SetupError(
            f"{path}: cannot be written: {error.strerror or error}; mend it, and go on by the same command"
        ) from error
    return size
