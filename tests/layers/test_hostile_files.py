"""No file, however it is broken or meant, does more than one line of refusal: no traceback, code, hang or memory."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import hostile
import hostile_formats
import hostile_run
import numpy as np
import pytest
import torch
from safetensors.numpy import save as safetensors_bytes

ROOT = Path(__file__).resolve().parent.parent.parent
MEMORY = 512  # MiB


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.bn, self.ln = torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.LayerNorm(6)

    def forward(self, x):
        return self.ln(self.bn(self.fc(x)))


def written(save):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(buffer)
    return buffer.getvalue()


def gguf_bytes():
    gguf = pytest.importorskip("gguf")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        writer = gguf.GGUFWriter(Path(folder) / "a.gguf", "llama")
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tensor("blk.0.attn_norm.weight", np.ones(8, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return (Path(folder) / "a.gguf").read_bytes()


def onnx_bytes():
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    node = helper.make_node("LayerNormalization", ["x", "w", "b"], ["y"], epsilon=1e-5)
    weights = [onnx.numpy_helper.from_array(np.ones(4, np.float32), n) for n in "wb"]
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 4]) for n in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:], weights)
    return helper.make_model(graph, producer_name="test").SerializeToString()


BASES = {
    "zip.pt": lambda: written(lambda f: torch.save(Net().state_dict(), f)),
    "legacy.pt": lambda: written(lambda f: torch.save(Net().state_dict(), f, _use_new_zipfile_serialization=False)),
    "script.pt": lambda: written(lambda f: torch.jit.save(torch.jit.script(Net().eval()), f)),
    "export.pt2": lambda: written(
        lambda f: torch.export.save(torch.export.export(Net().eval(), (torch.ones(2, 4),)), f)
    ),
    "a.safetensors": lambda: safetensors_bytes({"w": np.ones(9, np.float32), "n.weight": np.ones(3, np.float16)}),
    "a.npz": lambda: written(lambda f: np.savez(f, w=np.ones(9, np.float32), i=np.arange(3))),
    "a.gguf": gguf_bytes,
    "a.onnx": onnx_bytes,
}
PICKLES = {"zip": hostile.torch_zip, "legacy": hostile.legacy, "script": hostile.torchscript}


def named(cases, suffix):
    return [(f"{name}.{suffix}".replace("/", " "), data) for name, data in cases]


def pickled(cases, containers=PICKLES):
    return [(f"{name} {kind}.pt", wrap(data)) for name, data in cases for kind, wrap in containers.items()]


def mutated(base):
    data, (stem, suffix) = BASES[base](), base.split(".")
    return [
        (f"{stem} {name}.{suffix}", changed)
        for name, changed in hostile.mutations(data, seed=sorted(BASES).index(base))
    ]


GROUPS = {
    **{f"mutated {base}": (lambda _, base=base: mutated(base)) for base in BASES},
    "executing": lambda canary: pickled(hostile.executing(canary)),
    "bombs in zips": lambda _: pickled(hostile.bombs(), {"zip": hostile.torch_zip}),
    "bombs in pickles": lambda _: pickled(hostile.bombs(), {"legacy": hostile.legacy}),
    "bombs in scripts": lambda _: pickled(hostile.bombs(), {"script": hostile.torchscript}),
    "lies": lambda _: pickled(hostile.lies()),
    "opcodes": lambda _: pickled(hostile.lonely_opcodes(), {"legacy": hostile.legacy}),
    "opcodes in scripts": lambda _: pickled(hostile.lonely_opcodes(), {"script": hostile.torchscript}),
    "zips": lambda _: named(hostile.zips(), "pt"),
    "older files": lambda _: named(hostile.legacies(), "pt"),
    "safetensors": lambda _: named(hostile_formats.safetensors(), "safetensors"),
    "npz": lambda canary: named(hostile_formats.npzs(canary), "npz"),
    "gguf": lambda _: named(hostile_formats.ggufs(), "gguf"),
    "onnx": lambda _: named(hostile_formats.onnxes(onnx_bytes()), "onnx"),
    "torch.export": lambda canary: named(hostile_formats.exports(BASES["export.pt2"](), canary), "pt2"),
    "texts": lambda _: list(hostile_formats.texts()),
}
ALL_REFUSED = {"executing", "older files", "gguf", "texts"}
"""Groups of which no file may be read as a model."""


def outcomes(paths):
    """Read the files in a process of its own, which a crash would end."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(hostile_run.__file__))],
        input=json.dumps([str(p) for p in paths]),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"it ended after {results[-1:]}: {done.stderr[-2000:]}"
    assert done.stderr == ""
    assert [r["path"] for r in results] == [str(p) for p in paths]
    return results


@pytest.mark.parametrize("group", GROUPS)
def test_hostile_files_are_read_or_refused_in_one_line(tmp_path, group):
    canary, folder = tmp_path / "canary", tmp_path / "files"
    folder.mkdir()
    paths = []
    for name, data in GROUPS[group](canary):
        paths.append(folder / name)
        paths[-1].write_bytes(data)
    assert len(set(paths)) == len(paths) > 5
    results = outcomes(paths)
    assert [r for r in results if r["outcome"].startswith("WRONG")] == []
    assert [r for r in results if r["seconds"] > hostile_run.SECONDS] == []
    assert results[-1]["peak"] < MEMORY
    assert not canary.exists()
    refused = [r for r in results if r["outcome"].startswith("refused")]
    assert refused == results if group in ALL_REFUSED else refused
    assert len(results) == len(list(folder.iterdir())), "reading made files"


def test_there_are_more_than_200_of_them_and_whole_files_are_read(tmp_path):
    count = sum(
        len(make(tmp_path)) for group, make in GROUPS.items() if "mutated" in group or group in ("lies", "zips")
    )
    assert count > 200
    paths = []
    for base, make in BASES.items():
        paths.append(tmp_path / base)
        paths[-1].write_bytes(make())
    for name, wrap in PICKLES.items():
        paths.append(tmp_path / f"good {name}.pt")
        row = hostile.sizes(4), hostile.sizes(1)
        paths[-1].write_bytes(wrap(hostile.state(hostile.tensor(*row))))
    assert [r["outcome"] for r in outcomes(paths)] == ["read"] * len(paths)


def test_a_wrong_outcome_is_seen(tmp_path, monkeypatch):
    from normcheck.layers.readers import reading

    path = tmp_path / "a.pt"
    path.write_bytes(b"x")
    assert hostile_run.outcome(str(path)).startswith("refused: ")
    monkeypatch.setattr(reading, "format_of", lambda _: 1 / 0)
    assert hostile_run.outcome(str(path)).startswith("refused: ")
    monkeypatch.setattr(reading, "_guarded", lambda _name, action: action())
    assert hostile_run.outcome(str(path)) == "WRONG ZeroDivisionError: division by zero"


def test_a_hang_is_seen(tmp_path, monkeypatch):
    from normcheck.layers.readers import reading

    def hang(_):
        while True:
            pass

    monkeypatch.setattr(reading, "format_of", hang)
    monkeypatch.setattr(hostile_run, "SECONDS", 0.2)
    before = signal.signal(signal.SIGPROF, hostile_run._alarm)
    try:
        (tmp_path / "a.pt").write_bytes(b"x")
        assert hostile_run.outcome(str(tmp_path / "a.pt")) == "WRONG TooLongError: "
    finally:
        signal.signal(signal.SIGPROF, before)


def test_the_attacks_would_work_on_who_believes_them(tmp_path):
    executing = dict(hostile.executing(tmp_path / "canary"))
    for name in ("os.system", "builtins.exec", "stack global", "instance", "object", "before the end"):
        code = f"import pickle; pickle.loads({executing[name]!r})"
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
        assert (tmp_path / "canary").exists(), name
        (tmp_path / "canary").unlink()
