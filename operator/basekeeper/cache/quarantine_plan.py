"""Judgement of what was removed before: restore, purge, wait or hold. Pure.

A purge is a removal, so it needs more than a removal did: a look in which nothing was left unasked. A needed
file goes back whatever the mode, unless another file has its name meanwhile; then the old one may be the only
right copy (nova can download another image's content into the name of a snapshot's base) and it stays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from .anomalies import CLOCK_TOLERANCE, Stop
from .evidence import CachedFile, FileType, Inode, Inventory, QuarantineEntry, Usage
from .memory import Clock, Memory
from .names import Name
from .settings import Drain
from .verdicts import Reason


class Decision(StrEnum):
    """What happens to a quarantined file in this pass."""

    RESTORE = "restore"
    PURGE = "purge"
    WAIT = "wait"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Hold:
    """Something that held a removal or purge, as the operator sees it."""

    reason: Reason
    message: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class JudgedEntry:
    """One quarantined file and what was decided about it."""

    entry: QuarantineEntry
    decision: Decision
    reason: Reason
    message: str
    users: tuple[str, ...] = ()
    as_copy: bool = False
    """It is needed, and may be purged only because the newer file of its name has the same content."""
    purgeable_at: float | None = None
    """When it may be purged for want of room, Unix seconds; None: not before its time."""


NOT_AGREED = "one round of the hosts that share the storage lets it go; it goes when two in a row do"

_PASSING = frozenset({Reason.LOCKED_BY_NOVA, Reason.OPEN_IN_PROCESS})
"""No reasons to put a file back, nova may be fetching a new one at this moment, but reasons not to purge it now."""

_SERVED_BY_ANY = frozenset({Reason.PINNED, Reason.IMAGE_OF_DOMAIN})
"""No disk reads through the file: whatever nova has fetched under the name since serves as well."""

Need = Callable[[Name, Inode], tuple[Reason, str, tuple[str, ...]] | None]
"""Who needs the file of a name and inode; see `plan._Judge.need`."""


def judge_entries(
    inventory: Inventory,
    usage: Usage,
    memory: Memory,
    now: Clock,
    blocked: tuple[Reason, str] | None,
    need: Need,
    drain: Drain | None = None,
) -> tuple[JudgedEntry, ...]:
    """Decide about every quarantined file; `blocked` is the answer of `purge_blocked`.

    `drain` empties the quarantine: what is free to go back goes back, or what waits is due now.
    """
    taken = {file.name.raw: file for file in inventory.files}
    judged = []
    for entry in inventory.entries:
        needed = need(entry.name, entry.inode)
        if needed and needed[0] in _PASSING:
            judged.append(JudgedEntry(entry, Decision.WAIT, *needed))
        elif needed and needed[0] in _SERVED_BY_ANY and _is_file(taken.get(entry.name.raw)):
            judged.append(_by_due_time(entry, memory, now, blocked, drain))
        elif needed and entry.name.raw in taken:
            newer = taken[entry.name.raw]
            judged.append(_beside_another(entry, newer, needed, usage, memory, now, blocked, drain))
        elif needed and _is_corrupt(entry, memory):
            judged.append(_corrupt(entry, needed))
        elif needed:
            rivals = _of_name(entry, inventory.entries, memory)
            judged.append(_restore_or_give_way(entry, rivals, needed, usage))
        elif drain is Drain.RESTORE and entry.name.raw not in taken and _goes_first(entry, inventory, need, memory):
            message = "the policy empties the quarantine (quarantine.drain: Restore); it goes back"
            judged.append(JudgedEntry(entry, Decision.RESTORE, Reason.DRAINING, message))
        else:
            alone = _by_due_time(entry, memory, now, blocked, drain)
            at = None if drain is not None else _purgeable_at(alone, memory, now, usage.spawn_grace)
            judged.append(replace(alone, purgeable_at=at))
    return tuple(sorted(judged, key=lambda item: (item.entry.name.raw, item.entry.removed_at, item.entry.id)))


def agreed_only(entries: Sequence[JudgedEntry], usage: Usage) -> tuple[JudgedEntry, ...]:
    """On storage that hosts share two rounds must let a purge go, both of them after the removal."""
    agreed = usage.agreed
    if agreed is None:
        return tuple(entries)
    refused = [item.decision is Decision.PURGE and item.entry.id not in agreed.entries for item in entries]
    return tuple(
        replace(item, decision=Decision.HOLD, reason=Reason.SHARED_STORAGE, message=NOT_AGREED) if held else item
        for item, held in zip(entries, refused, strict=True)
    )


def _goes_first(entry: QuarantineEntry, inventory: Inventory, need: Need, memory: Memory) -> bool:
    """Whether of all removed files of its name this one goes back: none is needed, and none was removed later.

    A corrupt one goes back for nobody.
    """
    rivals = _of_name(entry, inventory.entries, memory)
    needed = any(need(other.name, other.inode) for other in rivals)
    return bool(rivals) and not needed and entry == max(rivals, key=lambda other: (other.removed_at, other.id))


def _of_name(entry: QuarantineEntry, entries: Sequence[QuarantineEntry], memory: Memory) -> list[QuarantineEntry]:
    """The removed files of an entry's name of which one may go back by itself."""
    return [other for other in entries if other.name.raw == entry.name.raw and not _is_corrupt(other, memory)]


def _is_corrupt(entry: QuarantineEntry, memory: Memory) -> bool:
    """Whether a file was removed because it is corrupt, and the last look at that found nobody who needs it.

    Whoever needed it before used it as it was, and gets it back; that it is corrupt is only reported then.
    """
    if entry.reason != Reason.CORRUPT.value:
        return False
    under_way = memory.removing
    return under_way is None or entry.name.raw not in under_way.names or entry.removed_at < under_way.since


def _corrupt(entry: QuarantineEntry, needed: tuple[Reason, str, tuple[str, ...]]) -> JudgedEntry:
    _, message, users = needed
    told = (
        f"{entry.name}: {message}, but it was removed because it is corrupt; have nova fetch the image again, or put "
        f"it back with `basekeeper quarantine restore {entry.id}`"
    )
    return JudgedEntry(entry, Decision.HOLD, Reason.CORRUPT, told, users)


def _is_file(found: CachedFile | None) -> bool:
    return found is not None and found.type is FileType.REGULAR


def purge_blocked(usage: Usage, stops: Sequence[Stop], closed: str | None) -> tuple[Reason, str] | None:
    """Why nothing may be purged in this pass, if so: evidence must be complete, whatever the file.

    `closed` says that no window is open, if none is.
    """
    if stops:
        return stops[0].reason, stops[0].message
    if usage.unknown:
        return Reason.UNKNOWN_USAGE, usage.unknown[0].message
    if usage.spawns:
        return Reason.SPAWN_IN_PROGRESS, f"an instance may be starting in {usage.spawns[0].path}"
    return None if closed is None else (Reason.OUTSIDE_WINDOW, closed)


def _by_due_time(
    entry: QuarantineEntry,
    memory: Memory,
    now: Clock,
    blocked: tuple[Reason, str] | None,
    drain: Drain | None,
) -> JudgedEntry:
    if drain is not Drain.PURGE and now.wall < _due_at(entry, memory, now):
        message = "removed; it can be restored until it is purged"
        return JudgedEntry(entry, Decision.WAIT, Reason.IN_QUARANTINE, message)
    if blocked:
        return JudgedEntry(entry, Decision.HOLD, *blocked)
    if drain is Drain.PURGE:
        message = "the policy empties the quarantine (quarantine.drain: Purge)"
        return JudgedEntry(entry, Decision.PURGE, Reason.DRAINING, message)
    return JudgedEntry(entry, Decision.PURGE, Reason.RETENTION_OVER, "its time in the quarantine is over")


def _due_at(entry: QuarantineEntry, memory: Memory, now: Clock) -> float:
    """When an entry may be purged: as its side-car says, unless every age started anew since.

    Then its retention does too: a clock that leapt forward ends none early, and one that was put back lengthens none.
    """
    anew = memory.ages_since
    if anew is None or anew <= entry.removed_at <= now.wall + CLOCK_TOLERANCE:
        return entry.due_at
    return anew + (entry.due_at - entry.removed_at)


def _purgeable_at(judged: JudgedEntry, memory: Memory, now: Clock, settles: float) -> float | None:
    """When something that waits for nothing but its time may be purged to make room: not before a spawn has settled.

    A file whose side-car is damaged waits for a person.
    """
    entry = judged.entry
    held_by_window = judged.decision is Decision.HOLD and judged.reason is Reason.OUTSIDE_WINDOW
    if not entry.reason or not (judged.decision is Decision.WAIT or held_by_window):
        return None
    return _due_at(replace(entry, due_at=min(entry.due_at, entry.removed_at + settles)), memory, now)


def _beside_another(
    entry: QuarantineEntry,
    newer: CachedFile,
    needed: tuple[Reason, str, tuple[str, ...]],
    usage: Usage,
    memory: Memory,
    now: Clock,
    blocked: tuple[Reason, str] | None,
    drain: Drain | None,
) -> JudgedEntry:
    """An entry whose name another file has: it may be purged only as a copy of that one, or on an operator's word."""
    _, message, users = needed
    needed_itself = entry.inode in usage.by_inode or entry.inode in usage.qemu_locks
    same_content = memory.compared.get((entry.id, newer.inode[1], newer.size), False)
    given_up = entry.id in memory.given_up
    if newer.inode == entry.inode or ((same_content or given_up) and not needed_itself):
        if entry.inode in usage.open_files or entry.name.lock_name in usage.nova_locks:
            message = "something is at work on it or on its name at this moment"
            return JudgedEntry(entry, Decision.WAIT, Reason.IN_QUARANTINE, message, users)
        return replace(
            _by_due_time(entry, memory, now, blocked, drain), as_copy=newer.inode != entry.inode and not given_up
        )
    if _is_corrupt(entry, memory):
        return _corrupt(entry, needed)
    conflict = (
        f"{entry.name}: {message}, but a newer file has its name and this older one may be the right one; "
        f"compare them, then purge or restore {entry.id} by hand"
    )
    return JudgedEntry(entry, Decision.HOLD, Reason.CONFLICT, conflict, users)


def _restore_or_give_way(
    entry: QuarantineEntry,
    rivals: Sequence[QuarantineEntry],
    needed: tuple[Reason, str, tuple[str, ...]],
    usage: Usage,
) -> JudgedEntry:
    """Of several removed files of one name a user gets back the one it last used, else the newest."""
    reason, message, users = needed

    def rank(candidate: QuarantineEntry) -> tuple[bool, bool, float, str]:
        held = candidate.inode in usage.by_inode or candidate.inode in usage.qemu_locks
        knows_user = not set(candidate.last_users).isdisjoint(users)
        return held, knows_user, candidate.removed_at, candidate.id

    if entry == max(rivals, key=rank):
        return JudgedEntry(entry, Decision.RESTORE, reason, f"{message}; it goes back", users)
    conflict = f"{entry.name}: {message}, but another removed file of this name goes back; purge or restore by hand"
    return JudgedEntry(entry, Decision.HOLD, Reason.CONFLICT, conflict, users)
