"""``normcheck norms --cost``."""

from __future__ import annotations

import dataclasses
import json

import pytest

from normcheck.norms.cost import Cost
from normcheck.norms.table import NORMS

SMALL = ("--shape", "4,32,5,7")


def strictly(text):
    def fail(token):
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=fail)


@pytest.mark.parametrize("width", ["60", "80", "200"])
@pytest.mark.parametrize("more", [[], ["--precision", "fp16,bf16,fp8_e4m3fn", "--backward"]])
def test_the_table_has_every_norm_and_keeps_to_the_width(normcheck, monkeypatch, more, width):
    monkeypatch.setenv("COLUMNS", width)
    outcome = normcheck("norms", "--cost", *SMALL, *more)
    assert (outcome.code, outcome.err) == (0, "")
    assert max(map(len, outcome.out.splitlines())) <= int(width)
    words = outcome.out.replace(",", " ").split()
    runs = 6 if more else 1
    assert [name for name in NORMS if words.count(name) < runs] == []


@pytest.mark.parametrize(
    ("width", "heads"), [("80", ["name", "pJ/element", "operations"]), ("200", ["name", "passes"])]
)
def test_the_table_is_a_table(normcheck, monkeypatch, width, heads):
    monkeypatch.setenv("COLUMNS", width)
    assert normcheck("norms", "--cost", *SMALL).out.split()[: len(heads)] == heads


def test_a_name_shows_every_step_within_80_columns(normcheck):
    text = normcheck("norms", "batch-l1", "--cost", "--backward", *SMALL).out
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("name         batch-l1") == 2
    for step in ("sum-mean", "center", "absolute", "reciprocal", "grad-sum-sign", "grad-weight"):
        assert f"\n{step} " in text
    assert "add: 4.44 an element and 1 a row, 19936 in all" in text  # 4 + 2 * 31 / 140; 32 * (4 * 140 + 62 + 1)
    assert "without divide, absolute, convert, for which none" in " ".join(text.split())


def test_formats_without_an_energy_say_so(normcheck):
    text = " ".join(
        normcheck("norms", "batch-l1", "--cost", "--precision", "bf16", "--implementation", "pure").out.split()
    )
    assert "none is published for a format of its additions or multiplications" in text
    (found,) = strictly(normcheck("norms", "rms", "--cost", "--precision", "e5m7", "--implementation", "pure",
                                  "--format", "json").out)  # fmt: skip
    assert found["energy"]["picojoules"] is None
    assert found["precision"] == "e5m7"


def test_json_has_all_facts_of_every_run_in_order(normcheck):
    found = strictly(normcheck("norms", "--cost", "--precision", "fp16,fp32", "--implementation", "pure,wide",
                               "--backward", "--format", "json", *SMALL).out)  # fmt: skip
    runs = [(f["norm"], f["precision"], f["implementation"], f["direction"]) for f in found]
    assert runs == [
        (name, precision, how, direction)
        for name in NORMS
        for precision in ("fp16", "fp32")
        for how in ("pure", "wide")
        for direction in ("forward", "backward")
    ]
    assert list(found[0]) == [f.name for f in dataclasses.fields(Cost)]
    by_run = dict(zip(runs, found, strict=True))
    l2, l1 = (by_run[name, "fp16", "pure", "forward"] for name in ("batch-l2", "batch-l1"))
    assert l1["energy"]["picojoules"] < l2["energy"]["picojoules"]
    assert "root" in l2["operations"]
    assert "root" not in l1["operations"]


def test_options_reach_the_count(normcheck):
    def facts(*arguments):
        (found,) = strictly(normcheck("norms", *arguments, "--cost", "--format", "json").out)
        return found

    assert (facts("batch-l2")["groups"], facts("batch-l2")["size"]) == (64, 32 * 28 * 28)
    assert facts("group", "--shape", "2,12,5", "--num-groups", "4")["groups"] == 8
    one, ten = (facts("batch-topk", *more)["operations"]["compare"]["total"] for more in (["--k", "1"], []))
    assert one < ten
    assert facts("rms")["implementation"] == "pure"
    assert facts("rms", "--precision", "bf16")["implementation"] == "wide"


@pytest.mark.parametrize(
    "more", [["--precision", "fp32"], ["--implementation", "pure"], ["--shape", "3,4"], ["--k", "3"],
             ["--num-groups", "2"], ["--backward"]],
)  # fmt: skip
def test_options_of_the_cost_without_it_are_refused(normcheck, more):
    outcome = normcheck("norms", "batch-l1", *more)
    assert outcome.code == 2
    assert (
        outcome.err == f"normcheck: error: {more[0]} says of which run to count the cost: add --cost, or leave it out\n"
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shape", "3"], "at least two dimensions"),
        (["--shape", "3,x"], "--shape '3,x': write whole numbers"),
        (["--precision", "fp17"], "fp17"),
        (["--implementation", "no"], "unknown implementation"),
        (["--k", "0"], "k must be at least 1"),
        (["--num-groups", "7", "--shape", "2,12,5"], "divisor of 12"),
    ],
)
def test_what_cannot_be_is_one_line(normcheck, more, said):
    outcome = normcheck("norms", "--cost", *more)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
