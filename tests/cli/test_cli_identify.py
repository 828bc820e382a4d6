"""``normcheck identify``: files in, the nearest rows out."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch

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
        (("--threads", "0"), "--threads 0: give 1 or more"),
        (("--implementation", "torch-cpu-layernorm-fp32"), "does not define rms"),
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


def both(tmp_path, x, y):
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    return ("identify", "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "y.npy"), "--norm")


@pytest.mark.parametrize(("name", "label"), [("float16", "fp16"), ("bfloat16", "bf16")])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_wide_files_of_half_precision_numbers_are_compared_in_that_format(normcheck, tmp_path, name, label, kind):
    x = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    x = (x.view(np.uint32) & 0xFFFF0000).view(np.float32) * (1 if label == "bf16" else 1 + 2**-10)
    x = x if label == "bf16" else x.astype(np.float16)
    y = api.emulate(x.astype(np.float32), "rms", precision=label, implementation="pure").output
    call = both(tmp_path, x.astype(kind), y.astype(kind))
    outcome = normcheck(*call, "rms")
    assert f"{label} (all numbers are {name}'s)" in " ".join(outcome.out.split())
    assert json.loads(normcheck(*call, "rms", "--precision", "fp32", "--format", "json").out)["why"] == ""


def test_float32_numbers_stay_float32(normcheck, tmp_path):
    x = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    found = json.loads(normcheck(*both(tmp_path, x, x), "rms", "--format", "json").out)
    assert (found["precision"], found["why"], found["num_groups"]) == ("fp32", "", None)


def test_where_no_row_fits_the_arguments_are_to_be_checked(normcheck, tmp_path):
    x = np.random.default_rng(0).standard_normal((4, 6, 16)).astype(np.float16)
    outcome = normcheck(*both(tmp_path, x, x * np.float16(3)), "group-l2")
    text = " ".join(outcome.out.split())
    assert "none fits: " in text
    assert "check --norm, --eps, --weight" in text
    assert "nearest:" not in text
    assert "6 groups" in text


def test_identical_rows_are_shown_beyond_the_nearest(normcheck, call):
    found = json.loads(normcheck(*arguments(call, "--weight", f"{call}:w", "--format", "json")).out)
    alike = [row["implementation"] for row in found["candidates"] if row["identical"] == row["compared"]]
    assert len(alike) > 1
    text = normcheck(*arguments(call, "--weight", f"{call}:w", "--top", "1")).out
    assert all(name in text.partition("all 1024")[0] for name in alike)
    assert f"and {len(found['candidates']) - len(alike)} implementations farther off" in text


def test_flushing_and_threads_reach_the_emulation(normcheck, tmp_path):
    x = (np.random.default_rng(0).standard_normal((8, 64)) * 1e-3).astype(np.float16)
    w = np.full(64, 2.0**-10, np.float16)
    np.save(tmp_path / "w.npy", w)
    y = api.emulate(x.astype(np.float32), "rms", precision="fp16", weight=w, ftz=True, daz=True).output
    call = (*both(tmp_path, x, y.astype(np.float16)), "rms", "--weight", str(tmp_path / "w.npy"))
    call += ("--implementation", "pure", "--least", "1", "--threads", "2")
    assert normcheck(*call).code == 1
    assert normcheck(*call, "--ftz", "--daz").code == 0


def test_files_of_one_bare_tensor_of_torch_are_read(normcheck, tmp_path):
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.save(x, tmp_path / "x.pt")
    outcome = normcheck("identify", "--input", f"{tmp_path}/x.pt", "--output", f"{tmp_path}/x.pt", "--norm", "rms")
    assert outcome.code == 0
    assert "bf16;" in outcome.out


def test_files_that_cannot_be_read_say_why(normcheck, tmp_path):
    torch.save({"x": Fraction(1, 2)}, tmp_path / "f.pt")
    torch.save({"a": 1}, tmp_path / "d.pt")
    np.save(tmp_path / "v.npy", np.zeros(4, np.uint16).view("V2"))
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float16))
    for name, wanted in {
        "f.pt": "save the tensors alone",
        "d.pt": "holds a dict; save a tensor",
        "v.npy": "as bfloat16 arrays of ml_dtypes are saved",
        "x.npy:x": "holds one array without a name",
        "none.npy": "there is no such file or directory; check the path",
    }.items():
        outcome = normcheck("identify", "--input", f"{tmp_path}/{name}", "--output", "y.npy", "--norm", "rms")
        assert outcome.code == 2
        assert wanted in outcome.err
        assert "--trust" not in outcome.err


def test_the_norm_is_checked_before_files_are_read(normcheck):
    outcome = normcheck("identify", "--input", "none.npy", "--output", "none.npy", "--norm", "rsm")
    assert outcome.code == 2
    assert "unknown norm 'rsm'" in outcome.err


def test_named_implementations_that_do_not_define_the_norm_are_said_beside_those_that_do(normcheck, call):
    outcome = normcheck(*arguments(call, "--implementation", "pure,torch-cpu-layernorm-fp32"))
    assert outcome.code == 0
    assert "not tried: torch-cpu-layernorm-fp32 does not define rms" in " ".join(outcome.out.split())


def test_rows_that_were_compared_on_a_part_are_said_to_be(normcheck, monkeypatch, call):
    monkeypatch.setattr("normcheck.analysis.identify.SAMPLE", 256)
    text = " ".join(normcheck(*arguments(call, "--weight", f"{call}:w")).out.split())
    assert "the first 8 implementations: compared on all 1024 elements; the others on 256 of them" in text
