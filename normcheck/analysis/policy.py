"""Which findings a run reports, how severe they are, and the thresholds of the rules, also layer by layer."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from normcheck.analysis.thresholds import DEFAULTS, Thresholds
from normcheck.errors import UsageError, unknown_name
from normcheck.results import SEVERITIES, Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from normcheck.results import Finding

THRESHOLDS: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(Thresholds))
_ALL = "ALL"


def _covers(glob: str | None, layer: str | None) -> bool:
    """Whether a glob (None for any) is of a layer; also the very name, whose brackets a glob would take for a set."""
    return glob in (None, layer) or fnmatch.fnmatchcase(layer or "", glob)


@dataclass(frozen=True, slots=True)
class Selector:
    """Some rules, by the beginning of their codes (empty for all), on layers that match a glob (None for all)."""

    code: str
    layer: str | None = None

    def __str__(self) -> str:
        """As it is written in an option."""
        return f"{self.code or _ALL}{':' if self.layer else ''}{self.layer or ''}"

    def takes(self, rule: str, layer: str | None) -> bool:
        """Whether it is about that rule on that layer."""
        return rule.startswith(self.code) and _covers(self.layer, layer)

    @property
    def weight(self) -> tuple[bool, int, int]:
        """How specific it is: one that names layers, then the longer code, then more of a layer's name spelt out."""
        spelt = re.sub(r"\[.*?\]|[*?]", "", self.layer or "")
        return (self.layer is not None, len(self.code), len(spelt))


@dataclass(frozen=True, slots=True)
class Policy:
    """What of all findings is reported, and from which thresholds on.

    Attributes:
        select: rules in force; all where it is empty. ignore: rules that are not. Where both speak of a finding the
            most specific selector decides, and where they are equally specific it is ignored.
        severities: levels that take the place of a rule's own, the last one that matches.
        thresholds: (glob of layers or None for all, name, value); the last one that matches.
    """

    select: tuple[Selector, ...] = ()
    ignore: tuple[Selector, ...] = ()
    severities: tuple[tuple[Selector, Severity], ...] = ()
    thresholds: tuple[tuple[str | None, str, float], ...] = ()

    def wants(self, rule: str, layer: str | None) -> bool:
        """Whether findings of that rule on that layer are reported."""
        chosen = [s.weight for s in self.select if s.takes(rule, layer)]
        left_out = [s.weight for s in self.ignore if s.takes(rule, layer)]
        if not chosen and self.select:
            return False
        return not left_out or bool(chosen and max(chosen) > max(left_out))

    def severity(self, rule: str, layer: str | None) -> Severity | None:
        """The level that findings of that rule on that layer are given; None for their own."""
        return next((level for s, level in reversed(self.severities) if s.takes(rule, layer)), None)

    def limits(self, layer: str | None) -> Thresholds:
        """The thresholds for a layer."""
        return replace(DEFAULTS, **{name: value for glob, name, value in self.thresholds if _covers(glob, layer)})

    def idle(self, layers: Collection[str]) -> Iterator[str]:
        """Yield what is said of layers that none of these is."""
        said = [("select", s.layer, str(s)) for s in self.select]
        said += [("ignore", s.layer, str(s)) for s in self.ignore]
        said += [("severity", s.layer, str(s)) for s, _ in self.severities]
        said += [("threshold", glob, f"{glob}:{name}") for glob, name, _ in self.thresholds]
        for option, glob, text in said:
            if glob is not None and not any(_covers(glob, layer) for layer in layers):
                yield f"{option} {text!r} matches no layer"

    def judged(self, findings: Sequence[Finding], *, as_notes: bool = False) -> tuple[list[Finding], int]:
        """The findings that are reported, at their levels, and how many more there are.

        as_notes: they are of a view that nobody asked for, and stay what they are.
        """
        kept = [finding for finding in findings if self.wants(finding.rule, finding.layer)]
        ignored = len(findings) - len(kept)
        if as_notes or not self.severities:
            return kept, ignored
        return [replace(f, severity=self.severity(f.rule, f.layer) or f.severity) for f in kept], ignored


EVERYTHING = Policy()


def policy_of(
    codes: Iterable[str],
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    severity: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    thresholds: Mapping[str, float] | Sequence[tuple[str, float]] = (),
) -> Policy:
    """Return the policy that a user's words describe.

    Args:
        codes: of all rules. select, ignore: ``"NC102"``, a prefix as ``"NC3"``, ``"ALL"``, or ``"NC102:encoder.*"``
            for some layers. severity: such a selector to ``"error"``, ``"warning"`` or ``"note"``.
        thresholds: a name of `Thresholds`, or ``"encoder.*:headroom_bits"`` for some layers, to a value.

    Raises:
        UsageError: no rule begins so, or no such level or threshold; the message names the nearest.
    """
    known = tuple(codes)
    return Policy(
        tuple(_selector(text, known) for text in _listed(select)),
        tuple(_selector(text, known) for text in _listed(ignore)),
        tuple((_selector(text, known), _level(text, level)) for text, level in _pairs(severity)),
        tuple(_threshold(text, value) for text, value in _pairs(thresholds)),
    )


def _listed(texts: Sequence[str]) -> Sequence[str]:
    return (texts,) if isinstance(texts, str) else texts


def _pairs(items: Any) -> list[tuple[str, Any]]:
    return list(items.items() if isinstance(items, Mapping) else items)


def _selector(text: str, codes: tuple[str, ...]) -> Selector:
    before, colon, after = text.partition(":")
    code, layer = before.strip().upper(), after.strip()
    if code == _ALL:
        code = ""
    elif not code or not any(known.startswith(code) for known in codes):
        raise unknown_name("rule", before.strip(), codes, "normcheck rules")
    if colon and not layer:
        raise UsageError(f"{text!r} names no layers: write CODE for all, or CODE:PATTERN, as in 'NC102:encoder.*'")
    return Selector(code, layer or None)


def _level(text: str, level: str) -> Severity:
    found = next((known for known in SEVERITIES if known == level.strip().lower()), None)
    if found is None:
        known = f"{', '.join(SEVERITIES[:-1])} or {SEVERITIES[-1]}"
        raise UsageError(f"severity of {text}: {level!r} is none; give {known}")
    return found


def _threshold(text: str, value: Any) -> tuple[str | None, str, float]:
    before, colon, after = text.rpartition(":")
    pattern, name = before.strip(), after.strip().lower().replace("-", "_")
    if name not in THRESHOLDS:
        raise unknown_name("threshold", name, THRESHOLDS, "normcheck rules")
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value >= 0 and math.isfinite(value)):
        raise UsageError(f"threshold {text}: give a number that is finite and not negative, received {value!r}")
    if colon and not pattern:
        raise UsageError(f"threshold {text!r} names no layers: write NAME, or PATTERN:NAME, as in 'encoder.*:{name}'")
    return pattern or None, name, float(value)
