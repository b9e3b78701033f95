"""What is known of the bases' content, as values: baselines, findings, what is due, and the sum of it. Pure.

A finding says that a file is damaged. It never says that a file is unused: who needs it is for the evidence to say.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .names import display
from .settings import Algorithm

OVERDUE = 2.0
"""Intervals without a verification after which a file no longer counts as verified."""
MOST_OFFSETS = 16
"""Offsets that a finding keeps."""


class Flaw(StrEnum):
    """What verification finds wrong with a file."""

    CORRUPT = "Corrupt"
    """Its content is not that of its baseline."""
    UNREADABLE = "Unreadable"
    """It could not be read: nobody knows whether it is whole."""


class State(StrEnum):
    """What is known of a base's content; each base is in one of these."""

    WHOLE = "whole"
    CORRUPT = "corrupt"
    CORRUPT_IN_USE = "corrupt_in_use"
    UNREADABLE = "unreadable"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a file's content was when it was first read in quiet; without its blocks' digests."""

    identity: str
    """The file, across boots and renames (`handles`)."""
    name: bytes
    algorithm: Algorithm
    size: int
    root: str
    """Digest of all of it, 32 hexadecimal digits."""
    taken_at: float
    """Unix seconds."""
    verified_at: float
    """Since when all of it has been read at least once and was found whole, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a file."""

    identity: str
    name: bytes
    flaw: Flaw
    message: str
    """One sentence, without the file's name."""
    offsets: tuple[int, ...]
    """Where, in bytes: the beginnings of damaged blocks, or of what cannot be read; the first of them."""
    found_at: float
    """When it was first found, Unix seconds."""
    checked_at: float
    """When that was last seen to be so, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that the ledger knows of contents, by identity."""

    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    findings: Mapping[str, Finding] = field(default_factory=dict)

    def tried_at(self, identity: str) -> float | None:
        """When the file was last read to see whether it is whole; None: never."""
        baseline, finding = self.baselines.get(identity), self.findings.get(identity)
        times = [baseline.verified_at] if baseline else []
        times += [finding.checked_at] if finding else []
        return max(times, default=None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A base that can be verified."""

    name: bytes
    identity: str
    bytes: int
    """What there is to read of it."""


@dataclass(frozen=True, slots=True)
class Wholeness:
    """The sum of what is known of the bases that lie in the cache."""

    states: Mapping[State, int]
    verified: int
    """Files found whole within two intervals."""
    oldest_verified_at: float | None
    """Of the files that have a baseline: when the least recently verified one was."""
    findings: tuple[Finding, ...]
    """The latest first."""
    in_use: frozenset[str]
    """Identities of corrupt files that something uses."""
    baselines: Mapping[bytes, Baseline]
    """By name."""
    digests: Mapping[str, str]
    """`<ALGORITHM>:<size>:<digest>` of the originals that are whole, by name."""
    overdue: tuple[str, ...] = ()
    """Names of files whose last verification is longer ago than two intervals."""
    pending: tuple[str, ...] = ()
    """Names of files without a baseline, and without a finding that says why."""

    def count(self, *states: State) -> int:
        """How many files are in one of these states."""
        return sum(self.states.get(state, 0) for state in states)


def next_of(
    candidates: Sequence[Candidate], known: Known, interval: float, now: float
) -> tuple[Candidate | None, float]:
    """Which file to verify now, and how many seconds until the next one is due if that is none.

    What was never read comes first. After that files follow one another through the interval, the least recently
    verified first, each as long after the one before as that one's share of all bytes: never all at once.
    """
    if not candidates:
        return None, interval
    new = [item for item in candidates if known.tried_at(item.identity) is None]
    if new:
        return min(new, key=lambda item: item.name), 0.0
    tried = {item: known.tried_at(item.identity) or 0.0 for item in candidates}
    oldest = min(candidates, key=lambda item: (tried[item], item.name))
    latest = max(candidates, key=lambda item: (tried[item], item.name))
    share = _weight(latest) / sum(_weight(item) for item in candidates)
    due = min(tried[oldest] + interval, tried[latest] + share * interval)
    # A clock that was put back must not make verification wait for that long.
    wait = min(due - now, interval)
    return (oldest, 0.0) if wait <= 0 else (None, wait)


def _weight(candidate: Candidate) -> int:
    return candidate.bytes + 4096  # opening one costs too


def summed(
    files: Iterable[tuple[bytes, str, bool]],
    known: Known,
    used: Collection[bytes],
    interval: float,
    now: float,
) -> Wholeness:
    """Sum up the bases `files`: name, identity and whether it is an original; `used` are names with evidence of use."""
    states: Counter[State] = Counter()
    findings: dict[str, Finding] = {}
    in_use, digests, overdue, pending = set(), {}, [], []
    baselines: dict[bytes, Baseline] = {}
    for name, identity, original in sorted(files):
        baseline, finding = known.baselines.get(identity), known.findings.get(identity)
        state = _state(baseline, finding, in_use=name in used)
        states[state] += 1
        if finding is not None:
            findings.setdefault(identity, finding)
        if state is State.CORRUPT_IN_USE:
            in_use.add(identity)
        if state is State.PENDING:
            pending.append(display(name))
        if baseline is None:
            continue
        baselines[name] = baseline
        if state is State.WHOLE and original:
            digests[display(name)] = f"{baseline.algorithm}:{baseline.size}:{baseline.root}"
        if state is State.WHOLE and now - baseline.verified_at > OVERDUE * interval:
            overdue.append(display(name))
    return Wholeness(
        states=dict(states),
        verified=states[State.WHOLE] - len(overdue),
        oldest_verified_at=min((item.verified_at for item in baselines.values()), default=None),
        findings=tuple(sorted(findings.values(), key=lambda item: (-item.found_at, item.name))),
        in_use=frozenset(in_use),
        baselines=baselines,
        digests=digests,
        overdue=tuple(overdue),
        pending=tuple(pending),
    )


def _state(baseline: Baseline | None, finding: Finding | None, *, in_use: bool) -> State:
    if finding is not None and finding.flaw is Flaw.CORRUPT:
        return State.CORRUPT_IN_USE if in_use else State.CORRUPT
    if finding is not None:
        return State.UNREADABLE
    return State.PENDING if baseline is None else State.WHOLE
