"""Many implementations beside each other: what breaks, and why, in one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import normcheck
from normcheck.render import table

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
    why = [line.split("NC102")[1] for line in lines if "NC102" in line]
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


def test_findings_that_no_line_has_are_counted(report: Report) -> None:
    text = " ".join(table.render(report, width=200).split())
    lines = sum(result.verdict != "ok" for result in report.results)
    assert f"{len(report.findings) - lines} further findings (" in text


def test_three_implementations_are_told_as_ever() -> None:
    few = normcheck.simulate(norms=["rms"], implementations=["pure", "wide", "hf-llama"], shape=(8, 64))
    assert "safe scale" in table.render(few, width=80)
