"""data/: the models are what its README says, its script made them, and low precision does what the README says."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import normcheck
from normcheck.layers.discovery.discover import discover
from normcheck.layers.readers import read

DATA = Path(__file__).resolve().parent.parent / "data"
CNN, TRANSFORMER, MLP = "digits-cnn.pt", "digits-transformer", "breast-cancer-mlp.pt"
MODELS = (CNN, TRANSFORMER, MLP)
DIGITS = "digits.npz"
FILES = (CNN, f"{TRANSFORMER}/config.json", f"{TRANSFORMER}/model.safetensors", MLP, DIGITS)
MEAN_AREA, WORST_AREA = 3, 23

needs_samples = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn, which carries the data, is not installed"
)


@pytest.fixture(scope="module")
def script():
    """data/train.py as a module."""
    spec = importlib.util.spec_from_file_location("train", DATA / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def one_thread():
    """The settings under which the script trains, undone afterwards: they are the whole process's."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def stored(name, folder=DATA):
    """The state dict of a model, as anyone would load it."""
    if name == TRANSFORMER:
        return load_file(folder / name / "model.safetensors")
    return torch.load(folder / name, weights_only=True)


def loaded(script, name):
    model = script.RECIPES[name].build()
    model.load_state_dict(stored(name), strict=True)
    return model.eval()


def table(heading):
    """The rows of the README's table of files that has a column of this heading, as mappings by heading."""
    lines = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    start = next(i for i, row in enumerate(cells) if row[0] == "file" and heading in row)
    end = next(i for i in range(start, len(cells)) if cells[i] == [""])
    return [dict(zip(cells[start], row, strict=True)) for row in cells[start + 2 : end]]


# ---------------------------------------------------------------------------------------------------- the files


def test_the_folder_holds_the_models_the_digits_the_script_and_its_readme_and_nothing_else():
    found = {str(path.relative_to(DATA)) for path in DATA.rglob("*") if path.is_file()}
    here = {f for f in found if "__pycache__" not in f and not f.startswith("failures/")}
    assert here == {*FILES, "train.py", "README.md"}


def test_the_files_are_small():
    sizes = [(DATA / name).stat().st_size for name in FILES]
    assert max(sizes) < 150_000
    assert sum(sizes) < 300_000


@pytest.mark.parametrize("name", MODELS)
def test_every_state_dict_fits_the_model_that_the_script_builds_and_is_finite(script, name):
    model = loaded(script, name)
    values = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    assert values
    assert all(tensor.dtype is torch.float32 and bool(tensor.isfinite().all()) for tensor in values)


def test_a_state_dict_of_another_model_does_not_fit(script):
    with pytest.raises(RuntimeError, match=r"Missing key.*input_norm"):
        script.BreastCancerMLP().load_state_dict(stored(CNN))


@pytest.mark.parametrize("name", MODELS)
def test_the_readme_counts_the_parameters(script, name):
    count = sum(parameter.numel() for parameter in loaded(script, name).parameters())
    (line,) = (
        x
        for x in (DATA / "README.md").read_text(encoding="utf-8").splitlines()
        if x.startswith(f"| `{name}` | ") and "parameters" in x
    )
    assert f"{count:,} parameters" in line


def test_the_config_is_the_one_that_the_transformer_is_built_from(script):
    assert json.loads((DATA / TRANSFORMER / "config.json").read_text(encoding="utf-8")) == script.CONFIG
    assert loaded(script, TRANSFORMER).norm.eps == script.CONFIG["rms_norm_eps"]


# ------------------------------------------------------------------------------------- the norms, as documented


def norms_of(name):
    rows = [row for row in table("layer") if row["file"] == name]
    return {row["layer"]: (row["norm"], int(row["channels"]), float(row["eps"])) for row in rows}


@pytest.mark.parametrize("name", MODELS)
def test_the_readme_lists_the_norms_of_each_model(script, name):
    model = loaded(script, name)
    norms = {
        layer: (type(module).__name__, len(module.weight), module.eps)
        for layer, module in model.named_modules()
        if "Norm" in type(module).__name__
    }
    assert norms == norms_of(name)
    assert norms


@pytest.mark.parametrize("name", MODELS)
def test_discovery_finds_exactly_the_norms_of_the_readme(name):
    kinds = {"BatchNorm1d": "batch-l2", "BatchNorm2d": "batch-l2", "RMSNorm": "rms"}
    expected = {layer: (kinds[norm], channels, eps) for layer, (norm, channels, eps) in norms_of(name).items()}
    layers = discover(read(str(DATA / name))).layers
    assert {layer.name: (layer.norm.name, layer.channels, layer.eps) for layer in layers} == expected
    assert {layer.eps_source for layer in layers} == {"config" if name == TRANSFORMER else "assumed"}
    assert all(layer.sure for layer in layers)


@pytest.mark.parametrize("name", MODELS)
def test_the_norms_were_trained(script, name):
    for layer, module in loaded(script, name).named_modules():
        if "Norm" in type(module).__name__:
            gamma = module.weight.detach()
            assert float((gamma - 1).abs().max()) > 0.03, layer
            assert float(gamma.std()) > 0.01, layer


# ------------------------------------------------------------------------- the variances that float16 cannot hold


def test_two_running_variances_alone_are_beyond_float16():
    variances = stored(MLP)["input_norm.running_var"]
    assert torch.nonzero(variances > 65504).ravel().tolist() == [MEAN_AREA, WORST_AREA]
    assert torch.nonzero(variances.half().isinf()).ravel().tolist() == [MEAN_AREA, WORST_AREA]
    assert int(variances.argmax()) == WORST_AREA
    assert int(variances.argmin()) == 19
    assert float(variances.max() / variances.min()) > 1e10
    others = [stored(name) for name in (CNN, TRANSFORMER)]
    assert all(bool(t.half().isfinite().all()) for tensors in others for t in tensors.values())


@needs_samples
@pytest.mark.parametrize(
    ("channel", "feature"), [(MEAN_AREA, "mean area"), (WORST_AREA, "worst area"), (19, "fractal dimension error")]
)
def test_the_channels_are_the_features_that_the_readme_names(channel, feature):
    from sklearn.datasets import load_breast_cancer

    assert load_breast_cancer().feature_names[channel] == feature
    assert f"channel {channel}" in (DATA / "README.md").read_text(encoding="utf-8")


@needs_samples
def test_cast_to_half_both_channels_become_beta_and_nothing_is_infinite(script):
    model, samples = loaded(script, MLP), script.breast_cancer()
    cast = script.norms_in(model, torch.float16)
    with torch.no_grad():
        right, wrong = model.input_norm(samples.test), cast.input_norm(samples.test)
        logits = cast(samples.test)
    assert bool(wrong.isfinite().all())
    assert bool(logits.isfinite().all())
    error = (wrong - right).norm(dim=0) / right.norm(dim=0)
    assert torch.nonzero(error > 0.01).ravel().tolist() == [MEAN_AREA, WORST_AREA]
    for channel in (MEAN_AREA, WORST_AREA):
        assert bool((wrong[:, channel] == cast.input_norm.bias[channel]).all())
        assert float(right[:, channel].std()) > 0.5
    assert model.input_norm.running_var.isfinite().all(), "the model itself is as it was"


@needs_samples
def test_those_two_channels_alone_do_the_harm(script):
    model, samples = loaded(script, MLP), script.breast_cancer()
    cast = script.norms_in(model, torch.float16)
    healed = copy.deepcopy(cast)
    for channel in (MEAN_AREA, WORST_AREA):
        healed.input_norm.running_var[channel] = model.input_norm.running_var[channel]
    assert script.change(model, healed, samples) == pytest.approx(0.00037, rel=0.1)
    assert script.change(model, cast, samples) > 0.1


@needs_samples
def test_the_whole_model_in_half_is_as_wrong_and_as_finite(script):
    model, samples = loaded(script, MLP), script.breast_cancer()
    half = samples._replace(test=samples.test.half())
    whole = copy.deepcopy(model).half()
    with torch.no_grad():
        exact, logits = model(samples.test), whole(half.test)
    assert bool(logits.isfinite().all())
    assert float((logits - exact).norm() / exact.norm()) == pytest.approx(0.14, rel=0.1)
    assert abs(script.right(whole, half) - 109) <= 1


@needs_samples
@pytest.mark.parametrize("name", MODELS)
def test_the_figures_of_the_readme_are_measured_again(script, name):
    (row,) = (row for row in table("right") if row["file"] == name)
    model, samples = loaded(script, name), script.RECIPES[name].samples()
    assert len(samples.test) == int(row["held out"])
    assert abs(script.right(model, samples) - int(row["right"])) <= 1
    assert int(row["right"]) / int(row["held out"]) > (0.96 if name == MLP else 0.97)
    for dtype in ("float16", "bfloat16"):
        cast = script.norms_in(model, getattr(torch, dtype))
        assert abs(script.right(cast, samples) - int(row[f"right, {dtype}"])) <= 1
        assert script.change(model, cast, samples) == pytest.approx(float(row[f"change, {dtype}"]), rel=0.1)


# ------------------------------------------------------------------------------------------- what normcheck says


def eval_in_half(name, params):
    """The results of every layer as it is stored, and the codes of all errors."""
    report = normcheck.analyze(
        str(DATA / name), precisions=["fp16"], mode="eval", params=params, implementations=["wide"]
    )
    return report.results, {finding.rule for finding in report.findings if finding.severity == "error"}


def test_normcheck_names_the_layer_and_the_channels_that_torch_loses():
    results, errors = eval_in_half(MLP, "half")
    assert {result.layer: result.verdict for result in results} == {"input_norm": "unsafe", "hidden_norm": "ok"}
    (lost,) = (result for result in results if result.layer == "input_norm")
    assert (lost.rows.collapsed, lost.rows.nonfinite) == (2, 0)
    assert {row.index for row in lost.worst_rows[:2]} == {MEAN_AREA, WORST_AREA}
    assert errors >= {"NC102", "NC104"}


@pytest.mark.parametrize(("name", "params"), [(MLP, "autocast"), (CNN, "half"), (TRANSFORMER, "half")])
def test_normcheck_clears_what_torch_computes_well(name, params):
    results, errors = eval_in_half(name, params)
    assert {result.verdict for result in results} == {"ok"}
    assert errors == set()


# ---------------------------------------------------------------------------------------------------- the script


@needs_samples
@pytest.mark.usefixtures("one_thread")
def test_training_gives_the_same_bits_twice_and_the_running_statistics_of_the_file(script):
    recipe = script.RECIPES[MLP]
    samples = recipe.samples()
    once, again = (script.train(recipe, samples).state_dict() for _ in range(2))
    assert all(torch.equal(once[key], again[key]) for key in once)
    for key in ("input_norm.running_mean", "input_norm.running_var"):  # of the data, whatever was learnt
        torch.testing.assert_close(once[key], stored(MLP)[key], rtol=1e-3, atol=0)


@needs_samples
@pytest.mark.usefixtures("one_thread")
def test_the_script_writes_every_model_where_it_is_told_to(script, monkeypatch, tmp_path, capsys):
    short = {name: recipe._replace(epochs=1) for name, recipe in script.RECIPES.items()}
    monkeypatch.setattr(script, "RECIPES", short)
    script.main(["--out", str(tmp_path / "new" / "folder")])
    written = tmp_path / "new" / "folder"
    assert {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()} == set(FILES)
    for name in MODELS:
        script.RECIPES[name].build().load_state_dict(stored(name, written), strict=True)
    assert (written / DIGITS).read_bytes() == (DATA / DIGITS).read_bytes()
    said = capsys.readouterr().out
    assert re.findall(r"^(\S+): \d+ of \d+ held-out samples right", said, re.MULTILINE) == list(MODELS)
    changes = [float(x) for x in re.findall(r"changed by (\S+) \(relative L2\)", said)]
    assert len(changes) == 2 * len(MODELS)
    assert all(math.isfinite(change) for change in changes)


@needs_samples
def test_the_split_holds_out_a_fifth_of_every_class(script):
    samples = script.digits()
    assert (len(samples.train), len(samples.test)) == (1437, 360)
    assert samples.test.shape[1:] == (8, 8)
    assert float(samples.train.max()) == 1.0
    counts = torch.bincount(samples.test_classes)
    assert counts.min() >= 34
    assert counts.max() <= 38
    rows = {tuple(image.ravel().tolist()) for image in samples.train}
    assert not any(tuple(image.ravel().tolist()) in rows for image in samples.test)


@needs_samples
def test_the_digits_are_those_of_scikit_learn_and_normcheck_reads_them():
    from sklearn.datasets import load_digits

    from normcheck.paper import digits

    theirs = load_digits()
    images, classes = digits.digits()
    assert torch.equal(images, torch.tensor(theirs.images)[:, None])
    assert torch.equal(classes, torch.tensor(theirs.target))
    assert images.shape == (1797, 1, 8, 8)
    assert len(images) == digits.TRAINED + 360


def test_without_scikit_learn_the_script_says_so_in_one_line(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(SystemExit) as stop:
        script.digits()
    assert "pip install scikit-learn" in str(stop.value)
    assert "\n" not in str(stop.value)


def test_a_file_in_the_place_of_the_folder_is_refused(script, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        script.main(["--out", str(tmp_path / "file")])
    assert stop.value.code == 2
    assert f"--out {tmp_path / 'file'} is not a folder" in capsys.readouterr().err
