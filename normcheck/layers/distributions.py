"""Distributions by name, drawn by (seed, index) and never stored.

A distribution is a row of `DISTRIBUTIONS` and at most one function, from a `Block` of elements to standard
values z. Any continuous distribution of scipy.stats is one too. Importing this module loads neither numba nor
scipy.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.errors import UsageError, unknown_name
from normcheck.layers.drawing import Block, kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

_LISTING = "normcheck distributions"
_SECOND_STREAM, _CHANNEL_STREAM = 1, 2


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a distribution: a finite number in a range, or one of `choices`.

    Attributes:
        name: as it is written.
        default: the value when it is not; None where it must be given.
        meaning: one line.
        low: the smallest number allowed, or its open bound.
        high: the largest number allowed.
        low_open: whether `low` itself is excluded.
        choices: the words allowed, for a parameter that is no number.
    """

    name: str
    default: float | str | None
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """What is allowed, in words that follow "must be"."""
        if self.choices:
            return " or ".join(self.choices)
        if math.isfinite(self.high):
            return f"a number from {figure(self.low)} to {figure(self.high)}"
        if math.isfinite(self.low):
            return f"a finite number {'greater than' if self.low_open else 'of at least'} {figure(self.low)}"
        return "a finite number"

    def parse(self, text: str) -> float | str:
        """Return the value that `text` stands for.

        Raises:
            UsageError: no number, NaN, infinite, out of range, or none of the choices.
        """
        value = text if self.choices else _number(text)
        if not self._allows(value):
            raise UsageError(f"must be {self.range}, received {text!r}")
        return value

    def _allows(self, value: float | str) -> bool:
        if isinstance(value, str):
            return value in self.choices
        above = value > self.low if self.low_open else value >= self.low
        return math.isfinite(value) and above and value <= self.high


def _number(text: str) -> float:
    """Return the number in `text`, NaN where there is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def figure(value: float | str) -> str:
    """Return the shortest text that reads back as `value`, without a needless ``.0``."""
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def _standardised(**_parameters: float | str) -> tuple[float, float]:
    """Mean and deviation of the distributions that are scaled to 0 and 1."""
    return 0.0, 1.0


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution of standard values z.

    Attributes:
        name: as it is written.
        title: one line on what it is.
        formula: z, with N and N' independent standard normals, U a uniform on (0, 1).
        mean: the mean of z, as text.
        std: its standard deviation, as text.
        standard: from a `Block` and the parameters as keywords to z, a new float64 array.
        parameters: in the order in which they are written.
        moments: from the parameters as keywords to the mean and the standard deviation of z, as numbers.
    """

    name: str
    title: str
    formula: str
    mean: str
    std: str
    standard: Callable[..., Float64]
    parameters: tuple[Parameter, ...] = ()
    moments: Callable[..., tuple[float, float]] = _standardised


def _uniform(block: Block) -> Float64:
    return (block.uniform() - 0.5) * (2.0 * math.sqrt(3.0))


def _laplace(block: Block) -> Float64:
    u = block.uniform()
    size = np.log(2.0 * np.minimum(u, 1.0 - u)) * -math.sqrt(0.5)
    return np.copysign(size, u - 0.5)


def _student_t(block: Block, df: float) -> Float64:
    """Bailey's polar method, Mathematics of Computation 62 (1994) 779-781: exact for every df."""
    radius = np.sqrt(df * np.expm1(np.log(block.uniform()) * (-2.0 / df)))
    t = radius * np.cos(2.0 * math.pi * block.uniform(_SECOND_STREAM))
    return t * math.sqrt((df - 2.0) / df) if df > 2.0 else t


def _lognormal(block: Block, sigma: float) -> Float64:
    return np.exp(sigma * block.normal())


def _relu_gaussian(block: Block) -> Float64:
    return np.maximum(block.normal(), 0.0)


def _bimodal(block: Block, separation: float) -> Float64:
    mode = np.copysign(0.5 * separation, block.uniform(_SECOND_STREAM) - 0.5)
    return (mode + block.normal()) / math.hypot(1.0, 0.5 * separation)


def _constant(block: Block) -> Float64:
    return np.zeros(block.size)


def _outlier(block: Block, fraction: float, scale: float, of: str) -> Float64:
    if of == "elements":
        out = block.uniform(_SECOND_STREAM) < fraction
    else:
        out = _outlier_channels(block.seed, block.grouping.channels, fraction)[block.channel()]
    z = block.normal()
    z[out] *= scale
    return z


@functools.lru_cache(maxsize=64)
def _outlier_channels(seed: int, channels: int, fraction: float) -> NDArray[np.bool_]:
    """Return which channels are outliers: those of the smallest hashes, at least one where `fraction` > 0."""
    rng = kernels()
    hashes = np.empty(channels)
    whole = (0, 0, 0, channels, channels, 1, 0, 0)
    rng.fill_uniform(hashes, *rng.stream_keys(seed, _CHANNEL_STREAM), whole)
    count = max(1, round(fraction * channels)) if fraction > 0.0 else 0
    chosen = np.zeros(channels, np.bool_)
    chosen[np.argsort(hashes, kind="stable")[:count]] = True
    chosen.flags.writeable = False  # shared by all callers
    return chosen


def _lognormal_moments(sigma: float) -> tuple[float, float]:
    square = sigma * sigma
    return math.exp(square / 2.0), math.sqrt(math.expm1(square) * math.exp(square))


def _student_moments(df: float) -> tuple[float, float]:
    return (0.0 if df > 1.0 else math.nan), (1.0 if df > 2.0 else math.inf)


def _scipy_moments(rv: str, **shapes: float) -> tuple[float, float]:
    chosen = _scipy_continuous()[rv]
    return float(chosen.mean(**shapes)), float(chosen.std(**shapes))


DISTRIBUTIONS: dict[str, Distribution] = {
    d.name: d
    for d in (
        Distribution("gaussian", "normal", "N", "0", "1", Block.normal),
        Distribution("uniform", "uniform on +-sqrt(3)", "sqrt(3) (2 U - 1)", "0", "1", _uniform),
        Distribution("laplace", "two-sided exponential", "+-log(2 min(U, 1 - U)) / sqrt(2)", "0", "1", _laplace),
        Distribution(
            "student-t",
            "Student's t: heavy tails, scaled to unit variance where it has one",
            "t(df) sqrt((df - 2)/df) where df > 2, else t(df)",
            "0 (none where df <= 1)",
            "1 (infinite where df <= 2)",
            _student_t,
            (Parameter("df", 4.0, "degrees of freedom: only moments below this order exist", 0.0, low_open=True),),
            _student_moments,
        ),
        Distribution(
            "lognormal",
            "log-normal: positive, skewed",
            "exp(sigma N)",
            "exp(sigma^2/2)",
            "sqrt((exp(sigma^2) - 1) exp(sigma^2))",
            _lognormal,
            (Parameter("sigma", 1.0, "standard deviation of log z", 0.0, low_open=True),),
            _lognormal_moments,
        ),
        Distribution(
            "relu-gaussian",
            "a normal after ReLU: half of it zeros",
            "max(0, N)",
            "1/sqrt(2 pi) = 0.3989",
            "sqrt(1/2 - 1/(2 pi)) = 0.5838",
            _relu_gaussian,
            moments=lambda: (1.0 / math.sqrt(2.0 * math.pi), math.sqrt(0.5 - 0.5 / math.pi)),
        ),
        Distribution(
            "bimodal",
            "two normals of equal weight, scaled to unit variance",
            "(+-separation/2 + N) / sqrt(1 + separation^2/4)",
            "0",
            "1",
            _bimodal,
            (Parameter("separation", 4.0, "distance of the modes in standard deviations of one of them", 0.0),),
        ),
        Distribution(
            "constant",
            "every element is the mean: rows without variance",
            "0",
            "0",
            "0",
            _constant,
            moments=lambda: (0.0, 0.0),
        ),
        Distribution(
            "outlier",
            "a normal with a share of elements, or of channels, far larger: activations of transformers",
            "N, times `scale` for the outliers",
            "0",
            "sqrt(1 + share (scale^2 - 1))",
            _outlier,
            (
                Parameter("fraction", 0.001, "share of outliers; of channels at least one if above 0", 0.0, 1.0),
                Parameter("scale", 100.0, "standard deviation of the outliers", 0.0),
                Parameter("of", "elements", "what is an outlier", choices=("elements", "channels")),
            ),
            lambda fraction, scale, of: (0.0, math.sqrt(1.0 + fraction * (scale**2 - 1.0))),  # noqa: ARG005
        ),
    )
}


@functools.cache
def _scipy_continuous() -> dict[str, Any]:
    """Return the continuous distributions of scipy.stats by name."""
    from scipy import stats  # noqa: PLC0415  half a second, and only these distributions need it

    return {name: rv for name, rv in vars(stats).items() if isinstance(rv, stats.rv_continuous)}


@functools.cache
def _from_scipy(name: str) -> Distribution | None:
    """Return scipy.stats' distribution of that name, in its own standard form; None if there is none."""
    rv = _scipy_continuous().get(name)
    if rv is None:
        return None
    names = [name.strip() for name in (rv.shapes or "").split(",") if name]
    arguments = ", ".join(names)
    return Distribution(
        name,
        f"scipy.stats.{name}",
        f"scipy.stats.{name}.ppf({', '.join(['U', *names])})",
        f"scipy.stats.{name}.mean({arguments})",
        f"scipy.stats.{name}.std({arguments})",
        functools.partial(_scipy_quantile, name),
        tuple(Parameter(shape, None, "shape parameter") for shape in names),
        functools.partial(_scipy_moments, name),
    )


def _scipy_quantile(rv: str, block: Block, **shapes: float) -> Float64:
    z = np.array(_scipy_continuous()[rv].ppf(block.uniform(), **shapes), np.float64)
    if np.isnan(z).any():
        raise UsageError(f"distribution {rv!r}: scipy.stats.{rv}.ppf gives NaN for {arguments_text(shapes)}")
    return z


def _check_scipy_shapes(name: str, shapes: Mapping[str, Any]) -> None:
    if shapes and np.isnan(_scipy_continuous()[name].support(**shapes)).any():
        raise UsageError(f"distribution {name!r}: scipy.stats.{name} does not take {arguments_text(shapes)}")


def arguments_text(values: Mapping[str, float | str]) -> str:
    """Return ``name=value, ...``."""
    return ", ".join(f"{name}={figure(value)}" for name, value in values.items())


@dataclass(frozen=True, slots=True)
class Configured:
    """A distribution with a value for each of its parameters; its text reads back as the same."""

    distribution: Distribution
    parameters: tuple[tuple[str, float | str], ...] = ()

    def standard(self, block: Block) -> Float64:
        """Return the standard values z of the block's elements."""
        return self.distribution.standard(block, **dict(self.parameters))

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of z; NaN or infinite where it has none."""
        return self.distribution.moments(**dict(self.parameters))

    def __str__(self) -> str:
        text = arguments_text(dict(self.parameters))
        return f"{self.distribution.name}({text})" if text else self.distribution.name


_FORM = re.compile(r"\s*([A-Za-z][A-Za-z0-9_-]*)\s*(?:\(([^()]*)\)\s*)?")


def parse_distribution(text: str) -> Configured:
    """Return the distribution that `text` names: ``gaussian``, ``student-t(df=4)``, ``gamma(a=2)``.

    Names of `DISTRIBUTIONS` go before those of scipy.stats. Parameters not given take their defaults.

    Raises:
        UsageError: unparsable text, unknown name or parameter, a value that is missing or out of range.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"distribution {text!r}: write name or name(parameter=value, ...), as in student-t(df=4)")
    distribution = _distribution_named(match[1])
    given = _arguments(distribution, match[2] or "")
    values = {p.name: _value(distribution, p, given) for p in distribution.parameters}
    if distribution.name not in DISTRIBUTIONS:
        _check_scipy_shapes(distribution.name, values)
    return Configured(distribution, tuple(values.items()))


def _distribution_named(name: str) -> Distribution:
    key = name.lower()
    found = DISTRIBUTIONS.get(key.replace("_", "-")) or _from_scipy(key)
    if found is None:
        raise unknown_name("distribution", name, [*DISTRIBUTIONS, *_scipy_continuous()], _LISTING)
    return found


def _arguments(distribution: Distribution, text: str) -> dict[str, str]:
    """Split ``a=1, b=2``; every name must be one of the distribution's and occur once."""
    subject = f"distribution {distribution.name!r}"
    given: dict[str, str] = {}
    for item in text.split(",") if text.strip() else ():
        name, equals, value = (part.strip() for part in item.partition("="))
        if not (name and equals and value):
            raise UsageError(f"{subject}: write parameter=value, received {item.strip()!r}")
        if name not in {p.name for p in distribution.parameters}:
            raise UsageError(f"{subject} has no parameter {name!r}: {_known_text(distribution)}")
        if name in given:
            raise UsageError(f"{subject}: {name} is given twice")
        given[name] = value
    return given


def _known_text(distribution: Distribution) -> str:
    names = ", ".join(p.name for p in distribution.parameters)
    return f"it has {names or 'none'} (--mean and --std set location and scale)"


def _value(distribution: Distribution, parameter: Parameter, given: Mapping[str, str]) -> float | str:
    text = given.get(parameter.name)
    if text is not None:
        try:
            return parameter.parse(text)
        except UsageError as error:
            raise UsageError(f"distribution {distribution.name!r}: {parameter.name} {error}") from None
    if parameter.default is None:
        names = ", ".join(f"{p.name}=..." for p in distribution.parameters)
        raise UsageError(
            f"distribution {distribution.name!r} needs {parameter.name}: write {distribution.name}({names})"
        )
    return parameter.default
