"""Rules about the backward pass: gradients that overflow or are flushed, and the room of the loss scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from normcheck.analysis.rule import NONE_KNOWN, Case, Hit, Published, Rule, measure, reaches_float32, share
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
    if case.result.rows.bad:
        return "mend the forward pass first: no loss scale is safe as long as it has bad rows"
    return None if reaches_float32(case.result.precision) else f"{_STORE_WIDE}: no loss scale is safe here"


def _overflow(case: Case) -> Iterator[Hit]:
    gradient = case.result.backward
    if gradient is None:
        return
    rows = gradient.rows.nonfinite - case.result.rows.infinite_input
    count = gradient.overflow.count
    if rows <= 0 and not count:
        return
    step = next((step for step in gradient.steps if step.overflow or step.invalid), None)
    lost = f"{share(rows, gradient.rows.total)} rows of dx have NaN or infinities" if rows > 0 else "dx is clipped"
    cause = f"; {step.step}: {share(step.overflow, step.operations)} overflow {step.format}" if step else ""
    figure = measure("backward.rows.nonfinite", rows)
    if rows <= 0:
        figure = measure("backward.overflow.count", count, unit="operations")
    yield Hit(step.step if step else None, lost + cause, fix=_mend(case, gradient), measure=figure)


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


GRADIENT_RULES: tuple[Rule, ...] = (
    Rule(
        code="NC501",
        slug="gradient-overflow",
        title="Gradient overflows",
        severity="error",
        detects="a step of the backward pass overflows, or some row of dx has a NaN or an infinity while the input had "
        "none (`backward.overflow.count`, `backward.rows.nonfinite`)",
        why="An infinite gradient reaches every earlier layer; a dynamic loss scale skips the step and halves itself.",
        published=Published(
            "fairseq, translation in float16: gradients overflowed at every loss scale from 0.5 down to 1.2e-4, and "
            "training stopped",
            "https://github.com/facebookresearch/fairseq/issues/512",
        ),
        fix=_SCALE,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --backward --loss-scale 65536",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --backward --loss-scale 64",
        figures=("backward.rows.nonfinite", "backward.overflow.count"),
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
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --backward --loss-scale 12288",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --backward --loss-scale 64",
        thresholds=("loss_scale_bits",),
        figures=("backward.overflow_bits",),
        check=_little_room,
    ),
)
