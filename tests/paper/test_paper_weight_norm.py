"""Experiment (c): nets that differ in their norms alone, norms that stay, and how claims stand by the runs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
import torch
from torch import nn

from normcheck.nn import BatchNorm2d, MeanOnlyBatchNorm2d
from normcheck.paper import weight_norm
from normcheck.paper.runs import Runs, one_thread
from normcheck.paper.training import Curve
from normcheck.paper.weight_norm import FULL, QUICK
from normcheck.paper.weight_norm_claims import KEPT, claim_of_norms, claims_of_accuracy
from normcheck.paper.weight_norm_task import (
    BATCH,
    BOUNDED,
    FITTED,
    FIXED,
    FREE,
    INFINITE,
    ONE,
    WAYS,
    WEIGHT,
    Call,
    Found,
    Kept,
    Size,
    data,
    kept,
    network,
    trained,
)

SMALL = Size((10, 11), (0.003, 0.1), (0,), 44, 22, (BATCH, BOUNDED, WEIGHT, FREE), 30, convolutions=3)
by_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


@pytest.fixture(autouse=True)
def as_in_a_run():
    with one_thread():
        yield


def convolutions(model):
    return [layer for layer in model if isinstance(layer, nn.Conv2d)]


# ---------------------------------------------------------------------------------------------------- the nets


@by_way
def test_all_ways_begin_with_the_same_weights_but_for_a_rho_that_is_fixed(way):
    ours, free = (convolutions(network(each, 5, seed=3)) for each in (way, FREE))
    assert len(ours) == 5
    for layer, other in zip(ours, free, strict=True):
        w, wanted = layer.weight.detach(), other.weight.detach()
        if way is FIXED:
            norms = wanted.flatten(1).norm(dim=1)
            wanted = wanted * (norms.square().mean().sqrt() / norms)[:, None, None, None]
        torch.testing.assert_close(w, wanted, rtol=1e-5, atol=1e-7)


@by_way
def test_batch_norm_divides_and_all_else_has_norms_of_means_alone(way):
    norms = [layer for layer in network(way, 4, seed=0) if isinstance(layer, (BatchNorm2d, MeanOnlyBatchNorm2d))]
    assert len(norms) == 4
    assert {type(norm) for norm in norms} == {BatchNorm2d if way is BATCH else MeanOnlyBatchNorm2d}


@pytest.mark.parametrize("size", [FULL, QUICK])
def test_size_is_halved_twice_and_channels_grow(size):
    model = network(FREE, size.convolutions, seed=0)
    shapes, x = [], torch.zeros(2, 1, 8, 8)
    for layer in model:
        x = layer(x)
        shapes += [tuple(x.shape[1:])] * isinstance(layer, nn.Conv2d)
    assert len(shapes) == size.convolutions
    assert (shapes[0], shapes[-1]) == ((16, 8, 8), (32, 2, 2))
    assert shapes == sorted(shapes, key=lambda shape: -shape[1])
    assert x.shape == (2, 10)


def test_a_search_sees_none_of_the_images_that_are_held_out():
    found, searched = data(searching=False), data(searching=True)
    assert len(searched.train) == FITTED
    assert torch.equal(torch.cat([searched.train, searched.test]), found.train)
    assert torch.equal(torch.cat([searched.train_classes, searched.test_classes]), found.train_classes)
    assert float(found.train.mean()) == pytest.approx(0, abs=1e-5)
    assert float(found.train.std()) == pytest.approx(1, abs=1e-5)


def test_a_net_of_a_few_layers_learns_in_two_epochs_and_again_the_same():
    call = Call(BOUNDED, 0.1, 10, SMALL)
    curve = trained(call)
    assert curve.accuracy > 0.6
    assert curve == trained(call)


@pytest.mark.parametrize("way", [BOUNDED, FIXED, ONE, INFINITE], ids=lambda way: way.name)
def test_bounded_norms_stay_where_they_are(way):
    found = kept(Call(way, 0.1, 10, SMALL))
    assert found.layer <= KEPT
    assert found.channel <= KEPT or way.gain
    assert found.moved > 0.02


@pytest.mark.parametrize("way", [WEIGHT, FREE], ids=lambda way: way.name)
def test_norms_that_nothing_bounds_do_not_stay(way):
    assert kept(Call(way, 0.1, 10, SMALL)).layer > 1000 * KEPT


# --------------------------------------------------------------------------------------------------- the claims


def curve(accuracy, *, finite=True):
    return Curve((1,), (0.1,), (accuracy,), finite)


def found_of(accuracies, **largest):
    """What came of the ways with about these accuracies, and the search's, in which a way trains up to a rate."""
    return {
        way: Found({rate: [0.9 if rate <= largest.get(way.kind, 0.1) else 0.1] for rate in (0.1, 0.2)}, 0.1,
                   [curve(value), curve(value + 0.001)])
        for way, value in accuracies.items()
    }  # fmt: skip


def test_gaps_and_equalities_stand_by_the_interval():
    accuracies = {BATCH: 0.95, BOUNDED: 0.93, FIXED: 0.932, ONE: 0.93, INFINITE: 0.91, WEIGHT: 0.9, FREE: 0.8}
    claims = claims_of_accuracy(found_of(accuracies))
    assert [claim.standing for claim in claims] == ["reproduced"] * 4 + ["not reproduced"] * 2
    assert all(claim.reason for claim in claims[4:5])


def test_a_missing_gap_is_explained_by_the_net_without_norms_where_that_was_measured():
    without_gap = dict.fromkeys((BATCH, BOUNDED, WEIGHT), 0.95)
    easy = claims_of_accuracy(found_of({**without_gap, FREE: 0.95}))[0]
    needed = claims_of_accuracy(found_of({**without_gap, FREE: 0.5}))[0]
    assert easy.standing == needed.standing == "not reproduced"
    assert easy.reason.startswith("measured: a net of this size does not need")
    assert needed.reason.startswith("a guess")


@pytest.mark.parametrize(
    ("bounded", "weight", "standing"),
    [(0.2, 0.1, "reproduced"), (0.1, 0.1, "not reproduced"), (0.1, 0.2, "not reproduced"),
     (0.2, 0.2, "not comparable at this size")],
)  # fmt: skip
def test_the_largest_learning_rate_decides_unless_both_train_at_the_last(bounded, weight, standing):
    ways = dict.fromkeys((BATCH, BOUNDED, WEIGHT, FREE), 0.9)
    claim = claims_of_accuracy(found_of(ways, bounded=bounded, weight=weight))[-1]
    assert claim.standing == standing
    assert f"{bounded:g} (bounded weight norm)" in claim.measured


def test_a_run_that_was_given_up_counts_as_no_accuracy():
    assert Found({0.1: [0.5]}, 0.1, [curve(0.9), curve(0.9, finite=False)]).accuracies == [0.9, 0.0]
    assert Found({0.1: [0.5, 0.9]}, 0.1, []).largest_rate == 0


def test_a_channel_may_move_where_gains_are_trained_and_a_layer_may_not():
    still, channels, layer = Kept(1e-7, 1e-7, 0.5), Kept(1e-7, 0.5, 0.5), Kept(1e-5, 1e-7, 0.5)
    assert claim_of_norms({BOUNDED: channels, FIXED: still}, 9).standing == "reproduced"
    assert claim_of_norms({BOUNDED: still, FIXED: channels}, 9).standing == "not reproduced"
    assert claim_of_norms({BOUNDED: layer}, 9).standing == "not reproduced"


# --------------------------------------------------------------------------------------------------- as a whole


def test_the_whole_experiment_runs_and_is_data():
    with Runs(1) as runs:
        found = weight_norm.experiment(SMALL, runs)
    facts = json.loads(json.dumps(asdict(found)["facts"], allow_nan=False))
    assert set(facts) == {way.name for way in SMALL.ways}
    assert {each["learning_rate"] for each in facts.values()} == {0.1}, "the search takes the rate that learns"
    assert "batch norm 0.1" in found.setup
    assert found.claims[-1].standing == "reproduced"
    assert [len(curves.series) for curves in found.curves] == [4, 4]
    assert found.curves[0].series[0].x == (22, 44)
    assert not math.isnan(facts["bounded weight norm"]["norms"]["moved"])
