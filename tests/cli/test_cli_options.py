from __future__ import annotations

import inspect
import re
from typing import get_args

import pytest

from normcheck.arithmetic.rounding import Mode
from normcheck.cli.options import dimensions, names
from normcheck.cli.simulate import simulate
from normcheck.errors import UsageError
from normcheck.norms.parameters import PARAMS

DEFAULTS = {
    "distribution": "gaussian",
    "mean": 0.0,
    "std": 1.0,
    "seed": 0,
    "precisions": ("fp16",),
    "norms": ("batch-l2",),
    "implementations": (),
    "shape": (32, 64, 28, 28),
    "num_groups": None,
    "mode": "train",
    "eps": 1e-5,
    "eps_comparable": False,
    "constant": "exact",
    "k": 10,
    "rounding": "nearest-even",
    "order": None,
    "simd": None,
    "ftz": False,
    "daz": False,
    "params": "half",
    "backward": False,
    "loss_scale": 1.0,
    "grad_dist": "gaussian",
    "grad_std": 1.0,
    "select": (),
    "ignore": (),
    "severity": (),
    "thresholds": (),
    "jobs": None,
    "progress": None,
    "watch": None,
}


def uncolored(text):
    """Return help without colour: Typer adds some where it believes that it runs in a CI that shows it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["fp16,bf16"], ("fp16", "bf16")),
        (["fp16", "bf16"], ("fp16", "bf16")),
        (["fp16, bf16", "fp32"], ("fp16", "bf16", "fp32")),
        (["fp16,fp16"], ("fp16",)),
        (["lanes(8, serial)"], ("lanes(8, serial)",)),
        (["lanes(8, serial),tree,a(b,c,d)"], ("lanes(8, serial)", "tree", "a(b,c,d)")),
    ],
)
def test_names_repeat_or_take_commas(values, expected):
    assert names(values) == expected


@pytest.mark.parametrize("value", ["", ",", "fp16,,bf16", "fp16,"])
def test_empty_names_are_refused(value):
    with pytest.raises(UsageError, match="empty name"):
        names([value])


def test_without_names_the_default_holds():
    assert names(None, "fp16") == names([], "fp16") == ("fp16",)
    assert names(None) == ()


@pytest.mark.parametrize("value", ["", "a", "1,", "1,,2", "1.5", "8x8"])
def test_shapes_are_whole_numbers(value):
    with pytest.raises(UsageError, match="as in 32,64,28,28"):
        dimensions(value)


def test_defaults_reach_the_engine(engine, normcheck):
    normcheck("simulate")
    assert engine.calls == [DEFAULTS]


def test_defaults_are_the_engines_own():
    from normcheck.analysis.simulate import simulate as real

    parameters = inspect.signature(real).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == DEFAULTS


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["--dist", "student-t(df=4)"], {"distribution": "student-t(df=4)"}),
        (["--precision", "fp16,bf16", "--precision", "fp32"], {"precisions": ("fp16", "bf16", "fp32")}),
        (["--norm", "rms,layer-l1"], {"norms": ("rms", "layer-l1")}),
        (["--implementation", "pure,wide"], {"implementations": ("pure", "wide")}),
        (["--shape", "8,16"], {"shape": (8, 16)}),
        (["--shape", "0,-3"], {"shape": (0, -3)}),
        (["--num-groups", "4"], {"num_groups": 4}),
        (["--mode", "eval"], {"mode": "eval"}),
        (["--eps", "1e-8"], {"eps": 1e-8}),
        (["--eps-comparable"], {"eps_comparable": True}),
        (["--constant", "paper"], {"constant": "paper"}),
        (["--k", "3"], {"k": 3}),
        (["--mean", "-2"], {"mean": -2.0}),
        (["--std", "100"], {"std": 100.0}),
        (["--seed", "7"], {"seed": 7}),
        (["--rounding", "stochastic"], {"rounding": "stochastic"}),
        (["--order", "lanes(8, serial)"], {"order": "lanes(8, serial)"}),
        (["--simd", "8"], {"simd": 8}),
        (["--ftz"], {"ftz": True}),
        (["--daz"], {"daz": True}),
        (["--params", "autocast"], {"params": "autocast"}),
        (["--backward"], {"backward": True}),
        (["--backward", "--loss-scale", "1024"], {"backward": True, "loss_scale": 1024.0}),
        (["--grad-dist", "laplace", "--grad-std", "1e-6"], {"grad_dist": "laplace", "grad_std": 1e-6}),
        (["--select", "NC1,NC301:encoder.*"], {"select": ("NC1", "NC301:encoder.*")}),
        (["--ignore", "NC103", "--ignore", "NC2"], {"ignore": ("NC103", "NC2")}),
        (["--severity", "NC102=warning,NC1:*.a=b=note"], {"severity": (("NC102", "warning"), ("NC1:*.a=b", "note"))}),
        (
            ["--threshold", "headroom_bits=2", "--threshold", "enc.*:deviation=1e-3"],
            {"thresholds": (("headroom_bits", 2.0), ("enc.*:deviation", 1e-3))},
        ),
        (["--jobs", "2"], {"jobs": 2}),
    ],
)
def test_options_reach_the_engine(engine, normcheck, arguments, changed):
    outcome = normcheck("simulate", *arguments, "--fail-on", "never")
    assert outcome.code == 0
    assert engine.calls == [{**DEFAULTS, **changed}]


def test_every_option_is_in_the_help(normcheck, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = uncolored(normcheck("simulate", "--help").out)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    renamed = {"form": "format", "json_path": "json"}
    for name in inspect.signature(simulate).parameters:
        assert f"--{renamed.get(name, name).replace('_', '-')} " in text


def test_the_help_names_what_has_no_list_of_its_own(normcheck):
    words = set(re.findall(r"[a-z0-9-]+", uncolored(normcheck("simulate", "--help").out)))
    assert {*get_args(Mode), *PARAMS} <= words


@pytest.mark.parametrize(
    "command",
    ["analyze", "simulate", "formats", "norms", "implementations", "orders", "distributions", "rules", "schema"],
)
def test_every_command_has_help_that_fits(normcheck, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    assert command in normcheck("--help").out
    outcome = normcheck(command, "--help")
    assert outcome.code == 0
    assert max(map(len, uncolored(outcome.out).splitlines())) <= 80


def test_the_version_is_the_packages(normcheck):
    import normcheck as package

    assert normcheck("--version") == (0, f"normcheck {package.__version__}\n", "")
