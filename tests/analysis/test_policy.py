"""Which findings are reported and how severe they are: selectors, levels, thresholds, and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from normcheck import analyze, simulate
from normcheck.analysis.policy import EVERYTHING, policy_of
from normcheck.analysis.rules import RULES, policy
from normcheck.analysis.thresholds import DEFAULTS
from normcheck.errors import UsageError
from normcheck.results import Finding

DATA = Path(__file__).parent.parent.parent / "data"
CODES = [rule.code for rule in RULES]


def policy_with(**words):
    return policy_of(CODES, **words)


# ---------------------------------------------------------------------------------------------- which findings


def wanted(select=(), ignore=(), layer="encoder.0.norm"):
    chosen = policy_with(select=select, ignore=ignore)
    return [code for code in CODES if chosen.wants(code, layer)]


def test_without_selectors_every_rule_is_in_force():
    assert wanted() == CODES
    assert all(EVERYTHING.wants(code, None) for code in CODES)


def test_an_unknown_code_has_its_nearest_as_they_are_written():
    with pytest.raises(UsageError, match=r"unknown rule 'nc1022': did you mean NC102, "):
        policy_with(select=["nc1022"])


def test_what_is_said_of_no_layer_is_known():
    rules = policy_with(
        select=["NC1", "NC102:encoder.*", "nc3:decoder.*"],
        ignore=["ALL:head", "NC102:a[0]"],
        severity={"NC103:encoder": "note", "NC401": "error"},
        thresholds={"coherent": 1.0, "tail.*:coherent": 2.0},
    )
    assert list(rules.idle(["encoder.0.norm", "a[0]"])) == [
        "select 'NC3:decoder.*' matches no layer",
        "ignore 'ALL:head' matches no layer",
        "severity 'NC103:encoder' matches no layer",
        "threshold 'tail.*:coherent' matches no layer",
    ]
    assert list(rules.idle(["encoder", "decoder.0", "encoder.0", "head", "tail.norm", "a[0]"])) == []


def test_a_run_says_what_is_of_no_layer_also_where_only_some_are_asked_for():
    said = []
    words = {"ignore": ["NC102:no.*", "NC103:hidden_norm"], "layers": ["input_norm"]}
    analyze(DATA / "breast-cancer-mlp.pt", precisions=["fp16"], mode="eval", jobs=1, say=said.append, **words)
    assert said[1:] == ["ignore 'NC102:no.*' matches no layer"]


@pytest.mark.parametrize("text", ["NC102", "nc102", " NC102 ", "NC102:*", "NC102:encoder.*", "NC102 : encoder.0.norm"])
def test_a_code_selects_one_rule(text):
    assert wanted(select=[text]) == ["NC102"]


@pytest.mark.parametrize(
    ("prefix", "count"), [("NC1", 6), ("NC2", 6), ("NC3", 6), ("NC4", 4), ("NC5", 4), ("NC", 26), ("ALL", 26)]
)
def test_the_beginning_of_a_code_selects_all_that_begin_so(prefix, count):
    chosen = wanted(select=[prefix])
    assert len(chosen) == count
    assert all(prefix == "ALL" or code.startswith(prefix) for code in chosen)
    assert wanted(ignore=[prefix]) == [code for code in CODES if code not in chosen]


@pytest.mark.parametrize(
    ("select", "ignore", "left"),
    [
        (["NC102"], ["ALL"], ["NC102"]),  # the longer code decides, whichever side it is on
        (["ALL"], ["NC102"], [code for code in CODES if code != "NC102"]),
        (["NC102"], ["NC1"], ["NC102"]),
        (["NC1"], ["NC102"], ["NC101", "NC103", "NC104", "NC105", "NC106"]),
        (["NC102"], ["NC102"], []),  # a tie is ignored
        (["ALL"], ["ALL"], []),
        (
            ["NC1:encoder.*"],
            ["NC102"],
            ["NC101", "NC102", "NC103", "NC104", "NC105", "NC106"],
        ),  # layers go before codes
        (["NC102"], ["NC1:encoder.*"], []),
        (["NC102:encoder.0.*"], ["NC102:encoder.*"], ["NC102"]),  # more of the name spelt out
        (["NC102:encoder.*"], ["NC102:encoder.0.norm"], []),
        (["NC102:encoder.?.norm"], ["NC102:encoder.[0-9].norm"], []),  # equally much
        (["NC102", "NC3:decoder.*"], [], ["NC102"]),
    ],
)
def test_the_most_specific_selector_decides(select, ignore, left):
    assert wanted(select, ignore) == left


def test_a_pattern_is_a_glob_of_the_whole_name_and_knows_case():
    chosen = policy_with(select=["NC1:encoder.*.norm"])
    taken = {"encoder.0.norm": True, "encoder.0.1.norm": True, "encoder.0.norm1": False, "Encoder.0.norm": False}
    assert {name: chosen.wants("NC101", name) for name in [*taken, "my.encoder.0.norm"]} == taken | {
        "my.encoder.0.norm": False
    }
    assert not chosen.wants("NC101", None)


# ----------------------------------------------------------------------------------------- levels, thresholds


def test_the_last_level_that_matches_is_given():
    levels = policy_with(severity=[("NC3", "error"), ("NC301", "note"), ("NC301:head.*", "WARNING")])
    assert levels.severity("NC302", "head.norm") == "error"
    assert levels.severity("NC301", "tail") == "note"
    assert levels.severity("NC301", "head.norm") == "warning"
    assert levels.severity("NC102", "head.norm") is None
    assert policy_with(severity={"NC301": "note", "ALL": "error"}).severity("NC301", None) == "error"


def test_a_layer_can_be_named_as_it_is_brackets_and_all():
    policy = policy_with(ignore=["NC102:params[0].norm"], thresholds={"params[0].norm:deviation": 1.0})
    assert [policy.wants("NC102", name) for name in ("params[0].norm", "params0.norm", "params[1].norm")] == [
        False,
        False,
        True,
    ]
    assert policy.limits("params[0].norm") == replace(DEFAULTS, deviation=1.0)


def test_the_last_threshold_that_matches_is_taken():
    limits = policy_with(thresholds=[("headroom_bits", 2), ("head.*:headroom-bits", 4.0), ("*.0:COHERENT", 8)])
    assert limits.limits("tail") == replace(DEFAULTS, headroom_bits=2.0)
    assert limits.limits("head.0") == replace(DEFAULTS, headroom_bits=4.0, coherent=8.0)
    assert limits.limits(None) == replace(DEFAULTS, headroom_bits=2.0)
    assert policy_with(thresholds={"a:deviation": 1.0}).limits("b") == DEFAULTS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"select": ["NC110"]}, "unknown rule 'NC110'.*NC10.*normcheck rules"),
        ({"ignore": ["NC9:encoder.*"]}, "unknown rule 'NC9'.*normcheck rules"),
        ({"ignore": ["silent-collapse"]}, "unknown rule 'silent-collapse'"),
        ({"select": [""]}, "unknown rule ''"),
        ({"select": ["NC102:"]}, "'NC102:' names no layers.*CODE:PATTERN"),
        ({"severity": {"NC102": "fatal"}}, "severity of NC102: 'fatal' is none; give error, warning or note"),
        ({"severity": {"NC012": "error"}}, "unknown rule 'NC012'"),
        ({"thresholds": {"headroom": 1.0}}, "unknown threshold 'headroom'.*headroom_bits.*normcheck rules"),
        ({"thresholds": {"head.*:headrom_bits": 1.0}}, "unknown threshold 'headrom_bits'.*headroom_bits"),
        ({"thresholds": {":headroom_bits": 1.0}}, "':headroom_bits' names no layers.*PATTERN:NAME"),
        ({"thresholds": {"headroom_bits": -1.0}}, "threshold headroom_bits: give a number.*-1.0"),
        ({"thresholds": {"headroom_bits": float("nan")}}, "give a number that is finite"),
        ({"thresholds": {"headroom_bits": "2"}}, "give a number.*'2'"),
        ({"thresholds": {"headroom_bits": True}}, "give a number.*True"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_with_what_could(words, said):
    with pytest.raises(UsageError, match=said) as caught:
        policy_with(**words)
    assert "\n" not in str(caught.value)


def test_a_single_selector_needs_no_list():
    assert policy_with(select="NC102") == policy_with(select=["NC102"])


# ---------------------------------------------------------------------------------------- findings and reports


def finding(rule="NC102", severity="warning", layer="a"):
    return Finding(
        rule=rule, severity=severity, layer=layer, norm="rms", precision="fp16", implementation="pure", mode="train",
        step=None, message="m", fix="f", assumed=True,
    )  # fmt: skip


def test_findings_are_kept_counted_and_relabelled():
    judge = policy([], ["NC3"], {"NC102": "error"}, {})
    kept, ignored = judge.judged([finding(), finding("NC301"), finding("NC304", "note")])
    assert kept == [finding(severity="error")]
    assert ignored == 2
    unasked, ignored = judge.judged([finding(severity="note"), finding("NC301", "note")], as_notes=True)
    assert (unasked, ignored) == ([finding(severity="note")], 1)


LARGE = {"norms": ["layer-l2"], "implementations": ["pure"], "shape": (2, 256), "jobs": 1}


def codes(report):
    return {f.rule for f in report.findings}


def test_the_verdict_follows_deselection_and_the_summary_counts_it():
    settings = LARGE | {"mean": 30.0}  # NC301 and nothing worse
    (full,) = simulate(**settings).results
    assert full.verdict == "degraded"
    without = simulate(**settings, ignore=["NC3"])
    assert without.results[0].verdict == "ok"
    assert without.summary.ignored == len(simulate(**settings).findings) - len(without.findings) > 0
    assert without.results[0].safe_scale == full.safe_scale  # a figure, not a finding
    assert simulate(**settings, severity={"NC301": "note"}).results[0].verdict == "ok"


def test_what_is_unsafe_stays_so():
    report = simulate(**LARGE, std=1000.0, ignore=["ALL"])
    assert report.results[0].verdict == "unsafe"
    assert report.findings == ()
    assert report.summary.ignored > 0


def test_thresholds_reach_the_rules_and_the_safe_scale():
    settings = LARGE | {"mean": 30.0}
    strict, lax = simulate(**settings), simulate(**settings, thresholds={"deviation_ideal": 1000.0})
    assert "NC301" in codes(strict)
    assert "NC301" not in codes(lax)
    assert strict.results[0].safe_scale[1] < 1.0  # NC301 bounds it
    assert lax.results[0].safe_scale[1] > 1.0
    (found,) = [f for f in simulate(**LARGE, thresholds={"headroom_bits": 9}).findings if f.rule == "NC103"]
    assert (found.measure.limit, found.measure.worse) == (9.0, "lower")


MLP = {"model": str(DATA / "breast-cancer-mlp.pt"), "precisions": ["fp16"], "mode": "eval", "jobs": 1}


def test_a_threshold_for_some_layers_is_theirs_alone():
    report = analyze(**MLP, implementations=["wide"], thresholds={"hidden*:headroom_bits": 40.0})
    assert {f.layer for f in report.findings if f.rule == "NC103"} == {"hidden_norm"}


def test_selectors_for_some_layers_are_theirs_alone():
    every = analyze(**MLP)
    less = analyze(**MLP, ignore=["NC2:input_norm", "NC401:hidden*"])
    gone = [f for f in every.findings if f not in less.findings]
    assert {(f.rule, f.layer) for f in gone} == {("NC202", "input_norm"), ("NC401", "hidden_norm")}
    assert less.summary.ignored == len(gone)


def test_a_level_goes_above_the_cap_on_assumed_input_and_leaves_the_unasked_view_alone():
    settings = MLP | {"mode": "train"}
    plain = [f for f in analyze(**settings).findings if f.rule == "NC306"]
    raised = [f for f in analyze(**settings, severity={"NC306": "error"}).findings if f.rule == "NC306"]
    assert {(f.implementation, f.severity) for f in plain} == {("wide", "warning"), ("pure", "note")}
    assert {(f.implementation, f.severity) for f in raised} == {("wide", "error"), ("pure", "note")}
    assert all(f.assumed for f in raised)


def test_layers_and_tensors_can_be_deselected_too():
    report = analyze(**MLP, ignore=["NC401"])
    assert "NC401" not in codes(report)
    assert report.summary.ignored == 2
    assert {f.severity for f in analyze(**MLP, severity={"NC401": "error"}).findings if f.rule == "NC401"} == {"error"}


def test_the_docs_name_every_way_to_choose():
    text = (DATA.parent / "docs" / "rules.md").read_text(encoding="utf-8")
    choosing = text.partition("## Choosing rules")[2].partition("\n## ")[0]
    for option in ("select", "ignore", "severity", "threshold", "fail-on"):
        assert f"`--{option}" in choosing
