"""Projects in processes of their own: what a crash, a missing library and an error are, and what is kept."""

from __future__ import annotations

import dataclasses
import json
import stat
import sys

import hand_built_fidelity
import pytest

from normcheck.errors import UsageError
from normcheck.fidelity import suite
from normcheck.fidelity.keeping import evidence_of
from normcheck.fidelity.projects import PROJECTS, Project, environments, projects_named
from normcheck.fidelity.results import Compared, Fidelity, NotRun, Worst
from normcheck.fidelity.suite import kept, merged, run_suite
from normcheck.fidelity.table import dumped, loaded, table
from normcheck.fidelity.worker import described
from normcheck.norms.catalogue import catalogue
from normcheck.norms.evidence import digest, parsed, rendered

ROW = dataclasses.replace(hand_built_fidelity.ROW, project="flax", norm="layer-l2", packages={"numpy": "2"}, trials=3)
WRONG = dataclasses.replace(
    ROW,
    precision="bf16",
    outputs=Compared(numbers=1_000_000, identical=999_999, max_ulps=2),
    most_ulps=1,
    worst=Worst(
        inputs="zeros", shape=(2, 5), index=(1, 4), x=float("inf"), kernel=float("nan"), row=1.0, ulps=-1, call="eps 0"
    ),
)
FAKE = Project("flax", "none", "Fakes", ("numpy",))


def results(*rows, not_run=()):
    return Fidelity(format=1, version="0", python="3", machine="m", rows=rows, not_run=not_run)


@pytest.fixture
def process(tmp_path, monkeypatch):
    """Replace the process that runs kernels by a script; its text sees `done`, the kernels that are left out."""

    def replaced(text):
        program = tmp_path / "python"
        head = f"#!{sys.executable}\nimport json, os, sys\njob = json.loads(sys.stdin.read())\ndone = job['done']\n"
        say = "def say(**m):\n    print(json.dumps(m), flush=True)\n"
        program.write_text(head + say + f"ROW = {dataclasses.asdict(ROW)!r}\n" + text)
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setattr(suite.sys, "executable", str(program))

    return replaced


def test_after_a_crash_the_run_goes_on_behind_the_kernel(process):
    process(
        "for i in range(done, 3):\n"
        "    say(begins=f'kernel {i}', at=i / 3)\n"
        "    if i == 1:\n        sys.stderr.write('a reason\\n'); os._exit(7)\n"
        "    say(row={**ROW, 'variant': str(i)})\n"
    )
    seen = []
    found = run_suite([FAKE], tick=lambda share, at: seen.append((share, at)), done=seen.append)
    assert [row.variant for row in found.rows] == ["0", "2"]
    assert found.not_run == (NotRun(project="flax", what="kernel 1", reason="the process ended with code 7: a reason"),)
    assert found.rows[0] in seen
    assert (1.0, "flax") in seen


def test_a_process_that_dies_before_any_kernel_is_not_started_again(process):
    process("sys.exit(3)")
    found = run_suite([FAKE])
    assert [item.what for item in found.not_run] == ["all kernels"]
    assert found.rows == ()


def test_an_interrupt_ends_the_run(process, tmp_path):
    ran = tmp_path / "ran"
    process(
        f"open({str(ran)!r}, 'a').write('x')\n"
        "say(begins='a')\nimport signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "os.kill(os.getpid(), signal.SIGINT)"
    )
    with pytest.raises(KeyboardInterrupt):
        run_suite([FAKE, FAKE, FAKE], jobs=1)
    assert ran.read_text() == "x"


def test_an_error_of_a_kernel_is_a_line_and_the_others_run(process):
    process("say(begins='a'); say(failed='no\\nsuch thing', what='a'); say(begins='b'); say(row=ROW)")
    found = run_suite([FAKE])
    assert found.rows == (ROW,)
    assert found.not_run == (NotRun(project="flax", what="a", reason="no such thing"),)


def test_the_job_says_what_is_asked_for(process):
    process("say(failed=json.dumps(job), what=' '.join(k for k in sorted(os.environ) if k.startswith('OMP')))")
    found = run_suite([FAKE], rows=["wide"], outputs=5, seed=9)
    assert json.loads(found.not_run[0].reason) == {
        "project": "flax", "rows": ["wide"], "outputs": 5, "seed": 9, "done": 0
    }  # fmt: skip
    assert found.not_run[0].what == "OMP_NUM_THREADS"


def test_a_library_that_is_missing_is_a_line():
    found = run_suite([dataclasses.replace(FAKE, packages=("numpy", "no-such-package"))])
    assert found.not_run == (NotRun(project="flax", what="all kernels", reason="no-such-package: not installed"),)


def test_results_come_back_from_json_as_they_were():
    found = results(ROW, dataclasses.replace(WRONG, worst=dataclasses.replace(WRONG.worst, kernel=2.0)))
    assert loaded(dumped(found)) == found
    text = dumped(results(WRONG))
    assert '"nan"' in text
    assert "NaN" not in text
    assert repr(loaded(text)) == repr(results(WRONG))


def test_what_is_no_result_is_refused():
    with pytest.raises(ValueError, match=r"normcheck\.fidelity writes"):
        loaded('{"format": 2}')


def test_a_later_run_takes_the_place_of_the_earlier_one_and_of_no_other():
    other = dataclasses.replace(ROW, isa="AVX512")
    old, new = results(ROW, other, not_run=(NotRun(project="mlx", what="a", reason="b"),)), results(WRONG)
    again = dataclasses.replace(ROW, outputs=Compared(numbers=500, identical=500))
    whole = merged(merged(None, old), merged(new, results(again), complete=False), complete=False)
    assert {row.key for row in whole.rows} == {ROW.key, other.key, WRONG.key}
    assert next(row for row in whole.rows if row.key == ROW.key).outputs.numbers == 500
    assert [item.project for item in whole.not_run] == ["mlx"]
    assert merged(whole, results(dataclasses.replace(ROW, project="mlx"))).not_run == ()


def test_a_far_shorter_run_takes_the_place_of_none_but_of_another_row_or_version():
    few = dataclasses.replace(ROW, outputs=Compared(numbers=499, identical=499))
    assert merged(results(ROW), results(few)).rows == (ROW,)
    for other in (dataclasses.replace(few, digest="edited"), dataclasses.replace(few, packages={"numpy": "3"})):
        assert merged(results(ROW), results(other)).rows == (other,)


def test_a_run_of_some_kernels_leaves_what_is_said_of_others():
    before = tuple(NotRun(project="flax", what=what, reason="why") for what in (described(ROW), described(WRONG)))
    elsewhere = NotRun(project="mlx", what="all kernels", reason="why")
    old = results(not_run=(*before, elsewhere))
    assert merged(old, results(ROW), complete=False).not_run == (before[1], elsewhere)
    assert merged(old, results(ROW)).not_run == (elsewhere,)
    gone = NotRun(project="flax", what="all kernels", reason="not installed")
    assert merged(results(not_run=(gone,)), results(ROW), complete=False).not_run == ()


def test_a_run_of_all_kernels_drops_those_that_are_gone_and_keeps_those_that_failed_or_were_not_asked_for():
    other = dataclasses.replace(ROW, isa="AVX512")
    assert merged(results(ROW, WRONG, other), results(ROW)).rows == (ROW, other)
    failed = NotRun(project="flax", what=described(WRONG), reason="it crashed")
    assert {row.key for row in merged(results(ROW, WRONG), results(ROW, not_run=(failed,))).rows} == {
        ROW.key,
        WRONG.key,
    }


def test_a_promise_is_broken_by_the_share_or_by_the_distance():
    assert kept([ROW])
    assert not kept([ROW, WRONG])
    assert not kept([dataclasses.replace(ROW, outputs=Compared(numbers=1000, identical=998))])
    assert not kept([dataclasses.replace(WRONG, outputs=Compared(numbers=9, identical=9, nan_apart=1))])


def test_zeros_of_the_other_sign_are_shown_and_not_called_the_same_bits():
    signs = dataclasses.replace(ROW, outputs=Compared(numbers=1000, identical=1000, zero_signs=36))
    shown = " ".join(table(results(signs), width=200, color=False).split())
    assert "0 + 36 -0" in shown
    assert ": 0 identical in every bit, all promises kept" in shown


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_shows_every_figure_whole(width):
    missing = NotRun(project="mlx", what="all kernels", reason="not installed")
    shown = table(results(ROW, WRONG, not_run=(missing,)), width=width, color=False)
    assert all(len(line) <= width for line in shown.splitlines())
    assert "100 %" in shown
    assert "99.9999 %" in shown
    flat = " ".join(shown.split())
    assert "kernel nan, row 1 (just one is NaN) at y[1,4] of x inf, zeros, shape 2,5, eps 0" in flat
    assert "mlx not run: all kernels: not installed" in flat
    assert "2 kernels of 1 row, 1e6 outputs: 1 identical in every bit, 1 below what was promised" in flat


def test_the_evidence_is_that_of_the_widest_vectors_and_survives_its_file():
    wide = dataclasses.replace(WRONG, isa="AVX512", lanes=16)
    (name, evidence), *rest = evidence_of(results(ROW, wide, dataclasses.replace(ROW, implementation="gone"))).items()
    assert (name, rest) == ("wide", [])
    assert [run.precision for run in evidence.runs] == ["bf16"]
    assert (evidence.outputs, evidence.identical, evidence.largest_ulp) == (1_000_000, 999_999, 2)
    assert evidence.runs[0].statistics == 10
    assert parsed(rendered({name: evidence})) == {name: evidence}


def test_code_without_fused_operations_and_runs_of_other_rows_are_no_evidence():
    plain = dataclasses.replace(ROW, isa="DEFAULT", lanes=8, variant="plain")
    for ignored in (plain, dataclasses.replace(ROW, digest="adapted"), dataclasses.replace(ROW, digest="")):
        assert evidence_of(results(ignored)) == {}
        assert evidence_of(results(ignored, WRONG))["wide"].outputs == 1_000_000
    assert evidence_of(results(ROW))["wide"].digest == digest(catalogue()["wide"])


def test_projects_are_found_by_name_and_their_instruction_sets_by_what_the_machine_has():
    assert [p.name for p in projects_named([" MLX ", "torch-cpu"])] == ["torch-cpu", "mlx"]
    assert projects_named([]) == tuple(PROJECTS.values())
    with pytest.raises(UsageError, match=r"unknown project 'mxl': did you mean mlx\?"):
        projects_named(["mxl"])
    assert environments(PROJECTS["mlx"], []) == ({},)
    torch = PROJECTS["torch-cpu"]
    assert {"ATEN_CPU_CAPABILITY": "default"} in environments(torch) or len(environments(torch)) == 1
    with pytest.raises(UsageError, match="instruction set 'SSE'"):
        environments(torch, ["sse"])
