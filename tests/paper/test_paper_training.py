"""normcheck.paper.training and seeds: the digits in any size, the loop of steps, and what several seeds say."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn

from normcheck.errors import UsageError
from normcheck.paper.digits import TRAINED, digits
from normcheck.paper.runs import one_thread
from normcheck.paper.seeds import (
    Difference,
    band,
    difference,
    percent,
    spread,
    standing_of_better,
    standing_of_equal,
)
from normcheck.paper.training import accuracy, batches, images, train


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def trained(steps=40, **options):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=options.pop("lr", 0.1))
    with one_thread():
        return model, train(model, images(), optimizer, steps=steps, batch=32, seed=3, **options)


# ----------------------------------------------------------------------------------------------------- the digits


def test_the_digits_as_they_are_and_in_the_scale_of_image_files():
    unit, raw = images(), images(pixels="raw")
    assert (unit.train.shape, unit.test.shape) == ((TRAINED, 1, 8, 8), (360, 1, 8, 8))
    assert (float(unit.train.max()), float(raw.train.max())) == (1.0, 255.0)
    torch.testing.assert_close(raw.test, unit.test * 255)
    assert torch.equal(unit.test_classes, digits()[1][TRAINED:])


def test_repetition_gives_every_pixel_a_square_and_interpolation_keeps_within_their_range():
    repeated, between = images(16, by="repetition").test, images(16).test
    assert torch.equal(repeated, images().test.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert between.shape == repeated.shape
    assert 0 <= float(between.min()) <= float(between.max()) <= 1
    assert not torch.equal(between, repeated)


def test_fewer_images_to_train_on_leave_the_held_out_ones():
    few = images(trained=50)
    assert torch.equal(few.train, images().train[:50])
    assert torch.equal(few.test, images().test)


@pytest.mark.parametrize(("given", "says"), [({"size": 7}, "8 or more"), ({"trained": 1438}, "1437 digits")])
def test_what_there_is_not_is_refused(given, says):
    with pytest.raises(UsageError, match=says):
        images(**given)


# ------------------------------------------------------------------------------------------------------- the loop


def test_batches_are_whole_epochs_in_new_orders_that_the_seed_decides():
    first = [tuple(rows.tolist()) for rows in batches(10, 4, 5, seed=1)]
    assert first == [tuple(rows.tolist()) for rows in batches(10, 4, 5, seed=1)]
    assert first != [tuple(rows.tolist()) for rows in batches(10, 4, 5, seed=2)]
    assert [len(rows) for rows in first] == [4] * 5
    for epoch in (first[:2], first[2:4]):
        assert len(set(sum(epoch, ()))) == 8
    assert first[:2] != first[2:4]


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UsageError, match="only 3 to train on"):
        next(batches(3, 4, 1, seed=0))


def test_a_run_learns_and_is_the_same_again():
    _, curve = trained(every=10)
    assert curve.steps == (10, 20, 30, 40)
    assert curve.finite
    assert curve.losses[-1] < curve.losses[0]
    assert curve.accuracy > 0.6
    assert curve == trained(every=10)[1]


def test_evaluating_more_often_changes_nothing_but_the_curve():
    (often, curve), (once, end) = trained(every=7), trained()
    assert all(torch.equal(a, b) for a, b in zip(often.parameters(), once.parameters(), strict=True))
    assert (curve.steps[-1], end.steps) == (40, (40,))
    assert curve.accuracy == end.accuracy


def test_training_stops_at_the_first_loss_that_is_not_finite():
    _, curve = trained(lr=1e38, every=1)
    assert not curve.finite
    assert curve.steps[-1] < 40
    assert not math.isfinite(curve.losses[-1])


def test_the_schedule_and_what_follows_are_stepped_with_each_step():
    model, told = linear(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2])
    train(model, images(), optimizer, steps=3, batch=8, seed=0, schedule=schedule, after=told.append)
    assert told == [1, 2, 3]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_no_step_is_refused():
    with pytest.raises(UsageError, match="1 step or more"):
        trained(steps=0)


def test_logits_that_are_not_finite_are_wrong():
    logits = torch.tensor([[1.0, 0.0], [math.nan, 0.0], [math.inf, 0.0], [0.0, 1.0]])
    assert accuracy(nn.Identity(), logits, torch.tensor([0, 0, 0, 0])) == 0.25


# ---------------------------------------------------------------------------------------------------- the seeds


def test_the_interval_is_that_of_a_paired_t_test():
    ours, other = [0.91, 0.93, 0.95, 0.92], [0.90, 0.90, 0.93, 0.93]
    expected = stats.ttest_rel(ours, other).confidence_interval(0.95)
    found = difference(ours, other)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(0.0125)


def test_one_seed_decides_nothing():
    found = difference([0.9], [0.1])
    assert (found.mean, found.low, found.high) == (pytest.approx(0.8), -math.inf, math.inf)
    assert standing_of_equal(found, 1) == standing_of_better(found, 1) == "not comparable at this size"
    assert found.text() == "0.8 (one seed: no interval)"


@pytest.mark.parametrize(
    ("low", "high", "equal", "better"),
    [
        (-0.5, 0.5, "reproduced", "not reproduced"),
        (0.2, 0.8, "reproduced", "reproduced"),
        (1.2, 1.8, "not reproduced", "reproduced"),
        (-1.8, -1.2, "not reproduced", "not reproduced"),
        (-1.8, -0.2, "not comparable at this size", "not reproduced"),
        (-0.2, 1.8, "not comparable at this size", "not comparable at this size"),
    ],
)
def test_an_interval_decides_on_a_claim(low, high, equal, better):
    found = Difference((low + high) / 2, low, high)
    assert (standing_of_equal(found, 1.0), standing_of_better(found, 1.0)) == (equal, better)


def test_spreads_are_means_and_standard_deviations():
    assert percent([0.9, 0.92, 0.94]) == "92.0 +- 2.0 %"
    assert spread([1.5]) == "1.5"
    assert difference([1, 2], [1, 1]).text("points", digits=0) == "0 (95 %: -6 to 7) points"


def test_a_band_holds_the_least_and_the_largest_of_each_place():
    series = band("L1", (10, 20), [(0.1, 0.5), (0.3, 0.4)])
    assert (series.x, series.y) == ((10.0, 20.0), (pytest.approx(0.2), pytest.approx(0.45)))
    assert (series.low, series.high) == ((0.1, 0.4), (0.3, 0.5))
    assert band("L1", (10,), [(0.1,)]).low == ()
