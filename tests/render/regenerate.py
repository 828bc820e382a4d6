"""The golden files: what each renderer makes of the hand-built reports.

Where a change of output is meant, write them anew and read the difference:

    python tests/render/regenerate.py
"""

from __future__ import annotations

from pathlib import Path

from hand_built import EMPTY, REPORT
from hand_built_diff import AGAINST, DIFF, SAME
from hand_built_model import MODEL, NO_NORMS, WITH_STEPS
from hand_built_ranges import WITH_RANGES
from hand_built_rules import with_rules
from html_pages import Page, digest

from normcheck.render import github, html, json_report, jsonl, junit, markdown, sarif, schema, table

GOLDEN = Path(__file__).parent / "golden"


def outputs() -> dict[str, str]:
    """Return the text of each golden file."""
    return {
        "report.json": json_report.render(REPORT),
        "report.jsonl": jsonl.render(REPORT),
        "table-80.txt": table.render(REPORT, width=80),
        "table-200.txt": table.render(REPORT, width=200),
        "table-steps-80.txt": table.render(REPORT, width=80, with_steps=True),
        "table-color-80.txt": table.render(REPORT, width=80, color=True),
        "model.json": json_report.render(WITH_STEPS),
        "model.jsonl": jsonl.render(WITH_STEPS),
        "model-80.txt": table.render(MODEL, width=80),
        "model-200.txt": table.render(MODEL, width=200),
        "model-top-80.txt": table.render(MODEL, width=80, top=2),
        "model-color-80.txt": table.render(MODEL, width=80, color=True),
        "model-layers-80.txt": table.render(WITH_STEPS, width=80, with_steps=True),
        "model-empty-80.txt": table.render(NO_NORMS, width=80),
        "table-ranges-80.txt": table.render(WITH_RANGES, width=80, with_steps=True),
        "table-ranges-200.txt": table.render(WITH_RANGES, width=200, with_steps=True),
        "schema.json": schema.render(),
        "table-empty-80.txt": table.render(EMPTY, width=80),
        "diff-80.txt": table.render(DIFF, width=80),
        "diff-200.txt": table.render(DIFF, width=200),
        "diff-color-80.txt": table.render(DIFF, width=80, color=True),
        "diff-same-80.txt": table.render(SAME, width=80),
        "model-against-80.txt": table.render(AGAINST, width=80),
        "report.sarif": sarif.render(REPORT),
        "model.sarif": sarif.render(with_rules(MODEL)),
        "model-against.sarif": sarif.render(with_rules(AGAINST)),
        "report-junit.xml": junit.render(REPORT),
        "model-junit.xml": junit.render(MODEL),
        "diff-junit.xml": junit.render(DIFF),
        "report-github.txt": github.render(REPORT),
        "model-github.txt": github.render(with_rules(MODEL)),
        "diff-github.txt": github.render(with_rules(DIFF)),
        "report.md": markdown.render(REPORT),
        "report-empty.md": markdown.render(EMPTY),
        "model.md": markdown.render(with_rules(MODEL)),
        "model-against.md": markdown.render(with_rules(AGAINST)),
        "diff.md": markdown.render(with_rules(DIFF)),
        "diff-same.md": markdown.render(SAME),
        "page.txt": digest(html.render(REPORT)),
        "page-ranges.txt": digest(html.render(WITH_RANGES)),
        "page-model.txt": digest(html.render(with_rules(WITH_STEPS))),
        "page-against.txt": Page(html.render(with_rules(AGAINST))).text + "\n",
    }


if __name__ == "__main__":
    for name, text in outputs().items():
        (GOLDEN / name).write_text(text, encoding="utf-8", newline="\n")
