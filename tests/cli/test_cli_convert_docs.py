"""docs/convert.md: its code runs, and its commands print what it shows."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from convertible import on_one_thread

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|console)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SAMPLES, FACTORY, EXAMPLE = (text for kind, text in BLOCKS if kind == "python")
SESSION = "".join(text for kind, text in BLOCKS if kind == "console").replace("\\\n", "")
NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.-]*\w)")
TOLERANCE = 0.05
"""Of figures, relatively: another processor rounds other sums."""

needs_samples = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn, which carries the data, is not installed"
)


@pytest.fixture(autouse=True)
def _beside_the_data(tmp_path, monkeypatch):
    """In a folder with the data of the repository, from which its modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("data", "data.train", "cancer"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "data").symlink_to(ROOT / "data")
    with on_one_thread():
        yield
    for name in ("data", "data.train", "cancer"):
        sys.modules.pop(name, None)


def sessions():
    """The commands of the page, and what it shows of their output."""
    parts = re.split(r"^\$ normcheck ", SESSION, flags=re.MULTILINE)[1:]
    return [(shlex.split(part.partition("\n")[0]), part.partition("\n")[2]) for part in parts]


def is_shown(shown, out):
    """Whether a page shows the end of an output, figures within the tolerance."""
    wanted, found = shown.split(), out.split()[-len(shown.split()) :]
    if NUMBER.sub("#", " ".join(wanted)) != NUMBER.sub("#", " ".join(found)):
        return False
    pairs = zip(NUMBER.findall(" ".join(wanted)), NUMBER.findall(" ".join(found)), strict=True)
    return all(float(b) == pytest.approx(float(a), rel=TOLERANCE) for a, b in pairs)


def test_the_comparison_sees_other_words_and_other_figures():
    assert is_shown("b 0.5 c", "a\nb  0.501 c\n")
    assert not is_shown("b 0.5 c", "a b 0.6 c")
    assert not is_shown("b 0.5 c", "b 0.5 d")
    assert not is_shown("a 0.5", "x 0.5")


@needs_samples
def test_the_commands_print_what_the_page_shows(normcheck, tmp_path):
    exec(compile(SAMPLES, "docs/convert.md", "exec"), {})  # noqa: S102 - our own page
    (tmp_path / "cancer.py").write_text(FACTORY)
    codes = []
    for arguments, shown in sessions():
        done = normcheck(*arguments)
        assert is_shown(shown, done.out), done
        codes.append(done.code)
    assert codes == [0, 1, 0, 0]


def test_the_example_in_python_runs(capsys):
    torch.manual_seed(0)
    exec(compile(EXAMPLE, "docs/convert.md", "exec"), {})  # noqa: S102 - our own page
    assert "Accuracy(before=" in capsys.readouterr().out


@needs_samples
def test_in_float16_the_table_is_what_torch_gives(normcheck, tmp_path):
    """The whole model and its input in float16: classes right, and the relative change of the logits."""
    scope = {}
    exec(compile(SAMPLES + FACTORY, "docs/convert.md", "exec"), scope)  # noqa: S102 - our own page
    (tmp_path / "cancer.py").write_text(FACTORY)
    assert normcheck(*sessions()[0][0]).code == 0
    from safetensors.torch import load_file

    samples = scope["samples"]
    rows = {}
    for name, model, state in (
        ("as trained", scope["BreastCancerMLP"](), torch.load("data/breast-cancer-mlp.pt")),
        ("converted", scope["l1"](), load_file("mlp-l1.safetensors")),
    ):
        model.load_state_dict(state)
        with torch.no_grad():
            wide = model.eval()(samples.test)
            half = model.half()(samples.test.half()).float()
        right = [int((logits.argmax(1) == samples.test_classes).sum()) for logits in (wide, half)]
        rows[name] = [*right, float((half - wide).norm() / wide.norm())]
    for name, (in_float32, in_float16, change) in rows.items():
        told = re.search(rf"^\| {name} \| (\d+) of 114 \| (\d+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
        assert [int(told[1]), int(told[2])] == pytest.approx([in_float32, in_float16], abs=1)
        assert float(told[3]) == pytest.approx(change, rel=0.1)
    assert rows["converted"][2] < rows["as trained"][2] / 100
