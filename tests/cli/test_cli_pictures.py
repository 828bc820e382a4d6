"""The picture of magnitudes on standard output, whatever its encoding."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def shown(encoding):
    command = [sys.executable, "-m", "normcheck", "simulate", "--steps", "--shape", "4,4,4", "--implementation", "wide"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    text = done.stdout.decode(encoding)
    return text[text.index("ranges of") :].splitlines()


@pytest.mark.parametrize(("encoding", "bar"), [("utf-8", "█"), ("ascii", "#"), ("latin-1", "#")])
def test_a_picture_is_drawn_in_what_the_encoding_has(encoding, bar):
    lines = shown(encoding)
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("load") and bar in line for line in lines)
    assert f"values {bar}, " in "\n".join(lines)
    assert "\\u" not in "\n".join(lines)
