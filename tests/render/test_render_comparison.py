"""Many implementations beside each other: what breaks, and why, in one screen."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import normcheck
from normcheck.render import html, table

if TYPE_CHECKING:
    from normcheck.results import Report

ASKED = ("pure", "torch-cpu", "onnx-reference", "onnxruntime-cuda-skip", "hf-llama")


@pytest.fixture(scope="module", params=[100, 300])
def report(request: pytest.FixtureRequest) -> Report:
    return normcheck.simulate(
        norms=["layer-l2", "rms"], precisions=["fp16"], implementations=ASKED, shape=(8, 1024), std=request.param
    )


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_comparison_fits_one_screen_and_crops_nothing(report: Report, width: int) -> None:
    lines = table.render(report, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 50
    text = "\n".join(lines)
    assert "…" not in text
    for result in report.results:
        assert result.implementation in text


def test_it_says_which_collapse_at_which_step_and_which_do_not(report: Report) -> None:
    lines = table.render(report, width=200).splitlines()
    why = [line.split("error NC102")[1] for line in lines if "error NC102" in line]
    assert why
    assert all(text.startswith((" at square: 8 of 8 rows collapse", " at sum: 8 of 8 rows collapse")) for text in why)
    unsafe = next(line for line in lines if line.startswith("unsafe "))
    for name in ("pure", "onnx-reference-layernorm", "onnx-reference-rmsnorm"):
        assert name in unsafe
    for name in ("torch-cpu-layernorm-fp16", "torch-rmsnorm-composite", "hf-llama-rmsnorm"):
        assert name not in unsafe
    assert unsafe.count("ort-cuda-skiplayernorm-fp16") == 2 * (report.settings["std"] == 300)


def test_the_verdicts_name_every_implementation_once_a_norm(report: Report) -> None:
    text = " ".join(table.render(report, width=200).split())
    last = text[text.rindex("unsafe ") :]
    assert last.count("ort-cuda-skiplayernorm-fp16") == 2
    assert "skipped layer-l2 fp16 hf-llama" in text


def test_a_fix_says_what_it_is_for_and_stands_once_where_norms_differ_in_nothing_else(report: Report) -> None:
    text = " ".join(table.render(report, width=200).split())
    assert text.count("fix of ") == 1
    assert "fix of NC102 in rms, layer-l2: compute" in text
    assert "--norm layer-l1-uncentred (for rms) or layer-l1 (for layer-l2) with `pure-scaled`, which" in text


def test_two_remedies_of_one_rule_and_norm_name_their_implementations(report: Report) -> None:
    hit = next(f for f in report.findings if (f.rule, f.norm, f.implementation) == ("NC102", "rms", "pure"))
    findings = tuple(replace(f, fix="do otherwise") if f is hit else f for f in report.findings)
    text = " ".join(table.render(replace(report, findings=findings), width=200).split())
    assert "fix of NC102 in rms, pure: do otherwise" in text
    (other,) = re.findall(r"fix of NC102 in (rms, layer-l2|layer-l2, rms), (.*?): compute", text)
    assert "onnx-reference-rmsnorm" in other[1]


def test_a_verdict_of_many_names_five_and_counts_the_rest(report: Report) -> None:
    first = next(result for result in report.results if result.verdict == "ok")
    several = tuple(replace(first, implementation=f"row-{number}") for number in range(6))
    many = tuple(replace(first, implementation=f"row-{number}") for number in range(53))
    ends = [
        " ".join(table.render(replace(report, results=results, findings=()), width=200).split()).rsplit(" ok ", 1)[1]
        for results in (several, many)
    ]
    kind = f"{first.norm} {first.precision}: "
    assert ends == [
        f"{kind}row-0, row-1, row-2, row-3, row-4, row-5",
        f"{kind}row-0, row-1, row-2, row-3, row-4 and 48 others",
    ]


def test_findings_that_no_line_has_are_counted(report: Report) -> None:
    text = " ".join(table.render(report, width=200).split())
    lines = sum(result.verdict != "ok" for result in report.results)
    assert f"{len(report.findings) - lines} further findings (" in text


def test_the_page_is_headed_by_what_was_compared_and_names_few_of_many_implementations(report: Report) -> None:
    page = html.render(report)
    names = list(dict.fromkeys(result.implementation for result in report.results))
    heading = f"layer-l2, rms of {report.settings['distribution']}, {len(names)} implementations"
    assert f'<h1 class="name">{heading}</h1>' in page
    assert f"implementation {', '.join(names[:3])} and {len(names) - 3} more;" in page
    one = replace(report, results=report.results[:1])
    assert f'<h1 class="name">{report.settings["distribution"]}</h1>' in html.render(one)


def test_three_implementations_are_told_as_ever() -> None:
    few = normcheck.simulate(norms=["rms"], implementations=["pure", "wide", "hf-llama"], shape=(8, 64))
    assert "safe scale" in table.render(few, width=80)
