"""What norms cost: counts by hand, counts of emulated runs, bytes that torch keeps, energies by hand."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from normcheck.arithmetic.counting import KINDS, Counting, passes, selections, sum_operations
from normcheck.arithmetic.emulated import Emulated
from normcheck.arithmetic.formats import FLOAT32, format_named
from normcheck.arithmetic.operations import summed
from normcheck.arithmetic.orders import Order, order_named
from normcheck.arithmetic.rounding import NEAREST
from normcheck.arithmetic.values import Elements
from normcheck.errors import UsageError
from normcheck.norms.backward import FOLLOWS, backward, gradient_machine
from normcheck.norms.cost import ENERGY, cost
from normcheck.norms.forward import Problem, forward
from normcheck.norms.implementations import CONTRACTED, IMPLEMENTATIONS
from normcheck.norms.parameters import Parameters
from normcheck.norms.table import NORMS, grouping, norm_named
from normcheck.norms.variance import VARIANCES

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))
import norm_modules

PURE, SCALED, WIDE = (IMPLEMENTATIONS[name] for name in ("pure", "pure-scaled", "wide"))
SHAPE = (4, 6, 5, 7)
FLOAT16 = format_named("fp16")


def of(norm, how=PURE, shape=SHAPE, precision="fp16", **options):
    return cost(norm_named(norm), format_named(precision), how, shape, **options)


def by_kind(found):
    """Operations on elements and on rows, of one row."""
    return {kind: (round(done.per_element * found.size), done.per_row) for kind, done in found.operations.items()}


# ------------------------------------------------------------------------------------------------------ by hand

N = 4 * 5 * 7
"""Elements of a channel."""
LANES = N + 31
"""Additions of 32 lanes from zero, and of the tree that merges them."""


@pytest.mark.parametrize(
    ("norm", "operations"),
    [
        (
            "batch-l2",  # sum, centre, square, sum, normalise, gain, bias; a row: n twice, mean, variance, eps, s, 1/s
            {
                "add": (2 * LANES + 2 * N, 1),
                "multiply": (3 * N, 0),
                "divide": (0, 3),
                "root": (0, 1),
                "convert": (0, 2),
            },
        ),
        (
            "batch-l1",  # a magnitude for each square; C for the root
            {
                "add": (2 * LANES + 2 * N, 1),
                "multiply": (2 * N, 1),
                "divide": (0, 3),
                "absolute": (N, 0),
                "convert": (0, 2),
            },
        ),
        (
            "batch-linf",  # no second sum
            {
                "add": (LANES + 2 * N, 1),
                "multiply": (2 * N, 1),
                "divide": (0, 2),
                "compare": (N - 1, 0),
                "absolute": (N, 0),
                "convert": (0, 1),
            },
        ),
        (
            "batch-range",  # max - min is a subtraction a row
            {
                "add": (LANES + 2 * N, 2),
                "multiply": (2 * N, 1),
                "divide": (0, 2),
                "compare": (2 * N - 2, 0),
                "convert": (0, 1),
            },
        ),
        (
            "batch-topk",  # ten of the lanes are merged; 130 + 9 * 8 comparisons choose 10 of 140
            {
                "add": (LANES + 2 * N + 10 + 9, 1),
                "multiply": (2 * N, 1),
                "divide": (0, 3),
                "compare": (130 + 9 * 8, 0),
                "absolute": (N, 0),
                "convert": (0, 2),
            },
        ),
        (
            "batch-l2-uncentred",
            {"add": (LANES + N, 1), "multiply": (3 * N, 0), "divide": (0, 2), "root": (0, 1), "convert": (0, 1)},
        ),
    ],
)
def test_counts_of_pure_batch_norms_are_those_by_hand(norm, operations):
    assert by_kind(of(norm)) == operations


def test_counts_of_rms_in_wide_have_a_conversion_on_the_way_out_only():
    """Widening is exact, and no step of the definition."""
    found = of("rms", WIDE, (3, 50))
    assert by_kind(found) == {
        "add": (50 + 31 + 50, 1),  # the sum; the bias
        "multiply": (3 * 50, 0),
        "divide": (0, 2),
        "root": (0, 1),
        "convert": (50, 1),
    }
    assert found.operations["convert"].total == 3 * 51


def test_a_mean_of_means_divides_each_term_and_has_no_count():
    """140 = 4 blocks of 35, whose 4 means are a block: 140 + 4 divisions, 136 + 3 additions."""
    found = by_kind(of("batch-l1", SCALED))
    assert found["divide"] == (2 * 144, 1)
    assert found["add"] == (2 * 139 + 2 * N, 1)
    assert "convert" not in found


def test_counts_of_weight_norm_are_those_by_hand():
    assert by_kind(of("weight-l2", shape=(8, 3, 5))) == {
        "add": (15 + 15 - 1, 0),
        "multiply": (3 * 15, 0),
        "divide": (0, 1),
        "root": (0, 1),
    }


def test_counts_of_the_backward_pass_are_those_by_hand():
    """g: gain, dot and mean; c and y again; dx = (g - mean(g) - y dot) / s; sums for gamma and beta."""
    found = by_kind(of("batch-l2", direction="backward"))
    assert found == {
        "add": (N + LANES + LANES + N + N + LANES + LANES, 0),  # c, dot, mean, -mean, -y dot, dgamma, dbeta
        "multiply": (6 * N, 0),  # y, gain, g y, y dot, /s, grad y
        "divide": (0, 2),
        "convert": (0, 2),
    }
    signs = by_kind(of("batch-l1", direction="backward"))
    assert signs["add"] == (found["add"][0] + LANES + N, 0)  # mean(sign), sign - mean
    assert signs["multiply"] == (6 * N, 1)  # C


def test_totals_are_those_of_all_rows_and_of_all_steps():
    for direction in ("forward", "backward"):
        found = of("group-topk", SCALED, num_groups=3, direction=direction)
        assert (found.groups, found.size) == (12, 70)
        for kind, done in found.operations.items():
            assert done.total == found.groups * sum(by_kind(found)[kind])
            assert done.total == sum(step.total for step in found.steps if step.kind == kind)
        assert list(found.operations) == [kind for kind in KINDS if kind in found.operations]


# -------------------------------------------------------------------------------------------- emulated runs


HOWS = {
    **IMPLEMENTATIONS,
    **{f"variance {name}": dataclasses.replace(WIDE, variance=name, chunk=3) for name in VARIANCES},
    "rsqrt, shift": dataclasses.replace(PURE, root_form="rsqrt", normalize_form="shift"),
    "fold": dataclasses.replace(PURE, normalize_form="fold"),
    "divide": dataclasses.replace(WIDE, root_form="divide", normalized="io"),
    "multiply": dataclasses.replace(WIDE, division="multiply", weight_offset=1.0),
    "prescale": dataclasses.replace(PURE, division="prescale", saved="float32"),
    "fused": dataclasses.replace(WIDE, contracted=("sum",)),
    "contracted": dataclasses.replace(WIDE, contracted=CONTRACTED, variance="one-pass", normalize_form="fold"),
    "contracted, shift": dataclasses.replace(PURE, contracted=CONTRACTED, normalize_form="shift"),
    "contracted, multiply": dataclasses.replace(
        PURE, contracted=("variance", "bias"), variance="one-pass-clamped", division="multiply", inverse_count="float64"
    ),
    "contracted eps": dataclasses.replace(WIDE, contracted=("eps",), division="multiply", recentred="float64"),
    "contracted eps, no": dataclasses.replace(WIDE, contracted=("eps",), division="multiply", statistic="float16"),
    "gain-first": dataclasses.replace(PURE, normalize_form="gain-first", root_form="reciprocal-root"),
    "center-fold": dataclasses.replace(
        PURE, normalize_form="center-fold", division="prescale-operand", kept="bfloat16"
    ),
    "totals": dataclasses.replace(WIDE, total="float16", mean_total="float16", mean_count="float16", root="float64"),
    "rescaled": dataclasses.replace(PURE, rescale="max", eps_rounded="float16", clip=True, own_mean=True),
    **{text: dataclasses.replace(PURE, order=order_named(text)) for text in ("pairwise", "tree", "kahan", "blocks(3)")},
    "serial": dataclasses.replace(PURE, order=order_named("lanes(8, serial)"), mean_order=Order("tree")),
}


def emulated_steps(norm, how, shape, k, direction):
    """Operations of each step of an emulated run on all rows, the input being stored in the io format."""
    rows = grouping(norm, shape)
    rng = np.random.default_rng(0)
    machine = how.machine(FLOAT16, FLOAT16, NEAREST)
    if direction == "backward":
        machine = gradient_machine(machine)

    def elements():
        return Elements.of(rng.normal(size=(rows.groups, rows.size)).astype(np.float16).astype(np.float64), FLOAT16)

    channels = 1 if norm.where == "bounded-weight" else rows.channels
    parameters = Parameters(np.ones(channels), None if norm.is_weight else np.zeros(channels))
    problem = Problem(norm, 1e-5, k=k, **parameters.values(norm, rows, 0, rows.groups, FLOAT16))
    x = elements()
    a = Emulated(machine, rows.groups, rows.size)
    outputs = forward(a, x, problem, how)
    if direction == "backward":
        a = Emulated(machine, rows.groups, rows.size)
        backward(a, elements(), x, outputs, problem, how)
    return {step: record.events.operations for step, record in a.steps.items() if record.events.operations}


def counted_steps(found):
    """What an emulated run counts of it: exact comparisons are no rounded operations."""
    steps = {}
    for step in found.steps:
        if step.kind != "compare":
            steps[step.step] = steps.get(step.step, 0) + step.total
    return steps


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
@pytest.mark.parametrize("norm", ["batch-l2", "batch-l1", "batch-topk", "rms", "group-range", "weight-l2", "weight-l1"])
def test_counts_are_those_of_an_emulated_run(norm, how, direction):
    shape = (3, 4, 29)
    found = of(norm, how, shape, k=5, direction=direction)
    assert counted_steps(found) == emulated_steps(norm_named(norm), how, shape, 5, direction)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_is_counted_as_it_is_emulated(norm, direction):
    found = of(norm, direction=direction)
    assert counted_steps(found) == emulated_steps(norm_named(norm), PURE, SHAPE, 10, direction)


ORDERS = (
    *("sequential", "pairwise", "lanes(4)", "lanes(8, serial)", "tree", "blocks(4)", "blocks(64)", "kahan"),
    *("cascade(1)", "ynn-rows(2)", "ynn-columns"),
)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 64, 65, 127, 1000])
@pytest.mark.parametrize("order", ORDERS)
def test_a_sum_has_the_operations_that_it_performs(order, n):
    events = summed(np.ones((1, n)), format="fp16", order=order).events
    assert sum(sum_operations(order_named(order), n).values()) == events.operations


def test_selecting_takes_comparisons_between_the_trivial_and_the_sorted():
    assert selections(100, 1) == 99
    assert selections(7, 7) == selections(7, 9) == 0
    assert selections(4, 2) == 4  # the second of four: Knuth, vol. 3, section 5.3.3
    assert selections(8, 2) == 9


# ------------------------------------------------------------------------------------------------------- formats


def test_operations_are_in_the_format_of_their_step():
    steps = {(s.step, s.kind): s.format for s in of("batch-l2", IMPLEMENTATIONS["wide-sum"]).steps}
    assert steps["square", "multiply"] == "float16"
    assert steps["sum", "add"] == "float32"
    assert steps["variance", "divide"] == "float32"  # formed there, then rounded to the io format


def test_a_value_that_depends_on_a_reduction_needs_another_pass():
    many = {name: of(name).bytes.passes for name in ("batch-l2", "batch-l1", "batch-topk", "batch-l2-uncentred", "rms")}
    assert many == {"batch-l2": 3, "batch-l1": 3, "batch-topk": 3, "batch-l2-uncentred": 2, "rms": 2}
    assert of("batch-l2", IMPLEMENTATIONS["wide-one-pass"]).bytes.passes == 2
    assert of("batch-l2", dataclasses.replace(WIDE, variance="chunked-welford")).bytes.passes == 2
    assert of("weight-l2").bytes.passes == 2
    assert {of(name, direction="backward").bytes.passes for name in NORMS} == {2}


def test_tokens_begin_before_any_pass():
    a = Counting(8, {"sum": FLOAT32}, {"sum": Order("tree")})
    assert passes(a.elements(FLOAT16)) == passes(a.per_row(FLOAT16)) == 1
    assert passes(a.sum("sum", a.elements(FLOAT16))) == 2


# --------------------------------------------------------------------------------------------------------- bytes


def test_bytes_through_memory_are_those_by_hand():
    x, channels = 4 * 6 * 5 * 7, 6
    found = of("batch-l2").bytes
    assert (found.read, found.read_by_passes) == (2 * (x + 2 * channels), 2 * (3 * x + 2 * channels))
    assert found.written == 2 * x
    back = of("batch-l2", direction="backward", precision="fp32").bytes
    assert back.read == 4 * (2 * x + channels + 2 * channels)  # gradient, x; gamma; mean and 1/s
    assert back.written == 4 * (x + 2 * channels)
    assert of("layer-l2", shape=(5, 8)).bytes.read == 2 * (40 + 16)
    assert of("bounded-weight-l2", shape=(5, 8)).bytes.read == 2 * (40 + 1)


def test_narrow_formats_are_packed_and_tf32_lies_in_32_bits():
    sizes = {name: of("rms", WIDE, (5, 8), name).bytes.written for name in ("fp8_e4m3fn", "fp6_e2m3fn", "tf32")}
    assert sizes == {"fp8_e4m3fn": 40, "fp6_e2m3fn": 30, "tf32": 160}


def test_dx_of_l1_needs_a_bit_an_element_where_l2_needs_the_values():
    x, rows = 4 * 6 * 5 * 7, 6
    assert of("batch-l2").saved.for_dx == of("batch-l2").saved.formula == 2 * x + 2 * rows
    assert of("batch-l1").saved.for_dx == x // 8 + 2 * rows
    assert of("batch-l1").saved.formula == 2 * x + 2 * rows
    assert of("batch-linf").saved.for_dx == rows * (1 + 8 + 16) / 8 + 0.25  # sign, place of 140; up to whole bytes
    assert of("batch-range").saved.for_dx == -(-rows * (2 * 9 + 16) // 8)


def kept_by(module, x):
    """Bytes of what is saved, parameters and buffers apart, each memory once."""
    own = {t.data_ptr() for t in (*module.parameters(), *module.buffers())}
    kept = {}

    def pack(t):
        if t.data_ptr() not in own:
            kept[t.data_ptr()] = t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        module(x)
    return sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("statistic", norm_modules.STATISTICS)
@pytest.mark.parametrize("name", ["batch-2d", "instance-2d", "group", "layer", "rms"])
def test_what_modules_keep_is_what_torch_is_seen_to_save(name, statistic, dtype):
    module = norm_modules.build(name, statistic, dtype=dtype)
    x = norm_modules.input_of(name, dtype).requires_grad_()
    how, precision = PURE if dtype == torch.float32 else WIDE, str(dtype).removeprefix("torch.")
    found = of(module.norm.name, how, tuple(x.shape), precision, num_groups=2, k=norm_modules.K).saved.modules
    assert found == (None if (name, statistic) == ("rms", "l2") else kept_by(module, x))


@pytest.mark.parametrize(
    ("norm", "precision"), [("weight-l2", "fp16"), ("batch-l1-uncentred", "fp16"), ("rms", "fp32")]
)
def test_where_there_is_no_module_it_keeps_nothing_known(norm, precision):
    assert of(norm, precision=precision).saved.modules is None
    assert of("batch-l1", WIDE, precision="fp8_e4m3fn").saved.modules is None


# -------------------------------------------------------------------------------------------------------- energy


def test_energy_is_that_of_the_published_table_by_hand():
    assert ENERGY == {"int8": (0.2, 0.03), "float16": (1.1, 0.40), "float32": (3.7, 0.90)}
    found = of("batch-l2").energy
    assert found.picojoules == pytest.approx(6 * (0.40 * (2 * LANES + 2 * N + 1) + 1.1 * 3 * N), rel=1e-12)
    assert found.per_element == pytest.approx(found.picojoules / (6 * N), rel=1e-12)
    assert found.left_out == {"convert": 12, "divide": 18, "root": 6}


def test_energy_of_mixed_formats_is_that_of_each_operation():
    found = of("rms", IMPLEMENTATIONS["wide-sum"], (3, 50))
    by_format = {"float16": 3 * (50 * 0.40 + 150 * 1.1), "float32": 3 * (81 + 1) * 0.90}
    assert found.energy.picojoules == pytest.approx(sum(by_format.values()), rel=1e-12)


@pytest.mark.parametrize(("precision", "less"), [("fp16", 0.02), ("fp32", 0.04)])
def test_both_passes_of_l1_take_as_much_less_than_l2_as_the_page_says(precision, less):
    both = [
        sum(
            of(norm, shape=(32, 64, 28, 28), precision=precision, direction=direction).energy.picojoules
            for direction in ("forward", "backward")
        )
        for norm in ("batch-l1", "batch-l2")
    ]
    assert round(1 - both[0] / both[1], 2) == less


def test_formats_without_a_published_energy_have_none():
    assert of("batch-l1", precision="bf16").energy.picojoules is None
    assert of("batch-l1", precision="bf16").energy.per_element is None
    assert of("batch-l1", WIDE, precision="bf16").energy.picojoules > 0  # computed in float32


# ------------------------------------------------------------------------------------------------------- the rest


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="k must be at least 1"):
        of("batch-topk", k=0)
    with pytest.raises(UsageError, match="at least two dimensions"):
        of("batch-l2", shape=(5,))


def test_a_long_row_is_counted_without_being_computed():
    found = of("batch-l1", SCALED, (64, 2, 1000, 1000), direction="backward")
    assert found.size == 64_000_000
    assert found.operations["multiply"].total > 6 * 2 * found.size


def test_counting_loads_no_engine():
    code = (
        "import sys; from normcheck.norms.cost import cost; from normcheck.norms.table import norm_named;"
        "from normcheck.norms.implementations import IMPLEMENTATIONS; from normcheck.arithmetic.formats import FLOAT32;"
        "[cost(norm_named('batch-topk'), FLOAT32, how, (4, 4, 9), direction=d) for how in IMPLEMENTATIONS.values()"
        " for d in ('forward', 'backward')];"
        "print(sorted({'torch', 'numba', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "[]\n"


def test_every_step_of_a_pass_has_a_format():
    forward_steps = {s.step for name in NORMS for s in of(name).steps}
    steps = {s.step for name in NORMS for s in of(name, direction="backward").steps}
    assert steps & set(FOLLOWS)
    assert not forward_steps & set(FOLLOWS)
