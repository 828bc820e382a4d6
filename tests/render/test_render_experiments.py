"""Reproductions as table, Markdown, JSON and pictures."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hand_built_reproduction import CELLS, CURVES, FIRST, MAP, QUICK, REPRODUCTION, SECOND
from markdown_it import MarkdownIt

from normcheck.render.experiment_plots import _told, pictures
from normcheck.render.experiments import claims_table, from_json, json_pieces, markdown, table
from normcheck.render.plots import is_ours


def shown(found=REPRODUCTION, width=80, color=False):
    return "".join(table(found, width=width, color=color))


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_claim_is_there_whole_with_its_figures_and_standing(width):
    text = shown(width=width)
    assert max(map(len, text.splitlines())) <= width
    for experiment in REPRODUCTION.experiments:
        for claim in experiment.claims:
            for part in (claim.claim, claim.published or "none: worked out here", claim.measured, claim.reason):
                assert part in flat(text)
            assert f"standing {claim.standing}" in flat(text)


def test_a_claim_without_a_reason_has_no_line_for_one():
    assert shown().count("\nreason ") == 2


def test_the_counts_are_of_each_experiment_and_of_all():
    lines = shown().splitlines()
    counts = [line.split() for line in lines[-3:]]
    assert counts == [["first", "1", "1", "1"], ["second-one", "1", "0", "0"], ["all", "2", "1", "1"]]


def test_one_experiment_has_no_row_for_all():
    assert "\nall " not in shown(dataclasses.replace(REPRODUCTION, experiments=(FIRST,)))


def test_the_short_form_says_so():
    assert "quick form" in shown(QUICK)
    assert "quick form" in "".join(markdown(QUICK))
    assert "quick form" not in shown()


def test_colour_is_beside_the_words():
    assert "\x1b[1;31mnot reproduced\x1b[0m" in shown(color=True)
    assert "\x1b" not in shown()


def test_a_map_is_told_in_a_sentence():
    text = flat(shown())
    assert "L2 in wide-sum: fails in 2 of 4 cells, at square, sum; simulated alike in 3 of 4; not at (1, 4096)" in text


def test_markdown_is_one_table_an_experiment_that_names_cannot_break():
    hostile = dataclasses.replace(FIRST.claims[0], measured="a | b <script> `x`")
    experiment = dataclasses.replace(FIRST, claims=(hostile,))
    html = MarkdownIt("gfm-like", {"linkify": False}).render(claims_table(experiment))
    assert html.count("<table>") == 1
    assert html.count("<td") == 4
    assert "<script" not in html
    text = "".join(markdown(REPRODUCTION))
    assert text.startswith("## normcheck reproduce\n\nof 4 claims 2 reproduced, 1 not reproduced, 1 not comparable")
    assert text.count("\n### ") == 2
    assert "| claim | published | measured here | standing |" in text


def test_json_is_strict_and_gives_everything_back():
    text = "".join(json_pieces(REPRODUCTION))
    data = json.loads(text, parse_constant=pytest.fail)
    assert data["experiments"][0]["facts"]["L1"]["accuracies"] == [0.9, "nan"]
    again = from_json(text)
    assert again.experiments[1] == SECOND
    assert dataclasses.replace(again.experiments[0], facts={}) == dataclasses.replace(FIRST, facts={})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "results": []}', b"\xff"])
def test_what_is_no_reproduction_is_refused(text):
    with pytest.raises(ValueError, match="not what normcheck reproduce writes"):
        from_json(text)


def test_pictures_are_named_for_experiment_and_plot_and_are_the_same_again():
    for experiment, name in ((FIRST, "first-accuracy.png"), (SECOND, "second-one-l2.png")):
        ((found, content),) = pictures(experiment)
        assert found == name
        assert is_ours(content, "png")
        assert dict(pictures(experiment)) == {name: content}


def test_a_picture_shows_what_changes():
    def drawn(**changes):
        return next(pictures(dataclasses.replace(SECOND, maps=(dataclasses.replace(MAP, **changes),))))[1]

    other = (*CELLS[:-1], dataclasses.replace(CELLS[-1], agrees=False))
    assert len({drawn(), drawn(cells=other), drawn(cells=CELLS[:2]), drawn(title="L1")}) == 4


def test_a_curve_without_a_band_and_a_lone_one_are_drawn():
    lone = dataclasses.replace(CURVES, series=CURVES.series[1:], log_y=True)
    ((_, content),) = pictures(dataclasses.replace(FIRST, curves=(lone,)))
    assert is_ours(content, "png")


def test_a_cell_tells_its_mean_and_its_step():
    assert [_told(cell) for cell in CELLS] == ["0.95", "0.10\nsquare", "0.85\nsum", "0.15\nsum"]
