"""One step of a corrected optimizer against the formula, the degrees of optimizers, momentum, and what is refused."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from normcheck.errors import UsageError
from normcheck.optim import CorrectedLearningRate, RecordedNorms, channel_norms, directions
from normcheck.optim.correction import DEGREES, degree_of
from normcheck.paper.training import images
from normcheck.paper.weight_decay_task import NO_EPS, invariant, network

IMAGES, CLASSES = images(dtype=torch.float64).train[:64], images(dtype=torch.float64).train_classes[:64]
LENGTHS = (0.25, 1.0, 3.0, 40.0)


def exactly_invariant():
    """A network whose norms have no eps, so that its weights are scale invariant to rounding."""
    return network("mlp", seed=0, eps=NO_EPS)


def scaled(model, factor):
    """A copy with the weights before norms, and nothing else, so many times as long."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in invariant(other).values():
            weight.mul_(factor)
    return other


def backward(model):
    nn.functional.cross_entropy(model(IMAGES), CLASSES).backward()


def recorded_norms(model, records=1, factor=1.0):
    return RecordedNorms(
        {n: factor * channel_norms(w).expand(records, -1).clone() for n, w in invariant(model).items()}
    )


def tangents(before, after):
    """The tangent of the angle that each channel has turned by: exact for small angles, unlike an arc cosine."""
    found = []
    for name, weight in before.items():
        u, v = directions(weight), directions(after[name])
        along = (u * v).sum(1, keepdim=True)
        found.append((v - along * u).norm(dim=1) / along.flatten())
    return torch.cat(found)


def turned(model, make, recorded=None, **options):
    """The tangents of one step of the optimizer that `make` makes, corrected if norms are given."""
    weights = invariant(model)
    before = copy.deepcopy(weights)
    optimizer = make(weights.values())
    if recorded is not None:
        CorrectedLearningRate(optimizer, weights, recorded, **options)
    optimizer.zero_grad()
    backward(model)
    optimizer.step()
    return tangents(before, weights)


def sgd(weights):
    return torch.optim.SGD(weights, lr=0.01, momentum=0.9)


def adam(weights, lr=1e-3):
    # eps is added to what goes with the gradient, and would break that the update does not
    return torch.optim.Adam(weights, lr=lr, eps=1e-30)


def small_adam(weights):
    return adam(weights, lr=1e-8)


# ------------------------------------------------------------------------------------------------- one step


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("hold_norms", [False, True])
def test_the_corrected_step_turns_every_channel_by_the_same_angle(length, hold_norms):
    model = exactly_invariant()
    wanted = turned(copy.deepcopy(model), sgd)
    got = turned(scaled(model, length), sgd, recorded_norms(model), hold_norms=hold_norms)
    assert wanted.min() > 1e-6
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_uncorrected_step_turns_by_the_ratio_of_squared_norms(length):
    model = exactly_invariant()
    got, reference = turned(scaled(model, length), sgd), turned(copy.deepcopy(model), sgd)
    torch.testing.assert_close(got * length**2, reference, rtol=1e-6, atol=0)


@pytest.mark.parametrize("length", LENGTHS)
def test_adam_is_corrected_by_the_ratio_of_norms(length):
    model = exactly_invariant()
    reference = turned(copy.deepcopy(model), adam)
    corrected = turned(scaled(model, length), adam, recorded_norms(model))
    torch.testing.assert_close(corrected, reference, rtol=1e-6, atol=0)


@pytest.mark.parametrize("length", LENGTHS)
def test_uncorrected_adam_turns_by_the_ratio_of_norms(length):
    """For small turns: Adam's update is not at a right angle to w, so that it changes the length as well."""
    model = exactly_invariant()
    got, reference = turned(scaled(model, length), small_adam), turned(copy.deepcopy(model), small_adam)
    torch.testing.assert_close(got * length, reference, rtol=1e-6, atol=0)


def test_each_channel_has_a_factor_of_its_own():
    model = exactly_invariant()
    weights = invariant(model)
    recorded = RecordedNorms({n: channel_norms(w)[None] / torch.arange(1, 65) for n, w in weights.items()})
    before = copy.deepcopy(weights)
    optimizer = torch.optim.SGD(weights.values(), lr=0.01)
    correction = CorrectedLearningRate(optimizer, weights, recorded)
    backward(model)
    optimizer.step()
    for name, weight in weights.items():
        factors = torch.arange(1, 65, dtype=torch.float64) ** 2
        torch.testing.assert_close(correction.factors[name], factors)
        torch.testing.assert_close(weight.detach(), before[name].detach() - 0.01 * factors[:, None] * weight.grad)


def test_other_parameters_are_stepped_as_without():
    model, other = exactly_invariant(), exactly_invariant()
    for net, recorded in ((model, None), (other, recorded_norms(model, factor=0.1))):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        if recorded is not None:
            CorrectedLearningRate(optimizer, invariant(net), recorded)
        backward(net)
        optimizer.step()
    weights = invariant(model)
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q) == (name not in weights)


def test_where_the_norms_are_those_recorded_nothing_changes():
    model = exactly_invariant()
    plain, corrected = copy.deepcopy(model), copy.deepcopy(model)
    turned(plain, sgd)
    turned(corrected, sgd, recorded_norms(model))
    for p, q in zip(plain.parameters(), corrected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-15, atol=1e-17)


# ------------------------------------------------------------------------------------------------- momentum


def directions_after(model, steps, recorded, make=sgd, **options):
    weights = invariant(model)
    optimizer = make(weights.values())
    CorrectedLearningRate(optimizer, weights, recorded, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
    return torch.cat([directions(weight) for weight in weights.values()])


def test_with_norms_held_the_directions_do_not_depend_on_the_norms_whatever_the_momentum():
    model = exactly_invariant()
    runs = [
        directions_after(scaled(model, length), 10, recorded_norms(model, 10, 0.5), hold_norms=True)
        for length in LENGTHS
    ]
    for run in runs[1:]:
        torch.testing.assert_close(run, runs[0], rtol=0, atol=1e-10)


def test_remembered_gradients_keep_the_length_of_their_own_time():
    """Two steps; before the second the weight is made twice as long, and what the first left is not made shorter."""
    weight = nn.Parameter(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.5)
    recorded = RecordedNorms({"w": torch.ones(2, 1, dtype=torch.float64)})
    CorrectedLearningRate(optimizer, {"w": weight}, recorded)
    weight.grad = torch.tensor([[0.0, 0.25]], dtype=torch.float64)
    optimizer.step()
    weight.data = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert weight.tolist() == [[2.0, -0.5 * 0.25 * 4]]


# --------------------------------------------------------------------------------------------- any optimizer


@pytest.mark.parametrize("kind", DEGREES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("factor", [0.125, 8.0])
def test_the_degrees_of_the_table_are_those_of_the_updates(kind, factor):
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    gradients = torch.randn(5, 4, 4, generator=generator, dtype=torch.float64)
    options = {"weight_decay": 0.0} if kind is torch.optim.AdamW else {}
    moved = []
    for c in (1.0, factor):
        weight = nn.Parameter(start.clone())
        optimizer = kind([weight], lr=0.01, **options, **({"eps": 1e-30} if "eps" in kind([weight]).defaults else {}))
        for gradient in gradients:
            weight.grad = c * gradient
            optimizer.step()
        moved.append(weight.detach() - start)
    torch.testing.assert_close(moved[1], moved[0] * factor ** DEGREES[kind], rtol=1e-9, atol=1e-14)


def test_an_optimizer_of_an_unknown_degree_is_asked_for_it():
    model = exactly_invariant()
    optimizer = torch.optim.RAdam(invariant(model).values())
    with pytest.raises(UsageError, match=r"degree of RAdam is not known: pass degree=1 .* degree=0"):
        CorrectedLearningRate(optimizer, invariant(model), recorded_norms(model))
    CorrectedLearningRate(optimizer, invariant(model), recorded_norms(model), degree=0)


def test_a_kind_of_a_known_optimizer_has_its_degree():
    class Own(torch.optim.Adam):
        pass

    assert degree_of(Own([torch.ones(1)])) == 0


def test_schedules_closures_and_removal_work_as_without():
    model = exactly_invariant()
    weights = invariant(model)
    optimizer = torch.optim.SGD(weights.values(), lr=1.0)
    correction = CorrectedLearningRate(optimizer, weights, recorded_norms(model, 2, factor=0.5))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    calls = []

    def closure():
        optimizer.zero_grad()
        calls.append(1)
        loss = nn.functional.cross_entropy(model(IMAGES), CLASSES)
        loss.backward()
        return loss

    before = copy.deepcopy(weights)
    assert optimizer.step(closure) > 0
    schedule.step()
    assert calls == [1]
    for name, weight in weights.items():
        torch.testing.assert_close(weight.detach(), before[name].detach() - 4 * weight.grad)
    correction.remove()
    before = copy.deepcopy(weights)
    optimizer.step(closure)
    for name, weight in weights.items():
        torch.testing.assert_close(weight.detach(), before[name].detach() - 0.5 * weight.grad)


def test_a_step_that_gradient_scaling_skips_is_not_counted():
    weight = nn.Parameter(torch.tensor([[1.0, 0.0]]))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    recorded = RecordedNorms({"w": torch.tensor([[0.5], [0.25]], dtype=torch.float64)})
    correction = CorrectedLearningRate(optimizer, {"w": weight}, recorded)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for gradient in (torch.inf, 1.0):
        scaler.scale((weight * torch.tensor([[0.0, gradient]])).nansum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert correction.state_dict()["step"] == (gradient == 1.0)
        optimizer.zero_grad()
    assert weight.tolist() == [[1.0, -4.0]]


def test_a_run_can_be_interrupted(tmp_path):
    model = exactly_invariant()
    recorded = RecordedNorms({n: channel_norms(w) * torch.tensor([[0.5], [0.4]]) for n, w in invariant(model).items()})
    runs = []
    for interrupted in (False, True):
        net = copy.deepcopy(model)
        optimizer = sgd(invariant(net).values())
        correction = CorrectedLearningRate(optimizer, invariant(net), recorded, steps_per_record=3)
        for step in range(6):
            if step == 2 and interrupted:
                torch.save([optimizer.state_dict(), correction.state_dict()], tmp_path / "state.pt")
                correction.remove()
                of_optimizer, of_correction = torch.load(tmp_path / "state.pt")
                optimizer = sgd(invariant(net).values())
                optimizer.load_state_dict(of_optimizer)
                correction = CorrectedLearningRate(optimizer, invariant(net), recorded, steps_per_record=3)
                correction.load_state_dict(of_correction)
            optimizer.zero_grad()
            backward(net)
            optimizer.step()
        runs.append(torch.cat([w.detach() for w in invariant(net).values()]))
    assert torch.equal(*runs)


def test_float32_weights_keep_their_format():
    model = network("cnn", seed=0).float()
    weights = invariant(model)
    optimizer = sgd(weights.values())
    CorrectedLearningRate(optimizer, weights, recorded_norms(model, factor=0.5))
    nn.functional.cross_entropy(model(IMAGES.float()), CLASSES).backward()
    optimizer.step()
    assert all(w.dtype == torch.float32 and w.isfinite().all() for w in weights.values())


# ------------------------------------------------------------------------------------------ once an epoch


def test_factors_are_held_until_the_next_record():
    model = exactly_invariant()
    weights = invariant(model)
    recorded = RecordedNorms({n: channel_norms(w) * torch.tensor([[0.5], [0.4]]) for n, w in weights.items()})
    optimizer = sgd(weights.values())
    correction = CorrectedLearningRate(optimizer, weights, recorded, steps_per_record=3)
    assert correction.factors == {}
    seen = []
    for _ in range(6):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
        seen.append(correction.factors["1.weight"])
    assert [f is seen[0] for f in seen] == [True] * 3 + [False] * 3
    torch.testing.assert_close(seen[0], torch.full_like(seen[0], 4))
    assert (seen[3] > 6.25).all()
    with pytest.raises(UsageError, match=r"2 norms were recorded, and number 3 is asked for"):
        optimizer.step()


@pytest.mark.parametrize(("growth", "warns"), [(3.9, False), (4.1, True), (float("nan"), True)])
def test_it_warns_from_the_documented_growth_on(growth, warns):
    weight = nn.Parameter(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    CorrectedLearningRate(optimizer, {"w": weight}, RecordedNorms({"w": torch.ones(3, 2, dtype=torch.float64)}))
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    weight.data[1, 0] = growth**0.5
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.step()
        optimizer.step()
    assert [str(w.message).partition("; ")[0] for w in caught] == (
        [f"step 2: the correction of 'w', channel 1, has grown by a factor of {growth:.3g} since the last one"]
        if warns
        else []
    )


# ------------------------------------------------------------------------------------------------- refused


def attempt(change=None, named=None, optimizer=None, **options):
    model = exactly_invariant()
    weights = invariant(model)
    recorded = recorded_norms(model)
    if change:
        change(weights, recorded)
    make = optimizer or (lambda p: torch.optim.SGD(p, lr=0.1))
    CorrectedLearningRate(make(list(weights.values())), weights if named is None else named, recorded, **options)


def test_what_is_right_is_not_refused():
    attempt()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"named": {"1.weight": nn.Parameter(torch.ones(64, 64))}}, r"'1\.weight' is not among the optimizer's param"),
        ({"named": {"norm.weight": torch.ones(3)}}, r"'norm\.weight' has the shape \(3,\): .*scale_invariance finds"),
        ({"named": {}}, r"expected named weights, each name once; received \[\]"),
        ({"named": [("a", torch.ones(2, 2))] * 2}, r"each name once; received \['a', 'a'\]"),
        ({"named": {"a": torch.eye(3)[[0, 2, 1]].tril()}}, r"'a': channel 1 has the norm 0, and so no direction"),
        ({"named": {"a": torch.tensor([[float("inf"), 1]])}}, r"'a': channel 0 has the norm inf"),
        ({"optimizer": torch.optim.AdamW}, r"has weight_decay=0\.01 in the optimizer: .*weight_decay=0"),
        ({"steps_per_record": 0}, r"steps_per_record: expected a positive number, received 0"),
        ({"change": lambda _, r: r.norms.pop("1.weight")}, r"no norms were recorded of '1\.weight', but of \['4"),
        (
            {"change": lambda _, r: r.norms.update({"1.weight": torch.ones(1, 3)})},
            r"'1\.weight' has 64 channels, and norms of 3 were recorded",
        ),
        ({"change": lambda _, r: r.norms["1.weight"].zero_()}, r"recorded norms of '1\.weight' are not all positive"),
        ({"change": lambda _, r: r.norms["1.weight"].fill_(torch.nan)}, r"are not all positive and finite"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        attempt(**arguments)
