"""`report.schema.json`: what may stand in a `report.json`, made of the records in `results.py`.

python -m training.evaluation.schema    # writes the file anew
"""

import ast
import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from training.checkpoint import write_atomically
from training.evaluation.results import FORMAT, Report

__all__ = ["PATH", "main", "schema", "schema_text"]

PATH = Path(__file__).with_name("report.schema.json")

_PLAIN = {str: "string", float: "number", int: "integer", bool: "boolean"}


def schema() -> dict[str, Any]:
    """A JSON schema, draft 2020-12; every record is a definition, described by its own words."""
    definitions: dict[str, Any] = {}
    top = _record(Report, definitions)
    top["properties"]["format"] = {"const": FORMAT}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "report.json of advsentry-train evaluate",
        **top,
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """The content of the file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes the file."""
    write_atomically(PATH, schema_text())


def _record(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, words = typing.get_type_hints(kind), _words_of_fields(kind)
    properties = {
        field.name: _of(hints[field.name], definitions)
        | ({"description": words[field.name]} if field.name in words else {})
        for field in dataclasses.fields(kind)
    }
    return {
        "description": inspect.cleandoc(kind.__doc__ or ""),
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return {"anyOf": [_of(one, definitions) for one in inner]}
    if hint is type(None):
        return {"type": "null"}
    if origin is tuple:
        return {"type": "array", "items": _of(inner[0], definitions)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _of(inner[1], definitions)}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # its place, should it hold itself
            definitions[hint.__name__] = _record(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    return {"type": _PLAIN[hint]}


def _words_of_fields(kind: type) -> dict[str, str]:
    """The string below each field of a class body."""
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(kind)).body[0]).body
    words = {}
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            words[field.target.id] = inspect.cleandoc(ast.literal_eval(below.value))
    return words


if __name__ == "__main__":
    main()
