"""``normcheck convert``: the file that it writes, what it reports, and what it refuses to do."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from convertible import on_one_thread
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import normcheck as package
from normcheck import nn as ours
from normcheck.layers.discovery.discover import discover
from normcheck.layers.readers import read
from normcheck.layers.readers.converted import METADATA
from normcheck.nn.convert_checkpoint import bytes_of
from normcheck.results import conversion as data

NETS = """
import torch
from torch import nn
from normcheck.nn import convert

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, eps=1e-4)
        self.ln, self.out = nn.LayerNorm(4, eps=1e-6), nn.Linear(4, 3)
        self.tied = nn.Linear(4, 3)
        self.tied.weight = self.out.weight

    def forward(self, x):
        y = self.ln(self.bn(self.conv(x)).relu().mean((2, 3)))
        return self.out(y) + self.tied(y)

def converted():
    return convert(Net(), "l1")

def both():
    return convert(converted(), "linf", where="layer")
"""


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with on_one_thread():
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a module of models, a checkpoint, and inputs with classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nets_to_convert", raising=False)
    (tmp_path / "nets_to_convert.py").write_text(NETS)
    import nets_to_convert

    torch.manual_seed(0)
    model = nets_to_convert.Net()
    x = torch.rand(12, 2, 8, 8) * 4
    for _ in range(3):
        model(x)
    torch.save(model.state_dict(), "net.pt")
    np.savez("x.npz", x=x.numpy(), labels=np.arange(12) % 3)
    np.save("more.npy", (x + 1).numpy())
    return nets_to_convert


CONVERT = ("convert", "net.pt", "--out", "new.safetensors")
MODEL = ("--model", "nets_to_convert:Net", "--input", "x.npz")


def model_of(folder, name="Net", file="net.pt"):
    model = getattr(folder, name)()
    model.load_state_dict(torch.load(file) if file.endswith(".pt") else load_file(file))
    return model.eval()


# ------------------------------------------------------------------------------------------------------ the file


def test_the_file_is_the_state_dict_of_the_converted_model(normcheck, folder):
    done = normcheck(*CONVERT, "--to", "batch-l1", *MODEL)
    assert done.code == 0, done.err
    wanted = ours.convert(model_of(folder), "l1", calibrate=torch.from_numpy(np.load("x.npz")["x"]))
    written = load_file("new.safetensors")
    left_out = {"tied.weight"}  # the memory of out.weight, which the metadata say
    assert written.keys() == wanted.state_dict().keys() - left_out
    assert all(torch.equal(written[key], value) for key, value in wanted.state_dict().items() if key not in left_out)
    assert read("new.safetensors").tensors.keys() == wanted.state_dict().keys()


def test_analyze_knows_the_norms_of_the_file(normcheck):
    assert normcheck(*CONVERT, "--to", "batch-l1", *MODEL).code == 0
    first = {layer.name: layer for layer in discover(read("new.safetensors")).layers}
    assert {name: (layer.norm.name, layer.eps_source, layer.sure) for name, layer in first.items()} == {
        "bn": ("batch-l1", "module", True),
        "ln": ("layer-l2", "module", True),
    }
    assert first["bn"].eps == pytest.approx(1e-2, rel=1e-12)
    assert first["ln"].eps == 1e-6
    again = ("convert", "new.safetensors", "--out", "both.safetensors", "--to", "layer-linf", "--constant", "paper")
    done = normcheck(*again, "--model", "nets_to_convert:converted", "--input", "x.npz")
    assert done.code == 0, done.err
    second = {layer.name: layer.norm.name for layer in discover(read("both.safetensors")).layers}
    assert second == {"bn": "batch-l1", "ln": "layer-linf"}
    report = package.analyze("both.safetensors", precisions=("fp16",))
    assert {layer.name: layer.norm for layer in report.layers} == second


def test_the_file_loads_into_a_factory_of_the_converted_model(normcheck):
    normcheck(*CONVERT, "--to", "batch-l1", *MODEL)
    done = normcheck(
        "analyze", "new.safetensors", "--model", "nets_to_convert:converted", "--input", "more.npy", "--format", "json"
    )
    assert done.code == 0, done.err
    assert {result["norm"] for result in json.loads(done.out)["results"]} == {"batch-l1", "layer-l2"}


def test_metadata_say_what_it_was_converted_by(normcheck):
    normcheck(*CONVERT, "--to", "batch-topk", "--k", "5", "--constant", "paper", *MODEL)
    with safe_open("new.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert metadata["tied.weight"] == "out.weight"
    told = json.loads(metadata["normcheck_conversion"])
    assert told == {
        "statistic": "topk",
        "constant": "paper",
        "k": 5,
        "calibrated_on": "12 samples of x.npz, in 1 batch",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "damaged"),
        ('{"bn": {"how": "x", "norm": "batch-l9"}}', "damaged"),
        ('{"bn": {"how": "x", "norm": "batch-l1", "eps": -1.0}}', "damaged"),
        ('{"bn": {"how": "x", "norm": "batch-l1", "weight": "bn.scale"}}', "bn.scale is not there"),
        ('{"bn": 7}', "damaged"),
    ],
)
def test_metadata_that_cannot_be_are_told_of_and_not_used(normcheck, text, reason):
    normcheck(*CONVERT, "--to", "batch-l1", *MODEL)
    save_file(load_file("new.safetensors"), "edited.safetensors", {METADATA: text})
    found = discover(read("edited.safetensors"))
    assert {layer.name: layer.norm.name for layer in found.layers}["bn"] == "batch-l1"
    (told,) = [item.reason for item in found.omitted if item.name == METADATA]
    assert reason in told


# -------------------------------------------------------------------------------------------------- what it reads


def changes(out):
    return json.loads(out)["conversion"]


def test_changes_and_accuracy_are_those_of_the_api(normcheck, folder):
    done = normcheck(*CONVERT, "--to", "batch-l1", *MODEL, "--calibrate", "more.npy", "--format", "json")
    assert done.code == 0, done.err
    arrays = np.load("x.npz")
    x, labels = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["labels"])
    model = model_of(folder)
    converted = ours.convert(model, "l1", calibrate=x + 1)
    wanted = ours.conversion_of(model, converted, [(x, labels)])
    found = changes(done.out)
    assert found["layers"] == [dataclasses.asdict(layer) for layer in wanted.layers]
    assert found["change"] == wanted.change
    assert found["accuracy"] == dataclasses.asdict(wanted.accuracy)
    assert json.loads(done.out)["calibrated_on"] == "12 samples of more.npy, in 1 batch"


def test_batches_are_of_the_size_that_was_asked_for(normcheck, folder):
    done = normcheck(*CONVERT, "--to", "batch-l1", *MODEL, "--batch-size", "5", "--format", "json")
    assert json.loads(done.out)["calibrated_on"] == "12 samples of x.npz, in 3 batches"
    assert changes(done.out)["samples"] == 12
    x = torch.from_numpy(np.load("x.npz")["x"])
    wanted = ours.convert(model_of(folder), "l1", calibrate=x.split(5))
    assert torch.equal(load_file("new.safetensors")["bn.running_l1"], wanted.bn.running_l1)


def test_labels_may_be_in_a_file_of_their_own(normcheck):
    np.save("classes.npy", np.arange(12) % 3)
    np.save("x.npy", np.load("x.npz")["x"])
    options = ("--model", "nets_to_convert:Net", "--input", "x.npy", "--format", "json")
    assert changes(normcheck(*CONVERT, "--to", "batch-l1", *options).out)["accuracy"] is None
    done = normcheck(*CONVERT, "--to", "batch-l1", *options, "--labels", "classes.npy", "--overwrite")
    assert changes(done.out)["accuracy"]["of"] == 12


def test_one_layer_of_several(normcheck):
    done = normcheck(*CONVERT, "--to", "layer-l1", "--layer", "l*", "--eps", "0.5", *MODEL, "--format", "json")
    report = json.loads(done.out)
    (layer,) = report["conversion"]["layers"]
    assert (layer["layer"], layer["eps"], report["to"]) == ("ln", 0.5, "layer-l1")
    assert report["calibrated_on"] == "nothing: no norm that was converted has running statistics"


# ---------------------------------------------------------------------------------------------- without the model


def test_without_a_model_the_variance_becomes_its_root(normcheck, folder):
    done = normcheck(*CONVERT, "--to", "batch-l1")
    assert done.code == 0, done.err
    assert "right for Gaussian inputs alone: give --model and --input" in done.err
    old, new = torch.load("net.pt"), load_file("new.safetensors")
    assert torch.equal(new["bn.running_l1"], old["bn.running_var"].sqrt())
    assert new.keys() - old.keys() == {"bn.running_l1"}
    assert old.keys() - new.keys() == {"bn.running_var"}
    assert all(torch.equal(new[key], old[key]) for key in new.keys() & old.keys())
    assert {key: value.dtype for key, value in new.items()} == {key: new[key].dtype for key in new}
    model_of(folder, "converted", "new.safetensors")  # loads


def test_without_a_model_analyze_finds_the_new_eps(normcheck):
    normcheck(*CONVERT, "--to", "batch-l1")
    (layer,) = [x for x in discover(read("new.safetensors")).layers if x.norm.where == "batch"]
    assert layer.norm.name == "batch-l1"
    assert layer.eps == pytest.approx(1e-5**0.5)  # the file does not say 1e-4
    assert layer.eps_source == "config"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_without_a_model_types_are_kept(normcheck, dtype):
    save_file({k: v.to(dtype) for k, v in torch.load("net.pt").items() if k != "tied.weight"}, "old.safetensors")
    assert normcheck("convert", "old.safetensors", "--out", "new.safetensors", "--to", "batch-linf").code == 0
    old, new = load_file("old.safetensors"), load_file("new.safetensors")
    assert new["bn.running_linf"].dtype == dtype
    assert all(torch.equal(new[key], old[key]) for key in new.keys() & old.keys())


# ------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "batch-l1", "--input", "x.npz"), "give --model MODULE:NAME"),
        (("--to", "batch-l1", "--calibrate", "x.npz"), "give --model MODULE:NAME"),
        (("--to", "batch-l1", "--model", "nets_to_convert:Net"), "give --input FILE"),
        (("--to", "batch-l9", *MODEL), "unknown norm 'batch-l9'"),
        (("--to", "weight-l2", *MODEL), "weight-l2 cannot be converted to"),
        (("--to", "batch-l1-uncentred", *MODEL), "batch-l1-uncentred cannot be converted to"),
        (("--to", "group-l1", *MODEL), "the model has no group norm"),
        (("--to", "batch-l2", *MODEL), "bn: it is batch-l2 already"),
        (("--to", "batch-l1", "--eps", "same as", *MODEL), "give comparable, same or a number"),
        (("--to", "batch-l1", "--eps", "-1", *MODEL), "eps: expected"),
        (("--to", "batch-topk", "--k", "0", *MODEL), "k must be"),
        (("--to", "batch-l1", "--layer", "x*", *MODEL), "no norm matches 'x*'"),
        (("--to", "batch-l1", "--batch-size", "0", *MODEL), "give 1 or more"),
        (("--to", "batch-l1", "--batch-size", "1", "--labels", "more.npy", *MODEL), "labels must be one whole number"),
        (("--to", "batch-l1", "--calibrate", "gone.npz", *MODEL), "gone.npz: there is no such file"),
        (("--to", "layer-l1"), "only batch norms can be converted"),
        (("--to", "batch-topk", "--constant", "paper"), "give --model"),
        (("--to", "batch-l1", "--layer", "x*"), "no batch norm with a running_var that matches x*"),
    ],
)
def test_what_cannot_be_is_one_line_and_no_file(normcheck, options, message):
    done = normcheck(*CONVERT, *options)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert sorted(p.name for p in Path().iterdir() if p.suffix != ".py" and p.is_file()) == [
        "more.npy",
        "net.pt",
        "x.npz",
    ]


def test_the_output_is_a_safetensors_file(normcheck):
    done = normcheck("convert", "net.pt", "--to", "batch-l1", "--out", "new.pt", *MODEL)
    assert done.code == 2
    assert "ends in .safetensors" in done.err


def test_nothing_is_replaced_without_being_asked(normcheck):
    Path("new.safetensors").write_text("mine")
    done = normcheck(*CONVERT, "--to", "batch-l1", *MODEL)
    assert done.code == 2
    assert "it exists: give another path, or --overwrite" in done.err
    assert Path("new.safetensors").read_text() == "mine"
    assert normcheck(*CONVERT, "--to", "batch-l1", *MODEL, "--overwrite").code == 0
    assert "bn.running_l1" in load_file("new.safetensors")


@pytest.mark.parametrize("role", ["checkpoint", "--input", "--calibrate"])
def test_what_it_reads_is_never_replaced(normcheck, role):
    state = {key: value for key, value in torch.load("net.pt").items() if key != "tied.weight"}
    save_file(state, "net.safetensors")
    save_file({"x": torch.rand(4, 2, 8, 8)}, "x.safetensors")
    Path("link.safetensors").symlink_to("net.safetensors" if role == "checkpoint" else "x.safetensors")
    source = {"checkpoint": "net.safetensors", "--input": "x.npz"} | (
        {} if role == "checkpoint" else {role: "x.safetensors"}
    )
    calibrate = ("--calibrate", source["--calibrate"]) if "--calibrate" in source else ()
    before = {name: Path(name).read_bytes() for name in ("net.safetensors", "x.safetensors")}
    done = normcheck(
        "convert", source["checkpoint"], "--to", "batch-l1", "--out", "link.safetensors", "--overwrite",
        "--model", "nets_to_convert:Net", "--input", source["--input"], *calibrate,
    )  # fmt: skip
    assert done.code == 2
    assert "this run reads that file" in done.err
    assert {name: Path(name).read_bytes() for name in before} == before


def test_nothing_is_written_into_a_folder_that_it_reads(normcheck):
    Path("folder").mkdir()
    save_file({k: v for k, v in torch.load("net.pt").items() if k != "tied.weight"}, "folder/model.safetensors")
    for name in ("model", "new"):
        done = normcheck("convert", "folder", "--to", "batch-l1", "--out", f"folder/{name}.safetensors", "--overwrite")
        assert done.code == 2
        assert "this run reads the folder folder" in done.err
    assert normcheck("convert", "folder", "--to", "batch-l1", "--out", "new.safetensors").code == 0


def test_state_that_is_no_tensor_is_refused(normcheck, folder):
    class Extra(folder.Net):
        def get_extra_state(self):
            return {"epoch": 3}

        def set_extra_state(self, state):
            pass

    folder.Extra = Extra
    done = normcheck(*CONVERT, "--to", "batch-l1", "--model", "nets_to_convert:Extra", "--input", "x.npz")
    assert done.code == 2
    assert "_extra_state is no tensor but dict" in done.err


@pytest.mark.filterwarnings("ignore:.*ComplexHalf:UserWarning")
def test_state_that_the_file_cannot_hold_is_refused():
    for value, message in (
        (torch.zeros(2, 2).to_sparse(), "b is torch.sparse_coo"),
        (torch.zeros(2, dtype=torch.complex32), "a safetensors file cannot hold this state dict"),
        ([1], "b is no tensor but list"),
    ):
        with pytest.raises(package.UsageError, match=message):
            bytes_of({"a": torch.zeros(2), "b": value}, {})


def test_without_a_model_numbers_that_are_not_kept_exactly_are_refused(normcheck):
    state = {key: value for key, value in torch.load("net.pt").items() if key != "tied.weight"}
    save_file(state | {"steps": torch.tensor([2**60 + 1])}, "old.safetensors")
    done = normcheck("convert", "old.safetensors", "--out", "new.safetensors", "--to", "batch-l1")
    assert done.code == 2
    assert "steps holds int64 beyond 2^53" in done.err
    save_file(state | {"phase": torch.zeros(2, dtype=torch.complex64)}, "old.safetensors")
    done = normcheck("convert", "old.safetensors", "--out", "new.safetensors", "--to", "batch-l1")
    assert done.code == 2
    assert "phase is stored as" in done.err


# ------------------------------------------------------------------------------------------------- how it is shown


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_table_fits_and_nothing_is_cropped(normcheck, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    done = normcheck(*CONVERT, "--to", "batch-topk", "--constant", "paper", *MODEL)
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    (row,) = [line for line in lines if line.startswith("bn ")]
    assert re.fullmatch(r"bn +[\d.e-]+ +[\d.e-]+ +batch-l2 +0\.0001 +batch-topk +0\.01", row)
    assert "1 norm converted to batch-topk; constant paper; k 10" in " ".join(done.out.split())
    assert re.search(r"accuracy +\d+ of 12 \(\d+\.\d%\) before, \d+ of 12 \(\d+\.\d%\) after", done.out)


def test_long_names_stand_above_their_figures(normcheck, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    long = f"{'encoder.' * 9}bn"
    state = {f"{long}.{k.partition('.')[2]}": v for k, v in torch.load("net.pt").items() if k.startswith("bn.")}
    torch.save(state, "long.pt")
    done = normcheck("convert", "long.pt", "--to", "batch-l1", "--out", "new.safetensors")
    assert done.code == 0, done.err
    assert f"{long}\n" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_markdown_has_a_row_a_layer(normcheck):
    done = normcheck(*CONVERT, "--to", "batch-l1", *MODEL, "--format", "markdown")
    assert done.out.startswith("## normcheck convert\n")
    assert len(re.findall(r"^\| bn \|", done.out, re.MULTILINE)) == 1
    assert "* accuracy: " in done.out


def test_what_was_skipped_is_told_in_every_format(normcheck, folder):
    class More(folder.Net):
        def __init__(self):
            super().__init__()
            self.bn2 = torch.nn.SyncBatchNorm(4)

    folder.More = More
    torch.save(More().state_dict(), "net.pt")
    options = ("--to", "batch-l1", "--model", "nets_to_convert:More", "--input", "x.npz", "--overwrite")
    for form in ("table", "markdown", "json"):
        done = normcheck(*CONVERT, *options, "--format", form)
        assert done.code == 0, done.err
        assert "bn2" in done.out
        assert "SyncBatchNorm shares its statistics" in " ".join(done.out.split())


def test_quiet_says_nothing_on_standard_error(normcheck):
    assert normcheck(*CONVERT, "--to", "batch-l1", "--quiet").err == ""


@pytest.mark.parametrize("kind", [data.ConvertedLayer, data.Accuracy, data.Conversion, data.ConversionReport])
def test_every_field_is_explained_and_on_the_page(kind):
    page = (Path(__file__).resolve().parents[2] / "docs" / "convert.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(kind):
        assert f"`{field.name}`:" in kind.__doc__, field.name
        assert f"`{field.name}`" in page, field.name
