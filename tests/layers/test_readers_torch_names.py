"""Which of a checkpoint's tensors are the model's, what they are called, and what a file is called."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch_files import STATE, saved

from normcheck.errors import NormcheckError, UnreadableError
from normcheck.layers.readers import read
from normcheck.layers.readers.names import named_tensors

DDP = {f"module.{k}": v for k, v in STATE.items()}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    "checkpoint",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE},
        {"model": STATE},
        {"model_state_dict": STATE, "epoch": 3, "best": 0.5},
        {"model": {"state_dict": STATE}},
        {"epoch": torch.tensor(3), "state_dict": STATE},
        [STATE, {"lr": 0.1}],
        (STATE,),
        DDP,
        {"state_dict": DDP},
        {f"_orig_mod.{k}": v for k, v in STATE.items()},
        {f"module._orig_mod.{k}": v for k, v in STATE.items()},
        {"net": STATE, "optimizer": OPTIMIZER},
        {"ema": STATE, "model": STATE.copy()},
        {"state_dict": STATE, "state_dict_ema": STATE.copy()},
    ],
)
def test_containers_and_wrappers_are_no_part_of_a_name(tmp_path, checkpoint):
    for legacy in (False, True):
        contents = read(saved(tmp_path / "a.pt", checkpoint, legacy=legacy))
        assert set(contents.tensors) - {"epoch"} == set(STATE)
        assert all(name == tensor.name for name, tensor in contents.tensors.items())


def test_a_wrapper_that_is_not_around_everything_stays(tmp_path):
    tensors = read(saved(tmp_path / "a.pt", {"module.a.weight": torch.ones(2), "b.weight": torch.ones(2)})).tensors
    assert set(tensors) == {"module.a.weight", "b.weight"}


def test_models_side_by_side_keep_their_names(tmp_path):
    pair = {"generator": STATE, "discriminator": {"state_dict": {"fc.weight": torch.ones(1)}}}
    assert set(read(saved(tmp_path / "a.pt", pair)).tensors) == {f"generator.{k}" for k in STATE} | {
        "discriminator.fc.weight"
    }


def test_trees_of_parameters_keep_their_paths(tmp_path):
    tree = {"params": {"a": {"norm": {"scale": torch.ones(2)}, "w": torch.ones(3)}, "b": {"scale": torch.ones(2)}}}
    assert set(read(saved(tmp_path / "a.pt", tree)).tensors) == {"a.norm.scale", "a.w", "b.scale"}


def test_training_state_is_left_out_once_a_container_with_its_reason(tmp_path):
    checkpoint = {
        "state_dict": STATE,
        "optimizer_states": [OPTIMIZER, OPTIMIZER.copy()],
        "lr_schedulers": [{"last": torch.ones(1)}],
        "scaler": {"scale": torch.ones(1)},
        "ema_model": {"bn.weight": torch.ones(2)},
        "rng_state": torch.zeros(8, dtype=torch.uint8),
        "callbacks": {"best": {"score": torch.ones(())}},
        "loops": {"epoch": 3},
        "hyper_parameters": {"layer_norm_eps": 1e-6, "dims": (1, 2), "nested": {"a": None, "b": "x"}},
        "config": {"hidden": 8, "layer_norm_eps": 1.0},
    }
    contents = read(saved(tmp_path / "a.ckpt", checkpoint))
    assert set(contents.tensors) == set(STATE)
    assert {o.name: o.reason for o in contents.omitted} == {
        "optimizer_states": "optimizer state",
        "lr_schedulers": "state of the learning rate's schedule",
        "scaler": "state of the loss scale",
        "ema_model": "an averaged copy of the weights",
        "rng_state": "state of random generators",
        "callbacks": "state of the training loop",
    }
    assert contents.config == {"layer_norm_eps": 1e-6, "dims": [1, 2], "nested": {"b": "x"}, "hidden": 8}


def test_an_unnamed_optimizer_is_known_by_what_it_holds(tmp_path):
    contents = read(saved(tmp_path / "a.pt", {"model": STATE, "x": OPTIMIZER}))
    assert set(contents.tensors) == set(STATE)
    assert [(o.name, o.reason) for o in contents.omitted] == [("x", "optimizer state")]


def test_an_averaged_copy_alone_is_the_model(tmp_path):
    contents = read(saved(tmp_path / "a.pt", {"ema_state_dict": STATE}))
    assert set(contents.tensors) == set(STATE)
    assert contents.omitted == ()


def test_averaged_keys_beside_a_model_are_left_out(tmp_path):
    flat = STATE | {f"model_ema.{k}": v for k, v in STATE.items()}
    contents = read(saved(tmp_path / "a.pt", flat))
    assert set(contents.tensors) == set(STATE)
    assert [o.name for o in contents.omitted] == ["model_ema"]


def test_layers_that_are_named_like_training_state_are_layers(tmp_path):
    flat = {f"{name}.weight": torch.ones(2) for name in ("optimal.norm", "scheduler.ln", "scaler", "random", "ema.bn")}
    contents = read(saved(tmp_path / "a.pt", flat))
    assert set(contents.tensors) == set(flat)
    assert contents.omitted == ()


def test_what_an_averaged_copy_shares_with_the_model_is_not_lost(tmp_path):
    checkpoint = {"ema": STATE, "model": STATE, "criterion": {"weight": torch.ones(3)}}
    contents = read(saved(tmp_path / "a.pt", checkpoint))
    assert set(contents.tensors) == {f"model.{k}" for k in STATE} | {"criterion.weight"}


def test_what_is_no_string_is_no_name(tmp_path):
    tensors = read(saved(tmp_path / "a.pt", {0: torch.ones(1), ("a", 1): torch.ones(1), None: 2, "w": torch.ones(1)}))
    assert set(tensors.tensors) == {"w"}


def test_cycles_end(tmp_path):
    cycle = {"model": STATE}
    cycle["self"] = cycle
    cycle["list"] = [cycle, [cycle]]
    assert set(read(saved(tmp_path / "a.pt", cycle)).tensors) == set(STATE)


def test_one_tensor_under_two_names_is_one_storage(tmp_path):
    shared, buffer = torch.ones(4), torch.arange(8.0)
    named = {"a": shared, "b": shared, "c": torch.ones(4), "head": buffer[:4], "tail": buffer[4:], "again": buffer[:4]}
    for legacy in (False, True):
        tensors = read(saved(tmp_path / "a.pt", named, legacy=legacy)).tensors
        assert tensors["a"].storage == tensors["b"].storage
        assert tensors["head"].storage == tensors["again"].storage
        assert len({t.storage for t in tensors.values()}) == 4


def test_parameters_modules_of_buffers_and_dtypes_are_no_foreign_classes(tmp_path):
    extras = {
        "p": nn.Parameter(torch.ones(2)),
        "b": nn.Buffer(torch.ones(2)),
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "bytes": b"abc",
        "set": {1, 2},
        "complex": 1 + 2j,
        "metadata": OrderedDict(a=1),
    }
    assert set(read(saved(tmp_path / "a.pt", extras)).tensors) == {"p", "b"}
    assert set(read(saved(tmp_path / "b.pt", nn.BatchNorm2d(3).state_dict())).tensors) == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


# --------------------------------------------------------------------------------------------- the name of the file


def as_bytes(save, *arguments):
    buffer = io.BytesIO()
    save(*arguments, buffer)
    return buffer.getvalue()


def safetensors_bytes():
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + b"\0\0\x80?"


TORCH_ZIP = as_bytes(lambda f: torch.save(STATE, f))
TORCH_PICKLE = as_bytes(lambda f: torch.save(STATE, f, _use_new_zipfile_serialization=False))
NPZ = as_bytes(lambda f: np.savez(f, w=np.ones(2)))


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "ckpt", "tar", "pth.tar", "pkl", "model", "weights", "PT", ""])
@pytest.mark.parametrize("content", [TORCH_ZIP, TORCH_PICKLE], ids=["zip", "pickle"])
def test_any_name_of_torchs_may_hold_any_of_its_formats(tmp_path, suffix, content):
    path = tmp_path / f"a.{suffix}".rstrip(".")
    path.write_bytes(content)
    assert set(read(path).tensors) == set(STATE)


@pytest.mark.parametrize("content", [safetensors_bytes(), NPZ], ids=["safetensors", "npz"])
def test_without_a_telling_name_the_content_decides(tmp_path, content):
    (tmp_path / "a.weights").write_bytes(content)
    assert read(tmp_path / "a.weights").tensors["w"].load()[0] == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.safetensors", TORCH_ZIP, r"named \.safetensors but holds a PyTorch zip archive; rename it to \.pt"),
        ("a.safetensors", TORCH_PICKLE, r"named \.safetensors but holds a PyTorch pickle; rename it to \.pt"),
        ("a.safetensors", NPZ, r"holds an npz archive of numpy; rename it to \.npz"),
        ("a.pt", safetensors_bytes(), r"named \.pt but holds safetensors; rename it to \.safetensors"),
        ("a.bin", b"GGUF" + bytes(64), r"named \.bin but holds GGUF; rename it to \.gguf"),
        ("a.npz", TORCH_ZIP, r"named \.npz but holds a PyTorch zip archive"),
        ("a.gguf", safetensors_bytes(), r"named \.gguf but holds safetensors"),
        ("a.onnx", TORCH_PICKLE, r"named \.onnx but holds a PyTorch pickle"),
        ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("a.pt", b"<!DOCTYPE html><html>Not found</html>", "a web page; the download failed"),
        ("a.safetensors", b"\n  <html><body>Sign in</body></html>", "a web page"),
        ("a.pt", b'{"error": "not found"}', "it holds JSON"),
        ("a.pt", b"", "it is empty"),
        ("a.safetensors", b"", "it is empty"),
        ("a.pt", b"\x1f\x8b\x08\0" + bytes(30), "gunzip"),
        ("a.pt", b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5"),
        ("a.pt", b"plain words", "nothing that is known"),
        ("a.pt", pickle.dumps({"w": 1}), "not one of torch.save"),
        ("a.tar", bytes(257) + b"ustar\0" + bytes(300), "a tar archive"),
    ],
)
def test_files_that_are_not_what_they_are_named_say_what_they_are(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=says) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_zip_archive_of_something_else_is_no_model(tmp_path):
    for name, says in (("word/document.xml", "zip archive that is no model"), ("model.weights.h5", "Keras")):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, "x")
            archive.writestr("config.json", "{}")
        with pytest.raises(UnreadableError, match=says):
            read(tmp_path / "a.zip")


def test_all_refusals_are_errors_of_normcheck():
    assert issubclass(UnreadableError, NormcheckError)


def test_long_names_are_analysed_and_longer_ones_are_told():
    tensors = {f"{'a' * 9000}.weight": 1, "b" * 20_000: 2}
    named, omitted = named_tensors(tensors, lambda value: isinstance(value, int), lambda value, _name: value)
    assert list(named) == [f"{'a' * 9000}.weight"]
    assert [(len(item.name), item.reason) for item in omitted] == [(67, "its name has 20000 characters")]
