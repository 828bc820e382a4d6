"""Reports that older versions wrote: they are read, shown and compared, and no field of theirs is gone."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
from pathlib import Path

import jsonschema
import pytest

from normcheck import results
from normcheck.analysis.compare import compare, difference
from normcheck.cli.deliver import OUTPUTS
from normcheck.render import json_report, schema, table

HERE = Path(__file__).parent
PAST = sorted((HERE / "past").glob("*.json"))
CLASSES = {c.__name__: c for c in vars(results).values() if dataclasses.is_dataclass(c)}

past = pytest.mark.parametrize("path", PAST, ids=lambda path: path.stem)


def added(cls):
    """The fields that have a default: later versions added them."""
    return {field.name: field.default for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING}


def schema_of_all_versions():
    """The schema in which fields that were added may be missing, but no other field is known."""
    made = copy.deepcopy(schema.schema())
    for name, cls in CLASSES.items():
        definition = made["$defs"][name]
        definition["required"] = [field for field in definition["required"] if field not in added(cls)]
        definition["additionalProperties"] = False
    return made


VALIDATOR = jsonschema.Draft202012Validator(schema_of_all_versions())


def test_there_are_reports_of_either_command():
    assert {json.loads(path.read_text(encoding="utf-8"))["command"] for path in PAST} == {"simulate", "analyze"}


@past
def test_no_field_was_removed_or_changed_its_type(path):
    VALIDATOR.validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [
        lambda definitions: definitions["Rows"]["properties"].pop("shrunk"),
        lambda definitions: definitions["Step"]["properties"].update(overflow={"type": "string"}),
        lambda definitions: definitions["Headroom"]["properties"].update(overflow_bits={"$ref": "#/$defs/Number"}),
        lambda definitions: definitions["Finding"]["required"].append("params"),
    ],
)
def test_a_change_that_breaks_old_reports_is_seen(change):
    made = schema_of_all_versions()
    change(made["$defs"])
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in PAST]
    assert not all(map(jsonschema.Draft202012Validator(made).is_valid, reports))


@past
def test_they_are_read_and_written_again_as_reports_of_this_version(path):
    report = json_report.from_json(path.read_bytes())
    text = json_report.render(report)
    jsonschema.Draft202012Validator(schema.schema()).validate(json.loads(text))
    assert json_report.render(json_report.from_json(text)) == text


@past
def test_what_they_say_is_kept(path):
    old = json.loads(path.read_text(encoding="utf-8"))

    def is_within(part, whole):
        if isinstance(part, dict):
            return all(key in whole and is_within(value, whole[key]) for key, value in part.items())
        if isinstance(part, list):
            return len(part) == len(whole) and all(map(is_within, part, whole))
        return part == whole

    assert is_within(old, json.loads(json_report.render(json_report.from_json(path.read_bytes()))))


@past
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_can_be_made_of_them(path, output):
    report = json_report.from_json(path.read_bytes())
    text = "".join(importlib.import_module(OUTPUTS[output]).pieces(report))
    assert text or not report.findings  # annotations of a report without findings are none


@past
@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_can_be_made_of_them(path, width):
    text = table.render(json_report.from_json(path.read_bytes()), width=width, with_steps=True)
    assert "None" not in text


@past
def test_they_are_no_different_from_themselves(path):
    report = json_report.from_json(path.read_bytes())
    found = compare(report, report, "old.json", "new.json")
    assert (found.regressions, found.improvements, found.unchanged) == ((), (), len(report.findings))


@pytest.mark.parametrize("command", ["simulate", "analyze"])
def test_they_can_be_compared_with_each_other(command):
    old, new = (
        json_report.from_json((HERE / "past" / f"2026-11-23-{command}-{which}.json").read_bytes())
        for which in ("first", "second")
    )
    assert difference(old, new, "old.json", "new.json").command == "diff"
    assert "verdict" in table.render(new)


def test_the_documents_name_the_values_that_missing_fields_take():
    page = (HERE.parent.parent / "docs" / "report-format.md").read_text(encoding="utf-8")
    telling = {
        (name, field): value
        for name, cls in CLASSES.items()
        for field, value in added(cls).items()
        if value not in (0, (), None) or value is False
    }
    assert telling
    for (_, field), value in telling.items():
        assert f"{field}`" in page.partition("## JSON lines")[0]
        assert f"`{json.dumps(value)}`" in page.partition("## JSON lines")[0]
