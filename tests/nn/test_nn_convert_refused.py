"""`normcheck.nn.convert`: norms that it leaves as they are, with reasons, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from convertible import inputs, network, on_one_thread, quietly
from torch import nn

from normcheck import UsageError
from normcheck import nn as ours


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with on_one_thread():
        yield


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


# ------------------------------------------------------------------------------------------- what is left as it is


class Halved(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) / 2


def with_state_hook():
    norm = nn.BatchNorm2d(2)
    norm._register_state_dict_hook(lambda *_: None)
    return norm


LEFT = {
    "processes": nn.SyncBatchNorm(2),
    "none of torch's own": Halved(2),
    "already": ours.L1BatchNorm2d(2),
    "state dict": with_state_hook(),
    "reparametrised": torch.nn.utils.weight_norm,
    "running statistics, which": nn.InstanceNorm2d(2, track_running_stats=True),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("reason", LEFT)
def test_what_cannot_be_converted_is_left_with_a_reason(reason):
    left = LEFT[reason]
    if left is torch.nn.utils.weight_norm:
        left = left(nn.BatchNorm2d(2), "weight", dim=None)
    where = "instance" if isinstance(left, nn.InstanceNorm2d) else "batch"
    other = nn.InstanceNorm2d(2) if where == "instance" else nn.BatchNorm2d(2)
    model = nn.Sequential(other, left)
    converted = ours.convert(model, where=where, inplace=True)
    assert converted[1] is left
    (skipped,) = ours.conversion_of(nn.Sequential(other, left), converted).skipped
    assert skipped.name == "1"
    assert reason in skipped.reason


def test_another_k_or_constant_is_something_to_convert():
    norm = ours.TopKBatchNorm2d(2, k=10)
    assert ours.convert(norm, "topk", k=3).k == 3
    assert ours.convert(norm, "topk", constant="paper").constant == "paper"
    with pytest.raises(UsageError, match="it is batch-topk already"):
        ours.convert(norm, "topk")


def test_norms_that_were_not_asked_for_are_told_of():
    model = network()
    changes = ours.conversion_of(model, quietly(model, layers="1"))
    assert [(item.name, item.reason) for item in changes.skipped] == [("4", "it was not asked for")]


# ------------------------------------------------------------------------------------------------------- errors


class Stubborn(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        try:
            return self.norm(x)
        except Exception:  # noqa: BLE001 - a model that goes on whatever happens
            return x


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Linear(2, 2), {}, "nothing to convert: the model has no batch norm$"),
        (nn.LayerNorm(2), {}, "the model has no batch norm$"),
        (nn.SyncBatchNorm(2), {}, "none of the batch norms can be: SyncBatchNorm: SyncBatchNorm shares its statistics"),
        (nn.LazyBatchNorm1d(), {}, "is not initialised yet"),
        (nn.BatchNorm1d(2, device="meta"), {}, "meta device"),
        (nn.DataParallel(nn.BatchNorm1d(2)), {}, "before it is wrapped"),
        ("model.pt", {}, "expected a torch.nn.Module"),
        (nn.BatchNorm1d(2), {"statistic": "l3"}, "unknown statistic 'l3'"),
        (nn.BatchNorm1d(2), {"constant": "right"}, "constant must be exact or paper"),
        (nn.BatchNorm1d(2), {"k": 0}, "k must be an integer of at least 1"),
        (nn.BatchNorm1d(2), {"eps": -1.0}, "eps: expected 'comparable', 'same' or a number"),
        (nn.BatchNorm1d(2), {"eps": math.nan}, "eps: expected"),
        (nn.BatchNorm1d(2), {"eps": "as before"}, "eps: expected"),
        (nn.BatchNorm1d(2), {"where": "weight"}, "where: expected some of batch, layer, rms, group, instance"),
        (nn.BatchNorm1d(2), {"where": ()}, "where: expected"),
        (nn.Sequential(nn.BatchNorm1d(2)), {"layers": "bn*"}, r"no norm matches 'bn\*'; the norms are 0"),
        (
            nn.BatchNorm1d(2),
            {"calibrate": torch.rand(4, 3)},
            "BatchNorm1d: expected 2 channels",
        ),
        (nn.BatchNorm1d(2), {"calibrate": torch.rand(1, 2)}, "BatchNorm1d: expected more than 1 value per channel"),
        (nn.BatchNorm1d(2), {"calibrate": torch.rand(4, 2), "statistic": "topk"}, "BatchNorm1d: topk takes the k = 10"),
        (nn.BatchNorm1d(2), {"calibrate": []}, "is the loader empty"),
        (nn.BatchNorm1d(2), {"calibrate": 7}, "expected a tensor or a loader"),
        (nn.BatchNorm1d(2), {"calibrate": ["x.pt"]}, "a batch is a tensor"),
        (Stubborn(), {"calibrate": torch.rand(1, 2)}, "norm: expected more than 1 value"),
        (Stubborn(), {"calibrate": [torch.rand(1, 2)] * 2}, "norm: expected more than 1 value"),
        (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), {"calibrate": torch.rand(2, 4)}, "does not take these"),
    ],
)
def test_what_cannot_be_is_said(model, options, message):
    with pytest.raises(UsageError, match=message):
        ours.convert(model, **options)


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning")
def test_a_compiled_model_is_refused():
    with pytest.raises(UsageError, match="before it is wrapped or compiled"):
        ours.convert(nn.Sequential(torch.compile(nn.BatchNorm1d(2)), nn.BatchNorm1d(2)))


@pytest.mark.parametrize("statistic", ["linf", "topk", "range"])
def test_the_published_constants_need_data_since_they_depend_on_the_batch(statistic):
    model = network()
    with pytest.raises(UsageError, match="depend on the size of batches"):
        ours.convert(model, statistic, constant="paper")
    from_paper = ours.convert(model, statistic, constant="paper", calibrate=inputs())
    with pytest.raises(UsageError, match="depend on the size of batches"):
        ours.convert(from_paper, "l1")
    assert quietly(model, "l1", constant="paper")[1].constant == "paper"


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning")
def test_a_scripted_model_is_refused():
    with pytest.raises(UsageError, match="scripted"):
        ours.convert(torch.jit.script(nn.Linear(1, 1)))
