"""A set cut by classes: the first ones for training, the others for retrieval among classes that no training saw."""

import numpy as np

from service.errors import SetupError
from training.data.types import DataSet, ImageSet

__all__ = ["first_classes", "other_classes"]


def first_classes(dataset: DataSet, count: int) -> DataSet:
    """The set with its first `count` classes alone; 0 keeps all.

    Raises:
        SetupError: the set has no more than `count` classes.
    """
    if not count:
        return dataset
    names = dataset.class_names
    if count >= len(names):
        raise SetupError(f"data.classes: expected less than the {len(names)} classes of {dataset.name}, got {count}")
    train, test = (part.take(np.flatnonzero(part.labels < count)) for part in (dataset.train, dataset.test))
    return DataSet(name=dataset.name, class_names=names[:count], train=train, test=test)


def other_classes(dataset: DataSet, count: int) -> ImageSet:
    """The images of all classes but the first `count`, labels as in the set.

    They are those of the test split, or where that is empty or without the tracks that the set has, of the training
    split: images of one track show the same object, and a retrieval among them must know it.
    """
    source = dataset.test
    if not len(source) or (dataset.train.tracks is not None and source.tracks is None):
        source = dataset.train
    return source.take(np.flatnonzero(source.labels >= count))
