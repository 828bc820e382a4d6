"""``normcheck analyze``: what reaches the engine, what is said, and the exit code."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from importlib import import_module

import numpy as np
import pytest
from hand_built_model import CLEAN_MODEL, MODEL, MODEL_FINDINGS, NO_NORMS, UNSAFE

from normcheck.cli.analyze import analyze
from normcheck.cli.deliver import OUTPUTS, ReportFormat
from normcheck.errors import UnreadableError, UsageError
from normcheck.render import json_report, table
from normcheck.results import Skipped

FORMATS = [form.value for form in ReportFormat]
DEFAULTS = {
    "activations": None,
    "model_factory": None,
    "input_file": None,
    "precisions": ("fp16", "bf16"),
    "norms": (),
    "implementations": (),
    "params": "half",
    "mode": None,
    "distribution": "gaussian",
    "mean": 0.0,
    "std": 1.0,
    "seed": 0,
    "batch_size": 32,
    "spatial": (8, 8),
    "kinds": (),
    "eps": (),
    "layers": (),
    "trust": False,
    "constant": "exact",
    "k": 10,
    "rounding": "nearest-even",
    "order": None,
    "simd": None,
    "ftz": False,
    "daz": False,
    "backward": False,
    "loss_scale": 1.0,
    "grad_dist": "gaussian",
    "grad_std": 1.0,
    "select": (),
    "ignore": (),
    "severity": (),
    "thresholds": (),
    "jobs": None,
    "progress": None,
    "watch": None,
    "say": None,
}
READABLE = dataclasses.replace(MODEL, unreadable=())
BROKEN = (
    Skipped(name="a.pt", reason="a.pt: the archive ends early; download it again"),
    Skipped(name="b\x1b[2J.pt", reason="no\nmodel"),
)


def uncolored(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def with_severities(report, *severities):
    findings = tuple(dataclasses.replace(MODEL_FINDINGS[0], severity=severity) for severity in severities)
    return dataclasses.replace(report, findings=findings)


@pytest.fixture(autouse=True)
def model(engine):
    engine.report = READABLE
    return engine


# ----------------------------------------------------------------------------------------- what reaches the engine


def test_defaults_reach_the_engine(engine, normcheck):
    normcheck("analyze", "model.pt", "--quiet")
    assert engine.calls == [{"model": ("model.pt",), **DEFAULTS}]


def test_defaults_are_the_engines_own(monkeypatch):
    monkeypatch.undo()  # the stand-in
    from normcheck.analysis.analyze import analyze as real

    parameters = {name: parameter.default for name, parameter in inspect.signature(real).parameters.items()}
    in_python_alone = {"model", "inputs", "match"}
    assert {name: value for name, value in parameters.items() if name not in in_python_alone} == DEFAULTS


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["--model", "package.module:build"], {"model_factory": "package.module:build"}),
        (["--input", "x.npy"], {"input_file": "x.npy"}),
        (["--activations", "seen.npz"], {"activations": "seen.npz"}),
        (["--precision", "fp16,fp32", "--precision", "e5m10"], {"precisions": ("fp16", "fp32", "e5m10")}),
        (["--norm", "batch-l1,batch-linf"], {"norms": ("batch-l1", "batch-linf")}),
        (["--implementation", "pure,wide"], {"implementations": ("pure", "wide")}),
        (["--params", "autocast"], {"params": "autocast"}),
        (["--mode", "eval"], {"mode": "eval"}),
        (["--dist", "student-t(df=4)"], {"distribution": "student-t(df=4)"}),
        (["--mean", "-2"], {"mean": -2.0}),
        (["--std", "100"], {"std": 100.0}),
        (["--seed", "7"], {"seed": 7}),
        (["--batch-size", "1"], {"batch_size": 1}),
        (["--spatial", "14,14,2"], {"spatial": (14, 14, 2)}),
        (
            ["--kind", "a.*=group(8),b=rms", "--kind", "c=none"],
            {"kinds": (("a.*", "group(8)"), ("b", "rms"), ("c", "none"))},
        ),
        (["--eps", "1e-3"], {"eps": ((None, 1e-3),)}),
        (["--eps", "1e-3,*.bn1=1e-5", "--eps", "x=0"], {"eps": ((None, 1e-3), ("*.bn1", 1e-5), ("x", 0.0))}),
        (["--layer", "*.bn1,head"], {"layers": ("*.bn1", "head")}),
        (["--trust"], {"trust": True}),
        (["--constant", "paper"], {"constant": "paper"}),
        (["--k", "3"], {"k": 3}),
        (["--rounding", "stochastic"], {"rounding": "stochastic"}),
        (["--order", "lanes(8, serial)"], {"order": "lanes(8, serial)"}),
        (["--simd", "8"], {"simd": 8}),
        (["--ftz"], {"ftz": True}),
        (["--daz"], {"daz": True}),
        (["--backward"], {"backward": True}),
        (
            ["--backward", "--loss-scale", "1024", "--grad-dist", "laplace", "--grad-std", "1e-6"],
            {"backward": True, "loss_scale": 1024.0, "grad_dist": "laplace", "grad_std": 1e-6},
        ),
        (["--select", "NC1,NC301:encoder.*"], {"select": ("NC1", "NC301:encoder.*")}),
        (["--ignore", "NC103", "--ignore", "NC2"], {"ignore": ("NC103", "NC2")}),
        (["--severity", "NC102=warning,NC1:*.a=b=note"], {"severity": (("NC102", "warning"), ("NC1:*.a=b", "note"))}),
        (
            ["--threshold", "headroom_bits=2", "--threshold", "enc.*:deviation=1e-3"],
            {"thresholds": (("headroom_bits", 2.0), ("enc.*:deviation", 1e-3))},
        ),
        (["--jobs", "2"], {"jobs": 2}),
    ],
)
def test_options_reach_the_engine(engine, normcheck, arguments, changed):
    outcome = normcheck("analyze", "model.pt", *arguments, "--fail-on", "never", "--quiet")
    assert outcome.code == 0
    assert engine.calls == [{"model": ("model.pt",), **DEFAULTS, **changed}]


def test_several_models_may_be_given_in_any_place(engine, normcheck):
    normcheck("analyze", "a,b.pt", "--seed", "1", "c.pt", "--quiet")
    assert engine.calls[0]["model"] == ("a,b.pt", "c.pt")


def test_the_path_may_be_left_out_where_the_model_is_built(engine, normcheck):
    normcheck("analyze", "--model", "package:build", "--quiet")
    assert engine.calls == [{"model": (), **DEFAULTS, "model_factory": "package:build"}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no model", "--model"]),
        (["m.pt", "--top", "0"], ["--top 0", "1 or more"]),
        (["m.pt", "--top", "few"], ["--top", "few"]),
        (["m.pt", "--spatial", "8x8"], ["--spatial", "8x8", "8,8"]),
        (["m.pt", "--kind", "norm"], ["--kind", "PATTERN=KIND"]),
        (["m.pt", "--kind", "a=nonsense"], ["nonsense"]),
        (["m.pt", "--eps", "a=b"], ["--eps", "a=b", "PATTERN=X"]),
        (["m.pt", "--eps", "-1"], ["--eps", "-1"]),
        (["m.pt", "--layer", "a,,b"], ["a,,b", "empty name"]),
        (["m.pt", "--mode", "dream"], ["--mode", "dream", "train", "eval"]),
        (["m.pt", "--format", "json", "--json", "-"], ["--format json", "--json -"]),
        (["m.pt", "--json", "/no/such/folder/report.json"], ["/no/such/folder"]),
        (["m.pt", "--steps"], ["--steps", "`normcheck analyze --help`"]),
    ],
)
def test_wrong_usage_is_one_line_before_anything_is_read(engine, normcheck, arguments, words):
    outcome = normcheck("analyze", *arguments)
    assert (outcome.code, outcome.out, engine.calls) == (2, "", [])
    assert outcome.err.startswith("normcheck: error: ")
    assert outcome.err.count("\n") == 1
    assert [word for word in words if word not in outcome.err] == []


# ----------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("severities", "codes"),
    [((), (0, 0, 0, 0)), (("note",), (0, 0, 1, 0)), (("warning",), (0, 1, 1, 0)), (("note", "error"), (1, 1, 1, 0))],
)
def test_findings_decide_and_the_format_never_does(engine, normcheck, form, severities, codes):
    engine.report = with_severities(READABLE, *severities)
    limits = ["error", "warning", "note", "never"]
    found = [normcheck("analyze", "m.pt", "--format", form, "--fail-on", limit).code for limit in limits]
    assert tuple(found) == codes


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("limit", ["error", "never"])
@pytest.mark.parametrize("report", [MODEL, NO_NORMS, CLEAN_MODEL], ids=["findings", "nothing", "clean"])
def test_a_file_that_cannot_be_read_goes_before_all_else_and_the_others_are_shown(
    engine, normcheck, form, limit, report
):
    engine.report = dataclasses.replace(report, unreadable=BROKEN)
    outcome = normcheck("analyze", "m.pt", "--format", form, "--fail-on", limit, "--quiet")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "normcheck: error: a.pt: the archive ends early; download it again",
        r"normcheck: error: b\x1b[2J.pt: no model",
    ]
    assert outcome.out == shown(engine.report, form, limit)


def shown(report, form, limit="error"):
    report = dataclasses.replace(report, fail_on=limit)
    return table.render(report, width=80) if form == "table" else import_module(OUTPUTS[form]).render(report)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("limit", ["error", "never"])
def test_no_layers_is_a_code_of_its_own(engine, normcheck, form, limit):
    engine.report = NO_NORMS
    outcome = normcheck("analyze", "plain.pt", "--format", form, "--fail-on", limit)
    assert outcome.code == 3
    assert outcome.out == shown(NO_NORMS, form, limit)
    assert outcome.err == (
        "normcheck: nothing was analysed: no normalization layers were found; "
        "plain.pt: no normalization layers among its 12 tensors\n"
    )


def test_why_nothing_was_analysed_is_a_short_line(engine, normcheck):
    skipped = tuple(Skipped(name=f"tensor.{index}", reason="quantised") for index in range(100))
    engine.report = dataclasses.replace(NO_NORMS, skipped=skipped, layers=MODEL.layers)
    assert normcheck("analyze", "m.pt").err == (
        "normcheck: nothing was analysed: tensor.0: quantised; tensor.1: quantised; tensor.2: quantised; "
        "and 97 more skipped\n"
    )


@pytest.mark.parametrize("form", FORMATS)
def test_files_none_of_which_can_be_read_are_a_line_each(engine, normcheck, form):
    engine.report = UnreadableError("a.pt: no archive; download it again", "b\x07.pt: two\nlines")
    outcome = normcheck("analyze", "a.pt", "b.pt", "--format", form)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines() == [
        "normcheck: error: a.pt: no archive; download it again",
        r"normcheck: error: b\x07.pt: two lines",
    ]


def test_errors_of_the_engine_are_printed_as_they_are(engine, normcheck):
    engine.report = UsageError("--layer 'x*' matches none of 14 layers")
    assert normcheck("analyze", "m.pt") == (2, "", "normcheck: error: --layer 'x*' matches none of 14 layers\n")


# ------------------------------------------------------------------------------------------------------ the report


@pytest.mark.parametrize("form", FORMATS)
def test_the_report_goes_to_standard_output_and_to_the_file(normcheck, tmp_path, form):
    path = tmp_path / "report.json"
    outcome = normcheck("analyze", "m.pt", "--format", form, "--json", path)
    assert outcome.out == shown(READABLE, form)
    assert path.read_text() == json_report.render(READABLE)
    assert outcome.code == 1


@pytest.mark.parametrize("columns", [80, 200])
def test_the_table_is_as_wide_as_it_is_asked_to_be(normcheck, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert normcheck("analyze", "m.pt").out == table.render(READABLE, width=columns)


def test_top_limits_the_rows_of_the_table_alone(normcheck):
    assert normcheck("analyze", "m.pt", "--top", "2").out == table.render(READABLE, width=80, top=2)
    assert normcheck("analyze", "m.pt", "--top", "2", "--format", "json").out == json_report.render(READABLE)


def test_layers_asked_for_are_shown_step_by_step_in_the_table_alone(normcheck):
    expected = table.render(READABLE, width=80, with_steps=True)
    assert normcheck("analyze", "m.pt", "--layer", UNSAFE[0]).out == expected
    assert expected != table.render(READABLE, width=80)
    assert normcheck("analyze", "m.pt", "--layer", "*", "--format", "json").out == json_report.render(READABLE)


# -------------------------------------------------------------------------------------------------- what is said


def test_what_the_engine_says_is_a_line_each_and_harmless(engine, normcheck):
    engine.said = ["m.pt: 14 layers", "b\x1b[2J\n.pt:  2 layers"]
    assert normcheck("analyze", "m.pt").err == "normcheck: m.pt: 14 layers\nnormcheck: b\\x1b[2J .pt: 2 layers\n"


def test_quiet_says_nothing(engine, normcheck):
    engine.said = ["m.pt: 14 layers"]
    assert normcheck("analyze", "m.pt", "--quiet").err == ""


def test_every_option_is_in_the_help(normcheck, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = uncolored(normcheck("analyze", "--help").out)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    renamed = {"form": "format", "json_path": "json", "model_factory": "model", "input_file": "input"}
    for name in set(inspect.signature(analyze).parameters) - {"models"}:
        assert f"--{renamed.get(name, name).replace('_', '-')} " in text, name
    assert "MODEL" in text


# ---------------------------------------------------------------------------------------------- the real engine


@pytest.fixture
def checkpoint(tmp_path):
    """A file of two batch norms, one of which has a running variance beyond float16."""
    from safetensors.numpy import save_file

    tensors = {}
    for index, variance in enumerate((1.0, 1e6)):
        tensors[f"bn{index}.weight"] = np.ones(4, np.float32)
        tensors[f"bn{index}.bias"] = np.zeros(4, np.float32)
        tensors[f"bn{index}.running_mean"] = np.zeros(4, np.float32)
        tensors[f"bn{index}.running_var"] = np.full(4, variance, np.float32)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    return path


def test_a_checkpoint_is_analysed_from_end_to_end(normcheck, monkeypatch, checkpoint):
    monkeypatch.undo()  # the stand-in
    outcome = normcheck("analyze", checkpoint, "--mode", "eval", "--precision", "fp16", "--format", "json", "--quiet")
    report = json.loads(outcome.out)
    assert (outcome.code, outcome.err) == (1, "")
    verdicts = {result["layer"]: result["verdict"] for result in report["results"] if result["asked"]}
    assert verdicts == {"bn0": "ok", "bn1": "unsafe"}
    text = normcheck("analyze", checkpoint, "--mode", "eval", "--precision", "fp16", "--params", "autocast").out
    assert re.search(r"^ok +0 of 8 ", text, re.MULTILINE)
    assert normcheck("analyze", checkpoint.parent / "none.pt").code == 2
