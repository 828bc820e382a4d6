"""docs/nn.md: every module and setting is on it, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from normcheck import nn as ours
from normcheck.norms.table import STATISTICS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "nn.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*ours.__all__, *STATISTICS])
def test_everything_is_on_the_page(name):
    assert f"`{name}`" in PAGE


def test_the_example_runs():
    example, *_ = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    scope = {}
    exec(example, scope)  # noqa: S102  # our own page
    assert all(p.grad is not None for p in scope["model"].parameters())


@pytest.mark.parametrize("name", ours.__all__)
def test_every_name_is_documented(name):
    assert getattr(ours, name).__doc__
