"""Rules about range: what is infinite, collapses, overflows, or is lost for being small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.analysis.rule import (
    INPUT_TOO_LARGE,
    KEEP_PARAMETERS,
    KEEP_WIDE,
    MEND_THE_FILE,
    SUM_OTHERWISE,
    Case,
    Hit,
    Rule,
    breaks_any_input,
    remedy,
    rows,
    share,
)
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import Mode, round_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import Severity


def _nonfinite(case: Case) -> Iterator[Hit]:
    count = case.result.rows.nonfinite - case.result.rows.infinite_input
    if count:
        message = f"{rows(case, count)} have NaN or infinite outputs"
        yield Hit(case.suspect, message, fix=remedy(case), fact=breaks_any_input(case))


def _collapsed(case: Case) -> Iterator[Hit]:
    count = case.result.rows.collapsed
    if not count:
        return
    fact = case.result.mode == "eval"  # there the divisor comes from the file alone
    step = case.step(case.suspect or "")
    cause = ""
    if fact and breaks_any_input(case):
        cause = "; the running variance is infinite"
    elif step and step.overflow:
        cause = f"; {step.step}: {share(step.overflow, step.operations)} overflow {step.format}"
    message = f"{rows(case, count)} collapse to beta, every output finite{cause}"
    yield Hit(case.suspect, message, fix=remedy(case), fact=fact)


def _infinite_input(case: Case) -> Iterator[Hit]:
    count = case.result.rows.infinite_input
    if count:
        load = case.step("load")
        beyond = f"; load: {share(load.overflow, load.operations)} overflow {load.format}" if load else ""
        yield Hit("load", f"{rows(case, count)} have infinite input: the norm is not at fault{beyond}")


def _beyond(case: Case) -> Iterator[Hit]:
    facts = case.result.parameters
    if facts is None:
        return
    if facts.beyond:
        running, others = facts.beyond_running_var, facts.beyond - facts.beyond_running_var
        kinds = [f"{running} running variance{'s' * (running != 1)}"] * bool(running) + [f"{others} others"] * bool(
            others
        )
        place = f", as in channel {facts.worst}" if facts.worst is not None else ""
        message = f"{share(facts.beyond, facts.of)} parameters are beyond {facts.format} ({' and '.join(kinds)}){place}"
        yield Hit(None, message, fact=True)
    if facts.folded_beyond and case.result.mode == "eval":
        message = f"folded into scale and shift, {_channels(facts.folded_beyond, 'is', 'are')} beyond {facts.format}"
        yield Hit(None, message, "warning", "keep folded scales and shifts in float32", fact=True)
    for count, what in ((facts.nonfinite, "infinite or NaN"), (facts.negative, "negative running variances")):
        if count:
            message = f"{share(count, facts.of)} parameters are {what} in the file itself"
            yield Hit(None, message, fix=MEND_THE_FILE, fact=True)


def _channels(count: int, one: str, many: str) -> str:
    return f"1 channel {one}" if count == 1 else f"{count} channels {many}"


def _lost_parameters(case: Case) -> Iterator[Hit]:
    facts = case.result.parameters
    if facts is None:
        return
    if facts.flushed:
        yield Hit(None, f"{share(facts.flushed, facts.weights)} gamma become 0 in {facts.format}", fact=True)
    if facts.folded_flushed and case.result.mode == "eval":
        lost = _channels(facts.folded_flushed, "has", "have")
        message = f"folded into scale and shift, {lost} a scale of 0 in {facts.format}"
        yield Hit(None, message, fix="keep folded scales and shifts in float32", fact=True)
    if (facts.scale_change or 0.0) > case.limits.parameter_change:
        message = (
            f"rounding to {facts.format} changes gamma / sqrt(var + eps) by {100 * (facts.scale_change or 0):.3g} %"
        )
        yield Hit(None, f"{message} in channel {facts.worst}", fact=True)
    if (facts.shift or 0.0) > case.limits.parameter_change:
        message = f"rounding to {facts.format} moves the running mean by {facts.shift:.3g} deviations"
        yield Hit(None, f"{message} in channel {facts.worst}", fact=True)


def _saved_overflow(case: Case) -> Iterator[Hit]:
    step = case.step("saved")
    if step is not None and step.overflow:
        yield Hit("saved", f"{share(step.overflow, step.operations)} saved statistics overflow {step.format}")


def _little_headroom(case: Case) -> Iterator[Hit]:
    bits, step = case.result.headroom.overflow_bits, case.result.headroom.overflow_step
    if bits is not None and bits < case.limits.headroom_bits and not case.result.rows.bad:
        room = f"{bits:.3g} bit is left before it overflows" if bits >= 0 else f"overflows by {-bits:.3g} bit"
        yield Hit(step, f"{step}: {room} (input scale x {2.0**bits:.3g})", fix=_lower(remedy(case)))


def _lower(fix: str | None) -> str | None:
    return fix if fix is None or fix == INPUT_TOO_LARGE else f"scale the input down, or {fix}"


def _count(case: Case) -> Iterator[Hit]:
    step, n = case.step("count"), case.result.shape.size
    if step is None or case.result.norm.endswith(("topk-uncentred", "weight-l2")):  # those take k, or the root of n
        return
    rounded = float(round_to(float(n), step.format, rounding=_directed(case), seed=case.rounding.seed))
    if not abs(rounded - n) <= case.limits.count_error * n:  # also where it is NaN
        yield Hit("count", f"n = {n} becomes {rounded:g} in {step.format}")


def _directed(case: Case) -> Mode:
    return "nearest-even" if case.rounding.mode == "stochastic" else case.rounding.mode


def _eps_rounded(case: Case) -> float | None:
    """Eps in the format that it is added in; None where the norm has no eps step."""
    step = case.step("eps")
    if step is None or case.result.eps == 0.0:
        return None
    eps = max(case.result.eps, case.implementation.eps_min)
    return float(round_to(eps, step.format, rounding=_directed(case), ftz=case.rounding.ftz, daz=case.rounding.daz))


def _eps_zero(case: Case) -> Iterator[Hit]:
    rounded, step = _eps_rounded(case), case.step("eps")
    if rounded == 0.0 and step is not None:
        flat = case.result.statistic.zero_rows
        why = "is flushed to 0" if case.rounding.ftz else "rounds to 0"
        severity: Severity = "error" if flat else "warning"
        without = f", and {rows(case, flat)} have no variance: 0/0" if flat else ""
        fact = not flat or case.result.mode == "eval"
        yield Hit("eps", f"eps {case.result.eps:g} {why} in {step.format}{without}", severity, fact=fact)


def _eps_subnormal(case: Case) -> Iterator[Hit]:
    rounded, step = _eps_rounded(case), case.step("eps")
    if rounded and step is not None and abs(rounded) < format_named(step.format).min_normal:
        yield Hit(
            "eps",
            f"eps {case.result.eps:g} is subnormal in {step.format} ({rounded:.6g}): gone where subnormals are flushed",
            fact=True,
        )


def _statistic_underflow(case: Case) -> Iterator[Hit]:
    flushed, amplified = case.result.statistic.flushed_rows, case.result.rows.amplified
    if case.result.mode == "eval":
        flushed = 0  # a running variance of 0 beside eps does no harm by itself: amplified rows tell
    if not flushed and not amplified:
        return
    step = next(
        (row.first_bad_step for row in case.result.worst_rows if row.kind == "amplified" and row.first_bad_step), None
    )
    parts = [f"{rows(case, flushed)} have a statistic of 0 that is not 0"] * bool(flushed)
    parts += [f"{rows(case, amplified)} are amplified (divisor under half of what it should be)"] * bool(amplified)
    stagnates = any((step.lost_mass or 0.0) > case.limits.lost_mass_error for step in case.result.steps)
    fixed = case.result.mode == "eval"  # there the divisor comes from the file alone
    fix = SUM_OTHERWISE if stagnates else KEEP_PARAMETERS if fixed else None
    yield Hit(step or case.result.headroom.underflow_step, "; ".join(parts), fix=fix, fact=fixed)


RANGE_RULES: tuple[Rule, ...] = (
    Rule(
        code="NC101",
        slug="non-finite-output",
        title="Non-finite output",
        severity="error",
        why="NaN and infinities spread through every later layer.",
        fix=KEEP_WIDE,
        accuracy=False,
        check=_nonfinite,
    ),
    Rule(
        code="NC102",
        slug="silent-collapse",
        title="Silent collapse",
        severity="error",
        why="An infinite statistic or a reciprocal flushed to zero turns whole rows into beta, and nothing non-finite "
        "leaves the layer.",
        fix=KEEP_WIDE,
        accuracy=False,
        check=_collapsed,
    ),
    Rule(
        code="NC103",
        slug="little-headroom",
        title="Little headroom",
        severity="warning",
        why="A slightly larger input overflows.",
        fix="scale the input down, or " + KEEP_WIDE,
        accuracy=False,
        check=_little_headroom,
    ),
    Rule(
        code="NC104",
        slug="parameter-range",
        title="Parameter or running statistic beyond the format",
        severity="error",
        why="A running variance that becomes infinite turns its channel into beta, silently.",
        fix=KEEP_PARAMETERS,
        accuracy=False,
        check=_beyond,
    ),
    Rule(
        code="NC105",
        slug="infinite-input",
        title="Input already infinite",
        severity="warning",
        why="The value was lost before the norm: no kernel of the norm can bring it back.",
        fix=INPUT_TOO_LARGE,
        accuracy=False,
        check=_infinite_input,
    ),
    Rule(
        code="NC106",
        slug="element-count",
        title="Element count not representable",
        severity="error",
        why="Sums are divided by a wrong n, or by infinity.",
        fix="count in float32, or take a mean of means (implementation `pure-scaled`)",
        accuracy=True,
        check=_count,
    ),
    Rule(
        code="NC201",
        slug="eps-zero",
        title="Eps rounds to zero",
        severity="warning",
        why="A row without variance becomes 0/0.",
        fix="use --eps 1e-4 or larger, or keep eps in float32",
        accuracy=False,
        check=_eps_zero,
    ),
    Rule(
        code="NC202",
        slug="eps-subnormal",
        title="Eps subnormal",
        severity="note",
        why="Hardware that flushes subnormals takes it for zero.",
        fix="use --eps 1e-4 or larger, or keep eps in float32",
        accuracy=False,
        check=_eps_subnormal,
    ),
    Rule(
        code="NC203",
        slug="statistic-underflow",
        title="Statistic underflows",
        severity="error",
        why="Rows are divided by the root of eps instead of by their deviation.",
        fix="scale the input up, or " + KEEP_WIDE,
        accuracy=True,
        check=_statistic_underflow,
    ),
    Rule(
        code="NC204",
        slug="parameters-flushed",
        title="Parameters flushed to zero, or moved by rounding",
        severity="warning",
        why="A gamma of 0 switches its channel off; a mean that moves by a share of the deviation shifts every output.",
        fix=KEEP_PARAMETERS,
        accuracy=True,
        check=_lost_parameters,
    ),
    Rule(
        code="NC205",
        slug="saved-overflow",
        title="Saved reciprocal deviation overflows",
        severity="warning",
        why="The forward pass is right, and the gradients are infinite.",
        fix="save the statistics in float32, or use a larger --eps",
        accuracy=False,
        check=_saved_overflow,
    ),
)
