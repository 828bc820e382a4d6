"""Markdown: what a reader sees, rendered by a real renderer, and within the limit of a job summary."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hand_built import EMPTY, REPORT
from hand_built_diff import AGAINST, DIFF, SAME
from hand_built_model import BATCH, MODEL, NO_NORMS, SNIPPET, TIGHT, UNSAFE, finding, of_layer
from hand_built_rules import with_rules
from markdown_it import MarkdownIt

from normcheck.render import markdown, markdown_text
from normcheck.results import Skipped

READER = MarkdownIt("gfm-like", {"linkify": False})


def html(report):
    return READER.render(markdown.render(report))


def tables(report):
    """The cells of each table, row by row, as plain text."""
    return [
        [re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)]
        for table in re.findall(r"<table>(.*?)</table>", html(report), re.DOTALL)
    ]


def section(report, title):
    pattern = rf"^### {re.escape(title)}.*?\n(.*?)(?=^### |\Z)"
    (found,) = re.findall(pattern, markdown.render(report), re.MULTILINE | re.DOTALL)
    return found


def test_it_begins_with_how_the_run_ended_and_the_verdict():
    first, _, verdict, *_ = markdown.render(MODEL).splitlines()
    assert first == "## normcheck analyze: failed: 1 file could not be read"
    assert verdict.startswith("unsafe in 2 of 14 layers, degraded in 3, ok in 9; worst layer3.1.bn2")
    assert markdown.render(SAME).startswith(
        "## normcheck diff: passed\n\n0 new or worse, 0 gone or better, 23 findings unchanged\n"
    )


def test_the_first_table_has_the_counts_of_the_summary():
    titles, numbers = tables(MODEL)[0]
    counts = dict(zip(titles, numbers, strict=True))
    assert counts == {
        "errors": "2",
        "warnings": "7",
        "notes": "23",
        "layers": "14",
        "results": "80",
        "unreadable": "1",
        "skipped": "3",
    }


def test_findings_are_grouped_by_rule_and_fix_with_their_layers():
    warnings = section(MODEL, "Warnings: 7")
    assert warnings.count("- **NC") == 2
    assert f"3 layers: {', '.join(TIGHT[::-1])} (batch-l2 fp16 wide)<br>\n  Fix: scale the input down\n" in warnings


def test_the_title_of_a_rule_is_told_where_the_report_has_it():
    assert "- **NC102 Silent collapse**: 1 layer<br>" in section(with_rules(DIFF), "Errors: 1")


def test_what_changed_is_told_with_the_figures_that_moved():
    worse, better = tables(DIFF)[1:3]
    assert len(worse) == 1 + len(DIFF.comparison.regressions)
    assert len(better) == 1 + len(DIFF.comparison.improvements)
    assert worse[1][:4] == ["new", "error", "NC102", f"{UNSAFE[0]} batch-l2 fp16 wide eval"]
    assert "verdict ok → unsafe<br>rows bad 0 → 2<br>" in worse[1][5]
    assert "Unchanged: 22\n" in markdown.render(DIFF)
    assert "Only in the old report: 2 places: tail.norm" in markdown.render(DIFF)
    assert "- seed: 0 → 1\n" in section(DIFF, "Settings that differ")


def test_a_run_against_a_baseline_has_the_comparison_and_the_results():
    assert "### Compared with `main.json`" in markdown.render(AGAINST)
    assert "### Results" in markdown.render(AGAINST)
    assert "### Results" not in markdown.render(DIFF)


def test_the_text_to_paste_is_a_block_as_it_is():
    assert f"```python\n{SNIPPET}```\n" in markdown.render(MODEL)
    assert '<pre><code class="language-python">KEEP_IN_FLOAT32' in html(MODEL)


def test_a_block_is_not_ended_by_backticks_in_it():
    hostile = dataclasses.replace(MODEL.advice[0], snippet="````\n<b>out</b>\n```")
    assert "<b>out" not in html(dataclasses.replace(MODEL, advice=(hostile,)))


def test_advice_that_nobody_asked_for_is_left_out():
    unasked = dataclasses.replace(MODEL.advice[0], asked=False)
    assert "Advice" not in markdown.render(dataclasses.replace(MODEL, advice=(unasked,)))


def test_a_text_to_paste_that_is_too_long_is_left_out_whole():
    long = dataclasses.replace(MODEL.advice[0], snippet="line\n" * 201)
    text = section(dataclasses.replace(MODEL, advice=(long,)), "Advice: keep 2 layers in float32")
    assert "The text to paste has 201 lines" in text
    assert "```" not in text


def test_results_have_the_columns_and_figures_of_the_table():
    titles, *rows = tables(MODEL)[-1]
    assert titles[:3] == ["verdict", "rules", "layers"]
    assert len(rows) == 9
    worst = dict(zip(titles, rows[0], strict=True))
    assert worst["verdict"] == "unsafe"
    assert worst["deviation"] == "0.75<br>3550 x ideal"
    assert worst["safe scale and |x|"] == "none<br>|x| &lt;= 181"
    assert "Not shown: 26 results of the view that nobody asked for" in markdown.render(MODEL)


def test_what_was_not_analysed_is_told_with_the_reason():
    assert "- head.scale, head.shift: int8 is no number\n" in section(MODEL, "Not analysed")
    assert "- broken.pt: the archive ends early" in section(MODEL, "Could not be read")


def test_a_report_without_results_says_so():
    assert markdown.render(EMPTY).startswith("## normcheck simulate: failed: nothing was analysed\n")
    assert "### Results" not in markdown.render(EMPTY)
    assert "plain.pt: no normalization layers" in markdown.render(dataclasses.replace(NO_NORMS, summary=EMPTY.summary))


def test_long_tables_and_lists_end_with_how_much_is_left():
    layers = tuple(f"unique{'x' * place}" for place in range(150))
    found = tuple(finding(f"NC{place}", "error", layer, "m", "") for place, layer in enumerate(layers))
    results = tuple(of_layer(layer, verdict="unsafe", shape=MODEL.results[0].shape) for layer in layers)
    text = markdown.render(dataclasses.replace(MODEL, findings=found, results=results))
    assert "\n- and 100 more: the JSON report has all\n" in text
    assert "\nand 50 more rows: the JSON report has all\n" in text


@pytest.mark.parametrize("name", ["x" * 100_000, "語" * 100_000, "`" * 100_000, "\N{RIGHT-TO-LEFT OVERRIDE}" * 10_000])
def test_names_of_any_length_leave_it_within_the_limit(name):
    layers = tuple(f"{name}.{place}.{'y' * place}" for place in range(200))
    found = tuple(finding(f"NC{place % 150}", "error", layer, layer, layer) for place, layer in enumerate(layers))
    results = tuple(of_layer(layer, verdict="unsafe") for layer in layers)
    skipped = tuple(Skipped(name=layer, reason=layer) for layer in layers)
    text = markdown.render(dataclasses.replace(MODEL, findings=found, results=results, skipped=skipped))
    assert len(text.encode()) <= 1024 * 1024


def test_beyond_the_limit_it_ends_with_a_line_that_says_so(monkeypatch):
    monkeypatch.setattr(markdown, "LIMIT", 2000)
    text = markdown.render(MODEL)
    assert len(text.encode()) <= 2000
    assert text.endswith("\nThe rest does not fit here: the JSON report has all.\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.25 bits (12 % of 64), 'so': x = -1.5e-3", "0.25 bits (12 % of 64), 'so': x = -1.5e-3"),
        ("use implementation `wide`, or (`pure-scaled`)", "use implementation `wide`, or (`pure-scaled`)"),
        ("a_b *c* [d](e) <f> @g #1 h|i", "`a_b` `*c*` `[d](e)` `<f>` `@g` `#1` `h|i`"),
        ("see https://evil.example :tada:", "see `https://evil.example` `:tada`:"),
        ("www.evil.example GH-12 0123abcd 1280692", "`www.evil.example` `GH-12` `0123abcd` 1280692"),
        ("ok -> unsafe", "ok → unsafe"),
        ("a_b, c_d; (e_f), g_h(1): i_(", "`a_b`, `c_d`; (`e_f`), `g_h(1)`: `i_(`"),
        ("`a``b`", "``` `a``b` ```"),
        ("- no list", "`-` no list"),
        ("1. no list", "`1.` no list"),
        ("=== no heading", "`===` no heading"),
        ("a <= b", "a &lt;= b"),
        ("one\ntwo", "`one\\ntwo`"),
        ("", ""),
    ],
)  # fmt: skip
def test_prose_keeps_words_and_puts_all_else_in_code(text, expected):
    assert markdown_text.prose(text) == expected


@pytest.mark.parametrize("text", ["a|b", "a\\|b", "a\\\\|b", "|x| <= 181", "`|`", "\\|", "`a\\|`b|c`"])
def test_cells_hold_pipes_and_stay_one_cell(text):
    row = f"| t | u |\n| --- | --- |\n| {markdown_text.cell(text)} | end |\n"
    cells = re.findall(r"<td>(.*?)</td>", READER.render(row))
    assert len(cells) == 2
    assert cells[1] == "end"
    assert "|" in cells[0]


@pytest.mark.parametrize("report", [REPORT, MODEL, DIFF, AGAINST], ids=["simulate", "analyze", "diff", "against"])
def test_it_is_one_page_of_headings_lists_tables_and_code(report):
    tags = set(re.findall(r"<(\w+)", html(report)))
    assert tags <= {
        "h2",
        "h3",
        "p",
        "ul",
        "li",
        "strong",
        "br",
        "code",
        "pre",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }


def test_each_layer_of_a_small_report_is_named():
    text = markdown.render(MODEL)
    assert all(layer in text for layer in (*BATCH, "head.norm"))
