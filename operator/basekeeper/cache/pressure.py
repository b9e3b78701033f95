"""Pressure: how many bytes must go because the disk or the budget is full, and which unused files go for them. Pure.

It chooses only among what every other question has let go already: of quarantined files those that wait for nothing
but their time, of cached ones those that nothing speaks for but their own minimum age. It shortens times; it
weighs no evidence, and where a purge is not allowed for want of evidence nothing is evicted either.

A rename frees nothing, so what waits in the quarantine counts as freed already: otherwise each pass until its purge
would evict as much again. What that arithmetic gets wrong (a writer, shared extents) the next pass sees.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .amounts import format_percent, format_size
from .evidence import FileType, Inode, Inventory, Room
from .quarantine_plan import Decision, JudgedEntry
from .settings import Policy, Pressure
from .verdicts import EVICTION_REASONS, HOLD_REASONS, USE_REASONS, Reason


class PressureState(StrEnum):
    """Where a cache stands between its marks; `STATE_MEANING` says what each is."""

    BELOW = "Below"
    PRESSURE = "Pressure"
    OVER_BUDGET = "OverBudget"
    NOT_OURS = "PressureNotOurs"


STATE_MEANING: dict[PressureState, str] = {
    PressureState.BELOW: "neither the file system nor the cache is fuller than the policy wants",
    PressureState.PRESSURE: "the file system was fuller than `pressure.highPercent`; until it is at "
    "`pressure.lowPercent` unused files go before their own age",
    PressureState.OVER_BUDGET: "the cache is larger than `maxCacheBytes`; unused files go before their own age",
    PressureState.NOT_OURS: "the file system is fuller than `pressure.highPercent`, and nothing in the cache may go",
}
"""What each state means; `docs/pressure.md` shows it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An unused file of the cache that is old enough to go under pressure, though not by its own age."""

    name: bytes
    inode: Inode
    unused_since: float
    """Unix seconds."""
    bytes: int
    """What removing its name would free, were none of its extents shared."""
    held: tuple[Reason, str] | None = None
    """What holds its removal."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the cache that does not go by its own age: why, and what it takes up."""

    reason: Reason
    bytes: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What the judgement knows of the cache when it asks how to relieve it."""

    entries: Sequence[JudgedEntry]
    candidates: Sequence[Candidate]
    going: Sequence[tuple[Inode, int]] = ()
    """The files that go by their own age, and what removing each would free."""
    kept: Mapping[bytes, Kept] = field(default_factory=dict)
    """The other files, by name."""
    blocked: tuple[Reason, str] | None = None
    """Why nothing may be evicted and purged at all, if so."""
    soonest: float | None = None
    """When the next file will be old enough to be a candidate, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Relief:
    """What is to be done for the disk's sake."""

    state: PressureState
    message: str
    """One sentence with the figures."""
    used_percent: float | None
    """As df has it; None: the file system could not be asked."""
    cache_bytes: int
    """What cache and quarantine take up, each inode once."""
    target: int
    """Bytes that must go, those included that are going already."""
    evictable: int
    """Bytes that may go for it: what goes anyway, what waits in the quarantine, and every unused file that may go."""
    evicting: bool
    """Eviction began at the high mark and has not reached the low one: to be remembered."""
    order: tuple[bytes, ...] = ()
    """Names of the files that may be evicted, whether or not it is needed, in the order in which they would go."""
    evicted: Mapping[bytes, tuple[Reason, str]] = field(default_factory=dict)
    """Names of the files that go now, and why."""
    held: Mapping[bytes, tuple[Reason, str]] = field(default_factory=dict)
    """Names of the files that would go now, and what holds them."""
    purged: Mapping[str, tuple[Reason, str]] = field(default_factory=dict)
    """Ids of the entries that are purged before their time, and why."""
    purges_held: Mapping[str, tuple[Reason, str]] = field(default_factory=dict)
    """Ids of the entries that would be, and what holds them."""
    next_at: float | None = None
    """When there will be more to do, Unix seconds: a purge that becomes due, a file that becomes old enough."""


def is_above(room: Room | None, pressure: Pressure | None) -> bool:
    """Whether a file system is fuller than the high mark."""
    return room is not None and pressure is not None and _excess(room, pressure.high_percent) > 0


def wants_room(room: Room | None, pressure: Pressure | None) -> bool:
    """Whether a file system is fuller than the low mark, so that files may go for its sake."""
    return room is not None and pressure is not None and _excess(room, pressure.low_percent) > 0


def relieve(inventory: Inventory, policy: Policy, seen: Seen, now: float, *, evicting: bool) -> Relief | None:
    """Decide what goes for the disk's sake; None where the policy asks for nothing of the kind.

    `now` is in Unix seconds; `evicting`: an earlier pass has begun, and has not reached the low mark.
    """
    if policy.pressure is None and policy.max_cache_bytes is None:
        return None
    room, pressure, budget = inventory.room, policy.pressure, policy.max_cache_bytes
    above = is_above(room, pressure)
    cache = _taken_up(inventory)
    sums = _Sums(
        disk=_excess(room, pressure.low_percent) if room and pressure and (above or evicting) else 0,
        budget=0 if budget is None else max(0, cache - budget),
        shared=inventory.shared,
    )
    choice = _Choice(sums, seen, now, _why(policy))
    state = choice.state(above=above)
    return Relief(
        state=state,
        message=_message(state, inventory, policy, cache, {**seen.kept, **choice.kept_after_all}),
        used_percent=None if room is None else room.used_percent,
        cache_bytes=cache,
        target=0 if state is PressureState.BELOW else max(sums.disk, sums.budget),
        evictable=choice.evictable,
        evicting=evicting if room is None else state in (PressureState.PRESSURE, PressureState.NOT_OURS),
        order=tuple(item.name for item in choice.order),
        evicted=choice.evicted,
        held=choice.held,
        purged=choice.purged,
        purges_held=choice.purges_held,
        next_at=choice.next_at,
    )


@dataclass
class _Sums:
    """How many bytes must go from the disk and from the cache, and how many do."""

    disk: int
    budget: int
    shared: Mapping[Inode, int]
    """Bytes of files whose extents other files share: removing one of them frees less on the disk."""
    _off_disk: int = 0
    _off_budget: int = 0

    @property
    def short(self) -> bool:
        """Whether what goes is not enough yet."""
        return self._off_disk < self.disk or self._off_budget < self.budget

    @property
    def for_the_disk(self) -> bool:
        """Whether the disk still misses something."""
        return self._off_disk < self.disk

    def frees(self, inode: Inode, size: int) -> int:
        """What removing a file would free on the disk."""
        return max(0, size - self.shared.get(inode, 0))

    def helped_by(self, inode: Inode, size: int) -> bool:
        """Whether removing a file would bring what is missing nearer."""
        return (self._off_budget < self.budget and size > 0) or (self.for_the_disk and self.frees(inode, size) > 0)

    def take(self, inode: Inode, size: int) -> None:
        """Count a file that goes."""
        self._off_disk += self.frees(inode, size)
        self._off_budget += size


class _Choice:
    """The walk over what may go, in order: what goes anyway and the quarantine first, then unused files."""

    def __init__(self, sums: _Sums, seen: Seen, now: float, why: Mapping[Reason, str]) -> None:
        self._sums = sums
        self._why = why
        self._seen = seen
        self._now = now
        self.evicted: dict[bytes, tuple[Reason, str]] = {}
        self.held: dict[bytes, tuple[Reason, str]] = {}
        self.purged: dict[str, tuple[Reason, str]] = {}
        self.purges_held: dict[str, tuple[Reason, str]] = {}
        self.kept_after_all: dict[bytes, Kept] = {}
        self._awaited: list[float] = []
        """When entries that count as freed may be purged."""
        self._moving = False
        """Whether anything goes, or will."""
        self.order = sorted(
            (item for item in seen.candidates if item.held is None and item.bytes > 0 and seen.blocked is None),
            key=_least_recently_used,
        )
        self._count_what_goes_anyway()
        self._shorten_the_quarantine()
        self._evict()

    def _count_what_goes_anyway(self) -> None:
        due = [(item.entry.inode, item.entry.reclaimable) for item in self._seen.entries if _is_due(item)]
        for inode, size in (*due, *self._seen.going):
            self._sums.take(inode, size)
            self._moving = self._moving or self._sums.frees(inode, size) > 0

    def _shorten_the_quarantine(self) -> None:
        """Purge early what lies there longest; what lies there too shortly counts as freed, and is waited for."""
        waiting = [(item.purgeable_at, item.entry) for item in self._seen.entries if item.purgeable_at is not None]
        for at, entry in sorted(waiting, key=lambda pair: (pair[1].removed_at, pair[1].id)):
            if not self._sums.helped_by(entry.inode, entry.reclaimable):
                continue
            if at > self._now:
                self._awaited.append(at)
                self._moving = True
            elif self._seen.blocked is not None:
                self.purges_held[entry.id] = self._seen.blocked
            else:
                reason, why = self._reason()
                self.purged[entry.id] = reason, f"purged before its time: {why}"
                self._moving = True
            self._sums.take(entry.inode, entry.reclaimable)

    def _evict(self) -> None:
        for item in sorted(self._seen.candidates, key=_least_recently_used):
            if not self._sums.helped_by(item.inode, item.bytes):
                continue
            holding = item.held or self._seen.blocked
            if holding is not None:
                self.held[item.name] = holding
                self.kept_after_all[item.name] = Kept(holding[0], item.bytes)
            else:
                self.evicted[item.name] = self._reason()
                self._moving = True
            if item.held is None:  # one that is held by itself makes way for the next; where all are, none is there
                self._sums.take(item.inode, item.bytes)

    def _reason(self) -> tuple[Reason, str]:
        reason = Reason.PRESSURE if self._sums.for_the_disk else Reason.OVER_BUDGET
        return reason, self._why[reason]

    def state(self, *, above: bool) -> PressureState:
        """Where this leaves the cache; `above`: the file system is fuller than the high mark."""
        if self._sums.disk > 0:
            if self._moving or (not above and (self.held or self.purges_held)):
                return PressureState.PRESSURE
            if above:
                return PressureState.NOT_OURS
            # Nothing is left to evict and the high mark is not passed: the next time it is decides anew.
        return PressureState.OVER_BUDGET if self._sums.budget > 0 else PressureState.BELOW

    @property
    def evictable(self) -> int:
        """What may go at all, in bytes that come free."""
        quarantined = [item for item in self._seen.entries if _is_due(item) or item.purgeable_at is not None]
        return sum(
            self._sums.frees(inode, size)
            for inode, size in (
                *((item.entry.inode, item.entry.reclaimable) for item in quarantined),
                *self._seen.going,
                *((item.inode, item.bytes) for item in self.order),
            )
        )

    @property
    def next_at(self) -> float | None:
        """When there will be more to do."""
        evicted = [
            item.purgeable_at
            for item in self._seen.entries
            if item.entry.reason in EVICTION_REASONS and item.purgeable_at is not None
        ]
        growing = [self._seen.soonest] if self._sums.short and self._seen.soonest is not None else []
        return min((at for at in (*self._awaited, *evicted, *growing) if at > self._now), default=None)


def _why(policy: Policy) -> dict[Reason, str]:
    """What is said of a file that goes for each reason."""
    low = (policy.pressure or Pressure()).low_percent
    goes = "what nothing uses goes, the least recently used first, until the"
    return {
        Reason.PRESSURE: f"{goes} file system is at {low} %",
        Reason.OVER_BUDGET: f"{goes} cache takes up no more than {format_size(policy.max_cache_bytes or 0)}",
    }


def _is_due(item: JudgedEntry) -> bool:
    return item.decision is Decision.PURGE


def _least_recently_used(item: Candidate) -> tuple[float, bytes]:
    return item.unused_since, item.name


def _excess(room: Room, percent: int) -> int:
    """Bytes that must come free until the file system is at most this full."""
    return max(0, -(-(100 * room.used - percent * (room.used + room.available)) // 100))


def _taken_up(inventory: Inventory) -> int:
    """What cache and quarantine take up: allocated blocks, each inode once, as the larger of two looks at it."""
    largest: dict[Inode, int] = {}
    seen = [(file.inode, file.allocated) for file in inventory.files if file.type is FileType.REGULAR]
    for inode, allocated in (*seen, *((entry.inode, entry.allocated) for entry in inventory.entries)):
        largest[inode] = max(allocated, largest.get(inode, 0))
    return sum(largest.values())


def _message(state: PressureState, inventory: Inventory, policy: Policy, cache: int, kept: Mapping[bytes, Kept]) -> str:
    """The state in a sentence, with what the cache holds where that is the answer to "why not more"."""
    told = []
    room, pressure = inventory.room, policy.pressure
    if pressure is not None:
        full = "does not say how full it is" if room is None else f"is {format_percent(room.used_percent)} full"
        above = f", above {pressure.high_percent} %" if is_above(room, pressure) else ""
        going = f"; unused files go until it is at {pressure.low_percent} %" if state is PressureState.PRESSURE else ""
        told.append(f"the cache's file system {full}{above}{going}")
    if policy.max_cache_bytes is not None:
        told.append(f"the cache takes up {format_size(cache)} of its {format_size(policy.max_cache_bytes)}")
    if state is PressureState.NOT_OURS:
        told.append(f"nothing in the cache may go now: {_holdings(inventory, cache, kept.values())}")
    return "; ".join(told)


def _holdings(inventory: Inventory, cache: int, kept: Iterable[Kept]) -> str:
    """What the cache holds, and why it stays."""
    parts = Counter[str]()
    for item in kept:
        parts[_why_kept(item.reason)] += item.bytes
    parts["in the quarantine"] += sum(entry.reclaimable for entry in inventory.entries)
    told = [f"{format_size(size)} {why}" for why, size in sorted(parts.items()) if size]
    return f"it takes up {format_size(cache)}" + (f", of that {', '.join(told)}" if told else "")


def _why_kept(reason: Reason) -> str:
    if reason in USE_REASONS:
        return "in use"
    return f"held ({reason.value})" if reason in HOLD_REASONS else reason.value
