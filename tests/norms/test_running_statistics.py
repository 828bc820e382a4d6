"""What torch's batch norms on the CPU leave in their running statistics: the catalogue's rows give every bit of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from normcheck import emulate

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
CHANNELS = 40

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="the rows are of torch built with AVX2"
)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("momentum", [0.1, 0.37, 1.0])
@pytest.mark.parametrize(("precision", "params"), [
    ("fp32", "float32"), ("fp16", "half"), ("fp16", "float32"), ("bf16", "half"), ("bf16", "float32"),
])  # fmt: skip
def test_running_statistics_are_torchs_to_the_bit(precision, params, momentum, channels_last):
    rng = np.random.default_rng(7)
    stored = TYPES[precision if params == "half" else "fp32"]
    x = torch.tensor(rng.standard_normal((9, CHANNELS, 5, 4)) * 3 + 1).to(TYPES[precision])
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    mean = torch.tensor(rng.standard_normal(CHANNELS)).to(stored)
    var = torch.tensor(rng.random(CHANNELS) + 0.5).to(stored)
    weight = torch.tensor(rng.standard_normal(CHANNELS)).to(stored)
    before = {"running_mean": mean.double().numpy(), "running_var": var.double().numpy()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    y = torch.nn.functional.batch_norm(x, mean, var, weight, None, training=True, momentum=momentum)
    torch.set_num_threads(threads)
    got = emulate(
        x.double().numpy(),
        "batch-l2",
        precision=precision,
        params=params,
        implementation="torch-cpu-channels-last" if channels_last else "torch-cpu",
        momentum=momentum,
        weight=weight.double().numpy(),
        **before,
    )
    assert got.running_mean.tolist() == mean.tolist()
    assert got.running_var.tolist() == var.tolist()
    np.testing.assert_array_equal(got.output, y.double().numpy())
