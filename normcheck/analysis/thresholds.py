"""Thresholds of the rules, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normcheck.results import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When rules fire. Ratios unless said otherwise.

    headroom_bits: overflow headroom below which there is little (NC103). count_error: relative error of the rounded
    element count (NC106). deviation_ideal, deviation: relative rms error, as a multiple of the ideal and absolute
    (NC301). lost_mass_warning, lost_mass_error: NC302 fires from the one on, and is an error from the other on.
    eps_change, eps_effect: relative change of eps by a kernel, and of the divisor through it, above which they are
    worth a note and a warning (NC206).
    variance_bits: right leading bits that a one-pass variance must keep (NC303). coherent: gain and offset in units of
    roundoff of the io format (NC304). parameter_change: what rounding may do to gamma / sqrt(var + eps), relative, and
    to the running mean, in deviations (NC204). stalled_update: the change of a batch's mean, in deviations, or
    variance, relative, that the running statistics may miss (NC305). flushed_share: part of dx that may be flushed
    (NC502, and of a safe loss scale). loss_scale_bits: headroom of the loss scale below which there is little (NC503).
    gradient_ideal, gradient_deviation: as deviation_ideal and deviation, of gradients (NC504).
    """

    headroom_bits: float = 1.0
    count_error: float = 0.01
    deviation_ideal: float = 16.0
    deviation: float = 0.1
    lost_mass_warning: float = 0.01
    lost_mass_error: float = 0.1
    eps_change: float = 0.1
    eps_effect: float = 0.01
    variance_bits: float = 4.0
    coherent: float = 4.0
    parameter_change: float = 0.05
    stalled_update: float = 0.1
    flushed_share: float = 0.01
    loss_scale_bits: float = 1.0
    gradient_ideal: float = 16.0
    gradient_deviation: float = 0.1


DEFAULTS = Thresholds()

EPS_DOMINATES = 0.1
"""Share of the variance (or statistic) above which eps is said to dominate (NC306): rows are counted by it as they run,
so that it is no setting."""

_HOPELESS = 2.0
"""A deviation beyond `deviation` or `gradient_deviation` is an error only where it is also more than this many times
the ideal: in formats of 2 or 3 significant bits the ideal alone is that large."""


def deviation_severity(
    relative_rms: float | None, ideal: float | None, limits: Thresholds = DEFAULTS
) -> Severity | None:
    """Severity of NC301 for a relative rms error beside its ideal; None where it is silent."""
    return _severity(relative_rms, ideal, limits.deviation_ideal, limits.deviation)


def gradient_severity(
    relative_rms: float | None, ideal: float | None, limits: Thresholds = DEFAULTS
) -> Severity | None:
    """Severity of NC504, likewise, for a gradient."""
    return _severity(relative_rms, ideal, limits.gradient_ideal, limits.gradient_deviation)


def _severity(relative_rms: float | None, ideal: float | None, times: float, most: float) -> Severity | None:
    if relative_rms is None or ideal is None:
        return None
    if relative_rms > most and relative_rms > _HOPELESS * ideal:
        return "error"
    return "warning" if ideal > 0 and times * ideal < relative_rms else None  # 0: float64 itself
