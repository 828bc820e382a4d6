"""The files of the corpus: what they say, how inputs are made of them, and what is refused."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from normcheck.analysis.corpus.inputs import made
from normcheck.analysis.corpus.listing import described
from normcheck.analysis.corpus.records import Expected, Recipe, read_record, records, records_named
from normcheck.analysis.corpus.replay import FAILURE_RULES
from normcheck.analysis.rules import RULES
from normcheck.errors import UsageError

FOLDER = Path(__file__).resolve().parents[2] / "data" / "failures"
RECORDS = records()
FAILURES = [record.id for record in RECORDS.values() if not record.control]
CONTROLS = [record.id for record in RECORDS.values() if record.control]


def test_the_files_hold_the_cases_by_number():
    assert {path.stem for path in FOLDER.iterdir()} == set(RECORDS)
    assert list(RECORDS) == sorted(FAILURES, key=lambda k: int(k[1:])) + sorted(CONTROLS, key=lambda k: int(k[1:]))


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_says_where_it_was_published(name):
    record = RECORDS[name]
    assert record.links
    assert all(re.match(r"https://|docs/", link) for link in record.links)
    assert len(record.story) > 60
    assert len(record.where) > 10


def test_the_rules_of_failures_are_those_that_the_cases_predict():
    predicted = {rule for record in RECORDS.values() for each in record.inputs for rule in each.rules}
    assert predicted <= set(FAILURE_RULES) <= {rule.code for rule in RULES}


def test_inputs_are_the_same_every_time_and_of_the_recipe():
    sequence = made(Recipe(start=100.0, step=1e-3), (2, 16))
    assert sequence.tolist() == np.tile((100.0 + 1e-3 * np.arange(16)).astype(np.float32), (2, 1)).tolist()
    assert made(Recipe(values=(1.0, 2.0)), (2, 2)).tolist() == [[1.0, 2.0], [1.0, 2.0]]
    spiked = made(Recipe(constant=1.0, outlier_every=4, outlier=9.0), (2, 4))
    assert spiked.tolist() == [[9.0, 1.0, 1.0, 1.0]] * 2
    drawn = Recipe(distribution="gaussian", mean=5.0, std=2.0, seed=3)
    x = made(drawn, (4, 4096))
    assert np.array_equal(x, made(drawn, (4, 4096)))
    assert x.mean() == pytest.approx(5.0, abs=0.1)
    assert x.std() == pytest.approx(2.0, rel=0.05)


def test_a_case_is_found_by_its_id_in_any_case_and_by_its_signature():
    assert [record.id for record in records_named(["k5", "K1", "K5"])] == ["K5", "K1"]
    found = records_named([], "IO-INF")
    assert [record.id for record in found] == ["K37", "K38", "K40", "K41", "K44", "K45"]
    with pytest.raises(UsageError, match=r"unknown case 'K2': did you mean"):
        records_named(["K2"])


GOOD = (FOLDER / "K1.toml").read_text(encoding="utf-8")
BROKEN = {
    "no TOML": ("id =", "not a case of the corpus"),
    "another name": (GOOD.replace('"K1"', '"K9"'), "its id is K9"),
    "an unknown field": (GOOD.replace("story", "tale"), "'tale' is no field"),
    "a field of inputs that there is none of": (GOOD.replace("shape", "form"), "'form' is no field"),
    "no inputs": (GOOD.partition("[[input]]")[0], "no \\[\\[input\\]\\]"),
    "two recipes": (GOOD.replace("constant = 1234.0", "constant = 1.0, step = 1.0"), "give one of constant"),
    "another signature": (GOOD.replace("NEG->NaN", "NEG"), "Invalid enum value 'NEG'"),
    "rules without a signature": (GOOD.replace('signature = "NEG->NaN"', ""), "signature and rules"),
    "nothing that failed": (GOOD.replace('failed = "ort', 'words = "ort'), "name the implementation that failed"),
    "nothing that is right": (GOOD.replace('["ort-cpu-layernorm", "wide"]', "[]"), "at least one implementation"),
    "reconstructed, and not how": (GOOD.replace('"published"', '"reconstructed"'), "reconstruction says"),
    "published nowhere": (re.sub(r"links = .*", "", GOOD), "say where it was published"),
    "a control that fails": (f"control = true\n{GOOD}", "a control C and a number"),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_is_refused_with_the_reason(tmp_path, text, said):
    path = tmp_path / "K1.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said) as error:
        read_record(path)
    assert str(path) in str(error.value)
    path.write_text(GOOD, encoding="utf-8")
    assert read_record(path) == RECORDS["K1"]


def test_the_fields_of_a_file_are_those_that_are_described():
    for kind in (Recipe, Expected):
        assert all(re.search(rf"\b{field.name}\b", kind.__doc__) for field in fields(kind))
    assert tomllib.loads(GOOD)["setup"]["norm"] == "layer-l2"


def test_an_input_is_described_by_its_recipe_and_its_own_words():
    assert described(RECORDS["K1"].inputs[0]) == "all 1234"
    assert described(RECORDS["K5"].inputs[0]) == "100 + 0.001 i"
    assert described(RECORDS["K14"].inputs[2]).startswith("one element of 8000 in each row: ")
    assert described(RECORDS["K4"].inputs[0]) == "16 given values from 1448.87 to 1450.65"
    assert described(RECORDS["K27"].inputs[0]) == "gaussian, mean 0, std 1, one in 768 796"
