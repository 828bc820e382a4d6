"""Experiment (b): n and scale change nothing in exact arithmetic, what counts as failing, what the quick form shows."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from normcheck.paper import half_precision
from normcheck.paper.half_precision import (
    DEMONSTRATED,
    FLOAT32,
    L1,
    L1_LANES,
    L2,
    L2_WIDE,
    LINF,
    MAPPED,
    QUICK,
    SIZES,
    SMALL,
    TOP10,
    _l1_reaches_farther,
    _Moved,
    _sampled,
    _simulator_agrees,
)
from normcheck.paper.half_precision_maps import at_borders, borders, broken_running, disagreements, heat_map, places
from normcheck.paper.half_precision_net import Outcome, Run, Size, _by_batches, _equalised, _network, measured
from normcheck.paper.half_precision_prediction import Prediction, predicted
from normcheck.paper.runs import Runs, one_thread
from normcheck.paper.training import Images, images

SHORT = Size(side=8, batch=8, steps=6, rate=0.05)


@pytest.fixture(scope="module")
def quick():
    with Runs(1) as runs:
        return half_precision.run(quick=True, runs=runs)


def alone(run):
    with one_thread():
        return measured(run)


def scaled(side, seed=3):
    """The first layers of a net with equalised filters, and what it sees, as float64."""
    net = _network(Run(L2, Size(side, 16, 1, 0.1), None, seed)).double()
    torch.manual_seed(seed)
    torch.nn.init.kaiming_normal_(net[0].weight, nonlinearity="relu")
    data = images(side, by="repetition", dtype=torch.float64).train[:16]
    return net, data, _equalised(net[0], data)


# ------------------------------------------------------------------------------------------------------ the net


def test_the_sizes_have_the_element_counts_of_the_maps_and_one_is_beyond_float16():
    assert [size.n for size in (SMALL, *SIZES)] == [512, 4096, 16384, 65536]
    assert SIZES[-1].n > 65504


@pytest.mark.parametrize("side", [16, 32])
def test_enlarging_repeats_each_pre_activation_and_leaves_the_output_as_it_is(side):
    small, data, sigma = scaled(8)
    large, enlarged, same = scaled(side)
    times = side // 8
    with torch.no_grad():
        x, y = small[0](data), large[0](enlarged)
        torch.testing.assert_close(y, x.repeat_interleave(times, 2).repeat_interleave(times, 3), rtol=1e-12, atol=1e-12)
        large.load_state_dict(small.state_dict())
        torch.testing.assert_close(large(enlarged), small(data), rtol=1e-9, atol=1e-9)
    assert same == pytest.approx(sigma, rel=1e-12)


def test_all_channels_have_one_deviation_and_their_root_mean_square_stays():
    net, data, sigma = scaled(8)
    each = net[0](data).transpose(0, 1).flatten(1).std(1, correction=0)
    torch.testing.assert_close(each, torch.full_like(each, sigma), rtol=1e-12, atol=0)


def test_float32_learns_the_same_at_every_scale_and_element_count():
    size = Size(side=8, batch=16, steps=10, rate=0.1)
    runs = [Run(FLOAT32, dataclasses.replace(size, side=side), scale, 0) for side in (8, 16) for scale in (1.0, 1024.0)]
    accuracies = [alone(run).accuracy for run in runs]
    assert min(accuracies) > 0.4
    assert max(accuracies) - min(accuracies) <= 3 / 360  # eps and the order of sums may move a few images


def test_the_norm_sees_the_scale_that_a_run_asks_for():
    assert alone(Run(FLOAT32, SHORT, 37.0, 0)).sigma == pytest.approx(37.0, rel=1e-6)


def test_the_same_run_gives_the_same_outcome():
    run = Run(L1, SHORT, 4.0, 1, every=2)
    first = alone(run)
    assert alone(run) == first
    assert first.at == (2, 4, 6)


def test_accuracy_by_batches_counts_each_held_out_image_once():
    class Told(torch.nn.Module):
        """Knows the class of each image by its first pixel, but for images of class 3; NaN for those of class 7."""

        def forward(self, x):
            classes = x[:, 0, 0, 0].long()
            logits = torch.nn.functional.one_hot(classes, 10).float()
            logits[classes == 3] = logits[classes == 3].flip(1)
            logits[classes == 7, 0] = math.nan
            return logits

    classes = torch.arange(30) % 10
    data = Images(torch.empty(0), torch.empty(0), classes.float().reshape(-1, 1, 1, 1), classes)
    assert _by_batches(Told(), data, 8) == pytest.approx(0.8)


# ----------------------------------------------------------------------------------------------- the prediction


def channels(*factors, n=4096):
    x = torch.randn(n // 64, len(factors), 8, 8, generator=torch.Generator().manual_seed(5))
    return (x * torch.tensor(factors)[:, None, None]).numpy()


@pytest.mark.parametrize(
    ("norm", "implementation", "factors", "n", "step", "fails"),
    [
        ("batch-l2", "wide-sum", (16.0, 16.0), 4096, None, False),
        ("batch-l2", "wide-sum", (128.0, 128.0), 4096, "square", True),
        ("batch-l2", "wide-sum", (128.0, 16.0), 4096, "square", False),  # one channel is left to learn from
        ("batch-l1", "pure", (1.0, 1.0), 4096, None, False),
        ("batch-l1", "pure", (128.0, 128.0), 4096, "sum", True),
        ("batch-l1", "pure", (0.01, 0.01), 65536, "count", True),
        ("batch-l1", "pure-scaled", (1024.0, 1024.0), 65536, None, False),
        ("batch-l1", "pure-scaled", (1024.0, 32768.0), 4096, "load", True),  # one channel of NaN spoils all
    ],
)
def test_the_prediction_names_the_failing_step(norm, implementation, factors, n, step, fails):
    found = predicted(channels(*factors, n=n), norm, implementation, "fp16", 1e-5)
    assert (found.step, found.fails) == (step, fails)


# ----------------------------------------------------------------------------------------------------- the maps


def outcome(accuracy, *, bad=0, nonfinite=0, step=None, running=None, bits=5.0):
    return Outcome(
        accuracy=accuracy,
        running=accuracy if running is None else running,
        sigma=1.0,
        finite=True,
        stopped=80,
        growth_bits=0.5,
        overflowed=None,
        prediction=Prediction(8, nonfinite, bad, step, bits, "square"),
        at=(80,),
        curve=(accuracy,),
    )


GOOD, WRONG = outcome(0.9), outcome(0.1, bad=8, step="square")
UNFORESEEN = outcome(0.1, bits=0.25)
PARTLY = outcome(0.5, bad=5, step="square")


def mapped(way=L2, **rows):
    """Places of a way at n = 512, of these outcomes at the scales 1, 2, 4... ."""
    runs = {
        Run(way, SMALL, 2.0**power, seed): one
        for power, several in enumerate(rows["at"])
        for seed, one in enumerate(several)
    }
    return places(runs)[way]


def test_a_cell_is_decided_by_most_of_its_seeds():
    found = mapped(at=[[GOOD, GOOD, WRONG], [GOOD, WRONG, WRONG], [PARTLY, GOOD, GOOD]])
    assert [place.state for place in found] == ["degraded", "fails", "degraded"]
    assert [(cell.fails, cell.predicted, cell.agrees) for cell in heat_map(L2, found).cells] == [
        (False, False, True),
        (True, True, True),
        (False, False, True),
    ]
    assert [cell.step for cell in heat_map(L2, found).cells] == ["square", "square", "square"]
    assert heat_map(L2, found).cells[0].values == (0.9, 0.9, 0.1)


def test_borders_say_what_trains_what_fails_and_what_is_between():
    found = mapped(at=[[GOOD], [GOOD], [PARTLY], [WRONG], [WRONG]])
    assert borders(found) == {"512": {"trains_to": 2.0, "fails_from": 8.0, "step": "square", "degraded": [4.0]}}
    assert borders(mapped(at=[[WRONG]]))["512"]["trains_to"] is None
    assert borders(mapped(at=[[GOOD]]))["512"]["fails_from"] is None


def test_the_cells_beside_a_border_are_those_of_neighbouring_scales_that_differ():
    found = mapped(at=[[GOOD], [GOOD], [WRONG], [WRONG], [GOOD]])
    assert [place.scale for place in at_borders(found)] == [2.0, 4.0, 8.0, 16.0]
    assert at_borders(mapped(at=[[GOOD], [PARTLY]])) == []


def test_running_statistics_that_break_alone_are_told():
    assert broken_running(mapped(at=[[GOOD], [outcome(0.9, running=0.1)], [WRONG]])) == {"512": [2.0]}


def test_where_the_simulator_was_wrong_the_growth_stands_beside_the_headroom():
    (one,) = disagreements(mapped(at=[[GOOD], [UNFORESEEN], [WRONG]]))
    assert (one["scale"], one["predicted"], one["values"]) == (2.0, "learns", [0.1])
    assert "headroom 0.25 bits at square" in one["reasons"][0]
    assert "grew by 0.50 bits" in one["reasons"][0]


def test_the_claim_on_the_simulator_falls_with_too_many_wrong_cells():
    right = {L2: mapped(at=[[GOOD]] * 19), L1: [], L1_LANES: []}
    one_wrong = {**right, L1: mapped(L1, at=[[UNFORESEEN]])}
    two_wrong = {**right, L1: mapped(L1, at=[[UNFORESEEN], [UNFORESEEN]])}
    standings = [_simulator_agrees(found).standing for found in (right, one_wrong, two_wrong)]
    assert standings == ["reproduced", "reproduced", "not reproduced"]
    assert "headroom 0.25 bits" in _simulator_agrees(one_wrong).reason


def test_small_filters_are_told_apart_and_do_not_decide_the_claim():
    moved = _Moved({**{way: [] for way in MAPPED}, L2: mapped(at=[[GOOD], [UNFORESEEN]])}, {L2: [UNFORESEEN]})
    found = {L2: mapped(at=[[GOOD], [WRONG]]), L1: [], L1_LANES: []}
    claim = _simulator_agrees(found, moved)
    assert claim.standing == "reproduced"
    assert "right in 2 of 2 cells (100.0%), and in 2 of the 2 beside a border" in claim.measured
    assert "smaller, n = 4096: in 1 of 2 cells (50.0%), and in 1 of the 2 beside" in claim.measured
    assert "fails with 1 of 1 seeds and was said to with 0" in claim.measured


def test_runs_with_small_filters_stand_in_maps_of_their_own():
    runs = {Run(L2, SMALL, 1.0, 0): GOOD, Run(L2, SMALL, 1.0, 0, small=True): WRONG, Run(L2, SMALL, None, 0): PARTLY}
    assert [place.values for place in places(runs)[L2]] == [(0.9,)]
    assert [place.values for place in places(runs, small=True)[L2]] == [(0.1,)]


def test_small_filters_are_smaller_by_what_the_report_says():
    torch.manual_seed(0)
    sizes = [
        [_network(Run(L2, DEMONSTRATED, None, 0, small=small))[0].weight.std().item() for _ in range(50)]
        for small in (False, True)
    ]
    assert sum(sizes[0]) / sum(sizes[1]) == pytest.approx(2.4, abs=0.1)


def test_l1_does_not_reach_farther_where_it_loses_a_cell_or_gains_none():
    def standing(l2, l1):
        return _l1_reaches_farther({L2: mapped(at=l2), L1: mapped(L1, at=l1)}).standing

    assert standing([[GOOD], [WRONG]], [[GOOD], [GOOD]]) == "reproduced"
    assert standing([[GOOD], [WRONG]], [[PARTLY], [GOOD]]) == "not reproduced"
    assert standing([[GOOD], [WRONG]], [[GOOD], [WRONG]]) == "not reproduced"


def test_the_curve_of_a_run_that_stopped_stays_where_it_stopped():
    stopped = dataclasses.replace(GOOD, at=(10, 20, 23), curve=(0.5, 0.6, 0.0))
    assert _sampled(stopped, (10, 20, 30, 40)) == [0.5, 0.6, 0.0, 0.0]


# ----------------------------------------------------------------------------------------------- the quick form


def test_the_quick_form_shows_what_the_paper_claims(quick):
    assert [claim.standing for claim in quick.claims] == ["reproduced"] * 6


def test_on_raw_pixels_l2_with_float32_accumulators_learns_nothing_and_scaled_l1_all(quick):
    accuracy = {name: fact["accuracies"][0] for name, fact in quick.facts["raw_pixels"].items()}
    assert accuracy[L2.name] < 0.2
    assert accuracy[L1_LANES.name] < 0.2
    assert all(accuracy[way.name] > 0.8 for way in (FLOAT32, L2_WIDE, L1, TOP10, LINF))


def test_l2_fails_silently_and_l1_by_lanes_with_nan(quick):
    raw = quick.facts["raw_pixels"]
    assert raw[L2.name]["finite"] == [True]
    assert raw[L1_LANES.name]["finite"] == [False]


def test_the_simulator_and_the_nets_agree_in_every_cell_and_it_names_the_step(quick):
    assert [heat_map.name for heat_map in quick.maps] == ["map-l2-wide-sum", "map-l1-pure-scaled", "map-l1-pure"]
    for heat_map_ in quick.maps:
        assert [(cell.x, cell.y) for cell in heat_map_.cells] == [(DEMONSTRATED.n, scale) for scale in QUICK.scales]
        assert all(cell.agrees for cell in heat_map_.cells)
        assert all((cell.step is not None) == cell.fails for cell in heat_map_.cells)
    assert [[cell.step for cell in heat_map_.cells] for heat_map_ in quick.maps] == [
        [None, None, "square", "load"],
        [None, None, None, "load"],
        [None, "sum-mean", "sum-mean", "load"],
    ]


def test_every_curve_is_over_the_same_steps_or_scales(quick):
    by_step, by_scale = quick.curves
    assert {len(series.x) for series in by_step.series} == {8}
    assert [series.x for series in by_scale.series] == [QUICK.scales] * len(MAPPED)
