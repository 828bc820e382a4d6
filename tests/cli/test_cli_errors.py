from __future__ import annotations

import pytest

from normcheck.errors import UsageError


def one_line(outcome):
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("normcheck: error: ")
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("\n")
    return outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Missing command", "`normcheck --help`"]),
        (["simulat"], ["simulat", "`normcheck --help`"]),
        (["--nonsense"], ["--nonsense", "`normcheck --help`"]),
        (["simulate", "--nonsense"], ["--nonsense", "`normcheck simulate --help`"]),
        (["simulate", "--ftz=false"], ["--ftz", "`normcheck simulate --help`"]),
        (["analyze", "--ftz=false"], ["--ftz", "`normcheck analyze --help`"]),
        (["simulate", "--json", ""], ["--json", "the path is empty"]),
        (["simulate", "--markdown", ""], ["--markdown", "the path is empty"]),
        (["simulate", "--baseline", ""], ["--baseline", "the path is empty"]),
        (["simulate", "--config", ""], ["--config", "the path is empty"]),
        (["analyze", "m.pt", "--activations", ""], ["--activations", "the path is empty"]),
        (["analyze", "m.pt", "--input", ""], ["--input", "the path is empty"]),
        (["diff", "old.json", "new.json", "--html", ""], ["--html", "the path is empty"]),
        (["simulate", "extra"], ["extra", "`normcheck simulate --help`"]),
        (["simulate", "--k", "many"], ["--k", "many"]),
        (["simulate", "--eps", "tiny"], ["--eps", "tiny"]),
        (["simulate", "--eps"], ["--eps"]),
        (["simulate", "--mode", "dream"], ["--mode", "dream", "train", "eval"]),
        (["simulate", "--fail-on", "all"], ["--fail-on", "all", "never"]),
        (["simulate", "--format", "xml"], ["--format", "xml", "jsonl"]),
        (["simulate", "--shape", "a,b"], ["--shape", "a,b", "32,64,28,28"]),
        (["simulate", "--precision", "fp16,,bf16"], ["fp16,,bf16", "empty name"]),
        (["simulate", "--format", "json", "--json", "-"], ["--format json", "--json -", "give one"]),
        (["simulate", "--format", "table", "--json", "-"], ["--format table", "--json -", "give one"]),
        (["simulate", "--format", "json", "--steps"], ["--steps", "leave it out"]),
        (["simulate", "--json", "-", "--steps"], ["--steps", "leave it out"]),
        (["formats", "fp17"], ["fp17", "fp16", "`normcheck formats`"]),
        (["norms", "batch-l3"], ["batch-l3", "batch-l2", "`normcheck norms`"]),
        (["rules", "NC110"], ["NC110", "`normcheck rules`"]),
        (["implementations", "purest"], ["purest", "pure", "`normcheck implementations`"]),
        (["distributions", "gausian"], ["gausian", "gaussian", "`normcheck distributions`"]),
        (["formats", "--format", "jsonl"], ["--format", "jsonl", "table"]),
        (["schema", "more"], ["more", "`normcheck schema --help`"]),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(engine, normcheck, arguments, words):
    line = one_line(normcheck(*arguments))
    assert [word for word in words if word not in line] == []
    assert engine.calls == []


def test_errors_of_the_engine_are_printed_as_they_are(engine, normcheck):
    engine.report = UsageError("shape 0,3: every dimension must be at least 1")
    assert one_line(normcheck("simulate")) == "normcheck: error: shape 0,3: every dimension must be at least 1\n"


def test_unforeseen_errors_are_one_line_too(engine, normcheck):
    engine.report = ValueError("two\n  lines")
    line = one_line(normcheck("simulate"))
    assert line == "normcheck: error: internal error: ValueError: two lines; --debug shows the traceback\n"


@pytest.mark.parametrize("error", [UsageError("wrong"), ValueError("wrong")])
def test_debug_shows_the_traceback(engine, normcheck, error):
    engine.report = error
    assert "Traceback" not in normcheck("simulate").err
    outcome = normcheck("simulate", "--debug")
    assert outcome.code == 2
    assert "Traceback (most recent call last)" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("normcheck: error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "fp17"], ["fp17", "fp16"]),
        (["--shape", "0,3"], ["0,3", "at least 1"]),
        (["--dist", "nosuch(a=1)"], ["nosuch", "`normcheck distributions`"]),
        (["--norm", "batch-l3"], ["batch-l3", "batch-l2"]),
        (["--implementation", "purest"], ["purest", "pure"]),
        (["--rounding", "sideways"], ["sideways", "`normcheck simulate --help`"]),
        (["--order", "backwards"], ["backwards", "`normcheck orders`"]),
        (["--params", "most"], ["most", "half, autocast"]),
        (["--eps", "nan"], ["eps", "nan"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--std", "-1"], ["std", "-1"]),
        (["--jobs", "0"], ["jobs", "0"]),
        (["--k", "0"], ["k", "0"]),
    ],
)
def test_the_real_engine_refuses_in_one_line(normcheck, arguments, words):
    line = one_line(normcheck("simulate", "--shape", "2,2", *arguments))
    assert [word for word in words if word not in line] == []
    assert "internal" not in line
