"""``normcheck implementations``."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normcheck.cli import completion
from normcheck.cli.files import emit
from normcheck.cli.listing import show_list, show_page
from normcheck.cli.options import Debug, ListAs, ListFormat, Name
from normcheck.cli.terminal import color, width
from normcheck.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from normcheck.norms.aliases import Alias
    from normcheck.norms.catalogue import Note
    from normcheck.norms.evidence import Evidence
    from normcheck.norms.implementations import Implementation
    from normcheck.render.lists import Entry

_COLUMNS = {"project": "project", "status": "status", "title": "what it is"}
_NARROW = ("project", "status", "title")
_ALIAS_COLUMNS = {"also": "also", "title": "what it is"}
_NOTE_COLUMNS = {"text": "no row, but known"}
_PICKS = {"norms": "norms", "precisions": "precisions", "where": "where"}
_NOTE = (
    "A name shows what happens in which order, and how well that is known: normcheck implementations pure. An alias "
    "picks a row for each norm, precision and size; `all` means every row that defines them."
)
_NO_ROWS = "A name shows where that is from, and why it is no row: normcheck implementations torch-sum-fp16"
_COMMAND = "normcheck implementations"
_ABOUT = ("title", "project", "platform")
_CHOSEN = (
    "norms", "precisions", "parameters", "modes", "multiple_of", "size_from", "size_below", "spatial_from",
    "spatial_below",
)  # fmt: skip

Project = Annotated[
    str | None,
    typer.Option("--project", metavar="NAME", autocompletion=completion.projects, help="Rows of this project alone."),
]
StatusIs = Annotated[
    str | None,
    typer.Option("--status", metavar="STATUS", autocompletion=completion.statuses, help="Rows of this status alone."),
]
OfNorm = Annotated[
    str | None,
    typer.Option("--norm", metavar="NORM", autocompletion=completion.norms, help="Rows that define this norm."),
]
OfPrecision = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="FORMAT", autocompletion=completion.precisions, help="Rows that define this precision."
    ),
]


def implementations(
    name: Name = None,
    *,
    project: Project = None,
    status: StatusIs = None,
    norm: OfNorm = None,
    precision: OfPrecision = None,
    form: ListAs = ListFormat.TABLE,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """List the implementations and aliases, or say what one of them, or each of a TOML file, does, step by step."""
    from normcheck.norms.aliases import Alias
    from normcheck.norms.catalogue import aliases, catalogue, choice_named, notes

    filters = {"--project": project, "--status": status, "--norm": norm, "--precision": precision}
    if name is not None:
        given = [option for option, value in filters.items() if value is not None]
        if given:
            raise UsageError(f"{given[0]} narrows the list: leave it or {name!r} out")
        if name.strip().lower().endswith(".toml"):
            _show_file(name.strip(), form)
            return
        note = next((note for note in notes() if note.name == name.strip().lower()), None)
        if note is not None:
            show_page(_note_entry(note), form)
            return
        choice = choice_named(name)
        _show_alias(choice, form) if isinstance(choice, Alias) else _show_row(choice, form)
        return
    rows = _narrowed(catalogue().values(), project, status, norm, precision)
    known = {row.name for row in rows}
    plain = status is None and norm is None and precision is None
    told = [note for note in notes() if plain and note.project.lower() == (project or note.project).strip().lower()]
    named = [alias for alias in aliases() if any(row.name in known for row in alias.rows)]
    _show_all(rows, [alias for alias in named if not (alias.every and any(filters.values()))], told, form)


def _narrowed(
    rows: Iterable[Implementation], project: str | None, status: str | None, norm: str | None, precision: str | None
) -> list[Implementation]:
    """Return the rows that the filters leave.

    Raises:
        UsageError: a project, status, norm or format that does not exist, or filters that leave nothing.
    """
    from normcheck.arithmetic.formats import format_named
    from normcheck.norms.table import norm_named

    rows = list(rows)
    status = None if status is None else status.replace("-", " ")
    for option, value in (("project", project), ("status", status)):
        known = {getattr(row, option).lower(): getattr(row, option) for row in rows}
        if value is not None and value.strip().lower() not in known:
            raise _unknown(option, value, list(known.values()))
    what, io = None if norm is None else norm_named(norm), None if precision is None else format_named(precision)
    left = [
        row
        for row in rows
        if (project is None or row.project.lower() == project.strip().lower())
        and (status is None or row.status == status.strip().lower())
        and (what is None or row.defines(what))
        and (io is None or not row.precisions or io.label in row.precisions)
    ]
    if not left:
        raise UsageError("no implementation is of all of these: leave a filter out")
    return left


def _unknown(option: str, value: str, known: list[str]) -> UsageError:
    """The error of a project or status that does not exist: those that hold the value, else those spelt like it."""
    within = [name for name in known if value.strip() and value.strip().lower() in name.lower()]
    if not within:
        return unknown_name(option, value, known, _COMMAND)
    return UsageError(f"unknown {option} {value!r}: did you mean {', '.join(within)}? `{_COMMAND}` lists what exists")


# ---------------------------------------------------------------------------------------------------- the list


def _show_all(rows: list[Implementation], aliases: list[Alias], notes: list[Note], form: ListFormat) -> None:
    from normcheck.render import lists

    entries = tuple(map(_entry, rows))
    named = tuple(map(_alias_entry, aliases))
    told = tuple(map(_note_entry, notes))
    if form is ListFormat.JSON:
        emit(lists.render_json(*entries, *named, *told), "utf-8")
        return
    show_list(lists.Listing(entries=entries, columns=_COLUMNS, narrow=_NARROW, above=True), form)
    if named:
        emit("\n")
        columns = tuple(_ALIAS_COLUMNS)
        show_list(lists.Listing(entries=named, columns=_ALIAS_COLUMNS, narrow=columns, above=True, note=_NOTE), form)
    if told:
        emit("\n")
        columns = tuple(_NOTE_COLUMNS)
        show_list(lists.Listing(entries=told, columns=_NOTE_COLUMNS, narrow=columns, above=True, note=_NO_ROWS), form)


def _entry(row: Implementation) -> Entry:
    """Return all facts of a row: its fields, what they mean in words, and the evidence."""
    from normcheck.norms.evidence import evidence_for
    from normcheck.norms.wording import in_words
    from normcheck.render.lists import Entry

    facts: dict[str, Any] = {"kind": "implementation"}
    facts |= {f.name: _fact(getattr(row, f.name)) for f in fields(row) if f.name != "name"}
    found = evidence_for(row)
    return Entry(row.name, facts | {"words": in_words(row), "evidence": None if found is None else asdict(found)})


def _note_entry(note: Note) -> Entry:
    from normcheck.render.lists import Entry

    facts = {"kind": "note", "project": note.project, "text": note.text, "citation": note.citation}
    return Entry(note.name, facts | {"reason": note.reason})


def _alias_entry(alias: Alias) -> Entry:
    from normcheck.render.lists import Entry

    facts = {"kind": "alias", "title": alias.title, "also": alias.also, "rows": tuple(row.name for row in alias.rows)}
    return Entry(alias.name, facts)


def _fact(value: Any) -> Any:
    """Return a field as JSON has it: orders of summation as their text."""
    return value if value is None or isinstance(value, str | int | float | tuple) else str(value)


# ---------------------------------------------------------------------------------------------------- one of them


def _show_file(path: str, form: ListFormat) -> None:
    """Show all rows of a user's file, one page after the other."""
    from normcheck.norms.catalogue import implementations_of_file
    from normcheck.render import lists

    rows = implementations_of_file(path)
    if form is ListFormat.JSON:
        emit(lists.render_json(*map(_entry, rows)), "utf-8")
        return
    for place, row in enumerate(rows):
        if place:
            emit("\n")
        _show_row(row, form)


def _show_row(row: Implementation, form: ListFormat) -> None:
    from normcheck.norms.wording import glossary
    from normcheck.render import lists

    entry = _entry(row)
    if form is ListFormat.JSON:
        emit(lists.render_json(entry, one=True), "utf-8")
        return
    facts = entry.facts
    about = {key: facts[key] for key in _ABOUT if facts[key]} | _known(row, facts["status"])
    chosen = {key: facts[key] for key in _CHOSEN if facts[key] not in ((), 0, 1)}
    hidden = {"kind", "words", "evidence", "status", "citation", "approximation", *_ABOUT, *_CHOSEN}
    meant = glossary(row)
    sections = [
        lists.Section(title="What it is chosen for", facts=chosen),
        lists.Section(title="What happens, in order", sentences=facts["words"]),
        lists.Section(title="What its names mean", facts=meant),
        lists.Section(title="Fields", facts={key: value for key, value in facts.items() if key not in hidden}),
    ]
    emit(lists.render_sections(lists.Entry(row.name, about), sections, width=width(), color=color()))


def _known(row: Implementation, status: str) -> dict[str, str]:
    """Return how well a row is known: status, evidence, citation, approximation."""
    from normcheck.norms.evidence import evidence_for

    found = evidence_for(row)
    lines = {"status": status, "evidence": _said(found) if found else "", "citation": row.citation}
    return {key: text for key, text in (lines | {"approximation": row.approximation}).items() if text}


def _said(found: Evidence) -> str:
    """Return the evidence in a sentence."""
    share = f"{found.identical / found.outputs:.6%}" if found.outputs else "none"
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return (
        f"{found.identical:,} of {found.outputs:,} outputs identical ({share}), the largest difference "
        f"{found.largest_ulp} ulp; {versions}; {found.host}; {found.date}"
    )


def _show_alias(alias: Alias, form: ListFormat) -> None:
    from normcheck.render import lists

    entry = _alias_entry(alias)
    if form is ListFormat.JSON:
        emit(lists.render_json(entry, one=True), "utf-8")
        return
    about = {"title": alias.title} | ({"also": alias.also} if alias.also else {})
    emit(lists.render_sections(lists.Entry(alias.name, about), [], width=width(), color=color()))
    emit("\n")
    rows = tuple(lists.Entry(row.name, _picked(row)) for row in alias.rows)
    note = "" if alias.every else "The first of these that defines the norm, precision, parameters and size is it."
    show_list(lists.Listing(entries=rows, columns=_PICKS, narrow=tuple(_PICKS), above=True, note=note), form)


def _picked(row: Implementation) -> dict[str, Any]:
    """Return what a row of an alias is for."""
    limits = {
        "parameters in {}": "" if len(row.parameters) != 1 else row.parameters[0],
        "{} mode": "" if len(row.modes) != 1 else row.modes[0],
        "n a multiple of {}": row.multiple_of if row.multiple_of > 1 else "",
        "n from {}": row.size_from or "",
        "n below {}": row.size_below or "",
        "spatial size from {}": row.spatial_from or "",
        "spatial size below {}": row.spatial_below or "",
    }
    where = ", ".join(text.format(value) for text, value in limits.items() if value)
    return {"norms": row.norms or "all", "precisions": row.precisions or "all", "where": where}
