"""``normcheck identify``: files in, the nearest rows out."""

from __future__ import annotations

import json

import numpy as np
import pytest

import normcheck as api


@pytest.fixture
def call(tmp_path):
    """A file of what a kernel was given and gave."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((16, 64)).astype(np.float16), rng.standard_normal(64).astype(np.float16)
    y = api.emulate(x.astype(np.float32), "rms", precision="fp16", implementation="hf-llama-rmsnorm", weight=w).output
    path = tmp_path / "call.npz"
    np.savez(path, x=x, y=y.astype(np.float16), w=w)
    return path


def arguments(call, *more):
    return ("identify", "--input", f"{call}:x", "--output", f"{call}:y", "--norm", "rms", *more)


@pytest.mark.parametrize("width", ["80", "200"])
def test_the_kernel_is_named_and_nothing_is_cropped(normcheck, monkeypatch, call, width):
    monkeypatch.setenv("COLUMNS", width)
    outcome = normcheck(*arguments(call, "--weight", f"{call}:w"))
    assert outcome.code == 0
    assert "hf-llama-rmsnorm" in outcome.out
    assert "all 1024 elements are those of" in " ".join(outcome.out.split())
    assert max(map(len, outcome.out.splitlines())) <= int(width)


def test_json_has_every_candidate(normcheck, call):
    found = json.loads(normcheck(*arguments(call, "--weight", f"{call}:w", "--format", "json")).out)
    names = [row["implementation"] for row in found["candidates"]]
    assert "hf-llama-rmsnorm" in names
    assert found["candidates"][0]["share"] == 1.0
    assert found["precision"] == "fp16"


def test_too_small_a_share_is_exit_code_1(normcheck, call):
    assert normcheck(*arguments(call, "--implementation", "pure", "--least", "0.999")).code == 1
    assert normcheck(*arguments(call, "--implementation", "pure", "--least", "0")).code == 0


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (("--top", "0"), "--top 0: give 1 or more"),
        (("--least", "2"), "--least 2: a share from 0 to 1"),
        (("--weight", "nosuch.npy"), "nosuch.npy"),
        (("--precision", "fp8"), "fp8"),
        (("--implementation", "hf-lama"), "hf-llama"),
    ],
)
def test_errors_are_one_line(normcheck, call, more, wanted):
    outcome = normcheck(*arguments(call, *more))
    assert outcome.code == 2
    assert wanted in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_a_file_of_several_arrays_asks_for_a_name(normcheck, call):
    outcome = normcheck("identify", "--input", str(call), "--output", f"{call}:y", "--norm", "rms")
    assert outcome.code == 2
    assert "holds 3 arrays; name one" in outcome.err
