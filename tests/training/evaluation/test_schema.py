"""report.schema.json says what report.json holds."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from service.detection.engine import Engine
from tests.training.evaluation import small
from training.evaluation.schema import PATH, schema, schema_text

KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}


RULES = schema()


def faults(value: Any, rule: dict[str, Any], place: str = "report") -> list[str]:
    """Where a value breaks a rule; of JSON schema as much as our file uses."""
    if "$ref" in rule:
        rule = RULES["$defs"][rule["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in rule:
        tried = [faults(value, one, place) for one in rule["anyOf"]]
        return [] if [] in tried else tried[0]
    if "const" in rule:
        return [] if value == rule["const"] else [f"{place}: {value!r}"]
    is_flag = isinstance(value, bool) and rule["type"] != "boolean"
    if is_flag or not isinstance(value, KINDS[rule["type"]]):
        return [f"{place}: {value!r} is no {rule['type']}"]
    if rule["type"] == "array":
        return [fault for i, one in enumerate(value) for fault in faults(one, rule["items"], f"{place}[{i}]")]
    if rule["type"] != "object":
        return []
    known, more = rule.get("properties", {}), rule["additionalProperties"]
    found = [f"{place}.{name}: missing" for name in rule.get("required", ()) if name not in value]
    for name, one in value.items():
        if name in known or more is not False:
            found += faults(one, known.get(name, more), f"{place}.{name}")
        else:
            found.append(f"{place}.{name}: unknown")
    return found


def test_the_file_is_what_the_records_say() -> None:
    assert PATH.read_text(encoding="utf-8") == schema_text(), "run: python -m training.evaluation.schema"


@pytest.fixture(scope="module")
def report(engine: Engine) -> dict[str, Any]:
    evaluation = small.run(engine)
    read: dict[str, Any] = json.loads(small.report(engine, evaluation).to_json())
    return read


def test_a_report_keeps_to_it(report: dict[str, Any]) -> None:
    assert faults(report, RULES) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda report: report["clean"].pop("accuracy"), "report.clean.accuracy: missing"),
        (lambda report: report["data"].update(more=1), "report.data.more: unknown"),
        (lambda report: report.update(publishable=1), "report.publishable: 1 is no boolean"),
        (lambda report: report["attacks"][0].update(images=0.5), "report.attacks[0].images: 0.5 is no integer"),
        (lambda report: report["attacks"][0].update(eps="x"), "report.attacks[0].eps: 'x' is no number"),
        (lambda report: report.update(format=99), "report.format: 99"),
    ],
    ids=["missing", "unknown", "flag", "whole", "either", "format"],
)
def test_what_does_not_keep_to_it_is_told(
    report: dict[str, Any], spoil: Callable[[dict[str, Any]], None], fault: str
) -> None:
    other = copy.deepcopy(report)
    spoil(other)
    assert faults(other, RULES) == [fault]
