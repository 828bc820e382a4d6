"""Names that settings give, checked where they stand, so that an error can say where that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normcheck.cli.options import assignments, dimensions, names, numbers
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def check(key: str, value: Any, place: str) -> None:
    """Make sure that the names in the value of an option exist, whatever else the run finds wrong with it.

    Raises:
        UsageError: they do not; the message begins with the place.
    """
    try:
        if key in _CHECKS:
            _CHECKS[key](value)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error


def _precisions(value: list[str]) -> None:
    from normcheck.arithmetic.formats import format_named

    for name in names(value):
        format_named(name)


def _norms(value: list[str]) -> None:
    from normcheck.norms.table import norm_named

    for name in names(value):
        norm_named(name)


def _implementations(value: list[str]) -> None:
    from normcheck.norms.implementations import implementation_named

    for name in names(value):
        implementation_named(name)


def _order(value: str) -> None:
    from normcheck.arithmetic.orders import order_named

    order_named(value)


def _rounding(value: str) -> None:
    from normcheck.arithmetic.rounding import Rounding

    Rounding(value)  # type: ignore[arg-type]  # any text: it says which it knows


def _params(value: str) -> None:
    from normcheck.norms.parameters import storage_named

    storage_named(value)


def _dist(value: str) -> None:
    from normcheck.layers.distributions import parse_distribution

    parse_distribution(value)


def _selectors(value: list[str]) -> None:
    from normcheck.analysis.rules import policy

    policy(names(value), (), (), ())


def _severity(value: list[str]) -> None:
    from normcheck.analysis.rules import policy

    policy((), (), assignments(value, "--severity"), ())


def _threshold(value: list[str]) -> None:
    from normcheck.analysis.rules import policy

    policy((), (), (), numbers(value, "--threshold"))


_CHECKS: dict[str, Callable[[Any], object]] = {
    "precision": _precisions,
    "norm": _norms,
    "implementation": _implementations,
    "order": _order,
    "rounding": _rounding,
    "params": _params,
    "dist": _dist,
    "select": _selectors,
    "ignore": _selectors,
    "severity": _severity,
    "threshold": _threshold,
    "layer": names,
    "shape": dimensions,
    "spatial": lambda value: dimensions(value, "--spatial", "8,8"),
}
