"""The public names: all there, loaded only when used, and not shadowed by the modules of the same names."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import normcheck
from normcheck.arithmetic.formats import FORMATS, Format
from normcheck.norms.table import NORMS, Norm

ROOT = Path(__file__).resolve().parent.parent
TABLES = ("distributions", "formats", "implementations", "norms", "rules")


def in_a_fresh_process(code):
    """Run `code` where nothing of normcheck is loaded yet; a failed assertion in it fails here."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", normcheck.__all__)
def test_every_public_name_can_be_had_and_is_listed(name):
    assert getattr(normcheck, name) is not None
    assert name in dir(normcheck)


@pytest.mark.parametrize("name", normcheck.__all__)
def test_every_public_name_is_documented(name):
    if name != "__version__":
        assert inspect.getdoc(getattr(normcheck, name))


@pytest.mark.parametrize("name", normcheck._HOMES)
def test_a_public_name_is_its_modules_own(name):
    home = importlib.import_module(normcheck._HOMES[name])
    assert getattr(normcheck, name) is getattr(home, name)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_tuples_of_named_rows(name):
    table = getattr(normcheck, name)()
    assert isinstance(table, tuple)
    assert len(table) > 3
    labels = [getattr(row, "code" if name == "rules" else "name") for row in table]
    assert len(set(labels)) == len(labels)


def test_tables_are_those_of_the_package():
    assert normcheck.formats() is FORMATS
    assert all(type(row) is Format for row in normcheck.formats())
    assert normcheck.norms() == tuple(NORMS.values())
    assert all(type(row) is Norm for row in normcheck.norms())


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'normcheck' has no attribute 'nosuch'"):
        normcheck.nosuch  # noqa: B018


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert normcheck.__version__ == project["version"]


def test_names_are_loaded_when_first_used():
    in_a_fresh_process(
        "import sys, normcheck\n"
        "assert not {'normcheck.errors', 'normcheck.arithmetic', 'numpy'} & set(sys.modules)\n"
        "assert 'UsageError' not in vars(normcheck) and 'UsageError' in dir(normcheck)\n"
        "error = normcheck.UsageError\n"
        "assert 'normcheck.errors' in sys.modules and 'numpy' not in sys.modules\n"
        "assert vars(normcheck)['UsageError'] is error  # the second use costs nothing\n"
        "assert issubclass(error, normcheck.NormcheckError)"
    )


def test_star_import_brings_every_public_name():
    code = "from normcheck import *\nimport normcheck\nassert set(normcheck.__all__) <= set(globals())"
    in_a_fresh_process(code)


@pytest.mark.parametrize(
    "first",
    [
        "import normcheck.norms",
        "import normcheck.norms.table",
        "from normcheck.norms import constants",
        "from normcheck.norms.table import NORMS",
        "import normcheck; normcheck.norms()",
        "from normcheck import norms; norms()",
    ],
)
def test_norms_is_both_the_function_and_the_subpackage(first):
    in_a_fresh_process(
        f"{first}\n"
        "import normcheck, normcheck.norms.table, sys\n"
        "assert [norm.name for norm in normcheck.norms()][0] == 'batch-l2'\n"
        "assert normcheck.norms is sys.modules['normcheck.norms']\n"
        "assert normcheck.norms.table.NORMS['rms'] in normcheck.norms()"
    )


def test_no_module_shadows_a_function():
    homes = [*normcheck._HOMES.values(), "normcheck.layers.distributions", "normcheck.analysis.rules"]
    names = ["distributions", "emulate", "formats", "implementations", "round_to", "rules", "simulate"]
    in_a_fresh_process(
        "import importlib, types, normcheck\n"
        f"for module in {homes}: importlib.import_module(module)\n"
        f"for name in {names}: assert isinstance(getattr(normcheck, name), types.FunctionType), name"
    )
