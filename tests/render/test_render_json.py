from __future__ import annotations

import dataclasses
import json
import math
import re

import msgspec
import numpy as np
import pytest
from hand_built import COLLAPSED, EMPTY, REPORT
from hand_built_model import BEYOND, MODEL

from normcheck.render import json_report, jsonl


def strictly(text):
    def fail(token):
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=fail)


def same(a, b):
    """Equality in which NaN equals NaN and an int is no float."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, type(a)) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and a == b


def keys(cls):
    return [field.name for field in dataclasses.fields(cls)]


def test_json_is_strict_and_figures_that_are_not_finite_are_strings():
    result = strictly(json_report.render(REPORT))["results"][2]
    assert result["steps"][2]["lost_mass"] == "inf"
    assert result["steps"][4]["max_abs"] == "nan"
    assert strictly(json_report.render(REPORT))["results"][4]["headroom"]["overflow_bits"] == "-inf"
    assert result["steps"][3]["lost_mass"] is None


def test_keys_come_in_the_order_of_the_fields():
    report = strictly(json_report.render(REPORT))
    assert list(report) == keys(type(REPORT))
    assert list(report["results"][2]) == keys(type(COLLAPSED))
    assert list(report["results"][2]["steps"][0]) == keys(type(COLLAPSED.steps[0]))
    assert list(report["results"][2]["deviation"]) == keys(type(COLLAPSED.deviation))


def test_reading_gives_back_the_report():
    back = json_report.from_json(json_report.render(REPORT))
    settings = {**REPORT.settings, "limit": "inf"}  # settings have no types to restore
    expected = dataclasses.asdict(dataclasses.replace(REPORT, settings=settings))
    assert same(dataclasses.asdict(back), expected)
    assert json_report.render(back) == json_report.render(REPORT)


def test_reading_gives_back_a_model():
    back = json_report.from_json(json_report.render(MODEL))
    assert same(dataclasses.asdict(back), dataclasses.asdict(MODEL))
    assert BEYOND in {result.parameters for result in back.results}
    assert {finding.precision for finding in back.findings} == {None, "fp16"}
    assert [result.asked for result in back.results] == [result.asked for result in MODEL.results]


def test_reading_fills_in_what_earlier_reports_did_not_have():
    report = strictly(json_report.render(REPORT))
    for field in ("layers", "advice", "unreadable"):
        del report[field]
    for field in ("asked", "parameters"):
        del report["results"][0][field]
    assert json_report.render(json_report.from_json(json.dumps(report))) == json_report.render(REPORT)


def test_reading_allows_fields_of_later_versions():
    report = strictly(json_report.render(REPORT))
    report["results"][0]["invented"] = [1]
    assert json_report.render(json_report.from_json(json.dumps(report))) == json_report.render(REPORT)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        ('{"format": true}', r"\$.format"),
        ('{"format": 1, "x": ' + 10**5 * "[", "recursion"),
        (b'{"format": 1, "command": "\xff"}', "can't decode byte"),
        ('{"tool": {"name": 3, "version": ""}}', r"\$.tool.name"),
    ],
)
def test_reading_anything_else_says_where_it_is_wrong(text, where):
    with pytest.raises(ValueError, match=f"not a normcheck report of format 1.*{where}"):
        json_report.from_json(text)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (2, "a report of format 2, newer than what this version of normcheck reads (1): update normcheck"),
        (0, "a report of format 0, older than what this version of normcheck reads (1): write the report again"),
    ],
)
def test_reading_another_format_says_what_to_do(other, told):
    report = {**strictly(json_report.render(REPORT)), "format": other}
    for text in (json.dumps(report), json.dumps({"results": "changed", "format": other})):
        with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
            json_report.from_json(text)


def test_every_digit_survives():
    step = dataclasses.replace(COLLAPSED.steps[0], max_abs=0.1 + 0.2, min_abs=5e-324, operations=2**63 - 1)
    report = dataclasses.replace(REPORT, results=(dataclasses.replace(COLLAPSED, steps=(step,)),))
    back = json_report.from_json(json_report.render(report)).results[0].steps[0]
    assert (back.max_abs, back.min_abs, back.operations) == (0.1 + 0.2, 5e-324, 2**63 - 1)


def test_numbers_of_numpy_are_numbers():
    plain = json_report.to_plain({"a": np.float64("nan"), "b": np.int64(3), "c": np.float32(0.5), "d": np.bool_(1)})
    assert same(plain, {"a": "nan", "b": 3, "c": 0.5, "d": True})


def test_what_is_no_data_is_refused():
    with pytest.raises(TypeError):
        json_report.to_plain({"a": object()})


def test_lines_are_results_then_findings_then_one_summary():
    lines = [strictly(line) for line in jsonl.render(REPORT).splitlines()]
    assert [line["type"] for line in lines] == ["result"] * 5 + ["finding"] * 6 + ["summary"]
    assert all(next(iter(line)) == "type" for line in lines)


def test_lines_of_a_model_hold_its_layers_and_advice_too():
    types = [strictly(line)["type"] for line in jsonl.render(MODEL).splitlines()]
    many = {"layer": MODEL.layers, "result": MODEL.results, "finding": MODEL.findings, "advice": MODEL.advice}
    assert types == [kind for kind, items in many.items() for _ in items] + ["summary"]
    assert all(many.values())


@pytest.mark.parametrize("report", [REPORT, MODEL])
def test_lines_hold_what_the_report_holds(report):
    kinds = {"layer": [], "result": [], "finding": [], "advice": [], "summary": []}
    for line in map(strictly, jsonl.render(report).splitlines()):
        kinds[line.pop("type")].append(line)
    parts = {"layers": "layer", "results": "result", "findings": "finding", "advice": "advice"}
    together = {**kinds["summary"][0], **{field: kinds[kind] for field, kind in parts.items()}}
    assert together == strictly(json_report.render(report))


def test_lines_of_an_empty_report_are_the_summary():
    (line,) = jsonl.render(EMPTY).splitlines()
    assert strictly(line)["type"] == "summary"


def test_names_that_are_not_ascii_survive():
    report = dataclasses.replace(REPORT, results=(dataclasses.replace(COLLAPSED, layer="σ\n\x1b[2J"),))
    assert json_report.from_json(json_report.render(report)).results[0].layer == "σ\n\x1b[2J"


def test_names_that_are_no_unicode_are_escaped():
    hostile = "caf\udce9.pt"  # how Python spells a file's name whose bytes are no UTF-8
    layers = (dataclasses.replace(MODEL.layers[0], file=hostile),)
    report = dataclasses.replace(MODEL, layers=layers, settings={"models": [hostile], hostile: 1})
    plain = strictly(json_report.render(report))
    assert plain["layers"][0]["file"] == "caf\\udce9.pt"
    assert plain["settings"] == {"models": ["caf\\udce9.pt"], "caf\\udce9.pt": 1}
    assert strictly(jsonl.render(report).splitlines()[0])["file"] == "caf\\udce9.pt"


def test_text_is_the_same_each_time():
    again = msgspec.json.decode(msgspec.json.encode(json_report.to_plain(REPORT)))
    assert json_report.dumps(again) == json_report.render(REPORT)
