"""Cases of the corpus as they are written down: TOML files in data/failures, one a case.

A file has the case's facts, a table ``[setup]`` of what its inputs share, and a table ``[[input]]`` for each input,
which may override the setup. Nothing here loads the engine.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from normcheck.errors import UsageError, unknown_name
from normcheck.results.cases import Signature, Source  # noqa: TC001  # read at run time, by msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE / "failures", _HERE.parents[2] / "data" / "failures")
"""In an installed package, and in the repository."""

ID = re.compile(r"[KC][1-9][0-9]*")
"""K: a failure, by the number it was collected under (some numbers are not used); C: a control."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an input is made; one of constant, values, step and distribution.

    constant: every element. values: the elements, in C order; repeated rows by rows where there are fewer. start, step:
    an arithmetic sequence along the last dimension. distribution, mean, std, seed: as of `simulate`.
    outlier_every, outlier: then every so many elements, from the first on, are that value.
    """

    constant: float | None = None
    values: tuple[float, ...] = ()
    start: float = 0.0
    step: float | None = None
    distribution: str | None = None
    mean: float = 0.0
    std: float = 1.0
    seed: int = 0
    outlier_every: int = 0
    outlier: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A number to reproduce.

    name: one of `replay.FIGURES`, or ``output[i]``. value, tolerance: the number, and how far off, relative, ours may
    be. above, below: bounds, where digits depend on the order of summation. side: whose number it is.
    """

    name: str
    value: float | None = None
    tolerance: float = 0.0
    above: float | None = None
    below: float | None = None
    side: Literal["failed", "right"] = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input of a case, with its setup.

    make: how it is made. shape: torch's for the norm. norm, precision, eps, num_groups, params, ftz: as of `emulate`.
    weight, bias: gamma and beta, the same for all channels; None for none. running: whether the batch's statistics are
    mixed into running ones that start at 0 and 1. failed: the implementation that failed; empty of a control.
    right: those that are right. right_precision: of these, where what mended it was a wider format. signature, rules:
    predicted for the one that failed. verdict: of those that are right. figures: numbers to reproduce.
    words: the input, where the recipe does not say enough.
    """

    make: Recipe
    shape: tuple[int, ...]
    norm: str
    precision: str
    eps: float = 1e-5
    num_groups: int | None = None
    params: str = "half"
    ftz: bool = False
    weight: float | None = None
    bias: float | None = None
    running: bool = False
    failed: str = ""
    right: tuple[str, ...] = ()
    right_precision: str | None = None
    signature: Signature = ""
    rules: tuple[str, ...] = ()
    verdict: Literal["ok", "degraded"] = "ok"
    figures: tuple[Expected, ...] = ()
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A case as its file has it; the fields are those of `results.cases.FailureCase`."""

    id: str
    where: str
    story: str
    source: Source
    links: tuple[str, ...] = ()
    reconstruction: str = ""
    note: str = ""
    control: bool = False
    setup: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Input, ...] = ()


@cache
def records() -> dict[str, Record]:
    """Return all cases by id, failures first, by number.

    Raises:
        UsageError: the files are not there, or one cannot be read.
    """
    found = next((folder for folder in _PLACES if folder.is_dir()), None)
    if found is None:
        places = " nor ".join(map(str, _PLACES))
        raise UsageError(f"the published failures are not there: neither {places}; install normcheck again")
    every = [read_record(path) for path in sorted(found.glob("*.toml"))]
    every.sort(key=lambda record: (record.control, int(record.id[1:])))
    return {record.id: record for record in every}


def records_named(ids: Iterable[str], signature: str | None = None) -> tuple[Record, ...]:
    """Return the cases of those ids, all where there are none; of a signature alone, where it is given.

    Raises:
        UsageError: there is no such case.
    """
    table = records()
    wanted = [name.strip().upper() for name in ids]
    for name in wanted:
        if name not in table:
            raise unknown_name("case", name, table, "normcheck cases")
    chosen = [table[name] for name in dict.fromkeys(wanted)] or list(table.values())
    if signature is not None:
        chosen = [record for record in chosen if any(signature == each.signature for each in record.inputs)]
    return tuple(chosen)


def read_record(path: Path) -> Record:
    """Return the case that a file holds.

    Raises:
        UsageError: the file, and what of it cannot be.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        setup, inputs = document.get("setup", {}), document.pop("input", [])
        record = _converted({**document, "inputs": [{**setup, **each} for each in inputs]})
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: not a case of the corpus: {error}") from None
    wrong = next(_contradictions(record), None) if record.id == path.stem else f"its id is {record.id}"
    if wrong is not None:
        raise UsageError(f"{path}: {wrong}")
    return record


def _converted(document: dict[str, Any]) -> Record:
    _known(document, Record)
    for each in document["inputs"]:
        _known(each, Input)
        _known(each.get("make", {}), Recipe)
        for figure in each.get("figures", ()):
            _known(figure, Expected)
    return msgspec.convert(document, type=Record)


def _known(given: dict[str, Any], kind: type) -> None:
    names = [entry.name for entry in fields(kind)]
    for key in given:
        if key not in names:
            raise ValueError(f"{key!r} is no field of it; there are {', '.join(names)}")


def _contradictions(record: Record) -> Iterator[str]:
    if not ID.fullmatch(record.id) or record.control != record.id.startswith("C"):
        yield "the id must be K and a number, of a control C and a number"
    if not record.inputs:
        yield "no [[input]]"
    if bool(record.reconstruction) != (record.source == "reconstructed"):
        yield "reconstruction says how the input was made, of reconstructed cases and of no others"
    if not record.links and record.source == "published" and not record.control:
        yield "links: say where it was published"
    for each in record.inputs:
        yield from _of_input(each, control=record.control)


def _of_input(each: Input, *, control: bool) -> Iterator[str]:
    make = each.make
    given = (make.constant is not None, bool(make.values), make.step is not None, make.distribution is not None)
    if sum(given) != 1:
        yield "make: give one of constant, values, step and distribution"
    if control and (each.failed or each.signature or each.rules):
        yield "a control has no implementation that failed, and nothing is predicted to fire"
    if bool(each.signature) != bool(each.rules):
        yield "signature and rules: give both, or neither where the implementation survives that input"
    if not control and not each.failed:
        yield "failed: name the implementation that failed"
    if not each.right:
        yield "right: name at least one implementation that is right"
