"""The report as JUnit XML, which CI servers show as tests.

A test suite is a file, or the command where there is none; a test case is a layer in a precision, and one more of the
layer itself where something is found that holds in any precision. A case fails where a finding on it is at or above
--fail-on: it has one `failure`, which tells all of them, because some readers keep one a case. What else was found on
it is in its `system-out`. Skipped things are skipped cases, unreadable files errors. So `failures` counts cases; how
many findings of each severity there are is said by the properties of each suite, whose sums are the report's. In a
diff a case fails too where only its verdict got worse.

The dialect is what Jenkins and GitLab read alike: no attachments, no second failure, and no two cases of one
classname and name, of which GitLab keeps the first. GitLab refuses files of 30 MB and more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from normcheck.render.counts import failing
from normcheck.render.findings import told
from normcheck.render.groups import VERDICT, Files, with_verdicts
from normcheck.render.layout import inline
from normcheck.render.places import kernel, whole
from normcheck.render.views import with_conditions
from normcheck.results import SEVERITIES, FindingCounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from normcheck.results import Finding, Report, Severity


@dataclass(slots=True)
class _Case:
    """A test case: findings, and why it was skipped or is an error."""

    classname: str
    name: str
    findings: list[Finding] = field(default_factory=list)
    skipped: str | None = None
    error: str | None = None

    def outcome(self, fails: tuple[Severity, ...]) -> str:
        """Return the element that says how it ended; none where it passed."""
        if self.error is not None:
            return "error"
        if any(finding.severity in fails for finding in self.findings):
            return "failure"
        return "skipped" if self.skipped is not None else ""


_Key = tuple[str, str | None, str | None]
_Suites = dict[str, dict[_Key, _Case]]
"""The cases of each suite by norm, layer and precision, in the order in which they were met."""


def render(report: Report) -> str:
    """Return the report as JUnit XML."""
    return "".join(pieces(report))


def pieces(report: Report) -> Iterator[str]:
    """Yield the text of `render`, a test case at a time."""
    fails, suites = failing(report), _suites(report)
    every = [case for cases in suites.values() for case in cases.values()]
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f"<testsuites{_attributes(name=report.tool.name)}{_totals(every, fails)}>\n"
    for name, cases in suites.items():
        yield from _suite(report, name, [*cases.values()], fails)
    yield "</testsuites>\n"


def _suites(report: Report) -> _Suites:
    """Return all cases: of results, of findings, of what was skipped and of what could not be read."""
    files, suites = Files(report), defaultdict[str, dict[_Key, _Case]](dict)

    def case_of(norm: str, layer: str | None, precision: str | None, file: str | None) -> _Case:
        suite = file or f"{report.tool.name} {report.command}"
        case = _Case(f"{suite}/{norm}" if norm else suite, _name(norm, layer, precision))
        return suites[suite].setdefault((norm, layer, precision), case)

    for result in report.results:
        case_of(result.norm, result.layer, result.precision, files.of(result.layer))
    for finding in with_conditions(with_verdicts(report)).findings:
        case = case_of(finding.norm, finding.layer, finding.precision, files.of(finding.layer))
        case.findings.append(finding)
    for item in report.skipped:
        file = item.name if item.name in files.models else files.of(item.name)
        case_of("", item.name, None, file).skipped = whole(item)
    for item in report.unreadable:
        case_of("", item.name, None, item.name).error = whole(item)
    return suites


def _name(norm: str, layer: str | None, precision: str | None) -> str:
    """Return what a case is called; where no norm is known, it is something left out."""
    about = ": layer" if norm and layer and precision is None else ""
    return " ".join(filter(None, (layer, precision))) + about or "any precision"


def _suite(report: Report, name: str, cases: list[_Case], fails: tuple[Severity, ...]) -> Iterator[str]:
    yield f"  <testsuite{_attributes(name=name)}{_totals(cases, fails)}>\n    <properties>\n"
    counts = FindingCounts.of(found for case in cases for found in case.findings if found.rule != VERDICT)
    facts = {"version": report.tool.version, "fail_on": report.fail_on}
    for fact, value in {**facts, **{f"findings.{severity}": many for severity, many in asdict(counts).items()}}.items():
        yield f"      <property{_attributes(name=fact, value=str(value))}/>\n"
    yield "    </properties>\n"
    yield from (_element(case, fails) for case in cases)
    yield "  </testsuite>\n"


def _totals(cases: Iterable[_Case], fails: tuple[Severity, ...]) -> str:
    """Return the counts of cases, as readers add them up."""
    ended = Counter(case.outcome(fails) for case in cases)
    counts = {"tests": ended.total(), "failures": ended["failure"], "errors": ended["error"]}
    return _attributes(**{name: str(many) for name, many in counts.items()}, skipped=str(ended["skipped"]))


def _element(case: _Case, fails: tuple[Severity, ...]) -> str:
    start = f"    <testcase{_attributes(classname=case.classname, name=case.name)}"
    failed = [finding for finding in case.findings if finding.severity in fails]
    others = [finding for finding in case.findings if finding.severity not in fails]
    parts = [_outcome(case, failed, fails)]
    if others:
        parts.append(f"<system-out>{_text(_lines(others))}</system-out>")
    inner = "".join(f"      {part}\n" for part in parts if part)
    return f"{start}>\n{inner}    </testcase>\n" if inner else f"{start}/>\n"


def _outcome(case: _Case, failed: list[Finding], fails: tuple[Severity, ...]) -> str:
    """Return the one element that says how a case ended; nothing where it passed."""
    match case.outcome(fails):
        case "error":
            return f"<error{_attributes(message=case.error or '', type='unreadable')}/>"
        case "failure":
            first, *more = sorted(failed, key=lambda finding: SEVERITIES.index(finding.severity))
            message = f"{first.rule}: {first.message}" + (f" (and {len(more)} more)" if more else "")
            lines = _text(_lines([first, *more]))
            return f"<failure{_attributes(message=message, type=first.rule)}>{lines}</failure>"
        case "skipped":
            return f"<skipped{_attributes(message=case.skipped or '')}/>"
    return ""


def _lines(findings: Iterable[Finding]) -> str:
    """Return findings as lines: what was run, at which step, the message, and what to do."""
    lines = []
    for finding in findings:
        step, message = told(finding)
        lines.append(inline(f"{finding.severity} {finding.rule} {kernel(finding)}{step}: {message}"))
        lines += [inline(f"  fix: {finding.fix}")] if finding.fix else []
    return "\n".join(lines)


def _text(text: str) -> str:
    """Return text as XML."""
    return escape(_inert(text))


def _attributes(**values: str) -> str:
    """Return attributes; characters that XML has no way to write are escaped as in the other outputs."""
    return "".join(f" {name}={quoteattr(_inert(inline(value)))}" for name, value in values.items())


def _inert(text: str) -> str:
    """Return text in which GitLab and Jenkins find no file to attach."""
    return text.replace("[[ATTACHMENT", "[\\x5bATTACHMENT")
