from __future__ import annotations

import json

import jsonschema
import pytest
from hand_built import REPORT

from normcheck.analysis.rules import RULES
from normcheck.arithmetic.formats import FORMATS
from normcheck.arithmetic.orders import ORDERS
from normcheck.layers.distributions import DISTRIBUTIONS
from normcheck.norms.catalogue import aliases, catalogue, notes
from normcheck.norms.table import NORMS
from normcheck.render import json_report

KINDS = {
    "formats": [form.name for form in FORMATS],
    "norms": list(NORMS),
    "implementations": [*catalogue(), *(alias.name for alias in aliases()), *(note.name for note in notes())],
    "orders": list(ORDERS),
    "distributions": list(DISTRIBUTIONS),
    "rules": [rule.code for rule in RULES],
}
ALL = [(kind, name) for kind, names in KINDS.items() for name in names]


def strictly(text):
    def fail(token):
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=fail)


@pytest.mark.parametrize("width", ["60", "80", "200"])
@pytest.mark.parametrize("kind", KINDS)
def test_lists_name_everything_and_keep_to_the_width(normcheck, monkeypatch, kind, width):
    monkeypatch.setenv("COLUMNS", width)
    outcome = normcheck(kind)
    assert (outcome.code, outcome.err) == (0, "")
    assert max(map(len, outcome.out.splitlines())) <= int(width)
    words = outcome.out.split()
    assert [name for name in KINDS[kind] if name not in words] == []


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_json_too(normcheck, kind):
    assert [entry["name"] for entry in strictly(normcheck(kind, "--format", "json").out)] == KINDS[kind]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_everything_has_a_page(normcheck, kind, name):
    text = normcheck(kind, name).out
    assert text.split("\n", 1)[0].split() == ["name", name]
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("kind", KINDS)
def test_pages_and_lists_hold_the_same_json(normcheck, kind):
    step = 1 + len(KINDS[kind]) // 40  # of the longest list, some of each part
    entries = strictly(normcheck(kind, "--format", "json").out)[::step]
    assert [strictly(normcheck(kind, name, "--format", "json").out) for name in KINDS[kind][::step]] == entries


def test_a_format_is_found_by_any_of_its_names(normcheck):
    assert normcheck("formats", "half").out == normcheck("formats", "e5m10").out == normcheck("formats", "fp16").out


def test_the_page_of_a_format_has_its_exact_figures(normcheck):
    page = strictly(normcheck("formats", "float8_e4m3fn", "--format", "json").out)
    assert (page["max_finite"], page["overflow_threshold"], page["infinities"]) == (448.0, 464.0, False)
    text = normcheck("formats", "fp16").out
    assert "65504" in text
    assert "65520" in text


def test_a_users_format_has_a_page(normcheck):
    assert strictly(normcheck("formats", "e6m9", "--format", "json").out)["bits"] == 16


def test_the_page_of_a_norm_has_its_formula(normcheck):
    assert "sqrt(mean(c^2) + eps)" in normcheck("norms", "rms").out
    assert strictly(normcheck("norms", "batch-l1", "--format", "json").out)["eps_on"] == "statistic"


def test_the_page_of_an_implementation_has_every_step(normcheck):
    page = strictly(normcheck("implementations", "wide-sum", "--format", "json").out)
    assert (page["sum"], page["product"], page["order"]) == ("wide", "io", "lanes(32)")


def test_the_page_of_a_distribution_has_its_parameters(normcheck):
    page = strictly(normcheck("distributions", "student-t", "--format", "json").out)
    assert page["usage"] == "student-t(df=4)"
    assert page["parameters"][0]["name"] == "df"


def test_a_rule_is_found_by_its_code_in_any_case_and_by_its_slug(normcheck):
    page = normcheck("rules", "NC102").out
    assert page == normcheck("rules", "nc102").out == normcheck("rules", "silent-collapse").out
    assert "docs/rules.md#nc102-silent-collapse" in page


def test_distributions_of_scipy_have_pages_too(normcheck):
    assert strictly(normcheck("distributions", "gamma(a=2)", "--format", "json").out)["name"] == "gamma"


def test_the_schema_is_printed_and_holds_for_the_report(normcheck):
    outcome = normcheck("schema")
    assert outcome.code == 0
    jsonschema.validate(json.loads(json_report.render(REPORT)), strictly(outcome.out))
