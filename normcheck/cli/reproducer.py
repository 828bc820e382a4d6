"""``--reproducer``: the script and the data that take a finding home."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from normcheck.cli.files import check_writable, write_bytes, write_whole
from normcheck.cli.terminal import say
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.analysis.assemble import Outcome, Plan
    from normcheck.analysis.reproducer import Candidate, Wanted
    from normcheck.results import Report

_LONGEST = 100
"""Characters of a file name that is made of a layer's: file systems take 255 bytes."""

_FIRST_ARRAY = "normcheck.npy"
"""What the data of a reproducer begins with."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What is to be taken home, and the path of the script; None for one that is made of the result's name."""

    wanted: Wanted
    path: str | None

    @property
    def watch(self) -> Callable[[Plan, Outcome], None]:
        """What the engine shows each result to."""
        return self.wanted.take

    def write(self, report: Report, *, quiet: bool) -> None:
        """Write the script and its data, or say why there is nothing to write.

        Raises:
            UsageError: no layer matches, or a file in the way is not a reproducer's.
        """
        if not report.results:
            return  # nothing was analysed, which is said anyway
        candidate = self.wanted.best
        if candidate is None:
            say(f"--reproducer {self.wanted.text}: nothing to reproduce: {self.wanted.why_none(report)}")
            return
        script, data = _paths(self.path or file_name(candidate))
        _write(candidate, script, data)
        if not quiet:
            finding = f"{candidate.finding.rule} of {candidate.finding.layer or candidate.finding.norm}"
            say(f"{finding}: wrote {script} and {data}; to see it: python {script}")


def reproduction(spec: str | None, path: str | None) -> Reproduction | None:
    """Return what ``--reproducer`` and ``--reproducer-to`` ask for, once it is known that it can be written.

    Raises:
        UsageError: no such rule, a path that is no script's, or a file that cannot be written or is not ours.
    """
    if spec is None:
        if path is not None:
            raise UsageError("--reproducer-to says where, not what: add --reproducer with a rule or a layer")
        return None
    if path is not None and not path.endswith(".py"):
        raise UsageError(
            f"--reproducer-to {path}: give the path of a script, which ends in .py; its data goes beside it"
        )
    if path is None:
        check_writable("normcheck-reproducer.py")
    else:
        _paths(path)
    from normcheck.analysis.reproducer import wanted

    return Reproduction(wanted(spec), path)


def file_name(candidate: Candidate) -> str:
    """Return a safe file name for the script of a result: of a strange name some letters, and a hash of the rest."""
    result = candidate.result
    parts = (result.layer, result.norm, result.precision, result.implementation, result.mode)
    name = "-".join(part for part in parts if part)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:_LONGEST].strip("._-")
    if safe != name:
        safe = f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return f"normcheck-{safe}.py"


def _paths(script: str) -> tuple[str, str]:
    """The paths of a script and its data, both of which can be written and are not somebody else's."""
    data = script.removesuffix(".py") + ".npz"
    for path, is_ours in ((script, _is_script), (data, _is_data)):
        check_writable(path)
        if Path(path).exists() and not is_ours(path):
            raise UsageError(f"{path} exists and is no reproducer: it is left alone; give another --reproducer-to")
    return script, data


def _is_script(path: str) -> bool:
    from normcheck.render.reproducer import MARKER

    with Path(path).open("rb") as file:
        return file.read(80).startswith(f"# {MARKER} ".encode())


def _is_data(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()[:1] == [_FIRST_ARRAY]
    except (zipfile.BadZipFile, OSError):
        return False


def _write(candidate: Candidate, script: str, data: str) -> None:
    """The data first: a script without its data says so, and one with another's too."""
    import numpy as np

    from normcheck.analysis.reproducer import reproducer_of
    from normcheck.render.reproducer import script as text_of

    made, arrays = reproducer_of(candidate)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # names are ours: none is an option of numpy's
    content = buffer.getvalue()
    text = text_of(made, data=Path(data).name, digest=hashlib.sha256(content).hexdigest())
    write_bytes(data, (content,))
    write_whole(script, (text,))
