"""Want of room: what goes for it, in which order and how much, and that it weighs no evidence."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.cache.evidence import CachedFile, Inode, Inventory, QuarantineEntry, Room, Shared, Usage
from basekeeper.cache.memory import Directories, Memory
from basekeeper.cache.plan import Plan
from basekeeper.cache.pressure import Candidate, PressureState, Relief, Seen, relieve, wants_room
from basekeeper.cache.quarantine_plan import Decision, JudgedEntry
from basekeeper.cache.settings import Drain, Limits, Mode, Policy, Pressure
from basekeeper.cache.verdicts import EVICTION_REASONS, Reason, Verdict
from basekeeper.cache.windows import Window
from tests.unit.judging import (
    DEAF,
    HOUR,
    IMAGE,
    MINUTE,
    NO_LIMITS,
    NOW,
    SPAWN,
    UNKNOWN,
    cached,
    inode_of,
    judge,
    made_from,
    original,
    overlay,
    removed,
    used,
)

Item = TypeVar("Item")
MIB = 1 << 20
DISK = 1000 * MIB
MARKS = Policy(mode=Mode.ENFORCE, limits=NO_LIMITS, pressure=Pressure(high_percent=85, low_percent=75))
CLOSED = Window("0 3 1 6 *", 60.0, UTC)
"""Open for a minute in June, which it is not now."""
BUDGET = replace(MARKS, pressure=None, max_cache_bytes=300 * MIB)


def full(percent: float) -> Room:
    """A file system of 1000 MiB that is so full."""
    taken = int(DISK * percent / 100)
    return Room(used=taken, available=DISK - taken)


def young(number: int, hours: float, *, mib: int = 40, **other: object) -> CachedFile:
    """An original that was unused for so many hours, which is less than its own day."""
    return cached(original(number), age=hours * HOUR, size=mib * MIB, **other)


def relief(plan: Plan) -> Relief:
    """What the plan says about room."""
    assert plan.relief is not None
    return plan.relief


def going(plan: Plan) -> list[bytes]:
    """What goes, in order."""
    return [item.file.name.raw for item in plan.removals]


TEN = [young(number, 20 - number) for number in range(10)]
"""Ten files of 40 MiB, the first one unused for longest."""


def test_without_marks_and_budget_a_full_disk_changes_nothing() -> None:
    told = judge(*TEN, policy=Policy(limits=NO_LIMITS), room=full(99))
    assert (told.relief, going(told)) == (None, [])


@pytest.mark.parametrize(
    ("percent", "evicting", "files"),
    [
        pytest.param(85, False, 0, id="at the high mark nothing begins"),
        pytest.param(85.1, False, 3, id="above it as many go as lead to the low mark"),
        pytest.param(80, False, 0, id="between the marks nothing begins"),
        pytest.param(80, True, 2, id="between the marks what has begun goes on"),
        pytest.param(75, True, 0, id="at the low mark it ends"),
        pytest.param(99, False, 6, id="on a full disk"),
    ],
)
def test_eviction_begins_above_the_high_mark_and_goes_on_to_the_low_one(
    percent: float, evicting: bool, files: int
) -> None:
    told = judge(*TEN, policy=MARKS, room=full(percent), memory=Memory(evicting=evicting))
    assert going(told) == [original(number) for number in range(files)]
    assert {item.reason for item in told.removals} <= {Reason.PRESSURE}
    assert relief(told).evicting is bool(files)
    assert relief(told).state is (PressureState.PRESSURE if files else PressureState.BELOW)


def test_what_only_root_may_write_is_on_neither_side_as_in_df() -> None:
    assert Room(used=900, available=100).used_percent == 90
    assert Room(used=0, available=0).used_percent == 0
    assert not wants_room(Room(used=75, available=25), Pressure())
    assert wants_room(Room(used=76, available=24), Pressure())
    assert not wants_room(None, Pressure())


def test_the_least_recently_used_goes_first_whatever_its_kind_and_size() -> None:
    files = [young(1, 3, mib=10), cached(b"swap_512", age=5 * HOUR, size=10 * MIB), young(2, 4, mib=500)]
    assert going(judge(*files, policy=MARKS, room=full(86))) == [b"swap_512", original(2)]


def test_when_it_was_last_seen_in_use_counts_not_its_stamp_alone() -> None:
    memory = Memory(last_used={original(0): NOW - 2 * HOUR})
    assert going(judge(*TEN, policy=MARKS, room=full(86), memory=memory))[0] == original(1)


NEVER: dict[str, tuple[CachedFile, Usage, Policy, Memory]] = {
    "used by a disk": (young(0, 20), used({original(0): [overlay()]}), MARKS, Memory()),
    "used by its inode": (
        young(0, 20),
        Usage(by_inode={inode_of(original(0)): (overlay(),)}),
        MARKS,
        Memory(),
    ),
    "locked by qemu": (young(0, 20), Usage(qemu_locks=frozenset({inode_of(original(0))})), MARKS, Memory()),
    "locked by nova": (young(0, 20), Usage(nova_locks=frozenset({original(0)})), MARKS, Memory()),
    "open in a process": (young(0, 20), Usage(open_files={inode_of(original(0)): "process 7"}), MARKS, Memory()),
    "the image of a domain": (cached(age=20 * HOUR), made_from(), MARKS, Memory()),
    "pinned by the policy": (
        cached(age=20 * HOUR),
        Usage(),
        replace(MARKS, pinned_images=frozenset({IMAGE})),
        Memory(),
    ),
    "pinned by hand": (young(0, 20), Usage(), MARKS, Memory(pins={original(0): NOW + 1})),
    "used within the last hour": (young(0, 0.99), Usage(), MARKS, Memory()),
    "seen in use within the last hour": (
        young(0, 20),
        Usage(),
        MARKS,
        Memory(last_used={original(0): NOW - 0.5 * HOUR}),
    ),
    "without a time stamp": (young(0, 20, mtime=0.0), Usage(), MARKS, Memory()),
    "of a time to come": (young(0, -1), Usage(), MARKS, Memory()),
    "with another hard link": (young(0, 20, links=2), Usage(), MARKS, Memory()),
    "an empty file": (young(0, 20, allocated=0), Usage(), MARKS, Memory()),
    "not nova's": (cached(b"notes.txt", age=20 * HOUR, size=900 * MIB), Usage(), MARKS, Memory()),
}


@pytest.mark.parametrize(("file", "usage", "policy", "memory"), NEVER.values(), ids=NEVER)
@pytest.mark.parametrize("budget", [None, 1], ids=["pressure", "budget"])
def test_however_full_the_disk_is_it_stays(
    file: CachedFile, usage: Usage, policy: Policy, memory: Memory, budget: int | None
) -> None:
    policy = replace(policy, max_cache_bytes=budget)
    told = judge(file, usage=usage, policy=policy, memory=memory, room=full(100))
    assert going(told) == []
    assert relief(told).state is PressureState.NOT_OURS
    assert relief(told).order == ()


BLOCKED: dict[str, tuple[Usage, Policy, Memory, Reason]] = {
    "a disk that cannot be read": (Usage(unknown=(UNKNOWN,)), MARKS, Memory(), Reason.UNKNOWN_USAGE),
    "libvirt that does not answer": (Usage(unknown=(DEAF,)), MARKS, Memory(), Reason.UNKNOWN_USAGE),
    "what cannot be read, of another name": (
        Usage(unknown=(replace(UNKNOWN, only=frozenset({b"other"})),)),
        MARKS,
        Memory(),
        Reason.UNKNOWN_USAGE,
    ),
    "an instance that may be starting": (Usage(spawns=(SPAWN,)), MARKS, Memory(), Reason.SPAWN_IN_PROGRESS),
    "other hosts": (Usage(shared=Shared("nfs")), MARKS, Memory(), Reason.SHARED_STORAGE),
    "suspend": (Usage(), replace(MARKS, suspend=True), Memory(), Reason.SUSPENDED),
    "other directories": (Usage(), MARKS, Memory(directories=Directories.OTHER), Reason.OTHER_DIRECTORY),
    "a quarantine that is emptied": (Usage(), replace(MARKS, drain=Drain.PURGE), Memory(), Reason.DRAINING),
    "no open window": (Usage(), replace(MARKS, windows=(CLOSED,)), Memory(), Reason.OUTSIDE_WINDOW),
}


@pytest.mark.parametrize(("usage", "policy", "memory", "reason"), BLOCKED.values(), ids=BLOCKED)
def test_where_a_purge_is_not_allowed_nothing_is_evicted_and_what_would_go_is_held(
    usage: Usage, policy: Policy, memory: Memory, reason: Reason
) -> None:
    told = judge(*TEN, usage=usage, policy=policy, memory=memory, room=full(86))
    assert going(told) == []
    held = [item for item in told.files if item.verdict is Verdict.HOLD]
    assert sorted(item.file.name.raw for item in held) == sorted(original(number) for number in range(3))
    assert {item.reason for item in held} == {reason}
    assert (relief(told).order, relief(told).state) == ((), PressureState.NOT_OURS)
    assert reason in {hold.reason for hold in told.holds}


def test_an_entry_that_would_be_purged_early_is_held_where_purges_are() -> None:
    usage = Usage(unknown=(UNKNOWN,))
    told = judge(removed(ago=HOUR, allocated=400 * MIB), usage=usage, policy=MARKS, room=full(86))
    assert [(item.decision, item.reason) for item in told.entries] == [(Decision.HOLD, Reason.UNKNOWN_USAGE)]
    assert told.held


def test_a_file_that_is_held_by_itself_makes_way_for_the_next() -> None:
    usage = Usage(unidentified_raw=("c/disk",))
    files = [young(0, 20), cached(b"swap_512", age=10 * HOUR, size=400 * MIB)]
    told = judge(*files, usage=usage, policy=MARKS, room=full(86))
    assert going(told) == [b"swap_512"]
    assert {item.reason for item in told.files} == {Reason.IMAGE_UNKNOWN, Reason.PRESSURE}


def test_windows_are_broken_only_with_permission_and_then_by_what_is_old_enough_first() -> None:
    closed = replace(MARKS, windows=(CLOSED,))
    files: list[CachedFile] = [*TEN, cached(original(99), age=40 * HOUR, size=40 * MIB)]
    assert going(judge(*files, policy=closed, room=full(86))) == []
    allowed = replace(closed, pressure=Pressure(ignore_windows=True))
    told = judge(*files, policy=allowed, room=full(86))
    assert going(told) == [original(99), original(0), original(1)]
    assert told.purge_blocked is None
    below = judge(*files, policy=allowed, room=full(50))
    assert going(below) == []
    assert {item.reason for item in below.files if item.verdict is Verdict.HOLD} == {Reason.OUTSIDE_WINDOW}


def entry(number: int, minutes: float, *, mib: int = 40, **other: Any) -> QuarantineEntry:
    """A quarantined original, removed so many minutes ago, with hours to wait."""
    return removed(original(number), ago=minutes * MINUTE, allocated=mib * MIB, **other)


def decisions(plan: Plan) -> list[tuple[bytes, Decision, Reason]]:
    """What becomes of the quarantined files, the longest removed first."""
    by_time = sorted(plan.entries, key=lambda item: item.entry.removed_at)
    return [(item.entry.name.raw, item.decision, item.reason) for item in by_time]


def test_the_quarantine_is_emptied_first_the_longest_removed_first_and_no_further_than_needed() -> None:
    entries = [entry(number, 60 - number) for number in range(4)]
    told = judge(*entries, *TEN[4:], policy=MARKS, room=full(85.2))
    purged = [(original(number), Decision.PURGE, Reason.PRESSURE) for number in (0, 1, 2)]
    assert decisions(told) == [*purged, (original(3), Decision.WAIT, Reason.IN_QUARANTINE)]
    assert going(told) == []


def test_what_was_removed_a_moment_ago_counts_as_freed_but_is_not_purged_yet() -> None:
    told = judge(entry(50, 9.9, mib=80), *TEN, policy=MARKS, room=full(86))
    assert decisions(told) == [(original(50), Decision.WAIT, Reason.IN_QUARANTINE)]
    assert going(told) == [original(0)]
    assert relief(told).next_at == pytest.approx(NOW + 6)
    assert relief(told).state is PressureState.PRESSURE


WAITS: dict[str, tuple[QuarantineEntry, Usage, Memory]] = {
    "a damaged side-car": (entry(50, 60, reason="", due_at=NOW + 9e9), Usage(), Memory()),
    "another link": (entry(50, 60, links=2), Usage(), Memory()),
    "nova's lock on its name": (entry(50, 60), Usage(nova_locks=frozenset({original(50)})), Memory()),
    "ages that began anew": (entry(50, 60), Usage(), Memory(ages_since=NOW - 5 * MINUTE)),
    "a removal in the time to come": (entry(50, -60), Usage(), Memory()),
    "a spawn grace of its own": (entry(50, 60), Usage(spawn_grace=2 * HOUR), Memory()),
}


@pytest.mark.parametrize(("item", "usage", "memory"), WAITS.values(), ids=WAITS)
def test_a_quarantined_file_with_anything_against_a_purge_waits(
    item: QuarantineEntry, usage: Usage, memory: Memory
) -> None:
    told = judge(item, usage=usage, policy=MARKS, memory=memory, room=full(99))
    assert [judged.decision for judged in told.entries] == [Decision.WAIT]


def test_a_needed_entry_goes_back_and_a_conflict_stays_however_full_the_disk_is() -> None:
    needed = used({original(50): [overlay()]})
    assert [item.decision for item in judge(entry(50, 60), usage=needed, policy=MARKS, room=full(99)).entries] == [
        Decision.RESTORE
    ]
    conflict = judge(entry(50, 60), young(50, 0), usage=needed, policy=MARKS, room=full(99))
    assert [(item.decision, item.reason) for item in conflict.entries] == [(Decision.HOLD, Reason.CONFLICT)]


def test_what_is_old_enough_goes_as_always_and_counts() -> None:
    old = cached(original(99), age=40 * HOUR, size=100 * MIB)
    told = judge(*TEN, old, policy=MARKS, room=full(86))
    assert [(item.file.name.raw, item.reason) for item in told.removals] == [
        (original(99), Reason.EXPIRED),
        (original(0), Reason.PRESSURE),
    ]


def test_limits_hold_for_each_pass_and_the_rest_waits() -> None:
    told = judge(*TEN, policy=replace(MARKS, limits=Limits(max_files=2, max_percent=100)), room=full(99))
    assert going(told) == [original(0), original(1)]
    assert [item.reason for item in told.files if item.verdict is Verdict.HOLD] == [Reason.LIMIT_REACHED] * 4


def test_a_shared_extent_frees_nothing_on_the_disk_and_its_file_is_passed_over() -> None:
    shared = {inode_of(original(0)): 40 * MIB, inode_of(original(1)): 30 * MIB}
    told = judge(*TEN, policy=MARKS, room=full(86), shared=shared)
    assert going(told) == [original(number) for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(("budget", "files"), [(400, 0), (399, 1), (361, 1), (0.5, 10)])
def test_a_budget_is_kept_whatever_else_is_on_the_disk(budget: float, files: int) -> None:
    told = judge(*TEN, policy=replace(BUDGET, max_cache_bytes=int(budget * MIB)), room=full(1))
    assert going(told) == [original(number) for number in range(files)]
    assert {item.reason for item in told.removals} <= {Reason.OVER_BUDGET}
    assert relief(told).state is (PressureState.OVER_BUDGET if files else PressureState.BELOW)
    assert not relief(told).evicting


def test_a_budget_counts_the_quarantine_and_each_inode_once() -> None:
    twin = young(7, 1, inode=(1, 5), links=2)
    files = (twin, replace(twin, name=young(8, 1).name), entry(50, 1))
    assert relief(judge(*files, policy=BUDGET, room=None)).cache_bytes == 80 * MIB


def test_a_budget_uses_the_age_of_pressure_or_its_default() -> None:
    files = [young(0, 1.5), young(1, 0.5)]
    tight = replace(BUDGET, max_cache_bytes=1)
    assert going(judge(*files, policy=tight)) == [original(0)]
    longer = replace(tight, pressure=Pressure(minimum_age=2 * HOUR))
    assert going(judge(*files, policy=longer)) == []


def test_the_own_age_counts_where_it_is_the_shorter_one() -> None:
    resized = cached(original(0) + b"_20", age=1.5 * HOUR, size=40 * MIB)
    told = judge(resized, policy=replace(MARKS, pressure=Pressure(minimum_age=9 * HOUR)), room=full(99))
    assert [item.reason for item in told.removals] == [Reason.EXPIRED]


def test_pressure_is_told_before_the_budget_where_both_want_room() -> None:
    told = judge(*TEN, policy=replace(MARKS, max_cache_bytes=200 * MIB), room=full(86))
    reasons = [item.reason for item in told.removals]
    assert reasons == [Reason.PRESSURE] * 3 + [Reason.OVER_BUDGET] * 2


def test_a_disk_that_the_cache_cannot_relieve_is_not_ours_and_the_note_says_what_the_cache_holds() -> None:
    files = [young(0, 20), young(1, 20), young(2, 0.1)]
    usage = used({original(0): [overlay()]}, unknown=(UNKNOWN,))
    told = judge(*files, usage=usage, policy=MARKS, room=full(91.25))
    assert relief(told).state is PressureState.NOT_OURS
    (note,) = [note.message for note in told.notes if note.about == "PressureNotOurs"]
    assert note == (
        "the cache's file system is 91.2 % full, above 85 %; nothing in the cache may go now: it takes up 120.0 MiB, "
        "of that 40.0 MiB TooYoung, 40.0 MiB held (UnknownUsage), 40.0 MiB in use"
    )


@pytest.mark.parametrize(
    ("percent", "state"), [(86, PressureState.NOT_OURS), (85, PressureState.BELOW), (80, PressureState.BELOW)]
)
def test_between_the_marks_eviction_ends_when_nothing_is_left(percent: float, state: PressureState) -> None:
    told = judge(young(0, 0.5), policy=MARKS, room=full(percent), memory=Memory(evicting=True))
    assert (relief(told).state, relief(told).evicting) == (state, state is PressureState.NOT_OURS)


def test_a_disk_that_lacks_room_is_looked_at_again_when_the_next_file_is_old_enough() -> None:
    told = judge(young(0, 0.5), young(1, 0.25), policy=MARKS, room=full(86))
    assert relief(told).next_at == NOW + 0.5 * HOUR


def test_between_the_marks_eviction_goes_on_when_what_is_left_is_held() -> None:
    told = judge(*TEN, usage=Usage(spawns=(SPAWN,)), policy=MARKS, room=full(80), memory=Memory(evicting=True))
    assert (relief(told).state, relief(told).evicting) == (PressureState.PRESSURE, True)


def test_a_file_system_that_cannot_be_asked_begins_and_ends_nothing() -> None:
    for evicting in (True, False):
        told = relief(judge(*TEN, policy=MARKS, room=None, memory=Memory(evicting=evicting)))
        assert (told.state, told.evicting, told.evicted) == (PressureState.BELOW, evicting, {})
        assert "does not say how full it is" in told.message


# --- what must hold of every cache -------------------------------------------------------------------------------

numbers = st.integers(0, 12)
amounts = st.sampled_from([0, 4096, 10 * MIB, 40 * MIB, 300 * MIB])
holdings = st.none() | st.just((Reason.IMAGE_UNKNOWN, "a raw disk"))
candidates = st.lists(
    st.builds(
        Candidate,
        numbers.map(original),
        st.tuples(st.just(1), numbers),
        st.integers(-5, 0).map(lambda hours: NOW + hours * HOUR),
        amounts,
        holdings,
    ),
    max_size=8,
    unique_by=(lambda item: item.name, lambda item: item.inode),
)


@st.composite
def waiting(draw: st.DrawFn) -> tuple[JudgedEntry, ...]:
    """Entries that wait, are due or are held."""
    made = []
    for number in draw(st.lists(st.integers(50, 58), max_size=5, unique=True)):
        item = entry(number, draw(st.integers(-3, 30)), mib=40, inode=(1, number), links=draw(st.integers(1, 2)))
        decision = draw(st.sampled_from([Decision.WAIT, Decision.WAIT, Decision.PURGE, Decision.HOLD]))
        waits = decision is Decision.WAIT and draw(st.booleans())
        at = item.removed_at + 10 * MINUTE if waits else None
        made.append(JudgedEntry(item, decision, Reason.IN_QUARANTINE, "", purgeable_at=at))
    return tuple(made)


percents = st.floats(0, 100, allow_nan=False)
policies = st.builds(
    Policy,
    limits=st.just(NO_LIMITS),
    pressure=st.none() | st.sampled_from([Pressure(), Pressure(50, 10), Pressure(99, 98)]),
    max_cache_bytes=st.none() | st.sampled_from([1, 50 * MIB, 500 * MIB]),
)
blocks = st.none() | st.none() | st.just((Reason.SUSPENDED, "suspended"))


@st.composite
def wants(draw: st.DrawFn) -> tuple[Inventory, Policy, Seen, bool]:
    """A cache that was judged, and what its policy wants."""
    found, entries = draw(candidates), draw(waiting())
    files = tuple(
        cached(item.name, inode=item.inode, size=item.bytes, mtime=item.unused_since) for item in found
    )  # what is used, too young or foreign needs no mention: pressure does not see it
    shared: dict[Inode, int] = draw(st.dictionaries(st.tuples(st.just(1), numbers), amounts, max_size=2))
    inventory = Inventory(files, tuple(item.entry for item in entries), room=full(draw(percents)), shared=shared)
    going_anyway = draw(st.lists(st.tuples(st.tuples(st.just(2), numbers), amounts), max_size=2))
    seen = Seen(entries, found, going=going_anyway, blocked=draw(blocks))
    return inventory, draw(policies), seen, draw(st.booleans())


def freed(inventory: Inventory, items: Sequence[tuple[Inode, int]]) -> int:
    """Bytes that come free on the disk."""
    return sum(max(0, size - inventory.shared.get(inode, 0)) for inode, size in items)


@given(wants())
def test_what_is_evicted_is_the_beginning_of_the_order_and_never_more_than_one_file_too_much(
    want: tuple[Inventory, Policy, Seen, bool],
) -> None:
    inventory, policy, seen, evicting = want
    told = relieve(inventory, policy, seen, NOW, evicting=evicting)
    assert (told is None) == (policy.pressure is None and policy.max_cache_bytes is None)
    if told is None:
        return
    by_name = {item.name: item for item in seen.candidates}
    assert set(told.evicted).isdisjoint(told.held)
    assert {*told.evicted, *told.held} <= set(by_name)
    assert all(reason in EVICTION_REASONS for reason, _ in told.evicted.values())
    if seen.blocked is not None:
        assert (dict(told.evicted), dict(told.purged), told.order) == ({}, {}, ())
        return
    helpful = [
        name for name in told.order if policy.max_cache_bytes is not None or freed(inventory, [_of(by_name[name])])
    ]
    picked = [name for name in helpful if name in told.evicted]
    if policy.max_cache_bytes is None or policy.pressure is None:
        assert picked == helpful[: len(picked)]
    assert all(by_name[name].held is None for name in told.evicted)
    counted = [_of_entry(item) for item in seen.entries if item.decision is Decision.PURGE]
    counted += seen.going
    waited = sorted(
        (item for item in seen.entries if item.purgeable_at is not None),
        key=lambda item: (item.entry.removed_at, item.entry.id),
    )
    counted += [_of_entry(item) for item in waited]
    evicted = [_of(by_name[name]) for name in sorted(told.evicted, key=told.order.index)]
    if policy.max_cache_bytes is None and evicted:
        assert freed(inventory, counted) < told.target, "something waits in the quarantine that would be enough"
        assert freed(inventory, [*counted, *evicted[:-1]]) < told.target, "one file too many"
    if policy.max_cache_bytes is None and freed(inventory, [*counted, *evicted]) < told.target:
        assert picked == helpful, "not enough goes, and something is left that may"


def _of(item: Candidate) -> tuple[Inode, int]:
    return item.inode, item.bytes


def _of_entry(item: JudgedEntry) -> tuple[Inode, int]:
    return item.entry.inode, item.entry.reclaimable


@given(wants())
def test_what_is_purged_early_lay_there_long_enough_and_nothing_older_that_may_go_is_left(
    want: tuple[Inventory, Policy, Seen, bool],
) -> None:
    inventory, policy, seen, evicting = want
    told = relieve(inventory, policy, seen, NOW, evicting=evicting)
    if told is None:
        return
    entries = {item.entry.id: item for item in seen.entries}
    for entry_id in told.purged:
        at = entries[entry_id].purgeable_at
        assert at is not None
        assert at <= NOW
    may = [
        item.entry
        for item in seen.entries
        if item.purgeable_at is not None and freed(inventory, [_of_entry(item)]) and item.purgeable_at <= NOW
    ]
    may.sort(key=lambda item: (item.removed_at, item.id))
    chosen = {*told.purged, *told.purges_held}
    assert [item.id in chosen for item in may] == sorted((item.id in chosen for item in may), reverse=True)
    assert told.next_at is None or told.next_at > NOW


@given(wants(), st.randoms(use_true_random=False))
def test_equal_caches_get_equal_answers_in_whatever_order_they_come(
    want: tuple[Inventory, Policy, Seen, bool], random: Random
) -> None:
    inventory, policy, seen, evicting = want
    shuffled = replace(seen, entries=_shuffled(seen.entries, random), candidates=_shuffled(seen.candidates, random))
    one, two = (relieve(inventory, policy, item, NOW, evicting=evicting) for item in (seen, shuffled))
    assert one == two


def _shuffled(items: Sequence[Item], random: Random) -> list[Item]:
    mixed = list(items)
    random.shuffle(mixed)
    return mixed


def _moved(item: Candidate) -> JudgedEntry:
    """A file that has just been evicted."""
    made = removed(
        item.name, ago=0, retention=600, inode=item.inode, allocated=item.bytes, reason=Reason.PRESSURE.value
    )
    return JudgedEntry(made, Decision.WAIT, Reason.IN_QUARANTINE, "", purgeable_at=made.due_at)


@given(wants())
def test_the_next_pass_goes_no_further_when_nothing_has_changed_but_what_this_one_did(
    want: tuple[Inventory, Policy, Seen, bool],
) -> None:
    """The arithmetic that keeps it from evicting as much again in each pass until the purge."""
    inventory, policy, seen, evicting = want
    first = relieve(inventory, policy, seen, NOW, evicting=evicting)
    if first is None or not first.evicted:
        return
    by_name = {item.name: item for item in seen.candidates}
    moved = tuple(_moved(by_name[name]) for name in first.evicted)
    later = replace(
        seen,
        entries=(*seen.entries, *moved),
        candidates=[item for item in seen.candidates if item.name not in first.evicted],
    )
    left = tuple(file for file in inventory.files if file.name.raw not in first.evicted)
    after = replace(inventory, files=left, entries=(*inventory.entries, *(item.entry for item in moved)))
    second = relieve(after, policy, later, NOW + 30, evicting=first.evicting)
    assert second is not None
    assert second.evicted == {}
