"""NumPy archives: headers without elements, nothing unpickled, and one line about what is broken or hostile."""

import io
import os
import struct
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from normcheck.errors import UnreadableError
from normcheck.layers.readers import npz


def npy(header, data, version=(1, 0), length=None):
    """Return a .npy file with any header at all."""
    text = header if isinstance(header, bytes) else header.encode()
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", size) + text + data


def header(descr="'<f4'", shape="(2,)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_names_shapes_types_and_elements_are_the_files(tmp_path, save):
    arrays = {
        "norm.weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
        "half": np.array([65504, np.inf, np.nan, 6e-8], np.float16),
        "double": np.array([1e300, 1 / 3]),
        "columns": np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3)),
        "big-endian": np.array([1.5, -2], ">f4"),
        "scalar": np.float32(3),
        "codes": np.array([-128, 127], np.int8),
        "count": np.array([2**40]),
        "flags": np.array([True, False]),
    }
    save(tmp_path / "m.npz", **arrays)
    contents = npz.read(tmp_path / "m.npz", "given.npz")
    assert (contents.path, contents.reader, contents.omitted) == ("given.npz", "NumPy archive", ())
    assert {t.name: (t.shape, t.dtype) for t in contents.tensors.values()} == {
        key: (array.shape, array.dtype.name) for key, array in arrays.items()
    }
    for key, array in arrays.items():
        loaded = contents.tensors[key].load()
        assert loaded.dtype == (np.float64 if key in {"double", "count"} else np.float32)
        np.testing.assert_array_equal(loaded, array.astype(np.float64))
    assert [t.name for t in contents.tensors.values() if not t.is_floating] == ["codes", "count", "flags"]
    assert len({t.storage for t in contents.tensors.values()}) == len(arrays)


def test_what_wrappers_put_before_names_goes(tmp_path):
    np.savez(tmp_path / "m.npz", **{"module.a": np.ones(1), "module.b": np.zeros(1)})
    tensors = npz.read(tmp_path / "m.npz", "m").tensors
    assert {key: (t.name, t.load().tolist()) for key, t in tensors.items()} == {"a": ("a", [1]), "b": ("b", [0])}


class Marker:
    """An object whose unpickling would leave a trace."""

    def __reduce__(self):
        return os.mkdir, (os.environ["NORMCHECK_TEST_TRACE"],)


def test_objects_are_left_out_and_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMCHECK_TEST_TRACE", str(tmp_path / "trace"))
    np.savez(tmp_path / "m.npz", good=np.ones(2), bad=np.array([Marker()], dtype=object))
    contents = npz.read(tmp_path / "m.npz", "m.npz")
    for tensor in contents.tensors.values():
        tensor.load()
    assert list(contents.tensors) == ["good"]
    assert [(o.name, "Python objects" in o.reason) for o in contents.omitted] == [("bad", True)]
    assert not (tmp_path / "trace").exists()


def test_what_is_no_number_is_left_out_with_its_reason(tmp_path):
    np.savez(
        tmp_path / "m.npz",
        bf16=np.ones(2, ml_dtypes.bfloat16),
        text=np.array("eps"),
        phase=np.array([1j]),
        record=np.zeros(1, [("a", "f4")]),
        day=np.array(["2020-01-01"], "M8[D]"),
    )
    with zipfile.ZipFile(tmp_path / "m.npz", "a") as file:
        file.writestr("notes.txt", "hello")
        file.writestr("π.npy", npy(header("[('π', '<f4')]"), bytes(8), version=(3, 0)))
    contents = npz.read(tmp_path / "m.npz", "m.npz")
    reasons = {o.name: o.reason for o in contents.omitted}
    assert contents.tensors == {}
    assert set(reasons) == {"bf16", "text", "phase", "record", "day", "notes.txt", "π"}
    assert "bfloat16" in reasons["bf16"]
    assert reasons["notes.txt"] == "no array but a file of 5 bytes"


def test_an_archive_without_arrays_is_empty_or_refused(tmp_path):
    np.savez(tmp_path / "none.npz")
    assert npz.read(tmp_path / "none.npz", "m").tensors == {}
    with pytest.raises(UnreadableError, match=r"^m: a zip archive without arrays"):
        npz.read(archive(tmp_path / "m.npz", {"data.pkl": b"x"}), "m")


LIES = {
    "more elements than bytes": npy(header(shape="(3,)"), bytes(8)),
    "far too many elements": npy(header(shape="(1099511627776, 1099511627776)"), bytes(8)),
    "a negative dimension": npy(header(shape="(-1,)"), bytes(8)),
    "two negative dimensions": npy(header(shape="(-1, -2)"), bytes(8)),
    "no magic": b"PK" + npy(header(), bytes(8)),
    "an unknown version": npy(header(), bytes(8), version=(9, 9)),
    "a header beyond the end": npy(header(), bytes(8), length=60000),
    "a header of 4 GiB": npy(header(), bytes(8), version=(2, 0), length=2**32 - 1),
    "a header that is code": npy("__import__('os').getcwd()", bytes(8)),
    "a header of brackets": npy("(" * 5000, bytes(8)),
    "a type that does not exist": npy(header("'<f3'"), bytes(8)),
    "a type that is a list of nothing": npy(header("[(1,2,3,4,5)]"), bytes(8)),
    "a shape of floats": npy(header(shape="(2.0,)"), bytes(8)),
    "a shape of text": npy(header(shape="'ab'"), bytes(8)),
    "a header that is no mapping": npy("[1]\n", bytes(8)),
    "nothing": b"",
    "half a magic": b"\x93NUM",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_one_line(tmp_path, lie):
    path = archive(tmp_path / "m.npz", {"good.npy": npy(header(), bytes(8)), "w.npy": LIES[lie]})
    with pytest.raises(UnreadableError, match=r"^m.npz: array 'w': ") as caught:
        npz.read(path, "m.npz")
    assert "\n" not in str(caught.value)


def test_an_unknown_version_is_named(tmp_path):
    path = archive(tmp_path / "m.npz", {"w.npy": LIES["an unknown version"]})
    with pytest.raises(UnreadableError, match=r"format version 9\.9 is unknown"):
        npz.read(path, "m.npz")


def test_a_damaged_archive_is_one_line(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, w=np.random.default_rng(0).standard_normal(1000))
    whole = buffer.getvalue()
    path = tmp_path / "m.npz"
    for data in (b"", whole[:100], whole[: len(whole) // 2], b"PK\3\4" + bytes(100)):
        path.write_bytes(data)
        with pytest.raises(UnreadableError, match=r"^m: not a complete NumPy archive \(") as caught:
            npz.read(path, "m")
        assert "\n" not in str(caught.value)
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(UnreadableError, match=r"^m: cannot be opened: "):
            npz.read(missing, "m")


def test_damaged_elements_are_one_line_when_loaded(tmp_path):
    np.savez_compressed(tmp_path / "m.npz", w=np.random.default_rng(0).standard_normal(10000))
    data = bytearray((tmp_path / "m.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "m.npz").write_bytes(data)
    tensor = npz.read(tmp_path / "m.npz", "m").tensors["w"]
    with pytest.raises(UnreadableError, match=r"^m: array 'w': not a complete NumPy archive"):
        tensor.load()


def test_an_encrypted_member_is_one_line(tmp_path):
    path = archive(tmp_path / "m.npz", {"w.npy": npy(header(), bytes(8))})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableError, match=r"^m: array 'w': .*encrypted"):
        npz.read(path, "m")


def test_any_flipped_byte_gives_contents_or_one_line(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, w=np.arange(16.0), n=np.arange(3))
    whole = buffer.getvalue()
    path = tmp_path / "m.npz"
    refused = 0
    for index in range(len(whole)):
        for flip in (1, 128, 255):
            path.write_bytes(whole[:index] + bytes([whole[index] ^ flip]) + whole[index + 1 :])
            try:
                for tensor in npz.read(path, "m").tensors.values():
                    tensor.load()
            except UnreadableError:
                refused += 1
    assert 0 < refused < 3 * len(whole)


def test_a_bomb_does_not_fill_memory(tmp_path):
    size = 2**30
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("w.npy", "w") as member:
            member.write(npy(header(shape=f"({size // 4},)"), b""))
            for _ in range(size // 2**24):
                member.write(bytes(2**24))
        file.writestr("norm.npy", npy(header(), np.array([1, 2], "<f4").tobytes()))
    assert path.stat().st_size < size / 100
    program = f"""
import resource
from pathlib import Path
from normcheck.errors import UnreadableError
from normcheck.layers.readers import npz
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tensors = npz.read(Path({str(path)!r}), "m").tensors
assert tensors["norm"].load().tolist() == [1, 2]
try:
    tensors["w"].load()
except UnreadableError as error:
    assert "inflate to" in str(error), error
else:
    raise SystemExit("not refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) * (1024 if sys.platform == "linux" else 1) < 2**25


def test_elements_are_not_read_before_they_are_loaded(tmp_path):
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w") as file, file.open("w.npy", "w") as member:
        member.write(npy(header(shape=f"({2**22},)"), b""))
        for _ in range(16):
            member.write(bytes(2**20))
    read_bytes = []
    original = zipfile.ZipExtFile.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: read_bytes.append(n) or original(self, n))
        tensor = npz.read(path, "m").tensors["w"]
    assert read_bytes
    assert 0 < max(read_bytes) <= 2**16
    assert tensor.load().shape == (2**22,)
