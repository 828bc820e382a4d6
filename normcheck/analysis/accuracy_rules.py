"""Rules about accuracy: how far the output, a sum or a variance is from the exact one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.analysis.rule import (
    AROUND_THE_MEAN,
    KEEP_PARAMETERS,
    NONE_KNOWN,
    SUM_OTHERWISE,
    Case,
    Hit,
    Published,
    Rule,
    around_the_mean,
    cancelled,
    measure,
    rows,
    share,
    sum_otherwise,
)
from normcheck.analysis.thresholds import EPS_DOMINATES, deviation_severity
from normcheck.arithmetic.formats import FLOAT32, format_named, wider
from normcheck.norms.parameters import storage_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.arithmetic.formats import Format
    from normcheck.norms.implementations import Implementation


def _deviation(case: Case) -> Iterator[Hit]:
    error, ideal = case.result.deviation.relative_rms, case.result.deviation.ideal.relative_rms
    severity = deviation_severity(error, ideal, case.limits)
    if severity is None or error is None or ideal is None:
        return
    times = error / ideal if ideal else float("inf")
    limit = case.limits.deviation if severity == "error" else case.limits.deviation_ideal * ideal
    yield Hit(
        None,
        f"relative rms error {error:.3g}, {times:.3g} times that of one rounding",
        severity,
        exactly(case),
        measure=measure("deviation.relative_rms", error, limit, "ratio"),
    )


def exactly(case: Case) -> str | None:
    """What to do about an inaccurate result whose arithmetic is that of `wide` already; None to advise `wide`."""
    facts, io = case.result.parameters, format_named(case.result.precision)
    storage = storage_named(case.result.params)
    if not _is_wide(case.implementation, io, io if storage == "io" else FLOAT32):
        return None
    if facts is not None and storage == "io" and wider(io, FLOAT32) != io:
        return KEEP_PARAMETERS
    if wider(io, FLOAT32) == io:
        return "compute in a wider format, or bring the input's mean nearer to 0: the arithmetic is that of `wide`"
    return "scale the input, or store it in a wider format: the arithmetic is float32 already"


def _is_wide(how: Implementation, io: Format, param: Format) -> bool:
    """Whether `wide` would do nothing better: no step is narrower, no variance cancels, no long sum is in sequence."""
    wide, formats = wider(io, FLOAT32), how.formats(io, param)
    if how.variance.startswith(("one-pass", "shifted")):
        return False
    for step in ("sum", "sum-mean"):
        if how.orders()[step].kind == "sequential" and formats[step].precision <= wide.precision:
            return False
    optional = {"cast": how.normalized, "kept": how.kept, "clip": how.clip}
    beside = {step for step, role in optional.items() if not role} | _BESIDE_THE_ARITHMETIC
    return all(form.precision >= wide.precision for step, form in formats.items() if step not in beside)


_BESIDE_THE_ARITHMETIC = frozenset(
    {
        *("load", "residual", "store", "saved", "eps-rounded"),
        *("running-update", "running-mean", "running-batch", "running-variance", "running-store"),
    }
)
"""Steps whose format is not that of computing the output."""


def _stagnation(case: Case) -> Iterator[Hit]:
    for step in case.result.steps:
        if step.lost_mass is None or step.lost_mass <= case.limits.lost_mass_warning:
            continue
        severe = step.lost_mass > case.limits.lost_mass_error
        limit = case.limits.lost_mass_error if severe else case.limits.lost_mass_warning
        yield Hit(
            step.step,
            f"{step.step} loses {100 * step.lost_mass:.3g} % of its terms' magnitude in the worst row "
            f"({share(step.absorbed, step.operations)} additions changed nothing)",
            "error" if severe else "warning",
            sum_otherwise(case, step),
            measure=measure(f"steps.{step.step}.lost_mass", step.lost_mass, limit, "ratio"),
        )


def _cancellation(case: Case) -> Iterator[Hit]:
    if not cancelled(case):
        return
    figures = case.result.statistic
    allowed, fix = 2.0**-case.limits.variance_bits, around_the_mean(case)
    if figures.negative_rows:
        figure = measure("statistic.negative_rows", figures.negative_rows)
        yield Hit("variance", f"{rows(case, figures.negative_rows)} have a negative variance", fix=fix, measure=figure)
    else:
        yield Hit(
            "variance",
            f"the variance E[x^2] - E[x]^2 is off by {figures.max_relative_error:.3g} of itself in the worst row",
            fix=fix,
            measure=measure("statistic.max_relative_error", figures.max_relative_error, allowed, "ratio"),
        )


def _coherent(case: Case) -> Iterator[Hit]:
    error = case.result.deviation
    if error.gain is None or error.offset is None or case.result.rows.bad:
        return
    unit = format_named(case.result.precision).roundoff
    if unit <= format_named("float64").roundoff:
        return  # the reference is no better
    limit = case.limits.coherent * unit
    for name, size in (("gain", error.gain), ("offset", error.offset)):
        if abs(size) > limit:
            yield Hit(
                None,
                f"{name} error {size:+.3g} is the same for all elements of a row "
                f"({abs(size) / unit:.3g} units of roundoff)",
                fix=exactly(case),
                measure=measure(f"deviation.{name}", abs(size), limit, "ratio"),
            )


def _stalled_update(case: Case) -> Iterator[Hit]:
    facts = case.result.parameters
    if facts is None or case.result.mode == "eval":
        return
    limit, is_float32 = case.limits.stalled_update, facts.format == FLOAT32.name
    for name, step, unit, what in (
        ("mean_step", facts.mean_step, "deviations", "mean by {} deviations"),
        ("variance_step", facts.variance_step, "ratio", "variance by {} of itself"),
    ):
        if step is not None and step > limit:
            change = what.format(f"{step:.3g}")
            yield Hit(
                "running-update",
                f"in {facts.format} the running statistics miss a change of the batch {change}",
                fix="use a larger momentum, or keep the running statistics in float64" if is_float32 else None,
                fact=True,
                measure=measure(f"parameters.{name}", step, limit, unit),
            )


def _eps_dominates(case: Case) -> Iterator[Hit]:
    figures, what = case.result.statistic, case.result.eps_on
    count, most = figures.eps_dominated_rows, figures.eps_share_max
    if count and case.result.mode == "train":  # under fixed statistics the norm is an affine map, whatever its eps
        yield Hit(
            "eps",
            f"eps {case.result.eps:g} is over 10 % of the {what} in {rows(case, count)} (up to {most:.3g} times it)",
            measure=measure("statistic.eps_share_max", most, EPS_DOMINATES, "ratio"),
        )


ACCURACY_RULES: tuple[Rule, ...] = (
    Rule(
        code="NC301",
        slug="deviation",
        title="Deviation",
        severity="warning",
        detects="the relative rms error is more than `deviation_ideal` times what one rounding of the exact output "
        "costs; an error where it is more than `deviation`, and more than twice the ideal",
        why="The output is further from the exact one than its format makes necessary.",
        published=Published(
            "coremltools' rms_norm, whose eps grows with the largest element: 4 to 6 % relative L2 error of an "
            "encoder's output, nothing overflowing",
            "https://github.com/apple/coremltools/issues/2821",
        ),
        fix="use implementation `wide`",
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --mean 30",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --mean 30",
        thresholds=("deviation_ideal", "deviation"),
        figures=("deviation.relative_rms",),
        accuracy=True,
        check=_deviation,
    ),
    Rule(
        code="NC302",
        slug="stagnating-sum",
        title="Stagnating sum",
        severity="warning",
        detects="in some row |computed sum - exact sum| is more than `lost_mass_warning` of the sum of the terms' "
        "magnitudes; an error above `lost_mass_error`",
        why="Terms below half an ulp of the running sum are lost, all in one direction.",
        published=Published(
            "CommonLoopUtils: the mean of a LayerNorm's scale, 768 ones in bfloat16, came out as 0.334",
            "https://github.com/google/CommonLoopUtils/pull/380",
        ),
        fix=SUM_OTHERWISE,
        bad="normcheck simulate --norm rms --shape 8,4096 --implementation pure-sequential",
        good="normcheck simulate --norm rms --shape 8,4096 --implementation pure",
        thresholds=("lost_mass_warning", "lost_mass_error"),
        figures=("steps.STEP.lost_mass",),
        accuracy=True,
        check=_stagnation,
    ),
    Rule(
        code="NC303",
        slug="cancellation",
        title="Cancellation",
        severity="error",
        detects="an L2 norm's variance, computed as E[x^2] - E[x]^2, is negative in some row or off by more than "
        "2^-`variance_bits` of itself",
        why="E[x^2] - E[x]^2 loses all right bits where the mean is large beside the deviation.",
        published=Published(
            "ONNX Runtime 1.19, CPU: LayerNormalization of 256 equal elements, 1234.0, is NaN in float32",
            "https://github.com/microsoft/onnxruntime/issues/21935",
        ),
        fix=AROUND_THE_MEAN,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide-one-pass --mean 1000 "
        "--precision fp32",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --mean 1000 --precision fp32",
        thresholds=("variance_bits",),
        figures=("statistic.negative_rows", "statistic.max_relative_error"),
        accuracy=True,
        check=_cancellation,
    ),
    Rule(
        code="NC304",
        slug="coherent-error",
        title="Coherent error",
        severity="note",
        detects="no row is bad, and the gain or the offset of the fitted error is more than `coherent` units of "
        "roundoff of the io format",
        why="An error that all elements share does not average out downstream.",
        published=NONE_KNOWN,
        fix="use implementation `wide`",
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --mean 10",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --mean 10",
        thresholds=("coherent",),
        figures=("deviation.gain", "deviation.offset"),
        check=_coherent,
    ),
    Rule(
        code="NC305",
        slug="stalled-update",
        title="Running-statistic update stalls",
        severity="warning",
        detects="in train mode, running statistics are kept in a format in which they miss a change of the batch's "
        "mean by more than `stalled_update` deviations, or of its variance by more than `stalled_update` of itself",
        why="A step of less than half an ulp changes nothing: inference runs on the statistics of an earlier model.",
        published=Published(
            "none of a norm known to us; a Dreambooth extension's moving averages of weights, the same recurrence, "
            "never changed in float16 or bfloat16",
            "https://github.com/d8ahazard/sd_dreambooth_extension/pull/1417",
        ),
        fix="keep the running statistics in float32 (--params autocast), or use a larger momentum",
        bad="normcheck analyze data/breast-cancer-mlp.pt --precision bf16 --mode train",
        good="normcheck analyze data/breast-cancer-mlp.pt --precision bf16 --mode train --params autocast",
        thresholds=("stalled_update",),
        figures=("parameters.mean_step", "parameters.variance_step"),
        check=_stalled_update,
    ),
    Rule(
        code="NC306",
        slug="eps-dominates",
        title="Eps dominates",
        severity="warning",
        detects="in train mode, eps as given is more than 0.1 of the exact variance (of the exact statistic, where it "
        "is added to that) in some row that has variance",
        why="The norm no longer normalises: its output shrinks with its input.",
        published=Published(
            "NNTrainer on OpenCL raised eps to 1e-4 so that float16 holds it, for rows whose mean square is 2e-4: "
            "relative error 0.17 after the first norm, and another token",
            "https://github.com/nntrainer/nntrainer/pull/4318",
        ),
        fix="nothing, if the model was trained with this eps; else a smaller one, or scale the input up",
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --std 0.005",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --std 0.05",
        figures=("statistic.eps_share_max",),
        check=_eps_dominates,
    ),
)
