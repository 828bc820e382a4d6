"""Fields of an implementation that exclude one another, or that have no effect beside others.

The catalogue's rows are held to this as users' are. These are mistakes that are easily made, not all that can be: a row
that passes may still give a field that has no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.norms.implementations import ONLINE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from normcheck.norms.implementations import Implementation

_FOLDED = ("fold", "fold-affine")
_WITHOUT_FOLD = ("center", "gain-first")
_WITH_PARTIALS = ("numpy-runs", "threads", "steps", "eigen-runs")
_OF_MOMENTS = ("sequential", "lanes", "rowwise", "block")
_ONE_PASS = ("one-pass", "one-pass-clamped", "shifted")


def contradiction(row: Implementation, given: Collection[str]) -> str:
    """Return why the fields of a row exclude one another, the first reason found; empty where they do not.

    given: the fields that the row's own table names: one that has no effect is refused where it was asked for.
    """
    return next(_found(row, given), "")


def _found(row: Implementation, given: Collection[str]) -> Iterator[str]:
    yield from _sums(row, given)
    yield from _divisions(row, given)
    yield from _online(row, given)
    yield from _unused(row, given)
    yield from _forms(row)
    if row.spatial_below and row.spatial_below <= row.spatial_from:
        yield f"spatial_below: {row.spatial_below} leaves no size from spatial_from = {row.spatial_from}"
    if row.size_below and row.size_below <= row.size_from:
        yield f"size_below: {row.size_below} leaves no size from size_from = {row.size_from}"


def _sums(row: Implementation, given: Collection[str]) -> Iterator[str]:
    online = row.variance in ONLINE
    if "sum" in row.contracted and online:
        yield f"contracted: 'sum' has no products to add under variance = {row.variance!r}; its recurrence says its fma"
    if "sum" in row.contracted and row.division.startswith("prescale"):
        yield f"contracted: 'sum' takes products unrounded, division = {row.division!r} scales them first"
    if row.own_mean and row.variance != "two-pass":
        yield f"own_mean: is of variance = 'two-pass', which is {row.variance!r}"
    if "moment" in given and row.variance not in _ONE_PASS:
        yield f"moment: is of one-pass algorithms, variance is {row.variance!r}"
    if "variance" in row.contracted and row.variance not in _ONE_PASS:
        yield f"contracted: 'variance' is of one-pass algorithms, variance is {row.variance!r}"
    if "eps" in row.contracted:
        yield from _contracted_eps(row)


def _unused(row: Implementation, given: Collection[str]) -> Iterator[str]:
    """Fields of formats that nothing is rounded to."""
    orders = (row.order, row.mean_order or row.order)
    merging = {order.kind for order in orders} & set(_WITH_PARTIALS) and row.variance not in ONLINE
    for key in ("partial", "mean_partial"):
        if key in given and getattr(row, key) is not None and not merging:
            yield (
                f"{key}: is of orders that merge partial sums, {', '.join(_WITH_PARTIALS)}; order is {str(row.order)!r}"
            )
    if "inverse_count" in given and {row.division, row.mean_division or row.division} == {"divide"}:
        yield "inverse_count: division = 'divide' forms no 1/n"
    if "fold" in given and row.normalize_form in _WITHOUT_FOLD:
        yield f"fold: normalize_form = {row.normalize_form!r} forms neither gamma * r nor -mean * r"


def _contracted_eps(row: Implementation) -> Iterator[str]:
    """What leaves no sum * (1/n) that eps is added to at once."""
    if row.division != "multiply":
        yield f"contracted: 'eps' is of division = 'multiply', which is {row.division!r}"
    if row.order.is_mean:
        yield f"contracted: 'eps' takes sum * (1/n), order = {str(row.order)!r} makes a mean already"
    if row.variance in _ONE_PASS:
        yield f"contracted: 'eps' takes sum * (1/n), variance = {row.variance!r} subtracts before eps is added"
    if row.clip:
        yield "contracted: 'eps' leaves no statistic to clip"


def _divisions(row: Implementation, given: Collection[str]) -> Iterator[str]:
    if "mean_division" in given:
        yield from _division_of_the_mean(row)
    if not row.division.startswith("prescale"):
        return
    if row.order.is_mean:
        yield f"division: {row.division!r} scales each term by 1/n, order = {str(row.order)!r} makes a mean already"
    if row.variance in ONLINE:
        yield f"division: {row.division!r} scales the terms of a sum, variance = {row.variance!r} has none"


def _division_of_the_mean(row: Implementation) -> Iterator[str]:
    order = row.mean_order or row.order
    if row.variance in ONLINE:
        yield f"mean_division: variance = {row.variance!r} makes the mean without a sum to divide"
    if order.is_mean:
        yield f"mean_division: order = {str(order)!r} makes a mean already"


def _online(row: Implementation, given: Collection[str]) -> Iterator[str]:
    online = row.variance in ONLINE
    if online and row.order.kind not in _OF_MOMENTS:
        kinds = ", ".join(_OF_MOMENTS)
        yield f"order: variance = {row.variance!r} can have {kinds}, received {str(row.order)!r}"
    if not online and "rowwise" in (row.order.kind, (row.mean_order or row.order).kind):
        yield f"order: {str(row.order)!r} is of variance = {' or '.join(map(repr, ONLINE))}, which is {row.variance!r}"
    of_batches = row.norms and all(name.startswith("batch-") for name in row.norms)
    if online and row.layout == "channels-last" and not of_batches:
        yield f"layout: variance = {row.variance!r} visits the elements of a row as (d, spatial) alone"
    if "chunk" in given and online and row.order.is_scheduled:
        yield f"chunk: order = {str(row.order)!r} says itself when it merges"
    if online and "mean_order" in given:
        yield f"mean_order: variance = {row.variance!r} makes mean and variance at once, in the order of 'order'"
    for key in ("chunk", "recurrence"):
        wanted = ("chunked-welford",) if key == "chunk" else ONLINE
        if key in given and row.variance not in wanted:
            yield f"{key}: is of variance = {' or '.join(map(repr, wanted))}, which is {row.variance!r}"


def _forms(row: Implementation) -> Iterator[str]:
    if row.recentred is not None and row.normalize_form in ("shift", "fold"):
        yield f"recentred: normalize_form = {row.normalize_form!r} forms no x - mean to normalise"
    if row.root_form == "divide" and row.normalize_form not in ("center", "gain-first"):
        yield f"root_form: 'divide' forms no reciprocal, normalize_form = {row.normalize_form!r} multiplies by it"
    if row.normalize_form in (*_FOLDED, "gain-first") and row.normalized is not None:
        yield f"normalized: normalize_form = {row.normalize_form!r} never forms the normalised value"
    for step in ("fold", "fold-gain"):
        if row.normalize_form not in _FOLDED and step in row.contracted:
            yield f"contracted: {step!r} is of normalize_form = 'fold', which is {row.normalize_form!r}"
    if row.normalized is not None and "bias" in row.contracted and "normalize" in row.contracted:
        yield "contracted: 'normalize' and 'bias' leave no value to round to 'normalized'"
