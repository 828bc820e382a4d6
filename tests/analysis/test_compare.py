"""What is new, worse, better and gone from one report to the next, and what a baseline leaves of a report."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf, nan
from pathlib import Path

import pytest
from large_reports import large_report

from normcheck.analysis import matching
from normcheck.analysis.compare import against, compare, difference
from normcheck.analysis.moves import TOLERANCE
from normcheck.render.json_report import from_json, render
from normcheck.results import Advice, FindingCounts, Measure, SettingChange, Skipped, WorstRow

PAST = Path(__file__).resolve().parents[1] / "render" / "past"
BASE = large_report(2)
LAYER, OTHER = (layer.name for layer in BASE.layers)
OK = replace(
    BASE.results[0],
    verdict="ok",
    headroom=replace(BASE.results[0].headroom, overflow_bits=4.0),
    deviation=replace(BASE.results[0].deviation, relative_rms=0.01),
    safe_scale=(0.5, 8.0),
    rows=replace(BASE.results[0].rows, collapsed=0),
)
UNSAFE = replace(OK, verdict="unsafe", rows=replace(OK.rows, collapsed=3))
NOTE = next(f for f in BASE.findings if f.rule == "NC401" and f.layer == LAYER)


def measure(value, worse="higher", unit="rows", name="rows.collapsed"):
    return Measure(name=name, value=float(value), limit=0.0, worse=worse, unit=unit)


def on(result, rule="NC102", severity="error", **changes):
    """A finding on a result."""
    place = {name: getattr(result, name) for name in ("layer", "norm", "precision", "implementation", "mode", "params")}
    return replace(NOTE, rule=rule, severity=severity, **{"step": "square", "measure": measure(3), **place, **changes})


def report(results=(OK,), findings=(), layers=BASE.layers, **changes):
    return replace(BASE, results=tuple(results), findings=tuple(findings), layers=tuple(layers), **changes)


def compared(old, new):
    return compare(old, new, "old.json", "new.json")


def of(old, new):
    """Findings on one unchanged result, compared."""
    return compared(report(findings=old), report(findings=new))


def kinds(changes):
    return [(change.kind, change.rule) for change in changes]


def moves(change):
    return {figure.name: (figure.old, figure.new) for figure in change.figures}


# ----------------------------------------------------------------------------------------------------- findings


def test_a_report_is_no_worse_than_itself():
    same = compared(BASE, BASE)
    assert same.unchanged == len(BASE.findings) > 0
    assert replace(same, unchanged=0) == compare(report([]), report([]), "old.json", "new.json")
    assert same.regressions == same.improvements == same.unasked == same.only_old == same.settings == ()


def test_a_finding_without_a_counterpart_is_new_and_the_other_way_round_gone():
    found = on(OK)
    comparison = of([], [found])
    assert kinds(comparison.regressions) == [("new", "NC102")]
    (change,) = comparison.regressions
    assert (change.layer, change.norm, change.precision, change.implementation, change.params, change.mode) == (
        OK.layer, OK.norm, OK.precision, OK.implementation, OK.params, OK.mode,
    )  # fmt: skip
    assert (change.severity, change.message) == (found.severity, found.message)
    assert kinds(of([found], []).improvements) == [("gone", "NC102")]
    assert of([found], []).improvements[0].severity == "error"


def test_the_severity_decides_before_the_figure():
    warning, error = on(OK, severity="warning"), on(OK, severity="error")
    worse = of([warning], [error])
    assert kinds(worse.regressions) == [("worse", "NC102")]
    assert moves(worse.regressions[0]) == {"severity": ("warning", "error")}
    assert kinds(of([error], [warning]).improvements) == [("better", "NC102")]
    milder_but_more = of([error], [on(OK, severity="warning", measure=measure(9))])
    assert kinds(milder_but_more.regressions) == [("worse", "NC102")]


@pytest.mark.parametrize(
    ("old", "new", "unit", "worse", "expected"),
    [
        (3, 4, "rows", "higher", "worse"),
        (4, 3, "rows", "higher", "better"),
        (0.5, 0.2, "bits", "lower", "worse"),
        (0.2, 0.5, "bits", "lower", "better"),
        (0.5, 0.5 - TOLERANCE / 2, "bits", "lower", None),
        (0.01, 0.01 * (1 + TOLERANCE / 2), "ratio", "higher", None),
        (0.01, 0.01 * (1 + 2 * TOLERANCE), "ratio", "higher", "worse"),
        (0.01, 0.01 * (1 - 2 * TOLERANCE), "ratio", "higher", "better"),
        (0.0, 1e-9, "ratio", "higher", "worse"),
        (1.0, inf, "ratio", "higher", "worse"),
        (inf, 1.0, "ratio", "higher", "better"),
        (inf, inf, "ratio", "higher", None),
        (-inf, inf, "bits", "lower", "better"),
        (nan, nan, "ratio", "higher", None),
        (1.0, nan, "ratio", "lower", "worse"),
        (nan, inf, "ratio", "higher", "better"),
    ],
)
def test_a_figure_beyond_the_tolerance_decides(old, new, unit, worse, expected):
    before, after = (on(OK, measure=measure(value, worse, unit)) for value in (old, new))
    comparison = of([before], [after])
    changes = (*comparison.regressions, *comparison.improvements)
    assert [change.kind for change in changes] == ([expected] if expected else [])
    assert comparison.unchanged == (expected is None)
    for change in changes:
        (figure,) = change.figures
        assert (figure.name, figure.unit) == ("rows.collapsed", unit)
        assert repr((figure.old, figure.new)) == repr((float(old), float(new)))


def test_findings_of_one_rule_are_matched_by_step_and_figure_whatever_their_order():
    beyond, shift = (on(OK, "NC104", measure=measure(2, name=name)) for name in ("parameters.beyond", "shift"))
    load, store = (on(OK, "NC302", step=step, measure=measure(2, name="lost_mass")) for step in ("load", "store"))
    assert of([beyond, shift, load, store], [store, load, shift, beyond]).unchanged == 4
    more = replace(store, measure=measure(9, name="lost_mass"))
    comparison = of([load, store], [more, load])
    assert kinds(comparison.regressions) == [("worse", "NC302")]
    assert moves(comparison.regressions[0]) == {"lost_mass": (2.0, 9.0)}


def test_the_same_figure_at_another_step_is_the_same_finding_and_another_figure_is_not():
    comparison = of([on(OK, step="square")], [on(OK, step="sum")])
    assert comparison.unchanged == 1
    other = of([on(OK, "NC104", step=None, measure=measure(2, name="beyond"))],
               [on(OK, "NC104", step=None, measure=measure(2, name="nonfinite"))])  # fmt: skip
    assert (kinds(other.regressions), kinds(other.improvements)) == ([("new", "NC104")], [("gone", "NC104")])


def test_one_more_of_several_alike_is_new():
    one, two = (on(OK, step=None, measure=None, message=text) for text in ("one", "two"))
    comparison = of([one], [one, two])
    assert [change.message for change in comparison.regressions] == ["two"]
    assert comparison.unchanged == 1


def test_the_worst_comes_first():
    levels = ("note", "error", "warning", "error")
    results = [replace(UNSAFE, layer=f"l{bad}", rows=replace(OK.rows, collapsed=bad)) for bad in range(4)]
    found = [on(result, severity=level) for result, level in zip(results, levels, strict=True)]
    changes = compared(report([]), report(results, found)).regressions
    assert [(change.layer, change.rule, change.severity) for change in changes] == [
        ("l3", "NC102", "error"),
        ("l1", "NC102", "error"),
        ("l0", None, "error"),
        ("l2", "NC102", "warning"),
        ("l0", "NC102", "note"),
    ]


def test_a_finding_about_a_layer_is_compared_whatever_it_is_run_in():
    assert kinds(of([], [NOTE]).regressions) == [("new", "NC401")]
    assert kinds(of([NOTE], []).improvements) == [("gone", "NC401")]
    assert of([NOTE], [NOTE]).unchanged == 1


def with_room(result, bits, loss, verdict):
    room, error = replace(result.headroom, overflow_bits=bits), replace(result.deviation, relative_rms=loss)
    return replace(result, headroom=room, deviation=error, verdict=verdict)


ROOM, LOSS = "headroom.overflow_bits", "deviation.relative_rms"


@pytest.mark.parametrize(
    ("bits", "loss", "verdict", "room", "deviation"),
    [
        (-1.0, None, "unsafe", "better", "better"),
        (-1.0, 1.0, "unsafe", "better", "better"),
        (-1.0, nan, "unsafe", "better", "better"),
        (0.5, 0.02, "unsafe", "better", "better"),
        (4.0, 0.001, "unsafe", "new", "new"),
        (None, 0.001, "unsafe", "new", "new"),
        (-1.0, 1.0, "degraded", "new", "new"),
    ],
)
def test_what_a_graver_verdict_hid_is_not_new(bits, loss, verdict, room, deviation):
    old, new = with_room(OK, bits, loss, verdict), with_room(OK, 0.5, 0.02, "degraded")
    found = [
        on(new, "NC103", "warning", measure=measure(0.5, "lower", "bits", ROOM)),
        on(new, "NC301", "warning", measure=measure(0.02, "higher", "ratio", LOSS)),
    ]
    comparison = compared(report([old], [on(old)]), report([new], found))
    told = {change.rule: change.kind for change in (*comparison.regressions, *comparison.improvements)}
    assert told == {"NC102": "gone", "NC103": room, "NC301": deviation}


def test_what_no_figure_of_the_result_tells_is_new_whatever_the_verdict_was():
    for figure in (None, measure(9, "higher", "channels", "parameters.flushed")):
        comparison = compared(
            report([UNSAFE], [on(UNSAFE)]), report([OK], [on(OK, "NC204", "warning", measure=figure)])
        )
        assert kinds(comparison.regressions) == [("new", "NC204")]


# ------------------------------------------------------------------------------------------------------ figures


def test_the_figures_that_moved_are_told_and_no_others():
    after = replace(
        UNSAFE,
        headroom=replace(OK.headroom, overflow_bits=3.97),
        deviation=replace(OK.deviation, relative_rms=None),
        safe_scale=None,
    )
    (change,) = compared(report([OK]), report([after], [on(after)])).regressions
    assert moves(change) == {
        "verdict": ("ok", "unsafe"),
        "rows.bad": (0, 3),
        "deviation.relative_rms": (0.01, None),
        "safe_scale.high": (8.0, None),
    }


def test_the_figure_of_the_rule_is_told_once():
    after = replace(OK, headroom=replace(OK.headroom, overflow_bits=0.5))
    name = "headroom.overflow_bits"
    old, new = (on(OK, "NC103", measure=measure(value, "lower", "bits", name)) for value in (0.9, 0.5))
    (change,) = compared(report([OK], [old]), report([after], [new])).regressions
    assert [(figure.name, figure.old, figure.new) for figure in change.figures] == [(name, 0.9, 0.5)]


# ----------------------------------------------------------------------------------------------------- verdicts


def test_a_worse_verdict_without_a_finding_that_says_so_is_a_regression_of_its_own():
    comparison = compared(report([OK]), report([UNSAFE]))
    (change,) = comparison.regressions
    assert (change.kind, change.rule, change.severity) == ("worse", None, "error")
    assert change.message == "the verdict is unsafe, it was ok"
    assert moves(change) == {"verdict": ("ok", "unsafe"), "rows.bad": (0, 3)}
    degraded = compared(report([OK]), report([replace(OK, verdict="degraded")])).regressions
    assert [change.severity for change in degraded] == ["warning"]
    assert kinds(compared(report([UNSAFE]), report([OK])).improvements) == [("better", None)]


def test_a_finding_that_says_it_is_enough_and_a_note_does_not_say_it():
    said = compared(report([OK]), report([UNSAFE], [on(UNSAFE)]))
    assert kinds(said.regressions) == [("new", "NC102")]
    unsaid = compared(report([OK]), report([UNSAFE], [on(UNSAFE, "NC202", "note")]))
    assert kinds(unsaid.regressions) == [("worse", None), ("new", "NC202")]


# ------------------------------------------------------------------------------------------------------- places


def test_what_a_new_layer_has_is_new_and_what_a_removed_one_had_is_no_improvement():
    added = replace(UNSAFE, layer="added")
    comparison = compared(report([OK]), report([OK, added], [on(added)]))
    assert kinds(comparison.regressions) == [("new", "NC102")]
    assert (comparison.only_old, comparison.only_new) == ((), ("added",))
    back = compared(report([OK, added], [on(added)]), report([OK]))
    assert back.improvements == back.regressions == ()
    assert (back.only_old, back.only_new, back.unchanged) == (("added",), (), 0)


def test_a_new_layer_is_a_regression_by_its_verdict_alone_too():
    comparison = compared(report([OK]), report([OK, replace(UNSAFE, layer="added")]))
    assert kinds(comparison.regressions) == [("new", None)]
    assert comparison.regressions[0].figures == ()


def test_a_place_that_only_one_report_analysed_is_named_whole_where_its_layer_is_in_both():
    second = replace(OK, precision="bf16")
    comparison = compared(report([OK, second], [on(second)]), report([OK, replace(OK, mode="eval")]))
    assert comparison.only_old == (f"{LAYER} batch-l2 bf16 wide train half",)
    assert comparison.only_new == (f"{LAYER} batch-l2 fp16 wide eval half",)
    assert comparison.improvements == ()


def test_other_params_are_the_same_place_and_said():
    old = report([OK], [on(OK)], settings={"params": "half"})
    new_result = replace(OK, params="autocast")
    new = report([new_result], [on(new_result, measure=measure(9))], settings={"params": "autocast"})
    comparison = compared(old, new)
    assert kinds(comparison.regressions) == [("worse", "NC102")]
    assert comparison.regressions[0].params == "autocast"
    assert comparison.only_old == comparison.only_new == ()
    assert comparison.settings == (SettingChange(name="params", old="half", new="autocast"),)


def test_other_params_are_another_place_where_a_report_has_both():
    stored = [replace(OK, params=params) for params in ("half", "io", "autocast")]
    comparison = compared(report(stored[:2]), report(stored[2:]))
    assert (len(comparison.only_old), len(comparison.only_new)) == (2, 1)


def test_a_simulation_has_no_layers():
    simulated = replace(OK, layer=None)
    old, new = report([simulated], layers=()), report([replace(UNSAFE, layer=None)], [on(simulated)], layers=())
    assert kinds(compared(old, new).regressions) == [("new", "NC102")]
    assert compared(old, report([OK])).only_old == ("batch-l2 fp16 wide train half",)


def test_a_skipped_tensor_that_is_skipped_no_more_is_gone():
    skipped = replace(NOTE, rule="NC404", layer="head.scale", norm="")
    assert kinds(of([skipped], []).improvements) == [("gone", "NC404")]
    assert kinds(of([], [skipped]).regressions) == [("new", "NC404")]


# --------------------------------------------------------------------------------------- views, rules, settings


def test_the_view_that_nobody_asked_for_is_compared_apart():
    beside, worse = (replace(result, implementation="pure", asked=False) for result in (OK, UNSAFE))
    found = on(worse, severity="note")
    comparison = compared(report([OK, beside]), report([OK, worse], [found]))
    assert comparison.regressions == comparison.improvements == ()
    assert kinds(comparison.unasked) == [("new", "NC102")]
    assert kinds(compared(report([OK, worse], [found]), report([OK, beside])).unasked) == [("gone", "NC102")]


def test_what_is_gone_because_its_rule_is_not_in_force_is_no_improvement():
    old = report([OK], [on(OK), on(OK, "NC401", "note")])
    for settings in ({"select": ["NC4"]}, {"ignore": ["NC102"]}, {"ignore": [f"NC1:{LAYER}"]}):
        comparison = compared(old, report([OK], settings=settings))
        assert kinds(comparison.improvements) == [("gone", "NC401")]
    elsewhere = compared(old, report([OK], settings={"ignore": [f"NC1:{OTHER}"]}))
    assert kinds(elsewhere.improvements) == [("gone", "NC102"), ("gone", "NC401")]


@pytest.mark.parametrize("words", [["NC999"], 5, [5], "", None, {"a": 1}])
def test_rules_that_this_version_does_not_know_are_taken_as_all(words):
    comparison = compared(report([OK], [on(OK)]), report([OK], settings={"select": words}))
    assert kinds(comparison.improvements) == [("gone", "NC102")]


def test_settings_that_differ_are_said_in_words():
    old = report(
        settings={"seed": 0, "ftz": False, "spatial": [8, 8], "kinds": [], "mean": 0, "order": None, "gone": 1}
    )
    new = replace(
        old,
        command="simulate",
        tool=replace(old.tool, version="9.9"),
        settings={"seed": 1, "ftz": True, "spatial": (7, 7), "kinds": (("*", "layer"),), "mean": 0.0, "order": "tree"},
    )
    assert {change.name: (change.old, change.new) for change in compared(old, new).settings} == {
        "command": ("analyze", "simulate"),
        "version": ("0.1.0", "9.9"),
        "seed": ("0", "1"),
        "ftz": ("no", "yes"),
        "spatial": ("8,8", "7,7"),
        "kinds": ("default", "*=layer"),
        "order": ("default", "tree"),
    }


def test_a_setting_is_the_same_before_it_is_written_and_after():
    live = report(settings={"eps": [("*", 1e-5)], "mean": inf, "thresholds": (("a", 0.5),), "models": ["caf\udce9.pt"]})
    assert compared(from_json(render(live)), live).settings == ()


def test_names_that_are_no_unicode_are_the_same_before_they_are_written_and_after():
    strange = replace(OK, layer="caf\udce9")
    live = report(
        [strange], [on(strange), replace(NOTE, layer="caf\udce9")], [replace(BASE.layers[0], name="caf\udce9")]
    )
    comparison = compared(from_json(render(live)), live)
    assert (comparison.unchanged, comparison.regressions, comparison.only_old) == (2, (), ())


# ------------------------------------------------------------------------------------------- reports of the past


@pytest.mark.parametrize("path", sorted(PAST.glob("*.json")), ids=lambda path: path.stem)
def test_reports_of_old_versions_are_no_worse_than_themselves(path):
    old = from_json(path.read_bytes())
    comparison = compared(old, old)
    assert comparison.unchanged == len(old.findings) > 0
    assert comparison.regressions == comparison.improvements == comparison.only_old == ()


@pytest.mark.parametrize("command", ["analyze", "simulate"])
def test_reports_of_two_old_versions_say_the_same(command):
    first, second = (from_json(path.read_bytes()) for path in sorted(PAST.glob(f"*-{command}-*.json")))
    comparison = compared(first, second)
    assert comparison.unchanged == len(first.findings)
    assert comparison.regressions == comparison.improvements == ()


def test_a_finding_of_an_old_version_has_the_params_of_its_result_and_may_be_about_any_figure():
    old = on(OK, params=None, measure=None)
    assert compared(report([OK], [old]), report([OK], [on(OK)])).unchanged == 1
    (change,) = compared(report([OK], [old]), report([OK])).improvements
    assert change.params == OK.params


# --------------------------------------------------------------------------------------- --baseline, and the diff


def run():
    """A run with a known finding, a new one and one of the view that nobody asked for, after its baseline."""
    other, beside = replace(OK, layer=OTHER), replace(UNSAFE, implementation="pure", asked=False)
    known, new, note = on(OK), on(other), on(beside, severity="note")
    advice = [Advice(title=layer, layers=(layer,), snippet="", evidence="") for layer in (LAYER, OTHER)]
    results = [OK, other, beside]
    now = report(results, [known, new, note], advice=tuple(advice), unreadable=(Skipped(name="b.pt", reason="empty"),))
    return report([OK, other, replace(beside, verdict="ok")], [known]), now


def test_against_a_baseline_only_what_is_new_or_worse_is_left():
    old, now = run()
    left = against(now, old, "base.json")
    assert [finding.layer for finding in left.findings] == [OTHER, LAYER]
    assert left.findings == now.findings[1:]
    assert left.summary.findings == FindingCounts(error=1, warning=0, note=1)
    assert left.summary.known == 1
    assert left.comparison == compare(old, now, "base.json", None)
    assert (left.results, left.command, left.unreadable) == (now.results, now.command, now.unreadable)


def test_advice_stays_where_a_layer_still_has_a_finding():
    old, now = run()
    titles = {item.title for item in against(now, old, "base.json").advice}
    assert titles == {LAYER, OTHER}
    assert {item.title for item in difference(old, now, "a", "b").advice} == {OTHER}
    assert against(now, now, "base.json").advice == ()


def test_a_baseline_of_the_run_itself_leaves_nothing():
    _, now = run()
    left = against(now, from_json(render(now)), "base.json")
    assert left.findings == ()
    assert left.summary.known == 3
    assert left.comparison.regressions == ()


def test_a_difference_is_the_new_report_without_what_is_no_worse():
    old, now = run()
    diff = difference(old, now, "old.json", "new.json")
    assert diff.command == "diff"
    assert [finding.layer for finding in diff.findings] == [OTHER]
    assert (diff.summary.findings.error, diff.summary.findings.note, diff.summary.known) == (1, 0, 1)
    assert kinds(diff.comparison.unasked) == [("new", "NC102")]
    assert (diff.results, diff.layers, diff.rules, diff.formats) == (now.results, now.layers, now.rules, now.formats)
    assert diff.unreadable == ()
    assert diff.skipped == now.unreadable


def test_nothing_is_lost_between_old_and_new():
    old, new = large_report(40), large_report(40)
    some = [f for index, f in enumerate(old.findings) if index % 3]
    worse = [replace(f, measure=replace(f.measure, value=f.measure.value + 99)) if f.measure else f for f in some]
    comparison = compared(old, replace(new, findings=tuple(worse)))
    old_ones = len(comparison.improvements) + comparison.unchanged + sum(map(_is_worse, comparison.regressions))
    assert old_ones == len(old.findings)
    ranks = [("error", "warning", "note").index(change.severity) for change in comparison.regressions]
    assert ranks
    assert all(one <= other for one, other in pairwise(ranks))


def _is_worse(change):
    return change.kind == "worse" and change.rule is not None


def test_the_work_grows_with_the_size_of_the_reports_and_not_faster(monkeypatch):
    calls = []
    monkeypatch.setattr(matching, "_same_step_and_figure", lambda *pair: calls.append(pair) or True)

    def work(layers):
        calls.clear()
        compared(large_report(layers), large_report(layers))
        return len(calls)

    assert 0 < work(400) <= 5 * work(100)


def test_a_row_of_the_worst_rows_is_no_figure():
    row = WorstRow(index=1, kind="collapsed", s=1.0, s_emulated=inf, first_bad_step="square")
    assert compared(report([UNSAFE]), report([replace(UNSAFE, worst_rows=(row,))])).regressions == ()
