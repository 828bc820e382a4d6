"""The table of backward passes: every figure of a hand-built one, at any width, and its way through JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hand_built import REPORT

from normcheck.render import json_report, markdown, table
from normcheck.render.gradients import powers
from normcheck.results import Backward, Flushed, GradientRows, Step, Tally

RESULT = REPORT.results[0]
BACKWARD = Backward(
    source="laplace(mean=0, std=1e-06)",
    loss_scale=1024.0,
    steps=(
        Step(step="grad-load", format="float16", degree=1, operations=8192, underflow=17, max_abs=0.03, min_abs=6e-8),
        Step(step="grad-normalize", format="float16", degree=1, operations=8192, overflow=5, max_abs=7e4, min_abs=6e-8),
    ),
    overflow=Tally(count=5, of=16384, rows=3),
    underflow=Tally(count=17, of=16384, rows=9),
    invalid=Tally(count=0, of=16384, rows=0),
    absorbed=Tally(count=0, of=16384, rows=None),
    rows=GradientRows(total=16, nonfinite=3, vanished=2),
    deviation=RESULT.deviation,
    flushed=Flushed(count=321, of=8190, share=321 / 8190, ideal=300),
    overflow_bits=-0.0954,
    overflow_step="grad-normalize",
    safe_loss_scale=(2.0**-3, 2.0**9),
)
WITH = replace(REPORT, results=(replace(RESULT, backward=BACKWARD), *REPORT.results[1:]))


def squeezed(text):
    return " ".join(text.split())


@pytest.mark.parametrize("width", [80, 120, 200])
def test_every_figure_is_shown_at_any_width(width):
    page = table.render(WITH, width=width)
    block = page[page.index("backward gradient") :].split("\n\n\n")[0]
    head = squeezed(block.split("\n")[0])
    assert head == "backward gradient laplace(mean=0, std=1e-06); loss scale 1024"
    for text in ("5 of 16:", "3 nonfinite", "2 vanished", "5 of 16384", "321 of 8190", "0.000234", "-0.0954 bits",
                 "at grad-normalize", "2^-3 to 2^9"):  # fmt: skip
        assert text in block, text
    assert max(map(len, page.splitlines())) <= width


def test_results_without_a_backward_pass_have_no_block():
    assert "backward" not in table.render(REPORT)
    none = replace(
        BACKWARD,
        overflow_bits=None,
        overflow_step=None,
        safe_loss_scale=None,
        rows=GradientRows(total=16, nonfinite=0, vanished=0),
    )
    page = table.render(replace(REPORT, results=(replace(RESULT, backward=none),)))
    block = page[page.index("backward gradient") :]
    assert "0 of 16 " in block
    assert "none" in block


def test_its_steps_follow_those_of_the_forward_pass():
    page = table.render(WITH, width=200, with_steps=True)
    assert "grad-normalize  float16" in page
    assert ", backward\n" in page
    assert ", backward\n" not in table.render(REPORT, width=200, with_steps=True)


def test_markdown_has_the_same_figures():
    page = markdown.render(WITH)
    block = page[page.index("### Backward") :].replace("`", "")
    for text in ("loss scale 1024", "5 of 16: 3 nonfinite, 2 vanished", "321 of 8190", "2^-3 to 2^9"):
        assert text in block.replace("\\", ""), text
    assert "### Backward" not in markdown.render(REPORT)


def test_it_comes_back_from_json():
    assert json_report.from_json(json_report.render(WITH)).results[0].backward == BACKWARD


@pytest.mark.parametrize(
    ("ends", "text"), [(None, "none"), ((1.0, 1.0), "2^0 to 2^0"), ((2.0**-64, 2.0**64), "2^-64 to 2^64")]
)
def test_powers_of_two(ends, text):
    assert powers(ends) == text


def test_a_run_whose_gradient_overflows_is_not_said_to_have_no_overflow():
    calm = replace(BACKWARD, overflow=Tally(count=0, of=16384, rows=0))
    clean = replace(REPORT.results[-1], overflow=Tally(count=0, of=100, rows=0))
    for backward, said in ((calm, True), (BACKWARD, False)):
        page = table.render(replace(REPORT, results=(replace(clean, backward=backward),)))
        assert ("no overflow in" in page) == said
