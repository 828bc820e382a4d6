"""Reproducers of findings about gradients: scripts that run both passes without normcheck, bit by bit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from normcheck import analyze, simulate
from normcheck.analysis import assemble as assembling
from normcheck.analysis.reproducer import wanted

sys.path.append(str(Path(__file__).resolve().parent))
import test_reproducer as home  # how a reproducer is taken home and run

CASES = {
    "overflow": home.case(
        "NC501", "nonfinite", norms=["layer-l2"], implementations=["wide"], shape=(9, 77), loss_scale=2.0**17
    ),
    "overflow, l1": home.case("NC501", "nonfinite", norms=["batch-l1"], implementations=["pure"], loss_scale=2.0**15),
    "overflow of gamma's": home.case(
        "NC501", "finite", implementations=["wide"], shape=(64, 4, 9), loss_scale=2.0**12, grad_dist="uniform", mean=1.0
    ),
    "vanished": home.case("NC502", "vanished", norms=["layer-l2"], implementations=["pure"], shape=(8, 512), std=60.0),
    "flushed": home.case("NC502", "finite", norms=["rms"], implementations=["wide"], shape=(9, 77), grad_std=1e-7),
    "flushed, topk": home.case(
        "NC502", "finite", norms=["layer-topk"], implementations=["pure-scaled"], shape=(9, 77), grad_std=1e-7
    ),
    "room": home.case("NC503", "finite", implementations=["pure"], loss_scale=2.0**9.5),
    "deviation": home.case(
        "NC504", "finite", implementations=["pure"], mean=60.0, norms=["instance-linf"], shape=(3, 4, 129)
    ),
    "deviation, bf16": home.case(
        "NC504",
        "finite",
        precisions=["bf16"],
        implementations=["pure-sequential"],
        mean=9.0,
        norms=["layer-range"],
        shape=(9, 300),
    ),
    "frozen": home.case(
        "NC501", "nonfinite", implementations=["wide"], mode="eval", std=1e-4, loss_scale=64.0, eps=1e-12
    ),
    "weight": home.case(
        "NC501", "nonfinite", norms=["weight-l1"], implementations=["wide"], shape=(6, 40), loss_scale=2.0**24
    ),
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """All cases, taken home and run."""
    folder, taken, paths = tmp_path_factory.mktemp("gradients"), {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembling, "safe_scale", lambda *_args, **_settings: None)
        patch.setattr("normcheck.analysis.backward.safe_loss_scale", lambda *_args, **_settings: (1.0, 2.0))
        for place, (name, one) in enumerate(CASES.items()):
            taken[name] = home.take(one.spec, simulate, backward=True, **one.settings)
            assert not isinstance(taken[name], str), f"{name}: {taken[name]}"
            paths[name] = home.written(folder, f"case{place}", *taken[name])
    outcomes = home.run_scripts(paths.values())
    return {
        name: home.Shown(*taken[name], *outcomes[str(path)], dict(np.load(f"{path}.values.npz")))
        for name, path in paths.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_the_failure_of_the_gradient_shows(shown, name):
    made, _, code, text, _ = shown[name]
    assert code == 1, text
    assert made.title.startswith(f"{CASES[name].spec} ")
    assert "the failure shows: " in text
    assert made.states[0] == CASES[name].state
    assert "loss scale: " in text


@pytest.mark.parametrize("name", CASES)
def test_every_step_of_both_passes_is_computed_again_bit_by_bit(shown, name):
    made, arrays, _, text, values = shown[name]
    steps = [operation.name for operation in made.program.operations]
    assert any(step.endswith("grad_load") for step in steps)
    assert made.program.gradient in steps
    for step in steps:
        assert home.same_bits(np.broadcast_to(values[step], arrays[step].shape), arrays[step]), step
    assert text.count("  all\n") == len(steps)
    assert home.same_bits(arrays["emulated"], values[made.program.gradient])
    assert [operation.step for operation in made.program.operations if operation.replayed] == []


@pytest.mark.parametrize("name", CASES)
def test_what_the_backward_pass_has_from_the_forward_pass_is_computed_and_not_recorded(shown, name):
    """Of the operands of the backward pass only the signs and places of largest elements are given."""
    made, arrays, *_ = shown[name]
    given = [array for array in arrays if array.startswith("given_")]
    assert all(set(np.unique(arrays[array])) <= {-1.0, 0.0, 1.0} for array in given)
    assert bool(given) == (made.program.formula.statistic != "l2" and not made.program.formula.fixed)


@pytest.mark.parametrize("name", CASES)
def test_the_scripts_own_differentiation_is_the_engines_reference(shown, name, tmp_path):
    import runpy

    import torch

    made, arrays, *_ = shown[name]
    space = runpy.run_path(str(home.written(tmp_path, "again", made, arrays)))
    load = torch.from_numpy(arrays[made.program.load].astype(np.float64))
    np.testing.assert_allclose(space["exact_gradient"](load).numpy(), arrays["exact"], rtol=1e-9, atol=1e-12)


def test_sums_over_rows_show_in_no_few_rows():
    why = home.take(
        "NC501", simulate, norms=["layer-l2"], implementations=["wide"], precisions=["fp16"], shape=(2048, 8),
        backward=True, loss_scale=2.0**11, jobs=1,
    )  # fmt: skip
    assert why == home.NO_ROWS


def test_of_a_model_the_gradient_is_said_to_be_assumed(tmp_path):
    model = home.torch.nn.Sequential(home.torch.nn.LayerNorm(64))
    asked = wanted("NC501:0")
    settings = {"precisions": ["fp16"], "implementations": ["wide"], "jobs": 1, "watch": asked.take}
    analyze(model, inputs=home.torch.randn(16, 64), backward=True, loss_scale=2.0**17, **settings)
    made, arrays = home.reproducer_of(asked.best)
    assert dict(made.facts)["gradient"] == "gaussian(mean=0, std=1) (assumed)"
    assert dict(made.facts)["loss scale"] == "131072"
    ((code, text),) = home.run_scripts([home.written(tmp_path, "model", made, arrays)]).values()
    assert code == 1, text
