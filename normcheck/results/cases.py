"""Published failures of normalization layers, replayed: what happened, and what the engine says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from normcheck.results.report import Severity, Tool  # noqa: TC001  # read at run time, for the schema
from normcheck.results.result import Verdict  # noqa: TC001  # the same

FORMAT: Literal[1] = 1
"""Version of the JSON of `Corpus`: raised when a field is renamed or removed, not when one is added."""

Source = Literal["published", "found", "reconstructed"]
"""Where an input is from: its publication; a run of the kernel by us; made here from published facts."""

Signature = Literal[
    "", "OVF->0", "OVF->NaN", "NEG->NaN", "CANCEL", "CANCEL+AMP", "EPS0->NaN", "IO-INF", "UFLOW"
]  # fmt: skip
"""How a norm fails; empty where it does not. `analysis.corpus.signatures` defines them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A finding on a replayed norm.

    `rule`: its code. `severity`: as reported. `message`: what it says.
    """

    rule: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number that was published, or measured on the kernel, beside the emulated one.

    `name`: what it is, such as "output[0]". `side`: whether it is of the implementation that failed or of the right
    one. `expected`: the number, or the bounds, in words. `measured`: the emulated one. `holds`: whether that is as
    expected.
    """

    name: str
    side: Literal["failed", "right"]
    expected: str
    measured: float
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What a replayed norm gives under one implementation.

    `role`: whether it is the one that failed, or one that must be right. `implementation`: its name. `precision`: of
    the elements. `verdict`: of the result. `signature`: how it fails, empty where it does not. `bad_rows`: rows that
    are not finite, collapsed, amplified or shrunk. `rows`: all of them. `flags`: the findings, but for notes.
    `flagged`: whether it has a signature, a finding of a rule that some published failure fires, or an error.
    `output_std`: standard deviation of the finite outputs, None where there is none. `output_max`: the largest
    magnitude of them, likewise.
    """

    role: Literal["failed", "right"]
    implementation: str
    precision: str
    verdict: Verdict
    signature: Signature
    bad_rows: int
    rows: int
    flags: tuple[Flag, ...]
    flagged: bool
    output_std: float | None
    output_max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One input of a case, run under the implementation that failed and under those that are right.

    `input`: in words. `norm`: its name. `shape`: of the input. `eps`: as given. `signature`: the one predicted for the
    implementation that failed. `rules`: those predicted to fire on it. `sides`: each implementation; none where it was
    not run. `figures`: published numbers beside ours. `problems`: predictions that do not hold, in words.
    """

    input: str
    norm: str
    shape: tuple[int, ...]
    eps: float
    signature: Signature
    rules: tuple[str, ...]
    sides: tuple[Side, ...] = ()
    figures: tuple[Figure, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCase:
    """A published failure, or an input on which nothing may be flagged.

    `id`: its name. `where`: project, version and kernel. `links`: where it was published. `story`: what happened, with
    the published numbers. `source`: where the input is from. `reconstruction`: how it was made, where it was.
    `note`: where the emulation and the publication differ, and why. `control`: whether it must not be flagged.
    `failed`: the implementations that failed; none of a control. `right`: the implementations that are right.
    `replays`: its inputs.
    """

    id: str
    where: str
    links: tuple[str, ...]
    story: str
    source: Source
    reconstruction: str
    note: str
    control: bool
    failed: tuple[str, ...]
    right: tuple[str, ...]
    replays: tuple[Replay, ...]

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The signatures predicted for its inputs, each once."""
        return tuple(dict.fromkeys(replay.signature for replay in self.replays if replay.signature))

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules predicted to fire on any of its inputs, each once."""
        return tuple(sorted({rule for replay in self.replays for rule in replay.rules}))

    @property
    def ran(self) -> bool:
        """Whether it was replayed."""
        return any(replay.sides or replay.problems for replay in self.replays)

    @property
    def holds(self) -> bool:
        """Whether no prediction failed."""
        return not any(replay.problems for replay in self.replays)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What `normcheck cases` writes.

    `format`: version of this format. `tool`: what wrote it. `cases`: those that were asked for, replayed or listed.
    """

    format: Literal[1]
    tool: Tool
    cases: tuple[FailureCase, ...]

    @property
    def failures(self) -> tuple[FailureCase, ...]:
        """The published failures."""
        return tuple(case for case in self.cases if not case.control)

    @property
    def controls(self) -> tuple[FailureCase, ...]:
        """The inputs on which nothing may be flagged."""
        return tuple(case for case in self.cases if case.control)

    def of(self, source: Source) -> tuple[FailureCase, ...]:
        """The failures whose input is from there."""
        return tuple(case for case in self.failures if case.source == source)
