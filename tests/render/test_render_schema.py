from __future__ import annotations

import copy
import dataclasses
import json

import jsonschema
import pytest
from hand_built import EMPTY, REPORT
from hand_built_model import MODEL

from normcheck import results
from normcheck.render import json_report, schema

VALIDATOR = jsonschema.Draft202012Validator(schema.schema())


def plain(report=REPORT):
    return json.loads(json_report.render(report))


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json.loads(schema.render()))


@pytest.mark.parametrize("report", [REPORT, EMPTY, MODEL])
def test_reports_validate(report):
    VALIDATOR.validate(json.loads(json_report.render(report)))


def test_fields_of_later_versions_validate():
    report = plain()
    report["results"][0]["invented"] = 1
    VALIDATOR.validate(report)


def broken(report, path, value):
    *parents, last = path
    for key in parents:
        report = report[key]
    if value is KeyError:
        del report[last]
    else:
        report[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], 2),
        (["format"], KeyError),
        (["command"], "guess"),
        (["results", 0, "eps"], "infinity"),
        (["results", 0, "eps"], "NaN"),
        (["results", 0, "eps"], None),
        (["results", 0, "verdict"], "fine"),
        (["results", 0, "safe_scale"], [1.0]),
        (["results", 0, "safe_scale"], [1.0, "large"]),
        (["results", 0, "rows", "total"], 1.5),
        (["results", 0, "rows", "total"], "inf"),
        (["results", 2, "steps", 0, "overflow"], KeyError),
        (["results", 2, "steps", 0, "lost_mass"], "none"),
        (["findings", 0, "severity"], "fatal"),
    ],
)
def test_wrong_reports_do_not(path, value):
    report = copy.deepcopy(plain())
    broken(report, path, value)
    assert not VALIDATOR.is_valid(report)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["layers"], KeyError),
        (["layers", 0, "name"], None),
        (["layers", 0, "eps_source"], "guess"),
        (["layers", 0, "sure"], "yes"),
        (["advice", 0, "layers"], "stem.bn"),
        (["unreadable", 0, "reason"], None),
        (["results", 0, "asked"], None),
        (["results", 0, "parameters"], {}),
        (["results", 0, "parameters", "beyond"], "inf"),
        (["findings", 0, "precision"], 16),
    ],
)
def test_wrong_reports_on_models_do_not(path, value):
    report = plain(MODEL)
    VALIDATOR.validate(report)
    broken(report, path, value)
    assert not VALIDATOR.is_valid(report)


@pytest.mark.parametrize("value", [0, 1.5, "inf", "-inf", "nan", [0, "inf"]])
def test_figures_may_be_numbers_or_the_three_strings(value):
    report = plain()
    field = "safe_scale" if isinstance(value, list) else "eps"
    report["results"][0][field] = value
    VALIDATOR.validate(report)


def classes():
    return {c.__name__: c for c in vars(results).values() if dataclasses.is_dataclass(c)}


def test_every_class_is_described_in_its_own_words_and_all_its_fields_are_required():
    definitions = schema.schema()["$defs"]
    assert set(definitions) == {*classes(), "Number"}
    for name, cls in classes().items():
        assert definitions[name]["required"] == [field.name for field in dataclasses.fields(cls)]
        assert " ".join(definitions[name]["description"].split()) == " ".join(cls.__doc__.split())


def test_every_class_says_what_it_is():
    assert all(cls.__doc__ and not cls.__doc__.startswith(f"{name}(") for name, cls in classes().items())
