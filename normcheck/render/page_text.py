"""What a page says in words: the verdict, the counts, findings by rule and fix, what changed, what was left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from normcheck.render import counts as of_run
from normcheck.render.changes import before_and_after
from normcheck.render.findings import befell, fix_of, found_on, told
from normcheck.render.groups import Files, findings_of
from normcheck.render.json_report import to_plain
from normcheck.render.layout import inline
from normcheck.render.places import Shown, counted, distinct, plural, verdicts, where, whole
from normcheck.render.views import condition
from normcheck.results import SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from normcheck.render.groups import Group
    from normcheck.results import Change, Comparison, Finding, Report, Result, RuleFacts

_FEW = 3
"""So many norms are named in the heading of a page."""

FIRST = 8
"""So many items of a list are in the page as text; the others are data, which its script shows when asked to."""


class Item(NamedTuple):
    """A line of a list: what it judges, what it is about, what it says, and which figures moved."""

    mark: str
    where: str
    text: str
    figures: str = ""


class Listing(NamedTuple):
    """A list of the page: `total` of all items of its kind, from `start` on; `items` are the first ones.

    `message` is what all of them say, and empty where they say different things.
    """

    title: str
    start: int
    total: int
    items: tuple[Item, ...]
    message: str = ""


class Judgement(NamedTuple):
    """The verdict in a word and in a sentence, and of the worst result what befell it and what to do."""

    word: str
    sentence: str
    worst: str = ""
    fix: str = ""


# ------------------------------------------------------------------------------------------------- the head


def verdict(report: Report, ordered: Sequence[Result]) -> Judgement:
    """Return the verdict on a report, of which `ordered` are the results, the worst first."""
    if report.command == "diff" and report.comparison is not None:
        return _difference(report.comparison)
    asked = [result for result in ordered if result.asked]
    if not asked:
        return Judgement("empty", "nothing was analysed")
    (head, many), *others = verdicts(asked).items()
    total = sum((many, *(more for _, more in others)))
    noun = plural("layer" if any(result.layer for result in asked) else "result", total)
    sentence = ", ".join([f"in {many} of {total} {noun}", *(f"{other} in {more}" for other, more in others)])
    found = found_on(asked[0], report.findings)
    return Judgement(
        head, sentence, f"{where(asked[0])}: {befell(Shown(asked[0]), found)}", _fix(report, found) * (head != "ok")
    )


def _difference(comparison: Comparison) -> Judgement:
    worse, better = len(comparison.regressions), len(comparison.improvements)
    rest = f"{better} gone or better, {comparison.unchanged} unchanged"
    return (
        Judgement("worse", f"in {worse} respects, {rest}") if worse else Judgement("ok", f"nothing got worse, {rest}")
    )


def _fix(report: Report, found: Sequence[Finding]) -> str:
    """Return the first advice, else the fix of the worst finding."""
    advised = [item.title for item in report.advice if item.asked]
    return advised[0] if advised else fix_of([finding for finding in found if finding.severity != "note"], report)


def counts(report: Report) -> list[tuple[str, int, str]]:
    """Return what is counted in the head: its name, the number, and the class of its look."""
    looks = {f"{severity}s": severity for severity in SEVERITIES} | {"unreadable": "error"}
    return [
        (of_run.agreeing(what, many), many, looks.get(what, "") if many else "")
        for what, many in of_run.counts(report).items()
        if many or what != "layers"  # a simulation has none
    ]


def subject(report: Report) -> str:
    """Return what the report is about: the files, or the distribution and what of it many implementations made."""
    drawn = str(report.settings.get("distribution", ""))
    norms = distinct(result.norm for result in report.results)
    kernels = distinct(result.implementation for result in report.results)
    if drawn and len(kernels) > 1:
        named = ", ".join(norms) if len(norms) <= _FEW else counted(len(norms), "norm")
        drawn = f"{named} of {drawn}, {len(kernels)} implementations"
    return ", ".join(map(inline, Files(report).models)) or drawn


def pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return settings as names and text; what is no text as JSON."""
    plain = to_plain(dict(values))
    return [(name, v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)) for name, v in plain.items()]


def left_out(report: Report) -> list[tuple[str, str]]:
    """Return what was not analysed or could not be read, each with its reason."""
    unreadable = [("unreadable", whole(item)) for item in report.unreadable]
    return unreadable + [("skipped", whole(item)) for item in report.skipped]


# ------------------------------------------------------------------------------------------------ findings


class Explained(NamedTuple):
    """Findings of one rule with one fix, how many layers they are on, and what the rule is where that is known.

    `heading` stands before the first group of the view that nobody asked for, and is empty for all others.
    """

    heading: str
    group: Group
    rule: RuleFacts | None
    layers: str
    listing: Listing


def findings(groups: Sequence[Group], report: Report) -> Iterator[Explained]:
    """Yield the groups with what they need to be read."""
    rules = {rule.code: rule for rule in report.rules}
    beside = [group for group in groups if not group.asked]
    total, start = len({layer.name for layer in report.layers}), 0
    for group in groups:
        heading = f"Only {condition(findings_of(beside))}" if group in beside[:1] else ""
        found = group.findings
        said = common(found)
        items = tuple(item_of(finding, without=said) for finding in found[:FIRST])
        listing = Listing(group.rule, start, len(found), items, said or "")
        yield Explained(heading, group, rules.get(group.rule), _layers(group, total), listing)
        start += len(found)


def common(found: Sequence[Finding]) -> str | None:
    """Return the message of all findings of a group; None where they say different things, or there is but one."""
    first = _message(found[0])
    return first if len(found) > 1 and all(_message(finding) == first for finding in found) else None


def item_of(finding: Finding, *, without: str | None = None) -> Item:
    """Return a finding as a line, its message left out where the list says it already."""
    text = "" if without is not None else _message(finding)
    return Item("", where(finding) or "the whole run", text)


def _message(finding: Finding) -> str:
    step, message = told(finding)
    return f"{step.strip()}: {message}" if step else message


def _layers(group: Group, total: int) -> str:
    """Return on how many of all layers some findings are; without layers how many findings."""
    named, found = len(group.layers), len(group.findings)
    if not named:
        return counted(found, "finding")
    return f"on {named} of {counted(total, 'layer')}" if total >= named else f"on {counted(named, 'layer')}"


# ------------------------------------------------------------------------------------------------- changes


def changes(comparison: Comparison | None) -> list[Listing]:
    """Return what got worse, what got better, and what changed in the view that nobody asked for."""
    if comparison is None:
        return []
    parts = {"Worse": comparison.regressions, "Better": comparison.improvements, "Not asked for": comparison.unasked}
    listings, start = [], 0
    for title, part in parts.items():
        listings.append(Listing(title, start, len(part), tuple(map(_change, part[:FIRST]))))
        start += len(part)
    return listings


def changed(comparison: Comparison | None) -> Iterator[Item]:
    """Yield all changes in the order of `changes`."""
    every = () if comparison is None else (*comparison.regressions, *comparison.improvements, *comparison.unasked)
    return map(_change, every)


def _change(change: Change) -> Item:
    mark = " ".join(filter(None, (change.kind, change.severity, change.rule)))
    return Item(mark, where(change), change.message, "; ".join(map(before_and_after, change.figures)))
