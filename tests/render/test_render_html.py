from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import re
import tracemalloc
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from hand_built import EMPTY, REPORT
from hand_built_diff import AGAINST, DIFF, SAME
from hand_built_model import MODEL, NO_NORMS, WITH_STEPS
from hand_built_ranges import WITH_RANGES
from html_pages import Page, strictly
from large_reports import large_report

from normcheck.render import html, json_report, page_data
from normcheck.render.page_text import FIRST
from normcheck.render.places import concerns, worst_first
from normcheck.results import RuleFacts, Skipped

PAGE = files("normcheck.render") / "page"
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in PAGE.iterdir() if path.name.endswith(".js")}
STYLE = (PAGE / "page.css").read_text(encoding="utf-8")
PAST = sorted((Path(__file__).parent / "past").glob("*.json"))
REPORTS = {
    "simulate": REPORT,
    "empty": EMPTY,
    "model": MODEL,
    "steps": WITH_STEPS,
    "no norms": NO_NORMS,
    "ranges": WITH_RANGES,
    "diff": DIFF,
    "same": SAME,
    "against": AGAINST,
    "large": large_report(40),
    **{path.stem: json_report.from_json(path.read_text(encoding="utf-8")) for path in PAST},
}

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<!--<script>",
    "<img src=x onerror='window.hacked = 1'>",
    '"><svg onload="window.hacked = 1">',
    "${window.hacked = 1}",
    "{{ 7 * 7 }}{% raw %}",
    "`'\"\\",
    "&lt;b&gt;&amp;",
    "line\nfeed\ttab\x00\x1b[31m\x7f",
    "\u202egnirts\u2066\u200f\u2028\u2029\ufeff",
    "\udc80\ud800",
    "]]></script><![CDATA[",
    "javascript:window.hacked=1",
    "x" * 10_000,
)


def of_model(names):
    """A report in which everything that is text is one of the names, and so is every layer."""
    layers = tuple(dataclasses.replace(WITH_STEPS.layers[0], name=n, file=n, how=n, aliases=(n,)) for n in names)
    step = dataclasses.replace(WITH_STEPS.results[0].steps[1], step=names[0], format=names[-1])
    results = [
        dataclasses.replace(WITH_STEPS.results[0], layer=n, implementation=n, steps=(step,), asked=True) for n in names
    ]
    finding = MODEL.findings[-1]
    findings = tuple(
        dataclasses.replace(finding, layer=n, message=n, fix=n, implementation=n, step=n, rule=f"NC{i}")
        for i, n in enumerate(names)
    )
    text = names[0]
    rules = (RuleFacts(code="NC0", slug="", title=text, severity="note", why=text, fix=text, documentation=text),)
    return dataclasses.replace(
        MODEL,
        results=tuple(results),
        layers=layers,
        findings=findings,
        rules=rules,
        settings={"models": list(names), names[0]: list(names)},
        environment={names[0]: names[0]},
        skipped=tuple(Skipped(name=n, reason=n) for n in names),
        advice=tuple(dataclasses.replace(MODEL.advice[0], title=n, layers=names, snippet=n, evidence=n) for n in names),
        unreadable=(Skipped(name=names[0], reason=names[0]),),
    )


@pytest.fixture(scope="module", params=list(REPORTS))
def rendered(request):
    report = REPORTS[request.param]
    return report, Page(html.render(report))


# ------------------------------------------------------------------------------------------------ self-contained


def test_nothing_is_loaded(rendered):
    _, page = rendered
    for tag, attributes in page.elements:
        assert tag not in {"iframe", "object", "embed", "img", "base", "audio", "video", "a "}
        for name in ("src", "srcset", "data", "action", "poster", "background", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), (tag, name)
    (style,) = page.styles
    assert "@import" not in style
    assert all(target.startswith('"#') for target in re.findall(r"url\((.*?)\)", style))


def test_the_script_neither_loads_nor_evaluates_nor_parses_markup():
    for name, text in SCRIPTS.items():
        assert text.count("\n") < 400, name
        assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", text) == [], name
        assert re.findall(r"fetch|XMLHttp|import|WebSocket|\.src\b", text) == [], name
        assert re.findall(r"https?://[^\"]*", text) in ([], ["http://www.w3.org/2000/svg"]), name


def test_the_policy_allows_this_script_and_this_style_alone(rendered):
    _, page = rendered
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind, texts in (("script-src", page.scripts), ("style-src", page.styles)):
        (text,) = texts
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    assert not any(name.startswith("on") or name == "style" for _, a in page.elements for name in a)


def test_pieces_are_the_whole(rendered):
    report, _ = rendered
    assert "".join(html.pieces(report)) == html.render(report)


def test_every_id_is_there_once_and_whatever_points_to_one_finds_it(rendered):
    _, page = rendered
    ids = Counter(a["id"] for _, a in page.elements if "id" in a)
    assert set(ids.values()) == {1}
    links = {a["href"][1:] for tag, a in page.elements if tag == "a"}
    assert links <= set(ids)


# ------------------------------------------------------------------------------------------------- what it says


def test_counts_are_those_of_the_summary(rendered):
    report, page = rendered
    for severity in ("error", "warning", "note"):
        many = getattr(report.summary.findings, severity)
        assert f"{many} {severity}{'s' * (many != 1)}\n" in page.text
    assert f"{report.summary.results} result{'s' * (report.summary.results != 1)}\n" in page.text
    assert ("deselected" in page.text) == bool(report.summary.ignored)
    assert ("known already" in page.text) == bool(report.summary.known)


def test_the_verdict_counts_layers_by_their_worst_result():
    assert "unsafe in 2 of 14 layers, degraded in 3, ok in 9\n" in Page(html.render(MODEL)).text
    assert "unsafe in 2 of 5 results, degraded in 1, ok in 2\n" in Page(html.render(REPORT)).text
    assert "nothing was analysed" in Page(html.render(NO_NORMS)).text


def test_a_difference_is_judged_by_what_got_worse():
    worse, same = Page(html.render(DIFF)).text, Page(html.render(SAME)).text
    assert "worse in 8 respects, 2 gone or better, 22 unchanged\n" in worse
    assert "ok nothing got worse" in same
    assert "headroom 1.25 bits -> 0.75 bits" in worse
    assert "seed 0 → 1" in worse


def test_advice_is_there_to_be_pasted():
    tabbed = dataclasses.replace(MODEL.advice[0], snippet=MODEL.advice[0].snippet.replace("    ", "\t"))
    text = html.render(dataclasses.replace(MODEL, advice=(tabbed,)))
    (snippet,) = re.findall(r"<pre[^>]*>(.*?)</pre>", text, re.DOTALL)
    assert snippet.replace("&#34;", '"').replace("&gt;", ">").strip("\n") == MODEL.advice[0].snippet.strip("\n")


def test_a_group_of_findings_says_what_the_rule_is():
    rule = RuleFacts(
        code="NC104",
        slug="s",
        title="Beyond",
        severity="error",
        why="It breaks.",
        fix="",
        documentation="docs/rules.md",
    )
    text = Page(html.render(dataclasses.replace(MODEL, rules=(rule,)))).text
    assert "error NC104 Beyond on 2 of 14 layers\nWhy it matters It breaks.\n" in text
    assert "see docs/rules.md" in text


def test_of_many_findings_the_first_are_text_and_the_others_data():
    page = Page(html.render(MODEL))
    buttons = [a for tag, a in page.elements if tag == "button" and a.get("class") == "more"]
    (notes,) = [b for b in buttons if int(b["data-to"]) - int(b["data-from"]) == 13 - FIRST]
    lines = page.lines("findings")[int(notes["data-from"]) : int(notes["data-to"])]
    assert {line[3] for line in lines} == {"NC401"}
    assert page.text.count("eps is 1e-5 by default") == 1


# ------------------------------------------------------------------------------------------------------ the data


def test_data_is_strict_json_in_which_nothing_is_markup(rendered):
    _, page = rendered
    assert list(page.data) == ["table", "results", "layers", "findings", "changes"]
    for text in page.data.values():
        assert not set("<>&\u2028\u2029") & set(text)
        for line in text.split("\n")[:-1]:
            strictly(line)


def test_the_table_has_each_result_the_worst_first(rendered):
    report, page = rendered
    (table,) = page.lines("table")
    order = worst_first(report.results)
    assert table["count"] == len(page.lines("results")) == len(report.results)
    columns = [column["at"] for column in table["text"].values()] + list(table["figures"].values())
    assert {len(column) for column in columns} == {len(report.results)}

    def texts(name):
        return [table["text"][name]["values"][at] for at in table["text"][name]["at"]]

    for name in ("verdict", "norm", "precision", "implementation", "mode"):
        assert texts(name) == [getattr(result, name) for result in order]
    assert table["figures"]["bad"] == [result.rows.bad for result in order]
    assert table["unasked"] == [index for index, result in enumerate(order) if not result.asked]


def test_each_result_has_the_findings_about_it(rendered):
    report, page = rendered
    findings = page_data.Order(report).findings
    assert Counter(findings) == Counter(report.findings)
    for result, line in zip(worst_first(report.results), page.lines("results"), strict=True):
        assert [findings[i] for i in line["findings"]] == [f for f in findings if concerns(f, result)]


def test_each_result_finds_its_layer(rendered):
    report, page = rendered
    (table,) = page.lines("table")
    for result, place in zip(worst_first(report.results), table["layer_of"], strict=True):
        known = [layer.name for layer in report.layers]
        assert (known[place] if place >= 0 else None) == (result.layer if result.layer in known else None)


@pytest.mark.parametrize(
    ("value", "short"),
    [(0.0, 0), (-0.0, 0), (65504.0, 65500), (1.23456e-7, 1.235e-07), (math.inf, "inf"), (-math.inf, "-inf"), (12, 12)],
)
def test_figures_have_four_digits(value, short):
    assert page_data._short(value) == short
    assert page_data._short(math.nan) == "nan"
    assert page_data._short(None) is None


def test_steps_leave_out_the_noughts_at_their_end():
    (detail,) = Page(html.render(WITH_RANGES)).lines("results")
    assert detail["steps"][2] == ["square", "float16", 2, 8192, 1.049e6, 1.49e-08, None]
    assert detail["exponents"] == [-7, [1, 0, 24, 100, 800, 6400, 864], 2, 1]
    (square,) = [s for s in Page(html.render(WITH_STEPS)).lines("results")[0]["steps"] if s[0] == "square"]
    assert square[7:] == [93, 1, 2, 0, 0, 16]


def test_ranges_of_formats_are_powers_of_two_also_of_the_widest():
    (table,) = Page(html.render(WITH_RANGES)).lines("table")
    half, double = table["formats"]
    assert half["ends"][:2] == [-24, -14]
    assert half["ends"][2] == pytest.approx(math.log2(65520))
    assert double["ends"] == [-1074, -1022, 1024]


# ------------------------------------------------------------------------------------------------ hostile names


def test_hostile_names_are_text_and_nothing_else():
    harmless = Page(html.render(of_model([f"name{i}" for i in range(len(HOSTILE))])))
    hostile = Page(html.render(of_model(HOSTILE)))

    def skeleton(page):
        return [(tag, sorted(attributes)) for tag, attributes in page.elements]

    assert skeleton(hostile) == skeleton(harmless)
    assert hostile.scripts == harmless.scripts
    for text in hostile.data.values():
        assert not set("<>&") & set(text)


def test_what_cannot_be_seen_is_shown():
    text = html.render(of_model(HOSTILE))
    text.encode()  # no lone surrogate is left
    assert all(c.isprintable() or c == "\n" for c in text)
    page = Page(text)
    for shown in (r"\x1b[31m", r"\u202egnirts", r"\udc80\ud800", "{{ 7 * 7 }}", "${window.hacked = 1}", "x" * 10_000):
        assert shown in page.text
    (table,) = page.lines("table")
    assert r"line\nfeed\ttab\x00\x1b[31m\x7f" in table["text"]["layer"]["values"]


# -------------------------------------------------------------------------------------------------- size and looks


def test_a_page_is_made_result_by_result():
    report = large_report(1000)
    list(html.pieces(large_report(3)))  # what is kept for later pages is not of this one
    tracemalloc.start()
    try:
        size = sum(map(len, html.pieces(report)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(report.results) == 3000
    assert size > 1000 * len(report.results)
    assert peak < size / 2


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(scheme):
    colors = {name: pair for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", STYLE)}
    texts = ("ink", "dim", "link", "bad", "poor", "good", "note")
    pairs = [(text, back) for text in texts for back in ("paper", "raised")]
    pairs += [(text, f"{text}-back") for text in ("bad", "poor", "good", "note")]
    pairs += [(text, back) for text in ("ink", "link", "dim", "bad", "poor") for back in ("note-back",)]
    pairs += [("ink", "bad-back"), ("ink", "poor-back"), ("ink", "good-back")]
    low = {pair: contrast(*(colors[name][scheme] for name in pair)) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
