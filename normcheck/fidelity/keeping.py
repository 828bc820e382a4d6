"""Results that are kept: all of them for the page, those of this machine's widest vectors for the catalogue."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from normcheck.cli.files import write_whole
from normcheck.errors import UsageError
from normcheck.fidelity.hosts import PLAIN
from normcheck.fidelity.results import Compared, Fidelity, RowRun
from normcheck.fidelity.suite import merged
from normcheck.fidelity.table import dumped, loaded
from normcheck.norms.catalogue import catalogue
from normcheck.norms.evidence import FILE, Evidence, Run, digest, evidence, rendered


def kept_results() -> Path:
    """Return the path of all results that are kept, in the repository that this package lies in."""
    return Path(str(files("normcheck"))).parent / "docs" / "fidelity" / "results.json"


def kept_evidence() -> Path:
    """Return the path of what the catalogue reads."""
    return Path(str(files("normcheck.norms"))) / "catalogue" / FILE


def results() -> Fidelity | None:
    """Return what is kept; None where nothing is.

    Raises:
        UsageError: the file cannot be read.
    """
    path = kept_results()
    if not path.exists():
        return None
    try:
        return loaded(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}; delete it and run all projects again") from error


def keep(found: Fidelity, *, complete: bool = True) -> tuple[RowRun, ...]:
    """Write the results beside those of earlier runs, and what they are to the catalogue as its evidence.

    Args:
        found: what was run. complete: all kernels of its projects, so that what they no longer have is dropped.

    Returns:
        The runs of `found` that were not kept, since an earlier one compared far more: see `merged`.

    Raises:
        UsageError: earlier results cannot be read. NormcheckError: a file cannot be written.
    """
    whole = merged(results(), found, complete=complete)
    write_whole(str(kept_results()), dumped(whole))
    write_whole(str(kept_evidence()), rendered(evidence_of(whole)))
    evidence.cache_clear()
    catalogue.cache_clear()
    return tuple(run for run in found.rows if run not in whole.rows)


def evidence_of(found: Fidelity) -> dict[str, Evidence]:
    """Return the evidence for every row of the catalogue that was run as it is now.

    Where a library was run with several instruction sets, the widest counts: it is what the library takes here. Runs of
    a row that was edited since, or that was adapted to the kernel, do not count, nor do those of code without a fused
    multiply-add.
    """
    digests = {name: digest(row) for name, row in catalogue().items()}
    rows: dict[str, list[RowRun]] = {}
    for run in found.rows:
        if run.digest and run.digest == digests.get(run.implementation) and run.isa != PLAIN:
            rows.setdefault(run.implementation, []).append(run)
    return {name: _evidence(runs) for name, runs in rows.items()}


def _evidence(runs: list[RowRun]) -> Evidence:
    widest = max(runs, key=lambda run: (run.lanes, run.isa))
    counted = [run for run in runs if run.isa == widest.isa]
    cpus = ", ".join(sorted({run.cpu for run in counted}))
    versions = {name: number for run in counted for name, number in run.packages.items()}
    return Evidence(
        date=max(run.date for run in counted),
        host=f"{cpus}, {widest.isa} ({widest.lanes} lanes)",
        versions=versions,
        digest=widest.digest,
        runs=tuple(_run(run) for run in counted),
    )


def _run(run: RowRun) -> Run:
    rest = run.statistics or Compared()
    return Run(
        norm=run.norm,
        precision=run.precision,
        params=run.params,
        mode=run.mode,
        outputs=run.outputs.numbers,
        identical=run.outputs.identical,
        largest_ulp=run.outputs.max_ulps,
        statistics=rest.numbers,
        statistics_identical=rest.identical,
        reason=run.reason,
    )


__all__ = ["evidence_of", "keep", "kept_results", "results"]
