"""What docs/fidelity.md says of results, and that what is kept is of one piece."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hand_built_fidelity import ROW

from normcheck.fidelity import page
from normcheck.fidelity.__main__ import PROMISED_OUTPUTS
from normcheck.fidelity.inputs import FAMILIES
from normcheck.fidelity.keeping import evidence_of, kept_evidence, results
from normcheck.fidelity.projects import PROJECTS
from normcheck.fidelity.results import Compared, Fidelity, NotRun, Worst
from normcheck.norms.catalogue import catalogue
from normcheck.norms.evidence import VERIFIED_SHARE, parsed

FULL = dataclasses.replace(ROW, outputs=Compared(numbers=3_000_000, identical=3_000_000))
MIXED = dataclasses.replace(FULL, params="float32", variant="another", date="2026-11-24")
BELOW = dataclasses.replace(
    FULL,
    implementation="pure",
    isa="AVX512",
    lanes=16,
    outputs=Compared(numbers=1000, identical=500, max_ulps=7),
    worst=Worst(inputs="zeros", shape=(1,), index=(0,), x=1.0, kernel=2.0, row=3.0, ulps=7, call="eps 0"),
    reason="its order is unknown",
)


def found(*rows, not_run=()):
    return Fidelity(format=1, version="0", python="3.11", machine="m", rows=rows, not_run=not_run)


def test_the_summary_counts_rows_kernels_and_outputs():
    said = page.summary(found(FULL, MIXED, BELOW))
    assert said.startswith("2 rows of the catalogue beside 3 kernels: 6e6 outputs, 99.9916 % of them identical; 2 ")
    assert "1 row verified" in said
    assert "Run 2026-11-23 to 2026-11-24 on a processor (m; AVX512, AVX2), Python 3.11." in said


def test_a_line_of_a_table_holds_all_kernels_of_a_row_norm_format_and_instruction_set():
    ((title, versions, (titles, lines)),) = page.tables(found(FULL, MIXED, BELOW))
    assert (title, versions) == ("MLX on the CPU", "mlx 1.2")
    assert [line[0] for line in lines] == ["`pure`", "`wide`"]
    assert dict(zip(titles, lines[1], strict=True)) == {
        "row": "`wide`",
        "norm": "`rms`",
        "io": "fp16",
        "parameters and modes": "fp16; fp32, another",
        "ISA": "AVX2",
        "outputs": "6e6",
        "identical": "100 %",
        "largest ulp": "0",
        "statistics": "100 %",
    }


def test_instruction_sets_share_a_line_where_all_is_identical_and_have_their_own_where_it_is_not():
    other = dataclasses.replace(FULL, isa="AVX512", lanes=16)
    worse = dataclasses.replace(BELOW, implementation="wide")

    def lines(*rows):
        ((_, _, (titles, told)),) = page.tables(found(*rows))
        return [(line[titles.index("ISA")], line[titles.index("outputs")]) for line in told]

    assert lines(FULL, other) == [("AVX512, AVX2", "6e6")]
    assert lines(FULL, worse) == [("AVX512", "1000"), ("AVX2", "3e6")]


def test_what_is_below_is_named_under_its_reason():
    ((reason, (line,)),) = page.below(found(FULL, BELOW))
    assert reason == "its order is unknown"
    assert line.startswith("pure rms fp16 on AVX512: below the 99.9 % promised; kernel 2, row 3 (7 ulp) at y[0]")
    ((unexplained, _),) = page.below(found(dataclasses.replace(BELOW, reason="")))
    assert unexplained == "Not explained"
    assert page.below(found(FULL)) == []


def test_what_was_not_run_is_told_by_project():
    _, rows = page.not_run(found(FULL, not_run=(NotRun(project="cuda", what="all kernels", reason="no device"),)))
    assert rows[0] == (PROJECTS["cuda"].title, "all kernels", "no device")
    others = [project.title for name, project in PROJECTS.items() if name not in ("cuda", "mlx")]
    assert rows[1:-3] == [(title, "all kernels", "no run is kept") for title in others]
    assert [what for _, what, _ in rows[-3:]] == [f"instruction set {isa}" for isa in ("AVX512", "NEON", "DEFAULT")]


def test_the_page_says_that_no_gpu_and_no_neon_was_run(kept):
    _, rows = page.not_run(kept)
    assert [row[:2] for row in rows] == [(PROJECTS["cuda"].title, "all kernels"), ("all", "instruction set NEON")]


def test_every_family_of_inputs_is_explained():
    _, rows = page.families()
    assert [name for name, _ in rows] == list(FAMILIES)
    assert all(len(text) > 15 for _, text in rows)


# ---------------------------------------------------------------------------------------------- what is kept


@pytest.fixture(scope="module")
def kept():
    whole = results()
    assert whole is not None, "run python -m normcheck.fidelity --write"
    return whole


def test_what_is_kept_is_of_rows_that_exist(kept):
    assert {row.implementation for row in kept.rows} <= set(catalogue())


def test_the_evidence_of_the_catalogue_is_what_is_kept(kept):
    assert parsed(kept_evidence().read_text(encoding="utf-8")) == evidence_of(kept)


def test_every_row_that_is_verified_was_run_and_every_one_that_was_run_well_is(kept):
    runs = {}
    for row in kept.rows:
        if row.isa not in ("AVX2", "DEFAULT"):
            runs.setdefault(row.implementation, []).append(row.outputs.share)
    verified = {name for name, row in catalogue().items() if row.status == "verified"}
    assert verified == {name for name, shares in runs.items() if min(shares) >= VERIFIED_SHARE}
    assert len(verified) >= 25


def test_torch_on_the_cpu_keeps_what_is_promised_of_it(kept):
    rows = [row for row in kept.rows if row.project == "torch-cpu"]
    outputs = Counter()
    for row in rows:
        outputs[row.implementation] += row.outputs.numbers
    assert min(outputs.values()) >= PROMISED_OUTPUTS
    assert all(row.outputs.share >= 0.9999 and row.outputs.max_ulps <= 1 for row in rows)
    assert all(row.statistics.share == 1.0 for row in rows if row.statistics is not None)


def test_every_share_below_that_of_a_verified_row_has_a_reason(kept):
    assert [row.implementation for row in kept.rows if row.outputs.share < VERIFIED_SHARE and not row.reason] == []
