"""Settings of configuration files and of the environment: where they are found, who wins, what is refused."""

from __future__ import annotations

import json
import os
import re
import tomllib
from enum import StrEnum
from pathlib import Path

import numpy as np
import pytest
import typer

from normcheck.cli.configured import commands_of
from normcheck.cli.deliver import OUTPUTS
from normcheck.cli.main import app
from normcheck.cli.settings import PAIRS, RUNS_CODE, variable

ROOT = Path(__file__).parents[2]
COMMANDS = commands_of(typer.main.get_command(app))
OPTIONS = [(command, key) for command, options in COMMANDS.items() for key in options]
IN_FILES = [(command, key) for command, key in OPTIONS if key not in RUNS_CODE]
TEXTS = {
    "dist": "laplace",
    "grad-dist": "laplace",
    "ignore": "NC103",
    "implementation": "wide",
    "kind": "*.norm=rms",
    "norm": "rms",
    "order": "tree",
    "params": "autocast",
    "precision": "fp32",
    "rounding": "up",
    "select": "NC1",
    "severity": "NC102=note",
    "shape": "2,4",
    "spatial": "2,4",
    "threshold": "headroom_bits=2",
}
"""A value of each option whose text is checked."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A repository of its own, and work inside it."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "inner" / "most").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(normcheck, command, *arguments):
    """Return what each setting is and what set it, as --show-settings has it."""
    outcome = normcheck(command, *arguments, "--show-settings", "--format", "json")
    assert (outcome.code, outcome.err) == (0, "")
    return {row["name"]: (row["value"], row["origin"]) for row in json.loads(outcome.out)}


def refused(normcheck, command="simulate", *arguments):
    outcome = normcheck(command, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert "internal" not in outcome.err
    return outcome.err.removeprefix("normcheck: error: ")


# ---------------------------------------------------------------------------------------------------------- who wins


def test_a_file_then_the_environment_then_flags(engine, normcheck, folder, monkeypatch):
    expected = [("fp16",)]
    normcheck("simulate")
    (folder / "pyproject.toml").write_text('[tool.normcheck]\nprecision = ["bf16", "fp32"]\n')
    expected.append(("bf16", "fp32"))
    normcheck("simulate")
    (folder / "pyproject.toml").write_text(
        '[tool.normcheck]\nprecision = "bf16"\n[tool.normcheck.simulate]\nprecision = "tf32"\n'
    )
    expected.append(("tf32",))
    normcheck("simulate")
    monkeypatch.setenv("NORMCHECK_PRECISION", "fp16, bf16")
    expected.append(("fp16", "bf16"))
    normcheck("simulate")
    expected.append(("fp64", "e5m10"))
    normcheck("simulate", "--precision", "fp64", "--precision", "e5m10")
    assert [call["precisions"] for call in engine.calls] == expected


def test_the_table_of_a_command_is_for_that_command_alone(engine, normcheck, folder):
    (folder / "normcheck.toml").write_text("seed = 1\n[analyze]\nseed = 2\n[simulate]\nk = 3\n")
    normcheck("simulate")
    normcheck("analyze", "m.pt")
    assert [(call["seed"], call["k"]) for call in engine.calls] == [(1, 3), (2, 10)]


def test_a_key_holds_for_every_command_that_has_the_option(engine, normcheck, folder):
    (folder / "normcheck.toml").write_text('shape = "2,4"\nspatial = "3,3"\njobs = 1\n')
    normcheck("simulate")
    normcheck("analyze", "m.pt")
    assert (engine.calls[0]["shape"], engine.calls[1]["spatial"]) == ((2, 4), (3, 3))
    assert [call["jobs"] for call in engine.calls] == [1, 1]


def test_what_is_set_above_replaces_a_list_and_adds_nothing(engine, normcheck, folder):
    (folder / "normcheck.toml").write_text('ignore = ["NC1"]\n[thresholds]\ncoherent = 9\ndeviation = 0.5\n')
    normcheck("simulate", "--ignore", "NC2", "--threshold", "coherent=1")
    assert (engine.calls[0]["ignore"], engine.calls[0]["thresholds"]) == (("NC2",), (("coherent", 1.0),))


def test_the_exit_code_follows_the_settings(engine, normcheck, folder, monkeypatch):
    engine.find("warning")
    (folder / "normcheck.toml").write_text('fail-on = "warning"\n')
    assert normcheck("simulate").code == 1
    monkeypatch.setenv("NORMCHECK_FAIL_ON", "error")
    assert normcheck("simulate").code == 0
    assert normcheck("simulate", "--fail-on", "note").code == 1


@pytest.mark.parametrize(
    ("settings", "arguments", "begins"),
    [
        ('format = "json"', ["--json", "-"], "{"),
        ('json = "-"', ["--format", "table"], "simulate "),
        ('format = "json"\nmarkdown = "x.md"', ["--format", "table"], "simulate "),
        ("steps = true", ["--format", "json"], "{"),
        ("steps = true", ["--json", "-"], "{"),
    ],
)
@pytest.mark.usefixtures("engine")
def test_what_is_asked_for_on_standard_output_displaces_what_settings_put_there(
    normcheck, folder, settings, arguments, begins
):
    (folder / "normcheck.toml").write_text(settings.replace("markdown", "sarif").replace('sarif = "x.md"', ""))
    outcome = normcheck("simulate", *arguments)
    assert outcome.err == ""
    assert outcome.out.startswith(begins)


@pytest.mark.usefixtures("engine")
def test_settings_of_one_place_may_not_contradict_each_other(normcheck, folder):
    (folder / "normcheck.toml").write_text('format = "json"\njson = "-"\n')
    assert "give one of them" in refused(normcheck)


# --------------------------------------------------------------------------------------------------- which file is read


def seed(normcheck, *arguments):
    value, origin = shown(normcheck, "simulate", *arguments)["seed"]
    return (value, origin.partition(":")[0])


def test_the_nearest_file_is_read(normcheck, folder, monkeypatch):
    monkeypatch.chdir(folder / "inner" / "most")
    assert seed(normcheck) == (0, "default")
    (folder / "pyproject.toml").write_text("[tool.normcheck]\nseed = 1\n")
    assert seed(normcheck) == (1, os.path.join("..", "..", "pyproject.toml"))  # noqa: PTH118
    (folder / "inner" / "normcheck.toml").write_text("seed = 2\n")
    assert seed(normcheck) == (2, os.path.join("..", "normcheck.toml"))  # noqa: PTH118
    (folder / "inner" / "most" / "pyproject.toml").write_text("[tool.other]\nseed = 3\n")
    assert seed(normcheck)[0] == 2
    (folder / "inner" / "most" / "pyproject.toml").write_text("[tool.normcheck]\n")
    assert seed(normcheck) == (0, "default")


def test_its_own_file_goes_before_the_shared_one(normcheck, folder):
    (folder / "pyproject.toml").write_text("[tool.normcheck]\nseed = 1\nk = 3\n")
    (folder / "normcheck.toml").write_text("seed = 2\n")
    found = shown(normcheck, "simulate")
    assert (found["seed"][0], found["k"][0]) == (2, 10)


@pytest.mark.parametrize("git", ["folder", "file"])
def test_nothing_above_the_repository_is_read(normcheck, folder, monkeypatch, git):
    (folder / "normcheck.toml").write_text("seed = 1\n")
    inner = folder / "inner"
    monkeypatch.chdir(inner / "most")
    assert seed(normcheck)[0] == 1
    (inner / ".git").mkdir() if git == "folder" else (inner / ".git").write_text("gitdir: elsewhere\n")
    assert seed(normcheck) == (0, "default")
    (inner / "normcheck.toml").write_text("seed = 2\n")
    assert seed(normcheck)[0] == 2


def test_a_file_can_be_named_instead(normcheck, folder, monkeypatch):
    (folder / "normcheck.toml").write_text("seed = 1\nk = 3\n")
    (folder / "inner" / "any.toml").write_text("seed = 2\n")
    (folder / "inner" / "pyproject.toml").write_text("[tool.normcheck]\nseed = 3\n")
    assert shown(normcheck, "simulate", "--config", "inner/any.toml")["k"][0] == 10
    assert seed(normcheck, "--config", "inner/any.toml")[0] == 2
    assert seed(normcheck, "--config=inner/pyproject.toml")[0] == 3
    monkeypatch.setenv("NORMCHECK_CONFIG", "inner/any.toml")
    assert seed(normcheck)[0] == 2
    assert seed(normcheck, "--config", "inner/pyproject.toml")[0] == 3


def test_isolated_reads_neither_files_nor_the_environment(normcheck, folder, monkeypatch):
    (folder / "normcheck.toml").write_text("nonsense\n")
    monkeypatch.setenv("NORMCHECK_SEED", "1")
    monkeypatch.setenv("NORMCHECK_NONSENSE", "1")
    monkeypatch.setenv("NORMCHECK_CONFIG", "none.toml")
    assert seed(normcheck, "--isolated") == (0, "default")
    assert {origin for _, origin in shown(normcheck, "analyze", "--isolated").values()} == {"default"}


def test_isolated_and_a_file_contradict_each_other(normcheck):
    assert "give one of them" in refused(normcheck, "simulate", "--isolated", "--config", "x.toml")


@pytest.mark.parametrize("arguments", [["--help"], ["simulate", "--help"], ["formats"], ["schema"], ["--version"]])
def test_what_has_no_settings_reads_none(normcheck, folder, monkeypatch, arguments):
    (folder / "normcheck.toml").write_text("nonsense\n")
    monkeypatch.setenv("NORMCHECK_NONSENSE", "1")
    assert normcheck(*arguments).code == 0


def test_a_folder_that_is_gone_has_no_file(normcheck, folder, monkeypatch):
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        assert seed(normcheck) == (0, "default")
    finally:
        os.chdir(folder)  # whence monkeypatch can go back


# ------------------------------------------------------------------------------------------ every option can be set


def value_for(command, key):
    """Return a value of an option that is not its default, as TOML has it, and as --show-settings has it."""
    option = COMMANDS[command][key]
    if option.repeats:
        text = TEXTS.get(key, "0.5" if key == "eps" else "*.a")
        return json.dumps(text), [text]
    if issubclass(option.kind, StrEnum):
        last = [*option.kind][-1].value
        return json.dumps(last), last
    text = TEXTS.get(key, "some")
    found = {bool: ("true", True), int: ("7", 7), float: ("0.5", 0.5), str: (json.dumps(text), text)}
    return found[option.kind]


@pytest.mark.parametrize(("command", "key"), IN_FILES)
@pytest.mark.parametrize("spelling", [str, lambda key: key.replace("-", "_")], ids=["dashes", "underscores"])
def test_every_option_can_be_set_in_a_file(normcheck, folder, command, key, spelling):
    text, value = value_for(command, key)
    (folder / "pyproject.toml").write_text(f"[tool.normcheck.{command}]\n{spelling(key)} = {text}\n")
    found = shown(normcheck, command)
    assert found[key] == (value, f"pyproject.toml: tool.normcheck.{command}.{spelling(key)}")
    assert {origin for name, (_, origin) in found.items() if name != key} == {"default"}


@pytest.mark.parametrize(("command", "key"), OPTIONS)
def test_every_option_can_be_set_in_the_environment(normcheck, monkeypatch, command, key):
    text, value = value_for(command, key)
    monkeypatch.setenv(variable(key), text.strip('"'))
    assert shown(normcheck, command)[key] == (value, variable(key))


@pytest.mark.parametrize(("command", "key"), IN_FILES)
def test_every_option_refuses_another_type(normcheck, folder, command, key):
    wrong = "1979-05-27" if COMMANDS[command][key].kind is not bool else '"yes"'
    (folder / "normcheck.toml").write_text(f"[{command}]\n{key} = {wrong}\n")
    line = refused(normcheck, command)
    assert line.startswith(f"normcheck.toml: {command}.{key}: {command} takes ")
    assert wrong in line


def test_paths_are_those_of_the_report_and_of_what_is_read():
    paths = {key for options in COMMANDS.values() for key, option in options.items() if option.is_path}
    others = {"activations", "baseline", "input", "reproducer-to"}
    assert paths == others | ({*OUTPUTS} & {key for _, key in OPTIONS})


def test_tables_are_for_options_of_pairs():
    metavars = {
        param.opts[0].removeprefix("--")
        for command in typer.main.get_command(app).commands.values()
        for param in command.params
        if "=" in (param.metavar or "")
    }
    assert metavars == {*PAIRS}


def test_paths_of_a_file_start_at_the_file_and_others_here(normcheck, folder, monkeypatch):
    away = os.path.join(os.sep, "away.json")  # noqa: PTH118
    (folder / "normcheck.toml").write_text(f'baseline = "old.json"\nsarif = "{away}"\njson = "-"\n')
    assert shown(normcheck, "simulate")["baseline"][0] == "old.json"
    monkeypatch.chdir(folder / "inner")
    monkeypatch.setenv("NORMCHECK_MARKDOWN", "new.md")
    found = {name: value for name, (value, _) in shown(normcheck, "simulate").items()}
    assert found["baseline"] == str(Path("..", "old.json"))
    assert Path(found["sarif"]).resolve() == Path(away)
    assert found["markdown"] == "new.md"
    assert shown(normcheck, "simulate", "--markdown", "x")["markdown"][0] == "x"


# -------------------------------------------------------------------------------------------------------------- tables


def test_tables_become_pairs_and_patterns_go_after_all_that_have_none(engine, normcheck, folder):
    (folder / "normcheck.toml").write_text(
        """
        [thresholds."encoder.*"]
        headroom-bits = 4
        [thresholds."encoder.last"]
        headroom_bits = 1
        deviation = 2e-3
        [thresholds]
        headroom-bits = 2
        [severity]
        NC102 = "warning"
        "NC1:*.a=b" = "note"
        [analyze]
        kind = {"*.norm" = "group(8)", "head.*" = "none"}
        [analyze.eps]
        "*.bn1" = 1
        "*" = 1e-3
        """
    )
    normcheck("simulate")
    normcheck("analyze", "m.pt")
    for call in engine.calls:
        assert call["thresholds"] == (
            ("headroom-bits", 2.0),
            ("encoder.*:headroom-bits", 4.0),
            ("encoder.last:headroom_bits", 1.0),
            ("encoder.last:deviation", 0.002),
        )
        assert call["severity"] == (("NC102", "warning"), ("NC1:*.a=b", "note"))
    assert engine.calls[1]["kinds"] == (("*.norm", "group(8)"), ("head.*", "none"))
    assert engine.calls[1]["eps"] == (("*.bn1", 1.0), ("*", 1e-3))


def test_one_eps_is_for_both_commands(engine, normcheck, folder):
    (folder / "normcheck.toml").write_text("eps = 1e-3\n")
    normcheck("simulate")
    normcheck("analyze", "m.pt")
    assert [call["eps"] for call in engine.calls] == [1e-3, ((None, 1e-3),)]


def test_thresholds_of_some_layers_reach_the_rules(normcheck, folder):
    from safetensors.numpy import save_file

    parts = {"weight": np.ones(4), "bias": np.zeros(4), "running_mean": np.zeros(4), "running_var": np.ones(4)}
    tensors = {f"bn{i}.{name}": part.astype(np.float32) for i in (0, 1) for name, part in parts.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "normcheck.toml").write_text(
        'fail-on = "warning"\nselect = ["NC103"]\nformat = "json"\n[thresholds.bn1]\nheadroom-bits = 1000\n'
        '[analyze]\nmode = "eval"\nprecision = "fp16"\nspatial = "2,2"\n'
    )
    outcome = normcheck("analyze", "model.safetensors", "--quiet")
    assert {(f["rule"], f["layer"]) for f in json.loads(outcome.out)["findings"]} == {("NC103", "bn1")}
    assert normcheck("analyze", "model.safetensors", "--quiet", "--isolated", "--select", "NC103").code == 0


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('fall-on = "note"', ["normcheck.toml: fall-on: unknown key", "did you mean fail-on?", "--help"]),
        ("[analyse]\nseed = 1", ["normcheck.toml: analyse: unknown key", "did you mean analyze?"]),
        ("[analyze]\nshape = 1", ["normcheck.toml: analyze.shape: unknown key", "`normcheck analyze --help`"]),
        ("[simulate]\nsed = 1", ["simulate.sed", "did you mean seed?"]),
        ("show-settings = true", ["show-settings: unknown key"]),
        ("debug = true", ["debug: unknown key"]),
        ("help = true", ["help: unknown key"]),
        ('config = "x"', ["config: unknown key"]),
        ("isolated = true", ["isolated: unknown key"]),
        ('models = "x"', ["models: unknown key"]),
        ("version = 1", ["version: unknown key"]),
        ("trust = true", ["trust: what runs code", "--trust on the command line"]),
        ('[analyze]\nmodel = "a:b"', ["analyze.model: what runs code", "--model on the command line"]),
        ("seed = 1\n[analyze]\ntop = 1.0", ["analyze.top", "takes a whole number, received 1.0"]),
        ("k = true", ["k: ", "takes a whole number, received true"]),
        ('mean = "1"', ["mean: ", 'takes a number, received "1"']),
        ("ftz = 1", ["ftz: ", "takes true or false, received 1"]),
        ('fail-on = "warn"', ["fail-on: ", "one of error, warning, note, never", '"warn"']),
        ('precision = ["fp16", 8]', ["precision: ", "a text or a list of texts", '["fp16", 8]']),
        ('precision = "fp17"', ["normcheck.toml: precision: unknown format 'fp17': did you mean fp16"]),
        ('precision = "fp16,,bf16"', ["normcheck.toml: precision: an empty name"]),
        ('norm = "batch-l3"', ["normcheck.toml: norm: unknown norm 'batch-l3'"]),
        ('implementation = "purest"', ["normcheck.toml: implementation: "]),
        ('dist = "gausian"', ["normcheck.toml: dist: "]),
        ('order = "back"', ["normcheck.toml: order: "]),
        ('rounding = "side"', ["normcheck.toml: rounding: "]),
        ('params = "most"', ["normcheck.toml: params: "]),
        ('shape = "8x8"', ["normcheck.toml: shape: "]),
        ('spatial = "8x8"', ["normcheck.toml: spatial: "]),
        ('select = "NC999"', ["normcheck.toml: select: unknown rule 'NC999'"]),
        ('ignore = "NC999"', ["normcheck.toml: ignore: unknown rule 'NC999'"]),
        ('[severity]\nNC999 = "note"', ["normcheck.toml: severity: unknown rule 'NC999'"]),
        ('[severity]\nNC102 = "bad"', ["normcheck.toml: severity: ", "'bad'", "warning"]),
        ("[severity]\nNC102 = 1", ["normcheck.toml: severity.NC102: give a text, received 1"]),
        ("[thresholds]\nheadroom = 1", ["normcheck.toml: thresholds: ", "did you mean headroom_bits"]),
        ("[thresholds]\ncoherent = -1", ["normcheck.toml: thresholds: ", "-1"]),
        ("[thresholds]\ncoherent = true", ["thresholds.coherent: give a number, received true"]),
        ('[thresholds."a.*"]\ncoherent = "x"', ['thresholds.a.*.coherent: give a number, received "x"']),
        ('[thresholds."a,b"]\ncoherent = 1', ["a,b", "comma"]),
        ('[analyze.kind]\n"a,b" = "rms"', ["analyze.kind: 'a,b' has a comma"]),
        ('[eps]\n"a.*" = 1', ["normcheck.toml: eps: simulate takes a number"]),
        ("fail-on = 'note'\nfail_on = 'note'", ["fail_on: ", "fail-on is the same setting"]),
        ("threshold = []\n[thresholds]", ["the same setting"]),
        ("analyze = 3", ["normcheck.toml: analyze: give a table of settings, received 3"]),
        ("seed = -4", ["normcheck.toml: seed: give a number from 0 to 2**64 - 1, received -4"]),
        ("jobs = 0", ["normcheck.toml: jobs: give 1 or more, received 0"]),
        ("k = 0", ["normcheck.toml: k: give 1 or more, received 0"]),
        ("[analyze]\ntop = -3", ["normcheck.toml: analyze.top: give 1 or more, received -3"]),
        ("[analyze]\nbatch-size = 0", ["normcheck.toml: analyze.batch-size: give 1 or more, received 0"]),
        ("[simulate]\nnum_groups = 0", ["normcheck.toml: simulate.num_groups: give 1 or more, received 0"]),
        ("mean = nan", ["normcheck.toml: mean: give a finite number, received nan"]),
        ("std = inf", ["normcheck.toml: std: give a finite number, received inf"]),
        ("std = -1", ["normcheck.toml: std: give 0 or more, received -1"]),
        ("[simulate]\ngrad-std = -1", ["normcheck.toml: simulate.grad-std: give 0 or more, received -1"]),
        ("[simulate]\nloss-scale = 0", ["normcheck.toml: simulate.loss-scale: give a finite number above 0"]),
        ('[simulate]\ngrad-dist = "gausian"', ["normcheck.toml: simulate.grad-dist: unknown distribution 'gausian'"]),
        ('shape = "8,0"', ["normcheck.toml: shape: give 1 or more, received 0"]),
        ("[simulate]\neps = -1", ["normcheck.toml: simulate.eps: give 0 or more, received -1"]),
        ('[analyze]\neps = "a=b"', ["normcheck.toml: analyze.eps: ", "'a=b'"]),
        ('[analyze]\nkind = "norm"', ["normcheck.toml: analyze.kind: ", "PATTERN=KIND"]),
        ('json = ""', ["normcheck.toml: json: the path is empty"]),
        ("[tool.normcheck]\nk = 3", ["normcheck.toml: tool.normcheck is for pyproject.toml: here keys", "without it"]),
        ("a = = 1", ["normcheck.toml: this is no TOML", "line 1"]),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "analyze"])
def test_what_a_file_may_not_say_is_one_line_that_names_the_file_and_the_key(
    engine, normcheck, folder, command, text, words
):
    (folder / "normcheck.toml").write_text(text)
    for arguments in ([], ["--show-settings"]):
        line = refused(normcheck, command, *arguments)
        assert [word for word in words if word not in line] == []
    assert engine.calls == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("NORMCHECK_FALL_ON", "note", ["NORMCHECK_FALL_ON: unknown variable: did you mean NORMCHECK_FAIL_ON?"]),
        ("NORMCHECK_DEBUG", "1", ["NORMCHECK_DEBUG: unknown variable"]),
        ("NORMCHECK_ISOLATED", "1", ["NORMCHECK_ISOLATED: unknown variable"]),
        ("NORMCHECK_", "1", ["NORMCHECK_: unknown variable"]),
        ("NORMCHECK_THRESHOLDS", "coherent=1", ["did you mean NORMCHECK_THRESHOLD?"]),
        ("NORMCHECK_SEED", "one", ["NORMCHECK_SEED: ", "a whole number", "'one'"]),
        ("NORMCHECK_STD", "big", ["NORMCHECK_STD: ", "a number", "'big'"]),
        ("NORMCHECK_FTZ", "2", ["NORMCHECK_FTZ: ", "true or false", "'2'"]),
        ("NORMCHECK_MODE", "dream", ["NORMCHECK_MODE: ", "one of train, eval", "'dream'"]),
        ("NORMCHECK_PRECISION", "fp16,fp17", ["NORMCHECK_PRECISION: unknown format 'fp17'"]),
        ("NORMCHECK_SEVERITY", "NC102", ["NORMCHECK_SEVERITY: ", "NAME=VALUE"]),
        ("NORMCHECK_SEED", "-4", ["NORMCHECK_SEED: give a number from 0", "-4"]),
        ("NORMCHECK_CONFIG", "none.toml", ["cannot read none.toml"]),
        ("NORMCHECK_CONFIG", "/none.toml", ["cannot read /none.toml: No such file"]),
        ("NORMCHECK_JSON", "no/report.json", ["cannot write no/report.json"]),
        ("NORMCHECK_BASELINE", "none.json", ["none.json: "]),
    ],
)
def test_what_the_environment_may_not_say_is_one_line_that_names_the_variable(
    engine, normcheck, monkeypatch, name, text, words
):
    monkeypatch.setenv(name, text)
    line = refused(normcheck)
    assert [word for word in words if word not in line] == []
    assert engine.calls == []


@pytest.mark.parametrize("text", ["1", "true", "YES", "on"])
def test_true_in_the_environment(normcheck, monkeypatch, text):
    monkeypatch.setenv("NORMCHECK_FTZ", text)
    assert shown(normcheck, "simulate")["ftz"] == (True, "NORMCHECK_FTZ")


@pytest.mark.parametrize("text", ["0", "false", "No", "off"])
def test_false_in_the_environment_undoes_a_file(normcheck, folder, monkeypatch, text):
    (folder / "normcheck.toml").write_text("ftz = true\n")
    monkeypatch.setenv("NORMCHECK_FTZ", text)
    assert shown(normcheck, "simulate")["ftz"] == (False, "NORMCHECK_FTZ")


@pytest.mark.parametrize(
    ("name", "text"), [("NORMCHECK_SEED", ""), ("NORMCHECK_TEST_CACHE", "x"), ("_NORMCHECK_COMPLETE", "")]
)
def test_variables_that_say_nothing(normcheck, monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    assert seed(normcheck) == (0, "default")


@pytest.mark.parametrize("option", ["--config", "NORMCHECK_CONFIG"])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.toml", None, ["cannot read none.toml: No such file"]),
        (".", None, ["cannot read .: Is a directory"]),
        ("inner", None, ["cannot read inner: Is a directory"]),
        ("pyproject.toml", "[tool.ruff]\n", ["pyproject.toml", "[tool.normcheck]"]),
        ("pyproject.toml", "[tool]\nnormcheck = 1\n", ["pyproject.toml: tool.normcheck: give a table, received 1"]),
        ("bad.toml", b"\xff\xfe", ["bad.toml: this is no TOML"]),
        ("x\x1b[2J.toml", "k = 'x'", [r"x\x1b[2J.toml: k"]),
    ],
)
def test_a_file_that_is_named_must_be_readable(normcheck, folder, monkeypatch, option, name, content, words):
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = ["--config", name] if option == "--config" else []
    if not arguments:
        monkeypatch.setenv(option, name)
    line = refused(normcheck, "simulate", *arguments)
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    "text", ["", "tool = 1\n", 'tool = "normcheck"\n', "[[tool]]\nnormcheck = 1\n", "normcheck = 1\n"]
)
def test_a_pyproject_without_the_table_is_passed_over(normcheck, folder, text):
    (folder / "pyproject.toml").write_text(text)
    assert seed(normcheck) == (0, "default")


def test_a_broken_file_on_the_way_is_no_silence(normcheck, folder, monkeypatch):
    monkeypatch.chdir(folder / "inner")
    (folder / "pyproject.toml").write_text("[tool.normcheck\n")
    assert str(Path("..", "pyproject.toml")) in refused(normcheck)


def test_a_value_of_a_file_cannot_write_to_the_terminal(normcheck, folder):
    (folder / "normcheck.toml").write_text('precision = "\\u001b[2J\\u202e"\n"\\u001b[31m" = 1\n')
    assert not set("\x1b\u202e") & set(refused(normcheck))
    (folder / "normcheck.toml").write_text('layer = "\\u001b[2J\\u202e"\n')
    outcome = normcheck("analyze", "--show-settings")
    assert outcome.code == 0
    assert not set("\x1b\u202e") & set(outcome.out)


# ------------------------------------------------------------------------------------------------------ --show-settings


def test_show_settings_does_nothing_else(engine, normcheck, folder):
    outcome = normcheck("analyze", "--show-settings", "--json", "report.json")
    assert (outcome.code, outcome.err, engine.calls) == (0, "", [])
    assert sorted(path.name for path in folder.iterdir()) == [".git", "inner"]


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--seed", "-4", "--seed: give a number from 0"),
        ("--precision", "fp17", "--precision: unknown format 'fp17'"),
        ("--shape", "8x8", "--shape '8x8': write whole numbers"),
    ],
)
def test_show_settings_refuses_what_a_run_refuses_on_the_command_line(normcheck, option, text, words):
    assert refused(normcheck, "simulate", option, text, "--show-settings").startswith(words)


def test_show_settings_says_what_set_each_of_them(normcheck, folder, monkeypatch):
    (folder / "normcheck.toml").write_text(
        'severity = {NC102 = "note", NC103 = "error"}\n[analyze]\nprecision = "bf16"\n'
    )
    monkeypatch.setenv("NORMCHECK_TOP", "3")
    found = shown(normcheck, "analyze", "--ftz", "--layer", "a,b", "--layer", "c")
    assert found["severity"] == (["NC102=note", "NC103=error"], "normcheck.toml: severity")
    assert found["precision"] == (["bf16"], "normcheck.toml: analyze.precision")
    assert found["top"] == (3, "NORMCHECK_TOP")
    assert found["ftz"] == (True, "command line")
    assert found["layer"] == (["a", "b", "c"], "command line")
    assert found["daz"] == (False, "default")
    assert found["mode"] == (None, "default")
    assert found.keys() == COMMANDS["analyze"].keys()


def test_show_settings_says_what_a_missing_value_means(normcheck):
    rows = json.loads(normcheck("analyze", "--show-settings", "--format", "json").out)
    means = {row["name"]: row["means"] for row in rows}
    assert (means["precision"], means["jobs"], means["seed"]) == ("fp16,bf16", "all cores", None)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_table_of_settings_crops_nothing(normcheck, folder, monkeypatch, columns):
    layers = [f"encoder.layers.{index}.with.a.long.name.norm" for index in range(5)]
    (folder / "normcheck.toml").write_text(f"layer = {json.dumps(layers)}\n")
    monkeypatch.setenv("COLUMNS", str(columns))
    text = normcheck("analyze", "--show-settings", "--format", "table").out
    assert [name for name in (*COMMANDS["analyze"], *layers) if name not in re.sub(r"\n +", "", text)] == []
    assert "…" not in text
    assert "normcheck.toml: layer" in re.sub(r"\s+", " ", text)
    assert text.endswith("configuration file: normcheck.toml\n")


def test_the_table_says_that_no_file_was_found(normcheck):
    assert normcheck("simulate", "--show-settings").out.endswith("\nno configuration file was found\n")


# ------------------------------------------------------------------------------------------------------- documentation


def example():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    return re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_example_of_the_documentation_is_valid_and_says_what_its_text_says(normcheck, folder):
    first, *others = example()
    (folder / "pyproject.toml").write_text(first)
    for command in COMMANDS:
        table = tomllib.loads(first)["tool"]["normcheck"]
        set_here = {key for key, (_, origin) in shown(normcheck, command).items() if origin.startswith("pyproject")}
        wanted = {key for key in (*table, *table[command]) if key not in COMMANDS}
        assert set_here == {"threshold" if key == "thresholds" else key for key in wanted} & COMMANDS[command].keys()
    for text in others:
        (folder / "normcheck.toml").write_text(text)
        assert normcheck("analyze", "--show-settings").code == 0
