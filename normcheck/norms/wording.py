"""What an implementation does, in words: one function a step, each a sentence made of the row's fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.orders import ORDERS
from normcheck.arithmetic.recurrences import RECURRENCES
from normcheck.norms.implementations import ONLINE
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.norms.implementations import Implementation

_ROLES = {
    "io": "the io format",
    "wide": "float32",
    "param": "the parameters' format",
    "promoted": "the wider of the io and the parameters' format",
}


@dataclass(frozen=True, slots=True)
class _Told:
    """A row, and which norms it is told for."""

    row: Implementation
    centred: bool
    statistics: tuple[str, ...]
    running: bool

    def form(self, role: str | None) -> str:
        """A format in words: its own name, where the row has one io format."""
        role = role or "io"
        only = format_named(self.row.precisions[0]).name if len(self.row.precisions) == 1 else ""
        return only if only and role == "io" else _ROLES.get(role, role)

    @property
    def c(self) -> str:
        """What the statistic is of."""
        return "x - mean" if self.centred or self.row.statistic_centred else "x"


def in_words(row: Implementation) -> tuple[str, ...]:
    """Return what happens in which order, a sentence a step.

    A row for several norms is told for the centred ones with all their statistics. ``wide`` is called float32, which
    it is for 16- and 32-bit elements.
    """
    norms = [norm_named(name) for name in row.norms]
    told = _Told(
        row,
        any(norm.centred for norm in norms) or not norms,
        _statistics_of(row),
        any(norm.where == "batch" for norm in norms) or not norms,
    )
    return tuple(sentence for step in _STEPS for sentence in step(told))


def _statistics_of(row: Implementation) -> tuple[str, ...]:
    """The statistics of the row's norms; L2 where it has all."""
    return tuple(dict.fromkeys(norm_named(name).statistic.name for name in row.norms)) or ("l2",)


def glossary(row: Implementation) -> dict[str, str]:
    """Return what the names of the row's orders of summation, and of its recurrence, mean."""
    online = row.variance in ONLINE and set(_statistics_of(row)) == {"l2"}
    orders = dict.fromkeys((row.moments_order,) if online else (row.order, row.mean_order or row.order))
    out = {str(order): ORDERS[order.kind] for order in orders}
    return out | ({row.recurrence: RECURRENCES[row.recurrence].title} if row.variance in ONLINE else {})


# ------------------------------------------------------------------------------------------------------- entering


def _residual(t: _Told) -> Iterator[str]:
    yield f"A residual, where there is one, is added to x in {t.form(t.row.residual)}."


def _load(t: _Told) -> Iterator[str]:
    if t.row.load != "io":
        yield f"x enters in {t.form(t.row.load)}."
    if t.row.layout == "channels-last":
        yield _channels_last(t.row)
    if t.row.rescale == "max":
        yield f"x is divided by the largest |x| of its row in {t.form(t.row.center)}; eps is not."


def _channels_last(row: Implementation) -> str:
    if row.norms and all(norm_named(name).where == "batch" for name in row.norms):
        return "Data are channels-last; the elements of a channel are visited sample by sample, as elsewhere."
    return "The elements of a row are visited position by position, all its channels at each."


# ------------------------------------------------------------------------------------------------------ statistics


def _statistics(t: _Told) -> Iterator[str]:
    if "l2" in t.statistics:
        yield from _VARIANCES[t.row.variance](t)
    others = [name for name in t.statistics if name != "l2"]
    if others and "l2" not in t.statistics:
        yield from _two_passes_mean(t)
    for name in others:
        yield from _ESTIMATES[name](t)
    if t.row.clip:
        yield f"The statistic is clipped to the largest finite number of {t.form('io')}."


def _two_passes_mean(t: _Told) -> Iterator[str]:
    if t.c == "x":
        return
    yield f"Mean: {_mean_of(t, 'the elements', mean=True)}, rounded to {t.form(t.row.mean)}."
    yield f"x - mean is formed in {t.form(t.row.center)}."


def _mean_of(t: _Told, what: str, *, mean: bool, n: str = "n") -> str:
    """How a mean is formed: terms, sum, partial sums, total, division by n."""
    row, order = t.row, (t.row.mean_order or t.row.order) if mean else t.row.order
    accumulator = t.form(row.mean_sum if mean else row.sum)
    count = t.form((row.mean_count or row.count) if mean else row.count)
    inverse = count + (f" rounded to {t.form(row.inverse_count)}" if row.inverse_count else "")
    if order.is_mean:
        return f"{what} are averaged in {accumulator} in the order {order}"
    division = (row.mean_division or row.division) if mean else row.division
    if division.startswith("prescale"):
        scaled = "" if division == "prescale-operand" and not mean else f" times 1/{n} in {inverse}"
        return f"{what}{scaled} are added in {accumulator} in the order {order}"
    total = row.mean_total if mean else row.total
    rounded = f", the total rounded to {t.form(total)}" if total else ""
    partial = (row.mean_partial or row.partial) if mean else row.partial
    merged = f", partial sums merged in {t.form(partial)}" if partial else ""
    divided = f"times 1/{n} in {inverse}" if division == "multiply" else f"divided by {n} in {count}"
    return f"{what} are added in {accumulator} in the order {order}{merged}{rounded}, {divided}"


def _squares(t: _Told, of: str) -> str:
    row = t.row
    if row.division == "prescale-operand":
        inverse = t.form(row.inverse_count or row.count)
        return f"products ({of} * (1/n)) * {of} in {t.form(row.product)}, 1/n in {inverse},"
    if "sum" in row.contracted:
        return f"squares of {of}, fused into the sum,"
    return f"squares of {of} in {t.form(row.product)}"


def _two_pass(t: _Told) -> Iterator[str]:
    yield from _two_passes_mean(t)
    of = t.c
    if t.row.own_mean and t.c != "x":
        of = "x - second mean"
        own = _mean_of(t, "the elements", mean=False)
        yield f"Second mean, of the mean square alone: {own}, rounded to {t.form(t.row.mean)}."
    yield f"Mean square: the {_mean_of(t, _squares(t, of), mean=False)}, rounded to {t.form(t.row.statistic)}."


def _one_pass(t: _Told) -> Iterator[str]:
    if t.c == "x":
        yield from _two_pass(t)
        return
    yield f"Mean: {_mean_of(t, 'the elements', mean=True)}, rounded to {t.form(t.row.mean)}."
    moment = f", rounded to {t.form(t.row.moment)}" if t.row.moment else ""
    yield f"Mean square: the {_mean_of(t, _squares(t, 'x'), mean=False)}{moment}."
    yield from _difference(t)


def _difference(t: _Told) -> Iterator[str]:
    fused = ", fused" if "variance" in t.row.contracted else ""
    clamped = "; below 0 it becomes 0" if t.row.variance == "one-pass-clamped" else "; it may come out negative"
    moment = f", in {t.form(t.row.moment)}" if t.row.moment else ""
    yield f"Variance: mean square - mean * mean{moment}{fused}, rounded to {t.form(t.row.statistic)}{clamped}."


def _shifted(t: _Told) -> Iterator[str]:
    if t.c != "x":
        form = t.form(t.row.center)
        yield f"The row's first element is subtracted from x in {form}; the mean gets it back at the end."
    yield from _one_pass(t)


def _online(t: _Told) -> Iterator[str]:
    row = t.row
    order = row.moments_order
    chunked = row.variance == "chunked-welford" and not order.is_scheduled
    chunks = f", in chunks of {row.chunk}" if chunked else ""
    yield (
        f"Mean in {t.form(row.mean)} and squared deviations in {t.form(row.sum)} are updated together, element by "
        f"element (Welford), in the order {order}{chunks}, by the recurrence {row.recurrence}."
    )
    added = "" if t.c != "x" else ", and mean * mean is added"
    yield (f"Variance: the squared deviations{_online_division(t)}, rounded to {t.form(row.statistic)}{added}.")


def _online_division(t: _Told) -> str:
    row, count = t.row, t.form(t.row.count)
    rounded = f", rounded to {t.form(row.total)}," if row.total else ""
    if row.division != "multiply":
        return f"{rounded} divided by n in {count}"
    inverse = f" rounded to {t.form(row.inverse_count)}" if row.inverse_count else ""
    return f"{rounded} times 1/n in {count}{inverse}"


_VARIANCES: dict[str, Callable[[_Told], Iterator[str]]] = {
    "two-pass": _two_pass,
    "one-pass": _one_pass,
    "one-pass-clamped": _one_pass,
    "shifted": _shifted,
    "welford": _online,
    "chunked-welford": _online,
}


def _l1(t: _Told) -> Iterator[str]:
    mean = _mean_of(t, f"magnitudes of {t.c}", mean=False)
    yield f"Mean magnitude: the {mean}, times C, rounded to {t.form(t.row.statistic)}."


def _linf(t: _Told) -> Iterator[str]:
    yield f"The largest |{t.c}| of the row times C is rounded to {t.form(t.row.statistic)}."


def _topk(t: _Told) -> Iterator[str]:
    mean = _mean_of(t, f"k largest magnitudes of {t.c}", mean=False, n="k")
    yield f"Mean of the largest: the {mean}, times C, rounded to {t.form(t.row.statistic)}."


def _range(t: _Told) -> Iterator[str]:
    yield f"The difference of the largest and the smallest {t.c} times C is rounded to {t.form(t.row.statistic)}."


_ESTIMATES: dict[str, Callable[[_Told], Iterator[str]]] = {"l1": _l1, "linf": _linf, "topk": _topk, "range": _range}


# --------------------------------------------------------------------------------------------------------- divisor


def _eps(t: _Told) -> Iterator[str]:
    row = t.row
    least = f", at least {row.eps_min:g}," if row.eps_min else ""
    rounded = f", rounded to {t.form(row.eps_rounded)} first," if row.eps_rounded else ""
    fused = _to_the_sum(t) if "eps" in row.contracted else ""
    yield f"eps{least}{rounded} is added in {t.form(row.eps)}{fused}."


def _to_the_sum(t: _Told) -> str:
    """What a contracted addition of eps does, and when: a rounding of the statistic would come in between."""
    statistic, total = t.form(t.row.statistic), t.form(t.row.total or t.row.sum)
    when = "" if statistic == total else f"where {statistic} is {total}, "
    return f"; {when}to the sum times 1/n, in one fused operation"


def _root(t: _Told) -> Iterator[str]:
    row = t.row
    root, reciprocal = t.form(row.root), t.form(row.reciprocal)
    if "l2" not in t.statistics:
        if row.root_form != "divide":
            yield f"Its reciprocal is rounded to {reciprocal}."
        return
    yield {
        "root-reciprocal": f"The root is rounded to {root}, its reciprocal to {reciprocal}.",
        "reciprocal-root": f"The reciprocal is rounded to {root}, its root to {reciprocal}.",
        "rsqrt": f"The reciprocal root is rounded once, to {reciprocal}.",
        "divide": f"The root is rounded to {root}; no reciprocal is formed.",
    }[row.root_form]


def _kept(t: _Told) -> Iterator[str]:
    if t.row.kept is not None:
        yield f"Mean and 1/s are rounded to {t.form(t.row.kept)}."
    if t.row.saved is not None:
        yield f"Mean and 1/s are kept for backward in {t.form(t.row.saved)}."


# ------------------------------------------------------------------------------------------- normalising and affine


def _fused(t: _Told, step: str) -> str:
    return ", in one fused operation" if step in t.row.contracted else ""


def _normalize(t: _Told) -> Iterator[str]:
    if t.row.recentred is not None and t.centred:
        yield f"x - mean is formed again, in {t.form(t.row.recentred)}."
    yield from _FORMS[t.row.normalize_form](t)


def _center(t: _Told) -> Iterator[str]:
    row, centred = t.row, "(x - mean)" if t.centred else "x"
    operation = f"{centred} / s" if row.root_form == "divide" else f"{centred} * (1/s)"
    joined = _fused(t, "normalize") and "; with a beta and no gamma it is fused with its addition"
    yield f"{operation} is formed in {t.form(row.normalize)}{joined}."
    yield from _affine(t)


def _shift(t: _Told) -> Iterator[str]:
    row = t.row
    if not t.centred:
        yield from _center(t)
        return
    yield f"-mean * (1/s) is formed in {t.form(row.fold)}."
    yield f"x * (1/s) plus that is formed in {t.form(row.normalize)}{_fused(t, 'normalize')}."
    yield from _affine(t)


def _fold(t: _Told) -> Iterator[str]:
    row = t.row
    when = " where there is a gamma or beta" if row.normalize_form == "fold-affine" else ""
    yield f"a = {_gamma(t)} * (1/s) is formed in {t.form(row.fold)}{when}."
    if t.centred:
        fused = _fused(t, "fold") or (_fused(t, "fold-gain") and _fused(t, "fold-gain") + " where there is a gamma")
        yield f"b = beta - mean * a is formed in {t.form(row.fold)}{fused}{_missing(t)}."
    product = f"x * a in {t.form(row.gain)}, plus b in {t.form(row.bias)}"
    yield f"y is {product}{_fused(t, 'bias')}."
    if row.normalize_form == "fold-affine":
        yield f"Without gamma and beta y is (x - mean) * (1/s) in {t.form(row.normalize)}."


def _center_fold(t: _Told) -> Iterator[str]:
    row, centred = t.row, "(x - mean)" if t.centred else "x"
    yield f"a = {_gamma(t)} * (1/s) is formed in {t.form(row.fold)}."
    yield f"{centred} * a is formed in {t.form(row.normalize)}."
    yield from _plus(t)


def _gain_first(t: _Told) -> Iterator[str]:
    row, centred = t.row, "(x - mean)" if t.centred else "x"
    yield f"{_gamma(t)} * {centred} is formed in {t.form(row.gain)}."
    yield f"That {'/ s' if row.root_form == 'divide' else '* (1/s)'} is formed in {t.form(row.normalize)}."
    yield from _plus(t)


_FORMS: dict[str, Callable[[_Told], Iterator[str]]] = {
    "center": _center, "shift": _shift, "fold": _fold, "fold-affine": _fold, "center-fold": _center_fold,
    "gain-first": _gain_first,
}  # fmt: skip


def _affine(t: _Told) -> Iterator[str]:
    row = t.row
    if row.normalized is not None:
        yield f"The normalised value is rounded to {t.form(row.normalized)}."
    yield f"It is multiplied by {_gamma(t)} in {t.form(row.gain)}."
    yield from _plus(t)


def _plus(t: _Told) -> Iterator[str]:
    fused = ", fused with the product" if "bias" in t.row.contracted else ""
    yield f"beta is added in {t.form(t.row.bias)}{fused}{_missing(t)}."


def _gamma(t: _Told) -> str:
    return f"({t.row.weight_offset:g} + gamma)" if t.row.weight_offset else "gamma"


def _missing(t: _Told) -> str:
    return "; a missing beta is added as 0" if t.row.absent_bias == "zero" else ""


def _store(t: _Told) -> Iterator[str]:
    yield f"The result is rounded to {t.form(t.row.store)}."


# --------------------------------------------------------------------------------------------- running statistics


def _running(t: _Told) -> Iterator[str]:
    row = t.row
    if not t.running or row.modes == ("eval",):
        return
    variance = {
        "sum": "the sum of squares / (n - 1)",
        "variance": "the variance * n / (n - 1)",
        "none": "the variance itself",
    }[row.bessel]
    mean = f", the mean rounded to {t.form(row.running_mean)}" if row.running_mean else ""
    batch = f", m * batch in {t.form(row.running_batch)}" if row.running_batch else ""
    of = f", that of the variance in {t.form(row.running_variance)}" if row.running_variance else ""
    momentum = {
        "both": "m and 1 - m are each rounded",
        "batch": "m is rounded and 1 - m formed of it",
        "running": "1 - m is rounded and m formed of it",
    }[row.momentum_of]
    yield (
        f"Running statistics: (1 - m) * running + m * batch in {t.form(row.running)}{mean}{batch}{of}; {momentum}; "
        f"the running variance takes {variance}."
    )


_STEPS: tuple[Callable[[_Told], Iterator[str]], ...] = (
    _residual, _load, _statistics, _eps, _root, _kept, _normalize, _store, _running,
)  # fmt: skip
