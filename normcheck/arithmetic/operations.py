"""Rounded operations and sums on whole arrays, by name: the arithmetic as a library function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.arithmetic import kernels
from normcheck.arithmetic.elementwise import Operation, elementwise, require_subnormals
from normcheck.arithmetic.events import Events, no_events
from normcheck.arithmetic.formats import FLOAT32, Format, format_named, holds
from normcheck.arithmetic.orders import Order, order_named
from normcheck.arithmetic.rounding import Rounding, carried_by_float32, fast_constants
from normcheck.arithmetic.summation import summation
from normcheck.arithmetic.values import PART

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Array = np.ndarray[Any, np.dtype[Any]]


def rounded(x: Array, form: Format, rounding: Rounding) -> Array:
    """Round an array of any shape once, nothing counted; float32 or float64 in, the carrier out."""
    require_subnormals()
    flat = np.ascontiguousarray(x).reshape(1, -1)
    if flat.dtype == np.float32 and carried_by_float32(form, rounding):
        out: Array = np.empty_like(flat)
        kernels.fast_round_only(flat[0], out[0], fast_constants(form, rounding))
        if not form.signed_zero:
            out += np.float32(0)
        return out.reshape(x.shape)
    return elementwise("copy", (flat,), form, rounding, no_events(1), fast=False).reshape(x.shape).copy()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rounded results and the events on the way."""

    result: Array
    events: Events

    @property
    def lost_mass(self) -> float | None:
        """|computed - exact| / sum of |terms|, the worst row; None where nothing was summed."""
        return self.events.lost_mass


def operate(
    operation: Operation,
    *operands: ArrayLike,
    format: str | Format,  # noqa: A002  # the field's word
    **settings: Any,
) -> Outcome:
    """Apply one rounded operation to arrays of numbers, element by element, whatever formats they are in.

    Args:
        operation: add, subtract, multiply, divide, sqrt, rsqrt, fma (a * b + c with one rounding), absolute, copy.
        operands: values exact in float64, broadcast against each other.
        format: format of the result.
        settings: fields of `Rounding`; ``rounding`` is its mode.
    """
    require_subnormals()
    form = format if isinstance(format, Format) else format_named(format)
    rounding = _settings(settings)
    arrays = np.broadcast_arrays(*(np.asarray(o, dtype=np.float64) for o in operands))
    shape = arrays[0].shape
    flat = tuple(np.ascontiguousarray(a).reshape(1, -1) for a in arrays)
    events = no_events(1)
    fast = carried_by_float32(form, rounding) and all(_fits(a, form) for a in flat)
    if fast:
        flat = tuple(a.astype(np.float32) for a in flat)
    out = elementwise(operation, flat, form, rounding, events, fast=fast)
    return Outcome(out.astype(np.float64, copy=False).reshape(shape), events)


def _fits(a: Array, form: Format) -> bool:
    """Whether all values are numbers of the format (infinities and NaN are)."""
    with np.errstate(all="ignore"):
        narrow = a.astype(np.float32)
    same = bool(np.all((narrow == a) | np.isnan(a)))
    if not same or form == FLOAT32:
        return same and holds(FLOAT32, form)
    again = elementwise("copy", (narrow,), form, Rounding(), no_events(1), fast=True)
    return bool(np.all((again == narrow) | np.isnan(narrow)))


def summed(x: ArrayLike, *, format: str | Format, order: str | Order = "sequential", **settings: Any) -> Outcome:  # noqa: A002
    """Sum the rows of a 2-D array in a given order, every addition rounded to a format.

    The terms are taken as they are (round them first for a sum of that format's numbers). For ``blocks(B)`` the
    result is the mean.
    """
    require_subnormals()
    form = format if isinstance(format, Format) else format_named(format)
    rounding = _settings(settings)
    terms = np.ascontiguousarray(np.atleast_2d(np.asarray(x)))
    if terms.dtype != np.float32:
        terms = terms.astype(np.float64, copy=False)
    fast = carried_by_float32(form, rounding) and _fits(terms.reshape(1, -1), form)
    rows, n = terms.shape
    events = no_events(rows)
    association = order if isinstance(order, Order) else order_named(order)
    total = summation(rows, n, association, form, rounding, events, fast=fast)
    for start in range(0, n, PART):
        total.add(terms[:, start : start + PART])
    return Outcome(total.finish()[:, 0], events)


def _settings(settings: dict[str, Any]) -> Rounding:
    renamed = {("mode" if name == "rounding" else name): value for name, value in settings.items()}
    return Rounding(**renamed)
