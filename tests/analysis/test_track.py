from __future__ import annotations

import dataclasses
import math
import random
import weakref
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn
from tracked_runs import adamw, net, sgd, train

from normcheck.analysis import track_series
from normcheck.analysis.track import track
from normcheck.analysis.track_findings import COLLAPSED, GROWN, SHARE
from normcheck.analysis.track_invariance import invariances
from normcheck.analysis.track_series import expanded, natural, opened
from normcheck.analysis.track_updates import DEGREES, counted, kind_of, step_of
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import round_to
from normcheck.errors import UsageError
from normcheck.layers.readers import read
from normcheck.layers.readers.optimizer_state import Slot, matched, read_training
from normcheck.optim import channel_norms, scale_invariance
from normcheck.optim.correction import DEGREES as DEGREES_OF_TORCH
from normcheck.paper.digits import digits

DATA = Path(__file__).resolve().parents[2] / "data"


def series(folder, *checkpoints, kind="safetensors"):
    """Write checkpoints, mappings of arrays, and return their paths."""
    paths = []
    for number, arrays in enumerate(checkpoints):
        path = folder / f"step-{number}.{kind}"
        as_arrays = {name: np.asarray(a, np.float32) for name, a in arrays.items()}
        if kind == "pt":
            torch.save({name: torch.from_numpy(a) for name, a in as_arrays.items()}, path)
        else:
            save_file(as_arrays, path)
        paths.append(str(path))
    return paths


def only(report, name="w.weight"):
    (found,) = [layer for layer in report.layers if layer.name == name]
    return found


def kinds(report):
    return {finding.kind for finding in report.findings}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of checkpoints: of SGD with weight decay and without, the latter saved in three ways, and of AdamW."""
    folder = tmp_path_factory.mktemp("runs")
    for name, make in (("decayed", sgd(0.05)), ("plain", sgd()), ("adamw", adamw)):
        train(folder / f"{name} in all ways", make)
        (folder / name).symlink_to(folder / f"{name} in all ways" / "whole")
    for way in ("weights", "safetensors"):
        (folder / way).symlink_to(folder / "plain in all ways" / way)
    return folder


# -------------------------------------------------------------------------------------------- norms and drift


def test_norms_steps_and_angles_of_a_case_by_hand(tmp_path):
    paths = series(tmp_path, {"w.weight": [[3, 4], [0, 1]]}, {"w.weight": [[6, 8], [2, 0]]})
    layer = only(track(paths, rates=[0.5, 0.1], optimizer="sgd", channels=True))
    first, last = layer.points
    assert first.norms_of_channels == (5, 1)
    assert last.norms_of_channels == (10, 2)
    assert (first.norm, last.norm) == (math.sqrt(26), math.sqrt(104))
    assert (first.effective_step.smallest, first.effective_step.largest) == (0.5 / 25, 0.5)
    assert (last.effective_step.smallest, last.effective_step.largest) == (0.1 / 100, 0.1 / 4)
    assert first.angle_degrees is None
    assert last.angle_degrees.smallest == 0
    assert last.angle_degrees.largest == pytest.approx(90, rel=1e-14)
    assert last.relative_change == pytest.approx(math.sqrt((9 + 16 + 4 + 1) / 26))
    assert layer.drift.norm_ratio.median == 2
    assert layer.drift.step_ratio.median == pytest.approx(0.2 / 4)
    assert layer.drift.trend == pytest.approx(last.effective_step.median / first.effective_step.median)


def test_the_norms_are_those_of_the_library(tmp_path):
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    point = only(track(series(tmp_path, {"w.weight": weight.numpy()}), channels=True)).points[0]
    np.testing.assert_allclose(point.norms_of_channels, channel_norms(weight), rtol=1e-15)


@pytest.mark.parametrize(("optimizer", "power"), [("sgd", 2), ("adam", 1), ("AdamW", 1), (None, 2)])
def test_the_effective_step_goes_with_the_power_of_the_optimizer(tmp_path, optimizer, power):
    paths = series(tmp_path, {"w.weight": [[2.0, 0.0]]}, {"w.weight": [[4.0, 0.0]]})
    layer = only(track(paths, rates=[1.0], optimizer=optimizer))
    assert layer.power == power
    assert layer.points[1].effective_step.median == 4.0**-power
    assert layer.drift.step_ratio.median == 2.0**-power


def test_a_weight_that_is_invariant_as_a_whole_has_one_effective_step(tmp_path):
    made = {"net.0.weight": [[3.0, 0.0], [0.0, 4.0]], "net.1.weight": [1.0, 1.0], "net.1.bias": [0.0, 0.0]}
    report = track(series(tmp_path, made, kind="pt"), rates=[1.0], layers=["net.0"])
    layer = only(report, "net.0.weight")
    assert layer.scope == "tensor"
    assert layer.points[0].effective_step.smallest == layer.points[0].effective_step.largest == 1 / 25


def test_without_learning_rates_ratios_are_of_norms_alone(tmp_path):
    paths = series(tmp_path, *({"w.weight": [[2.0**k, 0.0]]} for k in range(4)))
    report = track(paths)
    layer = only(report)
    assert layer.points[0].effective_step is None
    assert layer.drift.step_ratio.median == 1 / 64
    assert layer.drift.trend == pytest.approx(1 / 4)
    assert "rate-unknown" in kinds(report)


def test_small_angles_are_right(tmp_path):
    paths = series(tmp_path, {"w.weight": [[1.0, 0.0]]}, {"w.weight": [[1.0, 2.0**-30]]})
    angle = only(track(paths)).points[1].angle_degrees.median
    assert angle == pytest.approx(math.degrees(2.0**-30), rel=1e-12)


def test_one_checkpoint_has_no_drift_and_no_updates(tmp_path):
    layer = only(track(series(tmp_path, {"w.weight": [[1.0, 2.0]]})))
    assert layer.drift is None
    assert layer.points[0].update_from is None
    assert layer.points[0].lost == ()


def test_channels_that_are_zero_or_not_finite_are_counted_and_left_out(tmp_path):
    paths = series(tmp_path, {"w.weight": [[1, 0], [1, 0], [1, 0]]}, {"w.weight": [[2, 0], [0, 0], [np.inf, np.nan]]})
    report = track(paths, rates=[1.0])
    point = only(report).points[1]
    assert (point.zero_channels, point.nonfinite_channels) == (1, 1)
    assert point.effective_step.largest == 1 / 4
    assert only(report).drift.norm_ratio.largest == 2
    assert {"zero-channels", "not-finite"} <= kinds(report)
    assert report.findings[0].severity == "error"


# ------------------------------------------------------------------------------------------------ lost updates

ONE_ODD = 1 + 2.0**-10


@pytest.mark.parametrize(
    ("weight", "update", "lost"),
    [
        (1.0, 2.0**-11, 1),  # half an ulp up, a tie: to the even 1
        (1.0, 2.0**-11 * (1 + 2.0**-20), 0),
        (1.0, -(2.0**-12), 1),  # below 1 the ulp is half as large
        (1.0, -(2.0**-12) * (1 + 2.0**-20), 0),
        (ONE_ODD, 2.0**-11, 0),  # a tie: away from the odd one
        (ONE_ODD, 2.0**-11 * (1 - 2.0**-20), 1),
        (0.0, 2.0**-25, 1),  # half of the smallest subnormal
        (0.0, 2.0**-25 * (1 + 2.0**-20), 0),
        (2.0**-24, 2.0**-25 * (1 - 2.0**-20), 1),
        (65504.0, 15.9, 1),
        (65504.0, 16.0, 0),  # to infinity
        (-1.0, -(2.0**-11), 1),
        (1.0, 1e-300, 1),
    ],
)
def test_an_update_below_half_an_ulp_is_lost_and_one_above_is_not(weight, update, lost):
    counts = counted(np.array([[weight]], np.float32), np.array([[update]]), format_named("fp16"))
    assert (int(counts.lost[0]), int(counts.of[0])) == (lost, 1)


@pytest.mark.parametrize("update", [0.0, np.nan])
def test_no_update_and_none_that_is_a_number_count_as_none(update):
    counts = counted(np.ones((1, 1), np.float32), np.array([[update]]), format_named("bf16"))
    assert (counts.lost[0], counts.of[0]) == (0, 0)


def test_weights_beyond_the_format_are_counted_apart():
    weight = np.array([[70000.0, 1.0, np.nan]], np.float32)
    counts = counted(weight, np.ones((1, 3)), format_named("fp16"))
    assert (counts.lost[0], counts.of[0], counts.beyond[0]) == (0, 1, 2)


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp32", "float8_e4m3fn"])
def test_the_counts_are_those_of_exact_rational_arithmetic(name):
    form = format_named(name)
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((1, 2000)).astype(np.float32)
    kept = round_to(weight, form).astype(np.float64)
    scale = np.exp2(generator.uniform(-form.precision - 2, -form.precision + 2, weight.shape))
    update = kept * scale * generator.choice([-1.0, 1.0], weight.shape)
    update[0, :500] = np.abs(kept[0, :500]) * 2.0**-form.precision  # about the ties
    lost = counted(weight, update, form).lost[0]
    expected = sum(is_lost(k, u, form) for k, u in zip(kept[0], update[0], strict=True) if u)
    assert 200 < expected < 1800
    assert lost == expected


def is_lost(kept, update, form):
    """Whether kept + update lies nearer to `kept` than to its neighbours, ties to the even one; by fractions."""
    exact, magnitude = Fraction(kept) + Fraction(update), abs(Fraction(kept))
    exponent = max(math.frexp(kept)[1] - 1 if kept else form.emin, form.emin)
    ulp = Fraction(2) ** (exponent - form.mantissa_bits)
    below = ulp / 2 if magnitude == Fraction(2) ** exponent and exponent > form.emin else ulp
    outwards = (exact - Fraction(kept)) * (1 if kept >= 0 else -1)
    even = (magnitude / ulp) % 2 == 0
    distance, gap = abs(outwards), ulp if outwards > 0 else below
    return distance * 2 < gap or (distance * 2 == gap and even)


def test_in_fp16_updates_under_a_4096th_are_lost_and_from_a_2048th_on_are_not():
    weight = round_to(np.random.default_rng(0).uniform(0.5, 2, (1, 4000)).astype(np.float32), "fp16")
    wide = weight.astype(np.float64)
    counts = [
        counted(weight, wide * factor, format_named("fp16")) for factor in (0.999 / 4096, 1.5 / 4096, 1.001 / 2048)
    ]
    lost = [int(c.lost[0]) for c in counts]
    assert lost[0] == 4000
    assert 0 < lost[1] < 4000
    assert lost[2] == 0


# ------------------------------------------------------------------------------------- updates from the state

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2, dampening=0.1),
    "sgd up": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=1e-2),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, betas=(0.5, 0.9)),
    "adam up": lambda p: torch.optim.Adam(p, lr=0.01, maximize=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.0),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
}


def stepped(make, steps=3):
    """A linear layer in float64 after some steps, its weight before the last of them, and its optimizer."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    optimizer = make(model.parameters())
    before = None
    for _ in range(steps):
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        model(torch.randn(8, 4, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    return model, before, optimizer


def slot_of(path, name="weight"):
    ((snapshot,), unreadable) = opened([str(path)], trust=False)
    assert unreadable == []
    return snapshot.slots[name]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_update_by_the_state_is_the_one_that_was_made(tmp_path, name):
    model, before, optimizer = stepped(OPTIMIZERS[name])
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    slot = slot_of(tmp_path / "c.pt")
    kind = kind_of(slot)
    assert DEGREES_OF_TORCH[type(optimizer)] == DEGREES[kind]
    step = step_of(slot, kind, slot.settings["lr"], (3, 4))
    assert not step.estimated
    made = (model.weight.detach() - before).numpy()
    np.testing.assert_allclose(step.of(before.numpy(), slice(None)), made, rtol=1e-9, atol=1e-15)


def test_the_decay_of_adamw_is_part_of_its_update(tmp_path):
    model, before, optimizer = stepped(lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    slot = slot_of(tmp_path / "c.pt")
    found = step_of(slot, kind_of(slot), 0.01, (3, 4)).of(before.numpy(), slice(None))
    np.testing.assert_allclose(found, (model.weight.detach() - before).numpy(), rtol=1e-12, atol=1e-16)


def test_the_update_of_nesterov_needs_the_gradient_and_is_marked_as_an_estimate(tmp_path):
    model, _, optimizer = stepped(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    point = only(track([str(tmp_path / "c.pt")]), "weight").points[0]
    assert point.update_from == "optimizer"
    assert point.estimated


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        torch.optim.RMSprop,
        torch.optim.NAdam,
        torch.optim.RAdam,
        torch.optim.Adagrad,
        torch.optim.Adadelta,
    ],
)
def test_optimizers_whose_state_gives_no_update_fall_back_on_the_difference(tmp_path, make):
    for number in (1, 2):
        model, _, optimizer = stepped(make, number)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / f"{number}.pt")
    first, last = only(track([str(tmp_path)]), "weight").points
    assert first.update_from is None
    assert last.update_from == "difference"
    assert last.lr is not None


def test_every_optimizer_that_is_known_has_the_degree_of_the_library():
    assert {kind.__name__.lower(): degree for kind, degree in DEGREES_OF_TORCH.items()} == DEGREES


def test_where_updates_come_from_can_be_chosen(tmp_path, runs):
    def sources(update):
        points = only(track([str(runs / "plain")], update=update), "1.weight").points
        return [point.update_from for point in points]

    assert sources("auto") == [None, "optimizer", "optimizer", "optimizer"]
    assert sources("optimizer") == sources("auto")
    assert sources("difference") == [None, "difference", "difference", "difference"]
    with pytest.raises(UsageError, match="unknown source of updates 'both'"):
        track([str(tmp_path)], update="both")


def test_the_difference_is_divided_by_the_steps_between(tmp_path):
    paths = series(tmp_path, {"w.weight": [[1.0, 1.0]]}, {"w.weight": [[1.0 + 2.0**-9, 1.0]]})
    assumed, given = (track(paths, precisions=["fp16"], steps_between=n) for n in (None, 8))
    assert "steps-assumed" in kinds(assumed)
    assert "steps-assumed" not in kinds(given)
    assert only(assumed).points[1].lost[0].lost == 0
    assert only(given).points[1].lost[0].lost == 1
    assert only(given).points[1].estimated
    assert only(given).points[1].relative_update == pytest.approx(only(assumed).points[1].relative_update / 8)
    assert not only(track(paths, steps_between=1)).points[1].estimated


def test_steps_that_checkpoints_state_are_taken(runs, tmp_path):
    report = track([str(runs / "adamw")], update="difference")
    assert [c.step for c in report.checkpoints] == [0, 12, 24, 36]
    assert [c.steps_since for c in report.checkpoints] == [None, 12, 12, 12]
    assert "steps-assumed" not in kinds(report)
    for step in (10, 30):
        torch.save({"model": net().state_dict(), "global_step": step}, tmp_path / f"s{step}.pt")
    assert track([str(tmp_path)]).checkpoints[1].steps_since == 20


# ------------------------------------------------------------------------------------------------- real runs


def test_a_run_with_weight_decay_and_one_without_differ_as_the_paper_says(runs):
    """Norms shrink under decay, and effective step sizes grow by as much; without, norms of invariant weights grow."""
    ratios = {}
    for name in ("decayed", "plain"):
        for layer in track([str(runs / name)]).layers:
            ratios[name, layer.name] = layer.drift.norm_ratio.median, layer.drift.step_ratio.median
    for weight in ("1.weight", "4.weight"):
        assert ratios["decayed", weight][0] < ratios["plain", weight][0]
        assert ratios["plain", weight][0] > 1
        assert ratios["decayed", weight][1] > ratios["plain", weight][1]


@pytest.mark.parametrize("name", ["plain", "weights", "safetensors"])
def test_the_same_run_gives_the_same_norms_in_every_format(runs, name):
    found = track([str(runs / name)], rates=[0.1], update="difference", steps_between=12)
    wanted = track([str(runs / "plain")], rates=[0.1], update="difference", steps_between=12)

    def measured(report):
        layers = sorted(report.layers, key=lambda layer: layer.name)
        return [dataclasses.replace(layer, power=2) for layer in layers]

    assert measured(found) == measured(wanted)


def test_learning_rate_and_optimizer_come_from_the_state_unless_given(runs):
    report = track([str(runs / "adamw")])
    assert {c.optimizer for c in report.checkpoints} == {"adamw"}
    assert report.checkpoints[0].lr == (1e-3,)
    point = only(report, "1.weight").points[-1]
    assert point.lr == 1e-3
    assert point.effective_step.median == pytest.approx(1e-3 / point.channel_norms.median, rel=0.05)
    given = track([str(runs / "adamw")], rates=[0.5], optimizer="sgd")
    assert only(given, "1.weight").points[-1].lr == 0.5
    assert only(given, "1.weight").power == 2


def test_a_schedule_needs_one_rate_a_checkpoint(runs):
    report = track([str(runs / "weights")], rates=[4, 3, 2, 1])
    assert [point.lr for point in only(report, "1.weight").points] == [4, 3, 2, 1]
    with pytest.raises(UsageError, match="3 learning rates for 4 checkpoints"):
        track([str(runs / "weights")], rates=[4, 3, 2])


def test_no_more_than_two_checkpoints_of_one_weight_are_in_memory(runs, monkeypatch):
    alive, most = [], []

    def read_watched(path, *, trust):
        contents = read(path, trust=trust)

        def watched(tensor):
            def load():
                array = tensor.load()
                if array.ndim > 1:
                    alive.append(weakref.ref(array if array.base is None else array.base))
                    most.append(sum(one() is not None for one in alive))
                return array

            return dataclasses.replace(tensor, load=load)

        return dataclasses.replace(contents, tensors={n: watched(t) for n, t in contents.tensors.items()})

    monkeypatch.setattr(track_series, "read", read_watched)
    track([str(runs / "safetensors")])
    assert len(alive) == 3 * 4  # each once
    assert max(most) == 2


# ----------------------------------------------------------------------------------------- whose state is it


def slot(shape, group=0, name=None):
    tensors = {"exp_avg": read(DATA / "digits-cnn.pt").tensors["classifier.weight"]} if shape else {}
    tensors = {key: dataclasses.replace(tensor, shape=shape) for key, tensor in tensors.items()}
    return Slot(settings={"lr": 0.1}, group=group, name=name, tensors=tensors, step=None)


def test_slots_are_matched_by_name_by_a_shape_of_their_own_or_by_order():
    shapes = {"a": (2, 3), "b": (3, 3), "c": (3, 3), "d": (4,)}
    named = [slot((3, 3), name="c"), slot((2, 3), name="a")]
    assert matched(named, shapes, ordered=False) == {"c": named[0], "a": named[1]}
    slots = [slot((2, 3)), slot((3, 3)), slot((3, 3)), slot((4,))]
    assert matched(slots, shapes, ordered=True) == dict(zip("abcd", slots, strict=True))
    assert matched(slots, shapes, ordered=False) == {"a": slots[0], "d": slots[3]}


def test_slots_that_could_be_of_several_weights_are_of_none():
    shapes = {"a": (2, 3), "b": (3, 3), "c": (3, 3)}
    apart = [slot((2, 3)), slot((3, 3), group=1), slot((3, 3), group=0)]
    assert matched(apart, shapes, ordered=True) == {"a": apart[0]}
    assert matched([slot((3, 3)), slot((2, 3))], shapes, ordered=True).keys() == {"a"}


def test_frozen_weights_without_state_do_not_shift_the_others(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model[0].requires_grad_(requires_grad=False)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    ((snapshot,), _) = opened([str(tmp_path / "c.pt")], trust=False)
    assert "2.weight" in snapshot.slots
    assert "0.weight" not in snapshot.slots
    assert "1.weight" not in snapshot.slots  # one state for two weights of that shape
    assert "cannot be told" in snapshot.note
    report = track([str(tmp_path / "c.pt")])
    assert "state-not-read" in kinds(report)


def test_groups_of_other_orders_and_rates_are_told_apart_by_shape(tmp_path):
    model = net()
    norms = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": norms, "lr": 1.0}, {"params": [p for p in model.parameters() if p.ndim == 2], "lr": 0.5}]
    optimizer = torch.optim.Adam(groups)
    model(torch.rand(4, 64)).square().mean().backward()
    optimizer.step()
    torch.save([{"net": model.state_dict()}, {"opt": [optimizer.state_dict()]}], tmp_path / "c.pt")
    report = track([str(tmp_path / "c.pt")])
    assert {layer.points[0].lr for layer in report.layers} == {0.5}
    assert report.checkpoints[0].lr == (1.0, 0.5)
    assert report.checkpoints[0].from_state == 3


def test_an_optimizer_that_was_given_names_is_matched_by_them(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = torch.optim.SGD(reversed(list(model.named_parameters())), lr=0.1, momentum=0.9)
    if "param_names" not in optimizer.state_dict()["param_groups"][0]:
        pytest.skip("this version of torch keeps no names")
    model(torch.rand(2, 3)).square().sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    tensor = slot_of(tmp_path / "c.pt", "1.weight").tensors["momentum_buffer"]
    wanted = optimizer.state[model[1].weight]["momentum_buffer"]
    np.testing.assert_array_equal(tensor.load(), wanted)


def test_the_state_beside_the_weights_of_a_folder_is_read(tmp_path):
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.25)
    for step in (2, 10):
        for _ in range(2 if step == 2 else 8):
            model(torch.rand(2, 4)).square().sum().backward()
            optimizer.step()
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({n: p.detach().numpy() for n, p in model.named_parameters()}, folder / "model.safetensors")
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    report = track([str(tmp_path)])
    assert [Path(c.path).name for c in report.checkpoints] == ["checkpoint-2", "checkpoint-10"]
    assert [c.step for c in report.checkpoints] == [2, 10]
    assert [p.update_from for p in only(report, "weight").points] == ["optimizer", "optimizer"]


def test_a_state_that_only_code_could_load_is_left_out_and_named(tmp_path):
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    save_file({"weight": np.ones((2, 2), np.float32)}, folder / "model.safetensors")
    torch.save({"state": {}, "param_groups": [], "scheduler": Path("x")}, folder / "optimizer.pt")
    found = read_training(folder)
    assert found.optimizer is None
    assert "pathlib" in found.note
    (finding,) = [f for f in track([str(folder)]).findings if f.kind == "state-not-read"]
    assert finding.checkpoint == str(folder)


def test_damaged_state_is_an_unreadable_checkpoint(tmp_path, runs):
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    save_file({"weight": np.ones((2, 2), np.float32)}, folder / "model.safetensors")
    whole = (runs / "adamw" / "epoch-1.pt").read_bytes()
    (folder / "optimizer.pt").write_bytes(whole[: len(whole) // 2])
    report = track([str(folder)])
    assert report.layers == ()
    assert "optimizer.pt" in report.unreadable[0].reason


def test_a_state_with_wrong_bytes_ends_in_a_report(tmp_path):
    model, _, optimizer = stepped(lambda p: torch.optim.AdamW(p, lr=0.25))
    save_file({"weight": model.weight.detach().numpy()}, tmp_path / "model.safetensors")
    torch.save(optimizer.state_dict(), tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "whole.pt").unlink()
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    generator, outcomes = random.Random(0), set()  # noqa: S311 - no secret
    for _ in range(300):
        wrong = bytearray(entries[pickled])
        wrong[generator.randrange(len(wrong))] = generator.randrange(256)
        with zipfile.ZipFile(tmp_path / "optimizer.pt", "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, bytes(wrong) if name == pickled else content)
        outcomes.add(bool(track([str(tmp_path)]).unreadable))
    assert outcomes == {False, True}


@pytest.mark.parametrize(
    "settings",
    [
        {"betas": (2.0, 0.9)},
        {"betas": (0.9,)},
        {"betas": "often"},
        {"eps": "small"},
        {"weight_decay": (1.0, 2.0)},
        {"lr": "fast"},
    ],
)
def test_settings_that_make_no_update_leave_none(tmp_path, settings):
    model, _, optimizer = stepped(lambda p: torch.optim.AdamW(p, lr=0.25))
    state = optimizer.state_dict()
    state["param_groups"][0].update(settings)
    torch.save({"model": model.state_dict(), "optimizer": state}, tmp_path / "c.pt")
    assert only(track([str(tmp_path / "c.pt")]), "weight").points[0].update_from is None


@pytest.mark.parametrize("steps", [float("nan"), float("inf"), 0.0])
def test_counts_of_steps_that_are_none_are_not_taken(tmp_path, steps):
    model, _, optimizer = stepped(lambda p: torch.optim.Adam(p, lr=0.25))
    state = optimizer.state_dict()
    state["state"][0]["step"] = torch.tensor(steps)
    torch.save({"model": model.state_dict(), "optimizer": state}, tmp_path / "c.pt")
    assert only(track([str(tmp_path / "c.pt")]), "weight").points[0].update_from is None


def test_weights_whose_squares_overflow_are_followed(tmp_path):
    torch.save({"w.weight": torch.full((2, 2), 1e200, dtype=torch.float64)}, tmp_path / "c.pt")
    point = only(track([str(tmp_path / "c.pt")], rates=[1.0])).points[0]
    assert point.norm == math.inf
    assert point.nonfinite_channels == 2


# --------------------------------------------------------------------------------------------- scale invariance


def scopes(model, folder, *, kind="pt"):
    path = folder / f"m.{kind}"
    state = {name: t.detach() for name, t in model.state_dict().items()}
    if kind == "pt":
        torch.save(state, path)
    else:
        save_file({name: t.numpy() for name, t in state.items()}, path)
    ((snapshot,), _) = opened([str(path)], trust=False)
    return {name: what.scope for name, what in invariances(snapshot.contents, snapshot.weights).items()}


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_structure_agrees_with_running_the_model(tmp_path, kind):
    model = net()
    found = scopes(model, tmp_path, kind=kind)
    run = scale_invariance(model.train(), digits()[0][:64] / 16)
    assert found == {name: one.scope or "none" for name, one in run.items()}
    assert found == {"1.weight": "channel", "4.weight": "channel", "7.weight": "none"}


def test_a_convolution_beside_its_norm_is_found_by_their_names():
    ((snapshot,), _) = opened([str(DATA / "digits-cnn.pt")], trust=False)
    found = invariances(snapshot.contents, snapshot.weights)
    assert {name: what.scope for name, what in found.items()} == {
        "features.0.conv.weight": "channel",
        "features.1.conv.weight": "channel",
        "features.2.conv.weight": "channel",
        "classifier.weight": "none",
    }
    assert found["features.0.conv.weight"].how == "followed by batch-l2 features.0.bn, by their names"


class Block(nn.Module):
    def __init__(self, width, *, before):
        super().__init__()
        make = {
            "conv1": lambda: nn.Conv2d(width, width, 1, bias=False),
            "bn1": lambda: nn.BatchNorm2d(width),
            "conv2": lambda: nn.Conv2d(width, width, 1, bias=False),
            "bn2": lambda: nn.BatchNorm2d(width),
        }
        for name in ("bn1", "conv1", "bn2", "conv2") if before else ("conv1", "bn1", "conv2", "bn2"):
            setattr(self, name, make[name]())


def test_norms_before_convolutions_are_not_taken_for_norms_behind_them(tmp_path):
    assert scopes(Block(4, before=False), tmp_path) == {"conv1.weight": "channel", "conv2.weight": "channel"}
    assert "channel" not in scopes(Block(4, before=True), tmp_path).values()


def test_where_a_file_has_lost_the_order_nothing_is_claimed_of_equal_widths(tmp_path):
    found = scopes(Block(4, before=False), tmp_path, kind="safetensors")
    assert set(found.values()) == {"unknown"}


@pytest.mark.parametrize(
    ("layers", "scope"),
    [
        ((nn.Linear(3, 4, bias=False), nn.LayerNorm(4)), "tensor"),
        ((nn.Linear(3, 4), nn.LayerNorm(4)), "none"),
        ((nn.Conv2d(3, 4, 1, bias=False), nn.GroupNorm(2, 4)), "unknown"),
        ((nn.Linear(3, 4), nn.Tanh(), nn.BatchNorm1d(4)), "unknown"),
        ((nn.BatchNorm1d(3), nn.Linear(3, 3)), "none"),
    ],
)
def test_what_a_norm_makes_of_the_weight_before_it(tmp_path, layers, scope):
    found = scopes(nn.Sequential(*layers), tmp_path)
    assert [what for name, what in found.items() if not name.startswith("norm")] == [scope]


def test_the_direction_of_a_weight_norm_is_invariant(tmp_path):
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2))
    assert scopes(model, tmp_path) == {"0.parametrizations.weight.original1": "channel", "1.weight": "none"}


def test_what_a_run_says_goes_before_structure(runs):
    report = track([str(runs / "plain")], scopes=lambda _: {"1.weight": ("none", "it was run")})
    assert (only(report, "1.weight").scope, only(report, "1.weight").how) == ("none", "it was run")
    assert only(report, "4.weight").scope == "channel"


# --------------------------------------------------------------------------------------------------- findings


def with_norm(weight):
    """A weight that a batch norm follows, as a file has it."""
    channels = len(weight)
    ones = np.ones(channels)
    return {
        "net.0.weight": weight,
        "net.1.weight": ones,
        "net.1.bias": ones,
        "net.1.running_mean": ones,
        "net.1.running_var": ones,
    }


@pytest.mark.parametrize(
    ("factor", "rates", "kind", "severity"),
    [
        (0.3, None, "step-grown", "warning"),
        (0.33, None, None, None),
        (3.2, None, "step-shrunk", "warning"),
        (3.1, None, None, None),
        (1.0, [1.0, 0.05], "step-shrunk", "note"),  # by the schedule of the learning rate
        (0.25, [1.0, 0.1], None, None),
    ],
)
def test_a_step_that_changes_tenfold_is_found_and_why(tmp_path, factor, rates, kind, severity):
    weight = np.eye(3) + 1
    report = track(series(tmp_path, with_norm(weight), with_norm(factor * weight), kind="pt"), rates=rates)
    found = {f.kind: f.severity for f in report.findings if f.kind.startswith("step-") and f.layer}
    assert found == ({} if kind is None else {kind: severity})
    assert GROWN == 10


def test_a_step_that_changes_is_no_matter_where_nothing_is_invariant(tmp_path):
    report = track(series(tmp_path, {"w.weight": [[1.0, 1.0]]}, {"w.weight": [[9.0, 9.0]]}))
    assert only(report).scope == "none"
    assert not {"step-grown", "step-shrunk"} & kinds(report)


def test_a_norm_that_vanishes_is_found(tmp_path):
    paths = series(tmp_path, {"w.weight": np.ones((2, 2))}, {"w.weight": [[1, 1], [0.9 * COLLAPSED] * 2]})
    assert "norm-collapsed" in kinds(track(paths))


@pytest.mark.parametrize(("lost", "fires"), [(1, False), (2, True)])
def test_more_than_a_tenth_of_lost_updates_is_found(tmp_path, lost, fires):
    after = np.full((1, 10), 2.0)
    after[0, :lost] = 1 + 2.0**-12
    paths = series(tmp_path, {"w.weight": np.ones((1, 10))}, {"w.weight": after})
    report = track(paths, precisions=["fp16"], steps_between=1)
    assert only(report).points[1].lost[0].share == lost / 10
    assert ("updates-lost" in kinds(report)) is fires
    assert SHARE == 0.1


def test_the_worst_channels_come_first(tmp_path):
    after = np.ones((3, 4), np.float32) * 2
    after[1] = 1 + 2.0**-12
    paths = series(tmp_path, {"w.weight": np.ones((3, 4))}, {"w.weight": after})
    report = track(paths, precisions=["fp16"], steps_between=1)
    assert only(report).worst[0].index == 1
    assert only(report).worst[0].lost == {"fp16": 1.0}
    assert only(report).points[1].lost[0].channels == 1
    assert "(worst: 1)" in next(f.message for f in report.findings if f.kind == "updates-lost")


def test_layers_with_findings_come_first(tmp_path):
    first = {"a.weight": np.ones((2, 8)), "b.weight": np.ones((2, 8))}
    second = {"a.weight": np.ones((2, 8)) * 1.5, "b.weight": np.ones((2, 8)) + 2.0**-12}
    assert [layer.name for layer in track(series(tmp_path, first, second)).layers] == ["b.weight", "a.weight"]


def test_a_weight_that_some_checkpoints_lack_is_followed_through_the_others(tmp_path):
    both, one = {"w.weight": np.ones((2, 2)), "v.weight": np.eye(2)}, {"v.weight": np.eye(2)}
    report = track(series(tmp_path, both, one, both))
    assert [point.checkpoint for point in only(report).points] == [0, 2]
    (finding,) = [f for f in report.findings if f.kind == "missing-weight"]
    assert (finding.layer, finding.severity) == ("w.weight", "warning")


def test_a_weight_whose_shape_changes_is_not_followed(tmp_path):
    report = track(series(tmp_path, *({"w.weight": np.ones((n, 2)), "v.weight": np.eye(2)} for n in (2, 3))))
    assert [layer.name for layer in report.layers] == ["v.weight"]
    assert [f.severity for f in report.findings if f.kind == "shape-changed"] == ["error"]
    assert report.skipped[0].name == "w.weight"


def test_steps_that_go_back_are_found(runs):
    paths = [str(runs / "adamw" / f"epoch-{n}.pt") for n in (2, 1)]
    assert "order" in kinds(track(paths))


# ----------------------------------------------------------------------------------------------- files, errors


def test_numbers_in_names_count_as_numbers(tmp_path):
    for number in (2, 10, 1):
        save_file({"w.weight": np.eye(2, dtype=np.float32)}, tmp_path / f"epoch-{number}.safetensors")
    wanted = [str(tmp_path / f"epoch-{n}.safetensors") for n in (1, 2, 10)]
    assert expanded([str(tmp_path)]) == wanted
    assert expanded([str(tmp_path / "epoch-*.safetensors")]) == wanted
    assert expanded([wanted[2], wanted[0]]) == [wanted[2], wanted[0]]  # as given
    assert natural("a10b") > natural("a9b") > natural("a")


def test_a_folder_of_one_model_is_one_checkpoint():
    folder = str(DATA / "digits-transformer")
    assert expanded([folder]) == [folder]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "lion"}, "unknown optimizer 'lion'"),
        ({"precisions": ["fp17"]}, "unknown format 'fp17'"),
        ({"rates": [-1.0]}, "--lr -1: give a finite number"),
        ({"rates": [math.nan]}, "--lr nan: give a finite number"),
        ({"steps_between": 0}, "--steps-between 0: give 1 or more"),
        ({"layers": ["nothing*"]}, r"--layer nothing\*: matches none of 3 weights"),
    ],
)
def test_what_cannot_be_used_is_refused(runs, options, said):
    with pytest.raises(UsageError, match=said):
        track([str(runs / "plain")], **options)


@pytest.mark.parametrize(("path", "said"), [("", "is empty"), ("no*such.pt", "matches no file")])
def test_paths_that_name_nothing_are_refused(path, said):
    with pytest.raises(UsageError, match=said):
        track([path])


def test_checkpoints_of_different_models_are_refused(runs):
    with pytest.raises(
        UsageError, match=r"digits-cnn\.pt: none of its 4 weights \(features\.0\.conv\.weight, \.\.\.\)"
    ):
        track([str(runs / "plain" / "epoch-0.pt"), str(DATA / "digits-cnn.pt")])


def test_a_file_that_cannot_be_read_is_reported_beside_the_others(runs, tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"nothing of the kind")
    paths = [str(runs / "plain" / "epoch-0.pt"), str(tmp_path / "broken.pt"), str(tmp_path / "missing.pt")]
    report = track(paths)
    assert [item.name for item in report.unreadable] == paths[1:]
    assert len(report.checkpoints) == 1
    assert len(report.layers) == 3


def test_tied_weights_are_followed_once(tmp_path):
    tied = torch.ones(3, 3)
    torch.save({"embed.weight": tied, "head.weight": tied}, tmp_path / "c.pt")
    assert [layer.name for layer in track([str(tmp_path / "c.pt")]).layers] == ["embed.weight"]


def test_vectors_norms_indices_and_statistics_are_no_weights(tmp_path):
    save_file(
        {
            "w.weight": np.ones((2, 2), np.float32),
            "scale.gamma": np.ones((1, 4, 1, 1), np.float32),
            "bias": np.ones(3, np.float32),
            "norm.weight": np.ones((4, 4), np.float32),
            "norm.bias": np.ones((4, 4), np.float32),
            "table": np.ones((2, 2), np.int64),
            "bn.running_mean": np.ones((2, 2), np.float32),
        },
        tmp_path / "c.safetensors",
    )
    assert [layer.name for layer in track([str(tmp_path / "c.safetensors")]).layers] == ["w.weight"]
