"""All rules, and what they make of a result or a layer: findings and a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.analysis.accuracy_rules import ACCURACY_RULES
from normcheck.analysis.gradient_rules import GRADIENT_RULES
from normcheck.analysis.layer_rules import LAYER_RULES
from normcheck.analysis.policy import Policy, policy_of
from normcheck.analysis.range_rules import RANGE_RULES
from normcheck.analysis.rule import PLACEHOLDERS, Case, Hit, Rule, absolute_norm
from normcheck.analysis.underflow_rules import UNDERFLOW_RULES
from normcheck.errors import unknown_name
from normcheck.results import Finding, LayerFacts, Result, RuleFacts, Skipped, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from normcheck.results import Severity

_FORWARD_RULES: tuple[Rule, ...] = (*RANGE_RULES, *UNDERFLOW_RULES, *ACCURACY_RULES)
RESULT_RULES: tuple[Rule, ...] = (*_FORWARD_RULES, *GRADIENT_RULES)
RULES: tuple[Rule, ...] = (*_FORWARD_RULES, *LAYER_RULES, *GRADIENT_RULES)
_OF_GRADIENTS = frozenset(rule.code for rule in GRADIENT_RULES)


def rule_named(code: str) -> Rule:
    """Return the rule of that code, or of that slug.

    Raises:
        UsageError: no such rule.
    """
    wanted = code.strip().lower()
    found = next((rule for rule in RULES if wanted in (rule.code.lower(), rule.slug)), None)
    if found is None:
        raise unknown_name("rule", code, [rule.code.lower() for rule in RULES], "normcheck rules")
    return found


def policy(
    select: Sequence[str],
    ignore: Sequence[str],
    severity: Mapping[str, str] | Sequence[tuple[str, str]],
    thresholds: Mapping[str, float] | Sequence[tuple[str, float]],
) -> Policy:
    """Return which of all rules are in force, and how: see `normcheck.analysis.policy.policy_of`."""
    codes = [rule.code for rule in RULES]
    return policy_of(codes, select=select, ignore=ignore, severity=severity, thresholds=thresholds)


def facts_of(rules: Sequence[Rule] = RULES) -> tuple[RuleFacts, ...]:
    """Return what a report says of its rules."""
    return tuple(
        RuleFacts(
            code=rule.code,
            slug=rule.slug,
            title=rule.title,
            severity=rule.severity,
            why=rule.why,
            fix=rule.fix.format(**PLACEHOLDERS),
            documentation=rule.anchor,
            detects=rule.detects,
        )
        for rule in rules
    )


def findings_of(case: Case) -> list[Finding]:
    """All findings of a result.

    What rests on an assumed input or gradient alone is at most a warning; what only a view finds that nobody asked for,
    a note.
    """
    return [_finding(case, rule, hit) for rule in RESULT_RULES for hit in rule.check(case)]


def _finding(case: Case, rule: Rule, hit: Hit) -> Finding:
    result = case.result
    gradient = result.backward if rule.code in _OF_GRADIENTS else None
    assumed = (result.input.assumed or (gradient is not None and gradient.assumed)) and not hit.fact
    severity: Severity = hit.severity or rule.severity
    if assumed and severity == "error":
        severity = "warning"
    words = {"l1": absolute_norm(result.norm), "precision": result.precision}
    return Finding(
        rule=rule.code,
        severity=severity if result.asked else "note",
        layer=result.layer,
        norm=result.norm,
        precision=result.precision,
        implementation=result.implementation,
        params=result.params,
        mode=result.mode,
        step=hit.step,
        message=hit.message,
        fix=(hit.fix or rule.fix).format_map(words),
        assumed=assumed,
        measure=hit.measure,
    )


def layer_findings(layer: LayerFacts) -> list[Finding]:
    """All findings about a layer itself, whatever it is run in."""
    rules = [rule for rule in LAYER_RULES if rule.code != "NC404"]
    return [_layer_finding(rule, hit, layer.name, layer.norm) for rule in rules for hit in rule.check(layer)]


def skipped_findings(skipped: Skipped) -> list[Finding]:
    """The finding about a tensor that was not analysed."""
    rules = [rule for rule in LAYER_RULES if rule.code == "NC404"]
    return [_layer_finding(rule, hit, skipped.name, "") for rule in rules for hit in rule.check(skipped)]


def _layer_finding(rule: Rule, hit: Hit, layer: str, norm: str) -> Finding:
    return Finding(
        rule=rule.code,
        severity=hit.severity or rule.severity,
        layer=layer,
        norm=norm,
        precision=None,
        implementation=None,
        mode=None,
        step=None,
        message=hit.message,
        fix=hit.fix or rule.fix,
        assumed=False,
        measure=hit.measure,
    )


_BESIDE_THE_OUTPUT = frozenset({"saved", "running-update"})
"""Steps whose results are kept for later and do not enter y."""


def verdict_of(result: Result, findings: list[Finding]) -> Verdict:
    """`unsafe`, `degraded` or `ok`.

    `unsafe` with bad rows, running statistics that are not finite in the file itself (whose channels are beta or NaN by
    the exact arithmetic too), or an overflow on the way to the output, or to dx; else `degraded` where an accuracy rule
    fired above a note. An overflow that leaves no bad row was saturated: the output is that of a clipped value.
    """
    reaches = any(step.overflow for step in result.steps if step.step not in _BESIDE_THE_OUTPUT)
    gradient, facts = result.backward, result.parameters
    lost_before = result.mode == "eval" and facts is not None and facts.nonfinite > 0
    lost_after = gradient is not None and (gradient.rows.bad or gradient.overflow.count)
    if result.rows.bad or reaches or lost_before or lost_after:
        return "unsafe"
    accuracy = {rule.code for rule in RULES if rule.accuracy}
    fired = any(f.rule in accuracy and f.severity != "note" for f in findings)
    return "degraded" if fired else "ok"
