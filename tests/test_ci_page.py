"""docs/ci.md: its configurations have the shape that each platform wants, and their normcheck lines run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import normcheck
from normcheck.cli.exit_codes import ExitCode

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
SHELL = shutil.which("bash")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


ACTIONS, GITLAB, HOOKS, LOCAL_HOOK, STEP = map(yaml.safe_load, blocks("yaml"))
STEPS = ACTIONS["jobs"]["normcheck"]["steps"]
JOB = GITLAB["normcheck"]


@pytest.fixture
def runner(tmp_path):
    """Return a function that runs lines as a job's shell would, in a checkout whose model.pt is one of our models."""
    if SHELL is None:
        pytest.skip("no bash on this machine")
    program = tmp_path / "bin" / "normcheck"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m normcheck "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    checkout, summary = tmp_path / "checkout", tmp_path / "summary"
    checkout.mkdir()
    (checkout / "data").symlink_to(ROOT / "data")
    summary.touch()
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])

    def run(line, model="digits-cnn.pt"):
        shutil.copy(ROOT / "data" / model, checkout / "model.pt")
        return subprocess.run(
            [SHELL, "-e", "-o", "pipefail", "-c", line],
            cwd=checkout,
            env={**os.environ, "PATH": path, "GITHUB_STEP_SUMMARY": str(summary)},
            capture_output=True,
            text=True,
            check=False,
        )

    run.checkout, run.summary = checkout, summary
    return run


def normcheck_line(lines):
    (line,) = [line for line in lines if line.startswith("normcheck ")]
    return line


# ------------------------------------------------------------------------------------------- what decides


def test_every_exit_code_is_explained():
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert codes == [int(code) for code in ExitCode if code is not ExitCode.INTERRUPTED]


def test_what_is_to_be_replaced_is_named():
    named = set(re.findall(r"\bADDRESS_\w+", PAGE.split("## What decides")[0]))
    assert set(re.findall(r"\bADDRESS_\w+", PAGE)) == named
    assert len(named) == 2


# ------------------------------------------------------------------------------------------- GitHub Actions


def test_the_workflow_has_the_shape_of_one():
    assert set(ACTIONS[True]) == {"push", "pull_request"}  # YAML 1.1 reads the key `on` as true
    assert ACTIONS["permissions"] == {"contents": "read", "security-events": "write", "actions": "read"}
    assert ACTIONS["jobs"]["normcheck"]["runs-on"] == "ubuntu-latest"
    assert all(("uses" in step) != ("run" in step) for step in STEPS)
    assert all(re.fullmatch(r"[\w-]+/[\w/-]+@v\d+", step["uses"]) for step in STEPS if "uses" in step)


def test_reports_are_uploaded_whether_or_not_the_check_fails():
    check = next(place for place, step in enumerate(STEPS) if "analyze" in step.get("run", ""))
    after = STEPS[check + 1 :]
    assert len(after) == 2
    assert all(step["if"].startswith("${{ always()") for step in after)


@pytest.mark.parametrize(("model", "code"), [("digits-cnn.pt", 0), ("breast-cancer-mlp.pt", 1)])
def test_the_workflows_check_writes_what_later_steps_take(runner, model, code):
    done = runner(normcheck_line(step.get("run", "") for step in STEPS), model)
    assert done.returncode == code, done.stderr
    sarif = next(step["with"]["sarif_file"] for step in STEPS if "upload-sarif" in step.get("uses", ""))
    assert f"hashFiles('{sarif}')" in next(step["if"] for step in STEPS if "upload-sarif" in step.get("uses", ""))
    kept = next(step["with"]["path"] for step in STEPS if "upload-artifact" in step.get("uses", ""))
    written = {path.name for path in runner.checkout.glob(kept)}
    assert written == {"normcheck.sarif", "normcheck.json", "normcheck.html"}
    assert sarif in written
    assert runner.summary.stat().st_size > 0
    assert ("::error" in done.stdout) == (code == 1)


def test_the_summary_can_be_replaced_and_appended_to(runner):
    """The runner reads the file by its name once the step is over; nothing is left beside it."""
    mode = runner.summary.stat().st_mode
    before = {path.name for path in runner.summary.parent.iterdir()}
    assert runner('normcheck analyze model.pt --markdown "$GITHUB_STEP_SUMMARY"').returncode == 0
    assert runner.summary.stat().st_mode == mode
    assert {path.name for path in runner.summary.parent.iterdir()} == before
    whole = runner.summary.read_text(encoding="utf-8")
    (append,) = re.findall(r'`(cat summary\.md >> "\$GITHUB_STEP_SUMMARY")`', PAGE)
    assert runner(f"normcheck analyze model.pt --markdown summary.md\n{append}").returncode == 0
    assert runner.summary.read_text(encoding="utf-8") == 2 * whole


# ------------------------------------------------------------------------------------------------ GitLab


def test_the_job_keeps_its_reports_when_it_fails():
    assert JOB["artifacts"]["when"] == "always"
    assert JOB["artifacts"]["reports"]["junit"].endswith(".xml")
    assert JOB["artifacts"]["reports"]["junit"] in JOB["artifacts"]["paths"]
    assert JOB["variables"]["PIP_CACHE_DIR"] == f"$CI_PROJECT_DIR/{JOB['cache']['paths'][0]}"


@pytest.mark.parametrize(("model", "code"), [("digits-cnn.pt", 0), ("breast-cancer-mlp.pt", 1)])
def test_the_jobs_script_writes_what_it_keeps(runner, model, code):
    done = runner("\n".join(JOB["script"]), model)
    assert done.returncode == code, done.stderr
    assert all((runner.checkout / path).stat().st_size > 0 for path in JOB["artifacts"]["paths"])


# --------------------------------------------------------------------------------------------- pre-commit


def test_the_hook_exists_in_this_version():
    ((repository,),) = (HOOKS["repos"],)
    (provided,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert [hook["id"] for hook in repository["hooks"]] == [provided["id"]]
    assert repository["rev"] == f"v{normcheck.__version__}"


def test_the_hooks_patterns_are_those_of_the_page():
    (provided,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    stated = re.findall(r"`([\w*]*\*[\w.]+)`", re.search(r"\* It looks at (.*?)\n\*", PAGE, re.DOTALL)[1])
    assert len(stated) == 8
    assert all(re.search(provided["files"], name.replace("*", "x")) for name in stated)
    endings = re.findall(r"\w+", provided["files"].partition("\\.(")[2].partition(")")[0])
    assert {name.removeprefix("*.") for name in stated if name.startswith("*.")} == set(endings)


def test_the_hooks_arguments_are_options(runner):
    ((repository,),) = (HOOKS["repos"],)
    arguments = shlex.join(repository["hooks"][0]["args"])
    assert runner(f"normcheck analyze {arguments} model.pt").returncode == 0


def test_a_hook_of_ones_own_runs(runner):
    (hook,) = LOCAL_HOOK["repos"][0]["hooks"]
    assert hook["pass_filenames"] is False
    assert runner(hook["entry"]).returncode == 0
    assert re.search(hook["files"], "data/digits-transformer/model.safetensors")


# ------------------------------------------------------------------------------------------------- pytest


def test_the_tests_of_the_page_do_what_it_says(runner):
    (code,) = blocks("python")
    (shown,) = blocks("text")
    (runner.checkout / "test_page.py").write_text(code)
    command = f"{shlex.quote(sys.executable)} -m pytest -q -n 0 -p no:cacheprovider -W error test_page.py"
    done = runner(command, "breast-cancer-mlp.pt")
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert shown in "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


# ---------------------------------------------------------------------------------------------- baselines


def test_the_baseline_of_the_page_lets_the_same_model_pass_and_no_worse_one(runner):
    write = next(line for block in blocks("sh") for line in block.splitlines() if "normcheck-baseline.json" in line)
    assert runner(write).returncode == 0
    check = STEP[0]["run"]
    assert runner(check, "breast-cancer-mlp.pt").returncode == 0
    assert runner(f"{write} --params autocast").returncode == 0
    done = runner(check, "breast-cancer-mlp.pt")
    assert done.returncode == 1, done.stdout + done.stderr


def test_two_reports_are_compared(runner):
    write = next(line for block in blocks("sh") for line in block.splitlines() if "normcheck-baseline.json" in line)
    assert runner(write).returncode == 0
    assert runner("normcheck analyze model.pt --json normcheck.json", "breast-cancer-mlp.pt").returncode == 1
    (line,) = re.findall(r"`(normcheck diff [^`]*)`", PAGE)
    done = runner(line)
    assert done.returncode == 0, done.stdout + done.stderr
