"""The table of backward passes: every figure of a hand-built one, at any width, and its way through JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hand_built import REPORT
from hand_built_model import MODEL
from html_pages import Page

from normcheck.render import html, json_report, markdown, table
from normcheck.render.gradients import merged, powers
from normcheck.results import Backward, Flushed, GradientRows, ParameterGradient, Step, Tally

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
    weight=ParameterGradient(
        format="float16", count=16, elements=512, nonfinite=1, flushed=2, relative_rms=0.25, ideal=0.0025
    ),
    bias=ParameterGradient(
        format="float32", count=16, elements=512, nonfinite=0, flushed=0, relative_rms=None, ideal=None
    ),
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
                 "at grad-normalize", "2^-3 to 2^9", "γ 0.25", "(1 of 16", "nonfinite)", "β -"):  # fmt: skip
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


# ----------------------------------------------------------------------------------------------- layers of a model

ASSUMED = replace(BACKWARD, assumed=True)
OTHER = replace(
    ASSUMED,
    rows=GradientRows(total=4, nonfinite=1, vanished=1),
    deviation=replace(RESULT.deviation, relative_rms=0.125),
    flushed=Flushed(count=9, of=10, share=0.9, ideal=1),
    overflow_bits=-2.5,
    overflow_step="grad-weight",
    safe_loss_scale=(2.0**-1, 2.0**12),
    weight=replace(BACKWARD.weight, nonfinite=3, count=4, relative_rms=None),
    bias=None,
)


def test_layers_that_behave_the_same_are_one_row_whose_figures_are_the_worst():
    one = merged([ASSUMED, OTHER])
    assert one.rows == GradientRows(total=20, nonfinite=4, vanished=3)
    assert (one.overflow, one.absorbed) == (Tally(count=10, of=32768, rows=6), Tally(count=0, of=32768, rows=None))
    assert (one.flushed.count, one.flushed.of, one.flushed.ideal) == (330, 8200, 301)
    assert one.flushed.share == 330 / 8200
    assert (one.overflow_bits, one.overflow_step) == (-2.5, "grad-weight")
    assert one.deviation.relative_rms == 0.125
    assert one.safe_loss_scale == (2.0**-1, 2.0**9)
    assert (one.weight.count, one.weight.nonfinite, one.weight.relative_rms) == (20, 4, 0.25)
    assert one.bias == BACKWARD.bias
    assert merged([ASSUMED]) is ASSUMED


@pytest.mark.parametrize("width", [80, 120, 200])
def test_layers_of_a_model_have_their_block_too(width):
    alike = [result for result in MODEL.results if result.asked][:1] * 2
    names = ("head.norm", "tail.norm")
    results = tuple(replace(r, layer=n, backward=b) for r, n, b in zip(alike, names, (ASSUMED, OTHER), strict=True))
    page = table.render(replace(MODEL, results=results, findings=()), width=width)
    block = page[page.index("backward gradient") : page.index("figures of several")]
    for text in ("(assumed)", "head.norm, tail.norm", "7 of 20:", "-2.5 bits", "at grad-weight", "2^-1 to 2^9", "β -"):
        assert text in block, text
    assert max(map(len, block.splitlines())) <= width
    narrowed = table.render(replace(MODEL, results=results, findings=()), width=width, top=0)
    assert "backward gradient" not in narrowed


# ----------------------------------------------------------------------------------------------------- the page


def test_the_page_has_the_backward_pass_of_each_result_that_has_one():
    lines = Page(html.render(WITH)).lines("results")
    (first,) = [line for line in lines if "backward" in line]
    facts = dict(first["backward"]["facts"])
    assert facts == {
        "run on": "gradient laplace(mean=0, std=1e-06), loss scale 1024",
        "dx": "16 channels: 3 nonfinite, 2 vanished",
        "flushed": "321 of 8190 (3.92%), 300 by their size alone",
        "overflow": "5 of 16384",
        "underflow": "17 of 16384",
        "invalid": "0 of 16384",
        "absorbed": "0 of 16384",
        "error of dx": "0.000234 relative rms, 1.11 x ideal",
        "gradient of γ": (
            "16 sums over 512 elements in float16, 1 nonfinite, 2 flushed, error 0.25 relative rms, 100 x ideal"
        ),
        "gradient of β": "16 sums over 512 elements in float32, error - relative rms, -",
        "headroom": "-0.0954 bits at grad-normalize",
        "safe loss scale": "2^-3 to 2^9",
    }
    assert [step[0] for step in first["backward"]["steps"]] == ["grad-load", "grad-normalize"]


def test_a_page_without_backward_passes_is_as_it_was():
    assert all("backward" not in line for line in Page(html.render(REPORT)).lines("results"))
