"""The examples in docstrings are true."""

import doctest
import importlib

import pytest

MODULES = (
    "deploy.reliability.result",
    "deploy.result_file",
    "service.detection.providers",
    "service.detection.ranks",
    "service.detection.verdict",
    "service.report",
    "service.scoring.inputs",
    "service.scoring.ledger",
    "service.scoring.progress",
    "service.settings",
    "service.tune",
    "service.tune_command",
    "training.differences",
    "training.evaluation.progress",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name: str) -> None:
    tried = doctest.testmod(importlib.import_module(name))
    assert tried.attempted > 0
    assert tried.failed == 0
