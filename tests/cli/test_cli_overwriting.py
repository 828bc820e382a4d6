"""Reports take the place of reports, and of nothing that is read or that somebody else wrote."""

from __future__ import annotations

import importlib
import json
import os

import pytest
from hand_built import REPORT

from normcheck.cli.deliver import OUTPUTS

IN_FILES = ("json", "sarif", "junit", "html", "markdown")
OTHERS = {
    "checkpoint": b"PK\3\4\0 a checkpoint",
    "safetensors": b'{\1\0\0\0\0\0\0{"format": 1}',
    "config.json": b'{"architectures": ["Bert"]}',
    "list.json": b"[1, 2]",
    "code.py": b"import torch",
    "coverage.xml": b'<?xml version="1.0" ?>\n<coverage version="7">',
    "cafe\xe9": "caf\xe9".encode("latin-1"),
    "image": b"\x89PNG\r\n",
}
"""Files of other programs, by their names."""


def refusal(engine, outcome):
    """Return the line that says why a report was not written; nothing was computed."""
    assert (outcome.code, outcome.out, engine.calls) == (2, "", [])
    (line,) = outcome.err.splitlines()
    return line


@pytest.mark.parametrize("output", IN_FILES)
@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_programs_are_left_alone(engine, normcheck, tmp_path, output, name):
    path = tmp_path / name
    path.write_bytes(OTHERS[name])
    line = refusal(engine, normcheck("simulate", f"--{output}", path))
    why = f"it exists and is no {output} report: give another path, or delete it first"
    assert line == f"normcheck: error: --{output} {path}: {why}"
    assert path.read_bytes() == OTHERS[name]


@pytest.mark.parametrize("command", [["simulate"], ["analyze", "m.pt"]])
@pytest.mark.parametrize("output", IN_FILES)
def test_a_report_takes_the_place_of_its_like_and_of_nothing(engine, normcheck, tmp_path, command, output):
    engine.report = REPORT
    path = tmp_path / "report"
    path.touch()
    text = importlib.import_module(OUTPUTS[output]).render
    for before in ("", text(REPORT)):
        path.write_text(before, encoding="utf-8")
        assert normcheck(*command, f"--{output}", path).code == 1
        assert path.read_text(encoding="utf-8") == text(REPORT)


@pytest.mark.parametrize("one", IN_FILES)
@pytest.mark.parametrize("other", [name for name in IN_FILES if name != "markdown"])
def test_a_report_of_one_kind_is_not_replaced_by_another(engine, normcheck, tmp_path, one, other):
    path = tmp_path / f"report.{one}"
    path.write_text(importlib.import_module(OUTPUTS[one]).render(REPORT), encoding="utf-8")
    if one == other:
        assert normcheck("simulate", f"--{other}", path).code == 1
    else:
        assert "is no" in refusal(engine, normcheck("simulate", f"--{other}", path))


@pytest.mark.parametrize("name", ["step_summary_0", "summary.md", "summary.MD", "notes.txt"])
def test_markdown_takes_the_place_of_other_text(normcheck, engine, tmp_path, name):
    path = tmp_path / name
    path.write_text("# Tests\n" + "\u00e9" * 5000, encoding="utf-8")
    assert normcheck("simulate", "--markdown", path).code == 1
    assert engine.calls
    assert path.read_text(encoding="utf-8").startswith("## normcheck simulate")


def same_file(path, how):
    """Return another name of a file."""
    other = path.with_name("other")
    if how == "its name":
        return path
    if how == "a link":
        other.symlink_to(path.name)
    elif how == "a second name":
        os.link(path, other)
    else:
        other = path.parent / "folder" / ".." / path.name
        (path.parent / "folder").mkdir()
    return other


@pytest.mark.parametrize("how", ["its name", "a link", "a second name", "a detour"])
@pytest.mark.parametrize("output", IN_FILES)
def test_the_model_is_not_overwritten(engine, normcheck, tmp_path, output, how):
    model = tmp_path / "model"
    model.write_bytes(b"")  # which alone could be replaced
    line = refusal(engine, normcheck("analyze", "m.pt", model, f"--{output}", same_file(model, how)))
    assert "this run reads that file" in line
    assert model.read_bytes() == b""


@pytest.mark.parametrize("option", ["--activations", "--input", "--baseline"])
@pytest.mark.parametrize("output", IN_FILES)
def test_what_is_read_besides_is_not_overwritten(engine, normcheck, tmp_path, option, output):
    read = tmp_path / "read"
    read.touch()
    assert "this run reads that file" in refusal(
        engine, normcheck("analyze", "m.pt", option, read, f"--{output}", read)
    )


def test_a_model_that_is_not_there_is_not_replaced_by_its_report(engine, normcheck, tmp_path):
    assert "this run reads" in refusal(engine, normcheck("analyze", tmp_path / "m", "--json", tmp_path / "m"))


def test_weights_in_the_folder_of_a_model_are_not_overwritten(engine, normcheck, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(OTHERS["safetensors"])
    (tmp_path / "config.json").write_bytes(OTHERS["config.json"])
    for name in ("model.safetensors", "config.json"):
        for output in IN_FILES:
            refusal(engine, normcheck("analyze", tmp_path, f"--{output}", tmp_path / name))
    assert normcheck("analyze", tmp_path, "--json", tmp_path / "report.json").code == 1


@pytest.mark.parametrize("command", ["simulate", "analyze"])
@pytest.mark.parametrize("output", IN_FILES)
@pytest.mark.parametrize("way", ["named", "found", "set"])
def test_the_configuration_is_not_overwritten(engine, normcheck, tmp_path, monkeypatch, command, output, way):
    monkeypatch.chdir(tmp_path)
    name = "normcheck.toml" if way == "found" else "settings"
    (tmp_path / name).write_text("")
    if way == "set":
        monkeypatch.setenv("NORMCHECK_CONFIG", name)
    options = ["--config", name] if way == "named" else []
    line = refusal(engine, normcheck(command, *(["m.pt"] * (command == "analyze")), *options, f"--{output}", name))
    assert "this run reads that file" in line


def test_a_report_with_a_mark_of_byte_order_is_one(normcheck, engine, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"format": 1}), encoding="utf-8-sig")
    assert normcheck("simulate", "--json", tmp_path / "report.json").code == 1
    assert engine.calls
