"""The errors that normcheck raises: each says what, where, what was received, and what to do."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class NormcheckError(Exception):
    """Base of all errors that normcheck raises on purpose; the command line prints it as one line, exit 2."""


class UsageError(NormcheckError, ValueError):
    """A name, value or combination of options that cannot be used."""


def unknown_name(kind: str, received: str, known: Iterable[str], listing: str) -> UsageError:
    """Return the error for a name that no table holds, with the nearest names that do exist.

    Args:
        kind: what the name should have named, such as ``"format"``.
        received: what was given.
        known: the names that would have been right.
        listing: the command that lists them, such as ``"normcheck formats"``.
    """
    names = {name.lower(): name for name in sorted(set(known))}
    near = difflib.get_close_matches(received.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(names[name] for name in near)}? " if near else ""
    return UsageError(f"unknown {kind} {received!r}: {hint}`{listing}` lists what exists")


class UnreadableError(NormcheckError):
    """Files that cannot be read as models: one argument for each, one line that names the file and says why.

    Attributes:
        report: the `Report` of a run that could read none of its files; None where there was no run.
    """

    report: Any = None

    def __str__(self) -> str:
        """All lines as one."""
        return "; ".join(map(str, self.args))
