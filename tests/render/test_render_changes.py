"""The page of normcheck diff, and what a page says of its baseline."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hand_built import REPORT
from hand_built_diff import AGAINST, DIFF, NEW, OLD, REGRESSIONS, SAME, UNASKED, change, figure
from hand_built_model import BLOCKS, MODEL, STEM
from model_pages import rendered, says, section, sections, squeezed, uncolored

from normcheck.render import jsonl, table

WIDTHS = (40, 80, 120, 200)


def diff(report=DIFF, **changes):
    return dataclasses.replace(report, comparison=dataclasses.replace(report.comparison, **changes))


def page(report=DIFF, width=80):
    return squeezed(rendered(width, report))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_says_everything_at_any_width(width):
    text = rendered(width, DIFF)
    assert max(map(len, text.splitlines())) <= width
    for told in (
        f"diff {OLD} -> {NEW}",
        "14 layers",
        "80 results",
        "settings differ: seed 0 -> 1, ftz no -> yes",
        "error NC102 new",
        "layer3.0.bn2 batch-l2 fp16 wide eval: 2 of 64 rows collapse to beta",
        "verdict ok -> unsafe, rows bad 0 -> 2, deviation 0.000234 -> 0.5, largest safe scale 512 -> none",
        "fix: keep these layers in float32",
        "error verdict worse",
        "stem.bn batch-l2 fp16 wide: verdict ok -> unsafe",
        "headroom 1.25 bits -> 0.75 bits",
        "gone error NC104 layer3.1.bn2 batch-l2 fp16 wide eval: 3 of 64 running variances are beyond float16",
        "better warning NC103 layer3.0.bn1 batch-l2 fp16 wide: headroom 0.25 bits -> 0.5 bits",
        f"only in {OLD}: 2 places: tail.norm",
        f"only in {NEW}: 13 places: ",
        "beside that, in the view that nobody asked for (pure): 1 new, 1 gone",
        "worse 2 errors, 6 warnings new or worse, 2 gone or better, 22 unchanged",
        "the worst layer3.0.bn2 batch-l2 fp16 wide eval: NC102 new",
    ):
        assert squeezed(told) in squeezed(text)


def test_of_many_changes_alike_all_layers_are_named_and_the_worst_is_told():
    text = page()
    assert says(text, "5 layers (batch-l2 fp16 wide): " + ", ".join(BLOCKS[:5]))
    assert says(text, f"worst {BLOCKS[0]} batch-l2 fp16 wide: relative rms error 0.0625")
    assert not says(text, "0.0125, 59.2 times")


def test_what_got_worse_comes_before_what_got_better_and_the_verdict_last():
    starts = [part.split()[0] for part in sections(rendered(80, DIFF))]
    assert starts == ["diff", "error", "gone", "only", "worse"]
    order = [line.split()[1] for line in rendered(80, DIFF).splitlines() if line.startswith(("error", "warning"))]
    assert order == ["NC102", "verdict", "NC301", "NC103"]


def test_a_figure_of_a_place_is_told_once():
    twice = (REGRESSIONS[0], dataclasses.replace(REGRESSIONS[0], rule="NC104", message="beyond"))
    text = page(diff(regressions=twice, improvements=()))
    assert text.count("rowsbad0->2") == 1
    assert says(text, "NC104 new layer3.0.bn2 batch-l2 fp16 wide eval: beyond")


def test_nothing_worse_is_said_so():
    text = page(SAME)
    assert says(text, "ok nothing got worse: 0 gone or better, 23 unchanged")
    assert not says(text, "settings differ")
    assert len(sections(rendered(80, SAME))) == 2


def test_a_simulation_has_no_layers():
    changes = tuple(dataclasses.replace(REGRESSIONS[0], layer=None, norm=norm) for norm in "abcde")
    report = dataclasses.replace(REPORT, command="diff", comparison=dataclasses.replace(DIFF.comparison))
    text = page(diff(report, regressions=changes))
    assert says(text, "5 combinations")
    assert says(text, "worst a fp16 wide eval: 2 of 64 rows collapse")
    assert says(text, f"diff {OLD} -> {NEW}; 5 results")


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (figure("rows.bad", 1, 2.0, "rows"), "rows bad 1 -> 2"),
        (figure("deviation.relative_rms", None, 0.00123456, "ratio"), "deviation - -> 0.00123"),
        (figure("safe_scale.high", 2.5, float("inf"), "ratio"), "largest safe scale 2.5 -> inf"),
        (figure("headroom.overflow_bits", float("nan"), -1.0, "bits"), "headroom nan bits -> -1 bits"),
        (figure("steps.sum.lost_mass", 1e-9, 0.5, "ratio"), "steps.sum.lost_mass 1e-9 -> 0.5"),
        (figure("severity", "warning", "error"), "severity warning -> error"),
    ],
)
def test_figures_are_told_before_and_after(told, shown):
    assert says(page(diff(regressions=(change("worse", "NC1", "error", STEM, "why", told),))), shown)


def test_names_cannot_steer_the_terminal():
    hostile = "a\x1b[2J\u202eb\nc"
    report = diff(
        old=hostile,
        new=hostile,
        regressions=(change("new", "NC102", "error", hostile, hostile, figure("verdict", hostile, hostile + "!")),),
        improvements=(change("gone", "NC102", "error", hostile, "none"),),
        only_old=(hostile,),
        unasked=(change("new", "NC102", "note", hostile, "none", implementation="pure"),),
        settings=(dataclasses.replace(DIFF.comparison.settings[0], old=hostile),),
    )
    text = rendered(80, report)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert squeezed(text).count(r"a\x1b[2J\u202eb") == 13


def test_colour_changes_nothing_but_colour():
    assert uncolored(table.render(DIFF, color=True)) == table.render(DIFF)
    assert "\x1b[1;31mworse" in table.render(DIFF, color=True)


# ------------------------------------------------------------------------------------------- against a baseline


def test_a_page_says_what_its_baseline_makes_of_it():
    told = section("against", AGAINST)
    assert says(told, f"{OLD}: 7 findings new or worse; 2 gone or better; settings differ: seed 0 -> 1")
    text = page(AGAINST)
    assert says(text, "worse verdict stem.bn batch-l2 fp16 wide: verdict ok -> unsafe")
    assert says(text, "deviation 0.0312 -> 0.0625")
    assert says(text, "only in this run: 13 places")
    assert says(text, "not shown: 23 findings known from the baseline")
    assert text.count("2of64rowscollapsetobeta") == 1


def test_what_the_baseline_has_is_not_nothing_to_change():
    assert says(page(AGAINST), "nothing that the baseline does not have")
    assert not says(page(AGAINST), "nothing to change")


@pytest.mark.parametrize("report", [MODEL, REPORT])
def test_a_page_without_a_baseline_says_nothing_of_one(report):
    assert "against" not in rendered(80, report)


def test_a_simulation_against_a_baseline_says_it_too():
    report = dataclasses.replace(REPORT, comparison=dataclasses.replace(SAME.comparison, new=None), findings=())
    assert says(page(report), f"against {OLD}: 0 findings new or worse")


# --------------------------------------------------------------------------------------------------- JSON lines


def test_each_change_is_a_line_and_the_summary_has_the_rest():
    lines = [json.loads(line) for line in jsonl.render(DIFF).splitlines()]
    found = [line for line in lines if line["type"] == "change"]
    changes = (*REGRESSIONS, *DIFF.comparison.improvements, *UNASKED)
    assert [(line["kind"], line["rule"], line["layer"]) for line in found] == [
        (change.kind, change.rule, change.layer) for change in changes
    ]
    assert [line["asked"] for line in found] == [True] * (len(changes) - 2) + [False] * 2
    assert found[0]["figures"][0] == {"name": "verdict", "old": "ok", "new": "unsafe", "unit": ""}
    summary = lines[-1]["comparison"]
    assert summary["unchanged"] == 22
    assert set(summary) == {"old", "new", "unchanged", "only_old", "only_new", "settings"}


def test_a_report_that_was_compared_with_nothing_says_so():
    assert json.loads(jsonl.render(MODEL).splitlines()[-1])["comparison"] is None
