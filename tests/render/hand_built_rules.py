"""Rules for the hand-built reports: one documented in the repository, one that has an address."""

from __future__ import annotations

import dataclasses

from normcheck.results import Report, RuleFacts

RULES = (
    RuleFacts(
        code="NC102",
        slug="silent-collapse",
        title="Silent collapse",
        severity="error",
        why="An infinite statistic turns whole rows into beta, and nothing non-finite leaves the layer.",
        fix="compute this norm's statistics in float32 (implementation `wide`)",
        documentation="docs/rules.md#nc102-silent-collapse",
        detects="every output of some row equals beta (`rows.collapsed` above 0)",
    ),
    RuleFacts(
        code="NC301",
        slug="deviation",
        title="Deviation",
        severity="warning",
        why="The output is further from the exact one than rounding it once would put it.",
        fix="use implementation `wide`",
        documentation="https://example.org/rules#nc301-deviation",
    ),
)


def with_rules(report: Report) -> Report:
    return dataclasses.replace(report, rules=RULES)
