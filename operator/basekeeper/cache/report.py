"""What a pass has to tell, as values: the same for the terminal, for JSON and for a node's status. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from . import windows
from .acts import Action, Done, Failure, Touched
from .evidence import CachedFile, Group, Note, Part, Shared
from .judged import Judged
from .names import Kind
from .nova_manager import NovaManager
from .orphans import Orphans
from .plan import Plan
from .pressure import Relief
from .quarantine_plan import Decision, Hold, JudgedEntry
from .settings import Policy
from .trips import Trip
from .verdicts import HOLD_REASONS, Reason, Verdict
from .wholeness import Wholeness


class Outcome(StrEnum):
    """How a plan or pass ended, in a word."""

    CLEAN = "Clean"
    PLANNED = "Planned"
    ACTED = "Acted"
    HELD = "Held"
    FAILED = "Failed"


class CacheState(StrEnum):
    """What is to become of a file that lies in the cache after a pass; every file there is in one of these."""

    KEPT = "kept"
    HELD = "held"
    REMOVABLE = "removable"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Row:
    """One file, what was decided, and what was done."""

    name: str
    kind: Kind
    verdict: Verdict
    reason: Reason
    message: str
    bytes: int
    """What removing it would free."""
    users: tuple[str, ...] = ()
    age: float | None = None
    unused_since: float | None = None
    """Unix seconds."""
    removable_at: float | None = None
    action: Action | None = None
    error: str | None = None
    failure: Failure | None = None
    """For FAILED: of what class the error is."""
    entry: str | None = None
    """The quarantine entry's id, if the file lies there."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long each phase took."""

    observe: float = 0.0
    judge: float = 0.0
    act: float = 0.0
    by_part: Mapping[Part, float] = field(default_factory=dict)
    """How long each part of `observe` took."""


@dataclass(frozen=True, slots=True)
class Report:
    """One plan or pass, start to end."""

    kind: str
    """`Plan` or `Pass`."""
    node: str
    time: float
    policy: Policy
    rows: tuple[Row, ...] = ()
    holds: tuple[Hold, ...] = ()
    notes: tuple[Note, ...] = ()
    seconds: Seconds = Seconds()
    plan_held: bool = False
    """The judgement held something."""
    error: str | None = None
    """Why the pass failed as a whole."""
    target: int = 0
    """Bytes that the pass set out to remove and to purge."""
    reclaimed: int = 0
    quarantined: int = 0
    """Bytes that wait in the quarantine now."""
    quarantined_files: int = 0
    """Files that wait there."""
    reclaimed_ever: int = 0
    """Bytes that purges have freed since the ledger began."""
    libvirt_asked: bool = True
    """Whether this host has a libvirt to ask."""
    libvirt_failure: str | None = None
    """Why libvirt did not list all domains, if it did not."""
    shared: Shared | None = None
    """Why the storage counts as shared with other hosts, if it does."""
    group: Group | None = None
    """These hosts, where they coordinate."""
    vanished: tuple[str, ...] = ()
    """Finished files that lay in the cache when the last pass ended, and that another hand has removed since."""
    wholeness: Wholeness | None = None
    """What is known of the files' content; None: nothing was ever verified, and nothing is to be."""
    trips: tuple[Trip, ...] = ()
    """What made the evidence as a whole suspect, so that nothing was removed or purged."""
    relief: Relief | None = None
    """What was to be done for the disk's sake; None: the policy asks for nothing of the kind."""
    nova: NovaManager | None = None
    """What is known of nova's own manager; None for a pass that failed as a whole."""
    orphans: Orphans = field(default_factory=Orphans)
    """Directories without a domain that nothing has changed for a day."""
    touched: Touched = field(default_factory=Touched)
    """Bases in use that got a fresh time stamp, or should have."""

    def trip_name(self, trip: Trip) -> str | None:
        """By which an operator ends a trip; a plan remembers nothing, so that a new one has no name yet."""
        return None if self.kind == "Plan" and trip.since >= self.time else trip.name

    @property
    def window(self) -> windows.Opening | None:
        """Whether a maintenance window was open; None: the policy has none, so that there was nothing to wait for."""
        return windows.look(self.policy.windows, self.time) if self.policy.windows else None

    @property
    def outcome(self) -> Outcome:
        """The weightiest of what happened."""
        actions = {row.action for row in self.rows}
        if self.error or Action.FAILED in actions:
            return Outcome.FAILED
        if actions & {Action.QUARANTINED, Action.PURGED, Action.RESTORED}:
            return Outcome.ACTED
        would_go_back = any(row.entry and row.verdict is Verdict.KEEP for row in self.rows)
        if would_go_back or any(row.verdict is Verdict.REMOVE for row in self.rows):
            return Outcome.PLANNED
        return Outcome.HELD if self.held else Outcome.CLEAN

    @property
    def held(self) -> bool:
        """Whether anything was held, by the judgement or by a late look."""
        return self.plan_held or any(row.verdict is Verdict.HOLD for row in self.rows)

    @property
    def spawns_alone(self) -> bool:
        """Whether instances that may be starting held something, and nothing else a removal: worth a pass soon."""
        held = {row.reason for row in self.rows if row.verdict is Verdict.HOLD}
        removals = {row.reason for row in self.cached if row.verdict is Verdict.HOLD}
        return Reason.SPAWN_IN_PROGRESS in held and removals <= {Reason.SPAWN_IN_PROGRESS}

    @property
    def kept_by_reason(self) -> Mapping[str, int]:
        """How many files are kept or held, by reason."""
        kept = (row.reason.value for row in self.rows if row.verdict in (Verdict.KEEP, Verdict.HOLD))
        return dict(sorted(Counter(kept).items()))

    @property
    def removable(self) -> int:
        """Bytes that may go, or went, by this judgement."""
        return sum(row.bytes for row in self.rows if row.verdict is Verdict.REMOVE and row.entry is None)

    @property
    def going(self) -> tuple[Row, ...]:
        """What still lies in the cache after the pass and may go: in the next one, or later because of the limits."""
        return tuple(row for row in self.left if _state(row) is CacheState.REMOVABLE)

    @property
    def reclaimable(self) -> int:
        """The bytes of `going`."""
        return sum(row.bytes for row in self.going)

    @property
    def cached(self) -> tuple[Row, ...]:
        """The rows of files that lie in the cache itself, or did when the pass began."""
        return tuple(row for row in self.rows if row.entry is None)

    @property
    def removed(self) -> tuple[Row, ...]:
        """What left the cache in this pass: with `retention: 0s` a file is purged in the pass that removes it."""
        return tuple(row for row in self.cached if row.action in (Action.QUARANTINED, Action.PURGED))

    @property
    def left(self) -> tuple[Row, ...]:
        """What still lies in the cache after the pass."""
        return tuple(row for row in self.cached if row.action not in (Action.QUARANTINED, Action.PURGED))

    @property
    def by_state(self) -> Mapping[CacheState, tuple[Row, ...]]:
        """The rows of `left`, each once."""
        return {state: tuple(row for row in self.left if _state(row) is state) for state in CacheState}


@dataclass
class Acts:
    """What a pass did, as it goes on."""

    files: dict[bytes, Done] = field(default_factory=dict)
    """By the name of a file that was in the cache."""
    entries: dict[str, Done] = field(default_factory=dict)
    """By the id of a quarantine entry that was there when the pass began."""
    returned: list[JudgedEntry] = field(default_factory=list)
    """Entries that were to go back; a look after that does not see them any more."""
    target_bytes: int = 0
    """Of what it set out to remove and to purge."""
    purged_bytes: int = 0


def rows_of(plan: Plan, acts: Acts) -> tuple[Row, ...]:
    """One row for each file of the cache, after one for each quarantined file with which something happens.

    What a late look found replaces the verdict. A file that went back has one row, which says so.
    """
    returned = {item.entry.id: item for item in acts.returned}
    telling = [item for item in plan.entries if item.decision is not Decision.WAIT and item.entry.id not in returned]
    rows = [_entry_row(item, acts.entries.get(item.entry.id)) for item in (*returned.values(), *telling)]
    back = {row.name for row in rows if row.action is Action.RESTORED}
    files = [_file_row(item, acts.files.get(item.file.name.raw)) for item in plan.files]
    return (*rows, *(row for row in files if row.name not in back))


def _state(row: Row) -> CacheState:
    """A file that waits for the limits alone may go like those that go first."""
    if row.verdict is Verdict.REMOVE or (row.verdict is Verdict.HOLD and row.reason is Reason.LIMIT_REACHED):
        return CacheState.REMOVABLE
    return _STATES[row.verdict]


_STATES = {Verdict.KEEP: CacheState.KEPT, Verdict.HOLD: CacheState.HELD, Verdict.FOREIGN: CacheState.FOREIGN}


def _file_row(item: Judged, done: Done | None) -> Row:
    file: CachedFile = item.file
    verdict, reason, message = _after(item.verdict, item.reason, item.message, done)
    return Row(
        name=str(file.name),
        kind=file.name.kind,
        verdict=verdict,
        reason=reason,
        message=message,
        bytes=file.reclaimable,
        users=item.users,
        age=item.age,
        unused_since=item.unused_since,
        removable_at=item.removable_at,
        action=done.action if done else None,
        error=done.error if done else None,
        failure=done.failure if done else None,
    )


def _entry_row(item: JudgedEntry, done: Done | None) -> Row:
    verdicts = {Decision.RESTORE: Verdict.KEEP, Decision.PURGE: Verdict.REMOVE, Decision.HOLD: Verdict.HOLD}
    planned = verdicts.get(item.decision, Verdict.KEEP)
    verdict, reason, message = _after(planned, item.reason, item.message, done)
    back = done is not None and done.action is Action.RESTORED
    return Row(
        name=str(item.entry.name),
        kind=item.entry.name.kind,
        verdict=verdict,
        reason=reason,
        message=message,
        bytes=item.entry.reclaimable,
        users=item.users,
        action=done.action if done else None,
        error=done.error if done else None,
        failure=done.failure if done else None,
        entry=None if back else item.entry.id,
    )


def _after(verdict: Verdict, reason: Reason, message: str, done: Done | None) -> tuple[Verdict, Reason, str]:
    """The verdict as it stands after the act: a doubt of a late look is the newer knowledge."""
    if done is None or done.doubt is None:
        return verdict, reason, message
    holding = done.doubt.reason in HOLD_REASONS
    return (Verdict.HOLD if holding else Verdict.KEEP), done.doubt.reason, done.doubt.message
