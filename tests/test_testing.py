"""The assertion for tests: what fails, what the message says, and how a real run of pytest shows it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import normcheck.testing
from normcheck.errors import UnreadableError, UsageError
from normcheck.render.json_report import render
from normcheck.results import Report
from normcheck.testing import assert_norms_safe

ROOT = Path(__file__).resolve().parent.parent
BROKEN, SAFE = str(ROOT / "data" / "breast-cancer-mlp.pt"), str(ROOT / "data" / "digits-cnn.pt")


def message_of(*arguments, **options):
    """Return what the assertion says; it must not hold."""
    with pytest.raises(AssertionError) as caught:
        assert_norms_safe(*arguments, **options)
    return str(caught.value)


def model():
    return torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.LayerNorm(64))


# ------------------------------------------------------------------------------------------- what passes


def test_a_safe_model_gives_its_report():
    report = assert_norms_safe(SAFE)
    assert isinstance(report, Report)
    assert report.results
    assert {result.precision for result in report.results} == {"fp16"}
    assert report.fail_on == "error"


def test_models_may_be_paths_several_of_them_directories_or_live():
    directory = ROOT / "data" / "digits-transformer"
    assert assert_norms_safe(Path(SAFE)).layers
    assert {layer.file for layer in assert_norms_safe([SAFE, str(directory)]).layers} == {SAFE, str(directory)}
    (layer,) = assert_norms_safe(model(), inputs=torch.ones(4, 8)).layers
    assert layer.name == "1"


def test_precisions_are_one_or_several():
    one = assert_norms_safe(model(), precision="bf16")
    two = assert_norms_safe(model(), precision=["bf16", "fp16"])
    assert [{result.precision for result in report.results} for report in (one, two)] == [{"bf16"}, {"bf16", "fp16"}]


def test_options_are_those_of_analyze():
    assert assert_norms_safe(BROKEN, params="autocast", mode="eval").settings["params"] == "autocast"
    report = assert_norms_safe(BROKEN, mode="eval", ignore=["NC102", "NC104"])
    assert report.summary.ignored > 0
    assert assert_norms_safe(BROKEN, mode="eval", severity={"NC1": "warning"}).summary.findings.error == 0


# -------------------------------------------------------------------------------------------- what fails


def test_the_message_has_findings_the_worst_first_with_layer_and_fix():
    message = message_of(BROKEN, mode="eval")
    lines = message.splitlines()
    assert lines[0] == f"normcheck: 2 errors in 1 of 2 layers of {BROKEN}"
    assert [line for line in lines if line.startswith(("error", "warning", "note"))] == ["error NC102", "error NC104"]
    assert "\n  input_norm batch-l2 fp16 wide eval: 2 of 30 rows collapse to beta" in message
    assert message.count("\n  fix: keep this layer's parameters and running statistics in float32") == 2
    assert lines[-1] == "not failing: 1 warning, 7 notes"


def test_the_message_names_the_step():
    message = message_of(model(), inputs=1e3 * torch.ones(4, 8), implementations=["pure"])
    assert "1 layer-l2 fp16 pure at square: 4 of 4 rows collapse to beta" in message


def test_less_severe_findings_fail_when_asked_to():
    assert_norms_safe(BROKEN, mode="eval", params="autocast", fail_on="warning")
    assert "warning NC301" in message_of(BROKEN, mode="eval", fail_on="warning")
    message = message_of(BROKEN, mode="eval", params="autocast", fail_on="note")
    assert "note NC401" in message
    assert "not failing" not in message


def test_notes_of_the_view_that_nobody_asked_for_are_told_when_they_fail():
    message = message_of(BROKEN, mode="eval", params="autocast", select=["NC202"], fail_on="note")
    assert message.splitlines()[0].startswith("normcheck: 2 notes in all 2 layers of ")
    assert "note NC202" in message
    assert "fix: " in message


def test_many_different_findings_are_counted_and_not_told(monkeypatch):
    report = normcheck.testing.analyze(BROKEN, precisions="fp16", mode="eval")
    (first, *_) = [finding for finding in report.findings if finding.rule == "NC104"]
    many = tuple(replace(first, fix=f"fix {place:02}") for place in range(30))
    monkeypatch.setattr(normcheck.testing, "analyze", lambda *_, **__: replace(report, findings=many))
    message = message_of(BROKEN)
    told = message.count("fix: fix ")
    assert 1 < told < 10
    assert "fix: fix 00\n" in message
    assert message.endswith(f"\nand {30 - told} more: {30 - told} NC104")


def test_many_layers_of_one_finding_are_told_together(monkeypatch):
    report = normcheck.testing.analyze(BROKEN, precisions="fp16", mode="eval")
    (first, *_) = [finding for finding in report.findings if finding.rule == "NC102" and finding.severity == "error"]
    names = [f"encoder.{place}.norm" for place in range(400)]
    layers = tuple(replace(report.layers[0], name=name) for name in names)
    many = replace(report, layers=layers, findings=tuple(replace(first, layer=name) for name in names))
    monkeypatch.setattr(normcheck.testing, "analyze", lambda *_, **__: many)
    message = message_of(BROKEN)
    assert message.startswith(f"normcheck: 400 errors in all 400 layers of {BROKEN}\n")
    assert len(message.splitlines()) < 10


def test_nothing_analysed_fails():
    bare = torch.nn.Sequential(torch.nn.Linear(3, 3))
    assert message_of(bare) == "normcheck: nothing was analysed in module: no normalization layers were found"


def test_nothing_analysed_says_what_was_skipped():
    message = message_of(model(), implementations=["wide-sum"], kinds=[("1", "none")])
    assert message.startswith("normcheck: nothing was analysed in module")
    alone = torch.nn.BatchNorm1d(4)
    message = message_of(alone, mode="train", batch_size=1, spatial=(1,))
    assert message.startswith("normcheck: nothing was analysed in module\n")
    assert "each statistic is of a single element (NC402)" in message


def test_a_file_that_cannot_be_read_fails():
    message = message_of("nosuch.pt")
    assert message.startswith("normcheck: nothing was analysed\nnosuch.pt: there is no such file or directory")
    message = message_of([SAFE, str(ROOT / "README.md")])
    assert message.startswith("normcheck: not everything could be analysed\n")
    assert f"unreadable {ROOT / 'README.md'}: " in message


@pytest.mark.parametrize("options", [{"fail_on": "never"}, {"fail_on": "eror"}, {"precision": "fp61"}, {"params": "x"}])
def test_a_wrong_value_is_a_usage_error_and_no_failed_assertion(options):
    with pytest.raises(UsageError):
        assert_norms_safe(SAFE, **options)


def test_hostile_names_are_escaped():
    hostile = torch.nn.Module()
    hostile.add_module("a\x1b[2J\n\u202eb", torch.nn.LayerNorm(4, eps=1e-30))
    message = message_of(hostile, implementations=["pure"], fail_on="note")
    assert "a\\x1b[2J\\n\\u202eb" in message
    assert not {"\x1b", "\u202e"} & set(message)


# ---------------------------------------------------------------------------------------------- baselines


def test_what_is_in_the_baseline_does_not_fail(tmp_path):
    old = tmp_path / "old.json"
    old.write_text(render(normcheck.testing.analyze(BROKEN, precisions="fp16", mode="eval")))
    report = assert_norms_safe(BROKEN, mode="eval", baseline=old)
    assert report.summary.known > 0
    assert report.fail_on == "error"


def test_what_is_new_fails_and_the_baseline_is_named(tmp_path):
    old = tmp_path / "old.json"
    old.write_text(render(normcheck.testing.analyze(BROKEN, precisions="fp16", mode="eval", params="autocast")))
    message = message_of(BROKEN, mode="eval", baseline=str(old), ignore=["NC104"])
    assert message.splitlines()[0] == f"normcheck: 1 error in 1 of 2 layers of {BROKEN}, new or worse than in {old}"
    assert "error NC102" in message


def test_a_baseline_that_is_no_report_is_an_error(tmp_path):
    with pytest.raises(UnreadableError, match="cannot be read"):
        assert_norms_safe(SAFE, baseline=tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UnreadableError, match=r"bad\.json: not a normcheck report"):
        assert_norms_safe(SAFE, baseline=tmp_path / "bad.json")


# --------------------------------------------------------------------------------------- a run of pytest

TESTS = f"""
from normcheck.testing import assert_norms_safe


def test_broken():
    assert_norms_safe({BROKEN!r}, mode="eval")


def test_safe():
    assert_norms_safe({SAFE!r})
"""


def test_pytest_shows_the_message_and_none_of_our_frames(tmp_path):
    (tmp_path / "test_model.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_model.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, text=True)
    assert done.returncode == 1, done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "E       AssertionError: normcheck: 2 errors in 1 of 2 layers of " in done.stdout
    assert "E         input_norm batch-l2 fp16 wide eval: 2 of 30 rows collapse" in done.stdout
    assert ">       assert_norms_safe(" in done.stdout
    assert "testing.py" not in done.stdout
    assert "raise AssertionError" not in done.stdout


def test_it_works_where_pytest_is_not_installed():
    code = (
        "import sys\n"
        "sys.modules['pytest'] = sys.modules['_pytest'] = None\n"
        "from normcheck.testing import assert_norms_safe\n"
        f"assert assert_norms_safe({SAFE!r}).results\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")


def test_what_is_named_of_its_own_is_not_an_option_of_analyze():
    own = set(inspect.signature(assert_norms_safe).parameters) - {"model_or_path", "options"}
    assert own == {"precision", "fail_on", "baseline"}
    assert not own & set(inspect.signature(normcheck.testing.analyze).parameters)
