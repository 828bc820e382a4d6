"""Every rule fires on its bad example and not on its good one, through the command line that users paste."""

from __future__ import annotations

import json
import re
import shlex
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from normcheck.analysis.rules import RULES
from normcheck.analysis.thresholds import DEFAULTS
from normcheck.cli.main import run

DATA = Path(__file__).parent.parent.parent / "data"
CODES = [rule.code for rule in RULES]


@pytest.fixture
def beside_data(tmp_path, monkeypatch):
    """An empty directory with `data` in it, where examples are run."""
    (tmp_path / "data").symlink_to(DATA)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report_of(example, folder):
    """Run an example: Python's one-liner in this process, then normcheck, whose report is returned."""
    *before, command = map(shlex.split, example.split(" && "))
    for words in before:
        assert words[:2] == ["python", "-c"]
        exec(words[2], {})  # noqa: S102  # an example of ours
    assert command[0] == "normcheck"
    path = folder / "report.json"
    assert run([*command[1:], "--json", str(path), "--quiet", "--jobs", "1"]) in (0, 1, 3)
    return json.loads(path.read_text(encoding="utf-8"))


def fired(report):
    return {finding["rule"] for finding in report["findings"]}


@pytest.mark.parametrize("rule", RULES, ids=CODES)
def test_a_rule_fires_on_its_bad_example_and_not_on_its_good_one(rule, beside_data, capfd):
    bad, good = report_of(rule.bad, beside_data), report_of(rule.good, beside_data)
    assert rule.code in fired(bad)
    assert rule.code not in fired(good)
    assert good["results"], "an example on which nothing is run shows nothing"
    assert capfd.readouterr().out  # the page that a user sees


@pytest.mark.parametrize("rule", RULES, ids=CODES)
def test_two_examples_differ_in_one_thing(rule):
    bad, good = re.split(r" (?=--)|, ", rule.bad), re.split(r" (?=--)|, ", rule.good)
    changes = [change for change in SequenceMatcher(None, bad, good).get_opcodes() if change[0] != "equal"]
    assert len(changes) == 1
    (_, a, b, c, d) = changes[0]
    assert max(b - a, d - c) == 1


@pytest.mark.parametrize("rule", RULES, ids=CODES)
def test_the_examples_can_be_pasted_from_the_page_of_a_rule(rule, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["rules", rule.code]) == 0
    page = capfd.readouterr().out
    assert max(map(len, page.splitlines())) <= 80
    shown = re.search(r"^fires on (.*)^silent on(.*)^thresholds", page, re.DOTALL | re.MULTILINE)
    for text, command in zip(shown.groups(), (rule.bad, rule.good), strict=True):
        pasted = [" ".join(word.split()) for word in shlex.split(text.replace("\\\n", " "))]
        assert pasted == shlex.split(command)


def test_the_page_of_a_rule_says_all_of_it(capfd):
    assert run(["rules", "NC302", "--format", "json"]) == 0
    page = json.loads(capfd.readouterr().out)
    rule = next(rule for rule in RULES if rule.code == "NC302")
    assert (page["detects"], page["why"], page["fires_on"], page["silent_on"]) == (
        rule.detects, rule.why, rule.bad, rule.good,
    )  # fmt: skip
    assert page["published"] == {"text": rule.published.text, "url": rule.published.url}
    assert page["thresholds"] == {"lost_mass_warning": 0.01, "lost_mass_error": 0.1}
    assert page["measures"] == ["steps.STEP.lost_mass"]


FIGURES = {name for rule in RULES for name in rule.figures}
UNDOCUMENTED_PATHS = {"steps.count.error"}
"""Measures that are no field of a result: docs/rules.md says what they are."""


def figure_at(result, path):
    """The figure of a result at a measure's name."""
    first, *rest = path.split(".")
    if first == "steps":
        step, *rest = rest
        value = next(s for s in result["steps"] if s["step"] == step)
    else:
        value = result[first]
    for part in rest:
        value = value[part]
    return value


def pairs_of(report):
    """The findings of results that have a measure, each with its result."""
    keys = ("layer", "norm", "precision", "implementation", "params", "mode")
    results = {tuple(result[key] for key in keys): result for result in report["results"]}
    return [(f, results[tuple(f[key] for key in keys)]) for f in report["findings"] if f["measure"]]


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.figures], ids=lambda rule: rule.code)
def test_a_measure_is_a_figure_of_its_result_beyond_its_limit(rule, beside_data):
    pairs = [(f, result) for f, result in pairs_of(report_of(rule.bad, beside_data)) if f["rule"] == rule.code]
    assert pairs
    for finding, result in pairs:
        measure = finding["measure"]
        value = float(measure["value"])
        assert re.sub(r"^steps\.(?!count)(?!saved)[^.]+", "steps.STEP", measure["name"]) in rule.figures
        if measure["name"] not in UNDOCUMENTED_PATHS:
            assert value == abs(figure_at(result, measure["name"]))
        assert value < measure["limit"] if measure["worse"] == "lower" else value > measure["limit"]
        assert measure["unit"]


@pytest.mark.parametrize("rule", [rule for rule in RULES if not rule.figures], ids=lambda rule: rule.code)
def test_a_rule_without_figures_has_no_measure(rule, beside_data):
    found = [f for f in report_of(rule.bad, beside_data)["findings"] if f["rule"] == rule.code]
    assert found
    assert all(finding["measure"] is None for finding in found)


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_every_measure_is_documented(name):
    text = (DATA.parent / "docs" / "rules.md").read_text(encoding="utf-8")
    assert f"`{name}`" in text


def test_every_threshold_is_read_by_one_rule():
    read = [name for rule in RULES for name in rule.thresholds]
    assert sorted(read) == sorted(DEFAULTS.__dataclass_fields__)


def test_a_published_failure_has_a_link_or_is_said_to_be_unknown():
    for rule in RULES:
        text, url = rule.published.text, rule.published.url
        assert text
        if url is None:
            assert text == "none known to us", rule.code
        else:
            assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", url), rule.code


def test_what_a_rule_detects_continues_a_sentence():
    for rule in RULES:
        assert rule.detects[0].islower() or rule.detects.startswith("L2"), rule.code
        assert not rule.detects.endswith("."), rule.code
        for name in rule.thresholds:
            assert f"`{name}`" in rule.detects, (rule.code, name)
