"""Files of the formats besides torch's that are broken, lie, or attack."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from hostile import zipped


def safetensors():
    """Yield headers that no safetensors file has."""

    def with_header(header, data=bytes(16), length=None):
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(raw) if length is None else length) + raw + data

    def entry(**changes):
        return {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | changes}

    yield "2^63", with_header(entry(), length=1 << 63)
    yield "2^64 - 1", with_header(entry(), length=(1 << 64) - 1)
    yield "2^40", with_header(entry(), length=1 << 40)
    yield "one too long", with_header(entry(), length=len(json.dumps(entry())) + 17)
    yield "too short", with_header(entry(), length=5)
    yield "no data", with_header(entry(), b"")
    yield "too much data", with_header(entry(), bytes(99))
    yield "10^12 elements", with_header(entry(shape=[10**6, 10**6]))
    yield "2^64 elements", with_header(entry(shape=[1 << 32, 1 << 32]))
    yield "elements below 0", with_header(entry(shape=[-4]))
    yield "an unknown type", with_header(entry(dtype="F1"))
    yield "offsets beyond", with_header(entry(data_offsets=[0, 1 << 40]))
    yield "offsets reversed", with_header(entry(data_offsets=[16, 0]))
    yield "offsets below 0", with_header(entry(data_offsets=[-16, 0]))
    yield "overlapping", with_header(entry() | {"v": entry()["w"]})
    yield "a hole", with_header(entry(data_offsets=[16, 32]), bytes(32))
    yield "a list", with_header([1, 2])
    yield "no entry", with_header({"w": 3})
    yield "metadata of numbers", with_header({"__metadata__": {"a": 1}} | entry())
    yield "metadata of a list", with_header({"__metadata__": []} | entry())
    yield "deep", with_header(b'{"a":' * 100_000)
    yield "deep lists", with_header(b'{"a":' + b"[" * 100_000)
    yield (
        "one name twice",
        with_header(b"{" + json.dumps(entry())[1:-1].encode() + b"," + json.dumps(entry())[1:].encode()),
    )
    yield "no text", with_header(b'{"\xff\xfe": 1}')
    yield "a name with an escape", with_header({"\x1b[2J\n": {"dtype": "F32", "shape": [9], "data_offsets": [0, 16]}})
    yield "digits", with_header(b'{"w":' + b"9" * 5000 + b"}")


def npzs(canary):
    """Yield archives of arrays that would run code or take all memory."""

    def array(header, data=b"", magic=b"\x93NUMPY\1\0"):
        raw = header.encode().ljust(117) + b"\n"
        return magic + struct.pack("<H", len(raw)) + raw + data

    def header(shape="(4,)", descr="'<f4'", order="False"):
        return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (Path(canary),))

    evil = io.BytesIO()
    np.savez(evil, w=np.array([Evil()], dtype=object))
    yield "pickled objects", evil.getvalue()
    for name, member in (
        ("10^12 elements", array(header("(1000000, 1000000)"), bytes(16))),
        ("2^70 elements", array(header(f"({1 << 70},)"), bytes(16))),
        ("elements below 0", array(header("(-4,)"), bytes(16))),
        ("a shape of text", array(header("'abc'"), bytes(16))),
        ("a shape of bools", array(header("(True, False)"), bytes(16))),
        ("code for a header", array(f"__import__('os').system('touch {canary}')")),
        ("code for a shape", array(header(f"__import__('os').system('touch {canary}')"))),
        ("code for a type", array(header(descr=f"__import__('os').system('touch {canary}')"))),
        ("objects for a type", array(header(descr="'|O'"), pickle.dumps(Evil()))),
        ("a structure", array(header(descr="[('a', '<f4')]"), bytes(16))),
        ("a type of 2^31", array(header(descr="'V2147483647'"), bytes(16))),
        ("an unknown type", array(header(descr="'<z9'"), bytes(16))),
        ("too little data", array(header(), bytes(3))),
        ("too much data", array(header(), bytes(3000))),
        ("a deep header", array("(" * 5000)),
        ("a header of 64 KiB", b"\x93NUMPY\1\0\xff\xff" + b"{" * 70_000),
        ("a header of 4 GiB", b"\x93NUMPY\2\0\xff\xff\xff\xff{"),
        ("version 9", array(header(), bytes(16), b"\x93NUMPY\x09\0")),
        ("no array", b"nothing"),
        ("empty", b""),
    ):
        yield name, zipped([("w.npy", member)])
    yield "a bomb", zipped([("w.npy", array(header(f"({50 << 20},)"), bytes(200 << 20)))], zipfile.ZIP_DEFLATED)
    yield "two of one name", zipped([("w.npy", array(header(), bytes(16)))] * 2)


def ggufs():
    """Yield GGUF headers with absurd counts and lengths."""

    def start(tensors, pairs, version=3):
        return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)

    def name(value):
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    def pair(key, kind, value):
        return name(key) + struct.pack("<I", kind) + value

    def info(dims, kind=0, offset=0, count=None):
        count = len(dims) if count is None else count
        return name("w") + struct.pack(f"<I{len(dims)}QIQ", count, *dims, kind, offset)

    def padded(data, extra=16):
        return data + bytes(-len(data) % 32 + extra)

    deep = b"".join(struct.pack("<IQ", 9, 1) for _ in range(50_000))
    yield "2^63 tensors", start(1 << 63, 0)
    yield "2^63 pairs", start(0, 1 << 63)
    yield "both", start((1 << 64) - 1, (1 << 64) - 1) + bytes(1000)
    yield "10^9 of nothing", start(10**9, 10**9) + bytes(100_000)
    yield "a key of 2^63", start(0, 1) + struct.pack("<Q", 1 << 63) + bytes(99)
    yield "text of 2^62", start(0, 1) + pair("a", 8, struct.pack("<Q", 1 << 62))
    yield "an array of 2^62", start(0, 1) + pair("a", 9, struct.pack("<IQ", 4, 1 << 62))
    yield "an array of 2^62 bytes", start(0, 1) + pair("a", 9, struct.pack("<IQ", 0, 1 << 62) + bytes(99))
    yield "deep arrays", start(0, 1) + pair("a", 9, deep)
    yield "an unknown type of value", start(0, 1) + pair("a", 77, bytes(99))
    yield "an alignment of 0", padded(start(1, 1) + pair("general.alignment", 4, bytes(4)) + info([4]))
    yield "an alignment of 3", padded(start(1, 1) + pair("general.alignment", 4, b"\3\0\0\0") + info([4]))
    yield "2^62 elements", padded(start(1, 0) + info([1 << 62]))
    yield "10^12 elements", padded(start(1, 0) + info([10**6, 10**6]))
    yield "2^128 elements", padded(start(1, 0) + info([1 << 63, 1 << 63]))
    yield "2^32 dimensions", padded(start(1, 0) + info([4], count=(1 << 32) - 1))
    yield "an unknown type", padded(start(1, 0) + info([4], kind=999))
    yield "data behind the end", padded(start(1, 0) + info([4], offset=1 << 40))
    yield "two of one name", padded(start(2, 0) + info([4]) + info([4]))
    yield "version 99", padded(start(0, 0, 99))
    yield "version 0", padded(start(0, 0, 0))
    yield "the other byte order", b"GGUF" + struct.pack(">IQQ", 3, 1 << 60, 0)


def exports(whole, canary):
    """Yield archives of torch.export with entries changed."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = {n: archive.read(n) for n in archive.namelist()}
    weights = next(n for n in entries if n.endswith("weights_config.json"))
    graph = next(n for n in entries if n.endswith("models/model.json"))
    code = f"__import__('os').system('touch {canary}')"

    def changed(entry, *pairs):
        data = entries[entry]
        for old, new in pairs:
            assert old in data
            data = data.replace(old, new)
        return zipped((entries | {entry: data}).items())

    yield "a path that climbs", changed(weights, (b'"weight_0"', b'"../../../etc/passwd"'))
    yield "a path to the graph", changed(weights, (b'"weight_0"', b'"../../models/model.json"'))
    yield "all pickled", changed(weights, (b'"use_pickle": false', b'"use_pickle": true'))
    yield "10^12 elements", changed(weights, (b'"as_int": 6', b'"as_int": 1000000000000'))
    yield "sizes below 0", changed(weights, (b'"as_int": 6', b'"as_int": -6'))
    yield "sizes of code", changed(weights, (b'{"as_int": 6}', json.dumps({"as_expr": {"expr_str": code}}).encode()))
    yield (
        "sizes in the graph of code",
        changed(graph, (b'{"as_int": 6}', json.dumps({"as_expr": {"expr_str": code, "hint": None}}).encode())),
    )
    yield "no types", changed(weights, (b'"dtype": 7', b'"dtype": 99'))
    yield "types of text", changed(weights, (b'"dtype": 7', b'"dtype": "x"'))
    yield "deep", zipped((entries | {graph: b'{"a":' * 100_000}).items())
    yield "deep graphs", zipped((entries | {graph: b'{"graph_module":{"graph":' * 100_000}).items())
    yield "a list", zipped((entries | {graph: b"[]"}).items())
    yield "no graph", zipped((entries | {graph: b"{}"}).items())
    yield "lists of nothing", zipped((entries | {graph: b"[" + b"[]," * (5 << 20) + b"[]]"}).items())
    yield "no weights", zipped((n, d) for n, d in entries.items() if "/weight_" not in n)
    yield "no config", zipped((n, d) for n, d in entries.items() if n != weights)
    yield "no models", zipped((n, d) for n, d in entries.items() if n != graph)
    yield "compressed", zipped(entries.items(), zipfile.ZIP_DEFLATED)
    yield "a bomb", zipped((entries | {graph: b" " * (200 << 20)}).items(), zipfile.ZIP_DEFLATED)


def onnxes(whole):
    """Yield ONNX graphs with lengths and dimensions changed."""

    def varint(value):
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def field(number, data):
        return varint(number << 3 | 2) + varint(len(data)) + data

    def initializer(dims, *extra):
        dims = b"".join(varint(1 << 3) + varint(d) for d in dims)
        return b"\x08\x08" + field(7, field(5, dims + varint(2 << 3) + b"\1" + field(8, b"w") + b"".join(extra)))

    def external(location):
        pair = field(13, field(1, b"location") + field(2, location.encode()))
        return initializer([4], varint(14 << 3) + b"\1", pair)

    yield "10^12 elements", initializer([10**6, 10**6], field(9, bytes(16)))
    yield "2^63 elements", initializer([(1 << 63) - 1], field(9, bytes(16)))
    yield "2^126 elements", initializer([1 << 62, 1 << 62], field(9, bytes(16)))
    yield "elements below 0", initializer([(1 << 64) - 4], field(9, bytes(16)))
    yield "no elements", initializer([4])
    yield "data outside", external("../../../../etc/passwd")
    yield "data at the root", external("/etc/passwd")
    yield "data in a device", external("/dev/zero")
    yield "data in itself", external("data in itself.onnx")
    yield "a length of 2^60", b"\x08\x08\x3a" + varint(1 << 60) + b"x"
    yield "deep", b"\x08\x08" + field(7, b"\x0a\x02" * 50_000)
    nested = b""
    for _ in range(300):
        nested = field(1, field(5, field(1, b"g") + field(6, nested)))
    yield "deep graphs", b"\x08\x08" + field(7, nested)
    yield "text behind", whole + b"\xff" * 50


def texts():
    """Yield what downloads leave behind."""
    yield "pointer.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    yield "page.safetensors", b"<!DOCTYPE html>" + b"<p>" * 1000
    yield "answer.pt", b'{"error": "Repository not found"}'
    yield "deep.onnx", b"[" * 100_000
    yield "empty.gguf", b""
    yield "packed.pt", b"\x1f\x8b" + zlib.compress(bytes(1 << 20))
    yield "zeros.bin", bytes(1 << 16)
    yield "ones.pt", b"\xff" * (1 << 16)
