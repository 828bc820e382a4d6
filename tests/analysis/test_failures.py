"""The corpus of published failures: each is flagged under the kernel that had it, as predicted, and not elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from test_definitions import PURE, _no_search, assess  # its helper and fixture serve here too

from normcheck.analysis.corpus.inputs import made
from normcheck.analysis.corpus.listing import listed
from normcheck.analysis.corpus.records import Expected, records
from normcheck.analysis.corpus.replay import FAILURE_RULES, FIGURES, _compared, replayed
from normcheck.analysis.corpus.signatures import MEANINGS, signature_of
from normcheck.errors import UsageError
from normcheck.norms.implementations import IMPLEMENTATIONS
from normcheck.render.cases import counts
from normcheck.results.cases import Signature

assert _no_search  # an autouse fixture, by being here

FOLDER = Path(__file__).resolve().parents[2] / "data" / "failures"
RECORDS = records()
FAILURES = [record.id for record in RECORDS.values() if not record.control]
CONTROLS = [record.id for record in RECORDS.values() if record.control]
WIDE = IMPLEMENTATIONS["wide"]
ONE_PASS = replace(WIDE, variance="one-pass")


@pytest.fixture(scope="module")
def corpus():
    """All cases, replayed once."""
    return {case.id: case for case in replayed(RECORDS.values()).cases}


# ----------------------------------------------------------------------------------------------- the predictions


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_flagged_under_the_kernel_that_had_it(corpus, name):
    case = corpus[name]
    assert case.signatures, "an input that fails"
    for replay in case.replays:
        (failed,) = [side for side in replay.sides if side.role == "failed"]
        assert failed.signature == replay.signature
        if replay.signature:
            assert set(replay.rules) <= {flag.rule for flag in failed.flags}
            assert failed.verdict != "ok"
            assert failed.flagged


@pytest.mark.parametrize("name", [*FAILURES, *CONTROLS])
def test_nothing_is_flagged_under_a_kernel_that_is_right(corpus, name):
    sides = [side for replay in corpus[name].replays for side in replay.sides if side.role == "right"]
    assert sides
    for side in sides:
        assert (side.signature, side.bad_rows, side.flagged) == ("", 0, False), side
        assert not {flag.rule for flag in side.flags} & set(FAILURE_RULES)
        assert "error" not in {flag.severity for flag in side.flags}


@pytest.mark.parametrize("name", [*FAILURES, *CONTROLS])
def test_every_prediction_holds_and_every_published_number_is_met(corpus, name):
    assert [problem for replay in corpus[name].replays for problem in replay.problems] == []


def test_the_cases_are_counted_apart_by_where_their_input_is_from(corpus):
    found = replayed([]).__class__(format=1, tool=None, cases=tuple(corpus.values()))
    assert counts(found) == {
        "published": (9, 9),
        "found by running the kernel": (4, 4),
        "reconstructed from published facts": (26, 26),
        "controls": (4, 4),
    }
    assert len(found.failures) == 39


def test_without_a_published_input_a_case_says_how_its_own_was_made():
    assert all(bool(record.reconstruction) == (record.source == "reconstructed") for record in RECORDS.values())


def test_wide_is_right_wherever_the_norm_itself_was_at_fault(corpus):
    for name in FAILURES:
        if corpus[name].signatures != ("IO-INF",):
            assert "wide" in corpus[name].right, name


def test_where_the_input_was_infinite_the_norm_is_not_blamed(corpus):
    sides = [
        side
        for case in corpus.values()
        for replay in case.replays
        for side in replay.sides
        if side.signature == "IO-INF"
    ]
    assert len(sides) == 6
    for side in sides:
        assert {flag.rule for flag in side.flags} == {"NC105"}
        assert "the norm is not at fault" in side.flags[0].message


# ------------------------------------------------------------------------------------------ against real kernels


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="AVX2's order of sums")
def test_torchs_own_group_norm_gives_the_errors_that_the_case_has(corpus):
    for each, replay in zip(RECORDS["K12"].inputs, corpus["K12"].replays, strict=True):
        x = torch.from_numpy(made(each.make, each.shape))
        exact = torch.nn.functional.group_norm(x.double(), each.num_groups)
        y = torch.nn.functional.group_norm(x.contiguous(memory_format=torch.channels_last), each.num_groups)
        measured = next(figure for figure in replay.figures if figure.side == "failed").measured
        assert (y.double() - exact).abs().max().item() == pytest.approx(measured, rel=1e-6)


def onnx_model(operator, x, eps, opset):
    """Return a model of one norm over the last dimension, as bytes."""
    helper = pytest.importorskip("onnx.helper")
    kind = {"float16": 10, "float32": 1}[x.dtype.name]  # of onnx.TensorProto
    node = helper.make_node(operator, ["x", "scale"], ["y"], axis=-1, epsilon=eps)
    inputs = [
        helper.make_tensor_value_info(name, kind, shape) for name, shape in (("x", x.shape), ("scale", x.shape[-1:]))
    ]
    graph = helper.make_graph([node], "norm", inputs, [helper.make_tensor_value_info("y", kind, x.shape)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy speaks of the overflow that nobody sees afterwards
@pytest.mark.parametrize(("place", "operator"), [(0, "LayerNormalization"), (1, "RMSNormalization")])
def test_onnxs_reference_evaluator_gives_the_zeros_that_the_case_has(place, operator):
    reference = pytest.importorskip("onnx.reference")
    each = RECORDS["K50"].inputs[place]
    x = made(each.make, each.shape).astype(np.float16)
    model = onnx_model(operator, x, each.eps, 23)
    (y,) = reference.ReferenceEvaluator(model).run(None, {"x": x, "scale": np.ones(x.shape[-1], np.float16)})
    assert not y.any()


@pytest.mark.parametrize(("name", "right"), [("C4", "ort-cpu-layernorm"), ("K1", "ort-cpu-layernorm")])
def test_onnx_runtime_is_as_wrong_as_the_corpus_has_it_and_no_more(corpus, name, right):
    runtime = pytest.importorskip("onnxruntime")
    (each,) = RECORDS[name].inputs
    x = made(each.make, each.shape)
    session = runtime.InferenceSession(
        onnx_model("LayerNormalization", x, each.eps, 17).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": x, "scale": np.ones(x.shape[-1], np.float32)})
    c = x.astype(np.float64) - x.mean(axis=-1, keepdims=True, dtype=np.float64)
    error = np.abs(y - c / np.sqrt((c * c).mean(axis=-1, keepdims=True) + each.eps)).max()
    assert right in {side.implementation for side in corpus[name].replays[0].sides}
    if name == "C4":
        (figure,) = corpus[name].replays[0].figures
        assert error == pytest.approx(figure.measured, rel=1e-6)
    else:
        assert error == 0.0


@pytest.mark.parametrize(
    ("name", "layer", "right"),
    [
        ("K23", lambda nn: nn.BatchNorm(4), None),
        ("K24", lambda nn: nn.GroupNorm(4, 64), lambda nn: nn.GroupNorm(4, 64, pytorch_compatible=True)),
    ],
)
def test_mlx_gives_the_zeros_and_nan_that_the_cases_have(corpus, name, layer, right):
    mx, nn = pytest.importorskip("mlx.core"), pytest.importorskip("mlx.nn")
    mx.set_default_device(mx.cpu)
    for each, replay in zip(RECORDS[name].inputs, corpus[name].replays, strict=True):
        x = mx.array(made(each.make, each.shape).astype(np.float16).transpose(0, 2, 3, 1))
        y = np.array(layer(nn)(x).astype(mx.float32))
        assert np.isnan(y).any() == (replay.signature == "OVF->NaN")
        assert (not y.any()) == (replay.signature == "OVF->0")
        if right is not None:
            assert np.array(right(nn)(x).astype(mx.float32)).std() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("name", ["C1", "C2", "C3"])
def test_torch_bears_the_controls(name):
    (each,) = RECORDS[name].inputs
    x = torch.from_numpy(made(each.make, each.shape)).half()
    kernels = {
        "layer-l2": lambda: torch.nn.functional.layer_norm(x, x.shape[-1:]),
        "rms": lambda: torch.nn.functional.rms_norm(x, x.shape[-1:]),
        "group-l2": lambda: torch.nn.functional.group_norm(x, each.num_groups),
    }
    y = kernels[each.norm]().float()
    assert torch.isfinite(y).all()
    assert y.std().item() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("name", ["K45"])
def test_an_input_beyond_the_format_is_infinite_once_it_is_loaded(name):
    (each,) = RECORDS[name].inputs
    x = made(each.make, each.shape)
    assert np.isfinite(x).all()
    with np.errstate(over="ignore"):
        assert np.isinf(x.astype(np.float16)).any()


# ----------------------------------------------------------------------------------------------------- signatures


SIGNED = {
    "": ([[1.0, -1.0, 2.0, -2.0]], {"eps": 1e-3}),
    "OVF->0": ([[300.0, -300.0]], {}),
    "OVF->NaN": ([[40000.0, 41000.0]], {}),
    "NEG->NaN": ([[1234.0] * 256], {"how": replace(ONE_PASS, order=IMPLEMENTATIONS["pure-sequential"].order)}),
    "CANCEL": ([[108.0, 108.0, 108.0, 108.5]], {"how": replace(PURE, variance="one-pass")}),
    "CANCEL+AMP": (
        [[102.0, 102.0, 102.0, 102.5]],
        {"how": replace(PURE, variance="one-pass-clamped"), "eps": 1e-3},
    ),
    "EPS0->NaN": ([[3.0, 3.0]], {"eps": 1e-9}),
    "IO-INF": ([[math.inf, 1.0, 2.0, 3.0]], {"how": WIDE}),
    "UFLOW": ([[1e-4, -1e-4]], {"eps": 1e-3}),
}


@pytest.mark.parametrize("signature", SIGNED)
def test_each_signature_is_decided_by_its_definition(signature):
    rows, settings = SIGNED[signature]
    result, findings = assess(rows, precision="fp32" if signature == "NEG->NaN" else "fp16", **settings)
    assert signature_of(result, findings) == signature


def test_every_signature_has_a_meaning_and_an_example():
    assert set(SIGNED) == set(get_args(Signature)) == {"", *MEANINGS}


def test_one_infinite_row_does_not_hide_what_the_norm_did_to_another():
    result, findings = assess([[math.inf, 1.0], [300.0, -300.0]])
    assert (result.rows.infinite_input, result.rows.collapsed) == (1, 1)
    assert signature_of(result, findings) == "OVF->0"
    said = {finding.rule: finding.message for finding in findings}
    assert said["NC102"].startswith("1 of 2 rows")
    assert said["NC105"].startswith("1 of 2 rows have infinite input: the norm is not at fault")
    assert "NC101" not in said


def test_running_statistics_that_an_infinite_batch_spoils_are_mentioned(corpus):
    (replay,) = corpus["K44"].replays
    (flag,) = replay.sides[0].flags
    assert flag.message.endswith("; running statistics stay infinite or NaN from then on")


def test_a_reciprocal_that_is_flushed_is_no_overflow():
    result, findings = assess([[2e4, -2e4]], "layer-l1", ftz=True)
    assert result.rows.collapsed == 1
    assert signature_of(result, findings) == "UFLOW"


def test_a_listed_case_is_the_replayed_one_without_what_was_run(corpus):
    for case in listed(RECORDS.values()).cases:
        ran = corpus[case.id]
        assert not case.ran
        assert case.holds
        bare = tuple(replace(replay, sides=(), figures=(), problems=()) for replay in ran.replays)
        assert case == replace(ran, replays=bare)


# --------------------------------------------------------------------------------------------- that it can fail


def test_a_wrong_prediction_is_a_problem_in_words():
    (each,) = RECORDS["K1"].inputs
    wrong = replace(each, signature="CANCEL", rules=("NC303", "NC106"), right=("ort-cpu-layernorm-1pass",))
    figures = (Expected(name="variance", value=-3.0, tolerance=0.01), Expected(name="output[0]", above=1.0))
    (case,) = replayed([replace(RECORDS["K1"], inputs=(replace(wrong, figures=figures),))]).cases
    assert not case.holds
    said = "\n".join(case.replays[0].problems)
    for problem in (
        "NC106 does not fire", "the signature is NEG->NaN, not CANCEL", "the signature is NEG->NaN, not none",
        "NC101 fires", "the verdict is unsafe, not ok", "variance: expected -3 to 1 %, measured -3.25",
        "output[0]: expected above 1, measured nan",
    ):  # fmt: skip
        assert problem in said


def test_an_implementation_that_does_not_define_the_norm_is_an_error():
    (each,) = RECORDS["K1"].inputs
    with pytest.raises(UsageError, match="hf-llama-rmsnorm"):
        replayed([replace(RECORDS["K1"], inputs=(replace(each, failed="hf-llama-rmsnorm"),))])
    with pytest.raises(UsageError, match="there are output"):
        replayed([replace(RECORDS["K1"], inputs=(replace(each, figures=(Expected(name="speed", value=1.0),)),))])


@pytest.mark.parametrize(
    ("expected", "measured", "holds"),
    [
        (Expected(name="x", value=2.0, tolerance=0.1), 2.199, True),
        (Expected(name="x", value=2.0, tolerance=0.1), 2.21, False),
        (Expected(name="x", value=0.0), 0.0, True),
        (Expected(name="x", value=0.0), 1e-300, False),
        (Expected(name="x", value=math.nan), math.nan, True),
        (Expected(name="x", value=math.nan), 1.0, False),
        (Expected(name="x", value=1.0, tolerance=1.0), math.nan, False),
        (Expected(name="x", above=1.0, below=2.0), 1.5, True),
        (Expected(name="x", above=1.0, below=2.0), 2.0, False),
        (Expected(name="x", above=1.0), math.nan, False),
    ],
)
def test_a_number_is_compared_with_its_value_and_its_bounds(expected, measured, holds):
    assert _compared(expected, measured)[1] == holds


def test_every_figure_is_asked_for_by_some_case():
    asked = {figure.name for record in RECORDS.values() for each in record.inputs for figure in each.figures}
    assert set(FIGURES) <= asked
