"""normcheck diff and --baseline: what they read, what they refuse, and when they fail."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hand_built import EMPTY, REPORT
from hand_built_diff import AGAINST
from hand_built_model import MODEL

from normcheck.render.json_report import from_json, render

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "data" / "breast-cancer-mlp.pt"
LIMITS = ("error", "warning", "note", "never")


@pytest.fixture
def saved(tmp_path):
    """Return a function that writes a report into a file of that name."""

    def save(name, report):
        path = tmp_path / name
        path.write_text(report if isinstance(report, str) else render(report), encoding="utf-8")
        return path

    return save


def says(outcome, text):
    """Whether a page says something, wherever its lines are broken."""
    return "".join(text.split()) in "".join(outcome.out.split())


def without(report, rule):
    return dataclasses.replace(report, findings=tuple(f for f in report.findings if f.rule != rule))


# --------------------------------------------------------------------------------------------------------- diff


def test_a_report_is_no_worse_than_itself(normcheck, saved):
    path = saved("report.json", REPORT)
    outcome = normcheck("diff", path, path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "ok nothing got worse" in outcome.out


def test_what_got_worse_is_one_and_what_got_better_is_none(normcheck, saved):
    whole, less = saved("whole.json", REPORT), saved("less.json", without(REPORT, "NC102"))
    worse = normcheck("diff", less, whole)
    assert worse.code == 1
    assert "error NC102 new" in worse.out
    better = normcheck("diff", whole, less)
    assert better.code == 0
    assert "gone error NC102" in better.out


@pytest.mark.parametrize(("rule", "codes"), [("NC102", (1, 1, 1, 0)), ("NC306", (0, 1, 1, 0)), ("NC202", (0, 0, 1, 0))])
def test_the_limit_decides_which_regressions_fail(normcheck, saved, rule, codes):
    old, new = saved("old.json", without(REPORT, rule)), saved("new.json", REPORT)
    assert tuple(normcheck("diff", old, new, "--fail-on", limit).code for limit in LIMITS) == codes


def test_a_worse_verdict_is_a_regression_without_a_finding(normcheck, saved):
    good = dataclasses.replace(REPORT, findings=(), results=REPORT.results[:1])
    bad = dataclasses.replace(good, results=(dataclasses.replace(good.results[0], verdict="degraded"),))
    old, new = saved("old.json", good), saved("new.json", bad)
    assert tuple(normcheck("diff", old, new, "--fail-on", limit).code for limit in LIMITS) == (0, 1, 1, 0)
    assert "warning verdict worse" in normcheck("diff", old, new).out


def test_the_view_that_nobody_asked_for_fails_nothing(normcheck, saved):
    old, new = saved("old.json", without(MODEL, "NC102")), saved("new.json", MODEL)
    outcome = normcheck("diff", old, new)
    assert outcome.code == 0
    assert "7 new" in outcome.out


def test_reports_without_results_are_no_worse(normcheck, saved):
    empty, whole = saved("empty.json", EMPTY), saved("whole.json", REPORT)
    assert normcheck("diff", empty, empty).code == 0
    outcome = normcheck("diff", whole, empty)
    assert outcome.code == 0
    assert "only in" in outcome.out
    assert normcheck("diff", empty, whole).code == 1


def test_a_file_that_was_unreadable_to_the_run_is_no_error_of_the_diff(normcheck, saved):
    assert MODEL.unreadable
    path = saved("model.json", MODEL)
    assert normcheck("diff", path, path).code == 0


@pytest.mark.parametrize("form", ["table", "json", "jsonl"])
def test_no_format_changes_the_code(normcheck, saved, form):
    old, new = saved("old.json", without(REPORT, "NC102")), saved("new.json", REPORT)
    outcome = normcheck("diff", old, new, "--format", form)
    assert (outcome.code, outcome.err) == (1, "")
    assert outcome.out


def test_the_difference_is_a_report_itself(normcheck, saved):
    old, new = saved("old.json", without(REPORT, "NC102")), saved("new.json", REPORT)
    report = from_json(normcheck("diff", old, new, "--format", "json").out)
    assert (report.command, report.fail_on) == ("diff", "note")
    assert (report.comparison.old, report.comparison.new) == (str(old), str(new))
    assert [change.rule for change in report.comparison.regressions] == ["NC102"]
    assert [finding.rule for finding in report.findings] == ["NC102"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a normcheck report of format 1"),
        ("{}", "not a normcheck report of format 1"),
        ("[1]", "not a normcheck report of format 1"),
        (json.dumps({"version": "2.1.0", "runs": []}), "not a normcheck report of format 1"),
        (json.dumps({**json.loads(render(REPORT)), "format": 2}), "a report of format 2"),
        (render(AGAINST), "it holds only what is new or worse than in main.json"),
    ],
    ids=["empty", "no report", "a list", "SARIF", "another format", "what a baseline left"],
)
@pytest.mark.usefixtures("engine")
def test_what_is_no_whole_report_is_refused_in_a_line(normcheck, saved, text, why):
    good, bad = saved("good.json", REPORT), saved("bad.json", text)
    for arguments in (("diff", good, bad), ("diff", bad, good), ("simulate", "--baseline", bad)):
        outcome = normcheck(*arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(f"normcheck: error: {bad}: {why}")
        assert outcome.err.count("\n") == 1


def test_a_file_that_is_not_there_is_an_error(normcheck, saved, tmp_path):
    path, missing = saved("good.json", REPORT), tmp_path / "missing.json"
    outcome = normcheck("diff", path, missing)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"normcheck: error: {missing}: cannot be read: No such file or directory\n"


def test_a_diff_loads_nothing_heavy(saved):
    path = saved("model.json", MODEL)
    command = [sys.executable, "-X", "importtime", "-m", "normcheck", "diff", path, path]
    done = subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT, timeout=60)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "normcheck.analysis.compare" in loaded
    assert loaded.isdisjoint({"torch", "numba", "numpy", "scipy"})


@pytest.mark.parametrize("output", ["json", "html", "sarif", "junit", "markdown"])
@pytest.mark.parametrize("name", ["old.json", "new.json", "link"])
def test_the_reports_that_are_compared_are_not_overwritten(normcheck, saved, tmp_path, output, name):
    old, new = saved("old.json", REPORT), saved("new.json", without(REPORT, "NC102"))
    (tmp_path / "link").symlink_to("old.json")
    before = (old.read_bytes(), new.read_bytes())
    outcome = normcheck("diff", old, new, f"--{output}", tmp_path / name)
    assert (outcome.code, outcome.out) == (2, "")
    assert "this run reads that file" in outcome.err
    assert (old.read_bytes(), new.read_bytes()) == before


# --------------------------------------------------------------------------------------------------- --baseline


def test_a_run_against_itself_finds_nothing(engine, normcheck, saved):
    assert engine.report.findings
    baseline = saved("base.json", REPORT)
    assert normcheck("simulate").code == 1
    outcome = normcheck("simulate", "--baseline", baseline, "--fail-on", "note")
    assert outcome.code == 0
    assert says(outcome, f"against {baseline}: 0 findings new or worse")


def test_a_run_fails_by_what_its_baseline_does_not_have(engine, normcheck, saved):
    baseline = saved("base.json", without(REPORT, "NC102"))
    outcome = normcheck("simulate", "--baseline", baseline, "--format", "json")
    assert outcome.code == 1
    report = from_json(outcome.out)
    assert [finding.rule for finding in report.findings] == ["NC102"]
    assert report.summary.known == len(engine.report.findings) - 1
    assert report.comparison.old == str(baseline)
    assert normcheck("simulate", "--baseline", saved("base.json", without(REPORT, "NC306"))).code == 0


def test_a_baseline_that_is_not_there_says_how_to_make_one(engine, normcheck, tmp_path):
    missing = tmp_path / "base.json"
    outcome = normcheck("simulate", "--baseline", missing)
    how = f"to make a baseline, run with --json {missing} instead of --baseline"
    assert outcome == (2, "", f"normcheck: error: {missing}: no such file: {how}\n")
    assert engine.calls == []


def test_the_baseline_is_not_overwritten_by_what_is_new(engine, normcheck, saved, monkeypatch):
    baseline = saved("base.json", REPORT)
    monkeypatch.chdir(baseline.parent)
    outcome = normcheck("simulate", "--baseline", baseline, "--json", "base.json")
    assert outcome.code == 2
    assert "--json base.json: this run reads that file" in outcome.err
    assert baseline.read_text(encoding="utf-8") == render(REPORT)
    assert engine.calls == []


# ------------------------------------------------------------------------------------------------ from end to end


def test_parameters_in_float32_mend_a_real_model(normcheck, tmp_path):
    half, autocast = tmp_path / "half.json", tmp_path / "autocast.json"
    for path in (half, autocast):
        normcheck("analyze", MLP, "--params", path.stem, "--json", path, "--quiet")
    better = normcheck("diff", half, autocast)
    assert better.code == 0
    assert says(better, "params half -> autocast")
    assert says(better, "gone error NC102")
    assert says(better, "rows bad 2 -> 0")
    worse = normcheck("diff", autocast, half)
    assert worse.code == 1
    assert says(worse, "rows bad 0 -> 2")


def test_a_real_run_against_itself_finds_nothing(normcheck, tmp_path):
    baseline = tmp_path / "base.json"
    assert normcheck("analyze", MLP, "--json", baseline, "--quiet").code == 1
    outcome = normcheck("analyze", MLP, "--baseline", baseline, "--quiet", "--format", "json", "--fail-on", "note")
    assert outcome.code == 0
    report = from_json(outcome.out)
    assert report.findings == report.comparison.regressions == report.comparison.settings == ()
    assert report.comparison.unchanged == report.summary.known == len(from_json(baseline.read_bytes()).findings)


def test_a_larger_input_is_worse_and_said(normcheck, tmp_path):
    small, large, other = (tmp_path / f"{name}.json" for name in ("small", "large", "other"))
    common = ("simulate", "--shape", "8,8,8,8", "--quiet", "--implementation")
    normcheck(*common, "pure", "--json", small)
    normcheck(*common, "pure", "--std", "100", "--json", large)
    normcheck(*common, "wide", "--std", "100", "--json", other)
    worse = normcheck("diff", small, large)
    assert worse.code == 1
    assert says(worse, "std 1 -> 100")
    assert says(worse, "verdict ok -> unsafe")
    assert normcheck("diff", large, small).code == 0
    elsewhere = normcheck("diff", large, other)
    assert elsewhere.code == 0
    assert "only in" in elsewhere.out
    assert "\ngone " not in elsewhere.out
