"""Directories as the Hugging Face hub, diffusers and plain scripts lay them out; whole or with one line of refusal."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from normcheck.errors import UnreadableError
from normcheck.layers.readers import directory, read, stored

CONFIG = {"model_type": "llama", "rms_norm_eps": 1e-6}
FIRST = {"a.weight": np.arange(4, dtype=np.float32), "b.weight": np.ones(2, np.float16)}
SECOND = {"norm.weight": np.full(3, 7, np.float32)}


def write_json(path, value):
    path.write_text(json.dumps(value))


def shards(folder, kind="safetensors", *parts):
    """Write a sharded model: an index, a config, one file a part."""
    parts, stem = parts or (FIRST, SECOND), {"safetensors": "model", "bin": "pytorch_model"}[kind]
    weight_map = {}
    for i, part in enumerate(parts, 1):
        name = f"{stem}-{i:05}-of-{len(parts):05}.{kind}"
        weight_map |= dict.fromkeys(part, name)
        if kind == "bin":
            torch.save({k: torch.from_numpy(v) for k, v in part.items()}, folder / name)
        else:
            save_file(part, folder / name)
    write_json(folder / f"{stem}.{kind}.index.json", {"metadata": {"total_size": 1}, "weight_map": weight_map})
    write_json(folder / "config.json", CONFIG)
    return folder


def assert_holds(contents, expected):
    assert set(contents.tensors) == set(expected)
    for name, values in expected.items():
        assert contents.tensors[name].name == name
        np.testing.assert_array_equal(contents.tensors[name].load(), values)


def refusal(path):
    with pytest.raises(UnreadableError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- Hugging Face


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_read_as_one_model(tmp_path, kind):
    contents = read(shards(tmp_path, kind))
    assert_holds(contents, FIRST | SECOND)
    assert contents.config == CONFIG
    assert contents.path == str(tmp_path)
    assert "2 ×" in contents.reader


def test_a_slash_at_the_end_changes_nothing(tmp_path):
    assert_holds(read(f"{shards(tmp_path)}/"), FIRST | SECOND)


def test_one_file_of_weights_beside_a_config(tmp_path):
    save_file(FIRST, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", CONFIG)
    (tmp_path / "tokenizer.json").write_text("{}")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        contents = read(path)
        assert_holds(contents, FIRST)
        assert contents.config == CONFIG


def test_a_broken_config_beside_a_single_file_is_left_out_with_its_reason(tmp_path):
    save_file(FIRST, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("[]")
    contents = read(tmp_path / "model.safetensors")
    assert contents.config == {}
    assert [o.name for o in contents.omitted] == ["config.json"]


def test_safetensors_come_before_pickles_of_the_same_weights(tmp_path):
    shards(tmp_path, "bin", FIRST | SECOND)
    save_file({"only": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    contents = read(tmp_path)
    assert set(contents.tensors) == {"only"}
    assert [o.name for o in contents.omitted] == ["pytorch_model-00001-of-00001.bin"]
    shards(tmp_path)
    contents = read(tmp_path)
    assert_holds(contents, FIRST | SECOND)
    assert {o.name for o in contents.omitted} == {"pytorch_model-00001-of-00001.bin", "model.safetensors"}


def test_variants_are_read_once(tmp_path):
    save_file(FIRST, tmp_path / "model.safetensors")
    save_file({k: v.astype(np.float16) for k, v in FIRST.items()}, tmp_path / "model.fp16.safetensors")
    contents = read(tmp_path)
    assert contents.tensors["a.weight"].dtype == "float32"
    assert [o.name for o in contents.omitted] == ["model.fp16.safetensors"]


def test_state_of_the_training_is_not_even_opened(tmp_path):
    shards(tmp_path, "bin")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        (tmp_path / name).write_bytes(b"cos\nsystem\n.")
    contents = read(tmp_path)
    assert_holds(contents, FIRST | SECOND)
    assert {o.reason for o in contents.omitted} == {"state of the training, not of the model"}
    assert len(contents.omitted) == 4


def test_shards_may_be_links_as_in_the_hubs_cache(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for path in list(shards(blobs).iterdir()):
        path.rename(blobs / path.name.replace(".", "_"))
        (snapshot / path.name).symlink_to(blobs / path.name.replace(".", "_"))
    assert_holds(read(snapshot), FIRST | SECOND)


def test_the_same_storage_in_two_shards_is_not_the_same(tmp_path):
    same = [{"a": np.ones(2, np.float32)}, {"b": np.ones(2, np.float32)}]
    tensors = read(shards(tmp_path, "bin", *same)).tensors
    assert tensors["a"].storage != tensors["b"].storage


# ------------------------------------------------------------------------------------------------- diffusers, plain


def test_components_keep_their_folders_names(tmp_path):
    for folder, part in (("unet", FIRST), ("vae", SECOND)):
        (tmp_path / folder).mkdir()
        save_file(part, tmp_path / folder / "diffusion_pytorch_model.safetensors")
        write_json(tmp_path / folder / "config.json", {"eps": folder})
    (tmp_path / "scheduler").mkdir()
    write_json(tmp_path / "scheduler" / "scheduler_config.json", {})
    write_json(tmp_path / "model_index.json", {})
    contents = read(tmp_path)
    assert_holds(contents, {f"unet.{k}": v for k, v in FIRST.items()} | {f"vae.{k}": v for k, v in SECOND.items()})
    assert contents.config == {"unet": {"eps": "unet"}, "vae": {"eps": "vae"}}


def test_plain_files_are_joined(tmp_path):
    save_file(FIRST, tmp_path / "first.safetensors")
    torch.save({"state_dict": {k: torch.from_numpy(v) for k, v in SECOND.items()}}, tmp_path / "second.pt")
    np.savez(tmp_path / "third.npz", c=np.ones(5))
    (tmp_path / "notes.txt").write_text("x")
    assert_holds(read(tmp_path), FIRST | SECOND | {"c": np.ones(5)})


def test_folders_with_models_of_their_own_are_left_out_with_the_reason(tmp_path):
    save_file(FIRST, tmp_path / "first.safetensors")
    for folder in ("other", "empty"):
        (tmp_path / folder).mkdir()
    save_file(SECOND, tmp_path / "other" / "model.safetensors")
    contents = read(tmp_path)
    assert_holds(contents, FIRST)
    assert [(left.name, "give it by itself" in left.reason) for left in contents.omitted] == [("other/", True)]


def test_where_names_collide_files_name_their_tensors(tmp_path):
    for epoch in (1, 2):
        torch.save({"w": torch.full((2,), float(epoch))}, tmp_path / f"epoch{epoch}.pt")
    assert_holds(read(tmp_path), {"epoch1.pt:w": np.ones(2), "epoch2.pt:w": np.full(2, 2.0)})


def test_stated_norms_are_renamed_with_their_tensors(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_script(tmp_path / name / "model.ts")
    contents = read(tmp_path)
    assert [(s.name, s.weight) for s in contents.stated] == [("one.0", "one.0.weight"), ("two.0", "two.0.weight")]
    assert {s.weight for s in contents.stated} <= set(contents.tensors)


def write_script(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Sequential(torch.nn.LayerNorm(3))), path)


# ------------------------------------------------------------------------------------------------- what is refused


def test_a_missing_shard_is_named(tmp_path):
    (shards(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    assert (
        refusal(tmp_path)
        == f"{tmp_path}/model-00002-of-00002.safetensors: this shard of the model is missing; fetch it"
    )


def test_a_missing_shard_is_named_without_an_index_too(tmp_path):
    (shards(tmp_path) / "model-00001-of-00002.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").unlink()
    assert "model-00001-of-00002.safetensors: this shard" in refusal(tmp_path)


def test_very_many_shards_without_an_index_take_little_time():
    names = [f"model-{k:05}-of-15000.safetensors" for k in range(1, 15001)]
    directory._check_complete(names, "m")
    with pytest.raises(UnreadableError, match=r"^m/model-09000-of-15000.safetensors: this shard"):
        directory._check_complete(names[:8999] + names[9000:], "m")


def test_what_fails_when_a_tensor_is_loaded_names_its_file_and_the_tensor(tmp_path, monkeypatch):
    contents = read(shards(tmp_path, "bin"))
    monkeypatch.setattr(stored, "read_run", lambda *_: 1 / 0)
    name, tensor = next(iter(contents.tensors.items()))
    with pytest.raises(UnreadableError, match=rf"-0000[12]-of-00002\.bin: {name}: is broken: ZeroDivisionError"):
        tensor.load()


def test_a_dangling_link_is_a_missing_shard(tmp_path):
    shard = shards(tmp_path) / "model-00002-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to(tmp_path / "nowhere")
    assert "this shard of the model is missing" in refusal(tmp_path)


def test_a_shard_that_lacks_a_promised_tensor_is_named(tmp_path):
    save_file({"other": np.ones(1, np.float32)}, shards(tmp_path) / "model-00002-of-00002.safetensors")
    assert "lacks 1 tensors that the index promises, 'norm.weight'" in refusal(tmp_path)


@pytest.mark.parametrize("names", [("module.w", "head.w"), ("module.w", "module.b"), ("module._orig_mod.w",)])
def test_a_shard_has_what_the_index_promises_with_and_without_a_wrapper(tmp_path, names):
    save_file({name: np.ones(1, np.float32) for name in names}, tmp_path / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(names, "model-00001-of-00001.safetensors")
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": weight_map})
    assert len(read(tmp_path).tensors) == len(names)


def test_a_broken_shard_is_named(tmp_path):
    shard = shards(tmp_path) / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-3])
    assert refusal(tmp_path).startswith(f"{shard}: ")


def test_a_pickle_among_the_shards_is_refused_by_its_class(tmp_path):
    folder = shards(tmp_path, "bin")
    torch.save({"x": json.JSONDecodeError("a", "b", 0)}, folder / "pytorch_model-00002-of-00002.bin")
    message = refusal(folder)
    assert "pytorch_model-00002-of-00002.bin: refused, because it holds json.decoder.JSONDecodeError" in message


CLIMBING = [
    "../evil.safetensors",
    "sub/evil.safetensors",
    "/etc/evil.safetensors",
    "..\\evil.safetensors",
    "C:evil.safetensors",
    "..",
    ".",
    "",
    ".hidden.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "a\nb.safetensors",
    "a\0b.safetensors",
]


@pytest.mark.parametrize("shard", CLIMBING)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path, shard):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(FIRST, tmp_path / "evil.safetensors")
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a.weight": shard}})
    assert "which is no file of its own directory" in refusal(folder)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ("{}", "no index of shards"),
        ("[]", "no index of shards"),
        ("", "no index of shards"),
        ('{"weight_map": {}}', "weight_map is empty"),
        ('{"weight_map": [1]}', "no index of shards"),
        ('{"weight_map": {"a": 1}}', "no index of shards"),
        ('{"weight_map": {"a": {"b": "c"}}}', "no index of shards"),
        ('{"weight_map": ' + "[" * 100_000, "no index of shards"),
        ('{"x": ' + '{"x":' * 100_000, "no index of shards"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, index, says):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert says in refusal(tmp_path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[]", "holds a list instead of an object"),
        ("3", "holds a int instead of an object"),
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ('{"a":' * 100_000, "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is no JSON"),
        ('{"a": "' + "x" * (5 << 20) + '"}', "too many for what it should be"),
        ("\udcff", "is no JSON"),
    ],
)
def test_a_config_that_is_none_is_refused(tmp_path, config, says):
    (shards(tmp_path) / "config.json").write_text(config, encoding="utf-8", errors="surrogateescape")
    message = refusal(tmp_path)
    assert says in message
    assert message.startswith(f"{tmp_path}/config.json: ")


def test_directories_without_weights_say_so(tmp_path):
    assert "a directory without model files" in refusal(tmp_path)
    (tmp_path / "model.pt").mkdir()
    assert "a directory without model files" in refusal(tmp_path)
    assert "a directory without model files" in refusal(tmp_path / "model.pt")


def test_a_directory_named_as_a_shard_is_one_line(tmp_path):
    shard = shards(tmp_path) / "model-00002-of-00002.safetensors"
    shard.unlink()
    shard.mkdir()
    assert "neither a file nor" in refusal(tmp_path) or "directory" in refusal(tmp_path)


def test_missing_paths_say_so(tmp_path):
    assert "there is no such file or directory" in refusal(tmp_path / "nothing.pt")
    (tmp_path / "file").write_text("x")
    assert "there is no such file or directory" in refusal(tmp_path / "file" / "inside.pt")


def test_a_loop_of_links_is_one_line(tmp_path):
    (tmp_path / "a.pt").symlink_to(tmp_path / "b.pt")
    (tmp_path / "b.pt").symlink_to(tmp_path / "a.pt")
    assert "cannot be read" in refusal(tmp_path / "a.pt")


def test_special_files_are_refused_without_opening_them(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    assert "neither a file nor a directory" in refusal(tmp_path / "pipe.pt")
    assert "neither a file nor a directory" in refusal("/dev/zero")
    shard = shards(tmp_path) / "model-00002-of-00002.safetensors"
    shard.unlink()
    os.mkfifo(shard)
    assert "neither a file nor a directory" in refusal(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_say_so(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(FIRST, path)
    path.chmod(0)
    assert "Permission denied" in refusal(path)


# ------------------------------------------------------------------------------------------------- memory


def test_a_sharded_model_of_two_gigabytes_costs_no_memory(tmp_path):
    weight_map = {}
    for i in range(4):
        name = f"model-{i + 1:05}-of-00004.safetensors"
        layout = {f"l{i}.w": (1 << 27, 0), f"l{i}.norm": (16, 1 << 29)}
        header = json.dumps(
            {k: {"dtype": "F32", "shape": [n], "data_offsets": [at, at + 4 * n]} for k, (n, at) in layout.items()}
        ).encode()
        with (tmp_path / name).open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + (1 << 29) + 64)
        weight_map |= dict.fromkeys(layout, name)
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": weight_map})
    tracemalloc.start()
    try:
        tensors = read(tmp_path).tensors
        norms = [t.load() for name, t in tensors.items() if name.endswith(".norm")]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(norms) == 4
    assert not any(n.any() for n in norms)
    assert tensors["l0.w"].shape == (1 << 27,)
    assert peak < 8 << 20
