"""safetensors files: shapes without elements, exact elements of every type, and one line about what is broken."""

import json
import resource
import struct
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from normcheck.errors import UnreadableError
from normcheck.layers.readers import safetensors_file
from normcheck.layers.readers.elements import as_numbers

FLOATS = {
    "F64": ("float64", np.float64),
    "F32": ("float32", np.float32),
    "F16": ("float16", np.float16),
    "BF16": ("bfloat16", ml_dtypes.bfloat16),
    "F8_E4M3": ("float8_e4m3fn", ml_dtypes.float8_e4m3fn),
    "F8_E5M2": ("float8_e5m2", ml_dtypes.float8_e5m2),
}


def write(path, tensors, metadata=None):
    """Write `tensors`, name: (word, shape, bytes), by the specification rather than by the library."""
    header = {"__metadata__": metadata} if metadata is not None else {}
    end = 0
    for name, (word, shape, data) in tensors.items():
        header[name] = {"dtype": word, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))
    return path


def every_code(dtype):
    """Return all codes of a type of at most 16 bits, or awkward values of a wider one."""
    size = np.dtype(dtype).itemsize
    if size <= 2:
        return np.arange(2 ** (8 * size)).astype(f"<u{size}").view(dtype)
    info = np.finfo(dtype)
    return np.array([0, -0.0, info.max, -info.max, info.tiny, info.smallest_subnormal, np.inf, np.nan, 1 / 3], dtype)


@pytest.mark.parametrize("word", FLOATS)
def test_every_element_is_exact(tmp_path, word):
    ours, dtype = FLOATS[word]
    values = every_code(dtype)
    path = write(tmp_path / "m.safetensors", {"a": ("U8", [3], b"abc"), "w": (word, [len(values)], values.tobytes())})
    tensor = safetensors_file.read(path, "m").tensors["w"]
    loaded = tensor.load()
    assert (tensor.dtype, tensor.is_floating) == (ours, True)
    assert loaded.dtype == (np.float64 if word == "F64" else np.float32)
    with np.errstate(invalid="ignore"):
        expected = values.astype(np.float64)
    np.testing.assert_array_equal(loaded.astype(np.float64), expected)
    numbers = ~np.isnan(loaded)
    np.testing.assert_array_equal(np.signbit(loaded[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize("name", ["float8_e4m3fnuz", "float8_e5m2fnuz"])
def test_formats_without_negative_zero_are_decoded(name):
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(as_numbers(codes, name), codes.view(getattr(ml_dtypes, name)).astype(np.float32))


@pytest.mark.parametrize(
    ("word", "ours", "dtype"),
    [
        *[("I8", "int8", "i1"), ("U8", "uint8", "u1"), ("I16", "int16", "<i2"), ("BOOL", "bool", "?")],
        *[("I32", "int32", "<i4"), ("I64", "int64", "<i8"), ("U64", "uint64", "<u8")],
    ],
)
def test_integers_keep_their_value_and_are_no_floats(tmp_path, word, ours, dtype):
    values = np.array([0, 1, 1] if dtype == "?" else [0, 1, np.iinfo(dtype).max // 2**11], dtype)
    tensor = safetensors_file.read(write(tmp_path / "m", {"w": (word, [3], values.tobytes())}), "m").tensors["w"]
    assert (tensor.dtype, tensor.is_floating) == (ours, False)
    np.testing.assert_array_equal(tensor.load().astype(np.float64), values.astype(np.float64))


def test_names_shapes_and_scalars_are_the_files(tmp_path):
    data = np.arange(6, dtype="<f4")
    path = write(
        tmp_path / "m.safetensors",
        {"a.weight": ("F32", [2, 3], data.tobytes()), "n": ("F32", [], data[:1].tobytes()), "none": ("F32", [0], b"")},
    )
    contents = safetensors_file.read(path, "models/m.safetensors")
    assert (contents.path, contents.reader) == ("models/m.safetensors", "safetensors")
    assert {key: t.shape for key, t in contents.tensors.items()} == {"a.weight": (2, 3), "n": (), "none": (0,)}
    np.testing.assert_array_equal(contents.tensors["a.weight"].load(), data.reshape(2, 3))
    assert contents.tensors["n"].load().shape == ()
    assert len({t.storage for t in contents.tensors.values()}) == 3


def test_what_wrappers_put_before_names_goes_and_the_elements_stay(tmp_path):
    two = {"module.a.weight": ("F32", [1], b"\0\0\x80?"), "module.b.weight": ("F32", [1], b"\0\0\0@")}
    tensors = safetensors_file.read(write(tmp_path / "m", two), "m").tensors
    assert {key: (t.name, t.load().tolist()) for key, t in tensors.items()} == {
        "a.weight": ("a.weight", [1]),
        "b.weight": ("b.weight", [2]),
    }


def test_metadata_becomes_the_config(tmp_path):
    metadata = {"format": "pt", "config": '{"model": {"eps": 1e-6}}', "list": "[1]", "broken": "{"}
    path = write(tmp_path / "m.safetensors", {"w": ("F16", [1], b"\0\0")}, metadata)
    assert safetensors_file.read(path, "m").config == metadata | {"config": {"model": {"eps": 1e-6}}}


def test_a_shared_tensor_is_there_under_both_names(tmp_path):
    import torch
    from safetensors.torch import save_model

    model = torch.nn.Module()
    model.norm_a = model.norm_b = torch.nn.LayerNorm(4)
    torch.nn.init.normal_(model.norm_a.weight)
    save_model(model, str(tmp_path / "m.safetensors"), metadata={"format": "pt"})
    contents = safetensors_file.read(tmp_path / "m.safetensors", "m")
    assert set(contents.tensors) == {"norm_a.weight", "norm_b.weight", "norm_a.bias", "norm_b.bias"}
    first, second = contents.tensors["norm_a.weight"], contents.tensors["norm_b.weight"]
    assert first.storage == second.storage != contents.tensors["norm_a.bias"].storage
    for tensor in (first, second):
        np.testing.assert_array_equal(tensor.load(), model.norm_a.weight.detach().numpy())
    assert contents.config == {"format": "pt"}


def test_a_setting_with_the_name_of_a_tensor_does_not_replace_it(tmp_path):
    two = {"a": ("U8", [1], b"\1"), "b": ("U8", [1], b"\2")}
    contents = safetensors_file.read(write(tmp_path / "m", two, {"a": "b"}), "m")
    assert [tensor.load().tolist() for tensor in contents.tensors.values()] == [[1], [2]]


def test_elements_that_are_no_plain_numbers_are_refused_by_name(tmp_path):
    path = write(tmp_path / "m.safetensors", {"scale": ("F8_E8M0", [2], b"ab")})
    tensor = safetensors_file.read(path, "m.safetensors").tensors["scale"]
    assert (tensor.dtype, tensor.is_floating) == ("f8_e8m0", False)
    with pytest.raises(UnreadableError, match=r"^m.safetensors: tensor 'scale' .* F8_E8M0"):
        tensor.load()


WHOLE = {"w": ("F32", [2], bytes(8))}


def broken(path, how):
    data = write(path, WHOLE).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    made = {
        "empty": b"",
        "short length": data[:5],
        "short header": data[:20],
        "short data": data[:-1],
        "more data": data + b"\0",
        "huge length": struct.pack("<Q", 2**63) + data[8:],
        "no JSON": data[:8] + b"[" + data[9:],
        "wrong shape": data.replace(b"[2]", b"[3]"),
        "negative shape": struct.pack("<Q", length + 1) + data[8:].replace(b"[2]", b"[-2]"),
        "overlap": data.replace(b"[0, 8]", b"[1, 8]"),
        "unknown type": data.replace(b"F32", b"F3x"),
        "deep": struct.pack("<Q", 50000) + b"[" * 50000,
    }
    path.write_bytes(made[how])
    return path


@pytest.mark.parametrize(
    "how",
    [
        *["empty", "short length", "short header", "short data", "more data", "huge length", "no JSON"],
        *["wrong shape", "negative shape", "overlap", "unknown type", "deep"],
    ],
)
def test_a_broken_file_is_one_line(tmp_path, how):
    with pytest.raises(UnreadableError, match=r"^given/name: not a complete safetensors file") as caught:
        safetensors_file.read(broken(tmp_path / "m.safetensors", how), "given/name")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_opened_is_one_line(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UnreadableError, match=r"^the name: cannot be opened: \w+") as caught:
            safetensors_file.read(path, "the name")
        assert "\n" not in str(caught.value)


def test_a_file_that_changes_after_it_was_opened_is_said(tmp_path):
    path = write(tmp_path / "m.safetensors", WHOLE)
    tensor = safetensors_file.read(path, "m").tensors["w"]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UnreadableError, match=r"m: tensor 'w' ends after 4 of 8 bytes"):
        tensor.load()
    path.unlink()
    with pytest.raises(UnreadableError, match=r"m: tensor 'w' cannot be read: No such file"):
        tensor.load()


def test_a_large_file_costs_the_memory_of_what_is_loaded(tmp_path):
    size = 2**31
    header = {
        "big.weight": {"dtype": "BF16", "shape": [2**30], "data_offsets": [0, size]},
        "norm.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [size, size + 8]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.seek(size, 1)
        file.write(np.array([1, 2, -3, 0.5], ml_dtypes.bfloat16).tobytes())
    program = f"""
import resource, sys
from pathlib import Path
from normcheck.layers.readers import safetensors_file
from normcheck.layers.readers.elements import as_numbers
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tensors = safetensors_file.read(Path({str(path)!r}), "m").tensors
assert tensors["norm.weight"].load().tolist() == [1, 2, -3, 0.5]
assert "torch" not in sys.modules
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unit = 1024 if sys.platform == "linux" else 1
    assert int(done.stdout) * unit < 2**24


def test_no_file_stays_open(tmp_path):
    import gc

    paths = [write(tmp_path / f"{i}.safetensors", WHOLE) for i in range(64)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()
    open_now = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 32
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 16, hard))
    try:
        kept = [safetensors_file.read(path, "m").tensors["w"] for path in paths]
        assert [tensor.load().tolist() for tensor in kept] == [[0, 0]] * 64
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
