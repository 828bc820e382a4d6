"""The JSON Schema of the report, generated from the dataclasses in `normcheck.results`."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from normcheck.render.json_report import dumps
from normcheck.results import FORMAT, Report

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_NUMBER = {
    "description": "A number; figures that are not finite are strings, since JSON has no token for them.",
    "anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}],
}


def render() -> str:
    """Return the schema as JSON."""
    return dumps(schema())


def schema() -> dict[str, Any]:
    """Return the schema that every report of this format validates against.

    Reports are written with all fields: all are required, and none has a default. Fields that the schema does
    not name are allowed, since later versions may add some.
    """
    generated = msgspec.json.schema(Report)
    definitions = {name: _refined(part) for name, part in generated["$defs"].items()}
    return {
        "$schema": DIALECT,
        "title": f"normcheck report, format {FORMAT}",
        "$ref": generated["$ref"],
        "$defs": {**definitions, "Number": _NUMBER},
    }


def _refined(part: Any) -> Any:
    """Return a part of the schema with strict numbers, all fields required and clean descriptions."""
    if isinstance(part, list):
        return [_refined(item) for item in part]
    if not isinstance(part, dict):
        return part
    if part.get("type") == "number":
        return {"$ref": "#/$defs/Number"}
    refined = {key: _refined(value) for key, value in part.items() if key != "default"}
    if isinstance(part.get("properties"), dict):
        refined["required"] = list(part["properties"])
    if isinstance(part.get("description"), str):
        refined["description"] = inspect.cleandoc(part["description"])
    return refined
