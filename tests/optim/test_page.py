"""docs/optim.md: its example runs, and its figures are of the benchmark and of the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from normcheck.optim import RecordedNorms
from normcheck.optim.correction import DEGREES, STABLE_GROWTH

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "optim.md").read_text(encoding="utf-8")


def benchmark():
    spec = importlib.util.spec_from_file_location("weight_decay", ROOT / "tests" / "benchmarks" / "weight_decay.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(block, "docs/optim.md", "exec"), {})  # noqa: S102 - our own page
    assert len(RecordedNorms.load("norms.safetensors")) == 20


def test_the_measured_tables_are_those_that_the_benchmark_makes():
    program = benchmark()
    text = PAGE.partition(program.BEGIN)[2].partition(program.END)[0]
    assert "processors" in text
    assert all(f"### {title}\n" in text for title in program.TASKS)
    assert all(text.count(f"| {name} |") >= len(program.TASKS) for name in program.FORMS)
    assert f"bound {STABLE_GROWTH:g} |" in text


def test_the_page_names_every_optimizer_of_the_table_and_the_bound():
    text = PAGE.partition("## Other optimizers")[2].partition("\n## ")[0]
    assert all(re.search(rf"\b{kind.__name__}\b", text) for kind in DEGREES)
    assert f"grown by more than {STABLE_GROWTH:g} since the last" in PAGE
