"""Experiment (d): what is kept of runs, how claims stand by them, and the claims that hold for single seeds."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from normcheck.optim import channel_norms, displacement_error
from normcheck.paper import weight_decay
from normcheck.paper.runs import Runs
from normcheck.paper.weight_decay import QUICK, TURNED, TURNING, Size
from normcheck.paper.weight_decay_claims import (
    RECOVERED,
    claim_of_stability,
    claims_of_accuracy,
    claims_of_directions,
    claims_of_dropped_rate,
)
from normcheck.paper.weight_decay_task import (
    BLOWN_UP,
    EPOCHWISE,
    EPOCHWISE_HELD,
    FLOOR,
    FORMS,
    OFF,
    ON,
    ROUNDING,
    SCHEDULED,
    STEPS,
    STEPWISE,
    STEPWISE_HELD,
    UNDROPPED,
    Settings,
    Trace,
    scheduled,
    traces,
    trained,
)

SEED = QUICK.seeds[0]


@pytest.fixture(scope="module")
def turned():
    return traces((replace(TURNING, seed=SEED), TURNED))


# ------------------------------------------------------------------------------------------- runs and what is kept


def test_the_claims_of_directions_hold_with_a_single_seed(turned):
    claims = claims_of_directions({name: [trace] for name, trace in turned.items()}, TURNING)
    assert [claim.standing for claim in claims] == ["reproduced"] * 3
    assert turned[ON].error == 0
    assert 0 < turned[FLOOR].error < 1e-9


def test_a_correction_at_every_step_has_the_step_sizes_of_weight_decay(turned):
    sizes = {name: trace.step_sizes for name, trace in turned.items()}
    assert sizes[STEPWISE] == pytest.approx(sizes[ON], rel=1e-12)
    assert sizes[ON][-1] > 1.5 * sizes[OFF][-1]
    assert len(sizes[ON]) == len(turned[ON].norms) == len(turned[ON].accuracies) == TURNING.epochs


def test_without_weight_decay_step_sizes_fall_as_norms_grow(turned):
    norms, sizes = turned[OFF].norms, turned[OFF].step_sizes
    assert list(norms) == sorted(norms)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert turned[ON].norms[-1] < turned[ON].norms[0]


def test_once_an_epoch_the_step_size_falls_behind_within_an_epoch(turned):
    """The factor is right at the first step of an epoch alone."""
    assert all(ours < wanted for ours, wanted in zip(turned[EPOCHWISE].step_sizes, turned[ON].step_sizes, strict=True))
    assert turned[EPOCHWISE].step_sizes[-1] > turned[OFF].step_sizes[-1]


def test_norms_that_are_held_do_not_grow(turned):
    assert turned[STEPWISE_HELD].longer == pytest.approx(1, abs=1e-12)
    assert turned[STEPWISE].longer > 1
    assert turned[STEPWISE].growth > 1


def test_a_learning_rate_that_drops_moves_less_by_its_factor():
    """The second epoch begins from the same state with a rate of a tenth; momentum makes it more than a tenth."""
    once, constant, dropped = (trained(Settings(**kind)) for kind in ({"epochs": 1}, {"epochs": 2}, DROP))
    way = [displacement_error(list(once.start.values()), list(run.end.values()), list(once.end.values()))
           for run in (constant, dropped)]  # fmt: skip
    assert way[1] < 0.3 * way[0]


DROP = {"epochs": 2, "drop_every": 1}


def test_norms_that_are_scheduled_take_the_place_of_the_drop():
    settings = Settings(**DROP)
    recorded = trained(settings, decays=True).recorded
    run = scheduled(settings, recorded)
    for name, norms in run.recorded.norms.items():
        wanted = recorded.norms[name][STEPS] * math.sqrt(10)
        torch.testing.assert_close(norms[STEPS], wanted, rtol=1e-12, atol=0)
        assert not torch.allclose(channel_norms(run.end[name]), norms[STEPS])


def test_a_correction_that_runs_away_is_seen_in_what_is_kept():
    settings = Settings(learning_rate=0.3, weight_decay=0.02, label_noise=0.4, epochs=8)
    assert traces((settings, (STEPWISE,)))[STEPWISE].longer > BLOWN_UP


# --------------------------------------------------------------------------------------------------- the claims


def trace(**values):
    kept = {"error": 0.0, "accuracies": (0.5,), "norms": (1.0,), "step_sizes": (1.0,), "longer": 1.0, "growth": 1.0}
    return Trace(**kept | values)


def with_accuracies(**by_form):
    """Runs by form, of two seeds with nearly the same accuracy."""
    return {name: [trace(accuracies=(x,)) for x in (value, value + 0.001)] for name, value in by_form.items()}


def with_errors(**changed):
    usual = {STEPWISE: 0.04, EPOCHWISE: 0.2, OFF: 0.6}
    rest = dict.fromkeys((STEPWISE_HELD, EPOCHWISE_HELD, SCHEDULED, FLOOR, ROUNDING), 0.3)
    return {name: [trace(error=error)] for name, error in (usual | rest | changed).items()}


@pytest.mark.parametrize(
    ("changed", "standings"),
    [({}, [True, True, True]), ({STEPWISE: 0.07}, [False, True, True]), ({OFF: 0.4}, [True, False, True]),
     ({EPOCHWISE: 0.03}, [True, True, False]), ({EPOCHWISE: math.nan}, [True, True, False])],
)  # fmt: skip
def test_directions_stand_by_the_bounds(changed, standings):
    found = claims_of_directions(with_errors(**changed), TURNING)
    assert [claim.standing == "reproduced" for claim in found] == standings


def test_a_gain_stands_by_its_share_of_that_of_weight_decay():
    forms = (STEPWISE, EPOCHWISE, EPOCHWISE_HELD, STEPWISE_HELD, SCHEDULED)
    found = with_accuracies(**{ON: 0.8, OFF: 0.7}, **dict(zip(forms, (0.79, 0.82, 0.72, 0.69, 0.78), strict=True)))
    claims = claims_of_accuracy(found, {})
    standings = [claim.standing for claim in claims]
    assert standings == ["reproduced"] * 3 + ["not reproduced"] * 2 + ["reproduced"]
    assert "90% of the gain" in claims[1].measured
    assert f"{RECOVERED:.0%}" in claims[1].by


def test_where_weight_decay_gains_nothing_no_share_of_it_is_claimed():
    same = dict.fromkeys((ON, OFF, STEPWISE, EPOCHWISE, EPOCHWISE_HELD, STEPWISE_HELD, SCHEDULED), 0.8)
    claims = claims_of_accuracy(with_accuracies(**same), with_accuracies(**{ON: 0.9, OFF: 0.8}))
    assert [claim.standing for claim in claims] == ["not reproduced"] + ["not comparable at this size"] * 5
    assert "the difference is 10.0" in claims[0].reason


def test_norms_that_take_the_place_of_a_drop_are_claimed_equal():
    def standing(scheduled, undropped):
        accuracies = {ON: 0.8, OFF: 0.7, SCHEDULED: scheduled, UNDROPPED: undropped}
        (claim,) = claims_of_dropped_rate(with_accuracies(**accuracies))
        return claim.standing

    assert standing(0.805, 0.7) == "reproduced"
    assert standing(0.7, 0.6) == "not reproduced"
    assert standing(0.805, 0.805) == "not reproduced", "a drop that gains nothing shows nothing"
    assert claims_of_dropped_rate({}) == ()


def away(free_at_smallest, free_at_largest, held):
    def runs(free):
        return {ON: [trace()], STEPWISE: [trace(longer=free)], EPOCHWISE: [trace(longer=free)],
                STEPWISE_HELD: [trace(longer=held)], EPOCHWISE_HELD: [trace()]}  # fmt: skip

    return {0.02: runs(free_at_smallest), 0.3: runs(free_at_largest)}


def test_running_away_stands_by_both_ends_and_by_held_norms():
    settings = Settings()
    assert claim_of_stability(away(2, math.inf, 1), settings).standing == "reproduced"
    for values in ((2, 2, 1), (1e9, math.inf, 1), (2, math.inf, 1e9)):
        assert claim_of_stability(away(*values), settings).standing == "not reproduced"
    assert "corrected at every step: 1 of 1 at 0.3" in claim_of_stability(away(2, 1e5, 1), settings).measured


# --------------------------------------------------------------------------------------------------- as a whole


def test_the_whole_experiment_runs_and_is_data(monkeypatch):
    for name in ("DROPPING", "UNSTABLE", "RIGHT"):
        monkeypatch.setattr(weight_decay, name, replace(getattr(weight_decay, name), epochs=2))
    with Runs(1) as runs:
        found = weight_decay.experiment(Size((10, 11), 2, (0.02, 0.05), (10,), others=True), runs)
    assert len(found.claims) == 11
    assert [claim.standing for claim in found.claims[:3]] == ["reproduced"] * 3
    assert [curves.name for curves in found.curves] == ["accuracy", "norms", "steps", "stability"]
    assert all(len(series.x) == 2 for curves in found.curves for series in curves.series)
    facts = json.loads(json.dumps(asdict(found)["facts"], allow_nan=False))
    assert set(facts["directions"]["forms"]) == {ON, *FORMS}
    assert facts["accuracy"]["label_noise"] == 0.4
    assert "1437 to train on" in found.setup


def test_without_the_other_parts_nothing_is_claimed_of_them(monkeypatch):
    assert not QUICK.others
    monkeypatch.setattr(weight_decay, "UNSTABLE", replace(weight_decay.UNSTABLE, epochs=1))
    with Runs(1) as runs:
        found = weight_decay.experiment(Size((10, 11), 1, (0.02,), (10,), others=False), runs)
    assert len(found.claims) == 10
    assert "dropped" not in found.setup
