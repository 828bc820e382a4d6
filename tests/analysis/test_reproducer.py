"""Reproducers: what is chosen, and that the scripts, run by a Python without normcheck, show the failure bit by bit."""

from __future__ import annotations

import hashlib
import io
import json
import runpy
import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from normcheck import UsageError, analyze, emulate, simulate
from normcheck.analysis import worst_rows
from normcheck.analysis.reproducer import reproducer_of, wanted
from normcheck.arithmetic.elementwise import elementwise
from normcheck.arithmetic.events import no_events
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import NEAREST
from normcheck.render.reproducer import python, script

SMALL = (5, 8, 7, 9)
"""No power of two but the channels: lanes, trees and blocks all have rests."""

DRIVER = """
import contextlib, io, json, runpy, sys
import numpy as np
import torch
sys.modules["normcheck"] = None  # importing it is an error
torch.set_num_threads(1)
out = {}
for path in sys.argv[1:]:
    text = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(text):
        space = runpy.run_path(path)
        code = 1 if space["main"]() else 0
        text.flush()
    values = {name: value.numpy() for name, value in space["steps"]().items()}
    load = torch.from_numpy(values["step_01_load"])
    y, statistic, s = space["exact"](load)
    own = {"own": space["own_kernel"]({"step_01_load": load})} if "own_kernel" in space else {}
    np.savez(path + ".values.npz", exact_y=y, exact_s=s.expand(len(y), 1), **own, **values)
    out[path] = [code, text.buffer.getvalue().decode("ascii")]
json.dump(out, sys.__stdout__)
"""


class Case(NamedTuple):
    """What to simulate, what to take home of it, and what the script has to say of the first row."""

    settings: dict
    spec: str
    state: str


def case(spec, state, **settings):
    return Case({"shape": SMALL, "precisions": ["fp16"], "jobs": 1} | settings, spec, state)


CASES = {
    "collapse, wide-sum": case("NC102", "collapsed", implementations=["wide-sum"], std=100.0),
    "collapse, pure": case("NC102", "collapsed", implementations=["pure"], std=100.0),
    "collapse, pure-scaled": case("NC102", "collapsed", implementations=["pure-scaled"], std=100.0),
    "collapse, pure-sequential": case("NC102", "collapsed", implementations=["pure-sequential"], std=100.0),
    "infinite input, wide": case("NC105", "nonfinite", implementations=["wide"], std=1e5),
    "layer": case("NC102", "collapsed", norms=["layer-l2"], implementations=["pure"], std=300.0, shape=(40, 100)),
    "rms": case("NC102", "collapsed", norms=["rms"], implementations=["pure-scaled"], std=300.0, shape=(40, 777)),
    "instance": case("NC102", "collapsed", norms=["instance-l2"], implementations=["wide-sum"], std=300.0),
    "group": case("NC102", "collapsed", norms=["group-l2"], implementations=["pure"], std=300.0, num_groups=4),
    "l1, NaN": case("NC101", "nonfinite", norms=["batch-l1"], implementations=["pure"], std=2e4),
    "linf": case("NC101", "nonfinite", norms=["batch-linf"], implementations=["pure"], std=1e4),
    "topk": case("batch-topk", "nonfinite", norms=["batch-topk"], implementations=["pure"], std=1e4),
    "range": case("batch-range", "collapsed", norms=["batch-range"], implementations=["wide-sum"], std=1.3e4),
    "weight": case("NC102", "collapsed", norms=["weight-l2"], implementations=["pure"], std=300.0, shape=(32, 77)),
    "deviation": case("NC301", "finite", implementations=["pure"], mean=30.0),
    "deviation, bf16": case("NC301", "finite", precisions=["bf16"], implementations=["wide-sum"], mean=30.0),
    "bf16, pure": case("NC301", "finite", precisions=["bf16"], norms=["layer-l2"], implementations=["pure"], mean=30.0),
    "lost mass": case(
        "NC302", "finite", norms=["layer-l1"], implementations=["pure-sequential"], mean=3.0, shape=(9, 5000)
    ),
    "headroom": case("NC103", "finite", implementations=["pure-scaled"], std=40.0),
    "underflow": case("NC203", "flushed", implementations=["pure"], std=1e-5, eps=1e-6, ignore=["NC201"]),
    "amplified": case(
        "NC203", "amplified", norms=["rms"], implementations=["pure-sequential"], mean=1.0, std=0.0, shape=(3, 12000)
    ),
    "eval, variance beyond": case("NC102", "collapsed", implementations=["wide"], std=1e3, mode="eval"),
    "autocast, eval": case("NC105", "nonfinite", implementations=["wide"], std=3e4, mode="eval", params="autocast"),
    "serial lanes": case("NC102", "collapsed", implementations=["pure"], std=100.0, order="lanes(8, serial)"),
    "pairwise": case("NC102", "collapsed", implementations=["wide-sum"], std=100.0, order="pairwise"),
    "tree": case("NC102", "collapsed", implementations=["pure"], std=100.0, order="tree"),
    "one pass": case("NC303", "nonfinite", implementations=["wide-one-pass"], precisions=["fp32"], mean=5e4),
    "one pass, finite": case("NC303", "finite", implementations=["wide-one-pass"], precisions=["fp32"], mean=1e3),
    "saved": case("NC205", "finite", implementations=["wide-saved-io"], std=1e-7, eps=1e-14),
    "fp32": case("NC102", "collapsed", precisions=["fp32"], implementations=["pure"], std=1e20),
}
REPLAYED = {
    "stochastic": case("NC102", "collapsed", implementations=["pure"], std=100.0, rounding="stochastic"),
    "flushed": case("NC102", "collapsed", implementations=["pure"], std=100.0, ftz=True),
    "kahan": case("batch-l2", "nonfinite", implementations=["pure"], std=100.0, order="kahan"),
    "float8": case("NC105", "nonfinite", precisions=["e4m3fn"], implementations=["wide"], std=300.0),
    "fused, layer": case(
        "NC105", "nonfinite", implementations=["torch-cpu-layernorm-fp16"], norms=["layer-l2"], std=1e5, shape=(9, 150)
    ),
    "fused, group": case(
        "NC303",
        "amplified",
        implementations=["torch-cpu-groupnorm-channels-last-fp32"],
        norms=["group-l2"],
        num_groups=4,
        precisions=["fp32"],
        mean=2e3,
    ),
    "partial sums": case(
        "NC102",
        "collapsed",
        implementations=["torch-cpu-batchnorm-fp32-channels-last"],
        precisions=["fp32"],
        std=1e20,
    ),
    "e5m10": case("NC102", "collapsed", precisions=["e6m5"], implementations=["pure"], std=1e6),
}


NO_ROWS = "nothing was found there that rows show"


def take(spec, run, *arguments, **settings):
    """Return what `--reproducer` takes home of a run: the facts and arrays, or why there is nothing to show."""
    asked = wanted(spec)
    report = run(*arguments, **settings, watch=asked.take)
    return asked.why_none(report) if asked.best is None else reproducer_of(asked.best)


def written(folder, name, made, arrays):
    """Write a reproducer as the command line does and return the script's path."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    (folder / f"{name}.npz").write_bytes(buffer.getvalue())
    path = folder / f"{name}.py"
    path.write_text(script(made, data=f"{name}.npz", digest=hashlib.sha256(buffer.getvalue()).hexdigest()))
    return path


def run_scripts(paths):
    """Run scripts in one Python without normcheck; (exit code, output) of each."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", DRIVER, *map(str, paths)], capture_output=True, check=False, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Shown(NamedTuple):
    """A reproducer, the exit code and output of its script, and the values that the script computed."""

    made: object
    arrays: dict
    code: int
    text: str
    values: dict


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """All cases, taken home and run."""
    folder, taken, paths = tmp_path_factory.mktemp("home"), {}, {}
    for place, (name, one) in enumerate((CASES | REPLAYED).items()):
        taken[name] = take(one.spec, simulate, **one.settings)
        assert taken[name] is not None, name
        paths[name] = written(folder, f"case{place}", *taken[name])
    outcomes = run_scripts(paths.values())
    return {
        name: Shown(*taken[name], *outcomes[str(path)], dict(np.load(f"{path}.values.npz")))
        for name, path in paths.items()
    }


def same_bits(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return bool(np.all(((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))))


# ------------------------------------------------------------------------------------------------- the scripts


@pytest.mark.parametrize("name", [*CASES, *REPLAYED])
def test_the_failure_shows(shown, name):
    one = shown[name]
    assert one.code == 1, one.text
    assert "the failure shows: " in one.text
    assert one.made.states[0] == (CASES | REPLAYED)[name].state
    rows = [line.split() for line in one.text.splitlines() if line.endswith(tuple("0123456789naif"))]
    here = [cells for cells in rows if len(cells) > 3 and cells[0] == str(one.made.rows[0]) and cells[1] == cells[2]]
    assert here, one.text


@pytest.mark.parametrize("name", CASES)
def test_every_step_is_computed_again_bit_by_bit(shown, name):
    one = shown[name]
    operations = one.made.program.operations
    assert not [operation.replayed for operation in operations if operation.replayed]
    assert len(operations) > 5
    for operation in operations:
        recorded = one.arrays[operation.name]
        assert same_bits(np.broadcast_to(one.values[operation.name], recorded.shape), recorded), operation.name
    assert one.text.count(" all\n") == len(operations)


@pytest.mark.parametrize("name", REPLAYED)
def test_what_torch_cannot_compute_is_said_to_be_replayed(shown, name):
    one = shown[name]
    replayed = [operation for operation in one.made.program.operations if operation.replayed]
    assert replayed
    for operation in replayed:
        assert f"taken from the recording, as {operation.replayed}: " in one.text
        assert f"{operation.name}" in one.text
    computed = [operation for operation in one.made.program.operations if not operation.replayed]
    for operation in computed:
        recorded = one.arrays[operation.name]
        assert same_bits(np.broadcast_to(one.values[operation.name], recorded.shape), recorded), operation.name


@pytest.mark.parametrize("name", CASES)
def test_the_scripts_reference_is_the_engines(shown, name):
    one = shown[name]
    finite = np.isfinite(one.arrays["exact"]).all(axis=1)
    np.testing.assert_allclose(one.values["exact_y"][finite], one.arrays["exact"][finite], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.values["exact_s"][finite], one.arrays["s_exact"][finite], rtol=1e-12)


@pytest.mark.parametrize("name", ["layer", "rms", "instance", "group", "collapse, pure", "eval, variance beyond"])
def test_torchs_own_kernel_is_run_on_the_same_rows(shown, name):
    one = shown[name]
    error = np.abs(one.values["own"] - one.arrays["exact"]).max()
    assert "torch's own kernel here (torch.nn.functional." in one.text
    if name == "eval, variance beyond":
        assert np.all(one.values["own"] == 0)  # an infinite variance: torch's kernel collapses too
    else:
        assert error < 5e-3


def test_only_norms_that_torch_has_are_run_by_torch(shown):
    assert "own" not in shown["linf"].values
    assert "torch's own kernel" not in shown["linf"].text


# ---------------------------------------------------------------------------------------------------- the data


@pytest.mark.parametrize("name", ["collapse, pure", "pure-scaled", "bf16, pure", "topk", "l1, NaN"])
def test_the_recording_is_what_emulate_gives(shown, name):
    one = shown[{"pure-scaled": "collapse, pure-scaled"}.get(name, name)]
    facts = dict(one.made.facts)
    norm = facts["norm"]
    x = one.arrays["x"] if norm.startswith("layer") else one.arrays["x"].T
    again = emulate(x, norm, precision=facts["precision"], implementation=facts["implementation"], eps=1e-5)
    y = again.output if norm.startswith("layer") else again.output.T
    assert same_bits(y, one.arrays["emulated"])
    assert same_bits(one.arrays[one.made.program.output], one.arrays["emulated"])


def test_a_torch_operator_on_its_own_dtype_gives_the_recorded_steps(shown):
    arrays = shown["collapse, pure"].arrays
    half = {name: torch.from_numpy(np.asarray(array, np.float16)) for name, array in arrays.items() if "step" in name}
    named = {name.split("_", 2)[2]: value for name, value in half.items()}
    assert torch.equal(named["load"] - named["mean"], named["center"])
    assert torch.equal(named["center"] * named["center"], named["square"])


def test_the_worst_rows_come_first_and_are_the_reports(shown):
    one, report = shown["collapse, wide-sum"], simulate(**CASES["collapse, wide-sum"].settings)
    worst = {row.index: row for row in report.results[0].worst_rows}
    assert set(one.made.rows) <= set(range(8))
    for place, row in enumerate(one.made.rows):
        assert float(one.arrays["s_emulated"][place, 0]) == worst[row].s_emulated
        assert float(one.arrays["s_exact"][place, 0]) == pytest.approx(worst[row].s, rel=1e-12)
    deviation = shown["deviation"]
    errors = np.linalg.norm(deviation.arrays["emulated"] - deviation.arrays["exact"], axis=1) / np.linalg.norm(
        deviation.arrays["exact"], axis=1
    )
    assert list(errors) == sorted(errors, reverse=True)


def test_the_recording_holds_settings_and_inputs_as_given(shown):
    arrays = shown["eval, variance beyond"].arrays
    assert json.loads(str(arrays["normcheck"]))["norm"] == "batch-l2"
    assert arrays["x"].dtype == np.float32
    assert np.all(arrays["running_statistic"] == 1e6)
    assert np.all(np.isinf(arrays["stored_running_statistic"]))
    assert arrays["step_01_load"].dtype == np.float16


def test_long_rows_are_recorded_in_part_and_computed_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(worst_rows, "MOST_ELEMENTS", 100)
    monkeypatch.setattr("normcheck.analysis.programs.MOST_ELEMENTS", 100)
    settings = CASES["collapse, pure-scaled"].settings
    made, arrays = take("NC102", simulate, **settings)
    assert len(made.rows) == 1
    assert arrays["x"].shape == (1, 315)
    assert arrays["step_01_load"].shape == (1, 100)
    path = written(tmp_path, "long", made, arrays)
    code, text = run_scripts([path])[str(path)]
    assert code == 1
    assert "of each row of 315 elements the first 100 are compared with the recording" in text
    assert text.count(" all\n") == len(made.program.operations)
    with pytest.raises(UsageError, match=r"too long to take home where torch cannot compute a step"):
        take("NC102", simulate, **settings, rounding="stochastic")


def test_rows_beyond_all_measure_are_refused(monkeypatch):
    monkeypatch.setattr(worst_rows, "MOST_INPUT", 100)
    with pytest.raises(UsageError, match="a row of 315 elements is too long to take home"):
        take("NC102", simulate, **CASES["collapse, pure"].settings)


def test_rows_of_several_blocks_are_joined_in_order(monkeypatch, tmp_path):
    one = case("NC301", "finite", norms=["layer-l2"], implementations=["pure"], mean=30.0, shape=(40, 100))
    whole_made, whole = take(one.spec, simulate, **one.settings)
    monkeypatch.setattr("normcheck.analysis.study.BLOCK", 700)
    made, arrays = take(one.spec, simulate, **one.settings)
    assert made.rows == whole_made.rows
    assert len({row // 7 for row in made.rows}) > 1
    assert arrays.keys() == whole.keys()
    for name, array in whole.items():
        assert np.array_equal(array, arrays[name], equal_nan=array.dtype.kind == "f"), name
    path = written(tmp_path, "blocks", made, arrays)
    assert run_scripts([path])[str(path)][0] == 1


# -------------------------------------------------------------------------------------------------- the choice


def norms():
    """A live model: one layer norm that is fed too much, and a batch norm whose running variance is beyond float16."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(16, 64), torch.nn.LayerNorm(64), torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8)
    ).eval()
    with torch.no_grad():
        model[1].weight.uniform_(0.5, 2.0)
        model[1].bias.normal_()
        model[3].running_var.fill_(2e6)
        model[3].bias.normal_()
    return model


@pytest.fixture(scope="module")
def live():
    torch.manual_seed(1)
    return norms(), torch.randn(40, 16) * 4000


def test_a_live_modules_own_inputs_are_taken_home(live, tmp_path):
    model, x = live
    made, arrays = take("1", analyze, model, inputs=x, precisions=["fp16"], implementations=["pure"], jobs=2)
    seen = model[0](x).detach().numpy()
    assert np.array_equal(arrays["x"], seen[list(made.rows)])
    assert dict(made.facts)["input"] == "recorded (inputs)"
    path = written(tmp_path, "live", made, arrays)
    assert run_scripts([path])[str(path)][0] == 1


def test_running_statistics_beyond_the_format_are_taken_home(live, tmp_path):
    model, _ = live
    made, arrays = take("NC102:3", analyze, model, precisions=["fp16"])
    assert (dict(made.facts)["mode"], made.states) == ("eval", ("collapsed",) * 8)
    assert np.array_equal(arrays["running_statistic"][:, 0], np.full(8, 2e6))
    path = written(tmp_path, "running", made, arrays)
    code, text = run_scripts([path])[str(path)]
    assert code == 1
    assert "first step with an infinity: step_03_eps" in text


def test_the_update_of_running_statistics_is_taken_home_too(live, tmp_path):
    model, _ = live
    made, arrays = take("3", analyze, model, precisions=["fp16"], mode="train", implementations=["pure"])
    steps = [operation.step for operation in made.program.operations]
    assert "running-update" in steps
    path = written(tmp_path, "train", made, arrays)
    code, text = run_scripts([path])[str(path)]
    assert (code, text.count(" all\n")) == (1, len(steps))


def test_asked_results_go_before_the_view_nobody_asked_for(live):
    model, _ = live
    made, _ = take("NC102", analyze, model, precisions=["fp16"])
    assert dict(made.facts)["implementation"] == "wide"
    assert dict(made.facts)["layer"] == "3"


def test_the_choice_does_not_depend_on_threads(live):
    model, x = live
    chosen = {take("NC102", analyze, model, inputs=x, implementations=["pure"], jobs=jobs)[0] for jobs in (1, 4)}
    assert len(chosen) == 1


def test_globs_and_exact_names_choose_layers(live):
    model, _ = live
    assert dict(take("NC102:[3]", analyze, model)[0].facts)["layer"] == "3"
    assert wanted("nc102").code == "NC102"
    assert (wanted("layer4.1.bn2").code, wanted("a.pt:layer").pattern) == (None, "a.pt:layer")
    assert wanted("NC102:a.pt:x").pattern == "a.pt:x"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("NC999", "unknown rule 'NC999'"),
        ("NC102:", "names no layer"),
        (" ", "names nothing"),
        ("bn4", r"matches no layer; there are .*batch-l2"),
        ("NC102:batch-l1", "matches no layer; there are batch-l2"),
    ],
)
def test_what_matches_nothing_is_refused_with_what_there_is(spec, message):
    with pytest.raises(UsageError, match=message):
        take(spec, simulate, **CASES["collapse, pure"].settings)


@pytest.mark.parametrize("spec", ["NC202", "NC202:batch-*"])
def test_findings_without_rows_have_nothing_to_show(spec):
    assert take(spec, simulate, **CASES["collapse, pure"].settings) == NO_ROWS


def test_a_layer_without_findings_has_nothing_to_show(live):
    model, _ = live
    assert take("1", analyze, model, precisions=["fp32"]) == NO_ROWS


def test_findings_of_layers_have_nothing_to_show(tmp_path):
    torch.save(norms().state_dict(), tmp_path / "model.pt")
    assert take("NC401", analyze, str(tmp_path / "model.pt")) == NO_ROWS


def test_a_deselected_finding_is_not_taken_home():
    settings = CASES["collapse, pure"].settings
    assert take("NC102", simulate, **settings, ignore=["NC102"]).endswith("fired there, and NC102 did not")
    made, _ = take("batch-l2", simulate, **settings, ignore=["NC102"])
    assert not made.title.startswith("NC102")


# ------------------------------------------------------------------------------------------------ hostile names

HOSTILE = [
    "'; import os; os._exit(7) #",
    '"""\nimport os; os._exit(7)\n"""',
    "\\'+exit(7)+\\'",
    "a\nb\x1b[2J\u202e\U0001f600{{ 7 * 7 }}{% raw %}",
    "\ud800",
    "bn\\",
]


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_hostile_names_stay_texts(tmp_path, place):
    name = HOSTILE[place]
    made, arrays = take("NC102:3", analyze, norms(), precisions=["fp16"])
    facts = tuple((key, name if key == "layer" else value) for key, value in made.facts)
    path = written(tmp_path, "hostile", replace(made, facts=facts, title=name, row_noun=name), arrays)
    assert path.read_text().isascii()
    code, text = run_scripts([path])[str(path)]
    assert code == 1
    assert not set(text) & {"\x1b", "\u202e"}
    assert "{{ 7 * 7 }}" in text or "7 * 7" not in name


@pytest.mark.parametrize(
    "value", [*HOSTILE, "plain", 1.5, -0.0, float("inf"), float("-inf"), None, (1, "a"), ("b",), ()]
)
def test_literals_are_python(value):
    again = eval(python(value), {"__builtins__": {"float": float}})  # noqa: S307 - what a script's reader does
    assert type(again) is type(value)
    if not isinstance(value, str):
        assert repr(again) == repr(value)
    elif value.isprintable():
        assert again == value
    else:
        assert again.isprintable()


# ---------------------------------------------------------------------------------------------------- rounding


def test_the_scripts_rounding_is_right_where_torchs_own_cast_is_not(tmp_path):
    path = written(tmp_path, "round", *take("NC102", simulate, **CASES["collapse, pure"].settings))
    space = runpy.run_path(str(path))
    rng = np.random.default_rng(0)
    spread = rng.normal(size=20000) * 2.0 ** rng.integers(-160, 130, 20000)
    near = [1 + 2**-11 + 2**-40, 1 + 2**-11, 65519.999999, 65520.0, -65520.0, 2.0**-25, 2.0**-25 * (1 + 2**-30), 3e38]
    far = [np.inf, -np.inf, np.nan, 0.0, -0.0, 3.4028235677973366e38, 1e300, -1e-300, 2.0**-134, 2.0**-150]
    x = np.concatenate([spread, near, far])
    for name in ("float16", "bfloat16", "float32"):
        assert same_bits(space["rounded"](torch.from_numpy(x), getattr(torch, name)).numpy(), round_once(x, name))
    assert not same_bits(torch.from_numpy(x).to(torch.float16).double(), round_once(x, "float16"))


def round_once(x, name):
    return elementwise("copy", (x[None, :],), format_named(name), NEAREST, no_events(1), fast=False)[0]
