"""Writes the generated blocks of README.md and docs/*.md from the program itself.

    python docs/generate.py            rewrite every block
    python docs/generate.py --check    name the blocks that are stale; exit 1 where there are any

A block stands between ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``; `BLOCKS` says what fills it. The rest
of a page is written by hand. tests/test_docs.py runs the check.
"""  # noqa: INP001  # docs is no package

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import typer

import normcheck
from normcheck.analysis.corpus.records import records
from normcheck.analysis.corpus.replay import replayed
from normcheck.analysis.corpus.signatures import MEANINGS
from normcheck.analysis.safe_scale import FARTHEST, RESOLUTION
from normcheck.analysis.study import BLOCK
from normcheck.analysis.thresholds import DEFAULTS, EPS_DOMINATES
from normcheck.analysis.totals import WORST_KEPT
from normcheck.arithmetic.counting import KINDS
from normcheck.arithmetic.formats import MAX_EXPONENT_BITS, MAX_MANTISSA_BITS, OverflowPolicy, format_named
from normcheck.arithmetic.orders import DEFAULT_BLOCK, DEFAULT_LANES, ORDERS
from normcheck.arithmetic.recurrences import RECURRENCES
from normcheck.arithmetic.rounding import MODES, carried_by_float32
from normcheck.arithmetic.values import PART
from normcheck.cli.configured import commands_of
from normcheck.cli.exit_codes import ExitCode
from normcheck.cli.main import app
from normcheck.cli.settings import RUNS_CODE, variable
from normcheck.fidelity import page as fidelity_page
from normcheck.fidelity.keeping import results as kept_fidelity
from normcheck.fidelity.results import Fidelity
from normcheck.norms.catalogue import aliases, implementation_named, notes
from normcheck.norms.constants import constant
from normcheck.norms.cost import ENERGY, Cost, cost
from normcheck.norms.implementations import STEP_ROLES, Implementation
from normcheck.norms.parameters import PARAMS
from normcheck.norms.table import NORMS, STATISTICS, WHERES, norm_named
from normcheck.paper.experiments import EXPERIMENTS
from normcheck.paper.seeds import percent
from normcheck.render.cases import counts as case_counts
from normcheck.render.cases import predicted
from normcheck.render.experiments import STANDINGS, claims_table, from_json, picture_name
from normcheck.render.figures import figure, number
from normcheck.render.schema import schema
from normcheck.results.cases import Corpus
from normcheck.results.experiment import Reproduction
from normcheck.results.track import TrackReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from normcheck.analysis.rule import Rule
    from normcheck.results.cases import FailureCase, Side
    from normcheck.results.experiment import Experiment

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = {
    "model": "normcheck analyze data/breast-cancer-mlp.pt --precision fp16 --mode eval",
    "layer": "normcheck analyze data/digits-transformer --layer norm --precision fp16",
    "contrast": """normcheck simulate --norm batch-l2,batch-l1 --precision fp16 \\
    --implementation pure,wide-sum,wide --shape 8,16,8,8 --std 100""",
    "steps": """normcheck simulate --implementation wide-sum --shape 8,16,8,8 --std 100 \\
    --fail-on never --steps""",
    "kernels": """normcheck simulate --norm layer-l2,rms --shape 8,1024 --std 100 \\
    --precision fp16 --implementation pure,torch-cpu,onnx-reference \\
    --implementation onnxruntime-cuda-skip,hf-llama""",
}
"""Commands whose output is shown."""

# ------------------------------------------------------------------------------------- text that no table holds

MODE_MEANINGS = {
    "nearest-even": "to the nearest number, ties to the one whose last bit is 0",
    "toward-zero": "to the neighbour of smaller magnitude",
    "up": "to the neighbour towards +infinity",
    "down": "to the neighbour towards -infinity",
    "stochastic": "to the neighbour of larger magnitude with a probability equal to the share of the gap that is "
    "passed, else to the one of smaller magnitude",
}
POLICY_MEANINGS = {
    "ieee": "infinity, or the largest finite number where the rounding mode points inwards; NaN where the format has "
    "no infinities",
    "saturate": "the largest finite number, for infinities too",
    "nan": "NaN, for infinities too",
}
PARAMS_MEANINGS = {
    "half": "as a model cast with `.half()`",
    "autocast": "as under autocast, which leaves parameters in float32",
    "half-except-norms": "as a model cast with `.half()` whose norms were kept in float32",
    "io": "in the format of the elements",
    "float32": "in float32",
    "stored": "as they are given: float32 where that holds them, else float64",
}
STEP_MEANINGS = {
    "residual": "x + residual",
    "load": "the input rounded to the io format",
    "sum-mean": "sum of the elements (a mean of means with `blocks`)",
    "mean": "that sum / n; in `shifted` also the shift added back",
    "center": "c = x - mean; in `shifted` also x - shift",
    "square": "c * c",
    "absolute": "the magnitude of c: exact",
    "maximum": "largest (and for range, smallest) element: exact",
    "topk": "the k largest magnitudes: exact",
    "sum": "sum of the squares, of the magnitudes or of the k largest",
    "count": "n, or 1/n, in its format; for weight norms under a mean of means, what undoes the division by n",
    "variance": "sum of squares / n, and what one-pass algorithms subtract",
    "statistic": "sum / n of the other statistics; max - min for range",
    "constant": "the statistic times C",
    "eps": "the addition of eps, to the variance or to the statistic",
    "root": "square root of variance + eps, or of the sum of squared weights",
    "reciprocal": "1 / s, or the reciprocal square root in one step",
    "normalize": "c * (1/s) or c / s; x * (1/s) + shift in the form `shift`",
    "fold": "scale and shift of the folded forms, one number a row",
    "cast": "the normalised value rounded before the affine step",
    "gain": "* gamma, or x * scale in the form `fold`; for weight norms * g",
    "bias": "+ beta, or + shift in the form `fold`",
    "store": "the output rounded to the format of the output",
    "saved": "mean and 1/s as they are kept for backward",
    "rescale": "x / max |x| of the row",
    "recentred": "x - mean once more, for the elements",
    "total": "the finished sum rounded before it is divided",
    "total-mean": "the same of the mean's sum",
    "count-mean": "n, or 1/n, of the mean where that has a format of its own",
    "inverse": "1/n rounded to a format of its own",
    "moment": "mean of squares and squared mean of one-pass algorithms, where these are wider than the variance",
    "kept": "mean and 1/s as the elements are normalised with",
    "running-mean": "the batch's mean as it enters the running mean",
    "running-batch": "momentum * the batch's statistic",
    "running-variance": "the same of the variance, and the addition to the running variance",
    "running-store": "running statistics rounded to the format of the parameters",
    "running-update": "running = (1 - momentum) * running + momentum * batch: three operations a statistic, and for "
    "a variance the factor n / (n - 1)",
}
KERNEL_STEPS = {
    "rescale": "center",
    "recentred": "recentred",
    "total": "total",
    "total-mean": "mean_total",
    "count-mean": "mean_count",
    "inverse": "inverse_count",
    "moment": "moment",
    "kept": "kept",
    "running-mean": "running_mean",
    "running-batch": "running_batch",
    "running-variance": "running_variance",
    "running-store": "running",
}
"""Steps that only rows of kernels have, where the field is given, and that field."""

EXIT_MEANINGS = {
    ExitCode.CLEAN: "no finding at or above `--fail-on` (by default: no error)",
    ExitCode.FINDINGS: "at least one finding at or above `--fail-on`",
    ExitCode.ERROR: "usage error, a file that cannot be read or written, internal error: one line on stderr each",
    ExitCode.NOTHING: "nothing was analysed: no norm layer was found, or no implementation asked for defines the norms",
    ExitCode.INTERRUPTED: "interrupted from the keyboard",
}

# --------------------------------------------------------------------------------------------------- Markdown


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def code(value: object) -> str:
    """Return a word as code."""
    return f"`{value}`"


def codes(values: Iterable[object]) -> str:
    """Return several words as code, or a dash for none."""
    return ", ".join(map(code, values)) or "-"


def yes(value: object) -> str:
    """Return a truth value in words."""
    return "yes" if value else "no"


def fenced(text: str, language: str = "text") -> str:
    """Return text as a code block."""
    return f"```{language}\n{text.rstrip()}\n```"


def filled(paragraph: str) -> str:
    """Return a paragraph in lines as this page's sources have them."""
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def math(formula: str) -> str:
    """Return a formula as code: Markdown would take its asterisks for its own."""
    return code(formula.replace("`", ""))


# --------------------------------------------------------------------------------------- what the program prints


def printed(command: str, folder: Path = ROOT) -> tuple[str, int]:
    """Return what a command prints on standard output at 80 columns and without a terminal, and its exit code."""
    words = _words(command)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NORMCHECK_", "FORCE_COLOR"))}
    done = subprocess.run(  # noqa: S603  # this file's own commands
        [sys.executable, "-m", *words],
        env={**environment, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        check=False,
    )
    return "\n".join(line.rstrip() for line in done.stdout.decode().splitlines()).strip("\n"), done.returncode


def _words(command: str) -> list[str]:
    return command.replace("\\\n", " ").split()


def session(name: str) -> str:
    """Return a command of `OUTPUTS` as typed, what it prints, and its exit code."""
    command = OUTPUTS[name]
    text, exit_code = printed(command)
    return fenced(f"$ {command}\n{text}\n\n$ echo $?\n{exit_code}", "console")


def api() -> str:
    """Return what README's Python block prints."""
    match = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    if match is None:
        raise SystemExit("README.md has no Python block")
    done = subprocess.run(  # noqa: S603  # README's own block
        [sys.executable, "-c", match[1]], stdout=subprocess.PIPE, check=True, text=True
    )
    return fenced(done.stdout)


def _commands() -> Iterator[tuple[str, str]]:
    """Yield each command line that has a help text, and the title of its section."""
    yield "normcheck", "normcheck"
    for name in getattr(typer.main.get_command(app), "commands", {}):
        yield f"normcheck {name}", f"normcheck {name}"


VERSIONED = "Help texts as typer {} and rich {} print them at 80 columns."


def commands() -> str:
    """Return the help text of every command."""
    versions = (importlib.metadata.version(name) for name in ("typer", "rich"))
    parts = [VERSIONED.format(*versions)]
    for command, title in _commands():
        parts += [f"### {title}", fenced(printed(f"{command} --help")[0])]
    return "\n\n".join(parts)


# ----------------------------------------------------------------------------------------------------- tables


def formats() -> str:
    """Return the formats with what identifies them."""
    rows = [
        (
            code(f.name),
            codes(dict.fromkeys(n for n in (f.label, *f.aliases) if n != f.name)),
            f.bits,
            number(f.max_finite) if len(number(f.max_finite)) < 9 else figure(f.max_finite),
            figure(f.min_normal),
            figure(f.min_subnormal),
            f.title,
            f.source,
        )
        for f in normcheck.formats()
    ]
    return table(
        ("name", "also", "bits", "largest", "smallest normal", "smallest", "what it is", "specification"), rows
    )


def format_facts() -> str:
    """Return the formats with what their arithmetic needs."""
    rows = [
        (
            code(f.label),
            f"{f.exponent_bits}, {f.mantissa_bits}",
            f.precision,
            f"{f.emin}, {f.emax}",
            f"2^-{f.precision}",
            _threshold(f),
            yes(f.infinities),
            f.nan,
            yes(f.signed_zero),
            f.overflow,
            "float32" if carried_by_float32(f) else "float64",
        )
        for f in normcheck.formats()
    ]
    return table(
        (
            "format", "exponent, mantissa bits", "p", "emin, emax", "u", "T", "infinities", "NaN codes", "-0",
            "usual overflow", "carrier",
        ),
        rows,
    )  # fmt: skip


def _threshold(form: Any) -> str:
    value = min(form.overflow_threshold, sys.float_info.max)  # float64's own threshold is no float64
    text = number(value) if len(number(value)) < 9 else figure(value)
    return text if form.threshold_overflows else f"above {text}"


def norms() -> str:
    """Return every norm in one line."""
    rows = [
        (
            code(n.name),
            n.row_noun,
            _formula(n),
            "none" if n.is_weight else n.statistic.eps_on,
            yes(n.centred),
            codes(a for a in _aliases() if _aliases()[a] == n.name),
        )
        for n in NORMS.values()
    ]
    return table(("name", "a row is a", "divides by", "eps is added to the", "centred", "also"), rows)


def _formula(norm: Any) -> str:
    powers = {"l2": "sqrt(sum(v^2))", "l1": "sum(|v|)", "linf": "max(|v|)"}
    return math(powers[norm.statistic.name] if norm.is_weight else norm.statistic.formula)


@functools.cache
def _aliases() -> dict[str, str]:
    from normcheck.norms import table as norm_table  # noqa: PLC0415  # private, for this list only

    return dict(norm_table._ALIASES)  # noqa: SLF001


def kinds_of_operations() -> str:
    """Return the kinds of operations and their published energies."""
    published = {kind: [getattr(row, kind, None) for row in ENERGY.values()] for kind in KINDS}
    rows = [(code(kind), text, *("-" if e is None else e for e in published[kind])) for kind, text in KINDS.items()]
    return table(("kind", "what it counts", *(f"{name}, pJ" for name in ENERGY)), rows)


def costs() -> str:
    """Return what a batch norm of each statistic costs, forward and backward."""
    shape = (32, 64, 28, 28)
    rows = []
    for direction in ("forward", "backward"):
        for statistic in STATISTICS:
            norm, how = norm_named(f"batch-{statistic}"), implementation_named("pure")
            half, single = (cost(norm, format_named(p), how, shape, direction=direction) for p in ("fp16", "fp32"))  # type: ignore[arg-type]
            each = (half.operations.get(kind) for kind in ("add", "multiply", "compare", "absolute"))
            few = ("divide", "root")
            rows.append(
                (
                    f"{statistic}, {direction}",
                    *("0" if done is None else figure(done.per_element) for done in each),
                    *(half.operations[kind].per_row if kind in half.operations else 0 for kind in few),
                    half.bytes.passes,
                    figure(half.saved.for_dx / (half.groups * half.size)),
                    figure(half.energy.per_element),
                    figure(single.energy.per_element),
                )
            )
    return table(
        (
            "statistic, pass", "add", "multiply", "compare", "absolute", "divide a row", "root a row", "passes",
            "for dx, bytes in fp16", "pJ in fp16", "pJ in fp32",
        ),
        rows,
    )  # fmt: skip


def cost_fields() -> str:
    """Return every object of what `normcheck norms --cost --format json` prints, and its fields."""
    _, definitions = msgspec.json.schema_components([Cost])
    return _objects(definitions, {})


def wheres() -> str:
    """Return which elements share a statistic."""
    return table(("where", "one row is"), [(code(name), text) for name, text in WHERES.items()])


def statistics() -> str:
    """Return what a norm divides by."""
    rows = [(code(s.name), s.title, math(s.formula), s.eps_on, yes(s.has_constant)) for s in STATISTICS.values()]
    return table(("statistic", "what it is", "s", "eps is added to the", "constant C"), rows)


def constants() -> str:
    """Return the constants at a few sizes."""
    rows = []
    for name in ("l1", "linf", "topk", "range"):
        for kind in ("exact", "paper"):
            values = (f"{constant(name, kind, n):.4f}" for n in (32, 512, 25088, 100352))  # type: ignore[arg-type]
            rows.append((code(name) + (", k = 10" if name == "topk" else ""), code(kind), *values))
    return table(("statistic", "constant", "n = 32", "n = 512", "n = 25088", "n = 100352"), rows)


def implementations() -> str:
    """Return the generic implementations with all their fields, the catalogue by project, and the aliases."""
    rows = normcheck.implementations()
    parts = [_generic_rows([row for row in rows if row.project == "generic"])]
    projects = dict.fromkeys(row.project for row in rows if row.project != "generic")
    for project in sorted(projects, key=str.lower):
        parts += [f"**{project}**", _catalogue_rows([row for row in rows if row.project == project])]
    named = [
        (
            codes((alias.name, *alias.also)),
            alias.title,
            "every row" if alias.every else codes(r.name for r in alias.rows),
        )
        for alias in aliases()
    ]
    parts += ["**Aliases**", table(("alias", "what it is", "rows, the first that fits"), named)]
    known = [(code(note.name), note.project, note.text, note.reason) for note in notes()]
    parts += ["**Known, and no row**", table(("note", "project", "what is known", "why it is no row"), known)]
    return "\n\n".join(parts)


def _catalogue_rows(rows: Sequence[Implementation]) -> str:
    """Return what rows of a project are, and what they define."""
    body = [(code(r.name), r.status, ", ".join(r.norms), ", ".join(r.precisions) or "all", r.title) for r in rows]
    return table(("implementation", "status", "norms", "precisions", "what it is"), body)


def _generic_rows(rows: Sequence[Implementation]) -> str:
    heads = [(f"**{r.name}**", r.title) for r in rows]
    about = ("name", "title", "project", "platform", "citation", "approximation")
    fields = [f.name for f in dataclasses.fields(rows[0]) if f.name not in about]
    body = [(code(name), *(_field(row, name) for row in rows)) for name in fields]
    named = table(("field", *(code(r.name) for r in rows)), body)
    return f"{table(('implementation', 'what it is'), heads)}\n\n{named}"


def _field(row: Implementation, name: str) -> str:
    value = getattr(row, name)
    if value is None or value in ("", ()):
        return "-"
    return yes(value) if isinstance(value, bool) else number(value) if isinstance(value, float) else str(value)


def distributions() -> str:
    """Return every distribution in its standard form."""
    rows = []
    for d in normcheck.distributions():
        parameters = "; ".join(f"`{p.name}` = {_default(p)}: {p.meaning} ({p.range})" for p in d.parameters)
        rows.append((code(d.name), d.title, math(d.formula), math(d.mean), math(d.std), parameters or "-"))
    return table(("name", "what it is", "z", "mean of z", "deviation of z", "parameters"), rows)


def _default(parameter: Any) -> str:
    return number(parameter.default) if isinstance(parameter.default, float) else code(parameter.default)


def alias_names() -> str:
    """Return the aliases of implementations, without their rows."""
    return table(("alias", "what it is"), [(codes((a.name, *a.also)), a.title) for a in aliases()])


def orders() -> str:
    """Return the orders of summation."""
    return table(("order", "association"), [(code(name), text) for name, text in ORDERS.items()])


def orders_of_kernels() -> str:
    """Return the orders that docs/numerics.md does not define in its own words."""
    told = re.findall(r"^\* `([a-z-]+)[`(]", _outside_blocks("docs/numerics.md"), re.MULTILINE)
    lines = [f"* `{name}`: {text}." for name, text in ORDERS.items() if name not in told]
    fill = functools.partial(textwrap.fill, width=120, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(map(fill, lines))


def _outside_blocks(page: str) -> str:
    """Return what of a page is written by hand."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"<!-- generated: .*? -->.*?<!-- end: .*? -->", "", text, flags=re.DOTALL)


def recurrences() -> str:
    """Return the recurrences of online moments."""
    rows = [(code(name), recurrence.title) for name, recurrence in RECURRENCES.items()]
    return table(("recurrence", "how it takes an element and merges"), rows)


def rounding_modes() -> str:
    """Return the rounding modes."""
    return table(("mode", "rounds"), [(code(mode), MODE_MEANINGS[mode]) for mode in MODES])


def policies() -> str:
    """Return the overflow policies."""
    rows = [(code(policy), POLICY_MEANINGS[policy]) for policy in get_args(OverflowPolicy)]
    return table(("policy", "a value beyond the largest finite number becomes"), rows)


def params() -> str:
    """Return the presets of --params."""
    formats_of = {"io": "the io format", "float32": "float32", "stored": "their own"}
    rows = [(code(name), formats_of[storage], PARAMS_MEANINGS[name]) for name, storage in PARAMS.items()]
    return table(("preset", "format of parameters", "what it stands for"), rows)


def steps() -> str:
    """Return the steps, and the field of an implementation that holds the format of each."""
    roles = {**STEP_ROLES, "cast": "normalized", "saved": "saved", **KERNEL_STEPS}
    return table(
        ("step", "format is the field", "what it computes"),
        [(code(step), code(role), STEP_MEANINGS[step]) for step, role in roles.items()],
    )


def implementation_fields() -> str:
    """Return the fields of an implementation, as its docstring has them."""
    known = [field.name for field in dataclasses.fields(Implementation)]
    listed = inspect.cleandoc(Implementation.__doc__ or "").partition("Attributes:\n")[2]
    rows = []
    for entry in re.split(r"\n(?= {4}\w)", listed.strip("\n")):
        names, _, text = " ".join(entry.split()).partition(": ")
        text = re.sub(rf"\b({'|'.join(known)}): ", r"`\1`: ", text.replace("``", "`"))
        rows.append((codes(names.split(", ")), text))
    return table(("field", "meaning"), rows)


def step_sequences() -> str:
    """Return the steps that norms run through, as the engine runs them."""
    names = ("batch-l2", "rms", "batch-l1", "batch-linf", "batch-topk", "batch-range", "weight-l2", "weight-l1")
    report = normcheck.simulate(norms=names, implementations=["pure"], shape=(4, 4, 4, 4))
    rows = [
        (code(r.norm), ", ".join(f"{s.step} ({'-' if s.degree is None else s.degree})" for s in r.steps))
        for r in report.results
    ]
    return table(("norm", "steps (degree in the input's scale) of `pure`"), rows)


def exit_codes() -> str:
    """Return the exit codes."""
    return table(("code", "meaning"), [(int(value), EXIT_MEANINGS[value]) for value in ExitCode])


def settings() -> str:
    """Return the settings with what a file gives them, and the variable and the commands of each."""
    rows: dict[tuple[str, str], list[str]] = {}
    for command, options in commands_of(typer.main.get_command(app)).items():
        for key, option in options.items():
            allowed = "not from a file" if key in RUNS_CODE else option.allowed
            rows.setdefault((key, allowed), []).append(command)
    body = [(code(key), allowed, code(variable(key)), codes(names)) for (key, allowed), names in sorted(rows.items())]
    return table(("key", "in a file", "in the environment", "of"), body)


def show_settings() -> str:
    """Return what --show-settings prints of the first example of docs/configuration.md."""
    match = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"), re.DOTALL)
    if match is None:
        raise SystemExit("docs/configuration.md has no example")
    command = "normcheck simulate --ftz --show-settings"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text(match[1], encoding="utf-8")
        return fenced(f"$ {command}\n{printed(command, Path(folder))[0]}", "console")


def rules() -> str:
    """Return the rules in one line each."""
    rows = [
        (
            f"[{r.code}]({r.anchor.removeprefix('docs/')})",
            r.title,
            r.severity,
            yes(r.accuracy),
            r.why,
            _fix(r),
        )
        for r in normcheck.rules()
    ]
    headers = ("code", "title", "default severity", "makes a result degraded", "why it matters", "how to fix")
    return table(headers, rows)


def _fix(rule: Rule) -> str:
    return rule.fix.format(l1="WHERE-l1", precision="FORMAT")


def rule(which: str) -> str:
    """Return what the table holds of one rule."""
    row = next(r for r in normcheck.rules() if r.code == which)
    settings = [f"`{name}` = {number(getattr(DEFAULTS, name))}" for name in row.thresholds]
    facts = [
        ("default severity", row.severity),
        ("makes a result", "degraded, where it fires above a note" if row.accuracy else "-"),
        ("thresholds", ", ".join(settings) or "-"),
        ("measure", codes(row.figures)),
    ]
    published = " ".join(filter(None, dataclasses.astuple(row.published)))
    parts = [
        table((row.title, ""), facts),
        *map(
            filled,
            (
                f"**Fires when** {row.detects}.",
                f"**Why it matters.** {row.why}",
                f"**A published failure:** {published}",
                f"**How to fix:** {_fix(row)}.",
            ),
        ),
        "**It fires on**",
        fenced(row.bad, "bash"),
        "**and not on**",
        fenced(row.good, "bash"),
    ]
    return "\n\n".join(parts)


def limits() -> str:
    """Return the numbers that the code fixes."""
    rows = [
        ("elements of a block of rows, the unit of work of a thread", BLOCK),
        ("elements of a row that are computed at once; longer rows run in parts", PART),
        ("lanes of `lanes` unless given", DEFAULT_LANES),
        ("largest block of `blocks` unless given", DEFAULT_BLOCK),
        ("exponent bits X of a user's `eXmY`, at most", MAX_EXPONENT_BITS),
        ("mantissa bits Y of a user's `eXmY`, at most", MAX_MANTISSA_BITS),
        ("bad rows listed in `worst_rows`, at most", WORST_KEPT),
        ("bits to which an end of `safe_scale` is found", f"{RESOLUTION} = 2^-8"),
        ("bits beyond which no end of `safe_scale` is looked for", number(FARTHEST)),
        ("share of the variance (or statistic) above which eps dominates a row", EPS_DOMINATES),
    ]
    return table(("what", "value"), rows)


# ------------------------------------------------------------------------------------------------ JSON fields


FIELD_MEANINGS = {
    "layer": "name of the layer; null in `simulate`, and of a finding on no layer",
    "norm": "the norm, such as `batch-l2`",
    "precision": "format of the elements, by its label",
    "implementation": "the implementation, such as `wide`",
    "mode": "statistics of the batch (`train`) or running ones (`eval`)",
    "params": "preset of the parameters' format",
    "eps": "the eps that was given or found",
    "eps_source": "where eps came from",
    "rule": "code of the rule",
    "severity": "how grave it is",
    "fix": "what to do",
    "name": "name of it",
    "relative_rms": "norm of the error over norm of the exact output",
    "Report.format": "version of this format",
    "Report.tool": "what wrote the report",
    "Report.command": "the command; `diff` for a comparison of two reports",
    "Report.settings": "the options as they were used, by name",
    "Report.environment": "versions and machine: what may differ between runs of the same input",
    "Report.results": "a norm in a precision under an implementation each, in the order of layers",
    "Report.findings": "rules that fired; in a comparison, only those that are new or worse",
    "Report.comparison": "how the report differs from an older one; null without an older one",
    "Report.skipped": "what was asked for and not analysed",
    "Report.summary": "the report in numbers",
    "Report.layers": "the norm layers of the models; empty in `simulate`",
    "Report.advice": "what to change, for many findings at once",
    "Tool.version": "its version",
    "Summary.layers": "norm layers",
    "Summary.results": "results",
    "Summary.findings": "findings by severity",
    "FindingCounts.error": "errors",
    "FindingCounts.warning": "warnings",
    "FindingCounts.note": "notes",
    "Result.constant": "the factor of statistics other than L2; null where there is none",
    "Result.k": "elements of a topk statistic; null for others",
    "Result.shape": "rows, and elements of a row",
    "Result.eps_on": "what eps is added to",
    "Result.input": "what it was computed on",
    "Result.steps": "the steps in the order in which they ran",
    "Result.overflow": "overflows of all steps",
    "Result.underflow": "underflows of all steps",
    "Result.invalid": "NaN from operands that are not NaN, of all steps",
    "Result.absorbed": "absorbed terms of all sums",
    "Result.rows": "how the rows ended",
    "Result.worst_rows": "bad rows, the worst first, not all of them",
    "Result.statistic": "the statistic before eps",
    "Result.deviation": "distance of the output from the exact one",
    "Result.representation": "what rounding the input alone does",
    "Result.scale_ratio": "the statistic over the row's deviation",
    "Result.headroom": "bits left on both sides",
    "Result.safe_scale": "ends of the range of factors of the input that are safe; null where it is empty, and in "
    "views that nobody asked for, where it is not looked for",
    "Result.verdict": "what it comes to",
    "Backward.source": "the gradient that arrives at the output, before it is scaled",
    "Backward.loss_scale": "what that is multiplied by",
    "Backward.steps": "the steps of the backward pass, degrees in the gradient's scale",
    "Backward.overflow": "overflows of these steps",
    "Backward.underflow": "underflows of these steps",
    "Backward.invalid": "NaN from operands that are not NaN, of these steps",
    "Backward.absorbed": "absorbed terms of their sums",
    "Backward.rows": "how the rows of dx ended",
    "Backward.deviation": "distance of dx from the exact one",
    "Backward.flushed": "elements of dx that became 0",
    "Backward.overflow_bits": "bits that the loss scale may grow; null where nothing depends on it",
    "Backward.overflow_step": "the step that overflows first",
    "Backward.safe_loss_scale": "the least and the largest power of two that is a safe loss scale; null without one",
    "Backward.weight": "the gradient of gamma; null where there is none to train",
    "Backward.bias": "the gradient of beta; null where there is none to train",
    "Backward.assumed": "whether the gradient that arrives is an assumption",
    "ParameterGradient.format": "format that it is stored in for the optimizer",
    "ParameterGradient.count": "how many numbers it has",
    "ParameterGradient.elements": "how many elements go into the sum of each",
    "ParameterGradient.nonfinite": "numbers that are NaN or infinite",
    "ParameterGradient.flushed": "numbers that are 0 where the exact ones are not",
    "ParameterGradient.relative_rms": "norm of the error over that of the exact gradient; null where nothing is finite",
    "ParameterGradient.ideal": "what rounding the exact gradient once would give",
    "GradientRows.total": "rows that were run",
    "GradientRows.nonfinite": "rows of dx with an infinity or NaN",
    "GradientRows.vanished": "rows of dx that became 0 where the exact ones, rounded, do not",
    "Flushed.count": "elements that became 0",
    "Flushed.of": "elements that are not 0 exactly",
    "Flushed.share": "their ratio",
    "Shape.groups": "rows",
    "Shape.size": "elements of a row, n",
    "Shape.row": "what a row is called",
    "Input.source": "the distribution, or where the values came from",
    "Input.assumed": "whether nothing but a default says so",
    "Input.rows": "rows that were run",
    "Input.elements": "elements that were run",
    "Input.exponents": "their magnitudes; null in reports of older versions",
    "Exponents.lowest": "the power of two at which the first count begins",
    "Exponents.zeros": "elements that are 0",
    "Exponents.nonfinite": "elements that are infinite or NaN",
    "Exponents.counts": "elements of each power of two from there on",
    "Step.step": "name of the step",
    "Step.format": "name of the format of its result",
    "Step.operations": "the denominator of all event counts",
    "Step.max_abs": "largest magnitude before rounding",
    "Step.min_abs": "smallest magnitude before rounding that is not 0",
    "Tally.count": "events",
    "Tally.of": "operations",
    "Tally.rows": "rows with such an event; null where that is not kept",
    "Rows.total": "rows that were run",
    "Rows.nonfinite": "rows with an infinity or NaN in the output",
    "Rows.collapsed": "rows that became beta where the exact ones do not",
    "Rows.amplified": "rows whose statistic with eps is less than half of the exact one",
    "Rows.shrunk": "rows whose statistic with eps is more than twice the exact one",
    "WorstRow.index": "which row it is",
    "WorstRow.kind": "what became of it",
    "WorstRow.s": "exact statistic with eps",
    "WorstRow.s_emulated": "emulated statistic with eps",
    "WorstRow.first_bad_step": "the first step that went wrong in it; null where none did",
    "max_abs": "largest error",
    "mean_abs": "mean magnitude of the error",
    "rms": "root mean square of the error",
    "Statistic.max_relative_error": "largest relative error, where both are finite and the exact one is not 0",
    "Statistic.eps_share_max": "eps over the exact value that it is added to, the most of rows that have variance",
    "Statistic.eps_dominated_rows": "rows in which that share is more than a tenth",
    "Statistic.effective_eps": "eps as the kernel adds it, in the row where that changes the divisor most",
    "Statistic.eps_effect": "relative change of the divisor by it",
    "Deviation.ideal": "what rounding the exact output once would give",
    "max_ulp": "largest error, in ulps of the io format",
    "mean_ulp": "mean error, in ulps of the io format",
    **dict.fromkeys(
        ("Distance.gain", "Deviation.gain"),
        "mean over rows of alpha - 1 in the fit computed = alpha * exact + delta, before the affine step",
    ),
    "gain_sd": "standard deviation of alpha over rows",
    "offset": "norm of the fitted delta over the norm of the exact rows",
    "noise": "norm of what the fit leaves over the norm of the exact rows",
    "Representation.max_abs": "largest error of the output",
    "Representation.relative_rms": "norm of the error over norm of the exact output",
    "ScaleRatio.mean": "mean over rows",
    "ScaleRatio.cv": "coefficient of variation over rows",
    "Headroom.overflow_bits": "bits that the scale may grow",
    "Headroom.overflow_step": "the step that overflows first",
    "Headroom.underflow_bits": "bits that the scale may shrink",
    "Headroom.underflow_step": "the step of the statistic",
    "ParameterFacts.format": "the format that they are in",
    "ParameterFacts.of": "numbers in all: gamma, beta, running statistics",
    "ParameterFacts.beyond": "of these, finite as stored, and infinite or saturated in `format`",
    "ParameterFacts.weights": "gammas",
    "ParameterFacts.flushed": "of these, 0 in `format` and not as stored",
    "ParameterFacts.folded_beyond": "channels whose folded scale or shift is beyond the format",
    "ParameterFacts.folded_flushed": "channels whose folded scale becomes 0",
    "ParameterFacts.mean_step": "least change of a batch's mean, in deviations, that the running one follows",
    "ParameterFacts.variance_step": "least relative change of a batch's variance that the running one follows",
    "ParameterFacts.beyond_running_var": "running variances among those `beyond`",
    "Finding.precision": "format of the elements, by its label; null where it holds for all",
    "Finding.implementation": "the implementation; null where it holds for all",
    "Finding.params": "preset of the parameters' format; null where it holds for all",
    "Finding.mode": "statistics of the batch (`train`) or running ones (`eval`); null where it holds for both",
    "Finding.measure": "the figure that made it fire; null where the rule has none",
    "Finding.step": "the step at which it shows; null where it is none",
    "Finding.message": "what was found, in a sentence",
    "Finding.assumed": "whether it rests on an assumption alone",
    "Measure.name": "path of the figure in the result",
    "Measure.value": "the figure",
    "Measure.limit": "the limit",
    "Skipped.reason": "why it was left out",
    "Summary.ignored": "findings left out because they were deselected",
    "Summary.known": "findings left out because the baseline has them",
    "LayerFacts.how": "how its kind was decided",
    "LayerFacts.sure": "whether that leaves no doubt",
    "LayerFacts.might_be": "the other kinds that it might be",
    "LayerFacts.file": "the file it is in",
    "LayerFacts.aliases": "other names of the same parameters",
    "LayerFacts.channels": "channels, or features",
    "LayerFacts.num_groups": "groups of a group norm; null for others",
    "Advice.title": "what to change, in a line",
    "Advice.layers": "the layers that it is for",
    "Advice.snippet": "text to paste",
    "Advice.evidence": "what trying it gave",
    "RuleFacts.code": "the code",
    "RuleFacts.slug": "its name in words",
    "RuleFacts.title": "what it finds",
    "RuleFacts.severity": "severity by default",
    "RuleFacts.why": "why it matters",
    "RuleFacts.documentation": "where it is documented",
    "RuleFacts.detects": "when it fires",
    "FormatFacts.name": "name, as in `Step.format`",
    "FormatFacts.label": "label, as in `Result.precision`",
    "FormatFacts.precision": "significant bits",
    "FormatFacts.min_subnormal": "smallest number",
    "FormatFacts.min_normal": "smallest normal number",
    "FormatFacts.max_finite": "largest finite number",
    "FormatFacts.overflow_threshold": "magnitude from which rounding overflows",
    "FigureChange.unit": "unit of both, as in `Measure`",
    "Change.kind": "of a finding: new, gone, or in both and worse or better; without a `rule`, of the verdict",
    "Change.rule": "code of the rule; null for a verdict",
    "Comparison.old": "the older report",
    "Comparison.new": "the newer report; null for the run itself",
    "Comparison.only_old": "places, or whole layers, that only the older one analysed",
    "Comparison.only_new": "places, or whole layers, that only the newer one analysed",
    "FigureChange.old": "in the old report",
    "FigureChange.new": "in the new report",
    "SettingChange.old": "in the old report",
    "SettingChange.new": "in the new report",
    "Comparison.regressions": "what is new or worse",
    "Comparison.improvements": "what is gone or better",
}
"""Of fields that their object's description does not explain in a sentence of their own, by object or for all."""


def json_fields() -> str:
    """Return every object of the report's JSON, and its fields.

    Raises:
        SystemExit: nothing says what a field means.
    """
    definitions = schema()["$defs"]
    told = _explained(definitions["Distance"])
    return _objects(definitions, {"Deviation": {field: text for field, text in told.items() if field}})


def _objects(definitions: dict[str, Any], more: dict[str, dict[str, str]]) -> str:
    """Return objects of JSON with their fields; `more` are meanings that other objects' descriptions hold."""
    told = {name: _explained(definition) | more.get(name, {}) for name, definition in definitions.items()}
    parts = []
    for name, definition in definitions.items():
        parts += [f"### JSON object {name}", told[name][""]]
        fields = definition.get("properties", {})
        if fields:
            rows = [(code(field), _type(part), _meaning(name, field, told[name])) for field, part in fields.items()]
            parts.append(table(("field", "type", "meaning"), rows))
    return "\n\n".join(parts)


def reproduce_fields() -> str:
    """Return every object of what `normcheck reproduce` writes, and its fields."""
    _, definitions = msgspec.json.schema_components([Reproduction])
    return _objects(definitions, {})


def track_fields() -> str:
    """Return every object of what `normcheck track` writes, and its fields."""
    _, definitions = msgspec.json.schema_components([TrackReport])
    return _objects(definitions, {})


def _explained(definition: dict[str, Any]) -> dict[str, str]:
    """Return what the description of an object says of single fields, and under no name all the rest."""
    sentences = re.split(r"(?<=[.?!]) (?=[A-Z`])", " ".join(inspect.cleandoc(definition["description"]).split()))
    single = {m[1]: m[2] for m in (re.match(r"`(\w+)`: (.+)\.$", sentence) for sentence in sentences) if m}
    rest = [sentence for sentence in sentences if not re.match(r"`\w+`: ", sentence)]
    return {field: _null(text) for field, text in {**single, "": " ".join(rest)}.items()}


def _null(text: str) -> str:
    return re.sub(r"\bNone\b", "null", re.sub(r"\bFalse\b", "false", text))


def _meaning(name: str, field: str, told: dict[str, str]) -> str:
    specific = FIELD_MEANINGS.get(f"{name}.{field}") or told.get(field) or FIELD_MEANINGS.get(field)
    if specific is None:
        raise SystemExit(f"docs/generate.py: nothing says what {name}.{field} means: its description or FIELD_MEANINGS")
    return specific


def _type(part: dict[str, Any]) -> str:
    match part:
        case {"$ref": ref}:
            name = ref.rpartition("/")[2]
            return "number" if name == "Number" else f"[{name}](#json-object-{name.lower()})"
        case {"anyOf": choices}:
            return " or ".join(map(_type, choices))
        case {"enum": values}:
            return " or ".join(code(f'"{v}"' if isinstance(v, str) else v) for v in values)
        case {"type": "array", "prefixItems": items}:
            return f"list of {len(items)} {_type(items[0])}s"
        case {"type": "array", "items": item}:
            return f"list of {_type(item)}"
        case {"type": kind}:
            return str(kind)
    raise ValueError(f"a type that docs/generate.py does not know: {part}")


# ------------------------------------------------------------------------------------------ the paper's claims

REPRODUCED = "docs/paper/reproduce.json"
"""What `normcheck reproduce --out docs/paper` wrote: the pages quote it, and nothing of it is written by hand."""


@functools.cache
def reproduction() -> Reproduction:
    """Return the stored results of the experiments."""
    return from_json((ROOT / REPRODUCED).read_bytes())


def experiment(name: str) -> Experiment:
    """Return the stored results of one experiment.

    Raises:
        SystemExit: they are not there.
    """
    found = next((e for e in reproduction().experiments if e.name == name), None)
    if found is None:
        raise SystemExit(f"{REPRODUCED} holds no {name}: run normcheck reproduce --out docs/paper")
    return found


def paper_claims(name: str) -> str:
    """Return an experiment: what was run, what became of each claim, and its pictures."""
    found = experiment(name)
    pictures = [
        f"![{plot.title}](paper/{picture_name(found, plot)})"
        for plot in (*found.curves, *found.maps)
    ]  # fmt: skip
    return "\n\n".join([filled(f"{found.setup} Seeds: {len(found.seeds)}."), claims_table(found), *pictures])


def paper_runs() -> str:
    """Return the experiments with the time that each took, and on what."""
    found = reproduction()
    rows = []
    for row in EXPERIMENTS.values():
        standings = [claim.standing for claim in experiment(row.name).claims]
        counts = (standings.count(standing) for standing in STANDINGS)
        rows.append((row.letter, f"[{code(row.name)}](#{row.name})", row.title, *counts, experiment(row.name).seconds))
    on = ", ".join(f"{name} {found.environment[name]}" for name in ("machine", "processors", "python", "torch"))
    note = filled(f"Measured in the {'quick' if found.quick else 'full'} form on {on}.")
    return f"{table(('', 'experiment', 'what it runs', *STANDINGS, 'seconds'), rows)}\n\n{note}"


def paper_statistics() -> str:
    """Return the accuracies of every way to normalise."""
    rows = []
    for name, facts in experiment("statistics").facts.items():
        rows.append((name, facts["constant"], percent(facts["accuracies"]), percent(facts["mean_over_run"])))
    return table(("divided by", "constant", "accuracy at the end", "mean over all evaluations of a run"), rows)


def paper_half_precision() -> str:
    """Return for each way and element count up to which scale it trains and from which, and where, it fails."""
    rows = []
    for way, sizes in experiment("half-precision").facts["borders"].items():
        for n, found in sizes.items():
            ends = (found[end] for end in ("trains_to", "fails_from"))
            step = "" if found["step"] is None else code(found["step"])
            rows.append((way, n, *("none tried" if end is None else f"{end:g}" for end in ends), step))
    return table(("way", "n", "trains up to a deviation of", "fails from", "where"), rows)


def paper_weight_norm() -> str:
    """Return the accuracy of every way to bound a net, and the learning rates that it was given and that it bears."""
    rows = [
        (name, percent(facts["accuracies"]), facts["learning_rate"], facts["largest_learning_rate_that_trains"])
        for name, facts in experiment("weight-norm").facts.items()
    ]
    return table(("way", "accuracy at the end", "learning rate", "largest learning rate that trains"), rows)


def paper_weight_decay() -> str:
    """Return of every form how far directions go astray, and its accuracy at either learning rate."""
    facts = experiment("weight-decay").facts
    parts = [facts[part]["forms"] for part in ("directions", "accuracy", "learning rate dropped")]
    rows = []
    for name in dict.fromkeys(name for part in parts for name in part):
        turned, *trained = (part.get(name) for part in parts)
        error = "" if turned is None else f"{median(turned['displacement_errors']):.2g}"
        rows.append((name, error, *("" if found is None else percent(found["accuracies"]) for found in trained)))
    return table(("run", "displacement error, median", "accuracy", "accuracy, learning rate dropped"), rows)


def paper_constants() -> str:
    """Return s / sigma, and below it how much s varies between groups, by distribution."""
    facts = experiment("constants").facts
    kinds = ("l1 paper", "linf paper", "linf exact", "topk paper", "topk exact", "range paper", "range exact")
    ratios = [(code(name), *(f"{sizes['1024'][kind]['mean']:.3f}" for kind in kinds)) for name, sizes in facts.items()]
    names = ("l2", "l1 exact", "linf exact", "topk exact", "range exact")
    varied = [
        (code(name), *(f"{sizes['1024'][kind]['variation']:.3f}" for kind in names)) for name, sizes in facts.items()
    ]
    heads = ("l1, both", *kinds[1:])
    return (
        f"{table(('mean of s / sigma', *heads), ratios)}\n\n"
        f"{table(('coefficient of variation of s', *(name.split()[0] for name in names)), varied)}"
    )


# ---------------------------------------------------------------------------------------- the fidelity suite


def fidelity_results() -> str:
    """Return what the fidelity suite found: a summary, and a table for each project.

    Raises:
        SystemExit: nothing is kept.
    """
    parts = [filled(fidelity_page.summary(_fidelity()))]
    for title, versions, (heads, rows) in fidelity_page.tables(_fidelity()):
        parts += [f"### {title}", f"{versions}.", table(heads, rows)]
    return "\n\n".join(parts)


def fidelity_below() -> str:
    """Return the reasons why kernels are below the share of a verified row, and the kernels of each."""
    parts = []
    for reason, kernels in fidelity_page.below(_fidelity()):
        parts += [filled(f"{reason}:"), "\n".join(f"* {kernel}" for kernel in kernels)]
    return "\n\n".join(parts) or "None."


def fidelity_not_run() -> str:
    """Return what could not be run where the rest was."""
    heads, rows = fidelity_page.not_run(_fidelity())
    return table(heads, rows) if rows else "All the rest was run."


def fidelity_fields() -> str:
    """Return every object of what the fidelity suite writes, and its fields."""
    _, definitions = msgspec.json.schema_components([Fidelity])
    return _objects(definitions, {})


@functools.cache
def _fidelity() -> Fidelity:
    found = kept_fidelity()
    if found is None:
        raise SystemExit("docs/fidelity/results.json is not there: run python -m normcheck.fidelity --write")
    return found


# ------------------------------------------------------------------------------------------ published failures


@functools.cache
def corpus() -> Corpus:
    """Return all published failures and controls, replayed.

    Raises:
        SystemExit: one is not as predicted: no page says that it is.
    """
    found = replayed(records().values())
    wrong = [case.id for case in found.cases if not case.holds]
    if wrong:
        raise SystemExit(f"not as predicted: {', '.join(wrong)}; normcheck cases {' '.join(wrong)}")
    return found


def failures_counts() -> str:
    """Return how many cases there are of each kind, and how many are as predicted."""
    rows = [(words, number, right) for words, (number, right) in case_counts(corpus()).items()]
    groups = {"controls": corpus().controls, "implementations that are right": corpus().failures}
    told = []
    for words, cases in groups.items():
        sides = [side for case in cases for replay in case.replays for side in replay.sides if side.role == "right"]
        told.append(f"Runs of {words}: {len(sides)}, of which flagged: {sum(side.flagged for side in sides)}.")
    return f"{table(('input', 'cases', 'as predicted'), rows)}\n\n{filled(' '.join(told))}"


def failures_signatures() -> str:
    """Return how norms fail, how many of the cases do so, and which rules say it."""
    rows = []
    for name, meaning in MEANINGS.items():
        found = [replay for case in corpus().failures for replay in case.replays if replay.signature == name]
        rules = dict.fromkeys(rule for replay in found for rule in replay.rules)
        rows.append((code(name), meaning, len(found), codes(sorted(rules))))
    return table(("signature", "what happened", "inputs", "rules"), rows)


def failures(source: str) -> str:
    """Return the cases whose input is from one source, or the controls."""
    cases = corpus().controls if source == "controls" else corpus().of(source)  # type: ignore[arg-type]  # the literals
    return "\n\n".join(_case(case) for case in cases)


def _case(case: FailureCase) -> str:
    links = " ".join(f"<{link}>" if "://" in link else f"[{link}]({link.removeprefix('docs/')})" for link in case.links)
    texts = [f"{case.story} {links}", case.reconstruction and f"Input: {case.reconstruction}", case.note]
    rows = [
        (
            replay.input,
            code(side.implementation),
            predicted(side.role, replay),
            code(side.signature or "-"),
            side.verdict,
            _rules_of(side),
        )
        for replay in case.replays
        for side in replay.sides
    ]
    figures = [
        (replay.input, code(each.name), predicted(each.side, replay), each.expected, f"{each.measured:.6g}")
        for replay in case.replays
        for each in replay.figures
    ]
    parts = [f"### {case.id} {case.where}", *(filled(" ".join(text.split())) for text in texts if text)]
    parts.append(table(("input", "implementation", "predicted", "signature", "verdict", "normcheck says"), rows))
    if figures:
        parts.append(table(("input", "figure", "of the one that", "expected", "here"), figures))
    return "\n\n".join(parts)


def _rules_of(side: Side) -> str:
    return codes(dict.fromkeys(flag.rule for flag in side.flags))


def cases_fields() -> str:
    """Return every object of what `normcheck cases` writes, and its fields."""
    _, definitions = msgspec.json.schema_components([Corpus])
    return _objects(definitions, {})


# ----------------------------------------------------------------------------------------------------- blocks

BLOCKS: dict[str, Callable[[], str]] = {
    "aliases": alias_names,
    **{name: functools.partial(session, name) for name in OUTPUTS},
    **{f"rule {r.code}": functools.partial(rule, r.code) for r in normcheck.rules()},
    "api": api,
    "cases fields": cases_fields,
    "commands": commands,
    "constants": constants,
    "cost fields": cost_fields,
    "costs": costs,
    "distributions": distributions,
    "exit codes": exit_codes,
    "failures counts": failures_counts,
    "failures signatures": failures_signatures,
    **{
        f"failures {name}": functools.partial(failures, name)
        for name in ("published", "found", "reconstructed", "controls")
    },
    "fidelity below": fidelity_below,
    "fidelity fields": fidelity_fields,
    "fidelity inputs": lambda: table(*fidelity_page.families()),
    "fidelity not run": fidelity_not_run,
    "fidelity results": fidelity_results,
    "format facts": format_facts,
    "formats": formats,
    "implementation fields": implementation_fields,
    "implementations": implementations,
    "json": json_fields,
    "kinds of operations": kinds_of_operations,
    "limits": limits,
    "norms": norms,
    "orders": orders,
    "orders of kernels": orders_of_kernels,
    "recurrences": recurrences,
    **{f"paper {name}": functools.partial(paper_claims, name) for name in EXPERIMENTS},
    "paper json": reproduce_fields,
    "paper runs": paper_runs,
    "paper facts of statistics": paper_statistics,
    "paper facts of half precision": paper_half_precision,
    "paper facts of constants": paper_constants,
    "paper facts of weight decay": paper_weight_decay,
    "paper facts of weight norm": paper_weight_norm,
    "params": params,
    "policies": policies,
    "rounding": rounding_modes,
    "rules": rules,
    "settings": settings,
    "show settings": show_settings,
    "statistics": statistics,
    "step sequences": step_sequences,
    "steps of norms": steps,
    "track fields": track_fields,
    "wheres": wheres,
}
BLOCK_IN_PAGE = re.compile(r"<!-- generated: (?P<name>.+?) -->\n(?P<text>.*?)<!-- end: (?P=name) -->", re.DOTALL)
_MARK = re.compile(r"<!-- (generated|end): (.+?) -->")


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that may hold blocks."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


@functools.cache
def fresh(name: str) -> str:
    """Return what a block should hold.

    Raises:
        SystemExit: no block has that name.
    """
    if name not in BLOCKS:
        raise SystemExit(f"docs/generate.py knows no block {name!r}")
    return f"\n{BLOCKS[name]()}\n\n"


def rewritten(text: str) -> str:
    """Return a page with all its blocks fresh.

    Raises:
        SystemExit: a mark without its counterpart, or a block of an unknown name.
    """
    marks = [mark[2] for mark in _MARK.finditer(BLOCK_IN_PAGE.sub("", text))]
    if marks:
        raise SystemExit(f"a block begins or ends alone: {', '.join(marks)}")
    return BLOCK_IN_PAGE.sub(lambda m: f"{_mark('generated', m)}\n{fresh(m['name'])}{_mark('end', m)}", text)


def _mark(kind: str, block: re.Match[str]) -> str:
    return f"<!-- {kind}: {block['name']} -->"


def stale(text: str) -> list[str]:
    """Return the names of a page's blocks that are not what they should be."""
    rewritten(text)  # complains of marks
    return [m["name"] for m in BLOCK_IN_PAGE.finditer(text) if not current(m["name"], m["text"])]


def current(name: str, text: str) -> bool:
    """Whether a block holds what it should.

    Help texts look different with every version of typer and rich: where these differ from those of the block, it
    is current if it names the same commands and options.
    """
    wanted = fresh(name)
    if name != "commands" or _versions(text) == _versions(wanted):
        return text == wanted
    return _options(text) == _options(wanted)


def _versions(text: str) -> str:
    return text.strip().partition("\n")[0]


def _options(text: str) -> list[str]:
    return sorted(re.findall(r"^### .*|^\W*--[a-z][a-z-]*", text, re.MULTILINE))


def main(arguments: list[str]) -> int:
    """Rewrite all pages, or check them."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write(f"{__doc__}")
        return 2
    bad = 0
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if arguments:
            names = stale(text)
            bad += len(names)
            for name in names:
                sys.stderr.write(f"{page.relative_to(ROOT)}: block {name!r} is stale; run python docs/generate.py\n")
        else:
            page.write_text(rewritten(text), encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
