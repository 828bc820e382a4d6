"""Files of torch.save are read as torch reads them, without torch and without running them; torch is the oracle."""

from __future__ import annotations

import re
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import hostile
import numpy as np
import pytest
import torch
from torch import nn
from torch_files import STATE, Canary, quietly, rezipped, sample, saved, scripted, small, word

from normcheck.errors import UnreadableError
from normcheck.layers.contents import FLOATING
from normcheck.layers.readers import read
from normcheck.layers.readers.pytorch import is_plain
from normcheck.layers.readers.unpickling import Global

ROOT = Path(__file__).resolve().parent.parent.parent
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]
WIDE = (torch.float64, torch.int64, torch.int32)


# ------------------------------------------------------------------------------------------------- the elements


@pytest.mark.parametrize(
    ("dtype", "legacy"),
    [(d, False) for d in DTYPES] + [(d, True) for d in DTYPES if "float8" not in str(d)],  # which it cannot hold
    ids=lambda value: word(value) if isinstance(value, torch.dtype) else ("pickle" if value else "zip"),
)
def test_elements_of_every_type_are_torchs(tmp_path, dtype, legacy):
    tensor = sample(dtype)
    found = read(saved(tmp_path / "a.pt", {"w": tensor, "b": sample(dtype, (2,), 1)}, legacy=legacy)).tensors["w"]
    loaded = found.load()
    assert (found.name, found.shape, found.dtype) == ("w", (3, 5), word(dtype))
    assert found.is_floating == (word(dtype) in FLOATING)
    assert loaded.dtype == (np.float64 if dtype in WIDE else np.float32)
    np.testing.assert_array_equal(loaded, tensor.to(torch.float64 if dtype in WIDE else torch.float32).numpy())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickle"])
def test_views_of_a_storage_are_read_as_they_lie_in_it(tmp_path, legacy):
    base = torch.arange(60.0).reshape(3, 4, 5)
    views = {
        "all": base,
        "transposed": base.transpose(0, 2),
        "column": base[:, 1, 2],
        "part": base[1:, ::2, 1:4],
        "scalar": base[2, 3, 4],
        "empty": base[:0],
        "row": base[1, 2],
    }
    tensors = read(saved(tmp_path / "a.pt", views, legacy=legacy)).tensors
    assert list(tensors) == list(views)
    for name, view in views.items():
        assert tensors[name].shape == tuple(view.shape)
        np.testing.assert_array_equal(tensors[name].load(), view.numpy())


def test_special_values_survive(tmp_path):
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45, 65504.0])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        loaded = read(saved(tmp_path / "a.pt", {"w": values.to(dtype)})).tensors["w"].load()
        np.testing.assert_array_equal(loaded, values.to(dtype).float().numpy())
        assert np.signbit(loaded[3])


@pytest.mark.parametrize(
    ("dtype", "bits", "code"),
    [
        (torch.float32, torch.int32, 0x7F800001),
        (torch.bfloat16, torch.int16, 0x7F81),
        (torch.float16, torch.int16, 0x7C01),
    ],
    ids=["float32", "bfloat16", "float16"],
)
def test_signalling_nans_come_out_quiet(tmp_path, dtype, bits, code):
    tensor = torch.tensor([code, 0], dtype=bits).view(dtype)
    loaded = read(saved(tmp_path / "a.pt", {"w": tensor})).tensors["w"].load()
    np.testing.assert_array_equal(loaded.astype(np.float64), [np.nan, 0.0])  # a signalling one warns here


def test_float8_is_read_without_torch(tmp_path):
    path = saved(tmp_path / "a.pt", {"w": torch.ones(3).to(torch.float8_e5m2)})
    code = "import sys; from normcheck.layers.readers import read; "
    code += f"assert read({str(path)!r}).tensors['w'].load().tolist() == [1.0] * 3; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_big_endian_archives_are_turned_round(tmp_path):
    path = saved(tmp_path / "a.pt", {"w": torch.arange(6.0), "h": sample(torch.bfloat16)})

    def swap(name, data):
        if name.endswith("byteorder"):
            return b"big"
        if "/data/" in name:
            return np.frombuffer(data, "<u4" if name.endswith("/0") else "<u2").byteswap().tobytes()
        return data

    tensors = read(rezipped(path, swap)).tensors
    np.testing.assert_array_equal(tensors["w"].load(), np.arange(6.0))
    np.testing.assert_array_equal(tensors["h"].load(), sample(torch.bfloat16).float().numpy())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickle"])
def test_files_saved_on_a_gpu_are_read_without_one(tmp_path, legacy):
    path = saved(tmp_path / "a.pt", {"w": torch.arange(4.0)}, legacy=legacy)
    cpu, gpu = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:7"
    if legacy:
        assert cpu in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(cpu, gpu))
    else:
        rezipped(path, lambda _, data: data.replace(cpu, gpu))
    np.testing.assert_array_equal(read(path).tensors["w"].load(), np.arange(4.0))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickle"])
def test_only_the_tensor_that_is_loaded_is_read(tmp_path, legacy):
    path = saved(tmp_path / "a.pt", {"big": torch.zeros(16 << 20), "small": torch.ones(8)}, legacy=legacy)
    tracemalloc.start()
    try:
        tensors = read(path).tensors
        assert tensors["small"].load().sum() == 8
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 64 << 20
    assert peak < 4 << 20


# ------------------------------------------------------------------------------------------------- odd tensors


def odd_tensors():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "expanded": torch.ones(1).expand(10**6, 10**6),
            "quantized": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
            "sparse": torch.eye(3).to_sparse(),
            "meta": torch.empty(4, 5, device="meta"),
            "complex64": torch.ones(2, dtype=torch.complex64),
            "negated": torch.tensor([1 + 2j]).conj().imag,
        }


def test_tensors_without_plain_elements_say_so(tmp_path):
    path = saved(tmp_path / "a.pt", odd_tensors() | {"w": torch.ones(2)})
    tensors = read(path).tensors
    for name in odd_tensors():
        assert name in tensors[name].dtype
        assert not tensors[name].is_floating
        with pytest.raises(UnreadableError, match=re.escape(f"{path}: {name}")) as caught:
            tensors[name].load()
        assert "\n" not in str(caught.value)
    assert tensors["expanded"].shape == (10**6, 10**6)
    assert tensors["meta"].shape == (4, 5)
    assert tensors["w"].load().sum() == 2


def test_views_of_storages_in_files_of_the_first_versions(tmp_path):
    stored = hostile.storage().replace(b"tQ", b"(" + hostile.text("9") + hostile.number(1) + hostile.number(3) + b"ttQ")
    pickled = hostile.state(hostile.tensor(hostile.sizes(2), hostile.sizes(1), offset=1, stored=stored))
    (tmp_path / "a.pt").write_bytes(hostile.legacy(pickled)[:-16] + np.arange(4, dtype="<f4").tobytes())
    assert read(tmp_path / "a.pt").tensors["w0"].load().tolist() == [2, 3]


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("a storage too long", "has 16 bytes instead of 20"),
        ("a storage that is not there", "storage '9' of w0 is missing"),
        ("a storage outside", r"storage '\.\./data\.pkl' of w0 is missing"),
        ("10^12 elements beyond", "reaches to element 1,000,000,000,000 of 4"),
        ("an offset of 2^62", "reaches to element"),
        ("an offset below 0", "do not fit each other"),
        ("a size below 0", "no sequence of sizes"),
        ("a stride below 0", "no sequence of sizes"),
        ("65 dimensions", "no sequence of sizes"),
        ("no storage", "a tensor has no storage"),
        ("a storage of -1", "names a storage in a way that torch does not"),
        ("too few arguments", "its pickle is broken"),
    ],
)
def test_tensors_that_lie_are_refused_for_their_reason(tmp_path, case, says):
    (tmp_path / "a.pt").write_bytes(hostile.torch_zip(dict(hostile.lies())[case]))
    with pytest.raises(UnreadableError, match=says):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("a storage compressed", "is compressed or encrypted"),
        ("a storage encrypted", "entry 'data/0' of its zip archive is compressed or encrypted"),
        ("a storage of two sizes", "entry 'data/0' of its zip archive is compressed or encrypted"),
        ("a storage behind the end", "entry 'data/0' of its zip archive reaches beyond the file"),
        ("a storage that begins elsewhere", "entry 'data/0' of its zip archive is not where the archive says"),
        ("two of one name", "two entries of one name"),
        ("a size of 4 GiB", "claims 4,278,190,079 bytes, too many"),
        ("sizes of 4 GiB", "broken|reaches beyond the file|claims"),
        ("a directory of 4 GiB", "claims a table of contents of 4,294,967,295 bytes"),
        ("a wide directory of 1 TiB", "claims a table of contents of 1,099,511,627,776 bytes"),
        ("a bomb of a pickle", "claims 209,715,200 bytes, too many"),
        ("a wrong sum", "broken: Bad CRC"),
    ],
)
def test_archives_that_lie_are_refused_for_their_reason(tmp_path, case, says):
    (tmp_path / "a.pt").write_bytes(dict(hostile.zips())[case])
    with pytest.raises(UnreadableError, match=says):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("no storages", "broken|missing"),
        ("keys that are none", "its list of storages is missing"),
        ("a key too many", "storage '1' of its list is not in the file"),
        ("no key", "storage '0' of w0 is missing"),
        ("2^62 elements", "has 4,611,686,018,427,387,904 elements instead of 4"),
        ("one storage of two sizes", "describes storage '0' in two ways"),
        ("a long header", "more operations than any checkpoint"),
    ],
)
def test_older_files_that_lie_are_refused_for_their_reason(tmp_path, case, says):
    (tmp_path / "a.pt").write_bytes(dict(hostile.legacies())[case])
    with pytest.raises(UnreadableError, match=says):
        read(tmp_path / "a.pt")


def test_a_file_that_shrinks_after_it_was_read_is_an_error(tmp_path):
    path = saved(tmp_path / "a.pt", {"w": torch.ones(1000)}, legacy=True)
    tensor = read(path).tensors["w"]
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableError, match="ends after 2000 of 4000 bytes"):
        tensor.load()
    path.unlink()
    with pytest.raises(UnreadableError, match="cannot be read"):
        tensor.load()


# ------------------------------------------------------------------------------------------------- foreign classes


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickle"])
def test_foreign_classes_are_named_and_not_loaded(tmp_path, legacy):
    canary = tmp_path / "canary"
    path = saved(tmp_path / "a.pt", {"w": torch.ones(2), "x": Canary(canary)}, legacy=legacy)
    with pytest.raises(UnreadableError, match=r"refused, because it holds builtins\.getattr, pathlib\.Path") as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "--trust" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not canary.exists()
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        torch.load(path, weights_only=True)


def test_a_whole_module_is_refused_by_its_class(tmp_path):
    with pytest.raises(UnreadableError, match=r"torch\.nn\.modules\.container\.Sequential"):
        read(saved(tmp_path / "a.pt", small()))


def test_with_trust_code_is_run_and_the_report_can_say_so(tmp_path):
    canary = tmp_path / "canary"
    path = saved(tmp_path / "a.pt", {"w": torch.arange(3.0), "x": Canary(canary)})
    contents = read(path, trust=True)
    assert canary.exists()
    assert contents.trusted
    np.testing.assert_array_equal(contents.tensors["w"].load(), np.arange(3.0))


def test_with_trust_files_that_need_none_are_read_as_ever(tmp_path):
    contents = read(saved(tmp_path / "b.pt", STATE), trust=True)
    assert set(contents.tensors) == set(STATE)
    assert not contents.trusted


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": m, "ema": m, "epoch": 1}, lambda m: [{"net": m}]])
def test_with_trust_modules_state_their_norms(tmp_path, wrap):
    contents = read(saved(tmp_path / "a.pt", wrap(small())), trust=True)
    assert contents.trusted
    assert [(s.name, s.norm.name) for s in contents.stated] == [("1", "batch-l2"), ("2", "layer-l2")]
    np.testing.assert_array_equal(contents.tensors["1.weight"].load(), small()[1].weight.detach().numpy())


def test_with_trust_two_modules_keep_their_names(tmp_path):
    contents = read(saved(tmp_path / "a.pt", {"g": small(), "d": nn.LayerNorm(3)}), trust=True)
    assert {s.name for s in contents.stated} >= {"g.1", "g.2"}
    assert {"g.1.weight", "d.weight"} <= set(contents.tensors)


def test_with_trust_odd_tensors_say_so_too(tmp_path):
    others = {"h": torch.ones(2, dtype=torch.bfloat16), "x": Canary(tmp_path / "canary")}
    contents = read(saved(tmp_path / "a.pt", odd_tensors() | others), trust=True)
    assert contents.trusted
    tensors = contents.tensors
    assert tensors["negated"].load().tolist() == [-2]
    assert tensors["h"].dtype == "bfloat16"
    assert tensors["h"].load().tolist() == [1, 1]
    for name in set(odd_tensors()) - {"negated"}:
        assert name in tensors[name].dtype
        with pytest.raises(UnreadableError):
            tensors[name].load()


def test_trust_in_code_that_fails_is_one_line(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"cno.such.module\nName\n.")
        archive.writestr("a/version", "3")
    with pytest.raises(UnreadableError, match=r"its code fails to load it: ModuleNotFoundError") as caught:
        read(path, trust=True)
    assert "\n" not in str(caught.value)


def test_trust_in_a_class_of_a_script_says_what_to_save(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"c__main__\nNoSuchNetwork\n.")
        archive.writestr("a/version", "3")
    with pytest.raises(UnreadableError, match=r"NoSuchNetwork.* save its state dict; with that, --model MODULE:NAME"):
        read(path, trust=True)


def test_the_classes_that_are_accepted_are_those_of_weights_only():
    from torch._weights_only_unpickler import _get_allowed_globals

    theirs = {name for name in _get_allowed_globals() if name.startswith(("torch.", "collections.", "builtins."))}
    assert len(theirs) > 80
    assert {name for name in theirs if not is_plain(Global(*name.rsplit(".", 1)))} <= NEVER_SAVED


NEVER_SAVED = {"torch._utils._rebuild_device_tensor_from_numpy"}  # it needs classes of numpy, which they refuse too


# ------------------------------------------------------------------------------------------------- what is loaded


def test_reading_checkpoints_needs_no_torch(tmp_path):
    saved(tmp_path / "a.pt", STATE)
    saved(tmp_path / "b.pt", STATE, legacy=True)
    quietly(torch.jit.save, scripted(nn.BatchNorm1d(3)), tmp_path / "c.pt")
    code = (
        "import sys; from normcheck.layers.readers import read\n"
        "for f in sys.argv[1:]: assert [t.load() for t in read(f).tensors.values()]\n"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / f"{n}.pt") for n in "abc")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "False", "")
