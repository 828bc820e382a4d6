"""The forward pass in exact arithmetic: torch in float64, and the formulas written out in numpy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from normcheck import UsageError, emulate
from normcheck.arithmetic.exact import Exact
from normcheck.arithmetic.orders import Order
from normcheck.arithmetic.values import PART, Elements
from normcheck.norms.constants import constant, effective_k
from normcheck.norms.forward import Outputs, Problem, forward
from normcheck.norms.implementations import CONTRACTED, IMPLEMENTATIONS, NormalizeForm
from normcheck.norms.parameters import Parameters
from normcheck.norms.table import NORMS, grouping, norm_named

F = torch.nn.functional
TIGHT = {"rtol": 1e-12, "atol": 1e-12}
WIDE = IMPLEMENTATIONS["wide"]
LONG = PART + 777
"""Elements of a row that does not fit into one part."""


def as_rows(x, where, groups=1):
    """Cut a tensor into rows that share a statistic, as docs/numerics.md says in words."""
    if where == "layer":
        return x.reshape(-1, x.shape[-1])
    if where in ("weight", "bounded-weight"):
        return x.reshape(x.shape[0], -1)
    if where == "batch":
        return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    per_sample = x.shape[1] if where == "instance" else groups
    return x.reshape(x.shape[0] * per_sample, -1)


def as_tensor(rows, where, shape):
    """Put rows back where they came from."""
    if where == "batch":
        return np.moveaxis(rows.reshape(shape[1], shape[0], *shape[2:]), 0, 1)
    return rows.reshape(shape)


def exact(
    x, name, *, eps=1e-5, weight=None, bias=None, running=(None, None), momentum=None, kind="exact", k=10,
    num_groups=None, how=WIDE,
):  # fmt: skip
    """Run a norm under `Exact`; return y in the tensor's shape, and all that the pass leaves."""
    norm = norm_named(name)
    group = grouping(norm, x.shape, num_groups)
    k = effective_k(group.size, k) if norm.statistic.name == "topk" else 1
    scale = constant(norm.statistic.name, kind, group.size, k) if norm.has_constant else 1.0
    values = Parameters(weight, bias, *running).values(norm, group, 0, group.groups, None)
    problem = Problem(norm=norm, eps=eps, scale=scale, k=k, momentum=momentum, **values)
    rows = np.ascontiguousarray(as_rows(x, norm.where, num_groups))
    out = forward(Exact(group.groups, group.size), Elements.of(rows), problem, how)
    y = np.concatenate([out.y.part(index) for index in range(out.y.parts)], axis=1)
    return as_tensor(y, norm.where, x.shape), out


def in_float64(x, name, **settings):
    """Run a norm through the public door, every operation rounded to float64."""
    settings["constant"] = settings.pop("kind", "exact")
    return emulate(x, name, precision="fp64", params="stored", **settings).output


def exact_only(x, name, **settings):
    return exact(x, name, **settings)[0]


engines = pytest.mark.parametrize("run", [exact_only, in_float64], ids=["exact", "emulated-float64"])


def noise(*shape, seed=0, mean=0.7, std=2.5):
    return np.random.default_rng(seed).normal(mean, std, shape)


def t(x):
    return None if x is None else torch.from_numpy(np.ascontiguousarray(x))


def affine(count, which):
    weight, bias = noise(count, seed=8, mean=1.0, std=0.5), noise(count, seed=9, std=0.5)
    return (weight if "w" in which else None), (bias if "b" in which else None)


parameters = pytest.mark.parametrize("given", ["", "w", "b", "wb"], ids=["plain", "weight", "bias", "affine"])


# ------------------------------------------------------------------------------------------------ torch, float64


@engines
@parameters
@pytest.mark.parametrize("shape", [(7,), (5, 33), (2, 3, 64)])
def test_layer_norm_is_torchs(run, given, shape):
    x, (w, b) = noise(*shape), affine(shape[-1], given)
    want = F.layer_norm(t(x), shape[-1:], t(w), t(b), eps=0.37).numpy()
    np.testing.assert_allclose(run(x, "layer-l2", weight=w, bias=b, eps=0.37), want, **TIGHT)


@engines
@pytest.mark.parametrize("given", ["", "w"])
@pytest.mark.parametrize("shape", [(7,), (5, 33), (2, 3, 64)])
def test_rms_norm_is_torchs(run, given, shape):
    x, (w, _) = noise(*shape), affine(shape[-1], given)
    want = F.rms_norm(t(x), shape[-1:], t(w), eps=0.37).numpy()
    np.testing.assert_allclose(run(x, "rms", weight=w, eps=0.37), want, **TIGHT)


@engines
@parameters
@pytest.mark.parametrize(("shape", "groups"), [((3, 6), 2), ((3, 6, 5), 6), ((2, 12, 3, 4), 4), ((2, 6, 2, 3, 2), 1)])
def test_group_norm_is_torchs(run, given, shape, groups):
    x, (w, b) = noise(*shape), affine(shape[1], given)
    want = F.group_norm(t(x), groups, t(w), t(b), eps=0.37).numpy()
    got = run(x, "group-l2", weight=w, bias=b, eps=0.37, num_groups=groups)
    np.testing.assert_allclose(got, want, **TIGHT)


@engines
@parameters
@pytest.mark.parametrize("shape", [(3, 4, 9), (2, 5, 4, 3), (2, 3, 2, 3, 4)])
def test_instance_norm_is_torchs(run, given, shape):
    x, (w, b) = noise(*shape), affine(shape[1], given)
    want = F.instance_norm(t(x), weight=t(w), bias=t(b), eps=0.37).numpy()
    np.testing.assert_allclose(run(x, "instance-l2", weight=w, bias=b, eps=0.37), want, **TIGHT)


BATCH_SHAPES = pytest.mark.parametrize("shape", [(8, 3), (4, 3, 7), (4, 5, 3, 2)])


@engines
@parameters
@BATCH_SHAPES
def test_batch_norm_in_training_is_torchs(run, given, shape):
    x, (w, b) = noise(*shape), affine(shape[1], given)
    want = F.batch_norm(t(x), None, None, t(w), t(b), training=True, eps=0.37).numpy()
    np.testing.assert_allclose(run(x, "batch-l2", weight=w, bias=b, eps=0.37), want, **TIGHT)


def running_of(channels):
    return noise(channels, seed=5), noise(channels, seed=6, mean=3.0, std=0.3)


@parameters
@BATCH_SHAPES
def test_batch_norm_in_evaluation_is_torchs(given, shape):
    x, (w, b), (mean, var) = noise(*shape), affine(shape[1], given), running_of(shape[1])
    want = F.batch_norm(t(x), t(mean), t(var), t(w), t(b), training=False, eps=0.37).numpy()
    got, _ = exact(x, "batch-l2", weight=w, bias=b, eps=0.37, running=(mean, var))
    np.testing.assert_allclose(got, want, **TIGHT)
    public = in_float64(x, "batch-l2", weight=w, bias=b, eps=0.37, running_mean=mean, running_var=var, mode="eval")
    np.testing.assert_allclose(public, want, **TIGHT)


@BATCH_SHAPES
@pytest.mark.parametrize("momentum", [0.1, 0.75, 1.0])
def test_running_statistics_are_updated_as_torchs(shape, momentum):
    x, (mean, var) = noise(*shape), running_of(shape[1])
    new_mean, new_var = t(mean).clone(), t(var).clone()
    want = F.batch_norm(t(x), new_mean, new_var, training=True, momentum=momentum, eps=0.37).numpy()
    got, out = exact(x, "batch-l2", eps=0.37, running=(mean, var), momentum=momentum)
    np.testing.assert_allclose(got, want, **TIGHT)
    np.testing.assert_allclose(out.running[0].data[:, 0], new_mean.numpy(), **TIGHT)
    np.testing.assert_allclose(out.running[1].data[:, 0], new_var.numpy(), **TIGHT)
    public = emulate(
        x,
        "batch-l2",
        precision="fp64",
        params="stored",
        eps=0.37,
        running_mean=mean,
        running_var=var,
        momentum=momentum,
    )
    np.testing.assert_allclose(public.output, want, **TIGHT)
    np.testing.assert_allclose(public.running_mean, new_mean.numpy(), **TIGHT)
    np.testing.assert_allclose(public.running_var, new_var.numpy(), **TIGHT)


def test_other_running_statistics_hold_the_statistic_itself():
    x = np.array([[[1.0, 2.0], [10.0, 10.0]], [[3.0, 6.0], [10.0, 14.0]]])  # channels [1 2 3 6], [10 10 10 14]
    mean_abs = np.array([1.5, 1.5])
    _, out = exact(x, "batch-l1", eps=0.0, running=(np.zeros(2), np.ones(2)), momentum=0.25)
    np.testing.assert_allclose(out.running[0].data[:, 0], [0.75, 2.75], rtol=1e-15)
    want = 0.75 + 0.25 * math.sqrt(math.pi / 2) * mean_abs  # no n / (n - 1)
    np.testing.assert_allclose(out.running[1].data[:, 0], want, rtol=1e-15)


def test_nothing_is_updated_in_evaluation_or_without_running_statistics():
    x, running = noise(4, 3, 5), running_of(3)
    assert exact(x, "batch-l2")[1].running is None
    assert exact(x, "batch-l2", running=running)[1].running is None
    got = emulate(x, "batch-l2", precision="fp64", running_mean=running[0], running_var=running[1], mode="eval")
    assert got.running_mean is None
    assert got.running_var is None


# ----------------------------------------------------------------------- every where x statistic, written out


def published(statistic, n):
    """Return C as the paper prints it."""
    root = math.sqrt(2 * math.log(n))
    top = (1 + math.sqrt(math.pi * math.log(4))) / (2 * root)
    return {"l1": math.sqrt(math.pi / 2), "linf": top, "topk": top, "range": 1 / root}[statistic]


def unbiased(statistic, n, k):
    """Return 1 / E of the statistic of n N(0, 1), from the distribution of order statistics: E X = int P(X > x)."""

    def survival(x):
        if statistic == "range":  # E max - E min = 2 E max; P(max > x) less P(max < -x)
            return 2 * (1 - special.ndtr(x) ** n - special.ndtr(-x) ** n)
        remaining = np.arange(k)  # the j-th largest |z| exceeds x where more than j elements do
        return float(np.sum(stats.binom.sf(remaining, n, 2 * special.ndtr(-x)))) / k

    if statistic == "l1":
        return math.sqrt(math.pi / 2)
    return 1 / integrate.quad(survival, 0, 12, epsabs=1e-12, epsrel=1e-12, limit=200)[0]


def written_out(rows, statistic, *, centred, eps, kind, k):
    """Return c / s of each row in plain numpy float64."""
    n = rows.shape[1]
    c = rows - rows.mean(axis=1, keepdims=True) if centred else rows
    if statistic == "l2":
        return c / np.sqrt((c * c).mean(axis=1, keepdims=True) + eps)
    k = min(k, n) if statistic == "topk" else 1
    size = np.abs(c)
    plain = {
        "l1": size.mean(axis=1),
        "linf": size.max(axis=1),
        "topk": np.sort(size, axis=1)[:, n - k :].mean(axis=1),
        "range": c.max(axis=1) - c.min(axis=1),
    }[statistic]
    factor = published(statistic, n) if kind == "paper" else unbiased(statistic, n, k)
    return c / (factor * plain + eps)[:, None]


ACTIVATION_NORMS = [name for name, norm in NORMS.items() if not norm.is_weight]
SHAPES = {"batch": (3, 4, 5), "layer": (6, 23), "instance": (2, 3, 17), "group": (2, 6, 5)}


def test_all_of_where_times_statistic_times_centred_exists():
    assert len(ACTIVATION_NORMS) == 4 * 5 * 2
    assert norm_named("layer-l2-uncentred").name == "rms"


@engines
@pytest.mark.parametrize("kind", ["exact", "paper"])
@pytest.mark.parametrize("name", ACTIVATION_NORMS)
def test_every_norm_is_its_formula(run, name, kind):
    norm = norm_named(name)
    x = noise(*SHAPES[norm.where], seed=3)
    groups = 3 if norm.where == "group" else None
    per = x.shape[-1] if norm.where == "layer" else x.shape[1]
    w, b = affine(per, "wb")
    got = run(x, name, eps=0.21, kind=kind, k=4, weight=w, bias=b, num_groups=groups)
    rows = as_rows(x, norm.where, groups)
    rows = written_out(rows, norm.statistic.name, centred=norm.centred, eps=0.21, kind=kind, k=4)
    spread = (-1,) if norm.where == "layer" else (1, -1) + (1,) * (x.ndim - 2)
    want = as_tensor(rows, norm.where, x.shape) * w.reshape(spread) + b.reshape(spread)
    np.testing.assert_allclose(got, want, rtol=1e-9 if kind == "exact" else 1e-12, atol=1e-9)


@engines
@pytest.mark.parametrize("k", [1, 2, 10, 23, 500])
def test_topk_takes_k_elements_or_all_there_are(run, k):
    x = noise(4, 23)
    for kind, tolerance in (("exact", 1e-9), ("paper", 1e-12)):
        got = run(x, "layer-topk", k=k, kind=kind, eps=0.3)
        np.testing.assert_allclose(
            got, written_out(x, "topk", centred=True, eps=0.3, kind=kind, k=k), rtol=tolerance, atol=1e-12
        )


def test_eps_goes_under_the_root_of_l2_and_onto_every_other_statistic():
    x = np.array([[1.0, -1.0]])
    np.testing.assert_allclose(exact_only(x, "layer-l2", eps=3.0), [[0.5, -0.5]], rtol=1e-15)
    np.testing.assert_allclose(exact_only(x, "rms", eps=8.0), [[1 / 3, -1 / 3]], rtol=1e-15)
    for name, plain in (("l1", 1.0), ("linf", 1.0), ("topk", 1.0), ("range", 2.0)):
        s = published(name, 2) * plain + 3.0
        got = exact_only(x, f"layer-{name}", eps=3.0, kind="paper", k=2)
        np.testing.assert_allclose(got, [[1 / s, -1 / s]], rtol=1e-14, err_msg=name)


def test_what_is_left_beside_y():
    x = np.array([[1.0, 3.0, 1.0, 3.0], [0.0, 8.0, 0.0, 8.0]])
    _, out = exact(x, "layer-l2", eps=9.0, weight=np.full(4, 2.0), bias=np.ones(4))
    assert isinstance(out, Outputs)
    assert out.mean.data[:, 0].tolist() == [2.0, 4.0]
    assert out.before_eps.data[:, 0].tolist() == [1.0, 16.0]
    np.testing.assert_allclose(out.s.data[:, 0], [math.sqrt(10), 5.0], rtol=1e-15)
    np.testing.assert_allclose(out.reciprocal.data[:, 0], [1 / math.sqrt(10), 0.2], rtol=1e-15)
    np.testing.assert_allclose(out.normalized.part(0)[1], [-0.8, 0.8, -0.8, 0.8], rtol=1e-15)
    np.testing.assert_allclose(out.y.part(0)[1], [-0.6, 2.6, -0.6, 2.6], rtol=1e-15)


def test_the_residual_is_added_first():
    norm, x = norm_named("layer-l2"), noise(3, 9)
    problem = Problem(norm=norm, eps=0.3, residual=Elements.of(noise(3, 9, seed=4)))
    out = forward(Exact(3, 9), Elements.of(x), problem, WIDE)
    want = written_out(x + noise(3, 9, seed=4), "l2", centred=True, eps=0.3, kind="exact", k=1)
    np.testing.assert_allclose(out.y.part(0), want, **TIGHT)


# -------------------------------------------------------------------------------------- infinities, NaN, zeros


def test_a_row_with_nan_or_infinity_spoils_itself_alone():
    x = noise(4, 6)
    x[1, 2], x[2, 5] = math.nan, math.inf
    for name in ("layer-l2", "layer-l1", "layer-linf", "layer-topk", "layer-range", "rms"):
        clean = exact_only(x[[0, 3]], name)
        with np.errstate(invalid="ignore"):
            got = exact_only(x, name)
        np.testing.assert_array_equal(got[[0, 3]], clean)
        assert np.isnan(got[1]).all(), name
        assert not np.isfinite(got[2, 5]), name


def test_a_row_without_variance_becomes_beta_or_nan_without_eps():
    x, bias = np.full((1, 4), 3.0), np.array([1.0, 2.0, 3.0, 4.0])
    for name in ("layer-l2", "layer-l1", "layer-linf", "layer-topk", "layer-range"):
        assert exact_only(x, name, eps=1e-5, bias=bias).tolist() == [bias.tolist()]
        assert np.isnan(exact_only(x, name, eps=0.0, bias=bias)).all(), name


# -------------------------------------------------------------------- rows that do not fit into one part


PLACES = [*[(exact_only, s) for s in ("l2", "l1", "linf", "topk", "range")], (in_float64, "l2"), (in_float64, "topk")]


@pytest.mark.parametrize(("run", "statistic"), PLACES, ids=[f"{run.__name__}-{s}" for run, s in PLACES])
@pytest.mark.parametrize("far", [3, PART + 5], ids=["first part", "last part"])
def test_a_row_of_several_parts_equals_the_row_in_one_piece(run, statistic, far):
    x = noise(1, LONG)
    x[0, far], x[0, PART - 1], x[0, PART] = 40.0, -41.0, 42.0  # extremes on both sides of the cut
    w, b = affine(LONG, "wb")
    got = run(x, f"layer-{statistic}", kind="paper", eps=0.3, weight=w, bias=b)
    want = written_out(x, statistic, centred=True, eps=0.3, kind="paper", k=10) * w + b
    np.testing.assert_allclose(got, want, **TIGHT)


def test_several_parts_in_the_other_layouts():
    half = LONG // 2 + 1
    x, running = noise(2, 1, half), running_of(1)
    w, b = affine(1, "wb")
    want = F.batch_norm(t(x), None, None, t(w), t(b), training=True, eps=0.37).numpy()
    np.testing.assert_allclose(in_float64(x, "batch-l2", weight=w, bias=b, eps=0.37), want, **TIGHT)
    want = F.batch_norm(t(x), t(running[0]), t(running[1]), t(w), t(b), eps=0.37).numpy()
    got = in_float64(
        x, "batch-l2", weight=w, bias=b, eps=0.37, running_mean=running[0], running_var=running[1], mode="eval"
    )
    np.testing.assert_allclose(got, want, **TIGHT)
    x, (w, b) = noise(1, 2, half), affine(2, "wb")
    want = F.group_norm(t(x), 1, t(w), t(b), eps=0.37).numpy()
    np.testing.assert_allclose(in_float64(x, "group-l2", weight=w, bias=b, eps=0.37, num_groups=1), want, **TIGHT)


@pytest.mark.parametrize("implementation", ["pure", "pure-scaled"])
def test_the_mean_of_more_elements_than_a_part_has(implementation):
    k = PART + 100
    x = noise(1, LONG)
    got = in_float64(x, "layer-topk", k=k, kind="paper", eps=0.3, implementation=implementation)
    want = written_out(x, "topk", centred=True, eps=0.3, kind="paper", k=k)
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


# --------------------------------------------------------------- an implementation is the same mathematics


VARIANTS = {
    **{f"variance {v}": {"variance": v} for v in ("one-pass", "one-pass-clamped", "shifted")},
    **{f"variance {v}": {"variance": v} for v in ("welford", "chunked-welford")},
    **{f"division {d}": {"division": d} for d in ("multiply", "prescale", "prescale-operand")},
    **{f"division {d}, fused": {"division": d, "contracted": ("sum",)} for d in ("divide", "multiply", "prescale")},
    **{f"root {r}": {"root_form": r} for r in ("rsqrt", "reciprocal-root", "divide")},
    **{f"normalise {f}": {"normalize_form": f} for f in get_args(NormalizeForm)},
    **{f"normalise {f}, contracted": {"normalize_form": f, "contracted": CONTRACTED} for f in get_args(NormalizeForm)},
    "gain first, no reciprocal": {"normalize_form": "gain-first", "root_form": "divide"},
    "one-pass, contracted": {"variance": "one-pass", "contracted": CONTRACTED},
    "one-pass, contracted, multiply": {"variance": "one-pass", "contracted": CONTRACTED, "division": "multiply"},
    "welford, multiply": {"variance": "welford", "division": "multiply"},
    "formats of one number a row": {"total": "wide", "mean_total": "wide", "mean_count": "wide", "kept": "wide",
                                    "inverse_count": "wide", "eps_rounded": "wide", "division": "multiply"},
    "a mean of its own": {"own_mean": True},
    "deviations of their own": {"recentred": "wide"},
    "contracted, multiply": {"contracted": CONTRACTED, "division": "multiply"},
    "fold, no reciprocal": {"normalize_form": "fold", "root_form": "divide"},
    "shift, one-pass": {"normalize_form": "shift", "variance": "one-pass"},
    "fold, welford": {"normalize_form": "fold", "variance": "welford"},
    "normalised": {"normalized": "io"},
    "saved": {"saved": "io"},
    "order": {"order": Order("blocks", 8)},
}  # fmt: skip


@engines
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("name", ["layer-l2", "rms", "layer-l1", "batch-topk"])
def test_no_algorithm_or_form_changes_what_is_computed(run, name, changes):
    x = noise(5, 45)
    w, b = affine(45, "wb")
    settings = {"weight": w, "bias": b, "eps": 0.3}
    want = run(x, name, **settings)
    key = "how" if run is exact_only else "implementation"
    got = run(x, name, **settings, **{key: replace(WIDE, **changes)})
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


def test_the_clamp_of_eps_and_the_offset_of_weights_do():
    x, w = noise(3, 8), noise(8, seed=2)
    got = exact_only(x, "layer-l2", eps=0.1, how=replace(WIDE, eps_min=0.4))
    np.testing.assert_allclose(got, exact_only(x, "layer-l2", eps=0.4), rtol=1e-15)
    got = exact_only(x, "layer-l2", eps=0.5, how=replace(WIDE, eps_min=0.4))
    np.testing.assert_allclose(got, exact_only(x, "layer-l2", eps=0.5), rtol=1e-15)
    got = exact_only(x, "layer-l2", weight=w, how=replace(WIDE, weight_offset=1.0))
    np.testing.assert_allclose(got, exact_only(x, "layer-l2", weight=w + 1.0), rtol=1e-15)


# -------------------------------------------------------------------------------------------- weight norms


P = {"l1": 1, "l2": 2, "linf": np.inf}


@engines
@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("shape", [(4, 9), (3, 2, 3, 3), (2, 1)])
def test_weight_norm(run, p, shape):
    v, g = noise(*shape), noise(shape[0], seed=1)
    lengths = np.linalg.norm(v.reshape(shape[0], -1), P[p], axis=1)
    want = v * (g / lengths).reshape(-1, *[1] * (len(shape) - 1))
    np.testing.assert_allclose(run(v, f"weight-{p}", eps=0.0, weight=g), want, **TIGHT)


def test_weight_norm_in_l2_is_torchs():
    v, g = noise(4, 3, 2, 2), noise(4, 1, 1, 1, seed=1)
    want = torch._weight_norm(t(v), t(g), 0).numpy()
    np.testing.assert_allclose(in_float64(v, "weight-l2", weight=g.ravel()), want, **TIGHT)


@engines
@pytest.mark.parametrize("p", P)
def test_bounded_weight_norm_gives_every_channel_the_same_length(run, p):
    v = noise(5, 4, 3)
    got = run(v, f"bounded-weight-{p}", eps=0.0, weight=np.array([1.75]))
    np.testing.assert_allclose(np.linalg.norm(got.reshape(5, -1), P[p], axis=1), 1.75, rtol=1e-12)
    lengths = np.linalg.norm(v.reshape(5, -1), P[p], axis=1)
    np.testing.assert_allclose(got, 1.75 * v / lengths[:, None, None], **TIGHT)


def test_weight_norms_know_no_eps_and_no_centring():
    v = np.array([[3.0, 4.0], [6.0, 8.0]])
    for eps in (0.0, 1.0):
        np.testing.assert_allclose(in_float64(v, "weight-l2", eps=eps), [[0.6, 0.8]] * 2, rtol=1e-15)
        assert emulate(v, "weight-l2", precision="fp16", eps=eps).statistic.eps_share_max == 0.0


@pytest.mark.parametrize("p", P)
def test_weight_norms_where_sums_are_means(p):
    v, g = noise(3, 200), noise(3, seed=1)
    got = in_float64(v, f"weight-{p}", weight=g, implementation="pure-scaled")
    np.testing.assert_allclose(got, exact_only(v, f"weight-{p}", weight=g), **TIGHT)


@pytest.mark.parametrize("norm", ["weight-l1", "weight-l2", "weight-linf", "bounded-weight-l2"])
def test_a_weight_vector_of_zeros_is_refused_by_name(norm):
    v = noise(4, 3, 2)
    v[2] = 0.0
    with pytest.raises(UsageError, match=rf"{norm}.*output channel 2\b.*zero"):
        emulate(v, norm, precision="fp16")
    rows = exact_only(v, norm)
    assert np.isnan(rows[2]).all()
    assert np.isfinite(rows[[0, 1, 3]]).all()
