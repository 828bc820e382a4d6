"""``normcheck schema``."""

from __future__ import annotations

from normcheck.cli.files import emit
from normcheck.cli.options import Debug


def schema(*, debug: Debug = False) -> None:  # noqa: ARG001
    """Print the JSON Schema of the report."""
    from normcheck.render import schema as renderer

    emit(renderer.render(), "utf-8")
