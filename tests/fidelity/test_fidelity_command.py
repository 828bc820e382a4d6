"""``python -m normcheck.fidelity``: what it asks for, shows, keeps and exits with."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import hand_built_fidelity
import pytest

from normcheck.fidelity import __main__ as command
from normcheck.fidelity import keeping
from normcheck.fidelity.hosts import widest
from normcheck.fidelity.results import Compared, Fidelity, NotRun
from normcheck.fidelity.table import dumped, loaded
from normcheck.norms.evidence import parsed

ROW = dataclasses.replace(
    hand_built_fidelity.ROW, packages={"numpy": "2"}, outputs=Compared(numbers=100, identical=100), rstd=None
)
MISSED = dataclasses.replace(ROW, outputs=Compared(numbers=100, identical=99, max_ulps=1))


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Replace the run by given results; what it was asked for goes into the dictionary that is yielded."""
    seen = {"gives": (ROW,), "not_run": ()}

    def run_suite(projects, **given):
        seen.update(given, projects=[p.name for p in projects])
        for each in (*seen["gives"], *seen["not_run"]):
            given["done"] and given["done"](each)
        return Fidelity(format=1, version="0", python="3", machine="m", rows=seen["gives"], not_run=seen["not_run"])

    monkeypatch.setattr(command, "run_suite", run_suite)
    monkeypatch.setattr(keeping, "kept_results", lambda: tmp_path / "results.json")
    monkeypatch.setattr(command, "kept_results", lambda: tmp_path / "results.json")
    monkeypatch.setattr(keeping, "kept_evidence", lambda: tmp_path / "verified.json")
    return seen


def exit_of(*arguments):
    with pytest.raises(SystemExit) as ended:
        command.main(list(arguments))
    return ended.value.code


def test_every_promise_kept_is_0_and_one_missed_is_1(asked, capsys):
    assert exit_of() == 0
    assert "100 %" in capsys.readouterr().out
    asked["gives"] = (ROW, MISSED)
    assert exit_of() == 1
    shown = capsys.readouterr()
    assert "1 below what was promised" in " ".join(shown.out.split())
    assert "wide rms fp16 AVX2: 99.0000 % identical, 1 ulp, statistics -, 0 s" in shown.err


def test_nothing_run_is_3_and_says_why(asked, capsys):
    asked.update(gives=(), not_run=(NotRun(project="mlx", what="all kernels", reason="mlx: not installed"),))
    assert exit_of() == 3
    assert "mlx not run: all kernels: mlx: not installed" in " ".join(capsys.readouterr().out.split())


def test_the_options_say_what_is_run(asked):
    exit_of(
        "--project", "mlx,flax", "--row", "wide", "--row", "Pure", "--isa", "avx2", "--outputs", "1e6", "--seed", "7"
    )
    wanted = {"projects": ["flax", "mlx"], "rows": ("wide", "pure"), "isas": ("avx2",), "outputs": 10**6, "seed": 7}
    assert {name: asked[name] for name in wanted} == wanted
    exit_of("--quick")
    assert asked["outputs"] == 10**5
    exit_of()
    assert asked["outputs"] == 10**7


@pytest.mark.usefixtures("asked")
def test_a_row_that_nothing_ran_is_named(capsys):
    exit_of("--row", "wide,pure")
    said = capsys.readouterr().err
    assert "no kernel that was run has the row pure" in said
    assert "the row wide" not in said


def test_json_goes_to_a_file_or_to_stdout(asked, capsys, tmp_path):
    exit_of("--json", str(tmp_path / "a.json"), "--quiet")
    shown = capsys.readouterr()
    assert shown.err == ""
    assert loaded((tmp_path / "a.json").read_text()).rows == (ROW,)
    exit_of("--json", "-")
    assert json.loads(capsys.readouterr().out)["rows"][0]["implementation"] == "wide"
    assert asked["rows"] == ()


def test_a_file_that_is_something_else_is_left_alone(asked, capsys, tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    assert exit_of("--json", str(other)) == 2
    assert "it exists and is no json report" in capsys.readouterr().err
    assert other.read_text() == "mine"
    assert "rows" not in asked


def test_what_is_kept_is_kept_beside_earlier_results(asked, tmp_path):
    before = dataclasses.replace(ROW, precision="bf16")
    asked["gives"] = (before,)
    exit_of("--write")
    asked["gives"] = (MISSED,)
    assert exit_of("--write", "--row", "wide") == 1
    assert {row.precision for row in loaded((tmp_path / "results.json").read_text()).rows} == {"bf16", "fp16"}
    evidence = parsed((tmp_path / "verified.json").read_text())
    assert (evidence["wide"].outputs, evidence["wide"].identical) == (200, 199)


def test_a_shorter_run_does_not_take_the_place_of_a_longer_one_and_that_is_said(asked, capsys, tmp_path):
    asked["gives"] = (ROW,)
    exit_of("--write")
    asked["gives"] = (dataclasses.replace(MISSED, outputs=Compared(numbers=49, identical=48, max_ulps=1)),)
    exit_of("--write")
    assert "wide, rms fp16 on AVX2: not kept, since the run before compared more than twice" in capsys.readouterr().err
    assert loaded((tmp_path / "results.json").read_text()).rows == (ROW,)


def test_what_no_longer_exists_is_dropped_by_a_run_of_all_kernels_alone(asked, tmp_path):
    asked["gives"] = (ROW, dataclasses.replace(ROW, variant="gone"))
    exit_of("--write")
    asked["gives"] = (ROW,)
    for arguments, left in ((["--row", "wide"], 2), (["--isa", "avx2"], 2), ([], 1)):
        exit_of("--write", *arguments)
        assert len(loaded((tmp_path / "results.json").read_text()).rows) == left


def test_earlier_results_that_cannot_be_read_are_not_lost(asked, capsys, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    assert exit_of("--write") == 2
    assert "results.json" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == "{}"
    assert "rows" not in asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--project", "nothing"],
            "unknown project 'nothing': did you mean tinygrad? ",
        ),
        (["--project", "nope"], "`python -m normcheck.fidelity --help` lists what exists: torch-cpu, transformers"),
        (["--project", "torchcpu"], "unknown project 'torchcpu': did you mean torch-cpu"),
        (["--row", "hf-lama-rmsnorm"], "unknown implementation 'hf-lama-rmsnorm': did you mean hf-llama-rmsnorm"),
        (["--jobs", "-1"], "--jobs must be at least 1, received -1"),
        (["--jobs", "0"], "--jobs must be at least 1, received 0"),
        (["--write", "--outputs", "9999"], "--write needs --outputs of at least 10000, received 9999"),
        (["--outputs", "0"], "--outputs must be from 1 to 1e12, received 0"),
        (["--write", "--quick"], "--write keeps full runs"),
        (["--no-such-option"], "No such option"),
        (["--outputs", "many"], "many"),
    ],
)
def test_errors_are_one_line(asked, capsys, arguments, said):
    assert exit_of(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert "rows" not in asked


def test_the_help_lists_the_projects_and_says_whose_outputs_are_counted(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    exit_of("--help")
    said = " ".join(capsys.readouterr().out.split())
    assert "torch-cpu, transformers, onnx-reference" in said
    assert said.count("shared out among") == 2


def test_it_runs_the_real_kernel_in_a_process_of_its_own(tmp_path):
    path = tmp_path / "found.json"
    isa = ["--isa", "avx2"] if widest() in ("AVX512", "AVX2") else []
    arguments = ["--project", "torch-cpu", "--row", "torch-cpu-layernorm-fp32", "--outputs", "2e4", "--json", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "normcheck.fidelity", *arguments, *isa],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    found = loaded(path.read_text())
    assert {row.implementation for row in found.rows} == {"torch-cpu-layernorm-fp32"}
    assert [row.isa for row in found.rows] == ([name.upper() for name in isa[1:]] or [widest()])
    assert all(row.outputs.share == row.statistics.share == 1.0 for row in found.rows)
    assert found.rows[0].packages.keys() == {"torch"}
    assert dumped(found) == path.read_text()
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
