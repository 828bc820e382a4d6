"""Runs of three epochs: how near the directions stay to those of the run with weight decay."""

from __future__ import annotations

import warnings
from functools import cache

import pytest
import torch

from normcheck.optim import CorrectedLearningRate, NormScheduler, UnstableCorrectionWarning
from normcheck.paper.weight_decay_task import STEPS, Settings, trained

TASK = Settings()
UNSTABLE = Settings(learning_rate=0.3, weight_decay=0.02, epochs=5, label_noise=0.4)
SEEDS = range(3)


@cache
def with_decay(settings):
    return trained(settings, decays=True)


def corrected(settings, every=1, **options):
    recorded = with_decay(settings).recorded.every(every)
    return trained(
        settings,
        correct=lambda optimizer, weights: CorrectedLearningRate(
            optimizer, weights, recorded, steps_per_record=every, **options
        ),
    )


def seeded(seed, settings=TASK):
    return Settings(**{**vars(settings), "seed": seed})


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("seed", SEEDS)
def test_corrected_at_every_step_the_directions_follow_the_run_with_weight_decay(kind, seed):
    task = Settings(kind=kind, seed=seed)
    assert corrected(task).error(with_decay(task)) <= 0.06


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("seed", SEEDS)
def test_without_correction_they_do_not(kind, seed):
    task = Settings(kind=kind, seed=seed)
    assert trained(task).error(with_decay(task)) >= 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos_is_far_below_what_is_measured(seed):
    task = seeded(seed)
    again = trained(task, decays=True, perturbation=1e-12)
    assert 0 < again.error(with_decay(task)) < 1e-9


def test_a_run_that_is_repeated_is_the_same_run():
    assert trained(TASK, decays=True).error(with_decay(TASK)) == 0


def test_once_an_epoch_lies_between_every_step_and_no_correction():
    reference = with_decay(TASK)
    errors = [run.error(reference) for run in (corrected(TASK), corrected(TASK, STEPS), trained(TASK))]
    assert errors == sorted(errors)
    assert errors[1] > 3 * errors[0]
    assert errors[2] > 1.5 * errors[1]


def test_holding_the_norms_follows_as_well():
    assert corrected(TASK, hold_norms=True).error(with_decay(TASK)) <= 0.06


def test_norms_that_are_set_once_an_epoch_follow_better_than_none():
    reference = with_decay(TASK)
    recorded = reference.recorded.every(STEPS)
    run = trained(TASK, norm_schedule=lambda weights: NormScheduler(weights, recorded, lambda _: 1))
    assert run.error(reference) < 0.6 * trained(TASK).error(reference)


# ------------------------------------------------------------------------------------------------- stability


@pytest.mark.parametrize("every", [1, STEPS])
def test_a_correction_that_blows_up_warns(every):
    with pytest.warns(UnstableCorrectionWarning, match="hold_norms=True") as caught:
        run = corrected(UNSTABLE, every)
    assert len(caught) == 1
    assert max(float(norms[-1].max() / norms[0].max()) for norms in run.recorded.norms.values()) > 1e4


@pytest.mark.parametrize("every", [1, STEPS])
def test_with_norms_held_it_does_not_blow_up(every):
    with warnings.catch_warnings(action="error"):
        run = corrected(UNSTABLE, every, hold_norms=True)
    for name, norms in run.recorded.norms.items():
        torch.testing.assert_close(norms, norms[:1].expand_as(norms), rtol=1e-13, atol=0)
        assert run.end[name].isfinite().all()


@pytest.mark.parametrize("every", [1, STEPS])
def test_a_stable_correction_does_not_warn(every):
    with warnings.catch_warnings(action="error"):
        run = corrected(TASK, every)
    assert 1 < max(run.growth) < 4


def test_without_decay_norms_grow_as_decay_had_shortened_them():
    """Once the run with weight decay is in balance: by ηλ/(1 − μ) a step, in the channel in the middle."""
    settings = Settings(learning_rate=0.1, weight_decay=0.02, momentum=0.5, epochs=30, label_noise=0.4)
    run, balanced = corrected(settings), with_decay(settings)
    for name in run.recorded.norms:
        half = len(run.recorded) // 2
        rates = [(r.recorded.norms[name][-1] / r.recorded.norms[name][half]).log() / half for r in (run, balanced)]
        assert float(rates[0].median()) == pytest.approx(0.1 * 0.02 / (1 - 0.5), rel=0.2)
        assert abs(float(rates[1].median())) < 0.0005
