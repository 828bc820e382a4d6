"""Every output, byte by byte; `regenerate.py` says how to accept a change."""

from __future__ import annotations

import pytest
import regenerate


@pytest.mark.parametrize("name", sorted(regenerate.outputs()))
def test_output_is_as_recorded(name):
    assert regenerate.outputs()[name].encode() == (regenerate.GOLDEN / name).read_bytes()


def test_no_golden_file_is_forgotten():
    assert {path.name for path in regenerate.GOLDEN.iterdir()} == set(regenerate.outputs())
