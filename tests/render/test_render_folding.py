"""Which layers a row stands for, and whose figures it has."""

from __future__ import annotations

import dataclasses
from math import inf, isnan, nan

import pytest
from hand_built import CLEAN, COLLAPSED, NEVER_FINITE, TIGHT, deviation
from hand_built_model import BATCH, BLOCKS, FINDINGS_OF_TIGHT, MODEL, finding, of_layer, room
from hand_built_model import TIGHT as TIGHT_LAYERS

from normcheck.render.folding import Names, folded, listed, merged
from normcheck.render.places import concerns
from normcheck.results import Rows, Tally

NAMES = Names(BATCH)


def fold(*results, findings=(), names=NAMES):
    return folded(results, findings, names)


def layers_of(shown):
    return [item.layers[0] for item in shown]


def named(count, pattern="blocks.{}.norm"):
    return [pattern.format(index) for index in range(count)]


# -------------------------------------------------------------------------------------------------- which fold


def test_layers_that_behave_the_same_are_one_row():
    (row,) = fold(*(of_layer(name) for name in BATCH[:-1]))
    assert row.layers[1] == "12 of 13 layers"
    assert row.result.rows.total == 12 * 64


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "batch-l1"},
        {"precision": "bf16"},
        {"implementation": "pure"},
        {"mode": "eval"},
        {"params": "autocast"},
        {"verdict": "degraded"},
        {"rows": Rows(total=64, nonfinite=0, collapsed=1, amplified=0, shrunk=0)},
    ],
)
def test_layers_that_differ_in_anything_that_matters_are_not(changes):
    assert len(fold(of_layer(BATCH[0]), of_layer(BATCH[1], **changes))) == 2


def test_bad_rows_of_other_classes_keep_layers_apart_and_their_number_does_not():
    def bad(layer, **classes):
        rows = {"total": 64, "nonfinite": 0, "collapsed": 0, "amplified": 0, "shrunk": 0, **classes}
        return of_layer(layer, rows=Rows(**rows), verdict="unsafe")

    assert len(fold(bad(BATCH[0], collapsed=1), bad(BATCH[1], collapsed=64))) == 1
    assert len(fold(bad(BATCH[0], collapsed=1), bad(BATCH[1], nonfinite=1))) == 2
    assert len(fold(bad(BATCH[0], collapsed=1), bad(BATCH[1], collapsed=1, nonfinite=1))) == 2


def test_rules_that_fired_keep_layers_apart_but_notes_do_not():
    pair = (of_layer(BATCH[0]), of_layer(BATCH[1]))
    warned = finding("NC301", "warning", BATCH[0], "m", "f")
    noted = finding("NC304", "note", BATCH[0], "m", "f")
    assert [item.rules for item in fold(*pair, findings=[warned])] == [("NC301",), ()]
    assert [item.rules for item in fold(*pair, findings=[noted])] == [()]


def test_findings_that_leave_a_place_open_hold_for_every_such_result():
    results = (of_layer(BATCH[0]), of_layer(BATCH[0], mode="eval"), of_layer(BATCH[0], precision="bf16"))
    anywhere = finding("NC104", "error", BATCH[0], "m", "f", implementation=None, mode=None)
    rules = {(item.result.precision, item.result.mode): item.rules for item in fold(*results, findings=[anywhere])}
    assert rules == {("fp16", "train"): ("NC104",), ("fp16", "eval"): ("NC104",), ("bf16", "train"): ()}


@pytest.mark.parametrize("field", ["layer", "norm", "precision", "implementation", "mode"])
def test_a_finding_concerns_results_that_agree_in_all_it_says(field):
    result = of_layer(BATCH[0])
    about = finding("NC301", "warning", BATCH[0], "m", "f")
    assert concerns(about, result)
    assert not concerns(dataclasses.replace(about, **{field: "other"}), result)
    open_place = dataclasses.replace(about, **{field: None})
    assert concerns(open_place, result) == (field not in {"layer", "norm"})


def test_the_worst_rows_come_first():
    unsafe = of_layer(BATCH[3], verdict="unsafe", headroom=room(30.0))
    tight = of_layer(BATCH[2], norm="batch-l1", headroom=room(-1.0))
    roomy = of_layer(BATCH[1], headroom=room(30.0))
    assert layers_of(fold(roomy, tight, unsafe)) == [BATCH[3], BATCH[2], BATCH[1]]


# ---------------------------------------------------------------------------------------------- whose figures


def test_a_row_of_one_layer_has_its_figures():
    (row,) = fold(of_layer(BATCH[0]))
    assert row.result == of_layer(BATCH[0])
    assert row.layers == (BATCH[0],)


def test_counts_are_sums():
    one = of_layer(BATCH[0], overflow=Tally(count=3, of=10, rows=2), rows=dataclasses.replace(COLLAPSED.rows))
    two = of_layer(BATCH[1], overflow=Tally(count=4, of=20, rows=1), rows=dataclasses.replace(COLLAPSED.rows))
    both = merged([one, two])
    assert both.overflow == Tally(count=7, of=30, rows=3)
    assert both.rows == Rows(total=32, nonfinite=2, collapsed=26, amplified=2, shrunk=2)


def test_rows_that_one_layer_does_not_know_are_unknown():
    unknown = of_layer(BATCH[1], overflow=Tally(count=4, of=20, rows=None))
    assert merged([of_layer(BATCH[0]), unknown]).overflow.rows is None


def test_headroom_is_the_least_with_its_step_and_deviation_the_largest_with_its_ideal():
    tight = of_layer(BATCH[0], headroom=room(0.5, "sum"))
    far = of_layer(BATCH[1], headroom=room(3.0), deviation=deviation(0.5, 0.125))
    both = merged([of_layer(BATCH[2]), tight, far])
    assert (both.headroom.overflow_bits, both.headroom.overflow_step) == (0.5, "sum")
    assert (both.deviation.relative_rms, both.deviation.ideal.relative_rms) == (0.5, 0.125)


@pytest.mark.parametrize("worse", [nan, inf])
def test_a_deviation_that_is_no_number_is_the_largest(worse):
    results = [of_layer(BATCH[0]), of_layer(BATCH[1], deviation=deviation(worse, 0.1)), of_layer(BATCH[2])]
    assert merged(results).deviation is results[1].deviation


def test_layers_without_a_finite_row_have_no_say_in_the_deviation():
    results = [of_layer(BATCH[0], deviation=NEVER_FINITE.deviation), of_layer(BATCH[1])]
    assert merged(results).deviation is results[1].deviation
    assert merged(results[:1] * 2).deviation.relative_rms is None


def test_headroom_that_is_unknown_is_more_than_any_and_nan_less():
    bits = [of_layer(BATCH[0], headroom=room(value)) for value in (2.0, nan, -inf)]
    open_ended = of_layer(BATCH[1], headroom=dataclasses.replace(room(1.0), overflow_bits=None, overflow_step=None))
    assert merged([open_ended, bits[0]]).headroom.overflow_bits == 2.0
    assert merged([open_ended, open_ended]).headroom.overflow_bits is None
    assert merged([bits[0], bits[2]]).headroom.overflow_bits == -inf
    assert isnan(merged([bits[0], bits[1], bits[2]]).headroom.overflow_bits)


@pytest.mark.parametrize(
    ("scales", "common"),
    [
        ([(0.5, 8.0), (0.25, 4.0)], (0.5, 4.0)),
        ([(0.5, 8.0), None], None),
        ([(0.5, 1.0), (2.0, 4.0)], None),
        ([(0.5, 2.0), (2.0, 4.0)], (2.0, 2.0)),
        ([(0.0, inf), (0.0, inf)], (0.0, inf)),
    ],
)
def test_scales_are_those_that_are_safe_for_all(scales, common):
    assert merged([of_layer(BATCH[0], safe_scale=scale) for scale in scales]).safe_scale == common


def test_the_layers_whose_figures_are_shown_are_named():
    one, two = of_layer("b.0", headroom=room(2.0)), of_layer("b.1", deviation=deviation(0.5, 0.1))
    quiet = [of_layer(f"b.{index}") for index in range(2, 6)]
    (row,) = fold(*quiet, one, two, names=Names([f"b.{index}" for index in range(7)]))
    assert row.layers[2:] == ("least headroom b.0", "largest deviation b.1")


def test_a_layer_that_is_worst_in_all_is_named_once():
    worst = of_layer("b.5", headroom=room(2.0), deviation=deviation(0.5, 0.1))
    (row,) = fold(*(of_layer(f"b.{index}") for index in range(5)), worst, names=Names(named(7, "b.{}")))
    assert row.layers[2:] == ("worst b.5",)


def test_every_asked_result_is_in_exactly_one_row():
    asked = [result for result in MODEL.results if result.asked]
    names = Names(layer.name for layer in MODEL.layers)
    shown = folded(asked, MODEL.findings, names)
    assert sum(item.result.rows.total for item in shown) == sum(result.rows.total for result in asked)
    assert sum(item.result.overflow.of for item in shown) == sum(result.overflow.of for result in asked)
    assert len(shown) < len(asked) / 4
    tight = next(item for item in shown if item.result.verdict == "degraded")
    assert tight.rules == tuple(sorted({f.rule for f in FINDINGS_OF_TIGHT}))
    assert tight.layers == (", ".join(TIGHT_LAYERS), f"worst {TIGHT_LAYERS[-1]}")


def test_what_is_not_a_layer_folds_too():
    assert fold(CLEAN, TIGHT)[1].layers == ("-",)


# ---------------------------------------------------------------------------------------------- how they are told


def test_few_short_names_are_listed():
    assert NAMES.parts(["stem.bn", "layer1.0.bn1"]) == ("stem.bn, layer1.0.bn1",)


def test_a_pattern_stands_for_all_layers_so_called_and_for_no_others():
    assert Names(BATCH).parts(BLOCKS) == ("layer*.*.bn*", "12 of 13 layers")
    assert Names(BATCH).parts(BLOCKS[1:]) == ("layer1.0.bn2 … layer3.1.bn2", "11 of 13 layers")


def test_several_patterns_are_told_where_they_are_few():
    names = [f"blocks.{index}.{norm}" for index in range(8) for norm in ("norm1", "norm2", "ls", "final")]
    chosen = [name for name in names if name.endswith(("ls", "final"))]
    assert Names(names).parts(chosen) == ("blocks.*.ls, blocks.*.final", "16 of 32 layers")


def test_patterns_that_are_no_shorter_than_names_are_not_used():
    names = [*(f"{letter}.norm" for letter in "abcdef"), "other"]
    assert Names(names).parts(names[:6]) == ("a.norm … f.norm", "6 of 7 layers")


def test_all_layers_are_just_so_many():
    assert NAMES.parts(BATCH) == ("all 13 layers",)
    assert Names(["a", "b"]).parts(["a", "b"]) == ("a, b",)
    assert Names(["a"]).parts(["a"]) == ("a",)


def test_a_long_name_is_whole():
    long = "x" * 10_000
    assert Names([long, "b"]).parts([long]) == (long,)
    assert Names([long, *"bcdefg"]).parts([long, *"bcde"])[0] == f"{long} … e"


def test_names_of_a_list_are_as_many_as_fit_and_the_rest_is_counted():
    names = named(10)
    assert listed(names, 10_000) == ", ".join(names)
    assert listed(names, 45) == "blocks.0.norm, blocks.1.norm, blocks.2.norm and 7 more (all in --format json)"
    assert listed(names, 1) == "blocks.0.norm and 9 more (all in --format json)"
    assert listed(names[:1], 1) == "blocks.0.norm"


def test_names_cannot_steer_the_terminal_or_break_lines():
    hostile = "a\nb\x1b[2J\u202ec"
    safe = r"a\nb\x1b[2J\u202ec"
    assert Names([hostile, "b"]).parts([hostile]) == (safe,)
    assert listed([hostile, "d"], 100) == f"{safe}, d"
    (row,) = fold(*(of_layer(f"{hostile}{index}") for index in range(9)), names=Names(named(10)))
    assert "\n" not in "".join(row.layers)
    assert "\x1b" not in "".join(row.layers)
