"""`normcheck cases`: the list, the replay, their formats and widths, and what the exit code says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from normcheck.analysis.corpus import replay
from normcheck.analysis.corpus.listing import listed
from normcheck.analysis.corpus.records import records
from normcheck.cli.cases import SIGNATURES
from normcheck.render.cases import predicted
from normcheck.results.cases import Corpus
from normcheck.results.report import Tool

WIDTHS = [80, 120, 200]


@pytest.mark.parametrize("width", WIDTHS)
def test_without_names_all_cases_are_listed_and_fit(normcheck, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    done = normcheck("cases")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= width
    begun = {line.split()[0] for line in lines if line.strip()}
    assert set(records()) <= begun
    (k14,) = [line for line in lines if line.startswith("K14 ")]
    assert k14.split()[:4] == ["K14", "OVF->0", "reconstructed", "NC102"]
    assert "9 published, 4 found by running the kernel, 26 reconstructed" in " ".join(done.out.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_case_is_replayed_with_its_story_its_link_and_both_implementations(normcheck, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    done = normcheck("cases", "k1")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= width
    for text in (
        "K1: ONNX Runtime 1.19, CPU", "https://github.com/microsoft/onnxruntime/issues/21935", "NEG->NaN",
        "ort-cpu-layernorm-1pass", "ort-cpu-layernorm", "wide", "NC101", "NC303",
        "variance of the one that fails: expected -3.25; here -3.25", "fails",
        "variance of the one that is right: expected 0; here 0", "is right",
    ):  # fmt: skip
        assert text in done.out
    assert "unpredicted" not in done.out


def test_what_flagged_means_is_said_and_one_case_is_one_case(normcheck):
    told, replayed = normcheck("cases", "--signature", "UFLOW").out, normcheck("cases", "C4").out
    assert "1 case: 1 reconstructed" in told
    for text in (told, replayed):
        assert "flagged: with a signature, an error of any rule, or a warning of a rule" in " ".join(text.split())
    assert "must not be flagged" in replayed
    assert "degraded" in replayed


def test_an_implementation_that_fails_elsewhere_survives_an_input_of_which_nothing_is_predicted():
    survived = [each for record in records().values() for each in record.inputs if each.failed and not each.signature]
    assert survived
    each = listed(records().values())
    words = {predicted("failed", replay) for case in each.failures for replay in case.replays}
    assert words == {"fails", "survives"}


def test_json_holds_all_of_it(normcheck):
    done = normcheck("cases", "K17", "K20", "--format", "json")
    assert done.code == 0
    report = json.loads(done.out)
    assert report["format"] == 1
    first, second = report["cases"]
    assert [first["id"], second["id"]] == ["K17", "K20"]
    assert first["source"] == "published"
    (each,) = first["replays"]
    failed, *right = each["sides"]
    assert (failed["role"], failed["signature"], failed["verdict"], failed["flagged"]) == (
        "failed", "EPS0->NaN", "unsafe", True,
    )  # fmt: skip
    assert {flag["rule"] for flag in failed["flags"]} == {"NC101", "NC201"}
    assert {side["flagged"] for side in right} == {False}
    assert [len(case["replays"]) for case in report["cases"]] == [1, 2]


def test_the_list_as_json_says_what_is_predicted_and_runs_nothing(normcheck, monkeypatch):
    monkeypatch.setattr(replay, "replayed", None)
    report = json.loads(normcheck("cases", "--format", "json").out)
    assert len(report["cases"]) == len(records())
    assert all(each["sides"] == [] for case in report["cases"] for each in case["replays"])


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_chooses_the_cases_that_fail_so(normcheck, name):
    report = json.loads(normcheck("cases", "--signature", name.lower(), "--format", "json").out)
    found = [{each["signature"] for each in case["replays"]} for case in report["cases"]]
    assert all(name in signatures for signatures in found)
    wanted = {record.id for record in records().values() if any(each.signature == name for each in record.inputs)}
    assert {case["id"] for case in report["cases"]} == wanted
    bare = normcheck("cases", "--signature", name.replace("->", "-"), "--format", "json")
    assert json.loads(bare.out) == report


def test_a_prediction_that_does_not_hold_is_exit_code_1_and_said(normcheck, monkeypatch):
    record = records()["K1"]
    wrong = replace(record, inputs=(replace(record.inputs[0], signature="CANCEL"),))
    monkeypatch.setattr("normcheck.analysis.corpus.records.records_named", lambda *_: (wrong,))
    done = normcheck("cases", "K1")
    assert done.code == 1
    assert "unpredicted: ort-cpu-layernorm-1pass, fp32: the signature is NEG->NaN, not CANCEL" in " ".join(
        done.out.split()
    )
    assert normcheck("cases", "K1", "--format", "json").code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["K2"], "unknown case 'K2': did you mean K"),
        (["K1", "--all"], "--all replays every case: leave out K1, or --all"),
        (["--signature", "OVF"], "unknown signature 'OVF'"),
        (["K1", "--signature", "UFLOW"], "none of K1 fails as UFLOW; `normcheck cases` lists how they do"),
        (["--format", "markdown"], "'markdown' is not one of"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(normcheck, arguments, said):
    done = normcheck("cases", *arguments)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert said in done.err


def test_all_replays_every_case(normcheck, monkeypatch):
    asked = []

    def nothing(chosen, progress=None):
        asked.extend(record.id for record in chosen)
        assert progress is None
        return Corpus(format=1, tool=Tool(name="normcheck", version="0"), cases=())

    monkeypatch.setattr(replay, "replayed", nothing)
    assert normcheck("cases", "--all", "--quiet").code == 0
    assert asked == list(records())
