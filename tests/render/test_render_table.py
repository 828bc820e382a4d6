from __future__ import annotations

import dataclasses
import re
from math import inf, nan

import pytest
from hand_built import CLEAN, COLLAPSED, EMPTY, FINDINGS, NEVER_FINITE, REPORT, TIGHT, UNBOUNDED
from hand_built_model import MODEL

from normcheck.render import steps, table
from normcheck.render.places import where, worst_first

WIDTHS = [40, 50, 60, 72, 80, 100, 120, 132, 160, 200, 250, 300]
FIGURES = {
    CLEAN: ["0 of 16", "0 of 107536", "0.000234", "1.11 x ideal", "111 bits", "at square", "1.25e-7 to 655"],
    TIGHT: ["0 of 107536", "5 of 107536", "in 3 of 16", "0.00512", "0.583 bits", "at sum", "0.00391 to 1.5"],
    COLLAPSED: [
        *("16 of 16", "1 nonfinite", "13 collapsed", "1 amplified", "1 shrunk"),
        *("100 of 107536", "8193 of 107536", "0.991", "4700 x ideal", "-0.634 bits", "at square"),
    ],
    UNBOUNDED: ["0.000234", "1.11 x ideal", "0 to inf"],
    NEVER_FINITE: ["128 of 128", "128 nonfinite", "1.23e6 of 9.88e6", "-inf bits", "at load", "none"],
}
WIDE_FIGURES = {
    CLEAN: ["-2.5e-5", "0.000209", "70.2 bits", "at statistic"],
    COLLAPSED: ["-0.982", "0.119", "10.5 bits"],
    TIGHT: ["1.25e-5", "20 bits"],
}


def rendered(width=80, report=REPORT, **options):
    return table.render(report, width=width, **options)


def squeezed(text):
    return re.sub(r"\s+", "", text)


def uncolored(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def told(lines):
    return "\n".join(line.plain for line in lines)


def alone(result):
    return dataclasses.replace(REPORT, results=(result,), findings=())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_longer_than_the_width(width, color):
    lines = uncolored(rendered(width, color=color, with_steps=True)).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("result", FIGURES, ids=where)
def test_no_name_or_figure_is_cropped(width, result):
    text = squeezed(rendered(width, alone(result)))
    whole = squeezed(where(result))
    apart = [result.norm, result.precision, result.implementation]
    assert whole in text or all(name in text for name in apart)
    assert [figure for figure in FIGURES[result] if squeezed(figure) not in text] == []


@pytest.mark.parametrize("width", [120, 160, 200, 300])
@pytest.mark.parametrize("result", WIDE_FIGURES, ids=where)
def test_where_there_is_room_gain_noise_and_underflow_room_are_shown_too(width, result):
    text = squeezed(rendered(width, alone(result)))
    assert [figure for figure in WIDE_FIGURES[result] if squeezed(figure) not in text] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_ellipsised(width):
    assert not re.search(r"…|\.\.\.", rendered(width, with_steps=True))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_name_longer_than_the_line_is_whole(width):
    layer = "model.layers." + ".".join(f"block{i}" for i in range(30)) + ".norm"
    report = alone(dataclasses.replace(COLLAPSED, layer=layer))
    text = rendered(width, report, with_steps=True)
    assert squeezed(text).count(squeezed(layer)) == 3 + (width > 40)  # table, steps, verdict; and ranges
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_findings_are_whole(width):
    text = squeezed(rendered(width))
    for finding in FINDINGS:
        assert squeezed(finding.message) in text
        assert squeezed(finding.fix) in text
        assert squeezed(f"{finding.severity} {finding.rule}") in text
        assert squeezed(where(finding)) in text


@pytest.mark.parametrize("width", [80, 200])
def test_color_adds_nothing_but_color(width):
    colored = rendered(width, color=True, with_steps=True)
    assert uncolored(colored) == rendered(width, with_steps=True)
    assert colored.count("\x1b[") > 10


def test_the_worst_come_first():
    tighter = dataclasses.replace(CLEAN, headroom=dataclasses.replace(CLEAN.headroom, overflow_bits=3.0))
    unknown = dataclasses.replace(CLEAN, headroom=dataclasses.replace(CLEAN.headroom, overflow_bits=nan))
    few = dataclasses.replace(COLLAPSED, rows=dataclasses.replace(COLLAPSED.rows, nonfinite=0, collapsed=1))
    mixed = (UNBOUNDED, CLEAN, tighter, unknown, TIGHT, few, COLLAPSED, NEVER_FINITE)
    ordered = (NEVER_FINITE, COLLAPSED, few, TIGHT, unknown, tighter, CLEAN, UNBOUNDED)
    assert worst_first(mixed) == list(ordered)


def test_the_table_is_in_that_order():
    lines = rendered().splitlines()
    positions = [lines.index(where(result)) for result in (COLLAPSED, TIGHT, CLEAN, UNBOUNDED)]
    assert positions == sorted(positions)


def test_findings_are_grouped_worst_first():
    heads = re.findall(r"^(?:error|warning|note) NC\d+$", rendered(), re.MULTILINE)
    assert heads == ["error NC101", "error NC102", "warning NC103", "warning NC306", "note NC202"]


def test_facts_of_the_premise_are_not_torn_apart():
    assert "n = 512" in rendered(80, alone(CLEAN)).split("\n\n")[0]


def test_equal_findings_are_folded_into_one():
    text = squeezed(rendered())
    assert text.count(squeezed(FINDINGS[0].message)) == 1
    assert squeezed("batch-l2 fp16 pure, batch-l1 fp16 pure: eps 1e-05") in text


def test_findings_with_other_figures_are_not_folded():
    other = dataclasses.replace(FINDINGS[0], norm="rms", message="eps 1e-05 is 1.0014e-05")
    report = dataclasses.replace(REPORT, findings=(FINDINGS[0], other))
    text = squeezed(rendered(report=report))
    assert squeezed(FINDINGS[0].message) in text
    assert squeezed("rms fp16 pure: eps 1e-05 is 1.0014e-05") in text
    assert text.count("fix:") == 1


def test_what_rests_on_an_assumption_says_so():
    assert "(restsonanassumption)" in squeezed(rendered())
    certain = dataclasses.replace(REPORT, findings=FINDINGS[:2])
    assert "assumption" not in rendered(report=certain)


def test_no_overflow_comes_with_its_bound():
    text = squeezed(rendered())
    assert squeezed("no overflow in 8192 elements of 16 channels") in text
    assert squeezed("at most 0.000366 of all elements (3/N) and 0.188 of all channels") in text
    assert "no overflow" not in rendered(report=alone(COLLAPSED))


def test_the_bound_of_few_rows_is_no_more_than_all():
    single = dataclasses.replace(CLEAN, rows=dataclasses.replace(CLEAN.rows, total=1))
    assert squeezed("of 1 channel: with 95% confidence") in squeezed(rendered(report=alone(single)))
    assert squeezed("and 1 of all channels") in squeezed(rendered(report=alone(single)))


def last(report):
    return squeezed(rendered(report=report).split("\n\n")[-1])


def test_the_last_line_names_the_worst_row_its_step_and_the_remedy():
    report = dataclasses.replace(REPORT, results=(CLEAN, COLLAPSED))
    assert last(report) == squeezed(
        "unsafe batch-l2 fp16 pure: 16 of 16 channels bad, the worst channel 7: collapsed at square; "
        "accumulate and square in float32 (implementation wide), or use batch-l1"
    )


def test_the_last_line_of_a_degraded_run_names_the_rule():
    report = dataclasses.replace(REPORT, results=(CLEAN, TIGHT))
    assert last(report) == squeezed(
        "degraded batch-l1 fp16 pure: NC103 at sum, headroom 0.583 bits at sum; use pure-scaled or wide"
    )


def test_the_last_line_of_a_clean_run_names_the_least_headroom():
    report = dataclasses.replace(REPORT, results=(UNBOUNDED, CLEAN), findings=())
    assert last(report) == squeezed("ok batch-l2 fp16 wide: headroom 111 bits at square; nothing to change")
    assert last(alone(UNBOUNDED)).startswith(squeezed("ok batch-l2 fp32 pure-scaled eval: no step overflows"))


def test_without_results_nothing_was_analysed():
    text = rendered(report=EMPTY)
    assert text.endswith("nothing was analysed\n")
    assert squeezed(EMPTY.skipped[0].reason) in squeezed(text)


def test_the_premise_says_what_was_computed_on():
    premise = squeezed(rendered().split("\n\n")[0])
    for fact in (
        *("simulate gaussian(mean=0, std=100)", "seed 7", "shape 8,16,8,8", "8192 elements"),
        *(
            "512 (batch-l2, batch-l1) or 64 (instance-topk-uncentred)",
            "eps 1e-5",
            "train or eval",
            "params half",
        ),
    ):
        assert squeezed(fact) in premise


def test_an_assumed_input_says_so():
    assumed = dataclasses.replace(CLEAN, input=dataclasses.replace(CLEAN.input, assumed=True))
    assert "std=100)(assumed)" in squeezed(rendered(report=alone(assumed)))
    assert "(assumed)" not in rendered(report=alone(CLEAN))


def test_rows_are_called_what_the_report_calls_them():
    plain = dataclasses.replace(COLLAPSED, shape=dataclasses.replace(COLLAPSED.shape, row="row"))
    assert "channels" not in table.render(alone(plain), width=80)
    assert squeezed("in 16 of 16 rows") in squeezed(table.render(alone(plain), width=300))


@pytest.mark.parametrize(
    ("ignored", "known", "told"),
    [
        (12, 0, "not shown: 12 findings deselected (--select, --ignore)"),
        (0, 5, "not shown: 5 findings known from the baseline"),
        (1, 1, "not shown: 1 finding deselected (--select, --ignore), 1 finding known from the baseline"),
    ],
)
@pytest.mark.parametrize("report", [REPORT, MODEL])
def test_findings_that_are_not_in_the_report_are_counted(report, ignored, known, told):
    summary = dataclasses.replace(report.summary, ignored=ignored, known=known)
    parts = rendered(report=dataclasses.replace(report, summary=summary)).split("\n\n")
    (place,) = [index for index, part in enumerate(parts) if squeezed(part) == squeezed(told)]
    assert re.match("error NC", parts[place - 1])
    assert "not shown: " not in rendered(report=report)


@pytest.mark.parametrize("width", WIDTHS)
def test_steps_hold_every_figure(width):
    text = told(steps.lines(COLLAPSED, "title", width=width))
    for figure in (
        "load",
        "square",
        "reciprocal",
        "float16",
        "8192",
        "93",
        "41",
        "1.58e5",
        "3.1e-9",
        "0.0125",
        "-1",
    ):
        assert re.search(rf"(?<!\S){re.escape(figure)}(?!\S)", text), figure
    for figure in ("inf", "nan", "1.5", "0.25", "16", "397", "0.0117"):
        assert re.search(rf"(?<!\S){re.escape(figure)}(?!\S)", text), figure


def test_steps_keep_their_order():
    names = [step.step for step in COLLAPSED.steps]
    text = told(steps.lines(COLLAPSED, "title", width=200))
    assert re.findall(rf"^({'|'.join(names)})\b", text, re.MULTILINE) == names


def test_steps_are_shown_only_where_asked_for():
    assert "steps of" not in rendered()
    assert rendered(with_steps=True).count("steps of") == 1  # only one of the results has any


def test_control_characters_do_not_reach_the_terminal():
    report = alone(dataclasses.replace(COLLAPSED, layer="a\x1b[2Jb\rc\x07\x9bd"))
    text = rendered(report=report, color=False)
    assert r"a\x1b[2Jb\rc\x07\x9bd" in text
    assert not set(text) & {"\x1b", "\r", "\x07", "\x9b"}


def test_markup_in_names_stays_text():
    report = alone(dataclasses.replace(COLLAPSED, layer="[red]x[/red]:smile:"))
    assert "[red]x[/red]:smile:" in rendered(report=report, color=True)


def test_infinite_deviation_is_shown():
    wild = dataclasses.replace(CLEAN, deviation=dataclasses.replace(CLEAN.deviation, relative_rms=inf))
    assert "inf x ideal" in rendered(report=alone(wild))
