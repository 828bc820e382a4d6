from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tracked_runs import adamw, net, sgd, train

from normcheck.analysis.track_findings import _FIXES, COLLAPSED, GROWN, SHARE
from normcheck.analysis.track_updates import DEGREES
from normcheck.cli.track import _rates
from normcheck.errors import UsageError
from normcheck.paper.digits import digits

ROOT = Path(__file__).resolve().parents[2]
CNN = ROOT / "data" / "digits-cnn.pt"
PAGE = (ROOT / "docs" / "track.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two short training runs in three ways of saving."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "sgd", sgd(0.01))
    train(folder / "adamw", adamw)
    return folder


def loaded(outcome):
    return json.loads(outcome.out)


def layers(outcome):
    return {layer["name"]: layer for layer in loaded(outcome)["layers"]}


def says(text, part):
    return "".join(part.split()) in "".join(text.split())


def test_a_run_is_followed_from_its_folder(normcheck, runs):
    outcome = normcheck("track", runs / "sgd" / "whole")
    assert (outcome.code, outcome.err) == (0, "")
    for part in ("4: ", "epoch-0.pt", "epoch-3.pt", "sgd", "0.1", "the optimizer's state", "7.weight", "each channel"):
        assert says(outcome.out, part)


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_table_fits_the_terminal(normcheck, runs, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    lines = normcheck("track", runs / "sgd" / "weights").out.splitlines()
    assert max(map(len, lines)) <= int(columns)


def test_every_format_and_file_holds_the_same_report(normcheck, runs, tmp_path):
    folder, to = runs / "adamw" / "whole", tmp_path / "r.json"
    printed = normcheck("track", folder, "--format", "json")
    beside = normcheck("track", folder, "--json", to, "--markdown", tmp_path / "r.md", "--format", "markdown")
    assert printed.out == to.read_text(encoding="utf-8") == normcheck("track", folder, "--json", "-").out
    assert beside.out == (tmp_path / "r.md").read_text(encoding="utf-8")
    assert beside.out.startswith("## normcheck track: ")
    assert loaded(printed)["command"] == "track"


def test_options_reach_the_engine(normcheck, runs):
    outcome = normcheck(
        *("track", runs / "sgd" / "safetensors", "--lr", "0.4,0.3,0.2,0.1", "--optimizer", "Adam"),
        *("--precision", "fp32,bf16", "--layer", "4,7", "--steps-between", "12"),
        *("--channels", "--update", "difference"),
        *("--format", "json"),
    )
    report = loaded(outcome)
    assert sorted(layers(outcome)) == ["4.weight", "7.weight"]
    assert report["settings"]["precision"] == ["fp32", "bf16"]
    assert [checkpoint["steps_since"] for checkpoint in report["checkpoints"]] == [None, 12, 12, 12]
    weight = layers(outcome)["4.weight"]
    assert weight["power"] == 1
    assert [point["lr"] for point in weight["points"]] == [0.4, 0.3, 0.2, 0.1]
    assert len(weight["points"][0]["norms_of_channels"]) == 16
    assert weight["points"][1]["estimated"] is True


def test_the_table_shows_as_many_layers_as_asked(normcheck, runs):
    outcome = normcheck("track", runs / "sgd" / "whole", "--top", "1")
    assert "2 more layers are not shown" in outcome.out
    assert normcheck("track", runs / "sgd" / "whole", "--top", "0").code == 2


# ---------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(("limit", "code"), [("error", 0), ("warning", 1), ("note", 1), ("never", 0)])
def test_findings_fail_the_run_from_a_severity_on(normcheck, runs, limit, code):
    outcome = normcheck("track", runs / "adamw" / "whole", "--fail-on", limit)
    assert says(outcome.out, "warning updates-lost")
    assert outcome.code == code


def test_nothing_to_follow_is_3(normcheck, tmp_path):
    save_file({"bias": torch.ones(3)}, tmp_path / "c.safetensors")
    outcome = normcheck("track", tmp_path / "c.safetensors", "--plot", tmp_path / "p.png")
    assert outcome.code == 3
    assert (
        outcome.err == "normcheck: nothing was followed: no floating-point weight of two dimensions or more was found\n"
    )
    assert not (tmp_path / "p.png").exists()


def test_a_file_that_cannot_be_read_is_2_and_the_others_are_reported(normcheck, runs, tmp_path):
    good = runs / "sgd" / "whole" / "epoch-1.pt"
    outcome = normcheck("track", good, tmp_path / "missing.pt", "--fail-on", "note")
    assert outcome.code == 2
    assert (
        outcome.err
        == f"normcheck: error: {tmp_path / 'missing.pt'}: there is no such file or directory; check the path\n"
    )
    assert "7.weight" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lr", "fast"], "--lr fast: neither a number, nor numbers by commas, nor a file of numbers"),
        (["--lr", "0.1,0.2"], "2 learning rates for 1 checkpoints"),
        (["--optimizer", "lion"], "unknown optimizer 'lion'"),
        (["--layer", "no*"], "--layer no*: matches none of 4 weights"),
        (["--model", "a:b"], "--model and --input go together"),
        (["--input", "x.pt"], "--model and --input go together"),
        (["--plot", "p.jpg"], "pictures end in .png, .svg, .pdf"),
        (["--plot", "no/p.png"], "cannot write no/p.png: there is no directory"),
        (["--format", "json", "--json", "-"], "all write to standard output"),
        (["--precision", "fp17"], "unknown format 'fp17'"),
        (["--steps-between", "0"], "--steps-between 0: give 1 or more"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_2(normcheck, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    outcome = normcheck("track", CNN, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_checkpoint_is_needed(normcheck):
    assert normcheck("track").code == 2


# --------------------------------------------------------------------------------------------- learning rates


@pytest.mark.parametrize(
    ("content", "wanted"),
    [("0.1\n0.01\n1e-3\n", (0.1, 0.01, 0.001)), ("[0.1, 0.2]", (0.1, 0.2)), ("1, 2,3 4", (1, 2, 3, 4))],
)
def test_learning_rates_can_be_in_a_file(tmp_path, content, wanted):
    (tmp_path / "lr").write_text(content)
    assert _rates(str(tmp_path / "lr")) == wanted


@pytest.mark.parametrize("content", ["", "0.1 fast", "[1, null]", '["a"', "[[1]]"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "lr").write_text(content)
    with pytest.raises(UsageError, match=r"write one (number )?for each checkpoint"):
        _rates(str(tmp_path / "lr"))


@pytest.mark.parametrize(("text", "wanted"), [(None, None), ("0.1", (0.1,)), ("0.1,1e-3", (0.1, 0.001))])
def test_learning_rates_can_be_on_the_command_line(text, wanted):
    assert _rates(text) == wanted


# ------------------------------------------------------------------------------------------- running the model


MODEL = """
from tracked_runs import net
"""


def test_a_model_is_run_to_see_what_is_invariant(normcheck, runs, tmp_path, monkeypatch):
    (tmp_path / "tracked_factory.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    torch.save((digits()[0][:16] / 16).float(), "x.pt")
    outcome = normcheck(
        *("track", runs / "sgd" / "whole", "--model", "tracked_factory:net", "--input", "x.pt", "--format", "json")
    )
    assert outcome.code == 0
    found = layers(outcome)
    assert {name: layer["scope"] for name, layer in found.items()} == {
        "1.weight": "channel",
        "4.weight": "channel",
        "7.weight": "none",
    }
    assert {layer["how"] for layer in found.values()} == {"its weights were scaled and the model run, in training mode"}


# ----------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_picture_is_written_and_replaces_only_its_own(normcheck, runs, tmp_path, kind):
    to, folder = tmp_path / f"p.{kind}", runs / "sgd" / "whole"
    assert normcheck("track", folder, "--plot", to).code == 0
    first = to.read_bytes()
    assert len(first) > 5000
    assert normcheck("track", folder, "--plot", to).code == 0
    assert to.read_bytes() == first
    to.write_bytes(b"somebody's own")
    outcome = normcheck("track", folder, "--plot", to)
    assert outcome.code == 2
    assert "normcheck did not draw it" in outcome.err
    assert to.read_bytes() == b"somebody's own"


def test_what_a_run_reads_is_never_replaced(normcheck, runs, tmp_path):
    checkpoint = runs / "sgd" / "whole" / "epoch-0.pt"
    whole = checkpoint.read_bytes()
    rates = tmp_path / "r.json"
    rates.write_text("[0.1]")
    for arguments in (("--json", checkpoint), ("--markdown", checkpoint), ("--lr", rates, "--json", rates)):
        outcome = normcheck("track", checkpoint, *arguments)
        assert outcome.code == 2
        assert "this run reads that file" in outcome.err
    link = tmp_path / "p.png"
    link.symlink_to(checkpoint)
    assert normcheck("track", checkpoint, "--plot", link).code == 2
    assert checkpoint.read_bytes() == whole
    assert rates.read_text() == "[0.1]"


def test_matplotlib_is_loaded_for_pictures_alone(runs):
    code = (
        "import sys; from normcheck.cli.main import run; "
        f"run(['track', {str(runs / 'sgd' / 'whole')!r}]); "
        "sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


# ------------------------------------------------------------------------------------------------------ the page


def test_the_example_of_the_page_runs_and_looks_as_it_says(normcheck, tmp_path, monkeypatch):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (shown,) = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    exec(compile(block, "docs/track.md", "exec"), {})  # noqa: S102 - our own page
    torch.set_num_threads(threads)
    monkeypatch.setenv("COLUMNS", "80")
    outcome = normcheck("track", "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert shown.startswith("$ normcheck track run\n")
    assert shown.endswith("$ echo $?\n0\n")
    assert shown.splitlines()[1:5] == outcome.out.splitlines()[:4]  # the rest is figures, which machines differ in
    for word in ("6.weight", "each channel", "eff. step", "lost", "turned"):
        assert word in shown
        assert word in outcome.out


def test_the_page_has_every_finding_and_every_optimizer_with_its_power():
    findings = PAGE.partition("## Findings")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([a-z-]+)`(?=[^|]*\|)", findings)) >= set(_FIXES)
    assert "changed more than tenfold" in findings
    assert (GROWN, SHARE, COLLAPSED) == (10, 0.1, 0.01)
    assert "more than 10 % of the updates" in findings
    assert "below 1 % of its first" in findings
    (row,) = re.findall(r"^\| effective step .*$", PAGE, re.MULTILINE)
    for name, degree in DEGREES.items():
        part = row.partition(";")[0 if degree else 2].lower()
        assert re.search(rf"\b{name}\b", part)


def test_the_model_of_the_tests_is_that_of_the_runs(runs):
    weights = torch.load(runs / "sgd" / "weights" / "epoch-0.pt", weights_only=True)
    assert {name: tensor.shape for name, tensor in net().state_dict().items()} == {
        n: t.shape for n, t in weights.items()
    }
