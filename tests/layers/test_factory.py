"""Models from the user's code, inputs from files, a checkpoint's tensors into a model; every way that goes wrong."""

from __future__ import annotations

import itertools
import sys
import textwrap

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from normcheck.errors import UnreadableError, UsageError
from normcheck.layers.contents import Contents
from normcheck.layers.live.factory import load_inputs, load_model, load_weights
from normcheck.layers.live.modules import contents_of

_NUMBERS = itertools.count()

CODE = """
    import torch
    from torch import nn
    MODEL = nn.Sequential(nn.LayerNorm(4))
    TENSOR = torch.ones(3)
    class Net(nn.Module):
        def __init__(self, size=4):
            super().__init__()
            self.norm = nn.LayerNorm(size)
        @classmethod
        def tiny(cls):
            return cls(2)
        @staticmethod
        def sized(size, *rest, name, **more):
            return Net(size)
    def build():
        return Net()
    def pair():
        return Net(), Net()
    def nothing():
        pass
    def fails():
        raise ValueError("first line\\nsecond line")
    def leaves():
        raise SystemExit(3)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the current directory that no other test has imported."""
    name = f"factory_of_test_{next(_NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(CODE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield name
    sys.modules.pop(name, None)


# ----------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize(("attribute", "size"), [("build", 4), ("Net", 4), ("Net.tiny", 2)])
def test_a_factory_in_the_current_directory_is_called(module: str, attribute: str, size: int) -> None:
    model = load_model(f"{module}:{attribute}")
    assert model.norm.normalized_shape == (size,)


def test_a_module_is_taken_as_it_is(module: str) -> None:
    model = load_model(f"{module}:MODEL")
    assert model is sys.modules[module].MODEL


def test_a_module_within_a_package_is_found(tmp_path, monkeypatch) -> None:
    package = tmp_path / "factory_package_of_test"
    (package / "inner").mkdir(parents=True)
    (package / "inner" / "models.py").write_text("import torch\ndef build(): return torch.nn.LayerNorm(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_model("factory_package_of_test.inner.models:build").normalized_shape == (3,)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("bild", "has no attribute 'bild'"),
        ("Net.huge", "Net has no attribute 'huge'"),
        ("TENSOR", "it is a Tensor; name a torch.nn.Module or what returns one"),
        ("Net.sized", "it needs the arguments size, name; name a function that needs none"),
        ("pair", "pair returned a tuple, which is no torch.nn.Module"),
        ("nothing", "nothing returned None, which is no torch.nn.Module"),
        ("fails", "calling it failed: ValueError: first line second line"),
        ("leaves", "calling it failed: SystemExit: 3"),
    ],
)
def test_what_gives_no_model_is_one_line(module: str, attribute: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_model(f"{module}:{attribute}")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"model '{module}:{attribute}': ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["", ":", "torch", "torch:", ":build", "models.py"])
def test_what_names_no_factory_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match=r"expected package\.module:factory"):
        load_model(spec)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import no_such_module_at_all",
            "importing broken_factory failed: ModuleNotFoundError: No module named 'no_such",
        ),
        ("raise SystemExit('usage: train.py')", "importing broken_factory failed: SystemExit: usage: train.py"),
        ("1 / 0", "importing broken_factory failed: ZeroDivisionError"),
        ("def", "importing broken_factory failed: SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch, code: str, message: str) -> None:
    (tmp_path / "broken_factory.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UsageError) as caught:
        load_model("broken_factory:build")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_module_at_all", "no_such_package.models"])
def test_a_module_that_does_not_exist_is_said(name: str) -> None:
    with pytest.raises(UsageError, match=r"there is no module 'no_such_.*', neither installed nor in /"):
        load_model(f"{name}:build")


# ----------------------------------------------------------------------------------------------------- inputs

X, Y = torch.arange(6.0).reshape(2, 3), torch.ones(4, dtype=torch.int64)


def write(path, value) -> None:
    match path.suffix:
        case ".pt" | ".pth":
            torch.save(value, path)
        case ".safetensors":
            safetensors.torch.save_file(value, path)
        case ".npz":
            np.savez(path, **{name: tensor.numpy() for name, tensor in value.items()})
        case ".npy":
            np.save(path, value.numpy())


@pytest.mark.parametrize(
    ("name", "value", "args", "kwargs"),
    [
        ("a.pt", X, [X], {}),
        ("a.pth", [X, Y], [X, Y], {}),
        ("a.pt", (X,), [X], {}),
        ("a.pt", {"x": X, "mask": Y}, [], {"x": X, "mask": Y}),
        ("a.pt", {"x": X}, [], {"x": X}),
        ("a.npz", {"anything": X}, [X], {}),
        ("a.npz", {"x": X, "mask": Y}, [], {"x": X, "mask": Y}),
        ("a.safetensors", {"anything": X.bfloat16()}, [X.bfloat16()], {}),
        ("a.safetensors", {"x": X, "mask": Y}, [], {"x": X, "mask": Y}),
        ("a.npy", X.double(), [X.double()], {}),
    ],
)
def test_inputs_are_arguments(tmp_path, name: str, value, args, kwargs) -> None:
    write(tmp_path / name, value)
    loaded, by_name = load_inputs(tmp_path / name)
    assert (len(loaded), set(by_name)) == (len(args), set(kwargs))
    for given, wanted in [*zip(loaded, args, strict=True), *((by_name[k], kwargs[k]) for k in kwargs)]:
        assert given.dtype == wanted.dtype
        assert torch.equal(given, wanted)


def test_numbers_of_the_other_byte_order_are_turned(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3, dtype=">f4"))
    assert load_inputs(tmp_path / "a.npy")[0][0].tolist() == [0, 1, 2]


class Payload:
    """Unpickling it would leave a file behind."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".npz"])
def test_nothing_in_a_file_of_inputs_is_run(tmp_path, suffix: str) -> None:
    path, trace = tmp_path / f"a{suffix}", tmp_path / "trace"
    payload = np.array([Payload(trace)], dtype=object)
    if suffix == ".pt":
        torch.save(Payload(trace), path)
    elif suffix == ".npy":
        np.save(path, payload)
    else:
        np.savez(path, x=payload)
    with pytest.raises(UnreadableError) as caught:
        load_inputs(path)
    assert not trace.exists()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "it holds a str; inputs are a tensor, or a list or dict of tensors"),
        ([X, 3], "it holds an int among its inputs"),
        ({"x": {"y": X}}, "it holds a dict among its inputs"),
        ({}, "there are no tensors in it"),
        ([], "there are no tensors in it"),
    ],
)
def test_inputs_that_are_no_tensors_are_refused(tmp_path, value, message: str) -> None:
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(UnreadableError, match=message):
        load_inputs(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.pt", "a.npz", "a.npy", "a.safetensors", "a.csv", "missing.pt"])
def test_files_that_cannot_be_read_are_one_line(tmp_path, name: str) -> None:
    if name != "missing.pt":
        (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(UnreadableError) as caught:
        load_inputs(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- weights


def net(seed: int, size: int = 4) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, size), nn.BatchNorm1d(size), nn.Sequential(nn.LayerNorm(size)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 10)
    return model


def without(contents: Contents, *names: str) -> Contents:
    left = {name: t for name, t in contents.tensors.items() if name not in names}
    return Contents(path="file.pt", reader="test", tensors=left)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_checkpoints_tensors_replace_the_models(dtype: torch.dtype) -> None:
    source, target = net(0).to(dtype), net(1).to(dtype)
    before = target[0].weight
    load_weights(target, contents_of(source))
    assert target[0].weight is before
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name
        assert target.state_dict()[name].dtype == tensor.dtype


def test_missing_and_unexpected_names_are_listed_in_one_line_and_nothing_changes() -> None:
    model = net(1)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    other = nn.Sequential(nn.Linear(4, 4), *(nn.LayerNorm(4) for _ in range(4)))
    with pytest.raises(UsageError) as caught:
        load_weights(model, without(contents_of(other)))
    assert str(caught.value) == (
        "file.pt: its tensors are not the model's; missing: 1.running_mean, 1.running_var, 2.0.weight, 2.0.bias; "
        "unexpected: 2.bias, 2.weight, 3.bias, 3.weight and 2 more"
    )
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_another_shape_is_said_and_nothing_changes() -> None:
    model = net(1)
    before = model[0].weight.clone()
    contents = without(contents_of(net(0)), "2.0.bias")
    wrong = contents_of(net(0, size=5)).tensors["2.0.bias"]
    with pytest.raises(UsageError, match=r"file\.pt: 2\.0\.bias has shape \(5,\), in the model it has \(4,\)"):
        load_weights(model, Contents(path="file.pt", reader="test", tensors={**contents.tensors, "2.0.bias": wrong}))
    assert torch.equal(model[0].weight, before)


def test_old_checkpoints_without_the_counter_of_batches_fit() -> None:
    source, model = net(0), net(1)
    counter = model[1].num_batches_tracked.clone()
    load_weights(model, without(contents_of(source), "1.num_batches_tracked"))
    assert torch.equal(model[1].running_var, source[1].running_var)
    assert torch.equal(model[1].num_batches_tracked, counter)


def test_tied_tensors_may_come_under_one_of_their_names() -> None:
    def tied(seed: int) -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        nn.init.constant_(model[0].weight, seed)
        return model

    model = tied(1)
    load_weights(model, without(contents_of(tied(2)), "1.weight"))
    assert model[1].weight.unique().tolist() == [2]
    untied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with pytest.raises(UsageError, match=r"missing: 1\.weight$"):
        load_weights(untied, without(contents_of(tied(2)), "1.weight"))


def test_quantised_tensors_and_models_without_values_are_refused() -> None:
    quantised = contents_of(net(0).to(torch.float32))
    int8 = nn.ParameterDict({"w": nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)})
    tensors = {**quantised.tensors, "0.weight": contents_of(int8).tensors["w"]}
    with pytest.raises(UsageError, match=r"0\.weight holds int8, the model wants torch\.float32"):
        load_weights(net(1), Contents(path="file.pt", reader="test", tensors=tensors))
    with pytest.raises(UsageError, match="is on the meta device"):
        load_weights(net(1).to("meta"), quantised)
