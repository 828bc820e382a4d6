"""What stands under a model's table: the view not asked for, findings, advice, what was left out, the verdict."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hand_built import COLLAPSED
from hand_built_model import (
    ANY,
    BATCH,
    BLOCKS,
    CLEAN_MODEL,
    LOUDEST,
    MODEL,
    MODEL_FINDINGS,
    NO_NORMS,
    SNIPPET,
    TIGHT,
    facts,
    finding,
    in_training,
    of_layer,
)
from model_pages import rendered, says, section, sections, squeezed

from normcheck.results import Advice, Skipped

# ------------------------------------------------------------------------------------------------ not asked for


def test_the_view_not_asked_for_is_told_in_brief():
    part = section("if your runtime")
    assert says(part, "if your runtime computes norms in fp16 itself (pure): 7 of 14 layers unsafe, 6 ok;")
    assert says(part, "worst layer1.0.bn1 batch-l2 fp16 pure: 16 of 16 channels bad, the worst channel 7: collapsed at")
    assert says(part, "if your runtime computes norms in bf16 itself (pure): 13 of 14 layers degraded; worst stem.bn")
    assert says(part, "--implementation pure shows each layer, with 7 notes")


def test_the_worst_of_that_view_is_told_with_the_rules_that_fired_on_it_alone():
    fired = finding("NC301", "note", BATCH[0], "m", "f", precision="bf16", implementation="pure")
    part = section("if your runtime", dataclasses.replace(MODEL, findings=(*MODEL_FINDINGS, fired)))
    assert says(part, "worst stem.bn batch-l2 bf16 pure: NC301, headroom 9 bits at square")


def test_findings_of_that_view_are_told_there_alone():
    assert any(f.rule == "NC102" for f in MODEL_FINDINGS)
    assert "NC102" not in rendered(80)


def test_findings_that_are_about_both_views_are_told():
    both = finding("NC202", "note", BLOCKS[0], "eps is subnormal", "more eps", implementation=None, mode=None)
    assert says(
        section("error NC104", dataclasses.replace(MODEL, findings=(*MODEL_FINDINGS, both))), "eps is subnormal"
    )


def test_what_only_that_view_calls_for_is_a_line_there_and_no_advice():
    advice = Advice(title="keep", layers=BATCH, snippet="layers = []\n", evidence="tried: all is well", asked=False)
    report = dataclasses.replace(MODEL, advice=(advice,))
    assert says(section("if your runtime", report), "tried: all is well")
    assert "layers = []" not in rendered(80, report)


def test_without_such_a_view_nothing_is_said_of_it():
    assert "if your runtime" not in rendered(80, CLEAN_MODEL)


# ---------------------------------------------------------------------------------------------------- findings


def test_findings_are_one_paragraph_a_rule_and_fix_the_worst_first():
    heads = re.findall(r"^(?:error|warning|note) NC\d+$", rendered(80), re.MULTILINE)
    assert heads == ["error NC104", "warning NC103", "warning NC301", "note NC401", "note NC403"]
    assert rendered(80).count("  fix: ") == len(heads)


def test_few_messages_are_told_each_with_its_layer():
    part = section("error NC104")
    assert says(part, "layer3.0.bn2 batch-l2 fp16 eval at load: 2 of 64 running variances are beyond float16")
    assert says(part, "layer3.1.bn2 batch-l2 fp16 eval at load: 3 of 64 running variances are beyond float16")


def test_of_many_messages_the_worst_layers_is_told_and_all_layers_are_named():
    part = section("error NC104")
    assert says(part, f"4 of 14 layers (batch-l2 fp16 wide): {', '.join((*TIGHT, LOUDEST))}")
    assert says(part, f"worst {TIGHT[-1]} batch-l2 fp16 wide: relative rms error 0.0125 in {TIGHT[-1]}")
    assert not says(part, f"relative rms error 0.0125 in {TIGHT[0]}")


def test_equal_messages_are_told_once_with_the_first_layers_and_the_count_of_the_rest():
    part = section("error NC104")
    assert says(part, "13 of 14 layers (batch-l2): stem.bn, layer1.0.bn1")
    assert says(part, "and 4 more (all in --format json): eps is 1e-5 by default")
    assert part.count("eps is 1e-5 by default".replace(" ", "")) == 1


def test_findings_on_all_layers_need_no_names():
    everywhere = tuple(finding("NC401", "note", name, "eps is assumed", "give it", **ANY) for name in BATCH)
    part = section("note NC401", dataclasses.replace(CLEAN_MODEL, findings=everywhere))
    assert part == squeezed("note NC401 all 13 layers (batch-l2): eps is assumed fix: give it")


def test_names_of_a_finding_take_at_most_two_lines_or_so():
    names = [f"model.decoder.layers.{index}.input_layernorm" for index in range(500)]
    report = dataclasses.replace(
        CLEAN_MODEL,
        findings=tuple(finding("NC301", "warning", name, f"error {name}", "fix it") for name in names),
        results=tuple(of_layer(name) for name in names),
        layers=tuple(facts(name) for name in names),
    )
    for width in (80, 200):
        (part,) = [p for p in sections(rendered(width, report)) if p.startswith("warning NC301")]
        assert len(part.splitlines()) <= 6
    some = dataclasses.replace(report, findings=report.findings[:400])
    for width in (80, 200):
        (part,) = [p for p in sections(rendered(width, some)) if p.startswith("warning NC301")]
        assert len(part.splitlines()) <= 8
        assert says(squeezed(part), "more (all in --format json)")


def test_what_rests_on_an_assumption_says_so():
    part = section("error NC104")
    assert part.count(squeezed("(rests on an assumption)")) == 4
    assert not says(part.split("warning")[0], "assumption")


def test_findings_on_what_was_skipped_are_told_with_it():
    assert any(f.rule == "NC404" for f in MODEL_FINDINGS)
    assert "NC404" not in rendered(80)


# ------------------------------------------------------------------------------------------------------ advice


def test_advice_is_its_title_layers_evidence_and_text_to_paste():
    assert says(section("advice"), "advice keep 2 layers in float32 2 layers: layer3.0.bn2, layer3.1.bn2 tried: with")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_what_is_to_be_pasted_is_exact(width):
    assert f"\n\n{SNIPPET}\n" in rendered(width)
    compile(SNIPPET, "snippet", "exec")


def test_a_snippet_cannot_steer_the_terminal():
    hostile = Advice(title="t", layers=(), snippet="\nif x:\n\tpass  # \x1b[2J\n", evidence="")
    text = rendered(80, dataclasses.replace(MODEL, advice=(hostile,)))
    assert "\n\nif x:\n    pass  # \\x1b[2J\n\n" in text


def test_advice_without_text_or_layers_is_its_title():
    plain = Advice(title="buy more memory", layers=(), snippet="", evidence="")
    assert section("advice", dataclasses.replace(MODEL, advice=(plain,))) == "advicebuymorememory"


# ------------------------------------------------------------------------------- skipped, unreadable, the verdict


def test_what_was_skipped_for_one_reason_is_told_together():
    part = section("skipped")
    assert says(part, "skipped head.scale, head.shift: int8 is no number")
    assert says(part, "skipped plain.pt: no normalization layers among its 12 tensors")


def test_thousands_that_were_skipped_are_counted():
    many = tuple(Skipped(name=f"tensor.{index}", reason="quantised") for index in range(5000))
    part = section("skipped", dataclasses.replace(MODEL, skipped=many))
    assert len(part) < 250
    assert says(part, "more (all in --format json): quantised")


@pytest.mark.parametrize("reason", ["the archive ends early", "broken.pt: the archive ends early"])
def test_files_that_could_not_be_read_are_named_once(reason):
    broken = Skipped(name="broken.pt", reason=reason)
    part = section("unreadable", dataclasses.replace(MODEL, unreadable=(broken,)))
    assert part == squeezed("unreadable broken.pt: the archive ends early")


def test_what_no_overflow_is_worth_is_said_for_the_fewest_elements():
    assert says(section("where no overflow"), "131072 to 1048576 elements a layer were run")
    assert says(section("where no overflow"), "at most 2.29e-5 of a layer's elements (3/N)")
    same = section("where no overflow", CLEAN_MODEL)
    assert says(same, "was seen, 131072 elements a layer")


def test_where_all_overflowed_nothing_is_said_of_no_overflow():
    results = (dataclasses.replace(COLLAPSED, layer=BATCH[0]),)
    assert "no overflow" not in rendered(80, dataclasses.replace(CLEAN_MODEL, results=results))


def test_the_last_line_counts_layers_and_names_the_worst_and_the_remedy():
    assert squeezed(sections(rendered(80))[-1]) == squeezed(
        "unsafe in 2 of 14 layers, degraded in 3, ok in 9; worst layer3.1.bn2 batch-l2 fp16 wide eval: 3 of 64 "
        "channels bad, the worst channel 9: collapsed at load; keep 2 layers in float32"
    )


def test_the_last_line_of_a_degraded_model_names_the_rules_and_a_fix():
    results = tuple(in_training(name, "fp16") for name in BATCH)
    report = dataclasses.replace(MODEL, results=results, advice=(), layers=CLEAN_MODEL.layers)
    assert squeezed(sections(rendered(80, report))[-1]) == squeezed(
        "degraded in 3 of 13 layers, ok in 10; worst layer3.1.bn1 batch-l2 fp16 wide: NC103 at store, NC301, headroom "
        "0.25 bits at store; scale the input down"
    )


def test_the_last_line_of_a_clean_model_asks_for_nothing_even_where_there_are_notes():
    notes = tuple(finding("NC401", "note", name, "eps is assumed", "give it", **ANY) for name in BATCH)
    for findings in ((), notes):
        report = dataclasses.replace(CLEAN_MODEL, findings=findings)
        assert squeezed(sections(rendered(80, report))[-1]) == squeezed(
            "ok in all 13 layers; worst stem.bn batch-l2 fp16 wide: headroom 9 bits at square; nothing to change"
        )


def test_without_layers_nothing_was_analysed():
    text = rendered(80, NO_NORMS)
    assert text.startswith("analyze resnet.pt, plain.pt\n")
    assert text.endswith("nothing was analysed: no normalization layers were found\n")
    assert "no normalization layers among its 12 tensors" in text
