"""The shape of the code: one-way imports, no cycles, the layout, what loads what, and docstrings."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "normcheck"

# What each part may import, itself and the errors aside. The root package is the public face: it may import
# anything, and nothing of ours may import it but for its version.
PARTS = {
    "errors": set(),
    "results": set(),
    "arithmetic": set(),
    "norms": {"arithmetic"},
    "layers": {"arithmetic", "norms"},
    "analysis": {"arithmetic", "norms", "layers", "results"},
    "nn": {"arithmetic", "norms", "layers", "analysis", "results"},
    "optim": set(),
    "paper": {"arithmetic", "norms", "layers", "analysis", "nn", "optim", "results"},
    "render": {"results"},  # lists.py too: it is handed its tables as plain facts
    "cli": {"arithmetic", "norms", "layers", "analysis", "nn", "optim", "paper", "render", "results"},
    "testing": {"analysis", "cli", "render", "results"},
    "fidelity": {"arithmetic", "norms", "layers", "analysis", "render", "cli"},
}
FOREIGN = {  # heavy or defining libraries, and the modules or folders (ending in a dot) that may import them
    "typer": {"normcheck.cli.", "normcheck.fidelity.__main__"},
    "click": {"normcheck.cli."},
    "rich": {"normcheck.cli.", "normcheck.render."},
    "numba": {
        "normcheck.arithmetic.kernels",
        "normcheck.arithmetic.general",
        "normcheck.layers.counter_rng",
        "normcheck.analysis.deviation",
        "normcheck.analysis.reporting",  # its version, for the report's environment
    },
    "scipy": {
        "normcheck.norms.constants",
        "normcheck.layers.distributions",
        "normcheck.analysis.reporting",  # its version
        "normcheck.paper.seeds",
    },
    "torch": {"normcheck.layers.", "normcheck.nn.", "normcheck.optim.", "normcheck.paper.", "normcheck.fidelity."},
    "matplotlib": {"normcheck.render."},
}
LAZY_CYCLES = {  # imports inside functions that close a cycle on purpose
    # round_to loads its kernels when it is called
    ("normcheck.arithmetic.rounding", "normcheck.arithmetic.operations"),
}
HEAVY = ("torch", "numba", "scipy.stats", "matplotlib")


# ---------------------------------------------------------------------------------------- reading the imports


@dataclass(frozen=True)
class Import:
    """`module` imports `target`, when it is loaded, when a function runs, or for type checkers only."""

    module: str
    target: str
    when: str


def modules_of(root):
    """Return the source of every module of the package under `root`, by dotted name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = (path.read_text(encoding="utf-8"), path.name == "__init__.py")
    return found


class _Reader(ast.NodeVisitor):
    def __init__(self, module, is_package, known):
        self.module, self.known = module, known
        self.package = module.split(".") if is_package else module.split(".")[:-1]
        self.when, self.found = "load", []

    def add(self, target):
        self.found.append(Import(self.module, target, self.when))

    def visit_Import(self, node):
        for alias in node.names:
            self.add(alias.name)

    def visit_ImportFrom(self, node):
        above = self.package[: len(self.package) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            self.add(whole if whole in self.known or base == PACKAGE else base)

    def visit_Call(self, node):
        match node:
            case ast.Call(func=func, args=[ast.Constant(value=str(target)), *_]) if _imports(func):
                self.add(target)
        self.generic_visit(node)

    def visit_FunctionDef(self, node):
        self.within("call", ast.iter_child_nodes(node))

    def visit_AsyncFunctionDef(self, node):
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node):
        self.visit_FunctionDef(node)

    def visit_If(self, node):
        for_types = ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        self.within("types" if for_types else self.when, node.body)
        self.within(self.when, node.orelse)

    def within(self, when, nodes):
        before = self.when
        self.when = before if before == "types" else when
        for node in nodes:
            self.visit(node)
        self.when = before


def _imports(function):
    return ast.unparse(function).endswith(("import_module", "__import__"))


def imports_of(modules):
    """Return every import in `modules`, a mapping from dotted names to (source, is a package)."""
    found = []
    for name, (source, is_package) in modules.items():
        reader = _Reader(name, is_package, modules)
        reader.visit(ast.parse(source))
        found += reader.found
    return found


def part_of(module):
    """Return the part a module belongs to: the name below the package, "" for the public face."""
    if module == f"{PACKAGE}.__main__":
        return "cli"
    return module.partition(".")[2].partition(".")[0]


def wrong_ways(imports):
    """Return the imports of ours that `PARTS` does not allow, types included."""
    return [
        f"{i.module} imports {i.target}"
        for i in imports
        if (i.target == PACKAGE or i.target.startswith(f"{PACKAGE}."))
        and i.target != f"{PACKAGE}.__version__"
        and part_of(i.module)
        and part_of(i.target) not in PARTS[part_of(i.module)] | {part_of(i.module), "errors"}
    ]


def strangers(imports):
    """Return the imports of other libraries that `FOREIGN` does not allow, types aside."""
    return [
        f"{i.module} imports {i.target}"
        for i in imports
        if i.when != "types"
        and (allowed := FOREIGN.get(i.target.partition(".")[0])) is not None
        and not any(i.module == a or (a.endswith(".") and f"{i.module}.".startswith(a)) for a in allowed)
    ]


def cycle(imports):
    """Return a cycle of our modules, as its members in order, or None; lazy imports count unless excused."""
    graph = {}
    for i in imports:
        known = i.target.startswith(f"{PACKAGE}.") and i.module != PACKAGE and i.when != "types"
        if known and not (i.when == "call" and (i.module, i.target) in LAZY_CYCLES):
            graph.setdefault(i.module, set()).add(i.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


@pytest.fixture(scope="module")
def imports():
    return imports_of(modules_of(ROOT))


# ------------------------------------------------------------------------------------------- the real package


def test_there_is_something_to_check(imports):
    assert len({i.module for i in imports}) > 20
    assert any(i.when == "types" for i in imports)
    assert any(i.when == "call" for i in imports)


def test_every_part_is_known():
    parts = {part_of(name) for name in modules_of(ROOT)} - {""}
    assert parts <= set(PARTS), "a new part of the package needs a row in PARTS"


def test_imports_go_one_way(imports):
    assert wrong_ways(imports) == []


def test_results_import_nothing_of_ours(imports):
    mine = f"{PACKAGE}.results"
    assert [
        i
        for i in imports
        if i.module.startswith(mine) and i.target.startswith(PACKAGE) and not i.target.startswith(mine)
    ] == []


def test_errors_import_nothing_of_ours(imports):
    assert [i for i in imports if i.module == f"{PACKAGE}.errors" and i.target.startswith(PACKAGE)] == []


def test_libraries_stay_where_they_belong(imports):
    assert strangers(imports) == []


def test_no_import_cycles(imports):
    assert cycle(imports) is None


def test_excused_lazy_imports_exist(imports):
    lazy = {(i.module, i.target) for i in imports if i.when == "call"}
    assert set(LAZY_CYCLES) <= lazy, "remove the excuses that nothing needs any more"


def test_modules_named_for_a_library_import_it(imports):
    named = {(m, library) for library, allowed in FOREIGN.items() for m in allowed if not m.endswith(".")}
    used = {(i.module, i.target.partition(".")[0]) for i in imports}
    assert named <= used, "remove the allowances that nothing needs any more"


# ---------------------------------------------------------------------------------- the checker, made to fail


def package(**modules):
    """Return a made-up package for the checker; two underscores in a name stand for a dot."""
    return {f"{PACKAGE}.{name.replace('__', '.')}": (text, False) for name, text in modules.items()}


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("arithmetic__bad", "from normcheck.norms.table import NORMS"),
        ("arithmetic__bad", "import normcheck.norms.table"),
        ("arithmetic__bad", "from ..norms import table"),
        ("arithmetic__bad", "from .. import norms"),
        ("arithmetic__bad", "from normcheck import norms"),
        ("norms__bad", "def f():\n    from normcheck.layers import sources"),
        ("norms__bad", "import importlib\nimportlib.import_module('normcheck.layers.sources')"),
        ("norms__bad", "if TYPE_CHECKING:\n    from normcheck.results import Row"),
        ("layers__bad", "from normcheck.analysis.rules import RULES"),
        ("render__bad", "from normcheck.norms.table import NORMS"),
        ("render__bad", "from normcheck import simulate"),
        ("analysis__bad", "from normcheck.render.table import render"),
        ("analysis__bad", "from normcheck.cli import main"),
        ("results", "from normcheck.arithmetic.formats import Format"),
        ("errors", "import normcheck.results"),
        ("cli__bad", "import normcheck"),
    ],
)
def test_a_wrong_way_is_found(module, text):
    assert len(wrong_ways(imports_of(package(**{module: text})))) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("cli__good", "from normcheck.analysis.simulate import simulate"),
        ("analysis__good", "from normcheck import __version__\nfrom normcheck.layers.sources import Source"),
        ("norms__good", "from normcheck import errors\nfrom . import x\nfrom ..arithmetic import y"),
        ("render__good", "from normcheck.results import Report\nimport rich.text\nimport normcheckers"),
    ],
)
def test_a_right_way_is_not(module, text):
    found = imports_of(package(**{module: text}))
    assert found
    assert wrong_ways(found) == strangers(found) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("render__bad", "import typer"),
        ("analysis__bad", "from typer import Option"),
        ("arithmetic__rounding", "def f():\n    from numba import njit"),
        ("arithmetic__kernels_of_another_kind", "import numba.extending"),
        ("norms__table", "from scipy import stats"),
        ("norms__forward", "import torch.nn"),
    ],
)
def test_a_stranger_is_found(module, text):
    assert len(strangers(imports_of(package(**{module: text})))) == 1


def test_a_library_imported_for_its_types_is_no_stranger():
    text = "if TYPE_CHECKING:\n    import torch\nelse:\n    import numba"
    assert strangers(imports_of(package(norms__forward=text))) == ["normcheck.norms.forward imports numba"]


def test_a_cycle_is_found():
    a, b = "from normcheck.norms import b", "def f():\n    from normcheck.norms.c import x"
    c = "import normcheck.norms.a"
    members = cycle(imports_of(package(norms__a=a, norms__b=b, norms__c=c)))
    assert members is not None
    assert set(members) == {"normcheck.norms.a", "normcheck.norms.b", "normcheck.norms.c"}
    assert cycle(imports_of(package(norms__a=a, norms__b=b, norms__c=""))) is None


def test_a_cycle_of_types_is_none_and_an_excuse_holds_for_lazy_imports_only():
    typed = "if TYPE_CHECKING:\n    import normcheck.norms.a"
    assert cycle(imports_of(package(norms__a="import normcheck.norms.b", norms__b=typed))) is None
    rounding, back = "from normcheck.arithmetic import operations", "import normcheck.arithmetic.rounding"
    lazy = f"def f():\n    {rounding}"
    assert cycle(imports_of(package(arithmetic__rounding=lazy, arithmetic__operations=back))) is None
    assert cycle(imports_of(package(arithmetic__rounding=rounding, arithmetic__operations=back))) is not None


# ---------------------------------------------------------------------------------------------- the top level

FOLDERS, FILES = {"normcheck", "tests", "data", "docs"}, {"pyproject.toml", "README.md"}


def top_level(root):
    """Return the names at the top that git tracks or would track; without git, all but leftovers of tools."""
    git = shutil.which("git")
    if git is not None and (root / ".git").exists():
        command = [git, "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        paths = [p for p in done.stdout.split("\0") if p and (root / p).exists()]
        return {p.partition("/")[0] for p in paths}
    leftovers = {"build", "dist"}
    return {p.name for p in root.iterdir() if p.name not in leftovers and p.suffix != ".egg-info"}


def test_nothing_else_lies_at_the_top():
    found = {name for name in top_level(ROOT) if not name.startswith(".")}
    assert {"normcheck", "tests", "pyproject.toml"} <= found
    assert found <= FOLDERS | FILES
    assert all((ROOT / name).is_dir() == (name in FOLDERS) for name in found)


@pytest.mark.parametrize("with_git", [True, False])
def test_a_stray_file_at_the_top_is_seen(tmp_path, with_git):
    git = shutil.which("git")
    if with_git:
        if git is None:
            pytest.skip("git is not installed")
        subprocess.run([git, "init", "-q", str(tmp_path)], check=True)
        (tmp_path / ".gitignore").write_text("dist/\n")
    for folder in ("normcheck", "dist", "scripts"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").touch()
    (tmp_path / "setup.py").touch()
    assert {n for n in top_level(tmp_path) if not n.startswith(".")} == {"normcheck", "scripts", "setup.py"}


# -------------------------------------------------------------------------------------------- what loads what


def loaded_by(*arguments):
    """Return the modules that ``python *arguments`` loads, and its exit code, in a process of its own."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=ROOT, timeout=60)
    loaded = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", done.stderr, re.MULTILINE)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(loaded)


def heavy(loaded):
    """Return those of `loaded` that must not be, submodules left out."""
    return sorted(loaded & set(HEAVY))


def test_importing_normcheck_loads_nothing_heavy():
    loaded = loaded_by("-c", "import normcheck")
    assert "normcheck" in loaded
    assert heavy(loaded) == []
    assert "numpy" not in loaded


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["simulate", "--help"],
        ["formats"],
        ["formats", "fp16"],
        ["norms"],
        ["implementations"],
        ["implementations", "pure"],
        ["rules"],
        ["distributions"],
        ["distributions", "outlier"],
        ["schema"],
        ["reproduce", "--help"],
        ["cases"],
    ],
    ids=" ".join,
)
def test_the_command_line_loads_nothing_heavy_for(arguments):
    loaded = loaded_by("-m", "normcheck", *arguments)
    assert "typer" in loaded
    assert heavy(loaded) == []


def test_something_heavy_is_seen():
    assert heavy(loaded_by("-c", "import scipy.stats")) == ["scipy.stats"]


# ------------------------------------------------------------------------------------------------- docstrings


def undocumented(name, source):
    """Return what is public and has no docstring: the module, its functions and classes, their methods."""

    def walk(node, prefix):
        if ast.get_docstring(node) is None:
            yield prefix
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        for child in node.body:
            is_named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_named and not child.name.startswith("_") and not _is_a_repeat(child):
                yield from walk(child, f"{prefix}.{child.name}")

    return list(walk(ast.parse(source), name))


def _is_a_repeat(node):
    """Whether a function says again what another one says: an overload, or the setter of a property."""
    return any(ast.unparse(d).endswith(("overload", ".setter")) for d in node.decorator_list)


def test_everything_public_has_a_docstring():
    missing = [m for name, (source, _) in modules_of(ROOT).items() for m in undocumented(name, source)]
    assert missing == []


def test_a_missing_docstring_is_found():
    text = '''
"""Here."""
def f(): "Here."
def g(): pass
def _h(): pass
class A:
    "Here."
    async def m(self): pass
    def __len__(self): return 0
    @typing.overload
    def n(self): ...
class B: pass
'''
    assert undocumented("m", text) == ["m.g", "m.A.m", "m.B"]
    assert undocumented("m", "x = 1") == ["m"]
