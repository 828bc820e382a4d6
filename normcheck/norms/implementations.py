"""Implementations: the format, order and algorithm of each step of a norm, as data.

A role names a format relative to the run's precision P: ``io`` is P, ``wide`` the wider of P and float32,
``param`` the format of the parameters, ``promoted`` the wider of P and that; anything else is a format's own name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from normcheck.arithmetic.formats import FLOAT32, Format, format_named, wider
from normcheck.arithmetic.orders import DEFAULT_BLOCK, DEFAULT_LANES, Layout, Order

if TYPE_CHECKING:
    from normcheck.arithmetic.emulated import Machine
    from normcheck.arithmetic.rounding import Rounding
    from normcheck.norms.table import Grouping, Norm

Status = Literal["generic", "verified", "from source", "reported"]
VarianceAlgorithm = Literal["two-pass", "one-pass", "one-pass-clamped", "welford", "chunked-welford", "shifted"]
Division = Literal["divide", "multiply", "prescale", "prescale-operand"]
RootForm = Literal["root-reciprocal", "rsqrt", "reciprocal-root", "divide"]
NormalizeForm = Literal["center", "shift", "fold", "fold-affine", "center-fold", "gain-first"]
Bessel = Literal["sum", "variance", "none"]
RowLayout = Literal["contiguous", "channels-last"]
Rescale = Literal["none", "max"]
AbsentBias = Literal["skipped", "zero"]
MomentumOf = Literal["both", "batch", "running"]
ONLINE = ("welford", "chunked-welford")
"""Algorithms that update mean and squared deviations together."""
CONTRACTED = ("sum", "variance", "eps", "normalize", "fold", "fold-gain", "bias")
"""Steps whose multiplication and addition a kernel may contract into one fused multiply-add, with one rounding."""

STEP_ROLES: dict[str, str] = {
    "residual": "residual",
    "load": "load",
    "rescale": "center",
    "sum-mean": "mean_sum",
    "mean": "mean",
    "center": "center",
    "square": "product",
    "absolute": "product",
    "maximum": "product",
    "topk": "product",
    "sum": "sum",
    "count": "count",
    "variance": "statistic",
    "statistic": "statistic",
    "constant": "statistic",
    "eps": "eps",
    "root": "root",
    "reciprocal": "reciprocal",
    "normalize": "normalize",
    "fold": "fold",
    "gain": "gain",
    "bias": "bias",
    "store": "store",
    "running-update": "running",
}
"""Which field of an implementation holds the format of which step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """How a kernel computes a norm.

    Attributes:
        name, title: its name, and one line on what it is.
        status: ``generic`` (a model of arithmetic), or how well a real kernel's row is known: ``verified``
            (bit-compared with the kernel), ``from source`` (read), ``reported`` (claimed by an issue or document).
        citation: project, path, commit or version.
        project, platform: whose code it is, and what it runs on.
        approximation: what of the real kernel the fields do not say; empty where nothing is known to be missing.
        norms, precisions: names of the norms and labels of the io formats that it defines; empty for all.
        parameters: storage of gamma and beta that it defines, ``io`` or ``float32``; empty for both.
        modes: ``train`` or ``eval``, of batch norms that have a kernel for each; empty for both.
        multiple_of, size_from, size_below, spatial_from, spatial_below: sizes of rows, and of the spatial dimensions
            (0: without limit), that the kernel is chosen for; another row has the rest.
        layout: in which order the elements of a row are visited: as (d, spatial), or as (spatial, d) of a group norm
            on channels-last data; rows of batch norms are (n, spatial) either way.
        rescale: ``max`` divides each row by its largest magnitude first, and does not rescale eps.
        residual: format of x + residual before the norm.
        load: format of the elements when they enter; the run's io format.
        mean_sum, mean: accumulator of the mean, and the format that the finished mean is rounded to.
        center: format of x - mean, and of x / max|x|. recentred: of the x - mean that is normalised, if it differs.
        product: format of the square (or of |c|, which is exact), before it is added.
        contracted: which of ``CONTRACTED`` are one fused multiply-add. ``sum``: products enter the accumulator
            unrounded. ``variance``: E[x^2] - mean * mean; where sums are multiplied by 1/n, Q * (1/n) - (mean^2).
            ``eps``: Q * (1/n) + eps, where sums are multiplied by 1/n and the statistic has the sum's format.
            ``normalize``: x * r + shift. ``fold``: beta - mean * scale; ``fold-gain``: only where there is a gamma.
            ``bias``: t * gamma + beta; without a gamma c * r + beta; folded, x * scale + shift.
        partial: format in which partial sums are merged; that of the sum where None. mean_partial: of the mean's sum,
            where it differs.
        total: format that the finished sum of the statistic is rounded to before it is divided; that of the sum where
            None. mean_total: the same of the mean's sum.
        sum: accumulator of the statistic.
        count: format of the element count n (or of 1/n); mean_count: that of the mean, where it differs.
        inverse_count: format that 1/n is rounded to, where it differs from the one that it is formed in.
        variance: algorithm of the L2 statistic.
        chunk: elements of a lane that ``chunked-welford`` takes before it merges.
        statistic_centred: the statistic is of x - mean even where the norm does not subtract the mean.
        own_mean: ``two-pass`` squares x less a second mean, in the formats of the statistic.
        recurrence: how the Welford algorithms take an element and merge, a row of `arithmetic.recurrences.RECURRENCES`.
        clip: the finished statistic is clipped to the largest finite number of the io format.
        order: association of the statistic's sum; mean_order: of the mean's, where it differs.
        division: sum / n, sum * (1/n), or before the terms are added: (x x) * (1/n), or (x * (1/n)) * x.
            mean_division: of the mean, where it differs.
        statistic: format that the finished variance, mean of squares or mean of absolutes is rounded to.
        moment: format that a one-pass mean square and mean * mean are rounded to; the wider of the total's and the
            statistic's where None.
        eps: format of eps and of the addition.
        eps_rounded: format that eps is rounded to before that.
        eps_min: a clamp, max(eps, eps_min).
        root, reciprocal: format of the square root, and of 1/s, which is formed in the root's where that is wider.
        root_form: 1/sqrt(v), a correctly rounded reciprocal square root, sqrt(1/v), or c / sqrt(v).
        kept: format that the mean and 1/s are rounded to before the elements are normalised, where there is one.
        normalize: format of c * (1/s).
        normalize_form: ``center``, (x - mean) * r; ``shift``, x * r + (-mean * r); ``fold``, x * a + b with
            a = gamma * r and b = beta - mean * a; ``fold-affine``, that where there is a gamma or beta, else as
            ``center``; ``center-fold``, (x - mean) * a + beta; ``gain-first``, (gamma * (x - mean)) * r + beta.
        fold: format of a and b, and of -mean * r.
        normalized: format that the normalised value is rounded to before the affine step.
        gain, bias: formats of * gamma and + beta.
        weight_offset: added to gamma first (1 for zero-centred weights), in the format of the gain.
        absent_bias: a beta that a layer lacks is ``skipped``, or added as ``zero``, which makes 0 of -0; of
            ``fold-affine`` only where there is a gamma.
        store: format of the output.
        saved: format of the mean and 1/s that are kept for backward.
        running: format of the update of running statistics, which are then stored in that of the parameters.
        running_mean: format that the mean is rounded to before it enters the running mean.
        running_batch: format of momentum * batch, where it differs; the sum is in the wider of both. running_variance:
            the same of the variance alone.
        momentum_of: the momentum m and 1 - m are ``both`` rounded, or the weight of the ``batch`` is and the other is
            formed from it, or the weight of the ``running`` statistics is.
        bessel: what the running variance takes: ``sum`` / (n - 1), ``variance`` * n / (n - 1), or, for ``none``, the
            variance.
    """

    name: str
    title: str
    status: Status = "generic"
    citation: str = ""
    project: str = "generic"
    platform: str = ""
    approximation: str = ""
    norms: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    multiple_of: int = 1
    size_from: int = 0
    size_below: int = 0
    spatial_from: int = 0
    spatial_below: int = 0
    layout: RowLayout = "contiguous"
    rescale: Rescale = "none"
    residual: str = "io"
    load: str = "io"
    mean_sum: str = "io"
    mean: str = "io"
    center: str = "io"
    recentred: str | None = None
    product: str = "io"
    contracted: tuple[str, ...] = ()
    sum: str = "io"
    partial: str | None = None
    mean_partial: str | None = None
    total: str | None = None
    mean_total: str | None = None
    count: str = "io"
    mean_count: str | None = None
    inverse_count: str | None = None
    statistic_centred: bool = False
    own_mean: bool = False
    variance: VarianceAlgorithm = "two-pass"
    chunk: int = 16
    recurrence: str = "chan"
    clip: bool = False
    order: Order = field(default=Order("lanes", DEFAULT_LANES))
    mean_order: Order | None = None
    division: Division = "divide"
    mean_division: Division | None = None
    statistic: str = "io"
    moment: str | None = None
    eps: str = "io"
    eps_rounded: str | None = None
    eps_min: float = 0.0
    root: str = "io"
    reciprocal: str = "io"
    root_form: RootForm = "root-reciprocal"
    kept: str | None = None
    normalize: str = "io"
    normalize_form: NormalizeForm = "center"
    fold: str = "io"
    normalized: str | None = None
    gain: str = "io"
    bias: str = "io"
    weight_offset: float = 0.0
    absent_bias: AbsentBias = "skipped"
    store: str = "io"
    saved: str | None = None
    running: str = "param"
    running_mean: str | None = None
    running_batch: str | None = None
    running_variance: str | None = None
    momentum_of: MomentumOf = "both"
    bessel: Bessel = "variance"

    def format_of(self, role: str, io: Format, param: Format) -> Format:
        """Resolve a role to a format for a run whose elements are stored in `io` and parameters in `param`."""
        if role == "io":
            return io
        if role == "wide":
            return wider(io, FLOAT32)
        if role == "param":
            return param
        if role == "promoted":
            return wider(io, param)
        return format_named(role)

    def formats(self, io: Format, param: Format) -> dict[str, Format]:
        """Resolve every step's format for a run."""
        formats = {step: self.format_of(getattr(self, role), io, param) for step, role in STEP_ROLES.items()}
        others = {
            "cast": self.normalized or "io",
            "saved": self.saved or "io",
            "kept": self.kept or "io",
            "clip": "io",
            "recentred": self.recentred or self.center,
            "eps-rounded": self.eps_rounded or self.eps,
            "total": self.total or self.partial or self.sum,
            "total-mean": self.mean_total or self.mean_partial or self.partial or self.mean_sum,
            "partial": self.partial or self.sum,
            "partial-mean": self.mean_partial or self.partial or self.mean_sum,
            "count-mean": self.mean_count or self.count,
            "inverse": self.inverse_count or self.count,
            "running-mean": self.running_mean or self.running,
            "running-batch": self.running_batch or self.running,
            "running-variance": self.running_variance or self.running_batch or self.running,
            "running-store": "param",
        }
        formats |= {step: self.format_of(role, io, param) for step, role in others.items()}
        widest = wider(formats["total"], formats["variance"])
        formats["moment"] = widest if self.moment is None else self.format_of(self.moment, io, param)
        return formats

    @property
    def moments_order(self) -> Order:
        """The order of online moments: of ``welford`` one accumulator, unless the order is a schedule."""
        in_order = self.variance == "welford" and not self.order.is_scheduled
        return Order("sequential") if in_order else self.order

    def orders(self, order: Order | None = None, simd: int | None = None) -> dict[str, Order]:
        """Return the orders of the sums; `order` overrides the row's own, `simd` are the lanes of its "simd" widths.

        That of online moments stays the row's own, `moments_order`.
        """
        orders = {
            "sum": order or self.order,
            "sum-mean": order or self.mean_order or self.order,
            "moments": self.moments_order,
        }
        return {step: each.resolved(simd) for step, each in orders.items()}

    def machine(
        self,
        io: Format,
        param: Format,
        rounding: Rounding,
        order: Order | None = None,
        *,
        group: Grouping | None = None,
        threads: int = 1,
        simd: int | None = None,
    ) -> Machine:
        """Resolve every step's format, and the orders of its sums, for a run.

        Args:
            io, param, rounding: of the elements, of the parameters, and of every operation.
            order: of all sums, in place of the row's own.
            group: how a tensor's elements fall into rows, which some orders ask for. threads: that share the work.
            simd: lanes of float32 that orders of width ``simd`` have; this machine's unless told.
        """
        from normcheck.arithmetic.emulated import Machine  # noqa: PLC0415  # the table itself needs no numba

        layout = Layout(0 if group is None else group.run, self.layout == "channels-last", threads)
        return Machine(self.formats(io, param), self.orders(order, simd), rounding, layout=layout)

    def defines(
        self,
        norm: Norm,
        io: Format | None = None,
        param: Format | None = None,
        group: Grouping | None = None,
        mode: str | None = None,
    ) -> bool:
        """Whether this kernel computes that norm at all, and in the formats, size and mode that are given."""
        return not self.refusal(norm, io, param, group, mode)

    def refusal(
        self,
        norm: Norm,
        io: Format | None = None,
        param: Format | None = None,
        group: Grouping | None = None,
        mode: str | None = None,
    ) -> str:
        """Return why this kernel does not compute what is asked; empty where it does.

        io, param: formats of the elements and of the parameters. group: how the elements fall into rows. mode: train
        or eval. What is None is not asked about.
        """
        if self.norms and norm.name not in self.norms:
            return f"{self.name} does not define {norm.name}, only {', '.join(self.norms)}"
        if io is not None and self.precisions and io.label not in self.precisions:
            return f"{self.name} does not define {norm.name} in {io.label}, only in {', '.join(self.precisions)}"
        if io is not None and param is not None and not self._takes(io, param):
            return f"{self.name} takes parameters in {self.parameters[0]}; give --params {_PARAMS[self.parameters[0]]}"
        if mode is not None and self.modes and mode not in self.modes:
            return f"{self.name} is the kernel of {self.modes[0]} mode"
        return "" if group is None else self._refused_size(group)

    def _takes(self, io: Format, param: Format) -> bool:
        """Whether parameters of that format are of a storage that the kernel takes."""
        if not self.parameters:
            return True
        return ("io" in self.parameters and param == io) or ("float32" in self.parameters and param == FLOAT32)

    def _refused_size(self, group: Grouping) -> str:
        if group.size % self.multiple_of:
            return f"{self.name} takes rows of a multiple of {self.multiple_of} elements, not of {group.size}"
        if group.size < self.size_from:
            return f"{self.name} takes rows from {self.size_from} elements, not of {group.size}"
        if self.size_below and group.size >= self.size_below:
            return f"{self.name} takes rows below {self.size_below} elements, not of {group.size}"
        spatial = group.run
        if spatial < self.spatial_from:
            return f"{self.name} takes spatial sizes from {self.spatial_from}, not {spatial}"
        if self.spatial_below and spatial >= self.spatial_below:
            return f"{self.name} takes spatial sizes below {self.spatial_below}, not {spatial}"
        return ""


_PARAMS = {"io": "half", "float32": "autocast"}
"""The preset under which parameters have that storage."""

_WIDE = dict.fromkeys(set(STEP_ROLES.values()) - {"load", "store", "running"}, "wide")

IMPLEMENTATIONS: dict[str, Implementation] = {
    row.name: row
    for row in (
        Implementation(name="pure", title="every operation in the io format, 32 lanes and a tree"),
        Implementation(
            name="pure-scaled",
            title="as pure, every sum a mean of means in blocks of at most 64: nothing grows, n never appears",
            order=Order("blocks", DEFAULT_BLOCK),
        ),
        Implementation(
            name="wide-sum",
            title="io format, sums accumulated in float32: the configuration in which L2 fails in the paper",
            mean_sum="wide",
            sum="wide",
            count="wide",
            eps="wide",
        ),
        Implementation(name="wide", title="everything in float32 (or wider), rounded once at the store", **_WIDE),  # type: ignore[arg-type]
        Implementation(
            name="wide-one-pass",
            title="as wide, variance as E[x^2] - E[x]^2: it may come out negative",
            variance="one-pass",
            **_WIDE,  # type: ignore[arg-type]
        ),
        Implementation(
            name="wide-saved-io",
            title="as wide, mean and 1/s kept for backward in the io format",
            saved="io",
            **_WIDE,  # type: ignore[arg-type]
        ),
        Implementation(
            name="pure-sequential",
            title="as pure, one accumulator, element after element",
            order=Order("sequential"),
        ),
    )
}

MEANINGFUL_PURE_PRECISION = 11
"""float16's: with fewer significant bits neither n nor eps fits, and `pure` says nothing about a kernel."""


def default_implementations(io: Format) -> tuple[str, ...]:
    """What `simulate` runs unless told: `wide` alone for formats too narrow for `pure` to mean anything."""
    return ("pure", "pure-scaled", "wide") if io.precision >= MEANINGFUL_PURE_PRECISION else ("wide",)
