"""Completion as shells ask for it: the protocol of each, and a bash that has read what --show-completion prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from normcheck.analysis.policy import THRESHOLDS
from normcheck.arithmetic.formats import FORMATS
from normcheck.arithmetic.orders import ORDERS
from normcheck.arithmetic.rounding import MODES
from normcheck.layers.distributions import DISTRIBUTIONS
from normcheck.norms.catalogue import aliases, catalogue
from normcheck.norms.parameters import PARAMS
from normcheck.norms.table import NORMS

LISTS = ["formats", "norms", "implementations", "orders", "distributions", "rules", "schema"]
COMMANDS = ["analyze", "simulate", "convert", "diff", "identify", *LISTS, "cases", "reproduce", "track"]
BASH = shutil.which("bash")


def ask(shell, *words, **more):
    """Return the answer to a shell that completes the last of these words."""
    line = " ".join(["normcheck", *words])
    question = {
        "_NORMCHECK_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1],
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-m", "normcheck"], env={**os.environ, **question}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def offered(*words, **more):
    return ask("bash", *words, **more).split()


def test_commands_in_their_order():
    assert offered("") == COMMANDS
    assert offered("di") == ["diff", "distributions"]


@pytest.mark.parametrize(
    ("command", "begun", "wanted"),
    [
        ("simulate", "--pre", ["--precision"]),
        ("analyze", "--th", ["--threshold"]),
        ("analyze", "--show-s", ["--show-settings"]),
        ("diff", "--fail", ["--fail-on"]),
    ],
)
def test_options(command, begun, wanted):
    assert offered(command, begun) == wanted


@pytest.mark.parametrize("command", ["simulate", "analyze"])
@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--precision", [name for form in FORMATS for name in dict.fromkeys((form.label, form.name))]),
        ("--norm", list(NORMS)),
        ("--implementation", [*catalogue(), *(alias.name for alias in aliases())]),
        ("--dist", list(DISTRIBUTIONS)),
        ("--params", list(PARAMS)),
        ("--rounding", list(MODES)),
        ("--order", list(ORDERS)),
        ("--threshold", [f"{name}=" for name in THRESHOLDS]),
        ("--mode", ["train", "eval"]),
        ("--constant", ["exact", "paper"]),
        ("--format", ["table", "json", "jsonl", "markdown", "github"]),
        ("--fail-on", ["error", "warning", "note", "never"]),
    ],
)
def test_values(command, option, wanted):
    assert offered(command, option, "") == wanted


@pytest.mark.parametrize("option", ["--select", "--ignore", "--severity"])
def test_codes_of_rules(option):
    from normcheck import rules

    levels = ("error", "warning", "note")
    codes = [rule.code for rule in rules()]
    wanted = [f"{code}={level}" for code in codes for level in levels] if option == "--severity" else ["ALL", *codes]
    assert offered("analyze", option, "") == wanted
    assert offered("simulate", option, "NC102")[0].startswith("NC102")


@pytest.mark.parametrize(
    ("begun", "wanted"),
    [
        ("b", ["bf16", "bfloat16"]),
        ("fp16,b", ["fp16,bf16", "fp16,bfloat16"]),
        ("bf16,fp16,b", ["bf16,fp16,bfloat16"]),
        ("nothing", []),
    ],
)
def test_the_last_of_several_values_separated_by_commas(begun, wanted):
    assert offered("simulate", "--precision", begun) == wanted


@pytest.mark.parametrize(
    ("command", "begun", "wanted"),
    [
        ("formats", "fp1", ["fp16"]),
        ("norms", "batch-l1", ["batch-l1", "batch-l1-uncentred"]),
        ("implementations", "wide-s", ["wide-sum", "wide-saved-io"]),
        ("distributions", "la", ["laplace"]),
        ("rules", "NC101", ["NC101"]),
        ("reproduce", "weight", ["weight-norm", "weight-decay"]),
    ],
)
def test_names_that_a_list_shows_in_full(command, begun, wanted):
    assert offered(command, begun) == wanted


def test_paths_are_left_to_the_shell():
    assert offered("analyze", "") == []
    assert offered("analyze", "--json", "") == []


def test_other_shells_get_the_help_too():
    assert ask("zsh", "simulate", "--precision", "fp16") == '_arguments \'*: :(("fp16":"IEEE binary16"))\'\n'
    assert ask("fish", "simulate", "--precision", "fp16") == "fp16\tIEEE binary16\n"
    assert ask("powershell", "simulate", "--precision", "fp16") == "fp16:::IEEE binary16\n"


def test_broken_settings_do_not_disturb_it(tmp_path):
    (tmp_path / "normcheck.toml").write_text("nonsense\n")
    assert offered("simulate", "--mode", "t", NORMCHECK_CONFIG=str(tmp_path / "normcheck.toml"), NORMCHECK_NO="1") == [
        "train"
    ]


SESSION = """
eval "$(normcheck --show-completion)"
complete -p normcheck
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=(); _normcheck_completion normcheck; }
ask normcheck simulate --precision fp16,b
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def on_path(tmp_path):
    """A PATH on which `normcheck` is this one."""
    command = tmp_path / "normcheck"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m normcheck "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.skipif(BASH is None, reason="no bash on this machine")
def test_bash_completes_once_it_has_read_the_script(on_path):
    done = subprocess.run([BASH, "--norc", "-c", SESSION], env=on_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "complete -o default -F _normcheck_completion normcheck",
        "fp16,bf16",
        "fp16,bfloat16",
    ]


@pytest.mark.skipif(BASH is None, reason="no bash on this machine")
def test_bash_completes_from_its_start_on_once_it_is_installed(on_path, tmp_path):
    home = {**on_path, "HOME": str(tmp_path)}
    install = [BASH, "--norc", "-c", "normcheck --install-completion; exit $?"]
    assert subprocess.run(install, env=home, capture_output=True, check=False).returncode == 0
    interactive = [BASH, "--rcfile", str(tmp_path / ".bashrc"), "-i", "-c", "complete -p normcheck"]
    done = subprocess.run(interactive, env=home, capture_output=True, text=True, check=False)
    assert done.stdout == "complete -o default -F _normcheck_completion normcheck\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_of_other_shells_is_theirs(shell, tmp_path):
    executable = shutil.which(shell)
    if executable is None:
        pytest.skip(f"no {shell} on this machine")
    script = tmp_path / "script"
    script.write_text(script_of(shell))
    assert subprocess.run([executable, "-n", str(script)], check=False).returncode == 0


def script_of(shell):
    more = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "normcheck", "--show-completion", shell]
    return subprocess.run(command, env=more, capture_output=True, text=True, check=True).stdout


def test_a_shell_that_is_not_known_is_an_error_and_no_finding(normcheck, monkeypatch):
    from typer import completion

    monkeypatch.setattr(completion, "_get_shell_name", lambda: "tcsh")
    assert normcheck("--show-completion").code == 2


LOADED = "print(*{'torch', 'numba', 'scipy.stats'} & set(sys.modules))"


@pytest.mark.parametrize(
    "call",
    [
        "precisions('')", "norms('')", "implementations('')", "distributions()", "selectors('')", "severities('')",
        "thresholds('')", "params()", "roundings()", "orders()",
    ],
)  # fmt: skip
def test_the_answer_loads_no_engine(call):
    command = [sys.executable, "-c", f"import sys; from normcheck.cli import completion; completion.{call}; {LOADED}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"
