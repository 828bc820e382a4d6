"""Recorded norms: what they are, their files, and the schedule of norms that is made of them."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from normcheck.errors import NormcheckError, UnreadableError, UsageError
from normcheck.optim import NormRecorder, NormScheduler, RecordedNorms, channel_norms, directions, displacement_error
from normcheck.paper.weight_decay_task import NO_EPS, invariant, network


def recorder_of_three():
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float32))
    recorder = NormRecorder({"conv.weight": weight})
    for factor in (1, 2, 4):
        weight.data = factor * torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        recorder.record()
    return recorder


# ------------------------------------------------------------------------------------------------- lengths


def test_norms_are_of_output_channels_in_float64():
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    wanted = torch.stack([channel.double().square().sum().sqrt() for channel in weight])
    torch.testing.assert_close(channel_norms(weight), wanted, rtol=1e-15, atol=0)


def test_norms_of_half_precision_weights_do_not_overflow():
    weight = torch.full((1, 4), 60000.0, dtype=torch.float16)
    assert channel_norms(weight).tolist() == [2 * weight[0, 0].double()]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_that_are_not_finite_are_what_the_weights_make_them(bad):
    norms = channel_norms(torch.tensor([[bad, 1.0], [1.0, 0.0]]))
    assert norms[1] == 1
    assert norms[0].isnan() if math.isnan(bad) else norms[0].isinf()


def test_displacement_error_is_the_share_of_the_way_gone_astray():
    start = [torch.tensor([[1.0, 0.0, 0.0]])]
    reference = [torch.tensor([[5.0, 0.05, 0.0]])]
    other = [torch.tensor([[1.0, 0.0, 0.01]])]
    assert displacement_error(start, reference, reference) == 0
    assert displacement_error(start, start, reference) == 1
    assert displacement_error(start, other, reference) == pytest.approx(math.sqrt(2), rel=1e-4)
    halfway = [torch.tensor([[1.0, 0.005, 0.0]])]
    assert displacement_error(start, halfway, reference) == pytest.approx(0.5, rel=1e-3)
    assert math.isnan(displacement_error(start, other, start))


# ------------------------------------------------------------------------------------------------ recording


def test_a_record_is_of_the_weights_when_it_is_made():
    recorded = recorder_of_three().recorded
    assert len(recorded) == 3
    assert recorded.norms["conv.weight"].tolist() == [[5, 1], [10, 2], [20, 4]]
    assert recorded.row("conv.weight", 1).tolist() == [10, 2]


def test_every_so_manieth_record_begins_with_the_first():
    assert recorder_of_three().recorded.every(2).norms["conv.weight"].tolist() == [[5, 1], [20, 4]]
    with pytest.raises(UsageError, match="expected a positive number, received 0"):
        recorder_of_three().recorded.every(0)


def test_recording_goes_on_after_reading():
    recorder = recorder_of_three()
    assert len(recorder.recorded) == 3
    recorder.record()
    assert len(recorder.recorded) == 4


def test_a_run_that_diverges_is_recorded_as_it_is():
    weight = nn.Parameter(torch.ones(1, 2))
    recorder = NormRecorder([("w", weight)])
    weight.data.fill_(math.nan)
    recorder.record()
    assert recorder.recorded.norms["w"].isnan().all()


def test_nothing_recorded_is_refused():
    with pytest.raises(UsageError, match=r"call record\(\) before each step"):
        NormRecorder({"w": torch.ones(2, 2)}).recorded  # noqa: B018 - the property raises


# ---------------------------------------------------------------------------------------------------- files


def test_a_file_holds_the_same_bits(tmp_path):
    model = network("cnn", seed=0)
    recorder = NormRecorder(invariant(model))
    recorder.record()
    recorder.recorded.save(tmp_path / "norms.safetensors")
    loaded = RecordedNorms.load(tmp_path / "norms.safetensors")
    assert list(loaded.norms) == sorted(invariant(model))
    for name, norms in recorder.recorded.norms.items():
        assert torch.equal(loaded.norms[name], norms)
        assert loaded.norms[name].dtype == torch.float64


def test_every_other_record_can_be_saved(tmp_path):
    recorder_of_three().recorded.every(2).save(tmp_path / "norms.safetensors")
    assert len(RecordedNorms.load(tmp_path / "norms.safetensors")) == 2


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(NormcheckError, match=r"^cannot write .*none"):
        recorder_of_three().recorded.save(tmp_path / "none" / "norms.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NormcheckError, match=r"^cannot write .*folder"):
        recorder_of_three().recorded.save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "norms.safetensors"
    path.write_bytes(b"x" * 10_000)
    recorder_of_three().recorded.save(str(path))
    assert len(RecordedNorms.load(str(path))) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_other_files_are_not_read(tmp_path):
    save_file({"w": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "text").write_text("norms")
    for name, message in (("model.safetensors", "holds no recorded norms"), ("text", "text: "), ("none", "none: ")):
        with pytest.raises(UnreadableError, match=message):
            RecordedNorms.load(tmp_path / name)


# ------------------------------------------------------------------------------------------------ scheduling


def scheduler_of(model, records, divisor, **options):
    weights = invariant(model)
    generator = torch.Generator().manual_seed(3)
    recorded = {n: 0.5 + torch.rand(records, len(w), generator=generator).double() for n, w in weights.items()}
    return NormScheduler(weights, RecordedNorms(recorded), divisor, **options), recorded


def test_norms_are_set_as_the_authors_set_them_and_directions_stay():
    model = network("cnn", seed=0)
    scheduler, recorded = scheduler_of(model, 80, lambda epoch: 10 ** (epoch // 20))
    before = {name: directions(weight) for name, weight in invariant(model).items()}
    for epoch in (0, 19, 20, 79):
        scheduler.apply(epoch)
        for name, weight in invariant(model).items():
            wanted = recorded[name][epoch] * math.sqrt(10) ** (epoch // 20)
            torch.testing.assert_close(channel_norms(weight), wanted, rtol=1e-12, atol=0)
            torch.testing.assert_close(directions(weight), before[name], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "degree"), [(torch.optim.SGD, 1), (lambda p, lr: torch.optim.Adam(p, lr, eps=1e-30), 0)]
)
def test_a_longer_weight_acts_as_a_smaller_learning_rate(make, degree):
    """Through a norm without eps: the same turn from a tenth of the rate as from the norm that stands for it."""
    turns = []
    for lr, divisor in ((1e-4, 1), (1e-3, 10)):
        model = network("mlp", seed=0, eps=NO_EPS)
        scheduler_of(model, 1, lambda _, d=divisor: d, degree=degree)[0].apply(0)
        weights = invariant(model)
        before = {name: directions(weight) for name, weight in weights.items()}
        optimizer = make(weights.values(), lr=lr)
        inputs = torch.randn(32, 64, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        model(inputs).square().sum().backward()
        optimizer.step()
        turns.append(torch.cat([directions(weight) - before[name] for name, weight in weights.items()]))
    torch.testing.assert_close(turns[1], turns[0], rtol=1e-6, atol=1e-9)
    assert turns[0].abs().max() > 1e-4


@pytest.mark.parametrize("divisor", [0, -1, math.nan])
def test_a_divisor_that_is_none_is_refused(divisor):
    with pytest.raises(UsageError, match=r"epoch 0: expected a positive divisor"):
        scheduler_of(network("cnn", seed=0), 1, lambda _: divisor)[0].apply(0)


def test_an_epoch_that_was_not_recorded_is_refused():
    with pytest.raises(UsageError, match="2 norms were recorded, and number 3 is asked for"):
        scheduler_of(network("cnn", seed=0), 2, lambda _: 1)[0].apply(2)
