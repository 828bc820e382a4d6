"""The outputs for CI of reports on many layers: what has a limit keeps it, what has none is written in pieces."""

from __future__ import annotations

import tracemalloc

import pytest
from large_reports import large_report

from normcheck.render import github, junit, markdown, sarif

LAYERS = 300


@pytest.fixture(scope="module")
def large():
    return large_report(LAYERS)


def peak_of(make):
    """Bytes that were held at most while `make` ran, beyond what was held before."""
    make()  # what is kept for later runs is not of this one
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = make()
        return tracemalloc.get_traced_memory()[1] - before, made
    finally:
        tracemalloc.stop()


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
