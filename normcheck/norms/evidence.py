"""What runs of the fidelity suite found: how many outputs of the real kernel each row gave bit for bit.

The suite (`python -m normcheck.fidelity --write`) writes the file, the catalogue reads it: a row is *verified* by this
and by nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from normcheck.norms.implementations import Implementation

FOLDER = Path(__file__).parent / "catalogue"
"""Where the catalogue's files are."""

FILE = "verified.json"
VERIFIED_SHARE = 0.999
"""Share of outputs that must be identical in each run of a row for it to be verified."""
VERIFIED_OUTPUTS = 10**4
"""Outputs that must have been compared for a row to be verified."""
_FORMAT = 1
_NO_ARITHMETIC = frozenset(
    (
        *("name", "title", "status", "citation", "project", "platform", "approximation"),
        *("norms", "precisions", "parameters", "modes"),
    )
)
"""Fields of a row that change no result: what it is called, and what it is offered for (a run says what it is of)."""


def digest(row: Implementation) -> str:
    """Return 16 hexadecimal digits of the row's arithmetic: of its fields that are not at their defaults.

    Names, descriptions, norms, precisions, parameters and modes are left out; the sizes that it is for are not.
    """
    said = {
        each.name: str(value) if each.name.endswith("order") else value
        for each in fields(row)
        if each.name not in _NO_ARITHMETIC and (value := getattr(row, each.name)) != each.default
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A row beside a real kernel, for one norm, io format, format of the parameters and mode.

    outputs, identical: elements of y compared, and those with the same bits. largest_ulp: the largest difference of
    finite outputs, in ulps of the output's format. statistics, statistics_identical: saved means and reciprocals, and
    running statistics, likewise; 0 where the kernel returns none. reason: why the share is below the promised one.
    """

    norm: str
    precision: str
    params: str = "io"
    mode: str = "train"
    outputs: int
    identical: int
    largest_ulp: int
    statistics: int = 0
    statistics_identical: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All runs of a row on one machine.

    date: of the runs, ``2026-11-23``. host: processor and instruction set. versions: of the packages that were run.
    digest: of the row as it was then, see `digest`: evidence of a row that has been edited since counts for nothing.
    """

    date: str
    host: str
    versions: Mapping[str, str]
    digest: str = ""
    runs: tuple[Run, ...] = field(default=())

    @property
    def outputs(self) -> int:
        """Outputs compared."""
        return sum(run.outputs for run in self.runs)

    @property
    def identical(self) -> int:
        """Those of them with the same bits."""
        return sum(run.identical for run in self.runs)

    @property
    def largest_ulp(self) -> int:
        """The largest difference, in ulps."""
        return max((run.largest_ulp for run in self.runs), default=0)

    @property
    def verifies(self) -> bool:
        """Whether outputs enough were compared, and enough of them identical in each run, for *verified*."""
        near = all(run.outputs > 0 and run.identical >= VERIFIED_SHARE * run.outputs for run in self.runs)
        return near and self.outputs >= VERIFIED_OUTPUTS


@functools.cache
def evidence() -> Mapping[str, Evidence]:
    """Return what the package's file says, by row; nothing where there is no file."""
    path = FOLDER / FILE
    return parsed(path.read_text(encoding="utf-8")) if path.is_file() else {}


def evidence_for(row: Implementation) -> Evidence | None:
    """Return the evidence for a row as it is now; None where there is none, or it is of the row before an edit."""
    found = evidence().get(row.name)
    return found if found is not None and found.digest == digest(row) else None


def parsed(text: str) -> dict[str, Evidence]:
    """Return the evidence in the text of a file."""
    rows: dict[str, Any] = json.loads(text)["rows"]
    return {name: Evidence(**{**row, "runs": tuple(Run(**run) for run in row["runs"])}) for name, row in rows.items()}


def rendered(rows: Mapping[str, Evidence]) -> str:
    """Return the text of the file that holds this evidence."""
    document = {"format": _FORMAT, "rows": {name: asdict(row) for name, row in rows.items()}}
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
