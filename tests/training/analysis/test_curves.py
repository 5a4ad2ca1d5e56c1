import math

from training.analysis.curves import Course, training_curves


def test_every_accuracy_of_the_log_is_there_whatever_its_name() -> None:
    log = [
        {"epoch": 1, "loss": 2.0, "measured_on": "selection", "clean_accuracy": 0.5, "seconds": 1.0},
        {"epoch": 2, "loss": math.nan, "measured_on": "selection", "clean_accuracy": 0.75, "new_accuracy": 0.25},
        {"epoch": 3, "loss": 1.0, "measured_on": "selection", "clean_accuracy": None, "new_accuracy": 1},
    ]
    found = training_curves(log, 2)
    assert found.accuracies == {
        "clean_accuracy": Course(epochs=(1, 2), values=(0.5, 0.75)),
        "new_accuracy": Course(epochs=(2, 3), values=(0.25, 1.0)),
    }
    assert found.loss == Course(epochs=(1, 3), values=(2.0, 1.0))
    assert (found.measured_on, found.kept_epoch) == ("selection", 2)


def test_an_empty_log_has_empty_curves() -> None:
    found = training_curves([], 0)
    assert (found.accuracies, found.loss.epochs) == ({}, ())
