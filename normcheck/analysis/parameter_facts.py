"""What the format of a layer's parameters does to them: facts of the file, whatever the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.results import ParameterFacts

if TYPE_CHECKING:
    from normcheck.arithmetic.formats import Format
    from normcheck.norms.parameters import Parameters
    from normcheck.norms.table import Norm

Array = np.ndarray[Any, np.dtype[Any]]

_FIELDS = ("running_statistic", "running_mean", "weight", "bias")


def parameter_facts(
    norm: Norm,
    given: Parameters,
    stored: Parameters,
    *,
    eps: float,
    weight_offset: float = 0.0,
    momentum: float | None = None,
) -> ParameterFacts | None:
    """Compare parameters as given with what their format makes of them; None where there are none.

    momentum: weight of a batch in the running statistics where these are updated, else None. A gamma to which the norm
    adds 1 is not lost for being flushed. Infinities and NaN of the file itself are counted and compared with nothing.
    """
    present = [x for name in _FIELDS if (x := getattr(given, name)) is not None]
    if not present or stored.form is None:
        return None
    with np.errstate(all="ignore"):
        lost = [_beyond(x, stored.form) for x in present]
        scale = _change_of_scale(norm, given, stored, eps, weight_offset)
        shift = _change_of_mean(norm, given, stored, eps)
        mean_step, variance_step = _least_steps(norm, stored, eps, momentum)
        flushed = _flushed(given, stored) if not weight_offset else None
        folded_beyond, folded_flushed = _folded(norm, given, eps, weight_offset, stored.form)
    running = given.running_statistic
    affine = [x for x in (given.weight, given.bias) if x is not None]
    return ParameterFacts(
        format=stored.form.name,
        of=sum(map(len, present)),
        beyond=sum(int(np.count_nonzero(x)) for x in lost),
        beyond_running_var=0 if running is None else int(np.count_nonzero(_beyond(running, stored.form))),
        nonfinite=sum(int(np.count_nonzero(~np.isfinite(x))) for x in present),
        broken_affine=sum(int(np.count_nonzero(_beyond(x, stored.form) | ~np.isfinite(x))) for x in affine),
        negative=0 if running is None else int(np.count_nonzero(running < -eps)),
        weights=0 if given.weight is None else len(given.weight),
        flushed=0 if flushed is None else int(np.count_nonzero(flushed)),
        scale_change=_largest(scale),
        shift=_largest(shift),
        worst=_worst(lost, scale, shift),
        folded_beyond=folded_beyond,
        folded_flushed=folded_flushed,
        mean_step=_largest(mean_step),
        variance_step=_largest(variance_step),
    )


def _beyond(x: Array, form: Format) -> Array:
    return np.isfinite(x) & (np.abs(x) >= form.overflow_threshold)


def _flushed(given: Parameters, stored: Parameters) -> Array | None:
    if given.weight is None or stored.weight is None:
        return None
    lost: Array = (given.weight != 0) & (stored.weight == 0)
    return lost


def _divisor(norm: Norm, parameters: Parameters, eps: float) -> Array | None:
    """sqrt(var + eps), or the statistic with its eps; None without running statistics."""
    running = parameters.running_statistic
    if running is None:
        return None
    divisor: Array = np.sqrt(running + eps) if norm.statistic.eps_on == "variance" else running + eps
    return divisor


def _change_of_scale(norm: Norm, given: Parameters, stored: Parameters, eps: float, offset: float) -> Array | None:
    """Relative change of gamma / s for each channel; NaN where there is nothing to compare."""
    before, after = _divisor(norm, given, eps), _divisor(norm, stored, eps)
    exact = 1.0 if given.weight is None else given.weight + offset
    rounded = 1.0 if stored.weight is None else stored.weight + offset
    if before is not None and after is not None:
        exact, rounded = exact / before, rounded / after
    if isinstance(exact, float):
        return None
    change: Array = np.abs(np.asarray(rounded) / exact - 1.0)
    compared = np.isfinite(change) & (np.asarray(rounded) != 0)
    return np.where(compared, change, np.nan)


def _change_of_mean(norm: Norm, given: Parameters, stored: Parameters, eps: float) -> Array | None:
    """|change of the running mean| / s for each channel."""
    divisor = _divisor(norm, given, eps)
    if divisor is None or given.running_mean is None or stored.running_mean is None:
        return None
    change: Array = np.abs(stored.running_mean - given.running_mean) / divisor
    return np.where(np.isfinite(change), change, np.nan)


def _folded(norm: Norm, given: Parameters, eps: float, offset: float, form: Format) -> tuple[int, int]:
    """Channels whose scale gamma / s or shift beta - mean * scale is beyond a format; whose scale becomes 0 in it."""
    divisor = _divisor(norm, given, eps)
    if divisor is None:
        return 0, 0
    scale = (1.0 if given.weight is None else given.weight + offset) / divisor
    bias, mean = (0.0 if x is None else x for x in (given.bias, given.running_mean))
    beyond = _beyond(scale, form) | _beyond(bias - mean * scale, form)
    lost = (scale != 0) & (np.abs(scale) < form.min_subnormal / 2)
    return int(np.count_nonzero(beyond)), int(np.count_nonzero(lost))


def _least_steps(
    norm: Norm, stored: Parameters, eps: float, momentum: float | None
) -> tuple[Array | None, Array | None]:
    """Half an ulp of the running statistics over the momentum: of the mean in deviations, of the statistic relative."""
    form, running = stored.form, stored.running_statistic
    if form is None or running is None or not momentum:
        return None, None
    divisor = _divisor(norm, stored, eps)
    statistic = np.where(running > 0, _half_ulp(running, form) / running, np.nan) / momentum
    if stored.running_mean is None or divisor is None:
        return None, statistic
    return _half_ulp(stored.running_mean, form) / divisor / momentum, statistic


def _half_ulp(x: Array, form: Format) -> Array:
    """Half the distance of neighbouring numbers of the format at |x|."""
    _, exponent = np.frexp(np.maximum(np.abs(x), form.min_normal))
    half: Array = np.ldexp(0.5, exponent - form.precision)
    return half


def _largest(x: Array | None) -> float | None:
    if x is None or not np.isfinite(x).any():
        return None
    return float(np.max(x[np.isfinite(x)]))


def _worst(lost: list[Array], scale: Array | None, shift: Array | None) -> int | None:
    for beyond in lost:
        if beyond.any():
            return int(np.argmax(beyond))
    changes = [x for x in (scale, shift) if _largest(x)]
    worst = max(changes, key=lambda x: _largest(x) or 0.0, default=None)
    return None if worst is None else int(np.argmax(np.where(np.isfinite(worst), worst, -1.0)))
