"""Rules about what is too small: eps, statistics and parameters that are lost, and reciprocals that grow from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from normcheck.analysis.rule import (
    KEEP_PARAMETERS,
    KEEP_WIDE,
    NONE_KNOWN,
    Case,
    Hit,
    Published,
    Rule,
    around_the_mean,
    cancelled,
    channels,
    directed,
    keep_parameters,
    measure,
    reaches_float32,
    rows,
    share,
    sum_otherwise,
)
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import round_to
from normcheck.norms.parameters import storage_form, storage_named
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import Severity

_KEEP_EPS = "use --eps 1e-4 or larger, or keep eps in float32"


def _eps_rounded(case: Case) -> tuple[float, str] | None:
    """Eps as the kernel rounds it, and the format that decided; None where the norm has no eps step."""
    step, how = case.step("eps"), case.implementation
    if step is None or case.result.eps == 0.0:
        return None
    name, eps = step.format, case.result.eps
    if how.eps_rounded is not None:
        io = format_named(case.result.precision)
        first = how.format_of(how.eps_rounded, io, storage_form(storage_named(case.result.params), io) or io)
        eps = _rounded(case, eps, first.name)
        name = first.name if eps == 0.0 else name
    return _rounded(case, max(eps, how.eps_min), step.format), name


def _rounded(case: Case, value: float, form: str) -> float:
    rounding = case.rounding
    return float(round_to(value, form, rounding=directed(case), ftz=rounding.ftz, daz=rounding.daz))


def _larger_eps(format_name: str) -> str:
    """What to do about an eps that a format loses: the next power of ten that is normal in it, where that is small."""
    least = math.ceil(math.log10(format_named(format_name).min_normal))
    larger = f"use --eps 1e{least} or larger"
    if reaches_float32(format_name):
        return larger
    return f"{larger}, or keep eps in float32" if least < -2 else "keep eps in float32"


def _eps_zero(case: Case) -> Iterator[Hit]:
    eps, form = _eps_rounded(case) or (None, "")
    if eps == 0.0:
        flat = case.result.statistic.zero_rows
        why = "is flushed to 0" if case.rounding.ftz else "rounds to 0"
        severity: Severity = "error" if flat else "warning"
        without = f", and {rows(case, flat)} have no variance: 0/0" if flat else ""
        fact = not flat or case.result.mode == "eval"
        message = f"eps {case.result.eps:g} {why} in {form}{without}"
        yield Hit("eps", message, severity, _larger_eps(form), fact=fact)


def _eps_subnormal(case: Case) -> Iterator[Hit]:
    eps, form = _eps_rounded(case) or (0.0, "")
    if eps and abs(eps) < format_named(form).min_normal:
        yield Hit(
            "eps",
            f"eps {case.result.eps:g} is subnormal in {form} ({eps:.6g}): gone where subnormals are flushed",
            fix=_larger_eps(form),
            fact=True,
        )


def _eps_changed(case: Case) -> Iterator[Hit]:
    given, effective, effect = case.result.eps, case.result.statistic.effective_eps, case.result.statistic.eps_effect
    changed = effective is not None and abs(effective - given) > case.limits.eps_change * given
    if effective is None or not changed or effective == 0.0:
        return  # an eps of 0 is NC201's
    severe = effect > case.limits.eps_effect
    limit = case.limits.eps_effect if severe else 0.0
    yield Hit(
        "eps",
        f"eps {given:g} is {effective:.3g} in effect{_cause(case)}: the divisor changes by {100 * effect:.3g} %",
        "warning" if severe else "note",
        measure=measure("statistic.eps_effect", effect, limit, "ratio"),
    )


def _cause(case: Case) -> str:
    """What changed eps, in brackets."""
    how, step = case.implementation, case.step("eps")
    if how.rescale == "max":
        return " (eps times the square of the row's largest element)"
    if how.eps_min > case.result.eps:
        return " (the least that the kernel adds)"
    return f" (rounded to {step.format})" if step is not None else ""


def _statistic_underflow(case: Case) -> Iterator[Hit]:
    flushed, amplified = case.result.statistic.flushed_rows, case.result.rows.amplified
    if case.result.mode == "eval":
        flushed = 0  # a running variance of 0 beside eps does no harm by itself: amplified rows tell
    if not flushed and not amplified:
        return
    fixed = case.result.mode == "eval"  # there the divisor comes from the file alone, and no step is to blame
    amplified_rows = [row for row in case.result.worst_rows if row.kind == "amplified" and not fixed]
    step = next((row.first_bad_step for row in amplified_rows if row.first_bad_step), None)
    parts = [f"{rows(case, flushed)} have a statistic of 0 that is not 0"] * bool(flushed)
    parts += [f"{rows(case, amplified)} are amplified (divisor under half of what it should be)"] * bool(amplified)
    yield Hit(
        None if fixed else step or case.result.headroom.underflow_step,
        "; ".join(parts),
        fix=_enlarged(case),
        fact=fixed,
        measure=measure("statistic.flushed_rows", flushed) if flushed else measure("rows.amplified", amplified),
    )


def _enlarged(case: Case) -> str | None:
    """What to do about a statistic that is too small: None for the usual advice."""
    facts = case.result.parameters
    stagnating = next((s for s in case.result.steps if (s.lost_mass or 0.0) > case.limits.lost_mass_error), None)
    if stagnating is not None:
        return sum_otherwise(case, stagnating)
    if case.result.mode == "eval" and facts is not None:
        return keep_parameters(facts.format)
    square = case.step("square")
    if cancelled(case) and not (square is not None and square.underflow):
        return around_the_mean(case)
    statistic = norm_named(case.result.norm).statistic
    sums = [step for step in case.result.steps if step.step in ("square", "sum", "variance", "statistic")]
    if sums and all(reaches_float32(step.format) for step in sums):
        return "scale the input up: float32 has no more range"
    if statistic.name != "l2":
        return "scale the input up, or compute this norm's statistics in float32 (implementation `wide`)"
    return None


def _lost_parameters(case: Case) -> Iterator[Hit]:
    facts = case.result.parameters
    if facts is None:
        return
    fix, folded = keep_parameters(facts.format), "keep folded scales and shifts in float32"
    if facts.flushed:
        message = f"{share(facts.flushed, facts.weights)} gamma become 0 in {facts.format}"
        yield Hit(None, message, fix=fix, fact=True, measure=measure("parameters.flushed", facts.flushed, unit="gamma"))
    if facts.folded_flushed and case.result.mode == "eval":
        lost = channels(facts.folded_flushed, "has", "have")
        message = f"folded into scale and shift, {lost} a scale of 0 in {facts.format}"
        figure = measure("parameters.folded_flushed", facts.folded_flushed, unit="channels")
        yield Hit(None, message, fix=folded, fact=True, measure=figure)
    limit = case.limits.parameter_change
    if (change := facts.scale_change or 0.0) > limit:
        message = f"rounding to {facts.format} changes gamma / sqrt(var + eps) by {100 * change:.3g} %"
        figure = measure("parameters.scale_change", change, limit, "ratio")
        yield Hit(None, f"{message} in channel {facts.worst}", fix=fix, fact=True, measure=figure)
    if (shift := facts.shift or 0.0) > limit:
        message = f"rounding to {facts.format} moves the running mean by {shift:.3g} deviations"
        figure = measure("parameters.shift", shift, limit, "deviations")
        yield Hit(None, f"{message} in channel {facts.worst}", fix=fix, fact=True, measure=figure)


def _saved_overflow(case: Case) -> Iterator[Hit]:
    step = case.step("saved")
    if step is not None and step.overflow:
        yield Hit(
            "saved",
            f"{share(step.overflow, step.operations)} saved statistics overflow {step.format}",
            fix="use a larger --eps" if reaches_float32(step.format) else None,
            measure=measure("steps.saved.overflow", step.overflow, unit="statistics"),
        )


UNDERFLOW_RULES: tuple[Rule, ...] = (
    Rule(
        code="NC201",
        slug="eps-zero",
        title="Eps rounds to zero",
        severity="warning",
        detects="eps is not 0 as given and is 0 in the format of the step `eps`, rounded or flushed; an error where "
        "some row has no variance",
        why="A row without variance becomes 0/0.",
        published=Published(
            "torch 1.4 and 1.5, CUDA: layer_norm of float16 zeros with eps 1e-12 is NaN",
            "https://github.com/pytorch/pytorch/issues/41527",
        ),
        fix=_KEEP_EPS,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --eps 1e-8",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --eps 1e-5",
        check=_eps_zero,
    ),
    Rule(
        code="NC202",
        slug="eps-subnormal",
        title="Eps subnormal",
        severity="note",
        detects="eps is subnormal in the format of the step `eps`, and kept: in float16 below 6.1e-5",
        why="Hardware that flushes subnormals takes it for zero.",
        published=NONE_KNOWN,
        fix=_KEEP_EPS,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --eps 1e-5",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --eps 1e-4",
        check=_eps_subnormal,
    ),
    Rule(
        code="NC203",
        slug="statistic-underflow",
        title="Statistic underflows",
        severity="error",
        detects="some row's statistic, before eps, is 0 where the exact one is not, or its divisor is less than half "
        "of the exact one (`rows.amplified` above 0)",
        why="Rows are divided by the root of eps instead of by their deviation.",
        published=Published(
            "TensorRT, BERT in float16: the squared differences of a layer norm are right, and the variance made of "
            "them is next to 0",
            "https://github.com/NVIDIA/TensorRT/issues/1196",
        ),
        fix="scale the input up, or " + KEEP_WIDE,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --std 0.0001",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --std 0.0001",
        figures=("statistic.flushed_rows", "rows.amplified"),
        accuracy=True,
        check=_statistic_underflow,
    ),
    Rule(
        code="NC204",
        slug="parameters-flushed",
        title="Parameters flushed to zero, or moved by rounding",
        severity="warning",
        detects="in the format of the parameters a gamma becomes 0, gamma / sqrt(var + eps) changes by more than "
        "`parameter_change` of itself, or the running mean moves by more than `parameter_change` deviations; in eval "
        "mode also where a folded scale becomes 0",
        why="A gamma of 0 switches its channel off; a mean that moves by a share of the deviation shifts every output.",
        published=Published(
            "Core AI's torch converter cast batch norms' parameters to float16: with tiny running variances its output "
            "was off by 0.5",
            "https://github.com/apple/coreai-torch/pull/54",
        ),
        fix=KEEP_PARAMETERS,
        bad="normcheck analyze data/digits-cnn.pt --precision float8_e5m2 --mode eval",
        good="normcheck analyze data/digits-cnn.pt --precision float8_e5m2 --mode eval --params autocast",
        thresholds=("parameter_change",),
        figures=(
            "parameters.flushed",
            "parameters.folded_flushed",
            "parameters.scale_change",
            "parameters.shift",
        ),
        accuracy=True,
        check=_lost_parameters,
    ),
    Rule(
        code="NC205",
        slug="saved-overflow",
        title="Saved reciprocal deviation overflows",
        severity="warning",
        detects="the mean or 1/s, as an implementation keeps them for the backward pass, overflows the format that "
        "they are kept in: 1/s in float16 where the variance + eps is below 2.3e-10",
        why="The forward pass is right, and the gradients are infinite.",
        published=Published(
            "none of exactly this kind known to us; FlagGems kept the mean and 1/s of layer norms in half precision "
            "until its backward pass was mended by float32",
            "https://github.com/flagos-ai/FlagGems/pull/221",
        ),
        fix="save the statistics in float32, or use a larger --eps",
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide-saved-io --dist constant "
        "--eps 1e-12",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide-saved-io --dist constant "
        "--eps 1e-5",
        figures=("steps.saved.overflow",),
        check=_saved_overflow,
    ),
    Rule(
        code="NC206",
        slug="eps-changed",
        title="Eps changed by the kernel",
        severity="note",
        detects="eps as the kernel adds it, rounded to a format, raised to a least value or scaled with its row, is "
        "not 0 and differs from eps as given by more than `eps_change` of that; a warning where the divisor of some "
        "row changes by more than `eps_effect` of itself",
        why="The kernel normalises with another eps than the model was trained with, and small rows show it.",
        published=Published(
            "coremltools' rms_norm divides each row by its largest element and adds eps as it is: eps grows with the "
            "square of that element, 4 to 6 % of an encoder's output",
            "https://github.com/apple/coremltools/issues/2821",
        ),
        fix="add eps in float32 as it is given, or train with one that the kernel keeps",
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation openvino-fp16 --eps 1e-5 --std 0.01",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation openvino-fp16 --eps 1e-4 --std 0.01",
        thresholds=("eps_change", "eps_effect"),
        figures=("statistic.eps_effect",),
        check=_eps_changed,
    ),
)
