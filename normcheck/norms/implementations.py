"""Implementations: the format, order and algorithm of each step of a norm, as data.

A role names a format relative to the run's precision P: ``io`` is P, ``wide`` the wider of P and float32,
``param`` the format of the parameters; anything else is a format's own name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from normcheck.arithmetic.formats import FLOAT32, Format, format_named, wider
from normcheck.arithmetic.orders import DEFAULT_BLOCK, DEFAULT_LANES, Order
from normcheck.errors import unknown_name

if TYPE_CHECKING:
    from normcheck.arithmetic.emulated import Machine
    from normcheck.arithmetic.rounding import Rounding
    from normcheck.norms.table import Norm

Status = Literal["generic", "verified", "from source", "reported"]
VarianceAlgorithm = Literal["two-pass", "one-pass", "one-pass-clamped", "welford", "chunked-welford", "shifted"]
Division = Literal["divide", "multiply", "prescale"]
RootForm = Literal["root-reciprocal", "rsqrt", "divide"]
NormalizeForm = Literal["center", "shift", "fold"]

STEP_ROLES: dict[str, str] = {
    "residual": "residual",
    "load": "load",
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
        wheres: the *where* of the norms that it defines; empty for all.
        residual: format of x + residual before the norm.
        load: format of the elements when they enter; the run's io format.
        mean_sum, mean: accumulator of the mean, and the format that the finished mean is rounded to.
        center: format of x - mean.
        product: format of the square (or of |c|, which is exact), before it is added.
        fused: products go into the accumulator by fused multiply-add, unrounded.
        sum: accumulator of the statistic.
        count: format of the element count n (or of 1/n).
        variance: algorithm of the L2 statistic.
        chunk: elements of a lane that ``chunked-welford`` takes before it merges.
        order: association of the statistic's sum; mean_order: of the mean's, where it differs.
        division: sum / n, sum * (1/n), or each term * (1/n) before it is added.
        statistic: format that the finished mean of squares or of absolutes is rounded to.
        eps: format of eps and of the addition.
        eps_min: a clamp, max(eps, eps_min).
        root, reciprocal: format of the square root, and of 1/s.
        root_form: 1/sqrt(v), a correctly rounded reciprocal square root, or c / sqrt(v).
        normalize: format of c * (1/s).
        normalize_form: (x - mean) * r; x * r + (-mean * r); or x * a + b with a = gamma * r, b = beta - mean * a.
        fold: format of a and b.
        normalized: format that the normalised value is rounded to before the affine step.
        gain, bias: formats of * gamma and + beta.
        weight_offset: added to gamma first (1 for zero-centred weights).
        store: format of the output.
        saved: format of the mean and 1/s that are kept for backward.
        running: format of the running statistics' update.
    """

    name: str
    title: str
    status: Status = "generic"
    citation: str = ""
    wheres: tuple[str, ...] = ()
    residual: str = "io"
    load: str = "io"
    mean_sum: str = "io"
    mean: str = "io"
    center: str = "io"
    product: str = "io"
    fused: bool = False
    sum: str = "io"
    count: str = "io"
    variance: VarianceAlgorithm = "two-pass"
    chunk: int = 16
    order: Order = field(default=Order("lanes", DEFAULT_LANES))
    mean_order: Order | None = None
    division: Division = "divide"
    statistic: str = "io"
    eps: str = "io"
    eps_min: float = 0.0
    root: str = "io"
    reciprocal: str = "io"
    root_form: RootForm = "root-reciprocal"
    normalize: str = "io"
    normalize_form: NormalizeForm = "center"
    fold: str = "io"
    normalized: str | None = None
    gain: str = "io"
    bias: str = "io"
    weight_offset: float = 0.0
    store: str = "io"
    saved: str | None = None
    running: str = "param"

    def format_of(self, role: str, io: Format, param: Format) -> Format:
        """Resolve a role to a format for a run whose elements are stored in `io` and parameters in `param`."""
        if role == "io":
            return io
        if role == "wide":
            return wider(io, FLOAT32)
        if role == "param":
            return param
        return format_named(role)

    def formats(self, io: Format, param: Format) -> dict[str, Format]:
        """Resolve every step's format for a run."""
        formats = {step: self.format_of(getattr(self, role), io, param) for step, role in STEP_ROLES.items()}
        formats["cast"] = self.format_of(self.normalized or "io", io, param)
        formats["saved"] = self.format_of(self.saved or "io", io, param)
        return formats

    def orders(self, order: Order | None = None) -> dict[str, Order]:
        """Return the orders of the sums; `order` overrides the row's own."""
        return {"sum": order or self.order, "sum-mean": order or self.mean_order or self.order}

    def machine(self, io: Format, param: Format, rounding: Rounding, order: Order | None = None) -> Machine:
        """Resolve every step's format, and the orders of its sums, for a run; `order` overrides the row's own."""
        from normcheck.arithmetic.emulated import Machine  # noqa: PLC0415  # the table itself needs no numba

        return Machine(self.formats(io, param), self.orders(order), rounding)

    def defines(self, norm: Norm) -> bool:
        """Whether this kernel computes that norm at all."""
        return not self.wheres or norm.where in self.wheres


_WIDE = dict.fromkeys(
    (
        "residual",
        "mean_sum",
        "mean",
        "center",
        "product",
        "sum",
        "count",
        "statistic",
        "eps",
        "root",
        "reciprocal",
        "normalize",
        "fold",
        "gain",
        "bias",
    ),
    "wide",
)

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


def implementation_named(name: str) -> Implementation:
    """Return the implementation of that name.

    Raises:
        UsageError: no such implementation.
    """
    try:
        return IMPLEMENTATIONS[name.strip().lower()]
    except KeyError:
        raise unknown_name("implementation", name, IMPLEMENTATIONS, "normcheck implementations") from None
