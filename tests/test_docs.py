"""README and docs/: generated blocks are fresh, everything is documented, links lead somewhere, examples run."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import normcheck
from normcheck.analysis.thresholds import DEFAULTS
from normcheck.arithmetic.orders import ORDERS
from normcheck.arithmetic.rounding import MODES, POLICIES
from normcheck.cli.exit_codes import ExitCode
from normcheck.cli.main import app
from normcheck.norms.implementations import STEP_ROLES, Implementation
from normcheck.norms.parameters import PARAMS
from normcheck.norms.table import NORMS
from normcheck.norms.variance import VARIANCES
from normcheck.render.figures import number
from normcheck.render.schema import schema

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SHELL = shutil.which("bash") or shutil.which("sh")


@pytest.fixture(scope="module")
def generate():
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------- generated blocks


@pytest.mark.parametrize("name", NAMES)
def test_the_generated_blocks_are_fresh(generate, name):
    assert generate.stale(text_of(name)) == [], "run python docs/generate.py"


def test_every_block_stands_in_some_page(generate):
    used = {block["name"] for name in NAMES for block in generate.BLOCK_IN_PAGE.finditer(text_of(name))}
    assert used == set(generate.BLOCKS)


def test_a_stale_block_is_seen_and_rewritten(generate):
    good = generate.rewritten("before\n<!-- generated: orders -->\n<!-- end: orders -->\nafter\n")
    assert "| `pairwise` |" in good
    assert good.startswith("before\n")
    assert good.endswith("after\n")
    assert generate.stale(good) == []
    bad = good.replace("| `pairwise` |", "| `pairs` |")
    assert generate.stale(bad) == ["orders"]
    assert generate.rewritten(bad) == good


@pytest.mark.parametrize(
    "text",
    [
        "<!-- generated: nosuch -->\n<!-- end: nosuch -->",
        "<!-- generated: orders -->\n",
        "<!-- end: orders -->",
        "<!-- generated: orders -->\n<!-- end: rounding -->",
    ],
)
def test_a_block_that_is_none_is_refused(generate, text):
    with pytest.raises(SystemExit, match=r"nosuch|alone"):
        generate.stale(text)


def test_help_texts_of_another_version_are_compared_by_their_options(generate):
    text = generate.fresh("commands")
    other = text.replace("as typer ", "as typer 0.0.", 1)
    assert generate.current("commands", text)
    assert generate.current("commands", other.replace("Same seed, same report.", "Same seed,\n same report."))
    assert not generate.current("commands", text.replace("Same seed, same report.", ""))
    assert not generate.current("commands", other.replace("│ --seed ", "│ --sead "))
    assert not generate.current("commands", other.replace("### normcheck norms", ""))


def copy_of_the_docs(folder):
    """A clone in which the generator can write."""
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(README, folder)
    shutil.copytree(ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run_generator(folder, *arguments):
    command = [sys.executable, str(folder / "docs" / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, check=False, text=True, cwd=folder)


def test_the_generator_checks_and_rewrites(tmp_path):
    readme = copy_of_the_docs(tmp_path) / "README.md"
    good = readme.read_text(encoding="utf-8")
    readme.write_text(good.replace("16 collapsed  channels", "15 collapsed  channels"), encoding="utf-8")
    done = run_generator(tmp_path, "--check")
    assert done.returncode == 1
    assert done.stderr == "README.md: block 'contrast' is stale; run python docs/generate.py\n"
    assert run_generator(tmp_path).returncode == 0
    assert readme.read_text(encoding="utf-8") == good


def test_the_generator_refuses_other_arguments(tmp_path):
    done = run_generator(copy_of_the_docs(tmp_path), "--chek")
    assert done.returncode == 2
    assert "--check" in done.stderr


# ---------------------------------------------------------------------------------- everything is documented


def mentions(text, name):
    """Whether a name stands in a text by itself, not as a part of a longer one."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def test_a_part_of_a_longer_name_is_no_mention():
    assert mentions("| `batch-l2` |", "batch-l2")
    assert not mentions("batch-l2-uncentred, my-batch-l2", "batch-l2")


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def section(text, title):
    """What stands under a heading of a page, given as it is or as its anchor, up to the next of its level or above."""
    for match in re.finditer(r"^(#+) (.+)$\n", text, re.MULTILINE):
        if title in (match[2], slug(match[2])):
            end = re.search(rf"^#{{1,{len(match[1])}}} ", text[match.end() :], re.MULTILINE)
            return text[match.end() :][: end.start() if end else None]
    raise AssertionError(f"no section {title!r}")


def test_a_section_ends_at_the_next_heading():
    page = "# A\n## B\nb\n### C 1\nc\n## D\nd\n"
    assert section(page, "C 1") == section(page, "c-1") == "c\n"
    assert "c" in section(page, "B")
    assert "d" not in section(page, "B")


def commands():
    return typer.main.get_command(app).commands


OPTIONS = [
    (name, option) for name, command in commands().items() for p in command.params for option in p.opts if "-" in option
]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_reference(command):
    assert f"normcheck {command} [OPTIONS]" in section(text_of("docs/reference.md"), f"normcheck {command}")


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_is_in_the_reference(command, option):
    assert mentions(section(text_of("docs/reference.md"), f"normcheck {command}"), option)


def test_there_are_options():
    assert len(OPTIONS) > 30
    assert ("simulate", "--precision") in OPTIONS


TABLES = {
    "Formats": [n for f in normcheck.formats() for n in (f.name, f.label, *f.aliases)],
    "Norms": list(NORMS),
    "Implementations": [i.name for i in normcheck.implementations()],
    "Distributions": [d.name for d in normcheck.distributions()]
    + [p.name for d in normcheck.distributions() for p in d.parameters],
    "Orders of summation": list(ORDERS),
    "Rounding modes": list(MODES),
    "Rules": [r.code for r in normcheck.rules()],
    "Exit codes": [str(int(code)) for code in ExitCode],
    "Parameters": list(PARAMS),
    "The steps of a result": [*STEP_ROLES, "cast", "saved"],
}


@pytest.mark.parametrize(("title", "name"), [(title, name) for title, names in TABLES.items() for name in names])
def test_every_row_of_every_table_is_in_the_reference(title, name):
    assert mentions(section(text_of("docs/reference.md"), title), name)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Implementation)])
def test_every_field_of_an_implementation_is_explained(field):
    assert f"`{field}`" in section(text_of("docs/numerics.md"), "Implementations")


@pytest.mark.parametrize("name", [*POLICIES, *MODES])
def test_every_mode_and_policy_is_explained(name):
    assert f"`{name}`" in section(text_of("docs/numerics.md"), "Rounding")


@pytest.mark.parametrize("name", VARIANCES)
def test_every_variance_algorithm_is_explained(name):
    assert f"`{name}`" in section(text_of("docs/numerics.md"), "Variance algorithms")


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_is_explained(name):
    assert re.search(rf"^\* `{name}[`(]", section(text_of("docs/numerics.md"), "Orders of summation"), re.MULTILINE)


FIELDS = {name: list(part.get("properties", ())) for name, part in schema()["$defs"].items()}
DEFINED = ("Step", "Tally", "Rows", "Statistic", "Distance", "Deviation", "Representation", "ScaleRatio", "Headroom")


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in FIELDS.items() for field in fields])
def test_every_json_field_is_documented(name, field):
    assert f"| `{field}` |" in section(text_of("docs/report-format.md"), f"JSON object {name}")


@pytest.mark.parametrize("field", sorted({f for name in DEFINED for f in FIELDS[name]} - {"step", "format", "count"}))
def test_every_figure_is_defined(field):
    assert f"`{field}`" in text_of("docs/numerics.md")


# --------------------------------------------------------------------------------------------------- the rules


RULE_SHAPE = (
    "<!-- generated: rule {code} -->",
    "| {title} |",
    "**Fires when** ",
    "**Why it matters.** ",
    "**A published failure:** ",
    "**How to fix:** ",
    "**It fires on**",
    "**and not on**",
    "<!-- end: rule {code} -->",
    "**Threshold.** ",
)
"""What every section of a rule has, in this order; above the end of its block it is generated."""


@pytest.mark.parametrize("rule", normcheck.rules(), ids=lambda rule: rule.code)
def test_every_rule_has_its_section(rule):
    page, _, anchor = rule.anchor.partition("#")
    assert anchor in anchors(text_of(page))
    text = section(text_of(page), anchor)
    places = [text.find(part.format(code=rule.code, title=rule.title)) for part in RULE_SHAPE]
    assert -1 not in places
    assert places == sorted(places)
    assert all(text.count(part) == 1 for part in RULE_SHAPE[2:-2])
    assert len(text.partition("**Threshold.** ")[2].strip()) > 20


@pytest.mark.parametrize("rule", normcheck.rules(), ids=lambda rule: rule.code)
def test_the_section_of_a_rule_has_both_examples_to_copy(rule):
    page, _, anchor = rule.anchor.partition("#")
    assert fences(section(text_of(page), anchor), "bash") == [f"{rule.bad}\n", f"{rule.good}\n"]


def test_no_section_is_of_a_rule_that_does_not_exist():
    headings = re.findall(r"^## (NC\d+)", text_of("docs/rules.md"), re.MULTILINE)
    assert headings == [rule.code for rule in normcheck.rules()]


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(DEFAULTS)])
def test_every_threshold_stands_in_one_rule_with_its_value(name):
    assert text_of("docs/rules.md").count(f"`{name}` = {number(getattr(DEFAULTS, name))}") == 1


# --------------------------------------------------------------------------------------------------- links


def anchors(text):
    """Return the anchors that GitHub gives the headings of a page."""
    found, prose = [], re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE):
        anchor = slug(heading)
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return found


def links(text):
    """Return the targets of the links of a page, outside of code."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose)


def broken(page, text):
    """Return the relative links of a page that lead nowhere."""
    bad = []
    for target in links(text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        there = text if file == page else file.read_text("utf-8", "replace") if file.is_file() else None
        if there is None or (anchor and anchor not in anchors(there)):
            bad.append(target)
    return bad


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_relative_link_resolves(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_a_link_that_leads_nowhere_is_found():
    text = "# One, *two*\n[a](#one-two) [b](#one) [c](docs/rules.md#rules) [d](docs/rules.md#no) [e](docs/no.md)"
    assert broken(README, text) == ["#one", "docs/rules.md#no", "docs/no.md"]


def test_links_in_code_are_none():
    assert links("`[a](b)` [c](d)\n```\n[e](f)\n```\n") == ["d"]


def test_every_page_can_be_reached_from_the_readme():
    assert {target.partition("#")[0] for target in links(README.read_text(encoding="utf-8"))} >= set(NAMES[1:])


# ------------------------------------------------------------------------------------------------- examples


def fences(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_python_block_runs_and_is_short():
    (block,) = fences(README.read_text(encoding="utf-8"), "python")
    ast.parse(block)
    assert len([line for line in block.splitlines() if line.strip()]) <= 15
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (shown,) = fences(README.read_text(encoding="utf-8"), "text")
    assert done.stdout == shown


EXAMPLES = [line for name in NAMES for block in fences(text_of(name), "sh") for line in block.splitlines()]


BLOCKS = [block for name in NAMES for block in fences(text_of(name), "sh") if block.startswith("normcheck ")]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_commands_of_examples_run_one_after_the_other(block, tmp_path):
    (tmp_path / "data").symlink_to(ROOT / "data")
    for line in block.splitlines():
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(line)],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "80"},
        )
        assert done.returncode in (0, 1), done.stderr.decode()
        assert max(map(len, done.stdout.decode().splitlines())) <= 80


def test_output_that_is_shown_fits_80_columns():
    blocks = [block for name in NAMES for kind in ("console", "text") for block in fences(text_of(name), kind)]
    shown = [line for block in blocks for line in block.splitlines()]
    assert len(shown) > 200
    assert [line for line in shown if len(line) > 80] == []


# --------------------------------------------------------------------------------------------------- set-up

SETUP = [line for line in EXAMPLES if line.startswith("python3 -m venv")]


def test_two_lines_do_all_the_set_up():
    analyze, test = (line for line in SETUP if " -e " in line)
    assert analyze.endswith(" && normcheck analyze data/digits-cnn.pt")
    assert test.endswith(" && python -m pytest")
    for line in SETUP:
        assert line.startswith("python3 -m venv .venv && . .venv/bin/activate && python -m pip install ")


@pytest.mark.skipif(SHELL is None, reason="no shell on this machine")
@pytest.mark.parametrize("line", SETUP)
def test_the_set_up_lines_are_shell(line):
    assert subprocess.run([SHELL, "-n", "-c", line], check=False).returncode == 0


def test_the_set_up_lines_have_the_commands_that_ci_runs():
    """Torch aside, which the script pins, and arguments of pytest that only say how much it reports."""
    script = re.findall(r"^python -m .*$", text_of(".ci/run"), re.MULTILINE)
    wanted = [re.sub(r" (\$\{.*?\}|--cov)(?= |$)", "", line) for line in script if "torch==" not in line]
    assert wanted == ["python -m pip install -e '.[test]'", "python -m pytest"]
    assert any(line.endswith(" && ".join(["", *wanted])) for line in SETUP)


def test_the_first_command_runs():
    command = next(line for line in SETUP if "analyze" in line).rpartition(" && ")[2]
    done = subprocess.run([sys.executable, "-m", *shlex.split(command)], capture_output=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()


# ------------------------------------------------------------------------------------------ nothing of one machine

PUBLIC = {"arxiv.org", "github.com", "huggingface.co", "json-schema.org", "no-color.org"}
PRIVATE = re.compile(
    r"/(?:home|root|tmp|mnt|Users|var|opt)/|\blocalhost\b|\b\d{1,3}(?:\.\d{1,3}){3}\b|--index-url (?!ADDRESS)\S+"
)


def private(text):
    """Return what a page says that only holds on the machine where it was written."""
    hosts = [m[0] for m in re.finditer(r"https?://([^/\s)\"]+)", text) if m[1] not in PUBLIC]
    return [m[0] for m in PRIVATE.finditer(text)] + hosts


@pytest.mark.parametrize("name", [*NAMES, "docs/generate.py"])
def test_no_page_speaks_of_this_machine(name):
    assert private(text_of(name)) == []


@pytest.mark.parametrize(
    "text",
    [
        "see /home/x", "at 10.0.0.1", "https://example.org/x", "--index-url https://arxiv.org/whl", "localhost:80",
    ],
)  # fmt: skip
def test_what_is_private_is_found(text):
    assert private(text)


# --------------------------------------------------------------------------------------- what development.md names


def missing(text):
    """Return the files and tests in code marks that do not exist."""
    words = re.findall(r"`([^`\n]+)`", text)
    paths = [w for w in words if re.fullmatch(r"(?:normcheck|tests|docs|data|\.ci)/[\w./]*", w)]
    tests = [w for w in words if re.fullmatch(r"test_\w+", w)]
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py")))
    return [p for p in paths if not (ROOT / p).exists()] + [t for t in tests if f"def {t}(" not in sources]


@pytest.mark.parametrize("name", NAMES)
def test_the_files_and_tests_that_are_named_exist(name):
    assert missing(text_of(name)) == []


def test_a_file_that_is_missing_is_found():
    text = "`normcheck/errors.py` `tests/` `normcheck/no.py` `test_a_file_that_is_missing_is_found` `test_of_no_file`"
    assert missing(text) == ["normcheck/no.py", "test_of_no_file"]


def test_the_layout_names_every_folder():
    text = section(text_of("docs/development.md"), "The shape")
    folders = {p.parent.name for p in (ROOT / "normcheck").rglob("*.py")} - {"normcheck"}
    assert {name for name in folders if f"{name}/" not in text} == set()


# ------------------------------------------------------------------------------------------------------- lint


def test_the_generator_passes_lint():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", str(ROOT / "pyproject.toml"), "docs"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
