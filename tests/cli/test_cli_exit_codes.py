"""Exit codes: what they mean is the same for every command and every output, on standard output or in a file."""

from __future__ import annotations

import dataclasses
import importlib
import inspect

import pytest
from hand_built import EMPTY, REPORT
from hand_built_model import MODEL, NO_NORMS

from normcheck.cli.analyze import analyze
from normcheck.cli.deliver import OUTPUTS, ReportFormat
from normcheck.cli.exit_codes import ExitCode, FailOn, exit_code
from normcheck.cli.settings import variable
from normcheck.errors import UnreadableError, UsageError

COMMANDS = {"simulate": ("simulate",), "analyze": ("analyze", "m.pt")}
IN_FILES = [output for output in OUTPUTS if {output, f"{output}_path"} & {*inspect.signature(analyze).parameters}]
WAYS = [*(("--format", form.value) for form in ReportFormat), *((f"--{output}", "-") for output in IN_FILES)]
"""All that can be asked for on standard output."""

LIMITS = ["error", "warning", "note", "never"]
CODES = [  # severities found, and the exit code under error, warning, note and never
    ((), (0, 0, 0, 0)),
    (("note",), (0, 0, 1, 0)),
    (("warning",), (0, 1, 1, 0)),
    (("note", "warning"), (0, 1, 1, 0)),
    (("error",), (1, 1, 1, 0)),
    (("note", "error"), (1, 1, 1, 0)),
]
ERROR = "normcheck: error: "
every_way = pytest.mark.parametrize("way", WAYS, ids=" ".join)
every_command = pytest.mark.parametrize("command", COMMANDS)


def test_every_output_can_be_asked_for():
    asked = {form.value for form in ReportFormat} | {*IN_FILES}
    assert asked == {*OUTPUTS, "table"}


# ------------------------------------------------------------------------------------------------ on standard output


@every_way
@pytest.mark.parametrize(("severities", "codes"), CODES)
def test_findings_decide_and_the_output_never_does(engine, normcheck, way, severities, codes):
    engine.find(*severities)
    outcomes = [normcheck("simulate", *way, "--fail-on", limit) for limit in LIMITS]
    assert tuple(outcome.code for outcome in outcomes) == codes
    assert [outcome.err for outcome in outcomes] == ["", "", "", ""]
    assert all(outcome.out for outcome in outcomes) or way == ("--format", "github")  # no finding, no annotation


@every_command
def test_errors_are_the_default_limit(engine, normcheck, command):
    engine.find("warning")
    assert normcheck(*COMMANDS[command]).code == 0
    engine.find("error")
    assert normcheck(*COMMANDS[command]).code == 1


@every_way
@pytest.mark.parametrize("limit", ["error", "never"])
@pytest.mark.parametrize(("command", "report"), [("simulate", EMPTY), ("analyze", NO_NORMS)])
def test_nothing_analysed_is_a_code_of_its_own(engine, normcheck, way, limit, command, report):
    engine.report = report
    outcome = normcheck(*COMMANDS[command], *way, "--fail-on", limit)
    assert outcome.code == 3
    (line,) = outcome.err.splitlines()
    assert line.startswith("normcheck: nothing was analysed: ")
    assert report.skipped[0].reason in line


@pytest.mark.usefixtures("engine")
def test_nothing_analysed_is_not_said_where_something_was(normcheck):
    assert normcheck("simulate").err == ""


@every_way
@pytest.mark.parametrize("limit", ["error", "never"])
def test_a_file_that_cannot_be_read_goes_before_findings(engine, normcheck, way, limit):
    engine.report = MODEL
    assert MODEL.unreadable
    assert normcheck("analyze", "m.pt", *way, "--fail-on", limit).code == 2


@every_way
@every_command
@pytest.mark.parametrize("error", [UsageError("no"), UnreadableError("m.pt: no"), RuntimeError("no"), MemoryError()])
def test_errors_are_two(engine, normcheck, way, command, error):
    engine.report = error
    outcome = normcheck(*COMMANDS[command], *way)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(ERROR)


def test_endless_recursion_is_an_error_too(engine, normcheck):
    engine.report = RecursionError("no")
    assert normcheck("simulate").code == 2


@every_way
def test_an_interrupt_is_130(engine, normcheck, way):
    engine.report = KeyboardInterrupt()
    assert normcheck("simulate", *way) == (130, "", "normcheck: interrupted\n")


# ----------------------------------------------------------------------------------------------------------- in files


@pytest.mark.parametrize("output", IN_FILES)
@pytest.mark.parametrize(("severities", "codes"), CODES)
def test_findings_decide_whatever_is_written_besides(engine, normcheck, tmp_path, output, severities, codes):
    engine.find(*severities)
    path = tmp_path / "report"
    found = [normcheck("simulate", f"--{output}", path, "--fail-on", limit).code for limit in LIMITS]
    assert tuple(found) == codes
    written = importlib.import_module(OUTPUTS[output]).render(dataclasses.replace(engine.report, fail_on="never"))
    assert path.read_text(encoding="utf-8") == written


@every_command
def test_all_outputs_at_once(engine, normcheck, tmp_path, command):
    engine.report = REPORT
    options = [part for output in IN_FILES for part in (f"--{output}", tmp_path / output)]
    outcome = normcheck(*COMMANDS[command], *options, "--format", "github")
    assert (outcome.code, outcome.err) == (1, "")
    assert {path.name for path in tmp_path.iterdir()} == {*IN_FILES}


@every_command
@pytest.mark.parametrize("output", IN_FILES)
def test_nothing_analysed_is_told_in_files_too(engine, normcheck, tmp_path, command, output):
    engine.report = EMPTY if command == "simulate" else NO_NORMS
    outcome = normcheck(*COMMANDS[command], f"--{output}", tmp_path / "report", "--fail-on", "never")
    assert outcome.code == 3
    assert (tmp_path / "report").is_file()


# -------------------------------------------------------------------------------------------------------------- misuse


def misused(engine, outcome):
    """Return the line that says what was wrong; nothing was computed and no report printed."""
    assert (outcome.code, outcome.out, engine.calls) == (2, "", [])
    (line,) = outcome.err.splitlines()
    return line


@every_command
@pytest.mark.parametrize("output", IN_FILES)
def test_a_path_that_cannot_be_written_is_misuse(engine, normcheck, tmp_path, command, output):
    outcome = normcheck(*COMMANDS[command], f"--{output}", tmp_path / "no" / "report")
    assert "cannot write" in misused(engine, outcome)


@every_command
@pytest.mark.parametrize(
    ("one", "other"), [(one, other) for place, one in enumerate(WAYS) for other in WAYS[place + 1 :]]
)
def test_two_reports_on_standard_output_are_misuse(engine, normcheck, command, one, other):
    outcome = normcheck(*COMMANDS[command], *one, *other)
    if one[0] == other[0] == "--format":  # the last of an option that does not repeat holds
        assert outcome.code == 1
        return
    line = misused(engine, outcome)
    assert {" ".join(one), " ".join(other)} == {*line.removeprefix(ERROR).partition(" all write")[0].split(" and ")}


@every_command
@pytest.mark.parametrize("output", IN_FILES[1:])
@pytest.mark.parametrize("spelling", ["report", "./report", "inner/../report", "link"])
def test_one_file_for_two_reports_is_misuse(engine, normcheck, tmp_path, monkeypatch, command, output, spelling):
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to("report")
    monkeypatch.chdir(tmp_path)
    line = misused(engine, normcheck(*COMMANDS[command], f"--{IN_FILES[0]}", "report", f"--{output}", spelling))
    assert f"--{IN_FILES[0]} and --{output} both write {spelling}" in line
    assert not (tmp_path / "report").exists()


@every_way
@every_command
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b'{"format": 2}', b"[" * 100_000])
def test_a_baseline_that_is_none_is_an_error(engine, normcheck, tmp_path, way, command, content):
    path = tmp_path / "old.json"
    if content is not None:
        path.write_bytes(content)
    line = misused(engine, normcheck(*COMMANDS[command], *way, "--baseline", path))
    assert str(path) in line
    assert "internal" not in line


@every_way
@every_command
def test_a_configuration_that_cannot_be_read_is_an_error(engine, normcheck, tmp_path, way, command):
    path = tmp_path / "none.toml"
    assert "cannot read" in misused(engine, normcheck(*COMMANDS[command], *way, "--config", path))
    path.write_text("fail-on = 1\n")
    assert "fail-on" in misused(engine, normcheck(*COMMANDS[command], *way, "--config", path))


@every_way
def test_a_variable_that_is_wrong_is_an_error(engine, normcheck, monkeypatch, way):
    monkeypatch.setenv(variable("fail-on"), "some")
    assert variable("fail-on") in misused(engine, normcheck("simulate", *way))


@every_way
def test_diff_tells_misuse_from_findings(normcheck, tmp_path, way):
    missing = normcheck("diff", *way, tmp_path / "old.json", tmp_path / "new.json")
    assert (missing.code, missing.out) == (2, "")
    assert "old.json" in missing.err


# -------------------------------------------------------------------------------------------------------- the function


def test_the_function_knows_every_limit():
    codes = {limit.value: exit_code(dataclasses.replace(REPORT, fail_on=limit.value)) for limit in FailOn}
    assert codes == {"error": 1, "warning": 1, "note": 1, "never": 0}
    silent = dataclasses.replace(REPORT, findings=())
    assert {exit_code(dataclasses.replace(silent, fail_on=limit.value)) for limit in FailOn} == {0}


def test_no_code_has_two_meanings():
    assert len({int(code) for code in ExitCode}) == len(ExitCode)
