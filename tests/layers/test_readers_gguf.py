"""GGUF files: settings, types and elements as the reference library has them, and hostile headers in one line."""

import struct
import subprocess
import sys

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="GGUF files need normcheck[gguf]")

from normcheck.errors import UnreadableError  # noqa: E402 - after the check above
from normcheck.layers.readers import gguf_file  # noqa: E402

Q = gguf.GGMLQuantizationType
VALUES = np.random.default_rng(0).standard_normal((2, 256)).astype(np.float32)


def write(path, architecture="llama", settings=(), tensors=(), *, big=False):
    """Write a file with the reference library; `settings` are its methods' names and arguments."""
    order = gguf.GGUFEndian.BIG if big else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(path, architecture, endianess=order)
    for method, *arguments in settings:
        getattr(writer, method)(*arguments)
    for name, array, kind in tensors:
        stored = array if kind is None else gguf.quants.quantize(array, kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def norm(name, size=8):
    return (name, np.linspace(0.5, 2, size, dtype=np.float32), None)


def text(value):
    return struct.pack("<Q", len(value)) + value


def raw(tensors=0, settings=0, body=b"", version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, tensors, settings) + body


def info(name=b"w", dims=(2,), kind=0, offset=0, rank=None):
    count = len(dims) if rank is None else rank
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", count, *dims, kind, offset)


# ------------------------------------------------------------------------------------------------ what it holds


@pytest.mark.parametrize("kind", [Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q5_1, Q.Q4_K, Q.Q6_K])
def test_elements_are_what_the_reference_library_decodes(tmp_path, kind):
    try:
        stored = gguf.quants.quantize(VALUES, kind)
    except NotImplementedError:  # no encoder: any bytes will do
        shape = gguf.quant_shape_to_byte_shape(VALUES.shape, kind)
        stored = np.random.default_rng(1).integers(0, 60, shape, dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("first", np.ones(3, np.float32))
    writer.add_tensor("w", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    contents = gguf_file.read(tmp_path / "m.gguf", "given")
    tensor = contents.tensors["w"]
    expected_type = {Q.F32: "float32", Q.F16: "float16", Q.BF16: "bfloat16"}.get(kind, kind.name.lower())
    assert (contents.path, contents.reader, tensor.dtype, tensor.shape) == ("given", "GGUF", expected_type, (2, 256))
    assert tensor.is_floating == (kind in {Q.F32, Q.F16, Q.BF16})
    assert tensor.load().dtype == np.float32
    np.testing.assert_array_equal(tensor.load(), gguf.quants.dequantize(stored, kind))
    np.testing.assert_array_equal(contents.tensors["first"].load(), np.ones(3))


@pytest.mark.parametrize(
    ("kind", "array", "wide"),
    [
        (Q.F64, np.array([1e300, 1 / 3, np.nan]), True),
        (Q.I8, np.array([-128, 127], np.int8), False),
        (Q.I32, np.array([2**31 - 1], np.int32), True),
    ],
)
def test_other_plain_types_are_exact(tmp_path, kind, array, wide):
    path = write(tmp_path / "m.gguf", tensors=[("w", array, None)])
    tensor = gguf_file.read(path, "m").tensors["w"]
    loaded = tensor.load()
    assert tensor.dtype == array.dtype.name
    assert kind.name in {"F64", "I8", "I32"}
    assert loaded.dtype == (np.float64 if wide else np.float32)
    np.testing.assert_array_equal(loaded, array)


def test_big_endian_files_are_read(tmp_path):
    path = write(tmp_path / "m.gguf", settings=[("add_layer_norm_rms_eps", 1e-6)], tensors=[norm("n.weight")], big=True)
    contents = gguf_file.read(path, "m")
    assert contents.config["rms_norm_eps"] == 1e-6
    np.testing.assert_array_equal(contents.tensors["n.weight"].load(), norm("n.weight")[1])


def test_settings_are_the_config_and_float32_ones_are_what_was_meant(tmp_path):
    path = write(
        tmp_path / "m.gguf",
        settings=[
            ("add_layer_norm_rms_eps", 1e-5),
            ("add_block_count", 4),
            ("add_token_list", ["a", "bc", ""]),
            ("add_bool", "llama.flag", True),
            ("add_float64", "llama.double", 1 / 3),
            ("add_name", "a name"),
        ],
    )
    config = gguf_file.read(path, "m").config
    assert config["model_type"] == "llama"
    assert config["rms_norm_eps"] == 1e-5
    assert config["gguf"] == {
        "general.architecture": "llama",
        "general.name": "a name",
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.block_count": 4,
        "llama.flag": True,
        "llama.double": 1 / 3,
    }


def test_rms_epsilon_states_rms_norms(tmp_path):
    tensors = [norm("blk.0.attn_norm.weight"), norm("output_norm.weight"), norm("blk.0.attn_q.bias")]
    tensors += [("blk.0.ffn_norm.weight", VALUES[:1], None), ("token_embd.weight", VALUES, Q.Q8_0)]
    path = write(tmp_path / "m.gguf", "gemma", [("add_layer_norm_rms_eps", 1e-6)], tensors)
    contents = gguf_file.read(path, "m")
    assert [(s.name, s.norm.name, s.weight, s.bias, s.eps, s.weight_offset) for s in contents.stated] == [
        ("blk.0.attn_norm", "rms", "blk.0.attn_norm.weight", None, 1e-6, 0.0),
        ("output_norm", "rms", "output_norm.weight", None, 1e-6, 0.0),
    ]
    assert contents.stated[0].normalized_shape == (8,)
    assert "gemma" in contents.stated[0].how
    assert [(o.name, "(1, 256)" in o.reason) for o in contents.omitted] == [("blk.0.ffn_norm", True)]


def test_layer_epsilon_states_layer_norms_with_their_bias(tmp_path):
    tensors = [norm("output_norm.weight"), norm("output_norm.bias"), norm("blk.0.time_mix_ln.weight")]
    contents = gguf_file.read(write(tmp_path / "m.gguf", "rwkv6", [("add_layer_norm_eps", 1e-5)], tensors), "m")
    (stated,) = contents.stated
    assert (stated.name, stated.norm.name, stated.bias) == ("output_norm", "layer-l2", "output_norm.bias")
    assert (stated.eps, stated.normalized_shape) == (1e-5, (8,))
    assert [o.name for o in contents.omitted] == ["blk.0.time_mix_ln"]


def test_with_both_epsilons_a_bias_decides_and_vocoders_have_group_norms(tmp_path):
    settings = [("add_layer_norm_eps", 1e-5), ("add_layer_norm_rms_eps", 1e-6)]
    tensors = [norm("blk.0.attn_norm.weight"), norm("blk.0.indexer.k_norm.weight"), norm("blk.0.indexer.k_norm.bias")]
    contents = gguf_file.read(write(tmp_path / "m.gguf", "deepseek32", settings, tensors), "m")
    assert [(s.norm.name, s.eps) for s in contents.stated] == [("rms", 1e-6), ("layer-l2", 1e-5)]

    settings = [("add_layer_norm_eps", 1e-6), ("add_group_norm_eps", 1e-5), ("add_group_norm_groups", 4)]
    tensors = [norm("posnet.0.norm1.weight"), norm("posnet.0.norm1.bias"), norm("output_norm.weight")]
    contents = gguf_file.read(write(tmp_path / "v.gguf", "wavtokenizer-dec", settings, tensors), "v")
    assert [(s.norm.name, s.eps, s.num_groups, s.normalized_shape) for s in contents.stated] == [
        ("group-l2", 1e-5, 4, ()),
        ("layer-l2", 1e-6, None, (8,)),
    ]


def test_without_an_epsilon_nothing_is_stated(tmp_path):
    contents = gguf_file.read(write(tmp_path / "m.gguf", "clip", (), [norm("v.post_ln.weight")]), "m")
    assert (contents.stated, contents.omitted) == ((), ())
    assert contents.config["model_type"] == "clip"


def test_one_part_of_several_says_so(tmp_path):
    path = write(tmp_path / "m.gguf", settings=[("add_uint16", "split.count", 3)], tensors=[norm("w")])
    (omitted,) = gguf_file.read(path, "m-00001-of-00003.gguf").omitted
    assert omitted.name == "m-00001-of-00003.gguf"
    assert "one of 3 files" in omitted.reason


# ---------------------------------------------------------------------------------------------------- hostility

DATA = bytes(64)
HOSTILE = {
    "nothing": b"",
    "half a magic": b"GG",
    "another magic": raw(magic=b"GGML"),
    "version 1": raw(version=1),
    "version of the future": raw(version=4),
    "counts missing": raw()[:12],
    "a billion billion tensors": raw(tensors=2**60),
    "more tensors than bytes": raw(tensors=2**20),
    "a billion billion settings": raw(settings=2**60),
    "more settings than bytes": raw(settings=2**16),
    "a key of 16 EiB": raw(settings=1, body=struct.pack("<Q", 2**64 - 1)),
    "a key beyond the end": raw(settings=1, body=struct.pack("<Q", 100)),
    "a key that is no text": raw(settings=1, body=text(b"\xff\xfe") + struct.pack("<IB", 0, 1)),
    "a type that does not exist": raw(settings=1, body=text(b"k") + struct.pack("<I", 99) + DATA),
    "a text of 16 EiB": raw(settings=1, body=text(b"k") + struct.pack("<IQ", 8, 2**64 - 1)),
    "an array of 16 EiB": raw(settings=1, body=text(b"k") + struct.pack("<IIQ", 9, 0, 2**64 - 1)),
    "an array of too many words": raw(settings=1, body=text(b"k") + struct.pack("<IIQ", 9, 8, 2**60)),
    "an array of long words": raw(settings=1, body=text(b"k") + struct.pack("<IIQQ", 9, 8, 1, 2**60)),
    "arrays of arrays": raw(settings=1, body=text(b"k") + struct.pack("<IIQ", 9, 9, 1) * 1000),
    "an alignment of 0": raw(settings=1, body=text(b"general.alignment") + struct.pack("<II", 4, 0)),
    "an alignment of 3": raw(settings=1, body=text(b"general.alignment") + struct.pack("<II", 4, 3)),
    "an alignment in words": raw(settings=1, body=text(b"general.alignment") + struct.pack("<I", 8) + text(b"32")),
    "4 billion dimensions": raw(tensors=1, body=info(rank=2**32 - 1) + DATA),
    "9 dimensions": raw(tensors=1, body=info(dims=(1,) * 9) + DATA),
    "a type of tensor that does not exist": raw(tensors=1, body=info(kind=999) + DATA),
    "a tensor beyond the end": raw(tensors=1, body=info(dims=(2**20,)) + DATA),
    "a tensor of 2^256 elements": raw(tensors=1, body=info(dims=(2**63,) * 4) + DATA),
    "a tensor of no elements and impossible shape": raw(tensors=1, body=info(dims=(2**63, 0)) + DATA),
    "an offset beyond the end": raw(tensors=1, body=info(offset=2**63) + DATA),
    "half a block": raw(tensors=1, body=info(dims=(16,), kind=8) + DATA),
    "a quantised scalar": raw(tensors=1, body=info(dims=(), kind=8) + DATA),
    "one name twice": raw(tensors=2, body=info() * 2 + DATA),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_file_is_one_line(tmp_path, how):
    path = tmp_path / "m.gguf"
    path.write_bytes(HOSTILE[how])
    with pytest.raises(UnreadableError, match=r"^the/name: not a complete GGUF file \(") as caught:
        gguf_file.read(path, "the/name")
    assert "\n" not in str(caught.value)


def test_the_hostile_files_are_hostile_by_one_thing_only(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(raw(tensors=1, settings=1, body=text(b"k") + struct.pack("<IB", 0, 7) + info() + DATA))
    contents = gguf_file.read(path, "m")
    assert contents.config == {"gguf": {"k": 7}}
    assert contents.tensors["w"].load().tolist() == [0, 0]


def test_more_words_than_any_vocabulary_are_refused(tmp_path, monkeypatch):
    settings = [("add_token_list", ["a", "b"]), ("add_token_merges", ["a b", "b a"])]
    path = write(tmp_path / "m.gguf", settings=settings)
    monkeypatch.setattr(gguf_file, "_MAX_WORDS", 4)
    gguf_file.read(path, "m")
    monkeypatch.setattr(gguf_file, "_MAX_WORDS", 3)
    with pytest.raises(UnreadableError, match="an array claims 2 elements"):
        gguf_file.read(path, "m")


def test_any_cut_and_any_flipped_byte_gives_contents_or_one_line(tmp_path):
    whole = write(
        tmp_path / "whole.gguf",
        settings=[("add_layer_norm_rms_eps", 1e-5), ("add_token_list", ["a", "b"])],
        tensors=[norm("output_norm.weight", 32), ("w", VALUES[:, :32].copy(), Q.Q8_0)],
    ).read_bytes()
    path = tmp_path / "m.gguf"
    variants = [whole[:length] for length in range(0, len(whole), 3)]
    variants += [
        whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1 :] for i in range(len(whole)) for flip in (1, 128, 255)
    ]
    refused = 0
    for data in variants:
        path.write_bytes(data)
        try:
            contents = gguf_file.read(path, "m")
            for tensor in contents.tensors.values():
                with np.errstate(all="ignore"):  # a flipped scale
                    tensor.load()
        except UnreadableError:
            refused += 1
    assert len(whole) // 3 < refused < len(variants)


def test_what_cannot_be_opened_or_changes_is_one_line(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UnreadableError, match=r"^m: cannot be opened: "):
            gguf_file.read(path, "m")
    path = write(tmp_path / "m.gguf", tensors=[norm("w", 64)])
    tensor = gguf_file.read(path, "m").tensors["w"]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableError, match=r"^m: tensor 'w' ends after \d+ of 256 bytes"):
        tensor.load()
    path.unlink()
    with pytest.raises(UnreadableError, match=r"^m: tensor 'w' cannot be read: No such file"):
        tensor.load()


def test_a_missing_library_is_one_line_that_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "m.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UnreadableError, match=r"^m: .*pip install 'normcheck\[gguf\]'$"):
        gguf_file.read(path, "m")


def test_a_large_vocabulary_and_large_weights_cost_little(tmp_path):
    path = write(
        tmp_path / "m.gguf",
        settings=[("add_layer_norm_rms_eps", 1e-5), ("add_token_list", [f"word{i}" for i in range(100_000)])],
        tensors=[norm("output_norm.weight"), ("token_embd.weight", np.zeros((2**14, 2**10), np.float16), None)],
    )
    program = f"""
import resource, sys
from pathlib import Path
import gguf.quants
from normcheck.layers.readers import gguf_file
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
contents = gguf_file.read(Path({str(path)!r}), "m")
assert contents.tensors["output_norm.weight"].load().shape == (8,)
assert "torch" not in sys.modules
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) * (1024 if sys.platform == "linux" else 1) < 2**24
