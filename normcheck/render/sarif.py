"""The report as SARIF 2.1.0, the format in which static analysers report to code hosts and editors.

A result is a finding. Its location is the file of the layer, where there is one, and the layer as a logical location
in it. What GitHub's code scanning asks beyond the standard, and cannot have from every report: it rejects files with
a result that is in no file (those of `simulate`), with more than 25,000 results (of which it shows 5,000, the most
severe), and above 10 MB once compressed.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from normcheck.render.groups import Files, posix, said
from normcheck.render.json_report import to_plain
from normcheck.render.layout import inline
from normcheck.render.places import whole
from normcheck.render.views import with_conditions
from normcheck.results import SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import Change, Finding, Report, RuleFacts

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_STATES = {"new": "new", "worse": "updated"}
_DRIVE = re.compile(r"[A-Za-z]:/")

_FIRST_LINE = {"startLine": 1}
"""Files of weights have no lines, but GitHub's code scanning shows only results that are on one."""


def render(report: Report) -> str:
    """Return the report as SARIF 2.1.0."""
    return "".join(pieces(report))


def pieces(report: Report) -> Iterator[str]:
    """Yield the text of `render`: a line for each part of the run, then a line for each result."""
    yield f'{{\n"$schema": {_json(_SCHEMA)},\n"version": "2.1.0",\n"runs": [{{\n'
    yield from (f'"{name}": {_json(part)},\n' for name, part in _run(report).items())
    yield '"results": ['
    for index, result in enumerate(_results(report)):
        yield (",\n" if index else "\n") + _json(result)
    yield "\n]\n}]\n}\n"


def _json(data: Any) -> str:
    return msgspec.json.encode(to_plain(data)).decode()


def _run(report: Report) -> dict[str, Any]:
    """Return all of the run but its results."""
    driver = {
        "name": report.tool.name,
        "version": report.tool.version,
        "rules": [_rule(rule) for rule in report.rules],
    }
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": _category(report)},
        "invocations": [{"executionSuccessful": not report.unreadable, "toolExecutionNotifications": _notices(report)}],
        "properties": {"failOn": report.fail_on, "summary": report.summary},
    }


def _category(report: Report) -> str:
    """Return what tells this analysis from others of the same commit: GitHub replaces earlier ones of its category."""
    names = [inline(posix(name)).strip("/") for name in Files(report).models]
    rest = f" and {len(names) - 1} more" if names[1:] else ""
    return "/".join(["normcheck", report.command, *names[:1]]) + f"{rest}/"


def _rule(rule: RuleFacts) -> dict[str, Any]:
    about = f"Fires when {rule.detects}. {rule.why}" if rule.detects else rule.why
    online = rule.documentation.startswith("http")
    link = f"[{rule.code}]({rule.documentation})" if online else f"`{rule.documentation}`"
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.slug.split("-")),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": about},
        "help": {
            "text": f"{about}\nFix: {rule.fix}\nDocumented in {rule.documentation}",
            "markdown": f"{about}\n\n**Fix:** {rule.fix}\n\nDocumented in {link}.",
        },
        "defaultConfiguration": {"level": rule.severity},
        "properties": {"tags": ["numerics", "low-precision", "normalization"]},
    } | ({"helpUri": rule.documentation} if online else {})


def _notices(report: Report) -> list[dict[str, Any]]:
    """Return what could not be read, as errors, and what was left out, as notes."""
    unread = [
        {
            "level": "error",
            "descriptor": {"id": "unreadable"},
            "message": _message(whole(item)),
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri(item.name)}}}],
        }
        for item in report.unreadable
    ]
    return unread + [
        {"level": "note", "descriptor": {"id": "skipped"}, "message": _message(whole(item))} for item in report.skipped
    ]


def _results(report: Report) -> Iterator[dict[str, Any]]:
    """Yield the findings as results, the most severe first: those that a host shows, where it does not show all."""
    files, seen = Files(report), Counter[str]()
    indices = {rule.code: index for index, rule in enumerate(report.rules)}
    changes = report.comparison.regressions if report.comparison else ()
    kinds = {_changed(change): _STATES[change.kind] for change in changes if change.kind in _STATES}
    for finding in sorted(with_conditions(report).findings, key=lambda finding: SEVERITIES.index(finding.severity)):
        print_of = fingerprint(finding)
        seen[print_of] += 1
        ordinal = f"{print_of}:{seen[print_of]}"
        index = {"ruleIndex": indices[finding.rule]} if finding.rule in indices else {}
        state = {"baselineState": kinds[_changed(finding)]} if _changed(finding) in kinds else {}
        yield {
            "ruleId": finding.rule,
            **index,
            "level": finding.severity,
            "message": _message(f"{said(finding)}. Fix: {finding.fix}" if finding.fix else said(finding)),
            **_locations(finding, files.of(finding.layer)),
            # GitHub's code scanning tells alerts apart by primaryLocationLineHash alone.
            "partialFingerprints": {"normcheck/v1": ordinal, "primaryLocationLineHash": ordinal},
            **state,
            "properties": _properties(finding),
        }


def _changed(item: Finding | Change) -> tuple[str | None, ...]:
    place = (item.layer, item.norm, item.precision, item.implementation, item.params, item.mode)
    return (item.rule, *place, item.message)


def fingerprint(finding: Finding) -> str:
    """Return what a finding is the same by from run to run: what is wrong where, not how bad it is."""
    place = (finding.layer, finding.norm, finding.precision, finding.implementation, finding.params, finding.mode)
    return hashlib.sha256(msgspec.json.encode(to_plain((*place, finding.rule, finding.step)))).hexdigest()


def _message(text: str) -> dict[str, str]:
    """Return a message that holds no link and no placeholder, whatever a name contains (SARIF 2.1.0, 3.11.5-6)."""
    return {"text": inline(text).replace("](", "\\](").replace("{", "{{").replace("}", "}}")}


def _locations(finding: Finding, file: str | None) -> dict[str, Any]:
    """Return the location: the file, where there is one, and the layer; nothing where there is neither."""
    physical = {"physicalLocation": {"artifactLocation": {"uri": uri(file)}, "region": _FIRST_LINE}} if file else {}
    name = inline(finding.layer or "")
    module = {"name": name, "fullyQualifiedName": name, "kind": "module"}
    location = physical | ({"logicalLocations": [module]} if name else {})
    return {"locations": [location]} if location else {}


def _properties(finding: Finding) -> dict[str, Any]:
    names = ("norm", "precision", "implementation", "params", "mode", "step", "measure", "assumed")
    return {name: getattr(finding, name) for name in names}


def uri(path: str) -> str:
    """Return a path as a URI reference: relative as it is, or of the file scheme; what is no Unicode is escaped."""
    plain = posix(path)
    quoted = quote(plain[2:] if _DRIVE.match(plain) else plain, safe="/", errors="backslashreplace")
    if _DRIVE.match(plain):
        return f"file:///{plain[:2]}{quoted}"
    return f"file://{quoted}" if plain.startswith("/") else quoted
