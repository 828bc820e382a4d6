"""Names and numbers that settings give, checked where they stand, so that an error can say where that is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from normcheck.cli.options import assignments, dimensions, names, numbers
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def check(key: str, value: Any, place: str) -> None:
    """Make sure that the names in the value of an option exist and its number can be, whatever else a run finds wrong.

    Raises:
        UsageError: they do not, or it cannot; the message begins with the place.
    """
    try:
        if key in _CHECKS:
            _CHECKS[key](value)
    except UsageError as error:
        said = str(error)
        raise UsageError(said if said.startswith(place) else f"{place}: {said}") from error


def _precisions(value: list[str]) -> None:
    from normcheck.arithmetic.formats import format_named

    for name in names(value):
        format_named(name)


def _norms(value: list[str]) -> None:
    from normcheck.norms.table import norm_named

    for name in names(value):
        norm_named(name)


def _implementations(value: list[str]) -> None:
    from normcheck.norms.catalogue import choices

    choices(names(value))


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


def _at_least(least: int) -> Callable[[int], None]:
    def check_number(value: int) -> None:
        if value < least:
            raise UsageError(f"give {least} or more, received {value}")

    return check_number


def _seed(value: int) -> None:
    if not 0 <= value < 2**64:
        raise UsageError(f"give a number from 0 to 2**64 - 1, received {value}")


def _finite(value: float) -> None:
    if not math.isfinite(value):
        raise UsageError(f"give a finite number, received {value:g}")


def _scale(value: float) -> None:
    _finite(value)
    if value < 0:
        raise UsageError(f"give 0 or more, received {value:g}")


def _factor(value: float) -> None:
    if not 0 < value < math.inf:
        raise UsageError(f"give a finite number above 0, received {value:g}")


def _sizes(sizes: tuple[int, ...]) -> None:
    for size in sizes:
        _at_least(1)(size)


def _eps(value: float | list[str]) -> None:
    from normcheck.layers.discovery.discover import parse_eps

    if isinstance(value, float | int):
        _scale(value)
    else:
        for text in names(value):
            parse_eps(text)


def _kinds(value: list[str]) -> None:
    from normcheck.layers.discovery.discover import parse_kind

    for text in names(value):
        parse_kind(text)


_CHECKS: dict[str, Callable[[Any], object]] = {
    "precision": _precisions,
    "norm": _norms,
    "implementation": _implementations,
    "order": _order,
    "rounding": _rounding,
    "params": _params,
    "dist": _dist,
    "grad-dist": _dist,
    "select": _selectors,
    "ignore": _selectors,
    "severity": _severity,
    "threshold": _threshold,
    "layer": names,
    "jobs": _at_least(1),
    "top": _at_least(1),
    "k": _at_least(1),
    "batch-size": _at_least(1),
    "num-groups": _at_least(1),
    "seed": _seed,
    "mean": _finite,
    "std": _scale,
    "grad-std": _scale,
    "shape": lambda value: _sizes(dimensions(value)),
    "spatial": lambda value: _sizes(dimensions(value, "--spatial", "8,8")),
    "eps": _eps,
    "kind": _kinds,
    "loss-scale": _factor,
}
