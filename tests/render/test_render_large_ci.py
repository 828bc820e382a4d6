"""The outputs for CI of reports on many layers: what has a limit keeps it, what has none is written in pieces."""

from __future__ import annotations

import pytest
from large_reports import large_report
from memory import peak_of

from normcheck.render import github, junit, markdown, sarif

LAYERS = 300


@pytest.fixture(scope="module")
def large():
    return large_report(LAYERS)


@pytest.mark.parametrize("renderer", [sarif, junit, markdown, github], ids=["sarif", "junit", "markdown", "github"])
def test_an_output_holds_little_beside_the_report(renderer, large):
    peak, size = peak_of(lambda: sum(len(piece.encode()) for piece in renderer.pieces(large)))
    assert size > 1000
    assert peak < 0.2 * peak_of(lambda: large_report(LAYERS))[0]


def test_annotations_are_at_most_ten_of_a_severity_and_the_verdict(large):
    assert len(github.render(large).splitlines()) <= 31
    assert len(github.render(large)) < 65_536


def test_the_page_in_markdown_is_short(large):
    assert len(markdown.render(large).encode()) < 65_536
