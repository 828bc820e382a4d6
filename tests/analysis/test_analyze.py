"""`analyze` on small models made for the purpose: what it finds, what it assumes, and that it is repeatable."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import normcheck
from normcheck import UnreadableError, UsageError, analyze
from normcheck.analysis.plans import EVAL_SAMPLE
from normcheck.analysis.rule import MEND_THE_FILE
from normcheck.norms.implementations import IMPLEMENTATIONS

SMALL = {"batch_size": 4, "spatial": (4,), "jobs": 1}


def batch_norm(channels=4, *, mean=0.0, var=1.0, weight=1.0, bias=0.5):
    return {
        "weight": torch.full((channels,), weight),
        "bias": torch.full((channels,), bias),
        "running_mean": torch.as_tensor(mean) + torch.zeros(channels),
        "running_var": torch.as_tensor(var) + torch.zeros(channels),
        "num_batches_tracked": torch.tensor(7),
    }


def layer_norm(size=16, *, bias=True):
    tensors = {"weight": torch.linspace(0.5, 1.5, size)}
    return tensors | ({"bias": torch.linspace(-1, 1, size)} if bias else {})


def saved(path, **layers):
    tensors = {f"{layer}.{name}": tensor for layer, parts in layers.items() for name, tensor in parts.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return str(path)


def rules(report, severity=None, **fields):
    return {
        f.rule
        for f in report.findings
        if (severity is None or f.severity == severity) and all(getattr(f, k) == v for k, v in fields.items())
    }


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    path = tmp_path_factory.mktemp("healthy") / "model.pt"
    return saved(path, bn1=batch_norm(mean=0.3, var=2.0), ln=layer_norm())


# ------------------------------------------------------------------------------------------------- what is run


def test_a_healthy_model_is_green_under_the_kernels_that_frameworks_use(healthy):
    report = analyze(healthy, **SMALL)
    assert {f.severity for f in report.findings} == {"note"}
    assert {r.verdict for r in report.results if r.asked} == {"ok"}
    assert report.summary.layers == 2


def test_norms_with_running_statistics_are_checked_in_both_modes_and_all_others_once(healthy):
    report = analyze(healthy, **SMALL)
    modes = {(r.layer, r.mode) for r in report.results}
    assert modes == {("bn1", "eval"), ("bn1", "train"), ("ln", "train")}


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_one_mode_can_be_asked_for(healthy, mode):
    assert {r.mode for r in analyze(healthy, mode=mode, **SMALL).results} == {mode}


def test_pure_is_a_view_where_it_means_something(healthy):
    report = analyze(healthy, precisions=["fp16", "bf16", "fp32"], **SMALL)
    ran = {(r.precision, r.implementation, r.asked) for r in report.results}
    assert ran == {("fp16", "wide", True), ("fp16", "pure", False), ("bf16", "wide", True), ("fp32", "wide", True)}


def test_what_only_the_view_finds_is_a_note_and_an_error_where_it_was_asked_for(tmp_path):
    path = saved(tmp_path / "loud.pt", bn=batch_norm(var=9e4 / 16))
    loud = {"batch_size": 32, "spatial": (32,), "mode": "train", "precisions": ["fp16"], "jobs": 1}
    view = analyze(path, **loud)
    assert "NC102" in rules(view, "note", implementation="pure")
    assert not rules(view, "error")
    asked = analyze(path, implementations=["pure"], **loud)
    assert "NC102" in rules(asked, "warning", implementation="pure")  # the input is assumed


def test_shapes_follow_the_batch_and_the_spatial_size(healthy):
    report = analyze(healthy, batch_size=3, spatial=(5, 7), jobs=1)
    sizes = {(r.layer, r.mode): (r.shape.groups, r.shape.size) for r in report.results}
    assert sizes["bn1", "train"] == (4, 105)
    assert sizes["bn1", "eval"] == (4, min(105, EVAL_SAMPLE))
    assert sizes["ln", "train"][1] == 16
    (facts,) = [layer for layer in report.layers if layer.name == "bn1"]
    assert facts.size == 105
    assert {"batch_size", "spatial", "input", "eps"} <= set(facts.assumed)


def test_a_norm_after_a_linear_layer_has_no_spatial_dimensions(tmp_path):
    path = saved(tmp_path / "mlp.pt", fc={"weight": torch.randn(6, 3), "bias": torch.zeros(6)}, bn=batch_norm(6))
    report = analyze(path, batch_size=5, spatial=(9, 9), mode="train", jobs=1)
    assert {r.shape.size for r in report.results} == {5}
    assert "spatial" not in report.layers[0].assumed


def test_the_paper_s_norms_stand_in_beside_a_layer_s_own(healthy):
    report = analyze(healthy, norms=["batch-l1", "layer-topk", "group-l1"], precisions=["fp16"], **SMALL)
    norms = {(r.layer, r.norm) for r in report.results}
    assert norms == {("bn1", "batch-l2"), ("bn1", "batch-l1"), ("ln", "layer-l2"), ("ln", "layer-topk")}
    assert [s.name for s in report.skipped] == ["group-l1"]
    assert all(r.verdict == "ok" for r in report.results if r.asked)
    eps = {r.norm: r.eps for r in report.results}
    assert eps["batch-l1"] == pytest.approx(math.sqrt(eps["batch-l2"]))


def test_layers_can_be_chosen(healthy):
    assert {r.layer for r in analyze(healthy, layers=["b*"], **SMALL).results} == {"bn1"}
    with pytest.raises(UsageError, match=r"'nope'.*none of 2 layers.*bn1"):
        analyze(healthy, layers=["nope"], **SMALL)


def test_kinds_and_eps_are_the_user_s_to_say(healthy):
    report = analyze(healthy, kinds=[("ln", "group(4)")], eps=[("bn*", 1e-3)], **SMALL)
    facts = {layer.name: layer for layer in report.layers}
    assert (facts["ln"].norm, facts["ln"].num_groups, facts["ln"].sure) == ("group-l2", 4, True)
    assert (facts["bn1"].eps, facts["bn1"].eps_source) == (1e-3, "option")
    assert "NC401" not in rules(report, layer="bn1")


def test_one_eps_for_all_is_a_number(healthy):
    assert {layer.eps for layer in analyze(healthy, eps=1e-4, **SMALL).layers} == {1e-4}


def test_several_models_keep_their_layers_apart(healthy, tmp_path):
    other = saved(tmp_path / "other.safetensors", bn1=batch_norm())
    report = analyze([healthy, other], kinds=[("ln", "rms")], **SMALL)
    assert [layer.name for layer in report.layers] == ["model.pt:bn1", "model.pt:ln", "other.safetensors:bn1"]
    assert [layer.file for layer in report.layers] == [healthy, healthy, other]
    with pytest.raises(UsageError, match="matches no layer of any of 2 models"):
        analyze([healthy, other], kinds=[("nope", "rms")], **SMALL)


def test_weight_norms_are_checked_on_the_weights_themselves(tmp_path):
    torch.manual_seed(0)
    conv = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(3, 5, 3))
    torch.save({f"conv.{k}": v for k, v in conv.state_dict().items()}, tmp_path / "wn.pt")
    report = analyze(str(tmp_path / "wn.pt"), precisions=["fp16"], jobs=1)
    assert {(r.norm, r.shape.groups, r.shape.size, r.input.assumed) for r in report.results} == {
        ("weight-l2", 5, 9, False)
    }
    assert {r.verdict for r in report.results} == {"ok"}
    assert "NC401" not in rules(report)


# ------------------------------------------------------------------------------------------------ what is found


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """One channel of four whose running variance float16 cannot hold."""
    path = tmp_path_factory.mktemp("huge") / "model.pt"
    return saved(path, bn=batch_norm(var=torch.tensor([1.0, 2.0, 70000.0, 4.0])))


def test_a_running_variance_beyond_float16_is_an_error_under_half_parameters(huge):
    report = analyze(huge, precisions=["fp16"], mode="eval", **SMALL)
    assert {"NC102", "NC104"} <= rules(report, "error", implementation="wide")
    (result,) = [r for r in report.results if r.asked]
    assert (result.rows.collapsed, result.worst_rows[0].index, result.verdict) == (1, 2, "unsafe")
    assert not any(f.assumed for f in report.findings if f.rule in ("NC102", "NC104"))
    assert all("--params autocast" in f.fix for f in report.findings if f.severity == "error")


@pytest.mark.parametrize("params", ["autocast", "half-except-norms", "float32", "stored"])
def test_and_none_where_they_stay_in_float32(huge, params):
    report = analyze(huge, precisions=["fp16"], params=params, **SMALL)
    assert not rules(report, "error")
    assert not rules(report, implementation="wide") & {"NC102", "NC104"}


def test_and_none_in_bfloat16(huge):
    assert not rules(analyze(huge, precisions=["bf16"], **SMALL), "error")


def test_the_advice_was_tried_and_does_what_it_says_when_it_is_pasted(huge):
    report = analyze(huge, precisions=["fp16"], mode="eval", **SMALL)
    (advice,) = report.advice
    assert advice.layers == ("bn",)
    assert "1 of 1 layer " in advice.evidence
    model = torch.nn.ModuleDict({"fc": torch.nn.Linear(2, 2), "bn": torch.nn.BatchNorm1d(4)}).eval()
    model["bn"].load_state_dict({k.removeprefix("bn."): v for k, v in torch.load(huge).items()})
    x = torch.randn(16, 4) * model["bn"].running_var.sqrt()
    exact = model["bn"](x)
    exec(advice.snippet, {"model": model})  # noqa: S102  # it is meant to be pasted
    assert (model["fc"].weight.dtype, model["bn"].running_var.dtype) == (torch.float16, torch.float32)
    assert model["bn"].running_var[2] == 70000
    assert torch.allclose(model["bn"](x.half()).float(), exact, atol=1e-2)


def test_norms_tried_in_a_layer_s_place_do_not_cost_it_its_advice(tmp_path):
    var = torch.tensor([1.0, 2.0, 1e10, 4.0])  # its root is beyond float16, too
    path = saved(tmp_path / "larger.pt", bn=batch_norm(var=var))
    report = analyze(path, precisions=["fp16"], mode="eval", norms=["batch-l1"], **SMALL)
    assert [item.layers for item in report.advice if item.asked] == [("bn",)]


def test_advice_that_helps_nothing_is_not_given(tmp_path):
    weight = torch.tensor([1.0, 1e5, 1.0, 1.0])  # beyond float16 as such, and so is what it makes of any input
    path = saved(tmp_path / "gamma.pt", bn=batch_norm() | {"weight": weight})
    report = analyze(path, precisions=["fp16"], mode="eval", **SMALL)
    assert "NC104" in rules(report, "error")
    assert [item for item in report.advice if item.asked] == []


def test_torch_itself_collapses_there_and_nowhere_else(huge):
    module = torch.nn.BatchNorm1d(4).eval()
    module.load_state_dict({k.removeprefix("bn."): v for k, v in torch.load(huge).items()})
    x = torch.randn(64, 4) * module.running_var.sqrt()
    exact = module(x)
    module.running_var = module.running_var.half().float()
    got = module(x)
    assert torch.isfinite(got).all()
    same = torch.isclose(got, exact, atol=1e-2).all(dim=0)
    assert same.tolist() == [True, True, False, True]
    assert torch.equal(got[:, 2], torch.full((64,), 0.5))


def test_channels_without_variance_do_no_harm_in_eval_mode(tmp_path):
    mean = torch.tensor([0.1, 12.345, -3.3, 0.0])
    path = saved(tmp_path / "flat.pt", bn=batch_norm(mean=mean, var=torch.tensor([0.0, 0.0, 5.6e-45, 1.0])))
    report = analyze(path, mode="eval", eps=[(None, 1e-3)], **SMALL)
    assert not rules(report, "error")
    assert not rules(report) & {"NC102", "NC203", "NC306"}
    assert {r.rows.bad for r in report.results} == {0}


def test_input_beyond_the_format_is_not_the_norm_s_fault(tmp_path):
    path = saved(tmp_path / "far.pt", bn=batch_norm(mean=1e5, var=1.0))
    report = analyze(path, precisions=["fp16"], params="autocast", **SMALL)
    assert "NC105" in rules(report, "warning", implementation="wide")
    assert not rules(report) & {"NC101"}
    assert {r.rows.infinite_input for r in report.results} == {4}


def test_a_gamma_that_is_flushed_is_told(tmp_path):
    weight = torch.ones(16)
    weight[:3] = 1e-4
    path = saved(tmp_path / "gamma.safetensors", norm={"weight": weight, "bias": torch.zeros(16)})
    report = analyze(path, precisions=["float8_e4m3fn"], jobs=1)
    (finding,) = [f for f in report.findings if f.rule == "NC204"]
    assert "3 of 16 gamma become 0 in float8_e4m3fn" in finding.message
    assert (finding.severity, finding.assumed) == ("warning", False)


def test_a_mean_that_rounding_moves_is_told(tmp_path):
    path = saved(tmp_path / "moved.pt", bn=batch_norm(mean=1001.7, var=1.0))
    report = analyze(path, precisions=["fp16", "bf16"], mode="eval", **SMALL)
    moved = {f.precision: f.message for f in report.findings if f.rule == "NC204" and f.implementation == "wide"}
    assert "moves the running mean by 1.7 deviations" in moved["bf16"]  # 1001.7 lies between 1000 and 1004
    assert "fp16" in moved


def test_folding_beyond_the_format_is_a_warning_in_eval_mode(tmp_path):
    path = saved(tmp_path / "dead.pt", bn=batch_norm(mean=40.0, var=0.0, weight=10.0))
    report = analyze(path, precisions=["fp16"], eps=1e-5, **SMALL)
    folded = [f for f in report.findings if f.message.startswith("folded into scale and shift")]
    assert {(f.rule, f.severity, f.mode) for f in folded if f.implementation == "wide"} == {
        ("NC104", "warning", "eval")
    }
    assert "4 channels are beyond float16" in folded[0].message


def test_updates_that_stall_are_told_in_train_mode_alone(tmp_path):
    path = saved(tmp_path / "stall.pt", bn=batch_norm(mean=20.0, var=1.0))
    report = analyze(path, precisions=["bf16"], **SMALL)
    assert rules(report, "warning", mode="train") >= {"NC305"}
    assert "NC305" not in rules(report, mode="eval")
    assert "NC305" not in rules(analyze(path, precisions=["bf16"], params="autocast", **SMALL))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_gamma_beyond_the_format_breaks_whatever_the_input(tmp_path, mode):
    path = saved(tmp_path / "gamma.pt", bn=batch_norm(weight=1e5), ln=layer_norm() | {"weight": torch.full((16,), 1e5)})
    report = analyze(path, precisions=["fp16"], mode=mode, **SMALL)
    broken = [f for f in report.findings if f.rule == "NC101" and f.implementation == "wide"]
    assert {(f.layer, f.severity, f.assumed) for f in broken} == {("bn", "error", False), ("ln", "error", False)}
    assert all("--params autocast" in f.fix for f in broken)


def test_a_negative_running_variance_is_an_error_of_the_file(tmp_path):
    path = saved(tmp_path / "negative.pt", bn=batch_norm(var=torch.tensor([1.0, -1.0, 1.0, 1.0])))
    report = analyze(path, mode="eval", **SMALL)
    assert rules(report, "error", implementation="wide") == {"NC101", "NC104"}
    assert "NC105" not in rules(report)
    assert {f.fix for f in report.findings if f.severity == "error"} == {MEND_THE_FILE}


def test_a_variance_that_is_flushed_and_amplifies_is_an_error_of_the_file(tmp_path):
    path = saved(tmp_path / "tiny.pt", bn=batch_norm(var=1e-9))
    report = analyze(path, precisions=["fp16"], eps=1e-12, mode="eval", **SMALL)
    (finding,) = [f for f in report.findings if f.rule == "NC203" and f.implementation == "wide"]
    assert (finding.severity, finding.assumed) == ("error", False)
    assert "--params autocast" in finding.fix


def test_an_infinity_in_the_file_is_told_apart(tmp_path):
    path = saved(tmp_path / "poisoned.pt", bn=batch_norm(mean=torch.tensor([0.0, math.nan, 0.0, 0.0])))
    report = analyze(path, precisions=["fp32"], mode="eval", **SMALL)
    (finding,) = [f for f in report.findings if f.rule == "NC104"]
    assert "1 of 16 parameters are infinite or NaN in the file itself" in finding.message
    assert finding.severity == "error"
    assert rules(report) <= {"NC101", "NC104", "NC401"}  # not that the input is at fault


def test_saved_overflow_is_a_finding_beside_a_right_output(tmp_path, monkeypatch):
    saves = dataclasses.replace(IMPLEMENTATIONS["wide"], saved="float16")
    monkeypatch.setitem(IMPLEMENTATIONS, "wide", saves)
    path = saved(tmp_path / "flat.pt", ln=layer_norm())
    report = analyze(path, std=0.0, mean=1.0, eps=[(None, 1e-12)], precisions=["fp16"], jobs=1)
    assert "NC205" in rules(report, "warning", step="saved")
    assert {r.verdict for r in report.results if r.asked} == {"ok"}


def test_layers_of_single_elements_are_degenerate_and_not_run(tmp_path):
    path = saved(tmp_path / "one.pt", **{"in": {"weight": torch.ones(3), "bias": torch.zeros(3)}})
    report = analyze(path, kinds=[("in", "instance")], spatial=(1,), jobs=1)
    assert report.results == ()
    assert "NC402" in rules(report, "note", layer="in")
    assert [item.name for item in report.skipped] == ["in"]


def test_what_could_be_several_kinds_is_noted(tmp_path):
    conv = {"weight": torch.randn(16, 3, 3, 3), "bias": torch.zeros(16)}
    report = analyze(saved(tmp_path / "open.pt", conv=conv, n=layer_norm()), **SMALL)
    found = [f.message for f in report.findings if f.rule == "NC403"]
    assert found
    assert any("it could be" in message for message in found)


def test_tensors_that_are_left_out_are_noted(tmp_path):
    tensors = {"a.norm": layer_norm(), "b.norm": {"weight": torch.ones(16, dtype=torch.int8)}}
    report = analyze(saved(tmp_path / "quantised.safetensors", **tensors), **SMALL)
    assert {layer.name for layer in report.layers} == {"a.norm"}
    assert "NC404" in rules(report, "note", layer="b.norm")


def test_what_is_assumed_is_noted(healthy):
    report = analyze(healthy, **SMALL)
    assert {f.layer for f in report.findings if f.rule == "NC401"} == {"bn1", "ln"}
    finding = next(f for f in report.findings if f.rule == "NC401")
    assert (finding.precision, finding.implementation, finding.mode) == (None, None, None)


# ----------------------------------------------------------------------------------------------------- inputs


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = torch.nn.BatchNorm2d(3)
        self.gn = torch.nn.GroupNorm(3, 6, eps=1e-4)
        self.conv = torch.nn.Conv2d(3, 6, 1)

    def forward(self, x):
        y = self.gn(self.conv(self.bn(x)))
        return torch.nn.functional.layer_norm(300 * y, y.shape[-1:])


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


def test_a_live_module_says_kinds_and_eps_itself(net):
    report = analyze(net, **SMALL)
    facts = {layer.name: (layer.norm, layer.eps, layer.eps_source, layer.num_groups) for layer in report.layers}
    assert facts == {"bn": ("batch-l2", 1e-5, "module", None), "gn": ("group-l2", 1e-4, "module", 3)}


def test_on_given_inputs_nothing_is_assumed_and_functions_are_seen(net):
    report = analyze(net, inputs=torch.randn(2, 3, 5, 5), **SMALL)
    assert {r.layer for r in report.results} == {"bn", "gn", "Net:layer_norm"}
    assert not any(r.input.assumed for r in report.results)
    view = {f.rule for f in report.findings if f.layer == "Net:layer_norm" and f.implementation == "pure"}
    assert "NC102" in view  # 300 squared is beyond float16


def test_recorded_inputs_are_used_from_a_file(net, tmp_path):
    path = str(tmp_path / "inputs.safetensors")
    with normcheck.record(net, path), torch.no_grad():
        net(torch.randn(2, 3, 5, 5))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    live = analyze(net, activations=path, **SMALL)
    file = analyze(str(tmp_path / "net.pt"), activations=path, **SMALL)
    assert {r.input.source for r in live.results} == {f"recorded ({path})"}
    assert [(r.layer, r.deviation) for r in file.results] == [(r.layer, r.deviation) for r in live.results]


def test_recorded_inputs_of_another_shape_are_refused(healthy, tmp_path):
    save_file({"ln": torch.randn(3, 17)}, tmp_path / "wrong.safetensors")
    with pytest.raises(UsageError, match=r"ln takes rows of 16, received shape \(3, 17\)"):
        analyze(healthy, activations=str(tmp_path / "wrong.safetensors"), **SMALL)


def test_a_recording_knows_kinds_eps_and_groups(net, tmp_path):
    path = str(tmp_path / "inputs.safetensors")
    with normcheck.record(net, path), torch.no_grad():
        net(torch.randn(2, 3, 5, 5))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    report = analyze(str(tmp_path / "net.pt"), activations=path, **SMALL)
    facts = {layer.name: (layer.norm, layer.eps, layer.eps_source, layer.num_groups) for layer in report.layers}
    assert facts["gn"] == ("group-l2", 1e-4, "module", 3)
    assert set(facts) == {"bn", "gn", "Net:layer_norm"}
    assert not rules(report) & {"NC401", "NC403"}


def test_recorded_inputs_of_another_model_are_refused(healthy, tmp_path):
    save_file({"model.ln": torch.randn(3, 16)}, tmp_path / "prefixed.safetensors")
    with pytest.raises(UsageError, match=r"none of its 1 names \(model\.ln, \.\.\.\) is a layer \(bn1, ln"):
        analyze(healthy, activations=str(tmp_path / "prefixed.safetensors"), **SMALL)


def test_recorded_names_that_are_no_layers_are_told(healthy, tmp_path):
    save_file({"ln": torch.randn(3, 16), "lm": torch.randn(3, 16)}, tmp_path / "more.safetensors")
    report = analyze(healthy, activations=str(tmp_path / "more.safetensors"), **SMALL)
    assert [s.name for s in report.skipped] == ["lm"]


def test_two_ways_to_say_the_input_contradict_each_other(net):
    with pytest.raises(UsageError, match="inputs and --activations"):
        analyze(net, inputs=torch.zeros(1), activations="x.npz")


def test_inputs_need_a_live_model(healthy):
    with pytest.raises(UsageError, match="live model"):
        analyze(healthy, inputs=torch.zeros(1), **SMALL)


def test_inputs_that_the_model_does_not_take_are_one_line(net):
    with pytest.raises(UsageError, match="Net does not take these inputs: RuntimeError"):
        analyze(net, inputs=torch.zeros(2, 4, 5, 5), **SMALL)


def test_the_model_of_a_factory_is_run_on_a_file(tmp_path, monkeypatch):
    code = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))\n"
    (tmp_path / "thing_of_a_test.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    torch.save(torch.randn(2, 3, 4, 4), "x.pt")
    report = analyze(model_factory="thing_of_a_test:build", input_file="x.pt", jobs=1)
    assert {(r.layer, r.input.assumed) for r in report.results} == {("1", False)}


# ------------------------------------------------------------------------------------------- files, repeatability


def test_one_bad_file_does_not_hide_the_others(healthy, tmp_path):
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"PK\x03\x04 not really")
    report = analyze([str(bad), healthy], **SMALL)
    assert [item.name for item in report.unreadable] == [str(bad)]
    assert {r.layer for r in report.results} == {"bn1", "ln"}


def test_where_no_file_can_be_read_each_has_its_line(tmp_path):
    with pytest.raises(UnreadableError) as error:
        analyze([str(tmp_path / "a.pt"), str(tmp_path / "b.pt")])
    assert len(error.value.args) == 2
    assert all("\n" not in line for line in error.value.args)
    assert [item.name for item in error.value.report.unreadable] == [str(tmp_path / "a.pt"), str(tmp_path / "b.pt")]
    assert not error.value.report.results


@pytest.mark.parametrize("model", ["", ["a.pt", ""]])
def test_an_empty_path_is_not_the_current_folder(healthy, monkeypatch, model):
    monkeypatch.chdir(Path(healthy).parent)
    with pytest.raises(UsageError, match="the path of a model is empty"):
        analyze(model)
    assert analyze(".", **SMALL).results


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({}, "dict is no model: save a state dict and give its path, or load it into its model and give that"),
        (None, "NoneType is no model: give a path, several paths, or a live torch module"),
        (b"a.pt", "bytes is no model"),
        ([{}], "list is no model"),
        (torch.zeros(3), "Tensor is no model"),
    ],
)
def test_what_is_no_model_is_said_with_what_would_be_one(model, words):
    with pytest.raises(UsageError, match=f"^{words}"):
        analyze(model)


def test_paths_may_come_from_anything_that_yields_them(healthy):
    assert analyze(Path(healthy).parent.glob("*"), **SMALL).results


def test_code_of_a_file_is_run_only_when_trusted_and_the_report_says_so(tmp_path):
    path = str(tmp_path / "whole.pt")
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.GroupNorm(2, 4, eps=1e-3)), path)
    with pytest.raises(UnreadableError, match=r"torch\.nn\.modules.*--trust"):
        analyze(path)
    report = analyze(path, trust=True, **SMALL)
    assert report.settings["trusted"] == [path]
    assert [(layer.norm, layer.num_groups, layer.eps) for layer in report.layers] == [("group-l2", 2, 1e-3)]


def test_trust_runs_nothing_that_can_be_read_without(healthy):
    assert analyze(healthy, trust=True, **SMALL).settings["trusted"] == []


def test_a_model_without_norms_gives_an_empty_report(tmp_path):
    path = saved(tmp_path / "plain.pt", fc={"weight": torch.randn(3, 3), "bias": torch.zeros(3)})
    report = analyze(path)
    assert (report.results, report.layers, report.unreadable) == ((), (), ())


def test_a_model_without_norms_beside_others_is_told(healthy, tmp_path):
    path = saved(tmp_path / "plain.pt", fc={"weight": torch.randn(3, 3), "bias": torch.zeros(3)})
    report = analyze([healthy, path], **SMALL)
    assert [item.name for item in report.skipped] == [path]


def test_advice_for_several_models_names_the_layers_of_each(huge, healthy):
    report = analyze([huge, healthy], precisions=["fp16"], mode="eval", **SMALL)
    (advice,) = [item for item in report.advice if item.asked]
    (name,) = advice.layers
    assert name.endswith(":bn")
    assert "'bn'" in advice.snippet


def test_no_model_at_all_is_a_usage_error():
    with pytest.raises(UsageError, match="no model given"):
        analyze([])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"spatial": (4, 0)}, "spatial sizes must be at least 1"),
        ({"spatial": (10**7, 10**7)}, "n = 3.2e.15 elements a channel"),
        ({"mode": "test"}, "unknown mode"),
        ({"precisions": []}, "no precision given"),
        ({"params": "halve"}, "unknown parameter preset"),
        ({"implementations": ["wde"]}, "wide"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"eps": -1.0}, "eps must be finite and not negative, received -1"),
        ({"match": {"Mine": "rms"}}, "match names classes of a live model"),
    ],
)
def test_settings_that_cannot_be_used(healthy, settings, said):
    with pytest.raises(UsageError, match=said):
        analyze(healthy, **settings)


def test_the_report_does_not_depend_on_jobs(healthy, huge):
    one, three = (analyze([healthy, huge], batch_size=4, spatial=(4,), jobs=jobs, seed=3) for jobs in (1, 3))
    assert dataclasses.replace(one, environment={}) == dataclasses.replace(three, environment={})
    other = analyze([healthy, huge], batch_size=4, spatial=(4,), jobs=1, seed=4)
    assert other.results != one.results


def test_progress_names_the_layer_and_ends(healthy):
    seen, said = [], []
    analyze(healthy, progress=lambda done, text: seen.append((done, text)), say=said.append, **SMALL)
    assert {text for _, text in seen} == {"bn1", "ln"}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == pytest.approx(1.0)
    assert said == [f"{healthy}: PyTorch zip archive, norm layers: 1 batch-l2, 1 layer-l2"]


@pytest.mark.parametrize(("mode", "verdict"), [("eval", "unsafe"), ("train", "ok")])
def test_a_running_variance_that_is_infinite_in_the_file_is_not_ok_though_the_exact_channel_is_beta_too(mode, verdict):
    norm = torch.nn.BatchNorm2d(8)
    norm.running_var[0] = torch.inf
    report = analyze(torch.nn.Sequential(norm), precisions=["fp16"], implementations=["wide"], mode=mode)
    assert [(r.verdict, r.rows.bad) for r in report.results] == [(verdict, 0)]
    assert {f.rule for f in report.findings if f.severity == "error"} == {"NC104"}
