"""Readers of every output: each checks what it reads by that format's own rules, and counts the findings in it."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from typing import NamedTuple
from xml.etree import ElementTree as ET

import jsonschema
import junitparser


class Counts(NamedTuple):
    """How many findings of each severity."""

    error: int
    warning: int
    note: int


# ---------------------------------------------------------------------------------------------- valid or not


def strict(text):
    """Return JSON that holds no NaN and no infinity."""

    def refuse(token):
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


def validated(document, schema):
    jsonschema.validators.validator_for(schema)(schema).validate(document)
    return document


class Page(HTMLParser):
    """An HTML page: its elements with their attributes, the items of its counts, and its data."""

    VOID = frozenset({"meta", "link", "input", "br", "hr", "rect", "circle", "path", "col"})

    def __init__(self, text):
        super().__init__()
        self.elements, self.data, self.counts, self.stack = Counter(), {}, [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.elements[tag, tuple(sorted(name for name, _ in attrs))] += 1
        if tag not in self.VOID:
            self.stack.append((tag, dict(attrs)))
        if tag == "li" and self.inside("ul", "counts"):
            self.counts.append("")

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.stack.pop()[0] == tag

    def handle_data(self, data):
        if self.counts and self.inside("ul", "counts") and self.stack[-1][0] != "ul":
            self.counts[-1] += data
        if self.stack and self.stack[-1][0] == "script" and "id" in self.stack[-1][1]:
            self.data.setdefault(self.stack[-1][1]["id"], []).append(data)

    def inside(self, tag, name):
        return any(each == tag and attributes.get("class") == name for each, attributes in self.stack)


def html_page(text):
    """Return a page whose data has been read as strict JSON, line by line."""
    page = Page(text)
    lines = [line for parts in page.data.values() for line in "".join(parts).splitlines() if line.strip()]
    assert lines
    for line in lines:
        strict(line)
    return page


def junit_cases(text):
    """Return the test cases by classname and name, of which no two are the same; the totals are right."""
    root = ET.fromstring(text)  # noqa: S314 - our own XML
    for part in (root, *root.iter("testsuite")):
        cases = list(part.iter("testcase"))
        assert int(part.get("tests")) == len(cases)
        for total, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(part.get(total)) == sum(case.find(tag) is not None for case in cases)
    cases = [case for suite in junitparser.JUnitXml.fromstring(text.encode()) for case in suite]
    by_name = {(case.classname, case.name): case for case in cases}
    assert len(by_name) == len(cases)
    return by_name


def markdown_table(text):
    """Return the first table of a page as a dict from titles to figures."""
    titles, _, figures = [line for line in text.splitlines() if line.startswith("|")][:3]
    return dict(zip(cells(titles), map(int, cells(figures)), strict=True))


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


# ------------------------------------------------------------------------------------------- what each one counts


def counts_in_json(text):
    report = strict(text)
    found = Counter(finding["severity"] for finding in report["findings"])
    counts = Counts(**report["summary"]["findings"])
    assert counts == Counts(found["error"], found["warning"], found["note"])
    return counts


def counts_in_sarif(text):
    (run,) = strict(text)["runs"]
    found = Counter(result["level"] for result in run["results"])
    counts = Counts(found["error"], found["warning"], found["note"])
    assert run["properties"]["summary"]["findings"] == counts._asdict()
    return counts


def counts_in_junit(text):
    found = Counter()
    for item in ET.fromstring(text).iter("property"):  # noqa: S314 - our own XML
        if item.get("name").startswith("findings."):
            found[item.get("name").partition(".")[2]] += int(item.get("value"))
    told = Counter()
    for case in ET.fromstring(text).iter("testcase"):  # noqa: S314 - our own XML
        lines = "\n".join(part.text or "" for part in case if part.tag in ("failure", "system-out"))
        told.update(re.findall(r"^(error|warning|note) NC\d+ ", lines, re.MULTILINE))
    assert {**told} == {severity: many for severity, many in found.items() if many}
    return Counts(found["error"], found["warning"], found["note"])


def counts_in_markdown(text):
    table = markdown_table(text)
    return Counts(table["errors"], table["warnings"], table["notes"])


def counts_in_html(text):
    found = Counter()
    for item in html_page(text).counts:
        number, _, what = item.partition(" ")
        found[what.removesuffix("s")] += int(number)
    return Counts(found["error"], found["warning"], found["note"])


def counts_in_github(text):
    last = text.splitlines()[-1]
    return Counts(*(int(re.search(rf"(\d+) {severity}s?\b", last)[1]) for severity in Counts._fields))


COUNTERS = {
    "json": counts_in_json,
    "sarif": counts_in_sarif,
    "junit": counts_in_junit,
    "html": counts_in_html,
    "markdown": counts_in_markdown,
}
