"""Training in emulated precision: norms, and on request all else, in the engine's arithmetic."""

from __future__ import annotations

from normcheck.nn.emulated.module import EmulatedPrecision

__all__ = ["EmulatedPrecision"]
