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
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

import normcheck
from normcheck.analysis.safe_scale import FARTHEST, RESOLUTION
from normcheck.analysis.study import BLOCK
from normcheck.analysis.thresholds import DEFAULTS
from normcheck.analysis.totals import EPS_DOMINATES, WORST_KEPT
from normcheck.arithmetic.formats import MAX_EXPONENT_BITS, MAX_MANTISSA_BITS, OverflowPolicy
from normcheck.arithmetic.orders import DEFAULT_BLOCK, DEFAULT_LANES, ORDERS
from normcheck.arithmetic.rounding import MODES, carried_by_float32
from normcheck.arithmetic.values import PART
from normcheck.cli.exit_codes import ExitCode
from normcheck.cli.main import app
from normcheck.norms.constants import constant
from normcheck.norms.implementations import STEP_ROLES
from normcheck.norms.parameters import PARAMS
from normcheck.norms.table import NORMS, STATISTICS, WHERES
from normcheck.render.figures import figure, number
from normcheck.render.schema import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from normcheck.analysis.rule import Rule
    from normcheck.norms.implementations import Implementation

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = {
    "model": "normcheck analyze data/breast-cancer-mlp.pt --precision fp16 --mode eval",
    "layer": "normcheck analyze data/digits-transformer --layer norm --precision fp16",
    "contrast": """normcheck simulate --norm batch-l2,batch-l1 --precision fp16 \\
    --implementation pure,wide-sum,wide --shape 8,16,8,8 --std 100""",
    "steps": """normcheck simulate --implementation wide-sum --shape 8,16,8,8 --std 100 \\
    --fail-on never --steps""",
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
    "running-update": "running = (1 - momentum) * running + momentum * batch: three operations a statistic, and for "
    "a variance the factor n / (n - 1)",
}
EXIT_MEANINGS = {
    ExitCode.CLEAN: "no finding at or above `--fail-on` (by default: no error)",
    ExitCode.FINDINGS: "at least one finding at or above `--fail-on`",
    ExitCode.ERROR: "usage error, a file that cannot be read or written, internal error: one line on stderr each",
    ExitCode.NOTHING: "nothing was analysed: no norm layer was found, or no implementation asked for defines the norms",
    ExitCode.INTERRUPTED: "interrupted from the keyboard",
}
THRESHOLDS_OF = {
    "NC103": ("headroom_bits",),
    "NC106": ("count_error",),
    "NC204": ("parameter_change",),
    "NC301": ("deviation_ideal", "deviation"),
    "NC302": ("lost_mass_warning", "lost_mass_error"),
    "NC303": ("variance_bits",),
    "NC304": ("coherent",),
    "NC305": ("stalled_update",),
}
"""Which settings of `thresholds.Thresholds` a rule reads."""

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


def math(formula: str) -> str:
    """Return a formula as code: Markdown would take its asterisks for its own."""
    return code(formula.replace("`", ""))


# --------------------------------------------------------------------------------------- what the program prints


def printed(command: str) -> tuple[str, int]:
    """Return what a command prints on standard output at 80 columns and without a terminal, and its exit code."""
    words = _words(command)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NORMCHECK_", "FORCE_COLOR"))}
    done = subprocess.run(  # noqa: S603  # this file's own commands
        [sys.executable, "-m", *words],
        env={**environment, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
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
    """Return every implementation with all its fields."""
    rows = normcheck.implementations()
    heads = [(f"**{r.name}**", r.title) for r in rows]
    fields = [f.name for f in dataclasses.fields(rows[0]) if f.name not in ("name", "title")]
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


def orders() -> str:
    """Return the orders of summation."""
    return table(("order", "association"), [(code(name), text) for name, text in ORDERS.items()])


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
    roles = {**STEP_ROLES, "cast": "normalized", "saved": "saved"}
    return table(
        ("step", "format is the field", "what it computes"),
        [(code(step), code(role), STEP_MEANINGS[step]) for step, role in roles.items()],
    )


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
    settings = [f"`{name}` = {number(getattr(DEFAULTS, name))}" for name in THRESHOLDS_OF.get(which, ())]
    return table(
        (row.title, ""),
        [
            ("default severity", row.severity),
            ("makes a result", "degraded, where it fires above a note" if row.accuracy else "-"),
            ("thresholds", ", ".join(settings) or "-"),
            ("why it matters", row.why),
            ("how to fix", _fix(row)),
        ],
    )


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


def json_fields() -> str:
    """Return every object of the report's JSON, and its fields."""
    definitions = schema()["$defs"]
    parts = []
    for name, definition in definitions.items():
        text = inspect.cleandoc(definition.get("description", ""))
        parts += [f"### JSON object {name}", " ".join(text.split())]
        fields = definition.get("properties")
        if fields:
            parts.append(table(("field", "type"), [(code(field), _type(part)) for field, part in fields.items()]))
    return "\n\n".join(parts)


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


# ----------------------------------------------------------------------------------------------------- blocks

BLOCKS: dict[str, Callable[[], str]] = {
    **{name: functools.partial(session, name) for name in OUTPUTS},
    **{f"rule {r.code}": functools.partial(rule, r.code) for r in normcheck.rules()},
    "api": api,
    "commands": commands,
    "constants": constants,
    "distributions": distributions,
    "exit codes": exit_codes,
    "format facts": format_facts,
    "formats": formats,
    "implementations": implementations,
    "json": json_fields,
    "limits": limits,
    "norms": norms,
    "orders": orders,
    "params": params,
    "policies": policies,
    "rounding": rounding_modes,
    "rules": rules,
    "statistics": statistics,
    "step sequences": step_sequences,
    "steps of norms": steps,
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
