"""TorchScript and torch.export archives state their norms, and none of their code is run."""

from __future__ import annotations

import zipfile

import hostile
import numpy as np
import pytest
import torch
from torch import nn
from torch_files import quietly, scripted

from normcheck.errors import UnreadableError
from normcheck.layers.readers import read, torchscript


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8, eps=1e-3, momentum=0.2)
        self.gn = nn.GroupNorm(4, 8, eps=1e-4)
        self.inorm = nn.InstanceNorm2d(8, affine=True)
        self.ln = nn.LayerNorm([6, 6], eps=1e-12)
        self.rms = nn.RMSNorm(6, eps=1e-6)

    def forward(self, x):
        return self.rms(self.ln(self.inorm(self.gn(self.bn(self.conv(x))))))


EXPECTED = {  # norm, eps, momentum, num_groups, normalized_shape
    "bn": ("batch-l2", 1e-3, 0.2, None, ()),
    "gn": ("group-l2", 1e-4, None, 4, ()),
    "inorm": ("instance-l2", 1e-5, 0.1, None, ()),
    "ln": ("layer-l2", 1e-12, None, None, (6, 6)),
    "rms": ("rms", 1e-6, None, None, (6,)),
}
X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def facts(stated):
    return {s.name: (s.norm.name, s.eps, s.momentum, s.num_groups, s.normalized_shape) for s in stated}


def checked_names(contents, model):
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(contents.tensors[name].load(), tensor.double().numpy())
    for s in contents.stated:
        for role in ("weight", "bias", "running_mean", "running_var"):
            own = getattr(model.get_submodule(s.name), role, None)
            assert getattr(s, role) == (f"{s.name}.{role}" if own is not None else None)


@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, X)], ids=["scripted", "traced"])
def test_torchscript_modules_state_their_norms(tmp_path, make):
    model = Net().eval()
    quietly(torch.jit.save, quietly(make, model), tmp_path / "a.pt")
    contents = read(tmp_path / "a.pt")
    assert contents.reader == "TorchScript archive"
    assert facts(contents.stated) == EXPECTED
    assert all(s.how.startswith("module torch.nn.modules.") for s in contents.stated)
    checked_names(contents, model)


def test_frozen_torchscript_states_the_norms_that_its_code_calls(tmp_path):
    model = Net().eval()
    for i, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(i))
    quietly(torch.jit.save, quietly(torch.jit.freeze, scripted(model)), tmp_path / "a.pt")
    contents = read(tmp_path / "a.pt")
    found = {(s.norm.name, s.eps, s.num_groups, s.normalized_shape): s for s in contents.stated}
    kept = {name: EXPECTED[name] for name in ("gn", "inorm", "ln", "rms")}  # the batch norm is folded away
    assert set(found) == {(norm, eps, groups, shape) for norm, eps, _, groups, shape in kept.values()}
    for name, (norm, eps, _, groups, shape) in kept.items():
        weight = contents.tensors[found[norm, eps, groups, shape].weight].load()
        np.testing.assert_array_equal(weight, model.get_submodule(name).weight.detach().numpy())


def test_frozen_torchscript_may_state_an_eps_of_zero(tmp_path):
    model = nn.Sequential(nn.LayerNorm(4, eps=0.0)).eval()
    nn.init.normal_(model[0].weight, generator=torch.Generator().manual_seed(0))
    quietly(torch.jit.save, quietly(torch.jit.freeze, scripted(model)), tmp_path / "a.pt")
    assert [s.eps for s in read(tmp_path / "a.pt").stated] == [0.0]


def test_frozen_torchscript_that_calls_endless_norms_is_refused(tmp_path, monkeypatch):
    quietly(torch.jit.save, quietly(torch.jit.freeze, scripted(Net().eval())), tmp_path / "a.pt")
    count = len(read(tmp_path / "a.pt").stated)
    monkeypatch.setattr(torchscript, "MAX_TENSORS", count - 1)
    with pytest.raises(UnreadableError, match=f"calls more than {count - 1} norms"):
        read(tmp_path / "a.pt")


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm1d(4)
        self.again = self.first
        self.tied = nn.BatchNorm1d(4)
        self.tied.weight = self.first.weight

    def forward(self, x):
        return self.tied(self.again(self.first(x)))


def test_shared_torchscript_modules_and_tensors_are_one(tmp_path):
    quietly(torch.jit.save, scripted(Shared()), tmp_path / "a.pt")
    contents = read(tmp_path / "a.pt")
    storage = {name: tensor.storage for name, tensor in contents.tensors.items()}
    assert [s.name for s in contents.stated] == ["first", "again", "tied"]
    assert storage["first.weight"] == storage["again.weight"] == storage["tied.weight"]
    assert storage["first.bias"] == storage["again.bias"] != storage["tied.bias"]


class GemmaRMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6))
        self.eps = 1e-6

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1.0 + self.weight)


def test_hand_written_torchscript_norms_are_known_by_their_class(tmp_path):
    quietly(torch.jit.save, scripted(nn.Sequential(nn.Linear(6, 6), GemmaRMSNorm())), tmp_path / "a.pt")
    (stated,) = read(tmp_path / "a.pt").stated
    assert (stated.name, stated.norm.name, stated.eps, stated.normalized_shape) == ("1", "rms", 1e-6, (6,))
    assert stated.weight_offset == 1.0
    assert stated.how.endswith("GemmaRMSNorm")


def test_torchscript_without_norms_states_none(tmp_path):
    quietly(torch.jit.save, scripted(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), tmp_path / "a.pt")
    contents = read(tmp_path / "a.pt")
    assert contents.stated == ()
    assert set(contents.tensors) == {"0.weight", "0.bias"}


# ------------------------------------------------------------------------------------------------- torch.export


def exported(path, model, inputs, *, decompose=False):
    program = quietly(torch.export.export, model, inputs)
    if decompose:
        program = quietly(program.run_decompositions)
    quietly(torch.export.save, program, path)
    return path


@pytest.mark.parametrize("decompose", [False, True], ids=["training IR", "core IR"])
def test_exported_graphs_state_their_norms(tmp_path, decompose):
    model = Net().eval()
    contents = read(exported(tmp_path / "a.pt2", model, (X,), decompose=decompose))
    assert contents.reader == "torch.export archive"
    assert facts(contents.stated) == EXPECTED
    checked_names(contents, model)
    by_name = {s.name: s for s in contents.stated}
    assert by_name["bn"].spatial
    assert by_name["gn"].num_channels == 8
    assert by_name["bn"].how.startswith("operator aten.")


class WrittenOut(nn.Module):
    """RMS norms as models write them, one of them in a graph within the graph, and norms without parameters."""

    def __init__(self):
        super().__init__()
        self.cast, self.inner, self.gemma = Cast(), Cast(), GemmaRMSNorm()
        self.plain = nn.GroupNorm(2, 6, affine=False)
        self.flat = nn.BatchNorm1d(6)

    def forward(self, x):
        x = self.gemma(self.cast(x))
        with torch.no_grad():
            x = self.inner(x)
        return self.plain(self.flat(x))


class Cast(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x):
        wide = x.float()
        wide = wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + 1e-5)
        return self.weight * wide.to(x.dtype)


def test_exported_rms_norms_are_known_by_their_operators(tmp_path):
    contents = read(exported(tmp_path / "a.pt2", WrittenOut().half().eval(), (torch.ones(2, 6).half(),)))
    found = {s.name: s for s in contents.stated}
    assert {n: (s.norm.name, s.eps, s.weight_offset) for n, s in found.items()} == {
        "cast": ("rms", 1e-5, 0.0),
        "gemma": ("rms", 1e-6, 1.0),
        "inner": ("rms", 1e-5, 0.0),
        "flat": ("batch-l2", 1e-5, 0.0),
        "plain": ("group-l2", 1e-5, 0.0),
    }
    assert (found["plain"].weight, found["plain"].num_channels, found["plain"].num_groups) == (None, 6, 2)
    assert found["flat"].spatial is False
    assert contents.tensors["gemma.weight"].dtype == "float16"


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.more = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (self.weight + self.more)


def test_a_gain_that_is_a_sum_of_tensors_is_no_weight_of_the_file(tmp_path):
    assert read(exported(tmp_path / "a.pt2", Mixed(), (torch.ones(2, 4),))).stated == ()


def test_older_archives_of_torch_export_say_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(UnreadableError, match="older format"):
        read(tmp_path / "a.pt2")


def test_graphs_that_are_nested_too_deeply_say_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("a/archive_format", "pt2")
        archive.writestr("a/models/model.json", '{"graph_module":' * 100_000)
    with pytest.raises(UnreadableError, match="nested too deeply"):
        read(tmp_path / "a.pt2")


@pytest.mark.parametrize("name", ["os.system", "builtins.getattr", "torch.jit.load", "torch.hub.load"])
def test_torchscript_that_names_code_outside_of_it_is_refused(tmp_path, name):
    attack = hostile.state(hostile.call(name, hostile.text(f"touch {tmp_path / 'canary'}")))
    (tmp_path / "a.pt").write_bytes(hostile.torchscript(attack))
    with pytest.raises(UnreadableError, match=f"refused, because it holds {name}"):
        read(tmp_path / "a.pt")
    with pytest.raises(UnreadableError, match=f"refused, because it holds {name}"):
        read(tmp_path / "a.pt", trust=True)
    assert not (tmp_path / "canary").exists()
