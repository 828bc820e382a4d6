"""No name of a layer, a file or anything else gets to be more than text, in any output."""

from __future__ import annotations

import dataclasses
import json
import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import junitparser
import pytest
from hand_built_diff import DIFF
from hand_built_model import MODEL, finding, of_layer
from markdown_it import MarkdownIt

from normcheck.render import github, html, json_report, jsonl, junit, markdown, sarif, table
from normcheck.results import Skipped

NAMES = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "entities": "&lt;b&gt; &amp; &#60;",
    "command": "x\n::error title=owned::owned\n",
    "old command": "##[error]owned ##[group]",
    "blank command": "  ::stop-commands::token",
    "xml": "\"'<a b=\"c\">&</testsuite>",
    "cdata": "]]> <![CDATA[ ]]> <!-- -->",
    "control": "a\x00b\x01c\x08d\x0be\x0cf\x1fg\x7fh\x85i\ufffej\uffff",
    "ansi": "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "long": "x" * 10_000,
    "long words": "a " * 5_000,
    "bidi": "\N{RIGHT-TO-LEFT OVERRIDE}txt.pt\N{POP DIRECTIONAL FORMATTING}\u2067\N{RIGHT-TO-LEFT MARK}",
    "surrogate": "caf\udce9 \ud800 \udfff",
    "line feeds": "a\nb\r\nc\u2028d\u2029e",
    "null": "\x00",
    "blank": "   ",
    "markdown": "# h *b* _i_ [l](https://evil.example) ![p](https://evil.example/p.png) | c | `k` ~~s~~ <https://evil.example>",
    "links": "https://evil.example www.evil.example evil@evil.example @everyone #1 org/repo#2 GH-3",
    "backticks": "`` ` ``` `````",
    "fence": "```\n<b>out</b>\n```` ~~~",
    "pipes": "a\\|b|c\\\\|d",
    "block": "\n\n---\n\n# owned\n\n| a | b |\n| --- | --- |\n",
    "list": "- owned",
    "comment": "<!--",
    "percent": "%0A::error::owned %25 %3A",
    "template": "{{ 7 * 7 }} {% raw %} ${{ github.token }}",
    "attachment": "[[ATTACHMENT|/etc/passwd]]",
}  # fmt: skip
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Control characters but tab and line feed, marks of direction, separators, surrogates, and what is no character."""

READER = MarkdownIt("gfm-like", {"linkify": False})


def named(name):
    """A report in which everything that a user, or a file, may name has that name."""
    error = finding("NC102", "error", name, f"in {name}: bad", f"mend {name}", step="square")
    layers = (dataclasses.replace(MODEL.layers[0], name=name, file=name, aliases=(name,), how=name),)
    advice = dataclasses.replace(MODEL.advice[0], title=name, layers=(name,), snippet=f"{name}\n#", evidence=name)
    of_input = dataclasses.replace(MODEL.results[0].input, source=name)
    changes = tuple(dataclasses.replace(change, layer=name, message=name) for change in DIFF.comparison.regressions)
    return dataclasses.replace(
        MODEL,
        settings={"models": [name, "other"], name: name},
        results=(of_layer(name, verdict="unsafe", input=of_input),),
        findings=(error, dataclasses.replace(error, precision=None, severity="note", rule="NC401")),
        skipped=(Skipped(name=f"{name}.1", reason=name), Skipped(name=f"{name}.2", reason=name)),
        unreadable=(Skipped(name=name, reason=name),),
        layers=layers,
        advice=(advice,),
        comparison=dataclasses.replace(
            DIFF.comparison, old=name, only_old=(name,), only_new=(name,), regressions=changes, improvements=changes
        ),
        summary=dataclasses.replace(MODEL.summary, findings=dataclasses.replace(MODEL.summary.findings, warning=0)),
    )


class Elements(HTMLParser):
    """The elements of a page, each with the names of its attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, *(name for name, _ in attributes)))


REPORTS = pytest.mark.parametrize("report", [pytest.param(named(name), id=kind) for kind, name in NAMES.items()])
TEXTS = {
    "table": lambda report: table.render(report, width=80, with_steps=True),
    "diff": lambda report: table.render(dataclasses.replace(report, command="diff"), width=80),
    "markdown": markdown.render,
    "github": github.render,
    "junit": junit.render,
    "sarif": sarif.render,
    "html": html.render,
}


@pytest.mark.parametrize("output", TEXTS)
@REPORTS
def test_text_holds_no_control_character_and_turns_no_line_around(output, report):
    text = TEXTS[output](report)
    assert not UNSEEN.search(text)
    text.encode()


@pytest.mark.parametrize("render", [json_report.render, jsonl.render], ids=["json", "jsonl"])
@REPORTS
def test_json_is_strict_and_gives_back_what_is_unicode(render, report):
    text = render(report)
    text.encode()
    name = report.layers[0].name.encode("utf-8", "backslashreplace").decode()
    lines = [text] if render is json_report.render else text.split("\n")[:-1]
    first = json.loads(lines[0])
    assert name == (first["layers"][0]["name"] if "layers" in first else first["name"])


@REPORTS
def test_the_page_in_markdown_has_no_element_but_its_own(report):
    page = READER.render(markdown.render(report))
    assert not re.search(r"<(?!/?(?:h2|h3|p|ul|li|strong|br|code|pre|table|thead|tbody|tr|th|td)\b)", page)
    assert not re.search(r"<[^>]*\s(?!class=\"language-python\")[a-z]+=", page)
    assert page.count("<h2>") == 1


@REPORTS
def test_the_page_in_markdown_has_the_tables_and_headings_of_any_other(report):
    plain, page = (READER.render(markdown.render(item)) for item in (named("plain"), report))
    for tag in ("h3", "table", "tr", "td", "th", "li", "ul", "pre"):
        assert page.count(f"<{tag}>") == plain.count(f"<{tag}>")


@REPORTS
def test_the_page_in_html_has_the_elements_of_any_other(report):
    assert Elements(html.render(report)).found == Elements(html.render(named("plain"))).found


@REPORTS
def test_nothing_that_github_links_stands_outside_of_code(report):
    page = READER.render(markdown.render(report))
    outside = unescape(re.sub(r"<[^>]*>", "", re.sub(r"<code.*?</code>", "", page, flags=re.DOTALL)))
    assert not re.search(r"@\w|#\d|://|www\.|GH-\d|\$\{\{", outside)


@REPORTS
def test_every_line_for_github_is_a_command_of_ours_or_the_verdict(report):
    *lines, verdict = github.render(report).split("\n")[:-1]
    assert all(
        re.match(r"::(error|warning|notice) title=(Unreadable|NC102|NC401|Not analysed)", line) for line in lines
    )
    assert len(lines) == 4
    assert verdict.startswith("normcheck analyze failed: ")
    assert not any("##[" in line for line in (*lines, verdict))


@REPORTS
def test_sarif_is_json_with_the_results_of_the_report(report):
    (run,) = json.loads(sarif.render(report))["runs"]
    assert [result["ruleId"] for result in run["results"]] == ["NC102", "NC401"]
    uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]}
    assert all(re.fullmatch(r"(?:[\w./~:-]|%[0-9A-F]{2})+", uri) for uri in uris)


@REPORTS
def test_junit_is_well_formed_and_has_the_cases_of_the_report(report):
    text = junit.render(report).encode()
    root = ET.fromstring(text)  # noqa: S314 - our own output: that it can be read is what is tested
    plain = ET.fromstring(junit.render(named("plain")).encode())  # noqa: S314 - the same
    assert [element.tag for element in root.iter()] == [element.tag for element in plain.iter()]
    assert junitparser.JUnitXml.fromstring(text).failures == 1
    assert b"[[ATTACHMENT" not in text
