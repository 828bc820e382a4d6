"""`--reproducer` from the command line to the exit code of the script: file names, what is in the way, what is said."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from normcheck.cli import reproducer
from normcheck.cli.reproducer import file_name

SIMULATE = ("simulate", "--std", "100", "--implementation", "pure", "--shape", "4,4,6,6", "--jobs", "1")
NAME = "normcheck-batch-l2-fp16-pure-train"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Run in a folder of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def python(script, *, cwd):
    return subprocess.run(
        [sys.executable, "-I", script], capture_output=True, check=False, text=True, cwd=cwd, timeout=60
    )


# -------------------------------------------------------------------------------------------- what is written


def test_script_and_data_are_named_after_the_result_and_show_the_failure(normcheck, here, tmp_path):
    outcome = normcheck(*SIMULATE, "--reproducer", "NC102")
    assert (outcome.code, listing(here)) == (1, [f"{NAME}.npz", f"{NAME}.py"])
    said = [line for line in outcome.err.splitlines() if "wrote" in line]
    assert said == [f"normcheck: NC102 of batch-l2: wrote {NAME}.py and {NAME}.npz; to see it: python {NAME}.py"]
    shown = python(here / f"{NAME}.py", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert shown.stdout.endswith("the failure shows: collapsed: channel 0, 1, 2, 3\n")


def test_the_report_is_the_same_with_and_without(normcheck):
    assert normcheck(*SIMULATE, "--reproducer", "NC102").out == normcheck(*SIMULATE).out


def test_the_same_run_writes_the_same_bytes_over_its_own_files(normcheck, here):
    normcheck(*SIMULATE, "--reproducer", "NC102")
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert normcheck(*SIMULATE, "--reproducer", "NC102").code == 1
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_a_path_can_be_given(normcheck, here, tmp_path):
    outcome = normcheck(*SIMULATE, "--reproducer", "batch-l2", "--reproducer-to", tmp_path / "a b.py", "--quiet")
    assert (outcome.code, outcome.err, listing(here)) == (1, "", [])
    assert listing(tmp_path) == ["a b.npz", "a b.py", "here"]
    assert python(tmp_path / "a b.py", cwd=here).returncode == 1


def test_a_script_without_its_data_or_with_anothers_says_so(normcheck, here):
    normcheck(*SIMULATE, "--reproducer", "NC102")
    data = here / f"{NAME}.npz"
    content = data.read_bytes()
    data.write_bytes(content[:-1] + b"x")
    other = python(here / f"{NAME}.py", cwd=here)
    assert (other.returncode, other.stdout) == (2, f"{NAME}.npz is not the file that was written with this script\n")
    data.unlink()
    none = python(here / f"{NAME}.py", cwd=here)
    assert (none.returncode, none.stderr) == (2, "")
    assert none.stdout.startswith(f"cannot read {NAME}.npz, which belongs beside this script: ")


def test_of_a_checkpoint(normcheck, here):
    path = Path(__file__).parents[2] / "data" / "breast-cancer-mlp.pt"
    outcome = normcheck("analyze", path, "--precision", "fp16", "--mode", "eval", "--reproducer", "NC102:input_*")
    name = "normcheck-input_norm-batch-l2-fp16-wide-eval"
    assert (outcome.code, listing(here)) == (1, [f"{name}.npz", f"{name}.py"])
    shown = python(here / f"{name}.py", cwd=here)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert "  layer: input_norm\n" in shown.stdout
    assert np.isfinite(np.load(here / f"{name}.npz")["running_statistic"]).all()


HOSTILE = ["../../up", "a/b\\c", '\'; exit(7) #\n"""\nexit(7)', "\x1b[2J\u202e", "nul\0", "x" * 300, "{{1}}"]


@pytest.mark.parametrize("layer", HOSTILE)
def test_hostile_layer_names_make_safe_file_names(normcheck, here, layer):
    state = {f"{layer}.{name}": value for name, value in torch.nn.BatchNorm2d(4).state_dict().items()}
    state[f"{layer}.running_var"].fill_(2e6)
    torch.save(state, here / "model.pt")
    outcome = normcheck("analyze", here / "model.pt", "--precision", "fp16", "--mode", "eval", "--reproducer", "NC102")
    (script,) = (path for path in here.iterdir() if path.suffix == ".py")
    assert outcome.code == 1
    assert re.fullmatch(r"normcheck-[A-Za-z0-9._-]+\.py", script.name)
    assert listing(here) == sorted(["model.pt", script.name, f"{script.stem}.npz"])
    shown = python(script, cwd=here)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert "  norm: batch-l2\n" in shown.stdout
    assert not set(shown.stdout + outcome.err) & set("\x1b\u202e\0")


def candidate(layer):
    result = SimpleNamespace(layer=layer, norm="batch-l2", precision="fp16", implementation="wide", mode="eval")
    return SimpleNamespace(result=result)


def test_different_layers_have_different_files():
    names = [file_name(candidate(layer)) for layer in [*HOSTILE, "..", "", "a b", "a_b", "a  b", "\ud800", "x" * 301]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"normcheck-[A-Za-z0-9][A-Za-z0-9._-]*\.py", name) and len(name) < 140 for name in names)
    assert file_name(candidate("layer4.1.bn2")) == "normcheck-layer4.1.bn2-batch-l2-fp16-wide-eval.py"


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reproducer", "NC999"), "unknown rule 'NC999'"),
        (("--reproducer", ""), "--reproducer names nothing"),
        (("--reproducer-to", "x.py"), "--reproducer-to says where, not what"),
        (("--reproducer", "NC102", "--reproducer-to", "x.txt"), "which ends in .py"),
        (("--reproducer", "NC102", "--reproducer-to", "-"), "which ends in .py"),
        (("--reproducer", "NC102", "--reproducer-to", "no/x.py"), "cannot write no/x.py: there is no directory"),
        (("--reproducer", "NC102", "--reproducer-to", "folder.py"), "cannot write folder.py: it is a directory"),
        (("--reproducer", "NC102", "--reproducer-to", "mine.py"), "mine.py exists and is no reproducer"),
        (("--reproducer", "NC102", "--reproducer-to", "data.py"), "data.npz exists and is no reproducer"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_computation(engine, normcheck, here, arguments, message):
    (here / "folder.py").mkdir()
    (here / "mine.py").write_text("print('mine')\n")
    np.savez(here / "data.npz", x=np.zeros(3))
    before = listing(here)
    outcome = normcheck("simulate", *arguments)
    assert (outcome.code, outcome.out, engine.calls) == (2, "", [])
    assert outcome.err.startswith("normcheck: error: ")
    assert message in outcome.err
    assert listing(here) == before
    assert (here / "mine.py").read_text() == "print('mine')\n"


@pytest.mark.parametrize(
    ("spec", "message"),
    [("NC102:bn*", "matches no layer; there are batch-l2"), ("bn1", "matches no layer; there are batch-l2")],
)
def test_a_layer_that_does_not_exist_is_an_error_that_costs_no_report(normcheck, here, spec, message):
    outcome = normcheck(*SIMULATE, "--reproducer", spec, "--json", "report.json")
    assert (outcome.code, listing(here)) == (2, ["report.json"])
    assert message in outcome.err
    assert outcome.out == normcheck(*SIMULATE).out


def test_a_file_of_the_users_under_a_derived_name_is_left_alone(normcheck, here):
    (here / f"{NAME}.py").write_text("mine")
    outcome = normcheck(*SIMULATE, "--reproducer", "NC102")
    assert (outcome.code, listing(here), (here / f"{NAME}.py").read_text()) == (2, [f"{NAME}.py"], "mine")
    assert "exists and is no reproducer" in outcome.err


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("NC202", "nothing was found there that rows show"),
        ("NC101", "NC102, NC202, NC301 fired there, and NC101 did not"),
    ],
)
def test_what_no_row_shows_has_its_line_and_the_report_goes_out(normcheck, here, rule, why):
    outcome = normcheck(*SIMULATE, "--reproducer", rule, "--json", "report.json")
    assert (outcome.code, listing(here)) == (1, ["report.json"])
    assert f"normcheck: --reproducer {rule}: nothing to reproduce: {why}" in outcome.err
    assert outcome.out == normcheck(*SIMULATE).out


def test_where_nothing_is_analysed_nothing_is_written(normcheck, here):
    torch.save({"a": torch.zeros(3)}, "none.pt")
    outcome = normcheck("analyze", "none.pt", "--reproducer", "NC102")
    assert (outcome.code, listing(here)) == (3, ["none.pt"])


def test_a_full_disk_leaves_old_files_whole(normcheck, here, monkeypatch):
    normcheck(*SIMULATE, "--reproducer", "NC102")
    before = {path.name: path.read_bytes() for path in here.iterdir()}

    def fsync(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    outcome = normcheck(*SIMULATE, "--reproducer", "NC102", "--std", "200")
    assert outcome.code == 2
    assert "No space left" in outcome.err
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_only_scripts_of_ours_count_as_ours(here):
    for name, text, is_ours in (
        ("a", "# Written by normcheck 9.9.\n", True),
        ("b", "# Written by me", False),
        ("c", "", False),
    ):
        (here / name).write_text(text)
        assert reproducer._is_script(name) is is_ours
    (here / "d").write_bytes(b"PK\3\4 no archive")
    assert not reproducer._is_data("d")
