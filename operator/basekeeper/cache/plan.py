"""Judgement: evidence in, a verdict with its reason for every file out. Values only, no IO and no clock.

The order of the questions is the order of safety. Evidence of use comes first and ends the matter; then age;
only a file that would go is asked what could still speak for it, so that a hold always means a removal that
really was prevented. Limits come last: they choose among what may go.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import anomalies, trips, windows
from .amounts import some
from .anomalies import Stop
from .evidence import CachedFile, FileType, Inventory, Note, Source, Unknown, Usage, User
from .holds import holds_of, image_unknown, notes_of, unknown_about
from .judged import Judged
from .limits import oldest_first, throttled
from .memory import Breaker, Clock, Directories, Memory
from .names import Kind, Name, original_of
from .pressure import Relief
from .quarantine_plan import NOT_AGREED, Decision, Hold, JudgedEntry, agreed_only, judge_entries, purge_blocked
from .relief import purged_early, relief_of, relieved
from .settings import CachedOnly, Policy
from .trips import Trip
from .verdicts import Reason, Verdict

NOVA_PASS_SETTLES = 300.0
"""Seconds after nova's manager registered until its touches are surely done (they come right after it)."""

_DRAINING = "the policy empties the quarantine (quarantine.drain), so nothing is removed"
_SPAWNED_ON = frozenset({Kind.ORIGINAL, Kind.SWAP, Kind.EPHEMERAL})


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one judgement."""

    files: tuple[Judged, ...]
    entries: tuple[JudgedEntry, ...]
    holds: tuple[Hold, ...]
    notes: tuple[Note, ...]
    breaker: Breaker | None
    restart_ages: bool
    """Every age must start anew from now: the clock jumped, or the memory was lost."""
    unknown: tuple[Unknown, ...]
    """What could not be asked and was not acknowledged."""
    purge_blocked: tuple[Reason, str] | None
    """Why nothing may be purged in this pass, if so."""
    stops: tuple[Stop, ...] = ()
    """What stops every removal and purge."""
    trips: tuple[Trip, ...] = ()
    """Of these, the anomalies: what has opened the breaker, the weightiest first."""
    accepted_homeless: frozenset[str] = frozenset()
    """Domains of which an operator said that their instance directories may be gone; to be remembered."""
    relief: Relief | None = None
    """What is to be done for the disk's sake; None: the policy asks for nothing of the kind."""

    @property
    def removals(self) -> tuple[Judged, ...]:
        """What may go in this pass, the longest unused first."""
        going = [judged for judged in self.files if judged.verdict is Verdict.REMOVE]
        return tuple(sorted(going, key=oldest_first))

    @property
    def restores(self) -> tuple[JudgedEntry, ...]:
        """Quarantined files that something needs."""
        return tuple(entry for entry in self.entries if entry.decision is Decision.RESTORE)

    @property
    def purges(self) -> tuple[JudgedEntry, ...]:
        """Quarantined files whose time is over."""
        return tuple(entry for entry in self.entries if entry.decision is Decision.PURGE)

    @property
    def complete(self) -> bool:
        """Nothing that could need a base was left unasked."""
        return not self.unknown

    @property
    def held(self) -> bool:
        """Whether something was held, or an anomaly stands in the way of everything."""
        return (
            bool(self.holds)
            or any(judged.verdict is Verdict.HOLD for judged in self.files)
            or any(entry.decision is Decision.HOLD for entry in self.entries)
        )


def plan(inventory: Inventory, usage: Usage, policy: Policy, memory: Memory, now: Clock) -> Plan:
    """Decide about every file seen in `_base` and in the quarantine.

    Takes values only; equal values give equal plans, in whatever order files and users come.
    """
    unknown = tuple(item for item in usage.unknown if not is_acknowledged(item, policy, memory, now.wall))
    usage = replace(usage, unknown=unknown)
    restart_ages = memory.directories is Directories.MEMORY_LOST or anomalies.clock_jump(memory.clock, now) is not None
    if memory.directories is Directories.MEMORY_LOST:
        memory = replace(memory, ages_since=now.wall)
    # On storage that hosts share their clocks differ: by so much every age is reckoned less.
    careful = replace(now, wall=now.wall - usage.clock_margin)
    judge = _Judge(usage, policy, memory, careful)
    used = used_names(inventory, usage)
    reset = trips.reset(policy, memory)
    breaker = anomalies.breaker_after(usage, used, policy, memory, now, reset)
    accepted = anomalies.accepted_homeless(usage, memory, reset)
    stops = anomalies.stops(usage, policy, memory, now, breaker, accepted, reset)

    closed = windows.look(policy.windows, now.wall).closed
    blocked = purge_blocked(usage, stops, closed)

    judged = [judge.file(file) for file in inventory.files]
    held = [_hold_if_stopped(item, stops, usage, judge, closed) for item in judged]
    entries = judge_entries(inventory, usage, memory, careful, blocked, judge.need, policy.draining)
    for_room = purge_blocked(usage, stops, None if policy.ignores_windows else closed)
    no_relief = (Reason.DRAINING, _DRAINING) if policy.draining is not None else for_room
    relief = relief_of(inventory, held, entries, policy, memory, careful.wall, no_relief, judge.image_unknown)
    held, entries = relieved(held, relief), purged_early(entries, relief)
    held, entries = [_hold_unless_agreed(item, usage) for item in held], agreed_only(entries, usage)
    files = throttled(held, policy.limits)
    holds = holds_of(files, entries, stops, usage)
    return Plan(
        files=tuple(sorted(files, key=lambda item: item.file.name.raw)),
        entries=entries,
        holds=holds,
        notes=(*trips.notes(policy, memory), *notes_of(inventory, usage, memory, holds, relief)),
        breaker=breaker,
        restart_ages=restart_ages,
        unknown=unknown,
        purge_blocked=for_room,
        stops=stops,
        trips=trips.standing(stops, policy, memory, now.wall, breaker, complete=not unknown),
        accepted_homeless=accepted,
        relief=relief,
    )


def used_names(inventory: Inventory, usage: Usage) -> frozenset[bytes]:
    """The names of bases that have users now, on disk or not."""
    by_file = {
        file.name.raw for file in inventory.files if file.inode in usage.by_inode or file.inode in usage.qemu_locks
    }
    return frozenset(by_file | {name for name, users in usage.by_name.items() if users})


def is_acknowledged(unknown: Unknown, policy: Policy, memory: Memory, now: float) -> bool:
    """Whether an operator said that this unknown is harmless, and it still is what it was then.

    A policy's row has no identity of its own: the ledger notes what the path was when the row was first met.
    """
    if unknown.path is None:
        return False
    in_policy = any(row.path == unknown.path and (row.until is None or now < row.until) for row in policy.acknowledged)
    remembered = [row for row in memory.acknowledged if row.path == unknown.path]
    first_met = [row.identity for row in remembered if not row.by_hand]
    by_hand = [row.identity for row in remembered if row.by_hand and (row.until is None or now < row.until)]
    return (in_policy and first_met in ([], [unknown.identity])) or unknown.identity in by_hand


@dataclass(frozen=True, slots=True)
class _Judge:
    """The questions that are asked of one file."""

    usage: Usage
    policy: Policy
    memory: Memory
    now: Clock

    def file(self, file: CachedFile) -> Judged:
        """The verdict on one file from its own evidence: what stands in the way of a removal comes later."""
        if file.type is not FileType.REGULAR:
            return Judged(file, Verdict.FOREIGN, Reason.NOT_A_FILE, f"a {file.type}; only regular files are removed")
        if file.name.kind is Kind.FOREIGN:
            return Judged(file, Verdict.FOREIGN, Reason.FOREIGN_NAME, "nova never wrote such a name; it is left alone")
        since = self._unused_since(file)
        aged = Judged(
            file,
            Verdict.KEEP,
            Reason.TOO_YOUNG,
            "",
            unused_since=since,
            age=None if since is None else self.now.wall - since,
        )
        if need := self.need(file.name, file.inode):
            reason, message, users = need
            return replace(aged, reason=reason, message=message, users=users)
        return self._by_age(aged)

    def need(self, name: Name, inode: tuple[int, int]) -> tuple[Reason, str, tuple[str, ...]] | None:
        """What needs the file of this name and inode: a reason, a sentence and the users; None: nothing known."""
        users = _users(self.usage, name, inode)
        if overlays := tuple(user.who for user in users if user.source is Source.OVERLAY):
            return Reason.IN_USE_BY_OVERLAY, f"needed by {_some(overlays)}", tuple(u.who for u in users)
        if users:
            domains = tuple(user.who for user in users)
            return Reason.IN_USE_BY_DOMAIN, f"named by {_some(domains)}", domains
        if inode in self.usage.qemu_locks:
            return Reason.LOCKED_BY_QEMU, "a running qemu holds its image lock on it", ("qemu",)
        if opener := self.usage.open_files.get(inode):
            return Reason.OPEN_IN_PROCESS, f"{opener} has it open", (opener,)
        if name.held_by_nfs:
            return Reason.OPEN_IN_PROCESS, "an NFS client keeps it for a process that still has it open", ()
        if name.lock_name in self.usage.nova_locks:
            return Reason.LOCKED_BY_NOVA, f"somebody holds nova's lock nova-{_text(name.lock_name)}", ()
        if pinned := self._pinned(name):
            return Reason.PINNED, pinned, ()
        if image := self._image(name):
            return Reason.IMAGE_OF_DOMAIN, *image
        return None

    def _pinned(self, name: Name) -> str | None:
        until = self.memory.pins.get(name.raw)
        if until is not None and self.now.wall < until:
            return "restored by hand and pinned for a while"
        if name.is_final and name.image in {original_of(image) for image in self.policy.pinned_images}:
            return "the policy pins its image"
        if (kept := self.usage.kept.get(name.raw)) and kept.reason is Reason.PINNED:
            return kept.message
        return None

    def _image(self, name: Name) -> tuple[str, tuple[str, ...]] | None:
        """The domains that were made from this base's image, where that is a reason to keep it."""
        if name.image is None or not name.is_final:
            return None
        made_from = self.usage.images.get(name.image, ())
        if needed := tuple(user.who for user in made_from if user.needed):
            return f"{_some(needed)} was made from its image and misses a disk", needed
        keep = self.policy.cached_only is CachedOnly.KEEP and name.kind is Kind.ORIGINAL
        if made_from and keep:
            users = tuple(user.who for user in made_from)
            return f"{_some(users)} was made from its image (cachedOnly: Keep)", users
        return None

    def _unused_since(self, file: CachedFile) -> float | None:
        if file.mtime <= 0:
            return None
        elsewhere = self.usage.unused_since.get(file.name.raw)
        stamps = [file.mtime, self.memory.last_used.get(file.name.raw), self.memory.ages_since, elsewhere]
        return max(stamp for stamp in stamps if stamp is not None)

    def _by_age(self, aged: Judged) -> Judged:
        kind = aged.file.name.kind
        used = self.memory.has_seen_in_use(aged.file.name.raw, aged.file.inode[1])
        minimum = self.policy.minimum_age.of(kind, used=used)
        if aged.age is None or aged.unused_since is None:
            return replace(aged, message="it has no time stamp, so it is never old")
        if aged.age < 0:
            return replace(aged, message="its time stamp, or its last use, is in the future, so it is not old")
        damage = self.memory.damaged.get(aged.file.inode)
        # No minimum age, but what may be starting on it must have had the time to show.
        if damage is not None and self.policy.integrity is not None and aged.age >= self.usage.spawn_grace:
            message = f"nothing uses it, and {damage}"
            return replace(aged, verdict=Verdict.REMOVE, reason=Reason.CORRUPT, message=message)
        if aged.age < minimum:
            removable_at = aged.unused_since + minimum
            longer = minimum > self.policy.minimum_age.of(kind)
            message = f"unused for {_span(aged.age)}; may go after {_span(minimum)}"
            message += ", as it was never seen in use" if longer else ""
            return replace(aged, message=message, removable_at=removable_at)
        partial = kind is Kind.PARTIAL
        what = "a leftover that nobody has touched" if partial else "nothing has used it"
        reason = Reason.STALE_PARTIAL if partial else Reason.EXPIRED
        if kept := self.usage.kept.get(aged.file.name.raw):
            return replace(aged, reason=kept.reason, message=kept.message)
        return replace(aged, verdict=Verdict.REMOVE, reason=reason, message=f"{what} for {_span(aged.age)}")

    def image_unknown(self, file: CachedFile) -> tuple[Reason, str] | None:
        """What holds an original from which a raw disk may have been made, as nova's touches do not disprove.

        nova touches the base of every instance in its database right after it registers (nova 34,
        `compute/manager.py`), and a spawn touches it too, so an older mtime says that no instance has it.
        """
        if self.policy.cached_only is not CachedOnly.KEEP or file.name.kind is not Kind.ORIGINAL:
            return None
        touched_at = self.usage.nova_pass_at
        settled = touched_at is not None and self.now.wall - touched_at >= NOVA_PASS_SETTLES
        untouched = touched_at is not None and file.mtime < touched_at
        if not self.usage.unidentified_raw or (settled and untouched):
            return None
        return Reason.IMAGE_UNKNOWN, image_unknown(self.usage)


def _users(usage: Usage, name: Name, inode: tuple[int, int]) -> tuple[User, ...]:
    found = {*usage.by_name.get(name.raw, ()), *usage.by_inode.get(inode, ())}
    return tuple(sorted(found, key=lambda user: (user.source, user.who)))


def _hold_if_stopped(item: Judged, stops: Sequence[Stop], usage: Usage, judge: _Judge, closed: str | None) -> Judged:
    if item.verdict is not Verdict.REMOVE:
        return item
    file = item.file
    if stops:
        return _held(item, stops[0].reason, stops[0].message)
    if unknown := unknown_about(file.name, usage.unknown):
        return _held(item, Reason.UNKNOWN_USAGE, unknown[0].message)
    if file.name.kind in _SPAWNED_ON and usage.spawns:
        paths = tuple(spawn.path for spawn in usage.spawns)
        return _held(item, Reason.SPAWN_IN_PROGRESS, f"an instance may be starting in {_some(paths)}")
    if held_by_raw := judge.image_unknown(file):
        return _held(item, *held_by_raw)
    if judge.policy.draining is not None:
        return _held(item, Reason.DRAINING, _DRAINING)
    # Last: what an operator has to mend is told also between windows, or there would be time for it in them alone.
    if closed is not None:
        return _held(item, Reason.OUTSIDE_WINDOW, closed)
    return item


def _hold_unless_agreed(item: Judged, usage: Usage) -> Judged:
    """On storage that hosts share two rounds in a row must let a file go."""
    refused = usage.agreed is not None and (item.file.name.raw, item.file.inode) not in usage.agreed.files
    return _held(item, Reason.SHARED_STORAGE, NOT_AGREED) if refused and item.verdict is Verdict.REMOVE else item


def _held(item: Judged, reason: Reason, message: str) -> Judged:
    return replace(item, verdict=Verdict.HOLD, reason=reason, message=message)


def _some(names: Sequence[str]) -> str:
    return some(names, 2)


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "backslashreplace")


def _span(seconds: float) -> str:
    """A duration as people say it: the two largest units."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    left = int(seconds)
    parts = []
    for unit, size in units:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
