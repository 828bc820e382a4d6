"""`normcheck implementations`: the list and its filters, the page of a row in words, and that of an alias."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from normcheck.norms import evidence as module
from normcheck.norms.catalogue import aliases, catalogue, notes
from normcheck.norms.evidence import Evidence, Run, digest


def names(normcheck, *options):
    entries = json.loads(normcheck("implementations", *options, "--format", "json").out)
    return [entry["name"] for entry in entries if entry["kind"] == "implementation"]


@pytest.mark.parametrize("width", ["80", "200"])
def test_the_list_keeps_to_the_width_and_ends_with_aliases_and_notes(normcheck, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    text = normcheck("implementations").out
    assert max(map(len, text.splitlines())) <= int(width)
    words = text.split()
    assert {row.name for row in catalogue().values()} <= set(words)
    assert words.index("pure") < words.index("torch-cpu-layernorm-fp16") < words.index("torch-compile")
    assert words.index("torch-compile") < words.index("torch-cpu-autocast")


def test_rows_of_one_project(normcheck):
    wanted = [name for name, row in catalogue().items() if row.project == "apex"]
    assert names(normcheck, "--project", "APEX") == wanted
    text = normcheck("implementations", "--project", "apex").out
    assert "apex-fused-layernorm" in text
    assert "torch" not in text.split()


def test_rows_of_one_status_norm_and_precision(normcheck):
    rows = catalogue().items()
    known = [name for name, row in rows if row.status == "from source"]
    assert names(normcheck, "--status", "from-source") == names(normcheck, "--status", "from source") == known
    assert names(normcheck, "--status", "reported") == [name for name, row in rows if row.status == "reported"]
    rms = [name for name, row in rows if not row.norms or "rms" in row.norms]
    assert names(normcheck, "--norm", "rmsnorm") == rms
    assert names(normcheck, "--precision", "float16") == [
        name for name, row in rows if not row.precisions or "fp16" in row.precisions
    ]
    both = names(normcheck, "--norm", "rms", "--project", "PyTorch")
    assert both == [name for name, row in rows if row.project == "PyTorch" and "rms" in row.norms]
    assert len(both) > 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--project", "appex"], "unknown project 'appex': did you mean apex"),
        (["--project", "torch"], "unknown project 'torch': did you mean PyTorch, ExecuTorch?"),
        (["--status", "sure"], "unknown status 'sure'"),
        (["none.toml"], "none.toml: cannot be read as a TOML file of implementations"),
        (["--norm", "layr"], "unknown norm 'layr'"),
        (["--precision", "fp17"], "unknown format 'fp17'"),
        (["--project", "apex", "--norm", "batch-l2"], "no implementation is of all of these: leave a filter out"),
        (["pure", "--project", "apex"], "--project narrows the list: leave it or 'pure' out"),
        (["purr"], "unknown implementation 'purr': did you mean pure"),
    ],
)
def test_what_cannot_be_listed_is_one_line(normcheck, options, message):
    outcome = normcheck("implementations", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_json_has_everything_of_rows_aliases_and_notes(normcheck):
    entries = json.loads(normcheck("implementations", "--format", "json").out)
    by_name = {entry["name"]: entry for entry in entries}
    assert list(by_name) == [
        *catalogue(), *(alias.name for alias in aliases()), *(note.name for note in notes()),
    ]  # fmt: skip
    row = by_name["torch-cpu-layernorm-fp16"]
    assert (row["order"], row["recurrence"], row["contracted"]) == (
        "rowwise(simd, 2)", "aten-cpu-half-tail", ["normalize", "bias"],
    )  # fmt: skip
    assert row["words"][-1] == "The result is rounded to float16."
    assert "layer_norm_kernel.cpp" in row["citation"]
    assert by_name["torch-cpu"]["rows"][0] == "torch-cpu-layernorm-fp32"
    assert by_name["torch-cpu"]["also"] == ["torch"]
    assert by_name["torch-cuda-syncbn"]["reason"].startswith("its moments come from several processes")


@pytest.mark.parametrize("width", ["80", "200"])
def test_the_page_of_a_row_says_what_happens_in_order(normcheck, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    text = normcheck("implementations", "ort-cuda-skiplayernorm-fp16").out
    assert max(map(len, text.splitlines())) <= int(width)
    flat = " ".join(text.split())
    order = [
        "status from source",
        "citation onnxruntime onnxruntime/contrib_ops/cuda/bert/skip_layer_norm_impl.cu",
        "approximation how many elements",
        "What it is chosen for",
        "precisions fp16",
        "What happens, in order",
        "1. A residual, where there is one, is added to x in float16.",
        "it may come out negative.",
        "10. The result is rounded to float16.",
        "What its names mean",
        "(cub::BlockReduce)",
        "Fields",
        "division prescale-operand",
    ]
    places = [flat.index(part) for part in order]
    assert places == sorted(places)


def test_the_page_of_a_verified_row_has_the_evidence(normcheck, monkeypatch):
    run = Run(norm="rms", precision="fp16", outputs=20_000_000, identical=19_999_999, largest_ulp=1)
    found = Evidence(date="2026-11-23", host="x86_64, AVX2", versions={"transformers": "5.0"}, runs=(run,))
    found = replace(found, digest=digest(catalogue()["hf-llama-rmsnorm"]))
    monkeypatch.setattr(module, "evidence", lambda: {"hf-llama-rmsnorm": found})
    text = " ".join(normcheck("implementations", "hf-llama-rmsnorm").out.split())
    assert "evidence 19,999,999 of 20,000,000 outputs identical (99.999995%), the largest difference 1 ulp" in text
    assert "transformers 5.0; x86_64, AVX2; 2026-11-23" in text
    entry = json.loads(normcheck("implementations", "hf-llama-rmsnorm", "--format", "json").out)
    assert entry["evidence"]["runs"][0]["identical"] == 19_999_999
    monkeypatch.setattr(module, "evidence", lambda: {"hf-llama-rmsnorm": replace(found, digest="of another row")})
    assert json.loads(normcheck("implementations", "hf-llama-rmsnorm", "--format", "json").out)["evidence"] is None


def test_a_file_shows_each_of_its_rows_in_words(normcheck, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[implementation]]\nname = "mine"\nbase = "wide"\nsum = "float64"\nnorms = ["rms"]\n'
        '[[implementation]]\nname = "other"\nbase = "mine"\nstore = "float64"\n'
    )
    text = normcheck("implementations", str(path)).out
    assert text.startswith("name     mine\n")
    assert text.index("are added in float64") < text.index("name     other") < text.index("is rounded to float64.")
    assert names(normcheck, str(path)) == ["mine", "other"]


@pytest.mark.parametrize("width", ["80", "200"])
def test_the_page_of_an_alias_shows_its_rows_in_order(normcheck, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    text = normcheck("implementations", "torch").out
    assert max(map(len, text.splitlines())) <= int(width)
    (alias,) = [alias for alias in aliases() if alias.name == "torch-cpu"]
    places = [text.index(row.name + ("\n" if width == "80" else " ")) for row in alias.rows]
    assert places == sorted(places)
    assert text.startswith("name   torch-cpu\n")
    assert "The first of these that defines" in text


def test_where_a_row_of_an_alias_is_for_is_said(normcheck):
    text = " ".join(normcheck("implementations", "torch-cuda").out.split())
    assert "n a multiple of 4" in text
    text = " ".join(normcheck("implementations", "torch-cpu-groupnorm-channels-last").out.split())
    assert "spatial size below 1024" in text
    assert "spatial size from 1024" in text
