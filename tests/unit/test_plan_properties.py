"""What must hold of every judgement, whatever lies in the cache and whoever uses it.

The two that matter most: more evidence of use never removes more, and what something needs is never removed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from basekeeper.cache.evidence import (
    CachedFile,
    FileType,
    Identity,
    ImageUser,
    Inode,
    Inventory,
    QuarantineEntry,
    Room,
    Shared,
    Source,
    Spawn,
    Unknown,
    Usage,
    User,
)
from basekeeper.cache.memory import Acknowledged, Breaker, Clock, Directories, LastPass, Memory, Removing
from basekeeper.cache.names import Kind, parse
from basekeeper.cache.plan import Plan, plan
from basekeeper.cache.quarantine_plan import Decision, JudgedEntry
from basekeeper.cache.settings import (
    AcknowledgedPath,
    CachedOnly,
    Drain,
    Integrity,
    Limits,
    MinimumAge,
    Mode,
    Policy,
    Pressure,
)
from basekeeper.cache.verdicts import (
    ANOMALIES,
    EVICTION_REASONS,
    HOLD_REASONS,
    REASONS,
    RESTORE_REASONS,
    Reason,
    Verdict,
)
from tests.unit.judging import (
    CLOCK,
    CLOSED_NOW,
    DAY,
    EPHEMERAL,
    FOREIGN,
    HOUR,
    IMAGE,
    NFS,
    NO_LIMITS,
    NOW,
    OPEN_NOW,
    ORIGINAL,
    OTHER,
    PARTIAL,
    RESIZED,
    SWAP,
)

NAMES = [ORIGINAL, OTHER, RESIZED, SWAP, EPHEMERAL, PARTIAL, NFS, FOREIGN, OTHER + b"_sm", OTHER + b".converted"]
IMAGES = [IMAGE, "another image"]
PATHS = ["a/disk", "b/disk", "c"]

# Few values of everything, so that names, inodes and times meet as often as they can.
names = st.sampled_from(NAMES)
inodes: st.SearchStrategy[Inode] = st.tuples(st.just(1), st.integers(1, 14))
moments = st.sampled_from([0.0, NOW - 99 * DAY, NOW - DAY, NOW - HOUR, NOW - 60, NOW, NOW + 60, NOW + 99 * DAY])
sizes = st.sampled_from([0, 4096, 1 << 30])
paths = st.sampled_from(PATHS)
users = st.builds(User, st.sampled_from(Source), st.sampled_from(["a/disk", "b/disk", "domain 7"]))
several_users = st.lists(users, max_size=2, unique=True).map(tuple)
some_users = st.lists(users, min_size=1, max_size=2, unique=True).map(tuple)
identities = st.builds(Identity, st.integers(1, 2), st.just(0), st.just(0)) | st.none()
unknowns = st.builds(
    Unknown, st.just("unread"), paths | st.none(), identities, st.none() | st.frozensets(names, max_size=2)
)
spawns = st.builds(Spawn, paths, moments)
image_users = st.builds(ImageUser, st.just("domain 7"), st.booleans())


rooms = st.none() | st.sampled_from([Room(0, 100), Room(80 << 30, 20 << 30), Room(100 << 30, 0)])


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    """A cache in which every name is there once, as in a directory; inodes may be shared, as hard links share them."""
    blocks: dict[Inode, int] = {}
    files = tuple(
        CachedFile(
            name=parse(name),
            type=draw(st.sampled_from([FileType.REGULAR] * 4 + list(FileType))),
            inode=inode,
            size=draw(sizes),
            allocated=blocks.setdefault(inode, draw(sizes)),
            links=draw(st.integers(1, 2)),
            mtime=draw(moments),
        )
        for name in draw(st.lists(names, unique=True))
        for inode in [draw(inodes)]
    )
    entries = tuple(
        QuarantineEntry(
            id=f"entry {number}",
            name=parse(name),
            inode=draw(inodes),
            size=4096,
            allocated=4096,
            links=draw(st.integers(1, 2)),
            mtime=draw(moments),
            removed_at=removed_at,
            due_at=removed_at + draw(st.sampled_from([0.0, 6 * HOUR])),
            reason=draw(st.sampled_from(["Expired", "Expired", "Corrupt"])),
            last_users=draw(st.sampled_from([(), ("a/disk",)])),
        )
        for number, name in enumerate(draw(st.lists(names, max_size=4)))
        for removed_at in [draw(moments)]
    )
    return Inventory(files, entries, room=draw(rooms))


rarely = st.sampled_from([False, False, False, True])
usages = st.builds(
    Usage,
    by_name=st.dictionaries(names, several_users, max_size=2),
    by_inode=st.dictionaries(inodes, some_users, max_size=2),
    images=st.dictionaries(
        st.sampled_from([ORIGINAL, OTHER]), st.lists(image_users, max_size=2).map(tuple), max_size=1
    ),
    qemu_locks=st.frozensets(inodes, max_size=1),
    nova_locks=st.frozensets(names, max_size=1),
    open_files=st.dictionaries(inodes, st.just("process 7"), max_size=1),
    unknown=st.lists(unknowns, max_size=2).map(tuple),
    spawns=st.lists(spawns, max_size=1).map(tuple),
    unidentified_raw=st.sampled_from([(), (), ("c/disk",)]),
    nova_pass_at=st.none() | moments,
    shared=rarely.map(lambda shared: Shared("nfs") if shared else None),
    directories=st.integers(0, 6),
    domains=st.integers(0, 6),
    homeless_domains=rarely.map(lambda homeless: ("domain 8",) if homeless else ()),
)

ages = st.sampled_from([0.0, 60.0, HOUR, DAY])
limits = st.builds(
    Limits, st.integers(0, 6), st.none() | st.sampled_from([1, 4096, 1 << 31]), st.sampled_from([1, 25, 50, 100])
)
policies = st.builds(
    Policy,
    mode=st.sampled_from(Mode),
    suspend=rarely,
    minimum_age=st.builds(MinimumAge, ages, ages, ages, ages, ages, st.sampled_from([None, None, None, DAY])),
    cached_only=st.sampled_from(CachedOnly),
    pinned_images=st.frozensets(st.sampled_from(IMAGES), max_size=1),
    limits=limits,
    drain=st.sampled_from([None, None, None, *Drain]),
    integrity=st.sampled_from([None, Integrity()]),
    acknowledged=st.lists(st.builds(AcknowledgedPath, paths, st.just("gone"), st.none() | moments), max_size=1).map(
        tuple
    ),
    windows=st.sampled_from([(), (), (), (), (OPEN_NOW,), (CLOSED_NOW,)]),
)

wanting = st.builds(
    replace,
    policies,
    pressure=st.none() | st.builds(Pressure, minimum_age=ages, ignore_windows=st.booleans()),
    max_cache_bytes=st.sampled_from([None, None, 1, 1 << 30]),
)
"""Policies that want room as well: then a file that has a user makes way for the next one, so more may go of that."""

steady_memories = st.builds(
    Memory,
    last_used=st.dictionaries(names, moments, max_size=3),
    ages_since=st.none() | moments,
    removing=st.none() | st.builds(Removing, st.frozensets(names, max_size=1), moments),
    pins=st.dictionaries(names, moments, max_size=2),
    acknowledged=st.lists(
        st.builds(Acknowledged, paths, identities, st.booleans(), st.just("gone"), st.none() | moments), max_size=1
    ).map(tuple),
    clock=st.sampled_from([None, None, Clock(NOW - HOUR, CLOCK.uptime - HOUR, CLOCK.boot), Clock(NOW, 9.0, "other")]),
    directories=st.sampled_from([*[Directories.KNOWN] * 4, *Directories]),
    directories_message=st.just("mount the right ones"),
)
"""Memories without a breaker: users that come back close one, so more evidence of use may well let more go then."""


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    """Memories of every kind."""
    some = st.frozensets(names, min_size=3)
    last = draw(st.none() | st.builds(LastPass, some, st.integers(0, 12)))
    breaker = draw(st.none() | st.builds(Breaker, st.just(Reason.USERS_VANISHED), moments, some))
    trips = draw(st.dictionaries(st.sampled_from(sorted(ANOMALIES)), moments, max_size=2))
    accepted = draw(st.sampled_from([frozenset(), frozenset({"domain 8"})]))
    return replace(
        draw(steady_memories),
        last_pass=last,
        breaker=breaker,
        evicting=draw(st.booleans()),
        trips=trips,
        accepted_homeless=accepted,
    )


@dataclass(frozen=True)
class World:
    """Everything that one judgement takes."""

    inventory: Inventory
    usage: Usage
    policy: Policy
    memory: Memory

    def judge(self) -> Plan:
        return plan(self.inventory, self.usage, self.policy, self.memory, CLOCK)

    def on(self, **changed: Any) -> "World":
        """The same world with another usage."""
        return replace(self, usage=replace(self.usage, **changed))


unlimited = policies.map(lambda policy: replace(policy, limits=NO_LIMITS))


@st.composite
def worlds_of(draw: st.DrawFn, policies: st.SearchStrategy[Policy], memories: st.SearchStrategy[Memory]) -> World:
    """Worlds in which any two files of one name may have been compared, and are needed more often than by chance."""
    inventory, usage, policy, memory = draw(inventories()), draw(usages), draw(policies), draw(memories)
    by_name = {file.name.raw: file for file in inventory.files}
    pairs = [(entry.id, by_name[entry.name.raw]) for entry in inventory.entries if entry.name.raw in by_name]
    contested = {entry.name.raw: draw(several_users) for entry in inventory.entries if entry.name.raw in by_name}
    usage = replace(usage, by_name={**contested, **usage.by_name})
    compared = {(entry_id, file.inode[1], file.size): draw(st.booleans()) for entry_id, file in pairs}
    damaged = {file.inode: "it changed" for file in inventory.files if draw(rarely)}
    return World(inventory, usage, policy, replace(memory, compared=compared, damaged=damaged))


def or_calm(some: st.SearchStrategy[World]) -> st.SearchStrategy[World]:
    """These worlds, and as often without what would hold everything in them."""
    return some | some.map(lambda world: world.on(unknown=(), spawns=(), shared=None, homeless_domains=()))


worlds = or_calm(worlds_of(wanting, memories()))
steady_worlds = or_calm(worlds_of(unlimited, steady_memories))


@given(worlds)
def test_every_file_and_every_entry_gets_exactly_one_verdict(world: World) -> None:
    found = world.judge()
    assert sorted(item.file.name.raw for item in found.files) == sorted(f.name.raw for f in world.inventory.files)
    assert sorted(item.entry.id for item in found.entries) == sorted(entry.id for entry in world.inventory.entries)
    assert all(item.message for item in found.files)
    assert all(item.message for item in found.entries)


@given(worlds)
def test_every_verdict_has_one_of_the_reasons_that_it_can_have(world: World) -> None:
    """Metrics show each of these from the start, and no others."""
    found = world.judge()
    assert [item for item in found.files if item.reason not in REASONS[item.verdict]] == []
    assert {hold.reason for hold in found.holds} <= HOLD_REASONS
    assert {item.reason for item in found.entries if item.decision is Decision.HOLD} <= HOLD_REASONS
    assert {item.reason for item in found.entries if item.decision is Decision.RESTORE} <= RESTORE_REASONS


@given(worlds, st.randoms(use_true_random=False))
def test_the_order_of_what_was_seen_changes_nothing(world: World, random: Any) -> None:
    def shuffled(items: Any) -> Any:
        mixed = list(items)
        random.shuffle(mixed)
        return mixed

    usage = world.usage
    other = World(
        replace(
            world.inventory,
            files=tuple(shuffled(world.inventory.files)),
            entries=tuple(shuffled(world.inventory.entries)),
        ),
        replace(
            usage,
            by_name={name: tuple(shuffled(some)) for name, some in shuffled(usage.by_name.items())},
            by_inode={inode: tuple(shuffled(some)) for inode, some in shuffled(usage.by_inode.items())},
            unknown=tuple(shuffled(usage.unknown)),
            spawns=tuple(shuffled(usage.spawns)),
        ),
        world.policy,
        world.memory,
    )
    one, two = world.judge(), other.judge()
    assert _told(one) == _told(two)


def _told(found: Plan) -> object:
    """What a plan says, but which of several unknowns or spawns a file's sentence happens to name first."""
    return (
        [(item.file, item.verdict, item.reason, item.users, item.removable_at) for item in found.files],
        [(item.entry, item.decision, item.reason, item.users, item.as_copy) for item in found.entries],
        found.holds,
        sorted(found.notes, key=str),
        found.breaker,
        found.restart_ages,
    )


@given(worlds)
def test_what_has_a_user_is_never_removed_and_never_purged_but_as_a_copy(world: World) -> None:
    usage, found = world.usage, world.judge()
    for item in found.removals:
        assert not usage.by_name.get(item.file.name.raw)
        assert item.file.inode not in usage.by_inode
        assert item.file.inode not in usage.qemu_locks
        assert item.file.inode not in usage.open_files
        assert item.file.name.lock_name not in usage.nova_locks
    for purge in found.purges:
        if _has_a_copy(purge, world):
            continue
        assert not usage.by_name.get(purge.entry.name.raw)
        assert purge.entry.inode not in usage.by_inode
        assert purge.entry.inode not in usage.qemu_locks
        assert purge.entry.inode not in usage.open_files


@given(or_calm(worlds_of(wanting.map(lambda policy: replace(policy, limits=NO_LIMITS)), memories())))
def test_want_of_room_shortens_times_and_changes_nothing_else(world: World) -> None:
    told = world.judge()
    without = replace(world, policy=replace(world.policy, pressure=None, max_cache_bytes=None)).judge()
    for before, after in zip(without.files, told.files, strict=True):
        if (before.verdict, before.reason) == (after.verdict, after.reason):
            continue
        young = (before.verdict, before.reason) == (Verdict.KEEP, Reason.TOO_YOUNG)
        broken = before.reason is Reason.OUTSIDE_WINDOW and world.policy.ignores_windows
        assert young or broken
        assert before.age is not None
        assert before.age >= world.policy.eviction_age or broken
        assert after.verdict is Verdict.HOLD or after.reason in EVICTION_REASONS
        assert after.verdict is Verdict.HOLD or told.purge_blocked is None
        assert after.verdict is Verdict.HOLD or after.file.links == 1
    for was, now in zip(without.entries, told.entries, strict=True):
        if (was.decision, was.reason) == (now.decision, now.reason):
            continue
        assert was.decision is Decision.WAIT or was.reason is Reason.OUTSIDE_WINDOW
        assert was.users == ()
        assert now.entry.removed_at + world.usage.spawn_grace <= NOW
        assert now.decision is Decision.HOLD or (now.reason in EVICTION_REASONS and told.purge_blocked is None)


@given(worlds_of(wanting.map(lambda policy: replace(policy, limits=NO_LIMITS)), memories()))
def test_a_finding_lets_go_what_age_alone_would_let_go_one_day_and_nothing_else(world: World) -> None:
    told = world.judge()
    without = replace(world, memory=replace(world.memory, damaged={})).judge()
    old = replace(world, policy=replace(world.policy, minimum_age=MinimumAge(*[0.0] * 5)))
    one_day = replace(old, memory=replace(old.memory, damaged={})).judge()
    for before, after, aged in zip(without.files, told.files, one_day.files, strict=True):
        if after.reason is not Reason.CORRUPT:
            continue
        assert world.policy.integrity is not None
        by_age = {Reason.EXPIRED, Reason.STALE_PARTIAL}
        assert before.reason in {Reason.TOO_YOUNG} | by_age | EVICTION_REASONS or before.verdict is Verdict.HOLD
        assert before.users == ()
        assert aged.verdict is Verdict.REMOVE
        assert aged.reason in by_age
        assert after.age is not None
        assert after.age >= world.usage.spawn_grace
    assert told.restores == without.restores
    assert told.purge_blocked == without.purge_blocked


@given(worlds)
def test_what_was_removed_as_corrupt_never_goes_back_by_itself_unless_its_removal_was_not_over(world: World) -> None:
    under_way = world.memory.removing
    for item in world.judge().restores:
        assert item.entry.reason != "Corrupt" or (
            under_way is not None
            and item.entry.name.raw in under_way.names
            and item.entry.removed_at >= under_way.since
        )


@given(worlds)
def test_a_needed_file_is_on_its_way_back_or_told_about(world: World) -> None:
    for item in world.judge().entries:
        if world.usage.by_name.get(item.entry.name.raw):
            assert item.decision in {Decision.RESTORE, Decision.HOLD} or _has_a_copy(item, world)


def _has_a_copy(item: JudgedEntry, world: World) -> bool:
    """Whether the file of its name in the cache is the same file, or has its content."""
    newer = {file.name.raw: file for file in world.inventory.files}.get(item.entry.name.raw)
    if newer is None:
        return False
    compared = world.memory.compared.get((item.entry.id, newer.inode[1], newer.size), False)
    return newer.inode == item.entry.inode or (compared and (item.as_copy or item.decision is Decision.WAIT))


@given(worlds)
def test_one_removed_file_of_a_name_goes_back_at_most_and_never_over_another(world: World) -> None:
    back = [item.entry.name.raw for item in world.judge().restores]
    assert len(back) == len(set(back))
    assert not set(back) & {file.name.raw for file in world.inventory.files}


@given(worlds)
def test_an_unknown_without_bounds_lets_no_base_go(world: World) -> None:
    found = world.judge()
    if any(item.only is None for item in found.unknown):
        assert {item.file.name.kind for item in found.removals} <= {Kind.PARTIAL}


@given(worlds)
def test_nothing_is_purged_while_anything_is_unknown_or_may_be_starting(world: World) -> None:
    found = world.judge()
    if found.unknown or world.usage.spawns:
        assert not found.purges
        assert found.purge_blocked is not None


@given(worlds)
def test_outside_every_window_nothing_is_removed_or_purged_and_what_is_needed_goes_back(world: World) -> None:
    inside, outside = (
        replace(world, policy=replace(world.policy, windows=windows)).judge()
        for windows in ((OPEN_NOW,), (CLOSED_NOW,))
    )
    let_go = {item.reason for item in outside.removals} | {item.reason for item in outside.purges}
    assert let_go <= (EVICTION_REASONS if world.policy.ignores_windows else set())
    assert {item.entry.id for item in outside.restores} == {item.entry.id for item in inside.restores}
    for one, other in zip(inside.files, outside.files, strict=True):
        passing = {one.reason, other.reason} & {Reason.LIMIT_REACHED, *EVICTION_REASONS}
        if one.verdict is not Verdict.REMOVE and not passing:
            assert one == other


@given(worlds)
def test_the_mode_changes_no_verdict(world: World) -> None:
    audit, enforce = (replace(world, policy=replace(world.policy, mode=mode, drain=None)).judge() for mode in Mode)
    assert audit == enforce


def emptying(world: World, drain: Drain | None) -> Plan:
    """The plan for a world in which the quarantine is emptied like this."""
    return replace(world, policy=replace(world.policy, mode=Mode.ENFORCE, drain=drain)).judge()


@given(worlds, st.sampled_from(Drain))
def test_nothing_is_removed_while_the_quarantine_is_emptied(world: World, drain: Drain) -> None:
    assert emptying(world, drain).removals == ()


@given(worlds, st.sampled_from(Drain))
def test_in_audit_no_quarantine_is_emptied(world: World, drain: Drain) -> None:
    audit = replace(world.policy, mode=Mode.AUDIT)
    plain, emptied = (replace(world, policy=replace(audit, drain=order)).judge() for order in (None, drain))
    assert plain == emptied


@given(worlds)
def test_an_emptied_quarantine_gives_back_whatever_would_go_back_and_purges_no_more(world: World) -> None:
    plain, emptied = emptying(world, None), emptying(world, Drain.RESTORE)
    assert {item.entry.id for item in plain.restores} <= {item.entry.id for item in emptied.restores}
    assert {item.entry.id for item in emptied.purges} <= {item.entry.id for item in plain.purges}


@given(worlds)
def test_an_emptied_quarantine_purges_sooner_and_nothing_else(world: World) -> None:
    """Whatever `Purge` purges, age alone would let go one day."""
    entries = tuple(replace(entry, removed_at=0.0, due_at=0.0) for entry in world.inventory.entries)
    patient = replace(world.policy, pressure=None, max_cache_bytes=None)  # which may break a window, as this may not
    due = replace(world, inventory=replace(world.inventory, entries=entries), policy=patient)
    steady = replace(due, memory=replace(due.memory, ages_since=None))
    one, other = emptying(world, Drain.PURGE), emptying(steady, None)
    if world.memory.directories is not Directories.MEMORY_LOST:
        assert {item.entry.id for item in one.purges} == {item.entry.id for item in other.purges}
    assert one.restores == emptying(world, None).restores


@given(worlds)
def test_every_file_of_an_emptied_quarantine_goes_back_unless_something_says_why_not(world: World) -> None:
    found = emptying(world, Drain.RESTORE)
    back = {item.entry.name.raw for item in found.restores}
    taken = {file.name.raw for file in world.inventory.files}
    passing = {Reason.LOCKED_BY_NOVA, Reason.OPEN_IN_PROCESS}
    waiting = {item.entry.name.raw for item in found.entries if item.reason in passing}
    corrupt = {entry.name.raw for entry in world.inventory.entries if entry.reason == "Corrupt"}
    assert {entry.name.raw for entry in world.inventory.entries} <= back | taken | waiting | corrupt


@given(worlds)
def test_what_is_not_nova_s_is_foreign_and_nothing_else_is(world: World) -> None:
    for item in world.judge().files:
        ours = item.file.name.kind is not Kind.FOREIGN and item.file.type is FileType.REGULAR
        assert (item.verdict is Verdict.FOREIGN) != ours


@given(worlds)
def test_a_pass_removes_no_more_than_its_limits_or_one_file(world: World) -> None:
    found, bounds = world.judge(), world.policy.limits
    going = found.removals
    ours = sum(1 for item in found.files if item.verdict is not Verdict.FOREIGN)
    assert len(going) <= max(1, min(bounds.max_files, ours * bounds.max_percent // 100))
    if bounds.max_bytes is not None and len(going) > 1:
        assert sum(item.file.reclaimable for item in going) <= bounds.max_bytes
    waiting = [item for item in found.files if item.reason is Reason.LIMIT_REACHED]
    assert bool(going) or not waiting
    by_age = [item for item in going if item.reason not in EVICTION_REASONS]
    for kind in Kind:  # which share the limits
        oldest = max((item.unused_since or 0.0 for item in by_age if item.file.name.kind is kind), default=0.0)
        assert all((item.unused_since or 0.0) >= oldest for item in waiting if item.file.name.kind is kind)


@given(worlds)
def test_limits_only_put_off(world: World) -> None:
    bound, free = world.judge(), replace(world, policy=replace(world.policy, limits=NO_LIMITS)).judge()
    pairs = zip(bound.files, free.files, strict=True)
    for one, other in pairs:
        same = (one.verdict, one.reason) == (other.verdict, other.reason)
        assert same or (one.reason is Reason.LIMIT_REACHED and other.verdict is Verdict.REMOVE)
    assert bound.entries == free.entries


@given(worlds)
def test_every_reason_that_held_something_is_listed_and_nothing_is_listed_twice(world: World) -> None:
    found = world.judge()
    held = {item.reason for item in found.files if item.verdict is Verdict.HOLD}
    held |= {item.reason for item in found.entries if item.decision is Decision.HOLD}
    assert held <= {item.reason for item in found.holds}
    assert len(found.holds) == len(set(found.holds))
    assert found.held == bool(found.holds)


@given(worlds)
def test_whatever_could_not_be_asked_is_told_as_a_hold_or_as_a_note(world: World) -> None:
    found = world.judge()
    told = {(item.message, item.path) for item in found.holds} | {(item.message, item.path) for item in found.notes}
    assert {(item.message, item.path) for item in found.unknown} <= told


# More evidence never removes more


def _more_user(draw: st.DrawFn, world: World) -> World:
    name, more = draw(names), draw(users)
    return world.on(by_name={**world.usage.by_name, name: (*world.usage.by_name.get(name, ()), more)})


def _more_reached(draw: st.DrawFn, world: World) -> World:
    inode, more = draw(inodes), draw(users)
    return world.on(by_inode={**world.usage.by_inode, inode: (*world.usage.by_inode.get(inode, ()), more)})


def _more_unknown(draw: st.DrawFn, world: World) -> World:
    return world.on(unknown=(*world.usage.unknown, draw(unknowns)))


def _more_spawn(draw: st.DrawFn, world: World) -> World:
    return world.on(spawns=(*world.usage.spawns, draw(spawns)))


def _more_image(draw: st.DrawFn, world: World) -> World:
    name, more = draw(st.sampled_from([ORIGINAL, OTHER])), draw(image_users)
    return world.on(images={**world.usage.images, name: (*world.usage.images.get(name, ()), more)})


def _more_qemu_lock(draw: st.DrawFn, world: World) -> World:
    return world.on(qemu_locks=world.usage.qemu_locks | {draw(inodes)})


def _more_nova_lock(draw: st.DrawFn, world: World) -> World:
    return world.on(nova_locks=world.usage.nova_locks | {draw(names)})


def _more_open(draw: st.DrawFn, world: World) -> World:
    return world.on(open_files={**world.usage.open_files, draw(inodes): "process 8"})


def _more_raw(draw: st.DrawFn, world: World) -> World:
    return world.on(unidentified_raw=(*world.usage.unidentified_raw, draw(paths)))


def _more_pin(draw: st.DrawFn, world: World) -> World:
    if draw(st.booleans()):
        pinned = world.policy.pinned_images | {draw(st.sampled_from(IMAGES))}
        return replace(world, policy=replace(world.policy, pinned_images=pinned))
    return replace(world, memory=replace(world.memory, pins={**world.memory.pins, draw(names): NOW + DAY}))


def _more_memory(draw: st.DrawFn, world: World) -> World:
    name, at = draw(names), draw(moments)
    at = max(at, world.memory.last_used.get(name, 0.0))
    return replace(world, memory=replace(world.memory, last_used={**world.memory.last_used, name: at}))


def _more_youth(draw: st.DrawFn, world: World) -> World:
    files = tuple(
        replace(file, mtime=file.mtime + draw(st.sampled_from([0.0, 60.0, HOUR, 99 * DAY]))) if file.mtime > 0 else file
        for file in world.inventory.files
    )
    return replace(world, inventory=replace(world.inventory, files=files))


MORE: list[Callable[[st.DrawFn, World], World]] = [
    _more_user,
    _more_reached,
    _more_unknown,
    _more_spawn,
    _more_image,
    _more_qemu_lock,
    _more_nova_lock,
    _more_open,
    _more_raw,
    _more_pin,
    _more_memory,
    _more_youth,
]


@st.composite
def pairs_of_worlds(draw: st.DrawFn) -> tuple[World, World]:
    """A world and the same with one more reason to keep something."""
    world = draw(steady_worlds)
    return world, draw(st.sampled_from(MORE))(draw, world)


@given(pairs_of_worlds())
def test_more_reasons_to_keep_never_remove_and_never_purge_more(pair: tuple[World, World]) -> None:
    before, after = (world.judge() for world in pair)
    assert {item.file.name.raw for item in after.removals} <= {item.file.name.raw for item in before.removals}
    assert {item.entry.id for item in after.purges} <= {item.entry.id for item in before.purges}


REACHED: dict[str, Callable[[Plan], bool]] = {
    "several removals": lambda found: len(found.removals) > 1,
    "a hold": lambda found: any(item.verdict is Verdict.HOLD for item in found.files),
    "a purge": lambda found: bool(found.purges),
    "the purge of a copy": lambda found: any(item.as_copy for item in found.purges),
    "a restore": lambda found: bool(found.restores),
    "a conflict": lambda found: any(item.reason is Reason.CONFLICT for item in found.entries),
    "a drain into the cache": lambda found: any(item.reason is Reason.DRAINING for item in found.restores),
    "a drain into nothing": lambda found: any(item.reason is Reason.DRAINING for item in found.purges),
}
WANTED: dict[str, Callable[[Plan], bool]] = {
    "an eviction": lambda found: any(item.reason in EVICTION_REASONS for item in found.removals),
    "a corrupt file": lambda found: any(item.reason is Reason.CORRUPT for item in found.removals),
    "a corrupt file that is needed": lambda found: any(item.reason is Reason.CORRUPT for item in found.entries),
    "an early purge": lambda found: any(item.reason in EVICTION_REASONS for item in found.purges),
}


@pytest.mark.parametrize(
    ("some", "reached"),
    [(steady_worlds, reached) for reached in REACHED.values()] + [(worlds, reached) for reached in WANTED.values()],
    ids=[*REACHED, *WANTED],
)
def test_the_properties_are_asked_of_worlds_in_which_something_happens(
    some: st.SearchStrategy[World], reached: Callable[[Plan], bool]
) -> None:
    at_random = settings(max_examples=2000, database=None, phases=[Phase.generate], derandomize=True)
    find(some, lambda world: reached(world.judge()), settings=at_random)
