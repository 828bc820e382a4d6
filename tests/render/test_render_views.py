"""The view that nobody asked for: outputs that list findings say that its notes are of it."""

from __future__ import annotations

import dataclasses
import json
from xml.etree import ElementTree as ET

import pytest
from hand_built import REPORT
from hand_built_model import MODEL
from html_pages import Page

from normcheck.render import github, html, junit, markdown, sarif
from normcheck.render.views import condition, unasked, with_conditions

CONDITION = "if your runtime computes norms in fp16 itself (pure)"


def of_view(report):
    is_unasked = unasked(report)
    return [finding for finding in report.findings if is_unasked(finding)]


def test_findings_of_the_view_are_those_on_results_that_nobody_asked_for():
    assert {finding.implementation for finding in of_view(MODEL)} == {"pure"}
    assert all(finding.severity == "note" for finding in of_view(MODEL))
    assert of_view(REPORT) == []


def test_asked_for_the_same_findings_are_like_any_other():
    results = tuple(dataclasses.replace(result, asked=True) for result in MODEL.results)
    asked = dataclasses.replace(MODEL, results=results)
    assert with_conditions(asked) == asked
    for render in (markdown.render, github.render, html.render, junit.render, sarif.render):
        assert "if your runtime" not in render(asked)


def test_a_condition_names_every_precision_once():
    findings = [dataclasses.replace(of_view(MODEL)[0], precision=name) for name in ("fp16", "bf16", "fp16")]
    assert condition(findings) == "if your runtime computes norms in fp16 or bf16 itself (pure)"


def test_markdown_has_them_apart_under_one_heading():
    before, heading, after = markdown.render(MODEL).partition(f"### Notes {CONDITION}: {len(of_view(MODEL))}\n")
    assert heading
    assert "fp16 pure:" not in before
    assert "fp16 pure:" in after


def test_github_has_one_annotation_for_all_of_them():
    of_it = [line for line in github.render(MODEL).splitlines() if " pure" in line or "(pure)" in line]
    assert of_it == [f"::notice title=Only {CONDITION},file=resnet.pt::NC102: 7 layers"]


def test_a_page_has_them_last_under_one_heading():
    before, heading, after = Page(html.render(MODEL)).text.partition(f"Only {CONDITION}")
    assert heading
    assert "fp16 pure" not in before
    assert "fp16 pure" in after


@pytest.mark.parametrize("one_by_one", ["junit", "sarif"])
def test_elsewhere_each_of_them_says_so(one_by_one):
    if one_by_one == "junit":
        cases = ET.fromstring(junit.render(MODEL)).iter("system-out")  # noqa: S314  # it is our own text
        lines = [line for case in cases for line in (case.text or "").splitlines() if line.startswith("note NC102")]
    else:
        results = json.loads(sarif.render(MODEL))["runs"][0]["results"]
        lines = [item["message"]["text"].partition(". Fix")[0] for item in results if item["ruleId"] == "NC102"]
    assert len(lines) == len(of_view(MODEL))
    assert all(line.endswith(f", {CONDITION}") for line in lines)
