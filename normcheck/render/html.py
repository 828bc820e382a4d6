"""The report as one HTML page that needs nothing else: no network, no font, no library.

The page is text made by a Jinja2 template (everything escaped, control characters shown) and data for a script of
ours (`normcheck/render/page/`), which draws the table, the details and the pictures of what is looked at only.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from normcheck.render import page_data, page_text, premise
from normcheck.render.counts import outcome
from normcheck.render.layout import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import Report

_BUFFERED = 256
"""So many pieces of the template are put together into one."""


def render(report: Report) -> str:
    """Return the report as one HTML page that needs nothing else."""
    return "".join(pieces(report))


def pieces(report: Report) -> Iterator[str]:
    """Yield the text of `render`, piece by piece: the data of a result is made when its turn comes."""
    environment = _environment()
    order = page_data.Order(report)
    style, script = _own(environment, "page.css"), _own(environment, "picture.js", "detail.js", "filter.js", "page.js")
    stream = environment.get_template("page.html.j2").stream(
        report=report,
        verdict=page_text.verdict(report, order.results),
        counts=page_text.counts(report),
        outcome=outcome(report),
        subject=page_text.subject(report),
        premise=premise.of_model(report, [result for result in report.results if result.asked]),
        findings=page_text.findings(order.groups, report),
        changes=page_text.changes(report.comparison),
        left_out=page_text.left_out(report),
        settings=page_text.pairs(report.settings),
        environment=page_text.pairs(report.environment),
        blocks=page_data.blocks(report, order),
        style=style,
        script=script,
        policy=_policy(style, script),
    )
    stream.enable_buffering(_BUFFERED)
    yield from stream


def _environment() -> Environment:
    """Return the template's environment: whatever a template prints is made visible first, then escaped."""
    return Environment(
        loader=PackageLoader("normcheck.render", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )


def _visible(value: object) -> object:
    """Return text with control characters and bidi marks escaped; what is markup of ours as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _own(environment: Environment, *names: str) -> Markup:
    """Return the text of files of ours, which is the only text that the page takes as it is."""
    assert environment.loader is not None  # noqa: S101  # for the type checker
    return Markup("\n").join(Markup(environment.loader.get_source(environment, name)[0]) for name in names)  # noqa: S704


def _policy(style: str, script: str) -> str:
    """Return the content security policy: this style and this script, nothing loaded, nothing parsed as markup."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
