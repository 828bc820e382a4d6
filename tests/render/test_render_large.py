"""Outputs of reports on many layers are made result by result: memory does not grow with the report."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import numpy as np
import pytest
from hand_built import EMPTY, REPORT
from hand_built_model import MODEL, WITH_STEPS
from hypothesis import given
from hypothesis import strategies as st
from large_reports import large_report
from memory import peak_of

from normcheck.render import json_report, jsonl, places, table

LAYERS = 200


@pytest.fixture(scope="module")
def large():
    return large_report(LAYERS)


@pytest.mark.parametrize("renderer", [json_report, jsonl], ids=["json", "jsonl"])
def test_json_of_many_results_holds_a_few_of_them_at_a_time(renderer, large):
    peak, size = peak_of(lambda: sum(len(piece.encode()) for piece in renderer.pieces(large)))
    assert size > 1000 * 3 * LAYERS
    assert peak < 20 * size / (3 * LAYERS)


def test_the_table_holds_little_beside_the_report(large):
    peak, text = peak_of(lambda: table.render(large))
    assert len(text) < 10_000
    assert peak < 0.2 * peak_of(lambda: large_report(LAYERS))[0]


def test_steps_of_many_results_are_not_held_together():
    def steps_of(layers):
        report = large_report(layers)
        return peak_of(lambda: sum(len(piece) for piece in table.pieces(report, width=80, with_steps=True)))

    (few, short), (many, long) = steps_of(100), steps_of(200)  # of fewer, a cache of words' widths is still filling
    assert long > 1.9 * short
    assert many < 1.5 * few


def test_a_table_looks_at_each_finding_a_bounded_number_of_times(monkeypatch):
    calls, original = [], places.concerns
    for module in ("folding", "findings"):
        monkeypatch.setattr(f"normcheck.render.{module}.concerns", lambda *args: calls.append(1) or original(*args))

    def looked_at(layers):
        calls.clear()
        table.render(large_report(layers))
        return len(calls)

    assert 0 < looked_at(400) <= 5 * looked_at(100)


@pytest.mark.parametrize("report", [REPORT, EMPTY, MODEL, WITH_STEPS, large_report(3)])
def test_pieces_are_the_json_of_the_whole(report):
    assert "".join(table.pieces(report, width=80)) == table.render(report, width=80)
    assert json_report.render(report) == json_report.dumps(json_report.to_plain(report))
    assert "".join(json_report.pieces(report)) == json_report.render(report)
    assert "".join(jsonl.pieces(report)) == jsonl.render(report)


def test_what_was_read_is_written_again(large):
    assert json_report.render(json_report.from_json(json_report.render(large))) == json_report.render(large)


# ------------------------------------------------------------------------------------- strict JSON, and the short cut

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.booleans().map(np.bool_),
    st.text(st.characters(exclude_categories=())),
)
TEXT = st.text(st.characters(exclude_categories=()))
DATA = st.recursive(SCALARS, lambda of: st.lists(of) | st.tuples(of, of) | st.dictionaries(TEXT, of), max_leaves=20)


def no_constant(token):
    raise AssertionError(f"{token} is no JSON")


@given(DATA)
def test_data_of_any_kind_is_written_as_strict_json(data):
    written = json_report.encoded(data)
    assert json.loads(written, parse_constant=no_constant) == json.loads(
        msgspec.json.encode(json_report.to_plain(data))
    )
    assert written == msgspec.json.encode(json_report.to_plain(data))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), -float("nan"), np.float64("inf")])
def test_no_figure_that_is_not_finite_becomes_null(value):
    step = dataclasses.replace(WITH_STEPS.results[0].steps[0], max_abs=value)
    assert f'"max_abs":"{"nan" if value != value else str(float(value))}"'.encode() in json_report.encoded(step)  # noqa: PLR0124


@pytest.mark.parametrize("value", [0xCB7FF0, 0xCB7FF00000000000, -0x34800FFF, "\xcb\x7f\xf0", [0xCB, 0x7FF0]])
def test_what_only_looks_like_such_a_figure_is_written_as_it_is(value):
    assert json.loads(json_report.encoded({"a": value})) == {"a": value}


def test_the_largest_finite_figures_are_numbers():
    largest = [1.7976931348623157e308, -1.7976931348623157e308, 5e-324, -0.0]
    assert json_report._is_plain(largest)
    assert json_report.encoded(largest) == b"[1.7976931348623157e308,-1.7976931348623157e308,5e-324,-0.0]"
