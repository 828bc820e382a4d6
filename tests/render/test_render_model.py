"""The report on a model as a page of text: what it says, at which width, and that names cannot harm it."""

from __future__ import annotations

import dataclasses
import re
import time

import pytest
from hand_built_model import (
    CLEAN_MODEL,
    HEAD,
    MODEL,
    SNIPPET,
    TIGHT,
    UNSAFE,
    WITH_STEPS,
    facts,
    finding,
    in_training,
    of_layer,
)
from model_pages import rendered, says, section, sections, squeezed, uncolored
from rich.cells import cell_len

from normcheck.results import Skipped

WIDTHS = [40, 60, 80, 100, 120, 160, 200, 300]
FIGURES = (
    *("5 of 128", "5 collapsed", "5 of 8000", "0.75", "3550 x ideal", "none"),
    *("0 of 192", "0.0125", "59.2 x ideal", "0.25 bits", "at store", "0.000977 to 1"),
    *("0 of 832", "0.000413", "9 bits", "at square", "0.000244 to 512"),
)
HOSTILE = ["a\nb", "\x1b[31mred\x07", "\u202eright to left\u2066", "x" * 10_000, "[/red][bold]", "字" * 500, "  "]


def with_layer(name, report=MODEL):
    """The report with another name for one of the layers."""

    def renamed(item, field):
        return dataclasses.replace(item, **{field: name}) if getattr(item, field) == UNSAFE[0] else item

    return dataclasses.replace(
        report,
        results=tuple(renamed(item, "layer") for item in report.results),
        findings=tuple(renamed(item, "layer") for item in report.findings),
        layers=tuple(renamed(item, "name") for item in report.layers),
        advice=(),
    )


# ------------------------------------------------------------------------------------------------------ widths


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_but_what_is_to_be_pasted_is_longer_than_the_width(width):
    lines = rendered(width).splitlines()
    assert {line for line in lines if len(line) > width} <= set(SNIPPET.splitlines())
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_figure_of_the_table_is_cropped(width):
    text = squeezed(rendered(width))
    assert [figure for figure in FIGURES if squeezed(figure) not in text] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_row_names_its_layers_and_what_ran(width):
    text = squeezed(rendered(width))
    rows = [f"{', '.join(UNSAFE)}", f"{', '.join(TIGHT)}", "9 of 14 layers", "11 of 14 layers", "13 of 14 layers", HEAD]
    assert [row for row in rows if squeezed(row) not in text] == []
    for word in ("batch-l2", "layer-l2", "fp16", "bf16", "wide", "train", "eval", "NC104", "NC103", "NC301"):
        assert word in text


def test_at_80_columns_a_row_is_told_above_its_figures():
    assert "layer3.0.bn2, layer3.1.bn2 (worst layer3.1.bn2): batch-l2 fp16 wide eval" in rendered(80).splitlines()


def test_at_200_columns_what_ran_has_columns_of_its_own():
    (line,) = [line for line in rendered(200).splitlines() if line.startswith("unsafe    NC104")]
    assert line.split()[:8] == ["unsafe", "NC104", "layer3.0.bn2,", "layer3.1.bn2", "batch-l2", "fp16", "wide", "eval"]


@pytest.mark.parametrize("width", [80, 200])
def test_color_adds_nothing_but_color(width):
    colored = rendered(width, color=True)
    assert uncolored(colored) == rendered(width)
    assert colored.count("\x1b[") > 10


def test_the_mode_is_told_where_there_are_several():
    assert ": batch-l2 fp16 wide\n" in rendered(80, CLEAN_MODEL)
    assert "mode train" in rendered(80, CLEAN_MODEL)


# ----------------------------------------------------------------------------------------------------- premise


def test_the_premise_says_what_was_run_and_what_was_assumed():
    premise = section("analyze")
    for fact in (
        "analyze resnet.pt, plain.pt",
        "14 layers: 13 batch-l2, 1 layer-l2",
        "fp16 and bf16",
        "implementation wide",
        "params half",
        "gaussian on the running statistics (assumed) or gaussian(mean=0, std=1) (assumed)",
        "batch 32 (assumed)",
        "spatial 8 x 8 (assumed)",
        "seed 0",
        "n = 512 to 2048",
        "mode train and eval",
        "eps 1e-5 (13 layers, assumed), 1e-12 (1 layer)",
    ):
        assert says(premise, fact), fact


def test_sizes_that_were_not_assumed_are_not_mentioned():
    known = tuple(
        dataclasses.replace(result, input=dataclasses.replace(result.input, source="recorded", assumed=False))
        for result in CLEAN_MODEL.results
    )
    layers = tuple(dataclasses.replace(layer, assumed=("eps",)) for layer in CLEAN_MODEL.layers)
    premise = section("analyze", dataclasses.replace(CLEAN_MODEL, results=known, layers=layers))
    assert "recorded" in premise
    assert not [word for word in ("batch32", "spatial", "seed", "recorded(assumed)") if word in premise]


def test_eps_that_all_share_is_told_once():
    assert says(section("analyze", CLEAN_MODEL), "eps 1e-5 (assumed)")
    given = tuple(dataclasses.replace(layer, eps_source="module") for layer in CLEAN_MODEL.layers)
    assert section("analyze", dataclasses.replace(CLEAN_MODEL, layers=given)).endswith("eps1e-5")


def test_norms_put_in_place_of_the_layers_own_are_said():
    other = tuple(dataclasses.replace(result, norm="batch-l1") for result in CLEAN_MODEL.results)
    assert says(section("analyze", dataclasses.replace(CLEAN_MODEL, results=other)), "computed as batch-l1")


def test_many_inputs_and_files_are_counted():
    results = tuple(
        dataclasses.replace(r, input=dataclasses.replace(r.input, source=f"source {index}", assumed=False))
        for index, r in enumerate(CLEAN_MODEL.results)
    )
    settings = {**MODEL.settings, "models": [f"model{index}.pt" for index in range(10)]}
    premise = section("analyze", dataclasses.replace(CLEAN_MODEL, results=results, settings=settings))
    assert says(premise, "model0.pt, model1.pt, model2.pt and 7 more files")
    assert says(premise, "source 0, source 1, source 2 and 10 more inputs")


# ------------------------------------------------------------------------------------------------------- table


def test_the_worst_rows_come_first():
    verdicts = re.findall(r"^(unsafe|degraded|ok)(?=  )", rendered(80), re.MULTILINE)
    assert verdicts == ["unsafe", "degraded", *["ok"] * 7]


def test_a_model_of_one_kind_of_layer_is_one_row():
    assert re.findall(r"^(unsafe|degraded|ok)(?=  )", rendered(80, CLEAN_MODEL), re.MULTILINE) == ["ok"]
    assert "all 13 layers (worst stem.bn): batch-l2 fp16 wide" in rendered(80, CLEAN_MODEL)


def test_a_row_tells_its_mode_also_where_rows_of_the_other_are_hidden():
    modes = {result.mode for result in MODEL.results if result.asked}
    assert modes == {"train", "eval"}
    whole, first = (rendered(80, top=top).splitlines() for top in (None, 1))
    heading = next(line for line in whole if line.endswith((" train", " eval")))
    assert heading in first


def test_top_shows_so_many_rows_and_says_what_it_hides():
    text = rendered(80, top=2)
    assert re.findall(r"^(unsafe|degraded|ok)(?=  )", text, re.MULTILINE) == ["unsafe", "degraded"]
    assert "7 more rows not shown, the worst ok: --top 9 shows all" in text
    assert rendered(80, top=9) == rendered(80, top=100) == rendered(80)
    assert "not shown" not in rendered(80)


def test_the_legend_stands_where_rows_have_several_layers():
    assert "counts are sums" in rendered(80)
    single = dataclasses.replace(CLEAN_MODEL, results=CLEAN_MODEL.results[:1], layers=CLEAN_MODEL.layers[:1])
    assert "counts are sums" not in rendered(80, single)


def test_results_not_asked_for_are_not_in_the_table():
    for width in (80, 200):
        above, below = rendered(width).split("if your runtime", 1)
        assert "pure" not in above
        assert "pure" in below


# ------------------------------------------------------------------------------------------------ single layers


def test_a_layer_is_shown_with_how_it_came_to_be_known():
    text = rendered(80, WITH_STEPS, with_steps=True)
    part = next(squeezed(part) for part in sections(text) if part.startswith(("layer       head", "layer        head")))
    for fact in (
        "layer head.norm",
        "file resnet.pt",
        "also called neck.norm",
        "kind layer-l2 (a guess: one weight and one bias, and the name)",
        "might be instance-l2, group-l2: --kind says which",
        "channels 512 in 8 groups (assumed)",
        "n 512 elements share a statistic",
        "eps 1e-12 (from the model's configuration)",
        "stored in float32",
    ):
        assert says(part, fact), fact


def test_a_layer_is_shown_with_what_casting_does_to_its_parameters():
    text = squeezed(rendered(80, WITH_STEPS, with_steps=True))
    assert says(text, "cast to float16: 3 of 256 numbers beyond it (3 running variances), 1 of 64 gammas become 0,")
    assert says(text, "scale off by up to 0.0125 of itself, worst channel 9")
    assert text.count("castto") == 1


def test_a_layer_is_shown_step_by_step():
    text = rendered(80, WITH_STEPS, with_steps=True)
    assert f"steps of {UNSAFE[0]} batch-l2 fp16 wide eval" in text
    assert re.search(r"^square .*\b93\b", text, re.MULTILINE)
    assert "steps of" not in rendered(80, WITH_STEPS)
    assert "also called" not in rendered(80, WITH_STEPS)


def test_only_what_was_asked_for_is_shown_step_by_step():
    assert any(result.steps and not result.asked for result in MODEL.results)
    assert "steps of" not in rendered(80, with_steps=True)


# ------------------------------------------------------------------------------------------------ hostile names


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("width", [80, 200])
def test_hostile_names_neither_break_lines_nor_reach_the_terminal(width, name):
    text = rendered(width, with_layer(name), with_steps=True)
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    assert all(line.isprintable() for line in lines)
    if len(name) > 1 and name.strip():
        shown = name.replace("\n", "\\n") if "\n" in name else name
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
        assert squeezed(text).count(squeezed(shown)) >= 3  # in the table, in its findings, in its facts


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names_stay_text_in_colour(name):
    report = with_layer(name)
    assert uncolored(rendered(80, report, color=True)) == rendered(80, report)


def test_names_of_files_and_tensors_are_harmless_too():
    hostile = "f\n\x1b]0;x\x07.pt"
    report = dataclasses.replace(
        MODEL,
        settings={**MODEL.settings, "models": [hostile]},
        skipped=(Skipped(name=hostile, reason=f"{hostile} is no use"),),
        unreadable=(Skipped(name=hostile, reason="broken"),),
        layers=tuple(dataclasses.replace(layer, file=hostile, aliases=(hostile,)) for layer in MODEL.layers),
    )
    text = rendered(80, report, with_steps=True)
    assert all(line.isprintable() for line in text.splitlines())
    assert text.count("f\\n\\x1b]0;x\\x07.pt") >= 3


# ------------------------------------------------------------------------------------------------------- speed


def test_ten_thousand_layers_in_three_precisions_are_shown_within_ten_seconds():
    names = [f"model.layers.{index}.block.{index % 7}.norm{index % 2}" for index in range(10_000)]
    unsafe, tight = MODEL.results[0], in_training(TIGHT[0], "fp16")
    kinds = [unsafe if index % 50 == 0 else tight if index % 20 == 1 else of_layer(TIGHT[1]) for index in range(10_000)]
    results = tuple(
        dataclasses.replace(kind, layer=name, precision=precision)
        for precision in ("fp16", "bf16", "fp32")
        for kind, name in zip(kinds, names, strict=True)
    )
    findings = tuple(
        finding("NC301", "warning", name, f"error {index}", "use wide", precision=precision)
        for precision in ("fp16", "bf16", "fp32")
        for index, name in enumerate(names[::3])
    )
    layers = tuple(facts(name) for name in names)
    start = time.monotonic()
    text = rendered(80, dataclasses.replace(MODEL, results=results, findings=findings, layers=layers))
    assert time.monotonic() - start < 10
    assert len(text.splitlines()) < 200
    assert "of 10000 layers" in text
