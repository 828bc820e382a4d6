"""The golden files: what each renderer makes of the hand-built reports.

Where a change of output is meant, write them anew and read the difference:

    python tests/render/regenerate.py
"""

from __future__ import annotations

from pathlib import Path

from hand_built import EMPTY, REPORT, row_noun
from hand_built_model import MODEL, NO_NORMS, WITH_STEPS

from normcheck.render import json_report, jsonl, table

GOLDEN = Path(__file__).parent / "golden"


def outputs() -> dict[str, str]:
    """Return the text of each golden file."""
    return {
        "report.json": json_report.render(REPORT),
        "report.jsonl": jsonl.render(REPORT),
        "table-80.txt": table.render(REPORT, width=80, row_noun=row_noun),
        "table-200.txt": table.render(REPORT, width=200, row_noun=row_noun),
        "table-steps-80.txt": table.render(REPORT, width=80, row_noun=row_noun, with_steps=True),
        "table-color-80.txt": table.render(REPORT, width=80, row_noun=row_noun, color=True),
        "model.json": json_report.render(WITH_STEPS),
        "model.jsonl": jsonl.render(WITH_STEPS),
        "model-80.txt": table.render(MODEL, width=80, row_noun=row_noun),
        "model-200.txt": table.render(MODEL, width=200, row_noun=row_noun),
        "model-top-80.txt": table.render(MODEL, width=80, row_noun=row_noun, top=2),
        "model-color-80.txt": table.render(MODEL, width=80, row_noun=row_noun, color=True),
        "model-layers-80.txt": table.render(WITH_STEPS, width=80, row_noun=row_noun, with_steps=True),
        "model-empty-80.txt": table.render(NO_NORMS, width=80, row_noun=row_noun),
        "table-empty-80.txt": table.render(EMPTY, width=80, row_noun=row_noun),
    }


if __name__ == "__main__":
    for name, text in outputs().items():
        (GOLDEN / name).write_text(text, encoding="utf-8", newline="\n")
