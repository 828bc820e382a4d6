"""What `normcheck.analyze` makes of these modules, live and from a file."""

from __future__ import annotations

import pytest
import torch
from norm_modules import OTHERS, PAIRS, STATISTICS, build
from safetensors.torch import save_file

import normcheck
from normcheck import nn as ours
from normcheck.layers.discovery.discover import discover
from normcheck.layers.live.modules import contents_of
from normcheck.layers.readers import read


def layers(contents):
    found = discover(contents)
    assert found.omitted == ()
    return {layer.name: layer for layer in found.layers}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_live_module_is_what_it_says(name, statistic):
    module = build(name, statistic)
    layer = layers(contents_of(torch.nn.Sequential(module)))["0"]
    assert layer.norm == module.norm
    assert (layer.eps, layer.eps_source, layer.sure) == (module.eps, "module", True)
    assert layer.how == f"module normcheck.nn.{type(module).__module__.rpartition('.')[2]}.{type(module).__name__}"
    given = layer.parameters
    assert (given.weight is None) == (module.weight is None)
    if module.norm.where == "batch":
        assert given.running_statistic.tolist() == [1.0] * 4
        assert layer.momentum == 0.1
    assert layer.num_groups == (2 if module.norm.where == "group" else None)


def test_an_rms_norm_without_an_eps_has_the_machine_epsilon():
    layer = layers(contents_of(torch.nn.Sequential(ours.RMSNorm(8, statistic="l1"))))["0"]
    assert layer.eps == torch.finfo(torch.float32).eps


def bounded_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        ours.bounded_weight_norm(torch.nn.Conv2d(3, 6, 3)),
        ours.MeanOnlyBatchNorm2d(6),
        torch.nn.Flatten(),
        ours.bounded_weight_norm(torch.nn.Linear(6, 5), p=float("inf")),
        ours.bounded_weight_norm(torch.nn.Linear(5, 4), p=1, gain=True),
    )


def saved(model, folder, kind):
    path = folder / f"model.{kind}"
    if kind == "pt":
        torch.save(model.state_dict(), path)
    else:
        save_file(model.state_dict(), path)
    return path


@pytest.mark.parametrize("kind", ["live", "pt", "safetensors"])
def test_bounded_weight_norm_is_found_and_its_vectors_are_the_modules(tmp_path, kind):
    model = bounded_model()
    contents = contents_of(model) if kind == "live" else read(saved(model, tmp_path, kind))
    found = layers(contents)
    assert {name: layer.norm.name for name, layer in found.items()} == {
        "0": "bounded-weight-l2",
        "3": "bounded-weight-linf",
        "4": "weight-l1",
    }
    for name, layer in found.items():
        scale = torch.tensor(layer.parameters.weight)
        done = normcheck.emulate(layer.vectors(), layer.norm.name, precision="fp64", weight=scale).output
        weight = model[int(name)].weight.detach().flatten(1)
        assert torch.allclose(torch.tensor(done, dtype=torch.float32), weight, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("gain", "norm"),
    [(torch.ones(4), "weight-l1"), (torch.zeros(4), "weight-l1"), (torch.ones(3), None), (torch.ones(4).long(), None)],
)
def test_gains_that_do_not_fit_are_left_out_with_the_reason(tmp_path, gain, norm):
    state = bounded_model()[4].state_dict() | {"parametrizations.weight.0.gain": gain}
    path = tmp_path / "model.pt"
    torch.save(state, path)
    found = discover(read(path))
    assert [layer.norm.name for layer in found.layers] == ([norm] if norm else [])
    assert [o.reason.startswith("bounded weight norm whose gain has shape") for o in found.omitted] == [True] * (
        not norm
    )


@pytest.mark.parametrize("statistic", OTHERS)
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_a_file_says_which_statistic_a_batch_norm_has(tmp_path, statistic, kind):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), build("batch-2d", statistic, dtype=torch.float32))
    model(torch.randn(5, 3, 6, 6))
    (layer,) = layers(read(saved(model, tmp_path, kind))).values()
    assert (layer.norm.name, layer.sure) == (f"batch-{statistic}", True)
    assert layer.how == f"running mean and running_{statistic}"
    expected = getattr(model[1], f"running_{statistic}").double()
    assert torch.equal(torch.tensor(layer.parameters.running_statistic), expected)


def test_a_report_has_them_all_live_and_with_recorded_inputs():
    model = torch.nn.Sequential(
        ours.bounded_weight_norm(torch.nn.Conv2d(3, 8, 3)),
        ours.BatchNorm2d(8),
        ours.L1BatchNorm2d(8),
        ours.GroupNorm(2, 8, statistic="range"),
        torch.nn.Flatten(),
        ours.LayerNorm(128, statistic="topk"),
        ours.RMSNorm(128, statistic="linf"),
    )
    x = torch.randn(4, 3, 6, 6)
    for inputs in (None, x):
        report = normcheck.analyze(model, inputs=inputs, precisions=["fp16"], implementations=["wide"], mode="train")
        norms = {result.layer: result.norm for result in report.results}
        assert norms == {
            "0": "bounded-weight-l2",
            "1": "batch-l2",
            "2": "batch-l1",
            "3": "group-range",
            "5": "layer-topk",
            "6": "layer-linf-uncentred",
        }
        assert report.skipped == ()
        assert all(result.verdict == "ok" for result in report.results)
