"""Figures as text: three significant digits, never cropped, a denominator beside every count."""

from __future__ import annotations

import math

ABSENT = "-"
"""What stands where a figure is not defined."""

_SCIENTIFIC = 4
"""Figures from this power of ten on, and those below its inverse, are written with an exponent."""

_EXACT_COUNT = 10**6
"""Counts below it are written digit by digit."""


def figure(value: float | None) -> str:
    """Return `value` with three significant digits: ``0.0123``, ``1.23e-5``, ``inf``; ``-`` for None."""
    if value is None:
        return ABSENT
    if not math.isfinite(value):
        return str(float(value))
    if value == 0:
        return "0"
    text = f"{value:.2e}"
    mantissa, exponent = text.split("e")
    if not -_SCIENTIFIC <= int(exponent) < _SCIENTIFIC:
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    plain = f"{float(text):.{max(2 - int(exponent), 0)}f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def count(value: int) -> str:
    """Return a count: all digits below a million, three significant ones from there on (``1.93e7``)."""
    return str(value) if abs(value) < _EXACT_COUNT else figure(float(value))


def number(value: float) -> str:
    """Return `value` with all its digits, so that reading it gives it back: ``65504``, ``6.103515625e-5``."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e16:
        return str(int(value))
    mantissa, _, exponent = repr(float(value)).partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def of(part: int, whole: int) -> str:
    """Return a count with its denominator: ``3 of 64``."""
    return f"{count(part)} of {count(whole)}"


def percent(part: int, whole: int, digits: int = 2) -> str:
    """Return a share in percent, cut and not rounded: ``100 %`` is said of all and of no less."""
    if part == whole:
        return "100 %"
    return f"{math.floor(10 ** (digits + 2) * part / whole) / 10**digits:.{digits}f} %"


def times(value: float | None, ideal: float | None) -> float | None:
    """Return how many times its ideal a figure is: 1 where both are 0, infinite where only the ideal is."""
    if value is None or ideal is None:
        return None
    if ideal == 0:
        return 1.0 if value == 0 else math.inf
    return value / ideal


def multiple(value: float | None, ideal: float | None) -> str:
    """Return `times` in words: ``3.1 x ideal``, or why that cannot be said."""
    if ideal == 0 and value is not None:
        return "as ideal" if value == 0 else "ideal is 0"
    ratio = times(value, ideal)
    return ABSENT if ratio is None else f"{figure(ratio)} x ideal"


def bits(value: float | None, step: str | None) -> list[str]:
    """Return headroom and the step that bounds it, as two parts: ``1.5 bits``, ``at square``."""
    if value is None:
        return [ABSENT, ""]
    return [f"{figure(value)} bits", f"at {step}" if step else ""]


def interval(ends: tuple[float, float] | None) -> str:
    """Return a safe interval of scale factors: ``0.001 to 1.5``, ``none`` where there is none."""
    return "none" if ends is None else f"{figure(ends[0])} to {figure(ends[1])}"
