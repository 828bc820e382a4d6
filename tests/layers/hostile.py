"""Pickles, archives and mutations that are broken, lie, or attack: made with fixed seeds."""

from __future__ import annotations

import io
import pickle
import random
import struct
import warnings
import zipfile

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)


# ------------------------------------------------------------------------------------------------- mutations


def mutations(data, seed):
    """Yield truncations, flipped bits, and blocks that are zeroed, repeated, swapped or appended."""
    rng, size = random.Random(seed), len(data)  # noqa: S311 - no secret: the same files every time
    for i in range(8):
        yield f"cut{i}", data[: size * i // 8 + 1]
    for back in (1, 4, 23, 100):
        yield f"short{back}", data[:-back]
    for i in range(10):
        where = rng.choice([range(min(size, 600)), range(size), range(max(0, size - 400), size)])
        flipped = bytearray(data)
        flipped[rng.choice(where)] ^= 1 << rng.randrange(8)
        yield f"flip{i}", bytes(flipped)
    for i in range(3):
        at = rng.randrange(size)
        yield f"zero{i}", data[:at] + bytes(min(64, size - at)) + data[at + 64 :]
    at = rng.randrange(size // 2)
    yield "twice", data[:at] + data[at : at + 200] + data[at:]
    yield "swapped", data[size // 2 :] + data[: size // 2]
    yield "junk behind", data + rng.randbytes(50)
    yield "noise", rng.randbytes(300)


# ------------------------------------------------------------------------------------------------- pickles


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def call(name, *arguments):
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n(".encode() + b"".join(arguments) + b"tR"


def sizes(*values):
    return b"(" + b"".join(number(v) for v in values) + b"t"


def number(value):
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def storage(key="0", count=4, kind="torch.FloatStorage"):
    module, _, name = kind.rpartition(".")
    inside = [text("storage"), f"c{module}\n{name}\n".encode(), text(key), text("cpu"), number(count)]
    return b"(" + b"".join(inside) + b"tQ"


def tensor(shape, stride, offset=0, stored=None, rest=b"\x89}"):
    stored = storage() if stored is None else stored
    return call("torch._utils._rebuild_tensor_v2", stored, number(offset), shape, stride, rest)


def state(*values):
    """Return the pickle of a dict of these values."""
    return b"\x80\x02}(" + b"".join(text(f"w{i}") + v for i, v in enumerate(values)) + b"u."


def executing(canary):
    """Yield pickles that would run a command or code, were they run."""
    command, code = text(f"touch {canary}"), text(f"open({str(canary)!r}, 'w')")
    yield "os.system", state(call("os.system", command))
    yield "posix.system", state(call("posix.system", command))
    yield "builtins.eval", state(call("builtins.eval", code))
    yield "builtins.exec", state(call("__builtin__.exec", code))
    yield "subprocess", state(call("subprocess.check_output", b"](" + text("touch") + text(str(canary)) + b"e"))
    yield "stack global", b"\x80\x04\x8c\x02os\x8c\x06system\x93" + command + b"\x85R."
    yield "instance", b"(" + command + b"ios\nsystem\n."
    yield "object", b"(cos\nsystem\n" + command + b"o."
    yield "newobj", b"\x80\x02cos\nsystem\n" + command + b"\x85\x81."
    yield "newobj_ex", b"\x80\x04cos\nsystem\n" + command + b"\x85}\x92."
    yield "chain", state(call("builtins.getattr", call("importlib.import_module", text("os")), text("system")))
    yield (
        "twice reduced",
        b"\x80\x02" + call("builtins.getattr", b"cos\n__dict__\n", text("system"))[:-1] + b"R" + (command + b"\x85R."),
    )
    yield "in a storage", state(tensor(sizes(1), sizes(1), stored=call("os.system", command)))
    yield "as hooks", state(tensor(sizes(4), sizes(1), rest=b"\x89" + call("os.system", command)))
    yield "before the end", b"\x80\x02" + call("os.system", command)
    yield "load from bytes", state(call("torch.storage._load_from_bytes", text("x")))
    yield "numpy", state(call("numpy.core.multiarray._reconstruct", b"cnumpy\nndarray\n"))
    yield "state", b"\x80\x02cos\nsystem\n)\x81}" + text("x") + command + b"sb."
    yield "ext1", b"\x80\x02\x82\x01."
    yield "ext2", b"\x80\x02\x83\x01\x01."
    yield "ext4", b"\x80\x02\x84\x01\x01\x01\x01."


def bombs():
    """Yield pickles that take for ever or all memory where they are believed."""
    shared = b"]q\0" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(120)) + b"."
    yield "shared lists", b"\x80\x02" + shared
    tuples = b"K\1\x85q\0" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(120))
    yield "hashes of shared tuples", b"\x80\x02}" + tuples + b"K\1s."
    yield "a tensor's shape of shared tuples", b"\x80\x02}" + text("w") + tensor(tuples, sizes(1)) + b"s."
    yield "deep lists", b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"."
    yield "deep tuples", b"\x80\x02N" + b"\x85" * 500_000 + b"."
    deep = b"".join(b"}" + text("a") for _ in range(100_000))
    yield "deep dicts", b"\x80\x02" + deep + b"N" + b"s" * 100_000 + b"."
    yield "many lists", b"\x80\x02](" + b"]" * 1_600_000 + b"e."
    yield "many dicts", b"\x80\x02](" + b"}" * 1_600_000 + b"e."
    yield "bytearray", state(call("builtins.bytearray", number(10**12)))
    yield "bytes", state(call("_codecs.encode", text("x" * 1000), text("latin1")))
    yield "complex", state(call("builtins.complex", number(10**300)))
    yield "range", state(call("builtins.list", call("builtins.range", number(10**12))))
    yield "too long", b"\x80\x02" + b"N0" * 2_600_000 + b"N."
    yield "many globals", b"\x80\x02" + b"".join(b"ca\nb%d\n0" % i for i in range(50_000)) + b"N."
    yield "many tensors", b"\x80\x02" + storage() + b"q\0" + b"h\0" * 700_000 + b"."
    yield "memo index", b"\x80\x02Nr\xff\xff\xff\xff."
    yield "many marks", b"\x80\x02" + b"(" * 1_000_000 + b"."
    yield "bytes of 2^62", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x."
    yield "text of 2^63", b"\x80\x04\x8d" + struct.pack("<Q", 1 << 63) + b"x."
    yield "bytearray of 2^61", b"\x80\x05\x96" + struct.pack("<Q", 1 << 61) + b"x."
    yield "text of 4 GiB", b"\x80\x02X\xff\xff\xff\xffx."
    yield "negative long", b"\x80\x02\x8b\xff\xff\xff\xff."
    yield "frame of 2^63", b"\x80\x04\x95" + struct.pack("<Q", 1 << 63) + b"N."
    yield "digits", b"\x80\x02I" + b"9" * 100_000 + b"\n."
    yield "long digits", b"\x80\x02L" + b"9" * 60_000 + b"L\n."
    yield "line without end", b"\x80\x02c" + b"a" * 3_000_000
    yield "key of 3 MB", b"\x80\x02}" + text("k" * 3_000_000) + tensor(sizes(4), sizes(1)) + b"s."
    nested = b"ctorch._tensor\n_rebuild_from_type_v2\nq\0" + b")q\1" + b"(h\0h\0h\1Ntq\1" * 50_000
    yield "nested subclasses", b"\x80\x02" + nested + b"h\0h\1R."
    yield "its own list", b"\x80\x02]q\0h\0a."
    yield "its own dict", b"\x80\x02}q\0" + text("a") + b"h\0s."
    identity = b"(" + b"N" * 100_000 + b"tq\0"
    yield "long identities", b"\x80\x02" + identity + b"h\0Q" * 100_000 + b"."
    yield "long calls", b"\x80\x02ctorch._utils\n_rebuild_parameter\nq\1" + identity + b"0h\1h\0R" * 100_000 + b"."


def lies():
    """Yield pickles whose tensors are not what they say."""
    row = sizes(1)
    many = [
        ("10^12 elements in one", tensor(sizes(10**6, 10**6), sizes(0, 0))),
        ("10^12 elements beyond", tensor(sizes(10**6, 10**6), sizes(10**6, 1))),
        ("2^70 elements", tensor(sizes(1 << 70), row)),
        ("a size below 0", tensor(sizes(-1), row)),
        ("a stride below 0", tensor(sizes(2), sizes(-1))),
        ("an offset below 0", tensor(sizes(2), row, offset=-2)),
        ("an offset of 2^62", tensor(sizes(2), row, offset=1 << 62)),
        ("no stride", tensor(sizes(2), b")")),
        ("sizes of text", tensor(b"(" + text("a") + b"t", row)),
        ("sizes of nothing", tensor(b"N", b"N")),
        ("10,000 dimensions", tensor(sizes(*[1] * 10_000), sizes(*[1] * 10_000))),
        ("65 dimensions", tensor(sizes(*[1] * 65), sizes(*[1] * 65))),
        ("64 dimensions", tensor(sizes(*[1] * 64), sizes(*[1] * 64))),
        ("no storage", tensor(sizes(4), row, stored=b"N")),
        ("a storage that is not there", tensor(sizes(4), row, stored=storage("9"))),
        ("a storage outside", tensor(sizes(4), row, stored=storage("../data.pkl"))),
        ("a storage of -1", tensor(sizes(0), row, stored=storage(count=-1))),
        ("a storage of 2^61", tensor(sizes(4), row, stored=storage(count=1 << 61))),
        ("a storage too long", tensor(sizes(5), row, stored=storage(count=5))),
        ("a storage of no type", tensor(sizes(4), row, stored=storage(kind="torch.NoStorage"))),
        ("a storage of another module", tensor(sizes(4), row, stored=storage(kind="os.FloatStorage"))),
        ("a storage that is text", tensor(sizes(4), row, stored=text("storage") + b"Q")),
        ("a storage in three parts", tensor(sizes(4), row, stored=b"(" + text("storage") + b"NNtQ")),
        ("a storage named by a list", tensor(sizes(4), row, stored=storage().replace(text("0"), b"]"))),
        ("too few arguments", call("torch._utils._rebuild_tensor_v2", storage())),
        ("no arguments", b"ctorch._utils\n_rebuild_tensor_v2\nNR"),
        ("a parameter of nothing", call("torch._utils._rebuild_parameter")),
        ("a sparse one of nothing", call("torch._utils._rebuild_sparse_tensor", b"N", b"N")),
        ("a quantised one of nothing", call("torch._utils._rebuild_qtensor", b"N", b"N", sizes(10**12))),
        ("a meta one of 2^61", call("torch._utils._rebuild_meta_tensor_no_storage", b"N", sizes(1 << 61), row, b"N")),
        ("type 3 without a type", call("torch._utils._rebuild_tensor_v3", storage(), number(0), sizes(4), row, b"NNN")),
        ("a dict of a number", call("collections.OrderedDict", number(3))),
        ("a dict of odd pairs", call("collections.OrderedDict", b"](K\1](K\1K\2K\3ee")),
    ]
    for name, value in many:
        yield name, state(value)
    escape = text("\x1b[31m\nred\u2028line")
    yield "a name with an escape", b"\x80\x02}" + escape + tensor(sizes(9), sizes(1)) + b"s."
    yield "a class with an escape", b"\x80\x04" + escape + escape + b"\x93."
    yield "a class of TorchScript", b"\x80\x02c__torch__.os\nsystem\n" + text("true") + b"\x85R."
    yield "no dict", b"\x80\x02K\1."
    yield "one tensor alone", b"\x80\x02" + tensor(sizes(4), sizes(1)) + b"."
    yield "an odd number of items", b"\x80\x02}(" + text("a") + b"u."
    yield "items of a number", b"\x80\x02K\1" + text("a") + b"Ns."
    yield "an append to a dict", b"\x80\x02}Na."


def lonely_opcodes():
    """Yield each byte as the only opcode, with an argument of zeros or of text: most find an empty stack."""
    for code in range(256):
        yield f"opcode {code:02x}", b"\x80\x02" + bytes([code]) + b"\0\0\0\0\0\0\0\0."
        yield f"opcode {code:02x} with text", b"\x80\x02" + bytes([code]) + b"1\n1\n."


# ------------------------------------------------------------------------------------------------- archives


def zipped(entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of two entries with one name
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def torch_zip(data):
    return zipped([("a/data.pkl", data), ("a/byteorder", "little"), ("a/data/0", bytes(16)), ("a/version", "3\n")])


def torchscript(data):
    entries = [("a/data.pkl", data), ("a/constants.pkl", b"\x80\x02)."), ("a/data/0", bytes(16))]
    return zipped(entries)


def legacy(data, keys=("0",), count=4):
    return MAGIC + SYSTEM + data + pickle.dumps(list(keys), 2) + struct.pack("<q", count) + bytes(16)


def zips():
    """Yield archives that lie about their entries."""
    good = state(tensor(sizes(4), sizes(1)))
    whole = torch_zip(good)
    yield "no pickle", zipped([("a/data/0", bytes(16))])
    yield "nothing in it", zipped([])
    yield "two of one name", zipped([("a/data.pkl", good), ("a/data.pkl", good)])
    yield "two of one name in other folders", zipped([("a/data.pkl", good), ("data.pkl", good)])
    yield "climbing names", zipped([("../../data.pkl", good), ("/etc/data/0", bytes(16))])
    yield "a storage compressed", zipped([("a/data.pkl", good), ("a/data/0", bytes(16))], zipfile.ZIP_DEFLATED)
    yield "a bomb of a pickle", zipped([("a/data.pkl", bytes(200 << 20))], zipfile.ZIP_DEFLATED)
    yield "a bomb of a smaller pickle", zipped([("a/data.pkl", b"N" * (50 << 20))], zipfile.ZIP_DEFLATED)
    yield "a bomb of lzma", zipped([("a/data.pkl", bytes(10 << 20))], zipfile.ZIP_LZMA)
    yield "many entries", zipped([("a/data.pkl", good)] + [(f"a/data/{i}", b"") for i in range(20_000)])
    central, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    for name, at, value in (
        ("a size of 4 GiB", central + 24, b"\xff\xff\xff\xfe"),
        ("sizes of 4 GiB", central + 20, b"\xff\xff\xff\xfe\xff\xff\xff\xfe"),
        ("an offset behind the end", central + 42, b"\xff\xff\xff\x7f"),
        ("an entry encrypted", central + 8, b"\1"),
        ("an unknown compression", central + 10, b"\x63"),
        ("65535 entries", end + 8, b"\xff\xff\xff\xff"),
        ("a directory of 4 GiB", end + 12, b"\xff\xff\xff\xff"),
        ("a directory of 1 GiB", end + 12, b"\0\0\0\x40"),
        ("a directory behind the end", end + 16, b"\xff\xff\xff\x7f"),
        ("a comment of 64 KiB", end + 20, b"\xff\xff"),
        ("a wrong sum", central + 16, b"\0\0\0\0"),
        ("names of 64 KiB", central + 28, b"\xff\xff"),
    ):
        yield name, whole[:at] + value + whole[at + len(value) :]
    stored = whole.rindex(b"a/data/0") - 46
    for name, at, value in (
        ("a storage encrypted", stored + 8, b"\1"),
        ("a storage of two sizes", stored + 20, b"\x08"),
        ("a storage behind the end", stored + 20, b"\0\0\1\0\0\0\1\0"),
        ("a storage that begins elsewhere", stored + 42, b"\x09"),
    ):
        yield name, whole[:at] + value + whole[at + len(value) :]
    wide = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, 1 << 40, 0)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    yield "a wide directory of 1 TiB", whole[:end] + wide + locator + whole[end:]


def legacies():
    """Yield files of the older format whose parts do not fit each other."""
    good = state(tensor(sizes(4), sizes(1)))
    yield "no storages", MAGIC + SYSTEM + good
    yield "keys that are none", MAGIC + SYSTEM + good + pickle.dumps(3, 2)
    yield "a key too many", legacy(good, keys=("0", "1"))
    yield "no key", legacy(good, keys=())
    yield "keys of keys", legacy(good, keys=(["0"],))
    yield "a key twice", legacy(good, keys=("0", "0"))
    yield "2^62 elements", legacy(good, count=1 << 62)
    yield "-1 elements", legacy(good, count=-1)
    yield (
        "one storage of two sizes",
        legacy(state(tensor(sizes(4), sizes(1)), tensor(sizes(2), sizes(1), stored=storage(count=2)))),
    )
    yield "a system that is none", MAGIC + pickle.dumps(1, 2) + good
    yield "another magic", pickle.dumps(1, 2) * 3 + good
    yield "a magic that runs", call("os.system", text("true")) + b"." + SYSTEM + good
    yield "the magic alone", MAGIC
    yield "a long header", b"\x80\x02" + b"N0" * 500_000 + b"N." + SYSTEM + good
