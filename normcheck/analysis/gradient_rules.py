"""Rules about the backward pass: gradients that overflow, are flushed or deviate, and the room of the loss scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from normcheck.analysis.accuracy_rules import exactly
from normcheck.analysis.rule import NONE_KNOWN, Case, Hit, Published, Rule, measure, reaches_float32, share
from normcheck.analysis.thresholds import gradient_severity
from normcheck.results import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import Backward

_STORE_WIDE = "store gradients in bfloat16 or float32"
_SCALE = "use a loss scale within `backward.safe_loss_scale`; where there is none, " + _STORE_WIDE


def _mend(case: Case, gradient: Backward) -> str | None:
    """What helps: the loss scales that are safe; without any, the forward pass first, else a wider format."""
    if gradient.safe_loss_scale is not None:
        low, high = (round(math.log2(end)) for end in gradient.safe_loss_scale)
        return f"use a loss scale from 2^{low} to 2^{high}"
    if not case.result.asked:
        return None  # nobody looked for one
    if case.result.rows.bad:
        return "mend the forward pass first: no loss scale is safe as long as it has bad rows"
    return None if reaches_float32(case.result.precision) else f"{_STORE_WIDE}: no loss scale is safe here"


_PARAMETERS = {"weight": "gamma", "bias": "beta"}


def _overflow(case: Case) -> Iterator[Hit]:
    gradient = case.result.backward
    if gradient is None:
        return
    rows = gradient.rows.nonfinite - case.result.rows.infinite_input
    broken = [] if case.result.rows.infinite_input else [i for i in gradient.parameters.items() if i[1].nonfinite]
    step = next((step for step in gradient.steps if step.overflow or step.invalid), None)
    cause = f"; {step.step}: {share(step.overflow, step.operations)} overflow {step.format}" if step else ""
    if rows > 0:
        message = f"{share(rows, gradient.rows.total)} rows of dx have NaN or infinities"
        figure = measure("backward.rows.nonfinite", rows)
    elif broken:
        (name, lost), *_ = broken
        message = f"{share(lost.nonfinite, lost.count)} gradients of {_PARAMETERS[name]} are not finite"
        figure = measure(f"backward.{name}.nonfinite", lost.nonfinite, unit="parameters")
    elif gradient.overflow.count:
        message = "a gradient is clipped"
        figure = measure("backward.overflow.count", gradient.overflow.count, unit="operations")
    else:
        return
    yield Hit(step.step if step else None, message + cause, fix=_mend(case, gradient), measure=figure)


def _flushed(case: Case) -> Iterator[Hit]:
    gradient = case.result.backward
    if gradient is None:
        return
    lost, limit = gradient.flushed, case.limits.flushed_share
    if not gradient.rows.vanished and lost.share <= limit:
        return
    rows = f"; {share(gradient.rows.vanished, gradient.rows.total)} rows vanish" if gradient.rows.vanished else ""
    yield Hit(
        next((step.step for step in gradient.steps if step.degree and step.underflow), None),
        f"{share(lost.count, lost.of)} elements of dx are flushed to zero ({lost.ideal} by their size alone){rows}",
        severity="error" if gradient.rows.vanished else None,
        fix=_mend(case, gradient),
        measure=measure("backward.flushed.share", lost.share, limit, "ratio"),
    )


def _little_room(case: Case) -> Iterator[Hit]:
    gradient = case.result.backward
    if gradient is None or gradient.overflow_bits is None or gradient.rows.nonfinite or gradient.overflow.count:
        return
    bits, limit = gradient.overflow_bits, case.limits.loss_scale_bits
    if bits < limit:
        yield Hit(
            gradient.overflow_step,
            f"{gradient.overflow_step}: {bits:.3g} bit is left before the gradient overflows "
            f"(loss scale x {2.0**bits:.3g})",
            fix=_mend(case, gradient),
            measure=Measure(name="backward.overflow_bits", value=bits, limit=limit, worse="lower", unit="bits"),
        )


def _deviation(case: Case) -> Iterator[Hit]:
    """Those gradients that are too far off, each; dx not where that is because it is flushed, which NC502 says."""
    gradient, limits = case.result.backward, case.limits
    if gradient is None:
        return
    if not gradient.rows.vanished and gradient.flushed.share <= limits.flushed_share:
        of_x = gradient.deviation
        yield from _far_off(case, "dx", "deviation", of_x.relative_rms, of_x.ideal.relative_rms)
    for name, each in gradient.parameters.items():
        yield from _far_off(case, f"gradient of {_PARAMETERS[name]}", name, each.relative_rms, each.ideal)


def _far_off(case: Case, what: str, name: str, error: float | None, ideal: float | None) -> Iterator[Hit]:
    severity, limits = gradient_severity(error, ideal, case.limits), case.limits
    if severity is None or error is None or ideal is None:
        return
    limit = limits.gradient_deviation if severity == "error" else limits.gradient_ideal * ideal
    times = f", {error / ideal:.3g} times that of one rounding" if ideal else ""
    yield Hit(
        None,
        f"{what}: relative rms error {error:.3g}{times}",
        severity,
        exactly(case),
        measure=measure(f"backward.{name}.relative_rms", error, limit, "ratio"),
    )


GRADIENT_RULES: tuple[Rule, ...] = (
    Rule(
        code="NC501",
        slug="gradient-overflow",
        title="Gradient overflows",
        severity="error",
        detects="a step of the backward pass overflows, or some row of dx, or the gradient of a gamma or beta, has a "
        "NaN or an infinity while the input had none (`backward.overflow.count`, `backward.rows.nonfinite`, "
        "`backward.weight.nonfinite`, `backward.bias.nonfinite`)",
        why="An infinite gradient reaches every earlier layer; a dynamic loss scale skips the step and halves itself.",
        published=Published(
            "fairseq, translation in float16: gradients overflowed at every loss scale from 0.5 down to 1.2e-4, and "
            "training stopped",
            "https://github.com/facebookresearch/fairseq/issues/512",
        ),
        fix=_SCALE,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --backward --loss-scale 65536",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --backward --loss-scale 64",
        figures=(
            "backward.rows.nonfinite",
            "backward.overflow.count",
            "backward.weight.nonfinite",
            "backward.bias.nonfinite",
        ),
        check=_overflow,
    ),
    Rule(
        code="NC502",
        slug="gradient-flushed",
        title="Gradient flushed to zero",
        severity="warning",
        detects="more than `flushed_share` of the elements of dx that are not 0 become 0; an error where whole rows do "
        "(`backward.rows.vanished` above 0)",
        why="What is flushed teaches earlier layers nothing, and no later step brings it back.",
        published=Published(
            "Open-Rig3R trained under float16 autocast without a loss scale: its report says that small gradients "
            "become zeros without an error, and the loss just flattens earlier",
            "https://github.com/engichang1467/Open-Rig3R/issues/35",
        ),
        fix=_SCALE,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --backward --grad-std 1e-8 "
        "--loss-scale 8",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --backward --grad-std 1e-8 "
        "--loss-scale 65536",
        thresholds=("flushed_share",),
        figures=("backward.flushed.share",),
        accuracy=True,
        check=_flushed,
    ),
    Rule(
        code="NC503",
        slug="loss-scale-room",
        title="Little room for the loss scale",
        severity="warning",
        detects="the loss scale may grow by less than `loss_scale_bits` bits before a step of the backward pass "
        "overflows, and nothing overflowed yet",
        why="A slightly larger gradient overflows.",
        published=NONE_KNOWN,
        fix=_SCALE,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --backward --loss-scale 4096",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --backward --loss-scale 64",
        thresholds=("loss_scale_bits",),
        figures=("backward.overflow_bits",),
        check=_little_room,
    ),
    Rule(
        code="NC504",
        slug="gradient-deviation",
        title="Gradient deviates",
        severity="warning",
        detects="the relative rms error of dx, or of the gradient of gamma or beta, is over `gradient_ideal` times "
        "what one rounding of the exact one costs; an error where it is more than `gradient_deviation`, and more than "
        "twice the ideal. Of dx not where NC502 fires",
        why="The error of dx reaches every earlier layer, and adds to theirs.",
        published=NONE_KNOWN,
        fix="use implementation `wide`, whose sums are float32",
        bad="normcheck simulate --norm batch-l2 --shape 32,8,28,28 --backward --implementation pure",
        good="normcheck simulate --norm batch-l2 --shape 32,8,28,28 --backward --implementation wide",
        thresholds=("gradient_ideal", "gradient_deviation"),
        figures=(
            "backward.deviation.relative_rms",
            "backward.weight.relative_rms",
            "backward.bias.relative_rms",
        ),
        accuracy=True,
        check=_deviation,
    ),
)
