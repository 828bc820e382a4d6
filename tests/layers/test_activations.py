"""Files of activations: every format, by `record` or by hand, read layer by layer; what is wrong with others."""

from __future__ import annotations

import json
from dataclasses import fields

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from normcheck.errors import UnreadableError
from normcheck.layers.activations import STATED_FIELDS, RecordedLayer, read_activations
from normcheck.layers.contents import Stated
from normcheck.layers.live.recording import record

LAYERS = {
    "encoder.norm": np.arange(24, dtype=np.float32).reshape(2, 12),
    "blocks.0:layer_norm.2": np.linspace(-1, 1, 30, dtype=np.float32).reshape(2, 3, 5),
    "head": np.full((1, 4), 7, np.float32),
}


def write(path, arrays) -> None:
    if path.suffix == ".safetensors":
        save_file(arrays, path)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt", ".pth"])
def test_a_mapping_written_by_hand_is_read_in_every_format(tmp_path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, LAYERS)
    activations = read_activations(str(path))
    assert activations.shapes == {name: array.shape for name, array in LAYERS.items()}
    assert set(activations.dtypes.values()) == {"float32"}
    assert (len(activations), set(activations), activations.layers) == (3, set(LAYERS), {})
    for name, array in LAYERS.items():
        assert np.array_equal(activations.load(name), array)
        assert np.array_equal(activations[name], array)
    assert "tail" not in activations
    with pytest.raises(KeyError):
        activations.load("tail")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_are_read_exactly(tmp_path, dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    torch.save({"norm": x}, tmp_path / "a.pt")
    activations = read_activations(str(tmp_path / "a.pt"))
    loaded = activations["norm"]
    assert activations.dtypes == {"norm": str(dtype).removeprefix("torch.")}
    assert loaded.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert np.array_equal(loaded, x.double().numpy())


def test_opening_reads_no_tensor(tmp_path) -> None:
    """What is written into the file after it was opened is what is read."""
    path = tmp_path / "a.safetensors"
    write(path, LAYERS)
    activations = read_activations(str(path))
    with path.open("r+b") as file:
        header = int.from_bytes(file.read(8), "little")
        start, _ = json.loads(file.read(header))["head"]["data_offsets"]
        file.seek(8 + header + start)
        file.write(np.full(4, 9, np.float32).tobytes())
    assert activations["head"].tolist() == [[9, 9, 9, 9]]
    assert np.array_equal(activations["encoder.norm"], LAYERS["encoder.norm"])


def test_every_fact_of_a_stated_norm_survives_the_file(tmp_path) -> None:
    assert {*STATED_FIELDS, "name", "norm"} == {field.name for field in fields(Stated)}
    model = nn.ModuleDict({"batch": nn.BatchNorm2d(4, eps=1e-3, momentum=0.2), "group": nn.GroupNorm(2, 4)})
    with record(model, tmp_path / "a.safetensors") as recording:
        for module in model.values():
            module(torch.ones(2, 4, 3, 3))
    layers = read_activations(str(tmp_path / "a.safetensors")).layers
    assert layers == recording.layers
    batch, group = layers["batch"].stated("x.batch"), layers["group"].stated("x.group")
    assert (batch.name, batch.norm.name, batch.eps, batch.momentum) == ("x.batch", "batch-l2", 1e-3, 0.2)
    assert (batch.running_var, batch.spatial, group.num_groups) == ("batch.running_var", True, 2)


@pytest.mark.parametrize(
    ("suffix", "arrays", "message"),
    [
        (".safetensors", {}, "there are no activations in it"),
        (".npz", {"a": np.arange(4)}, "a holds int64; activations are floating-point numbers"),
        (".pt", {"a": np.float32([[1, 2]]), "b": np.zeros((0, 4), np.float32)}, r"b has shape \(0, 4\)"),
        (".safetensors", {"a": np.array(3, np.float32)}, r"a has shape \(\)"),
    ],
)
def test_files_without_activations_are_refused(tmp_path, suffix: str, arrays, message: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, arrays)
    with pytest.raises(UnreadableError, match=message) as caught:
        read_activations(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", b""),
        ("a.safetensors", b"\xff" * 64),
        ("a.npz", b"PK\x03\x04 no archive"),
        ("a.pt", b"no pickle"),
        ("a.csv", b"1,2,3"),
        ("a", b""),
    ],
)
def test_damaged_and_foreign_files_are_one_line(tmp_path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableError) as caught:
        read_activations(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(UnreadableError, match=r"no\.safetensors"):
        read_activations(str(tmp_path / "no.safetensors"))


def test_names_that_mean_something_in_checkpoints_are_names_of_layers_like_all_others(tmp_path) -> None:
    names = ["module", "optimizer", "lr_scheduler", "exp_avg", "model_ema"]
    for some in (names, names[:1]):
        model = nn.ModuleDict({name: nn.ModuleDict({"norm": nn.LayerNorm(4)}) for name in some})
        with record(model, tmp_path / "a.safetensors") as recording:
            for module in model.values():
                module["norm"](torch.ones(2, 4))
        activations = read_activations(str(tmp_path / "a.safetensors"))
        assert set(activations) == set(recording.layers) == {f"{name}.norm" for name in some}


def test_a_recording_whose_metadata_lies_is_refused(tmp_path) -> None:
    layer = RecordedLayer(norm="rms", how="", functional=False, calls=1, elements=4, max_abs=1.0, nonfinite=0.0)
    text = msgspec.json.encode({"head": layer}).decode()
    save_file(LAYERS, tmp_path / "a.safetensors", {"normcheck": text})
    with pytest.raises(UnreadableError, match="the metadata 'normcheck' does not tell of"):
        read_activations(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {"norm": "rms"}}', '{"a": {"norm": 3}}'])
def test_damaged_metadata_is_said(tmp_path, text: str) -> None:
    save_file(LAYERS, tmp_path / "a.safetensors", {"normcheck": text})
    with pytest.raises(UnreadableError, match=r"the metadata 'normcheck' is damaged .*; record it again"):
        read_activations(str(tmp_path / "a.safetensors"))


def test_metadata_of_others_is_let_be(tmp_path) -> None:
    save_file(LAYERS, tmp_path / "a.safetensors", {"format": "np"})
    assert read_activations(str(tmp_path / "a.safetensors")).layers == {}


def test_a_recorded_layer_needs_no_more_than_what_was_seen() -> None:
    layer = RecordedLayer(norm="rms", how="by hand", functional=False, calls=0, elements=0, max_abs=0.0, nonfinite=0.0)
    assert layer.stated("a").norm.name == "rms"
    assert layer.shape == ()
