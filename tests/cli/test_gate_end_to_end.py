"""The whole gate on real models: one command writes every output, each is valid, and all say the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from markdown_it import MarkdownIt
from report_readers import (
    COUNTERS,
    counts_in_github,
    counts_in_json,
    html_page,
    junit_cases,
    markdown_table,
    strict,
    validated,
)
from safetensors.torch import save_file

from normcheck.cli.deliver import ReportFormat
from normcheck.render.json_report import from_json, render

ROOT = Path(__file__).resolve().parents[2]
BROKEN, SAFE = str(ROOT / "data" / "breast-cancer-mlp.pt"), str(ROOT / "data" / "digits-cnn.pt")
(SARIF_SCHEMA,) = (ROOT / "tests" / "render" / "schemas").glob("sarif-2.1.0*.json")
FILES = ("json", "sarif", "junit", "html", "markdown")
LIMIT = 1 << 20


class Written(NamedTuple):
    """What a command line wrote: its exit code, the texts by their options, and what it printed."""

    code: int
    text: dict[str, str]
    out: str


@pytest.fixture
def written(normcheck, tmp_path):
    """Return a function that runs a command with every output to a file of its own."""

    def run(*arguments):
        paths = {name: tmp_path / f"report.{name}" for name in FILES}
        options = [part for name, path in paths.items() for part in (f"--{name}", path)]
        outcome = normcheck(*arguments, *options)
        return Written(outcome.code, {name: path.read_text("utf-8") for name, path in paths.items()}, outcome.out)

    return run


def check_all(result, schema):
    """Check that each output is valid for its readers and that all count the same; return the counts."""
    text = result.text
    report = validated(strict(text["json"]), schema)
    assert strict(render(from_json(text["json"]))) == report
    validated(strict(text["sarif"]), json.loads(SARIF_SCHEMA.read_text("utf-8")))
    cases = junit_cases(text["junit"])
    assert any(case.is_failure for case in cases.values()) == (result.code == 1)
    assert len(text["markdown"].encode()) < LIMIT
    assert text["html"].startswith("<!DOCTYPE html>")
    assert ("failed" in text["markdown"].splitlines()[0]) == (result.code != 0)
    counts = {name: counter(text[name]) for name, counter in COUNTERS.items()}
    assert len(set(counts.values())) == 1, counts
    check_sizes(text, report["summary"])
    return counts["json"]


def check_sizes(text, summary):
    """Check that layers, results and what was left out are the same numbers wherever they are told."""
    table = markdown_table(text["markdown"])
    items = dict(reversed(item.split(" ", 1)) for item in html_page(text["html"]).counts)
    told = {name: int(number) for name, number in items.items()}
    assert table["results"] == told.get("results", told.get("result")) == summary["results"]
    assert table["layers"] == told.get("layers", told.get("layer", 0)) == summary["layers"]
    assert table.get("deselected", 0) == told.get("deselected", 0) == summary["ignored"]
    assert table.get("known already", 0) == told.get("known already", 0) == summary["known"]
    (run,) = strict(text["sarif"])["runs"]
    assert run["properties"]["summary"] == summary


@pytest.fixture
def schema(normcheck):
    return strict(normcheck("schema").out)


def rules_in_table(text):
    return set(re.findall(r"^(error|warning) (NC\d+)", text, re.MULTILINE))


# --------------------------------------------------------------------------------------------- real models

BASE = ("--precision", "fp16", "--mode", "eval")
RUNS = {
    "broken": (("analyze", BROKEN, *BASE), 1),
    "safe": (("analyze", SAFE), 0),
    "several": (("analyze", SAFE, BROKEN, ROOT / "data" / "digits-transformer"), 1),
    "deselected": (("analyze", BROKEN, *BASE, "--ignore", "NC1"), 0),
    "levels": (("analyze", BROKEN, *BASE, "--severity", "NC301=error", "--select", "NC3"), 1),
    "warnings fail": (("analyze", BROKEN, *BASE, "--ignore", "NC1", "--fail-on", "warning"), 1),
    "nothing fails": (("analyze", BROKEN, *BASE, "--fail-on", "never"), 0),
    "simulated": (("simulate", "--norm", "batch-l2,batch-l1", "--shape", "8,16,8,8", "--std", "100"), 1),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_output_is_valid_and_all_agree(written, schema, name):
    arguments, code = RUNS[name]
    result = written(*arguments)
    assert result.code == code
    counts = check_all(result, schema)
    told = {(f["severity"], f["rule"]) for f in strict(result.text["json"])["findings"] if f["severity"] != "note"}
    assert rules_in_table(result.out) == told
    assert (counts.error > 0) == ("\nerror NC" in result.out)


@pytest.mark.parametrize("name", ["broken", "safe", "simulated"])
def test_what_goes_to_stdout_is_what_goes_to_files(normcheck, written, name):
    arguments, code = RUNS[name]
    text = written(*arguments).text
    for option in ("sarif", "junit", "html", "markdown"):
        outcome = normcheck(*arguments, f"--{option}", "-")
        assert (outcome.code, outcome.out) == (code, text[option])
    assert normcheck(*arguments, "--format", "markdown").out == text["markdown"]
    assert json.loads(normcheck(*arguments, "--json", "-").out)["findings"] == json.loads(text["json"])["findings"]


@pytest.mark.parametrize("name", ["broken", "safe", "simulated"])
def test_annotations_and_lines_of_json_count_the_same(normcheck, written, name):
    arguments, code = RUNS[name]
    counts = counts_in_json(written(*arguments).text["json"])
    outcome = normcheck(*arguments, "--format", "github")
    assert (outcome.code, counts_in_github(outcome.out)) == (code, counts)
    outcome = normcheck(*arguments, "--format", "jsonl")
    found = [line["severity"] for line in map(strict, outcome.out.splitlines()) if line["type"] == "finding"]
    assert (outcome.code, tuple(map(found.count, counts._fields))) == (code, counts)


def test_a_process_of_its_own_does_the_same(written, tmp_path):
    arguments, code = RUNS["broken"]
    here = written(*arguments)
    paths = {name: tmp_path / f"process.{name}" for name in FILES}
    options = [str(part) for name, path in paths.items() for part in (f"--{name}", path)]
    done = subprocess.run(
        [sys.executable, "-m", "normcheck", *arguments, *options],
        capture_output=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == code
    assert done.stdout.decode() == here.out
    for name in ("sarif", "junit", "markdown"):
        assert paths[name].read_text("utf-8") == here.text[name]


def test_each_layer_of_the_model_is_in_each_output(written):
    result = written("analyze", SAFE, "--fail-on", "note")
    names = [layer["name"] for layer in strict(result.text["json"])["layers"]]
    assert names == ["features.0.bn", "features.1.bn", "features.2.bn"]
    for name, text in {**result.text, "table": result.out}.items():
        assert [layer for layer in names if layer not in text] == [], name
    (run,) = strict(result.text["sarif"])["runs"]
    places = {
        place["name"] for found in run["results"] for each in found["locations"] for place in each["logicalLocations"]
    }
    assert places == set(names)


def test_a_file_that_cannot_be_read_is_told_everywhere_beside_those_that_can(written, schema, tmp_path):
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"\0\1\2")
    result = written("analyze", SAFE, damaged)
    assert result.code == 2
    check_all(result, schema)
    for name, text in {**result.text, "table": result.out}.items():
        assert "damaged.pt" in text, name
        assert "features.0.bn" in text, name
    assert [case.is_error for case in junit_cases(result.text["junit"]).values()].count(True) == 1
    (run,) = strict(result.text["sarif"])["runs"]
    assert [invocation["executionSuccessful"] for invocation in run["invocations"]] == [False]


@pytest.mark.parametrize("form", [form.value for form in ReportFormat])
def test_files_none_of_which_can_be_read_have_a_report_too(normcheck, tmp_path, form):
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"\0\1\2")
    files = {output: tmp_path / output for output in FILES}
    outcome = normcheck("analyze", bad, "--format", form, *(f"--{name}={path}" for name, path in files.items()))
    assert outcome.code == 2
    assert outcome.err.startswith(f"normcheck: error: {bad}: ")
    assert outcome.err.count("\n") == 1
    assert (outcome.out == "") == (form == "table")
    assert form == "table" or "bad.pt" in outcome.out
    assert [name for name, path in files.items() if "bad.pt" not in path.read_text(encoding="utf-8")] == []
    report = from_json(files["json"].read_bytes())
    assert [item.name for item in report.unreadable] == [str(bad)]


def test_an_empty_path_is_wrong_usage(normcheck, tmp_path):
    outcome = normcheck("analyze", "", "--json", tmp_path / "report.json")
    assert (outcome.code, outcome.out) == (2, "")
    assert "the path of a model is empty" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_that_nothing_was_analysed_is_told_everywhere(written, schema, tmp_path):
    torch.save({"linear.weight": torch.zeros(3, 3)}, tmp_path / "bare.pt")
    result = written("analyze", tmp_path / "bare.pt")
    assert result.code == 3
    assert sum(check_all(result, schema)) == 0
    for name in ("markdown", "html"):
        assert "nothing was analysed" in result.text[name].lower()
    assert "nothing was analysed" in result.out
    assert not junit_cases(result.text["junit"])


# ------------------------------------------------------------------------------------------------- baselines


@pytest.fixture
def old(normcheck, tmp_path):
    """The report of a run in which the model was safe, and of one in which it was broken."""
    paths = {"autocast": tmp_path / "autocast.json", "half": tmp_path / "half.json"}
    for params, path in paths.items():
        assert normcheck("analyze", BROKEN, *BASE, "--params", params, "--json", path, "--fail-on", "never").code == 0
    return paths


def test_a_baseline_with_the_same_findings_leaves_none(written, schema, old):
    result = written("analyze", BROKEN, *BASE, "--baseline", old["half"])
    assert result.code == 0
    assert sum(check_all(result, schema)) == 0
    summary = strict(result.text["json"])["summary"]
    assert summary["known"] == sum(counts_in_json(old["half"].read_text("utf-8"))) > 0
    assert markdown_table(result.text["markdown"])["known already"] == summary["known"]


def test_a_baseline_without_them_leaves_what_is_new(written, schema, old):
    result = written("analyze", BROKEN, *BASE, "--baseline", old["autocast"])
    assert result.code == 1
    assert check_all(result, schema).error == 2
    assert all(strict(result.text["json"])["comparison"]["regressions"])
    (run,) = strict(result.text["sarif"])["runs"]
    assert {found["baselineState"] for found in run["results"] if found["level"] == "error"} == {"new"}


@pytest.mark.parametrize(
    ("before", "after", "code"), [("autocast", "half", 1), ("half", "autocast", 0), ("half", "half", 0)]
)
def test_a_diff_is_valid_everywhere_and_counts_the_same(written, normcheck, schema, old, before, after, code):
    result = written("diff", old[before], old[after])
    assert result.code == code
    counts = check_all(result, schema)
    assert (counts.error > 0) == (code == 1)
    assert counts_in_github(normcheck("diff", old[before], old[after], "--format", "github").out) == counts


# --------------------------------------------------------------------------------- figures that are not finite

SMALL = ("simulate", "--shape", "8,16,8,8")
EXTREME = {
    "infinite input": (*SMALL, "--std", "1e30", "--precision", "fp16,bf16,fp32", "--implementation", "pure,wide"),
    "infinite in bfloat16": (*SMALL, "--std", "3e38", "--precision", "bf16", "--norm", "layer-l2,rms"),
    "no variance": (*SMALL, "--dist", "constant", "--std", "0", "--eps", "0", "--implementation", "pure"),
    "no eps": ("analyze", BROKEN, "--eps", "0", "--implementation", "pure,wide", "--std", "1e30"),
}


@pytest.mark.parametrize("name", EXTREME)
def test_figures_that_are_not_finite_break_no_output(normcheck, written, schema, name):
    result = written(*EXTREME[name])
    check_all(result, schema)
    assert re.search(r'"(-?inf|nan)"', result.text["json"])
    for line in normcheck(*EXTREME[name], "--format", "jsonl").out.splitlines():
        strict(line)


def test_reports_with_such_figures_can_be_compared(normcheck, written, schema, tmp_path):
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, std in zip(paths, ("1", "1e30"), strict=True):
        assert normcheck(*SMALL, "--std", std, "--json", path, "--fail-on", "never").code == 0
    for order in (paths, paths[::-1], [paths[1], paths[1]]):
        check_all(written("diff", *order), schema)


# ------------------------------------------------------------------------------------- names that mean harm

HARMFUL = [
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "&lt;b&gt; &amp; ]]> <![CDATA[ <!-- <?xml",
    "{{ 7 * 7 }}{% raw %} {0} %s %0A::error::pwned",
    "a\n::error file=x::pwned\n::set-output name=a::b",
    "b\r\n##[error]pwned ::stop-commands::x",
    "| c | `code` *d* [e](javascript:alert) ![f](x)\n\n# g\n- h\n<br>",
    "\x1b[31mred\x1b]0;title\x07 \x00 \x08 \x7f \x9b",
    "\u202eesrever\u2066 \u200f \ufeff \u2028 \u2029",
    "\u4f60\u597d \U0001f600 e\u0301",
    "long" * 120,
]


def checkpoint(path, names):
    """Write a model with a batch norm under each name, whose running variances are beyond float16."""
    parts = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1e6}
    state = {f"{name}.{part}": torch.full((8,), value) for name in names for part, value in parts.items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.fixture(params=[".pt", ".safetensors"])
def harmful(request, tmp_path):
    """A checkpoint of layers with harmful names, in a harmful place; and one with harmless ones."""
    folder = tmp_path / "x<"
    folder.mkdir()
    bad = checkpoint(folder / f"script><script>alert(1)&a=%0A::error::[b](c),title=d\u202e{request.param}", HARMFUL)
    return bad, checkpoint(tmp_path / f"good{request.param}", [f"layer.{place:02}" for place in range(len(HARMFUL))])


def controls(text):
    """Return the characters that steer: control characters but line feeds, and marks of direction."""
    return {character for character in text if not character.isprintable() and character != "\n"}


def test_harmful_names_are_only_names(written, schema, harmful):
    bad, good = (written("analyze", path, *BASE) for path in harmful)
    assert bad.code == good.code == 1
    assert check_all(bad, schema) == check_all(good, schema)
    names = {layer["name"] for layer in strict(bad.text["json"])["layers"]}
    assert names == {name.replace("/", ".") for name in HARMFUL}
    assert controls("".join(text for name, text in bad.text.items() if name != "json") + bad.out) == set()
    assert controls("".join(strings(strict(bad.text["sarif"])["runs"][0]["results"]))) == set()


def strings(data):
    """Yield all strings in plain data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for item in data.values() if isinstance(data, dict) else data:
            yield from strings(item)


def test_harmful_names_make_no_elements_of_a_page(written, harmful):
    bad, good = (html_page(written("analyze", path, *BASE).text["html"]).elements for path in harmful)
    assert set(bad) == set(good)
    assert bad["script", ()] == good["script", ()] == 1


def test_harmful_names_make_no_markdown(written, harmful):
    tokens = {token for path in harmful for token in markdown_of(written("analyze", path, *BASE).text["markdown"])}
    assert ("html_inline", "<br>") in tokens
    assert {content for kind, content in tokens if kind.startswith("html")} == {"<br>"}
    assert not {"link_open", "image", "html_block", "em_open"} & {kind for kind, _ in tokens}


def markdown_of(text):
    """Return the kinds of tokens in a text, and what those of HTML hold."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    every = [inner for token in tokens for inner in (token, *(token.children or ()))]
    return {(token.type, token.content if token.type.startswith("html") else "") for token in every}


def test_harmful_names_make_no_workflow_commands(normcheck, harmful):
    bad, good = (normcheck("analyze", path, *BASE, "--format", "github").out for path in harmful)
    kinds = [[line.partition(" ")[0] for line in text.splitlines()] for text in (bad, good)]
    assert kinds[0] == kinds[1]
    assert "##[" not in bad
    assert controls(bad) == set()
    properties = [properties_of(line) for line in bad.splitlines()[:-1]]
    assert all(set(each) == {"title", "file"} for each in properties)
    assert {each["file"] for each in properties} == {str(harmful[0]).replace("\u202e", "\\u202e")}


def properties_of(line):
    """Return the properties of a workflow command as the runner reads them."""
    pairs = (part.partition("=") for part in line.partition(" ")[2].partition("::")[0].split(","))
    escapes = {"%2C": ",", "%3A": ":", "%0A": "\n", "%0D": "\r", "%25": "%"}
    return {name: re.sub("|".join(escapes), lambda match: escapes[match[0]], value) for name, _, value in pairs}


def test_harmful_names_are_whole_test_names(written, harmful):
    bad, good = (junit_cases(written("analyze", path, *BASE).text["junit"]) for path in harmful)
    assert len(bad) == len(good)
    assert any(name.startswith("<img src=x onerror=alert(1)> fp16") for _, name in bad)


def test_harmful_names_go_through_baselines_and_diffs(normcheck, written, schema, harmful, tmp_path):
    path, _ = harmful
    old = tmp_path / "old<b>::error::%0A.json"
    assert normcheck("analyze", path, *BASE, "--params", "autocast", "--json", old, "--fail-on", "never").code == 0
    against = written("analyze", path, *BASE, "--baseline", old)
    assert against.code == 1
    assert check_all(against, schema).error == 2 * len(HARMFUL)
    same = written("analyze", path, *BASE, "--params", "autocast", "--baseline", old)
    assert (same.code, sum(check_all(same, schema))) == (0, 0)
    new = tmp_path / "new.json"
    new.write_text(written("analyze", path, *BASE).text["json"], "utf-8")
    result = written("diff", old, new)
    assert result.code == 1
    check_all(result, schema)
    for each in (against, result):
        assert controls("".join(text for name, text in each.text.items() if name != "json") + each.out) == set()
    github = normcheck("diff", old, new, "--format", "github").out.splitlines()
    assert all(re.match(r"::(error|warning|notice) title=", line) for line in github[:-1])


BUILD = """
import torch


def build():
    model = torch.nn.Module()
    for name in NAMES:
        model.add_module(name, torch.nn.LayerNorm(64, eps=1e-30))
    return model
"""


def test_names_of_any_length_and_the_end_of_a_script_are_only_names(written, normcheck, schema, tmp_path, monkeypatch):
    names = ["y</script><script>alert(1)</script>", *(f"{place}{'long' * 2500}" for place in range(110))]
    (tmp_path / "harmful_model.py").write_text(f"NAMES = {names!r}\n{BUILD}", "utf-8")
    monkeypatch.chdir(tmp_path)
    command = ("analyze", "--model", "harmful_model:build", "--precision", "fp16", "--implementation", "pure")
    result = written(*command)
    check_all(result, schema)
    assert {layer["name"] for layer in strict(result.text["json"])["layers"]} == set(names)
    assert "<script>alert" not in result.text["html"]
    assert html_page(result.text["html"]).elements["script", ()] == 1
    github = normcheck(*command, "--format", "github").out
    assert len(github.encode()) < 64 << 10
