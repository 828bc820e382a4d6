"""`normcheck reproduce`: what it shows and writes, what it never replaces, and its exit codes."""

from __future__ import annotations

import json
import os

import pytest
from hand_built_reproduction import Stand

from normcheck.errors import NormcheckError
from normcheck.render.experiments import from_json

FILES = ["first-accuracy.png", "reproduce.json", "second-one-l2.png"]


@pytest.fixture
def stand(monkeypatch):
    return Stand(monkeypatch)


@pytest.fixture
def run(normcheck, stand, tmp_path):
    """Run the command in one process; the folder is `out`."""

    def command(*arguments):
        return normcheck("reproduce", "--jobs", "1", "--out", tmp_path / "out", *arguments)

    command.calls = stand.calls
    return command


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(outcome, *says):
    assert outcome.code == 2
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert all(each in line for each in says), line


def test_what_was_not_reproduced_is_a_result(run, out):
    outcome = run()
    assert outcome.code == 0
    assert "standing   not reproduced" in outcome.out
    assert names(out) == FILES
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in FILES if name.endswith("png"))
    found = from_json((out / "reproduce.json").read_text())
    assert [experiment.name for experiment in found.experiments] == ["first", "second-one"]
    assert not found.quick


def test_each_experiment_is_told_of_when_it_ends_unless_quiet(run):
    assert run().err.splitlines() == [
        "normcheck: first: 1 of 3 claims reproduced, 0 s",
        "normcheck: second-one: 1 of 1 claims reproduced, 0 s",
    ]
    assert run("--quiet").err == ""


def test_json_on_standard_output_is_the_file(run, out):
    outcome = run("--format", "json")
    assert outcome.out == (out / "reproduce.json").read_text()
    assert json.loads(outcome.out)["experiments"][0]["facts"] == {"L1": {"accuracies": [0.9, "nan"]}}


def test_markdown_on_standard_output(run):
    assert run("--format", "markdown").out.startswith("## normcheck reproduce\n")


@pytest.mark.parametrize("name", ["b", "second-one"])
def test_one_experiment_by_name_or_letter(run, out, name):
    assert run(name).code == 0
    assert [call[0] for call in run.calls] == ["second-one"]
    assert names(out) == FILES[1:]


def test_quick_is_passed_on_and_said(run, out):
    assert "quick form" in run("--quick").out
    assert [quick for _, quick, _ in run.calls] == [True, True]
    assert from_json((out / "reproduce.json").read_text()).quick
    assert "quick form" not in run().out


def test_the_short_form_may_be_replaced_and_the_full_one_by_no_short_one(run, out):
    assert run("--quick").code == run("--quick").code == run().code == run().code == 0
    before = (out / "reproduce.json").read_bytes()
    refused(run("--quick"), "of the full form", "another folder")
    assert (out / "reproduce.json").read_bytes() == before


def test_experiments_that_would_be_lost_are_kept(run):
    assert run().code == 0
    run.calls.clear()
    refused(run("first"), "holds second-one too")
    assert run.calls == []


def test_more_experiments_may_replace_fewer(run, out):
    assert run("first").code == run().code == 0
    assert names(out) == FILES


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reproduce.json", b'{"mine": 1}'),
        ("reproduce.json", b'{"format": 1, "results": []}'),
        ("first-accuracy.png", b"\x89PNG\r\n\x1a\n of mine"),
        ("second-one-holiday.png", b"text"),
    ],
)
def test_what_is_not_ours_is_not_replaced(run, out, name, content):
    out.mkdir()
    (out / name).write_bytes(content)
    refused(run(), name, "delete it")
    assert run.calls == []
    assert names(out) == [name]
    assert (out / name).read_bytes() == content


def test_other_files_of_the_folder_stay_and_empty_ones_are_filled(run, out):
    out.mkdir()
    (out / "holiday.png").write_bytes(b"mine")
    (out / "reproduce.json").touch()
    assert run().code == 0
    assert names(out) == sorted([*FILES, "holiday.png"])


def test_a_folder_below_others_that_are_not_there_is_made(normcheck, stand, tmp_path):
    folder = tmp_path / "a" / "b"
    assert normcheck("reproduce", "--jobs", "1", "--out", folder).code == 0
    assert names(folder) == FILES
    assert len(stand.calls) == 2


@pytest.mark.parametrize("below", ["", "inner"])
def test_a_file_in_the_place_of_the_folder_is_refused(out, below, normcheck, stand):
    out.write_text("mine")
    refused(normcheck("reproduce", "--jobs", "1", "--out", out / below), "--out")
    assert stand.calls == []
    assert out.read_text() == "mine"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is write-protected for the superuser")
def test_a_write_protected_folder_is_refused_before_the_run(run, out):
    out.mkdir(mode=0o500)
    refused(run(), "cannot write")
    assert run.calls == []


@pytest.mark.parametrize("error", [NormcheckError("no digits"), MemoryError("much")])
def test_an_error_is_one_line_and_writes_nothing(run, out, stand, error):
    stand.error = error
    outcome = run("--quiet")
    refused(outcome, str(error))
    assert not out.exists()


def test_an_interrupt_writes_nothing(run, out, stand):
    stand.error = KeyboardInterrupt()
    assert run().code == 130
    assert not out.exists()


def test_unknown_experiments_and_no_processes_are_refused(run, out):
    refused(run("third"), "unknown experiment 'third'")
    refused(run("--jobs", "0"), "jobs 0")
    assert not out.exists()


def test_the_folder_is_named_for_the_paper_unless_given(normcheck, stand, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert normcheck("reproduce", "--jobs", "1").code == 0
    assert names(tmp_path / "normcheck-paper") == FILES
    assert len(stand.calls) == 2


@pytest.mark.parametrize("columns", [80, 200])
def test_the_table_fits_and_nothing_is_cropped(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = run().out
    assert max(map(len, text.splitlines())) <= columns
    assert "accuracy 92.5 +- 1.2 % (L1) against 92.6 +- 1.0 % (L2), 16 seeds" in " ".join(text.split())
