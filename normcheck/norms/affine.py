"""From statistics to output: (x - mean) / s and the affine step, in the form that an implementation has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.norms.variance import negated

if TYPE_CHECKING:
    from normcheck.arithmetic.arithmetic import Arithmetic
    from normcheck.arithmetic.values import Elements, PerRow, Value
    from normcheck.norms.implementations import Implementation

Applied = tuple["Elements", "Elements | None"]
"""The output before it is stored, and its value before the affine step; None where that is never formed."""


def apply(
    a: Arithmetic,
    x: Elements,
    c: Elements | None,
    mean: PerRow | None,
    s: PerRow,
    reciprocal: PerRow | None,
    weight: Value | None,
    bias: Value | None,
    how: Implementation,
) -> Applied:
    """Normalise the elements, and apply gamma and beta.

    c: centred elements, where they are at hand. reciprocal: 1/s; None where elements are divided by s, which leaves
    the form `center` alone.
    """
    form = how.normalize_form
    plain = form == "fold-affine" and weight is None and bias is None
    if form == "fold-affine":
        form = "center" if plain else "fold"
    if bias is None and how.absent_bias == "zero" and not plain:
        bias = a.constant("bias", 0.0)
    if reciprocal is not None and form == "fold":
        return _folded(a, x, mean, reciprocal, weight, bias, how), None
    if reciprocal is not None and form == "shift" and mean is not None:
        return _with_affine(a, _shifted(a, x, mean, reciprocal, how), weight, bias, how)
    if c is None:
        c = x if mean is None else a.subtract("center" if how.recentred is None else "recentred", x, mean)
    if form == "gain-first" and weight is not None:
        return _gain_first(a, a.multiply("gain", c, weight), s, reciprocal, bias, how), None
    if reciprocal is None:
        return _with_affine(a, a.divide("normalize", c, s), weight, bias, how)
    return _centred(a, c, reciprocal, weight, bias, how)


def _centred(
    a: Arithmetic, c: Elements, reciprocal: PerRow, weight: Value | None, bias: Value | None, how: Implementation
) -> Applied:
    """C * (1/s), and the affine step."""
    if how.normalize_form == "center-fold" and weight is not None:
        return _scaled(a, c, a.multiply("fold", weight, reciprocal), bias, how), None
    if weight is None and bias is not None and how.normalized is None and "bias" in how.contracted:
        return a.fma("bias", c, reciprocal, bias), None
    return _with_affine(a, a.multiply("normalize", c, reciprocal), weight, bias, how)


def _gain_first(
    a: Arithmetic, scaled: Elements, s: PerRow, reciprocal: PerRow | None, bias: Value | None, how: Implementation
) -> Elements:
    """(gamma * c) / s + beta."""
    if reciprocal is not None:
        return _scaled(a, scaled, reciprocal, bias, how, step="normalize")
    y = a.divide("normalize", scaled, s)
    return y if bias is None else a.add("bias", y, bias)


def _shifted(a: Arithmetic, x: Elements, mean: PerRow, reciprocal: PerRow, how: Implementation) -> Elements:
    """x * r + (-mean * r)."""
    shift = a.multiply("fold", negated(mean), reciprocal)
    if "normalize" in how.contracted:
        return a.fma("normalize", x, reciprocal, shift)
    return a.add("normalize", a.multiply("normalize", x, reciprocal), shift)


def _folded(
    a: Arithmetic,
    x: Elements,
    mean: PerRow | None,
    reciprocal: PerRow,
    weight: Value | None,
    bias: Value | None,
    how: Implementation,
) -> Elements:
    """x * scale + shift with scale = gamma / s and shift = beta - mean * scale."""
    scale = reciprocal if weight is None else a.multiply("fold", weight, reciprocal)
    if mean is None:
        return _scaled(a, x, scale, bias, how)
    if bias is None:
        shift = a.multiply("fold", scale, negated(mean))
    elif "fold" in how.contracted or ("fold-gain" in how.contracted and weight is not None):
        shift = a.fma("fold", scale, negated(mean), bias)
    else:
        shift = a.add("fold", a.multiply("fold", scale, negated(mean)), bias)
    return _scaled(a, x, scale, shift, how)


def _scaled(
    a: Arithmetic, x: Elements, scale: Value, shift: Value | None, how: Implementation, step: str = "gain"
) -> Elements:
    """x * scale + shift."""
    if shift is None:
        return a.multiply(step, x, scale)
    if "bias" in how.contracted:
        return a.fma("bias", x, scale, shift)
    return a.add("bias", a.multiply(step, x, scale), shift)


def _with_affine(
    a: Arithmetic, normalized: Elements, weight: Value | None, bias: Value | None, how: Implementation
) -> Applied:
    """Gamma * normalized + beta, after the normalised value is rounded where the implementation does that."""
    if how.normalized is not None:
        normalized = a.convert("cast", normalized)
    if weight is not None:
        return _scaled(a, normalized, weight, bias, how), normalized
    return (normalized if bias is None else a.add("bias", normalized, bias)), normalized
