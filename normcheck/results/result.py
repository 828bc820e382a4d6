"""One norm in one precision under one implementation, as data: steps, rows, deviation, headroom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "degraded", "unsafe"]
RowKind = Literal["nonfinite", "collapsed", "amplified", "shrunk"]
ROW_KINDS: tuple[RowKind, ...] = ("nonfinite", "collapsed", "amplified", "shrunk")
"""Classes of bad rows; the first that matches counts."""
VERDICTS: tuple[Verdict, ...] = ("unsafe", "degraded", "ok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`groups` rows that each share one statistic over `size` elements (n); `row` is what such a row is called."""

    groups: int
    size: int
    row: str = "row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponents:
    """Input elements by magnitude, before any rounding: `counts[i]` of them in [2^(lowest + i), 2^(lowest + i + 1)).

    First and last count are not 0; `counts` is empty where no element is finite and not zero.
    """

    lowest: int
    counts: tuple[int, ...]
    zeros: int = 0
    nonfinite: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Where the values came from, whether that was assumed, how many rows and elements were run, and their sizes."""

    source: str
    assumed: bool
    rows: int
    elements: int
    exponents: Exponents | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The events of one named operation of a norm, over all rows.

    `operations` is the denominator of all event counts. `overflow`: finite operands, result beyond the largest
    finite number (division by zero included). `underflow`: the exact result is not zero, the rounded one is.
    `subnormal`: the result is subnormal. `invalid`: NaN from operands that are not NaN. `absorbed`: a non-zero
    term that left a sum unchanged. `cancelled_bits`: leading bits lost in a subtraction, the worst seen.
    `rows_affected`: rows with at least one overflow, underflow or invalid result in this step. `lost_mass`:
    |computed sum - exact sum| / sum of |terms|, the worst row whose sum is finite; None for steps that are no
    sums. `max_abs` and `min_abs`: largest, and smallest non-zero, magnitude before rounding. `degree`: the
    step is homogeneous of this degree in the input's scale; None where eps or fixed statistics break that.
    """

    step: str
    format: str
    degree: int | None
    operations: int
    overflow: int = 0
    underflow: int = 0
    subnormal: int = 0
    invalid: int = 0
    absorbed: int = 0
    cancelled_bits: float = 0.0
    rows_affected: int = 0
    lost_mass: float | None = None
    max_abs: float = 0.0
    min_abs: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """`count` events of `of` operations, over all steps, in `rows` different rows (None where not kept by row)."""

    count: int
    of: int
    rows: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How the rows ended; a row counts once, under the first class that matches, in this order.

    `infinite_input`: of the non-finite rows, those whose input, once loaded, was not finite already.
    """

    total: int
    nonfinite: int
    collapsed: int
    amplified: int
    shrunk: int
    infinite_input: int = 0

    @property
    def bad(self) -> int:
        """Rows of any class but the good one."""
        return self.nonfinite + self.collapsed + self.amplified + self.shrunk


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstRow:
    """A bad row: its index (channel or token), what became of it, its exact and emulated statistic with eps."""

    index: int
    kind: RowKind
    s: float
    s_emulated: float
    first_bad_step: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """The statistic before eps, emulated against exact, over all rows.

    `zero_rows`: exact statistic is 0 (a row without variance). `flushed_rows`: the emulated one is 0 where the
    exact one is not. `negative_rows`: the emulated variance is negative or NaN. `max_relative_error`: over rows
    where both are finite and the exact one is not 0. `eps_share_max`: eps as given over the exact value that it is
    added to (the variance, or the statistic), the worst row that has variance; `eps_dominated_rows`: rows in which
    that is more than a tenth. `effective_eps`: eps as the kernel adds it, rounded, clamped or scaled with its row, in
    the row where that changes the divisor most; None where the norm has none. `eps_effect`: by how much of itself the
    divisor changes there.
    """

    zero_rows: int
    flushed_rows: int
    negative_rows: int
    max_relative_error: float
    eps_share_max: float
    eps_dominated_rows: int
    effective_eps: float | None = None
    eps_effect: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """Distance of computed rows from the exact ones, over rows whose computed values are all finite.

    `relative_rms`: norm of the error over norm of the exact output. `max_ulp`, `mean_ulp`: in ulps of the io
    format at max(|y|, rms of the row). `sqnr_db`: -20 log10(relative_rms). `gain`: mean over rows of (alpha - 1)
    in the fit computed = alpha * exact + delta before the affine step, `gain_sd` its standard deviation over
    rows; `offset` (the fitted delta) and `noise` (what the fit leaves) as norms over the norm of the exact rows.
    All None where no row is finite.
    """

    max_abs: float | None
    mean_abs: float | None
    rms: float | None
    relative_rms: float | None
    max_ulp: float | None
    mean_ulp: float | None
    sqnr_db: float | None
    gain: float | None
    gain_sd: float | None
    offset: float | None
    noise: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation(Distance):
    """The error, beside its `ideal`: what rounding the exact output once to the io format would give."""

    ideal: Distance


@dataclass(frozen=True, slots=True, kw_only=True)
class Representation:
    """What rounding the inputs alone to the io format does to the exact output."""

    max_abs: float
    relative_rms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRatio:
    """Exact statistic over the row's own standard deviation (root mean square where the norm is not centred)."""

    mean: float
    cv: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """Bits that the input's scale may grow before a step overflows, and shrink before the statistic is subnormal.

    None where no step depends on the input's scale; negative where it happened already.
    """

    overflow_bits: float | None
    overflow_step: str | None
    underflow_bits: float | None
    underflow_step: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterFacts:
    """What the format of the parameters does to them: facts of the file, whatever the input.

    `of` numbers in all (gamma, beta, running statistics), of which `beyond` are finite as stored and infinite or
    saturated in `format`; gamma: `flushed` of `weights` become 0. `scale_change`: the largest relative change of
    gamma / sqrt(var + eps) (of gamma, where there are no running statistics), over channels where both are finite.
    `shift`: the largest |change of the running mean| / sqrt(var + eps). None where there is nothing to compare.
    `broken_affine`: of gamma and beta, those `beyond` or `nonfinite`. `negative`: running variances below -eps, whose
    root is NaN. `worst`: the channel with an infinite parameter, else with the largest of the two changes.
    `nonfinite`: numbers that are infinite or NaN in the file already. `folded_beyond`, `folded_flushed`: channels
    whose norm, folded into one scale gamma / sqrt(var + eps) and one shift, has one beyond the format, or a scale that
    becomes 0. `mean_step`, `variance_step`: the least change of a batch's mean (in deviations) and variance (relative)
    that the running statistics follow, half an ulp of them over the momentum, in the worst channel; None where they
    are not updated.
    """

    format: str
    of: int
    beyond: int
    beyond_running_var: int
    weights: int
    flushed: int
    scale_change: float | None
    shift: float | None
    worst: int | None
    nonfinite: int = 0
    broken_affine: int = 0
    negative: int = 0
    folded_beyond: int = 0
    folded_flushed: int = 0
    mean_step: float | None = None
    variance_step: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientRows:
    """How the rows of dx ended: with a NaN or an infinity, or all zeros where the exact row, rounded, is not."""

    total: int
    nonfinite: int
    vanished: int

    @property
    def bad(self) -> int:
        """Rows of either class."""
        return self.nonfinite + self.vanished


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed:
    """`count` elements of dx that are 0, of `of` whose exact value is not; `share`: their ratio.

    `ideal`: how many rounding the exact dx once would lose.
    """

    count: int
    of: int
    share: float
    ideal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGradient:
    """The gradient of gamma or beta, as it is stored for the optimizer in `format`, against the exact one.

    `count` numbers, each a sum over `elements` elements.
    `nonfinite`: of these numbers, those that are NaN or infinite. `flushed`: those that are 0 though the exact ones are
    not. `relative_rms`: norm of the error over norm of the exact gradient, of the numbers that are finite; None where
    none is. `ideal`: that of the exact ones, rounded once.
    """

    format: str
    count: int
    elements: int
    nonfinite: int
    flushed: int
    relative_rms: float | None
    ideal: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backward:
    """The gradients of a norm's input, dx, and of its parameters, computed as one implementation would.

    `source`: of the gradient that arrives at the output, before it is multiplied by `loss_scale` and stored in the io
    format. `steps`: of the backward pass, their degrees in the scale of that gradient. `deviation`: of dx, from the
    exact backward pass on the gradient before it was stored. `overflow_bits`: by how many bits the loss scale may grow
    before `overflow_step` overflows; None where nothing depends on it. `safe_loss_scale`: the powers of two from
    the first to the second overflow nothing, leave nothing that is not finite and flush no more of dx than the
    threshold `flushed_share`; None where there is no such power, and of a view that nobody asked for, for which it is
    not looked for. `weight`, `bias`: the gradients of gamma and beta; None where there is none to train. `assumed`:
    whether the gradient that arrives is an assumption, so that what rests on it is at most a warning.
    """

    source: str
    loss_scale: float
    steps: tuple[Step, ...]
    overflow: Tally
    underflow: Tally
    invalid: Tally
    absorbed: Tally
    rows: GradientRows
    deviation: Deviation
    flushed: Flushed
    overflow_bits: float | None
    overflow_step: str | None
    safe_loss_scale: tuple[float, float] | None
    weight: ParameterGradient | None = None
    bias: ParameterGradient | None = None
    assumed: bool = False

    @property
    def parameters(self) -> dict[Literal["weight", "bias"], ParameterGradient]:
        """The gradients of gamma and beta that there are."""
        both: dict[Literal["weight", "bias"], ParameterGradient | None] = {"weight": self.weight, "bias": self.bias}
        return {name: gradient for name, gradient in both.items() if gradient is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One norm in one precision under one implementation, on one input.

    `safe_magnitude`: no input with |x| at most this overflows a step, whatever its distribution; None where there is no
    such bound. `asked`: False for the view "if your runtime computes norms in this precision", which `analyze` adds
    unasked and whose findings are notes. `parameters`: None where the norm has none, or they are taken as exact.
    `backward`: the gradient of its input; None where that was not asked for.
    """

    layer: str | None
    norm: str
    precision: str
    implementation: str
    mode: Literal["train", "eval"]
    params: str
    constant: Literal["paper", "exact"] | None
    k: int | None
    shape: Shape
    eps: float
    eps_on: Literal["variance", "statistic"]
    eps_source: Literal["module", "config", "option", "assumed"]
    input: Input
    steps: tuple[Step, ...]
    overflow: Tally
    underflow: Tally
    invalid: Tally
    absorbed: Tally
    rows: Rows
    worst_rows: tuple[WorstRow, ...]
    statistic: Statistic
    deviation: Deviation
    representation: Representation
    scale_ratio: ScaleRatio
    headroom: Headroom
    safe_scale: tuple[float, float] | None
    verdict: Verdict
    asked: bool = True
    parameters: ParameterFacts | None = None
    safe_magnitude: float | None = None
    backward: Backward | None = None
