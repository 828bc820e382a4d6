"""The hook for pre-commit: which files it takes, and which commits it lets through."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))

pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="no shell on this machine")


@pytest.fixture
def commit(tmp_path):
    """Return a function that runs the hook on files as pre-commit does, in a folder with some checkpoints."""
    for name in ("digits-cnn.pt", "breast-cancer-mlp.pt"):
        shutil.copy(DATA / name, tmp_path)
    torch.save({"linear.weight": torch.zeros(3, 3)}, tmp_path / "no norms.pt")
    (tmp_path / "damaged.pt").write_bytes(b"\0\1\2")
    program = tmp_path / "bin" / "normcheck"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m normcheck "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])

    def run(*files, arguments=()):
        command = [*shlex.split(HOOK["entry"]), *arguments, *files]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    return run


def test_the_hook_is_complete():
    assert HOOK["id"] == HOOK["name"] == "normcheck"
    assert HOOK["language"] == "python"
    assert HOOK["types"] == ["binary"]
    assert HOOK["require_serial"] is True
    assert HOOK["verbose"] is True
    known = {"id", "name", "description", "language", "entry", "files", "types", "require_serial", "verbose"}
    assert set(HOOK) == known


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors", "a/b/model-00001-of-00002.safetensors", "m.pt", "m.pth", "m.pth.tar.pt", "last.ckpt",
        "llama-q8_0.gguf", "m.onnx", "m.pt2", "pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.bin",
        "x/pytorch_model-00001-of-00003.bin",
    ],
)  # fmt: skip
def test_checkpoints_are_taken(name):
    assert re.search(HOOK["files"], name)


@pytest.mark.parametrize(
    "name", ["model.py", "m.pt.md5", "firmware.bin", "training_args.bin", "mpt", "pt/readme.md", "config.json", "a.ptx"]
)
def test_other_files_are_not(name):
    assert not re.search(HOOK["files"], name)


def test_a_safe_checkpoint_is_let_through(commit):
    code, said = commit("digits-cnn.pt")
    assert code == 0
    assert "ok in all 3 layers" in said


def test_a_broken_one_is_refused_alone_and_among_others(commit):
    for files in (["breast-cancer-mlp.pt"], ["digits-cnn.pt", "breast-cancer-mlp.pt", "no norms.pt"]):
        code, said = commit(*files)
        assert code == 1
        assert "error NC102" in said


def test_one_without_norms_is_let_through_alone_and_among_others_and_says_so(commit):
    code, said = commit("no norms.pt")
    assert code == 0
    assert "nothing was analysed: no normalization layers were found" in said
    code, said = commit("digits-cnn.pt", "no norms.pt")
    assert code == 0
    assert "no norms.pt: no normalization layers were found" in " ".join(said.split())


def test_a_file_that_cannot_be_read_is_refused(commit):
    assert commit("damaged.pt")[0] == 1
    code, said = commit("digits-cnn.pt", "damaged.pt")
    assert code == 1
    assert "error: damaged.pt: " in said


def test_arguments_of_the_user_go_before_the_files(commit):
    assert commit("breast-cancer-mlp.pt", arguments=["--params", "autocast"])[0] == 0
    code, said = commit("digits-cnn.pt", arguments=["--precision", "fp61"])
    assert code == 1
    assert "unknown format 'fp61'" in said
